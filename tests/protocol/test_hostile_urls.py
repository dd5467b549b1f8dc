"""
URLs made to lead a client astray: the token is for exact hosts, and whoever is not trusted does not hear from us at all.

Every name in the world leads to this machine: those that are trusted by default to a server with their certificate, all
others, and all addresses, to a server that should never be called.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
import ssl
import string
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
import httpx
import pytest
import yarl
from hypothesis import HealthCheck, example, find, given, settings
from hypothesis import strategies as st

from meta_media import InboundMedia, MediaApi, MediaInfo, Settings
from meta_media.errors import MediaError, NetworkError, ServerError, UntrustedUrlError
from meta_media.protocol.requests import media_request
from tests.support.servers import Server, info, page, told, until

TOKEN: Final = "EAAG-canary-of-a-token"
CONTENT: Final = b"\xff\xd8\xff" + bytes(range(256)) * 8
JPEG: Final = "image/jpeg"
HOST: Final = "lookaside.fbsbx.com"  # gets the token
CDN: Final = "scontent.xx.fbcdn.net"  # does not
TOKEN_HOSTS: Final = frozenset({HOST, "graph.facebook.com"})
EVIL: Final = "evil.test"
OWN: Final = ("tokens.test", "files.test")  # trusted by nobody who has not set so
PLAIN: Final = f"https://{HOST}/whatsapp_business/attachments/?mid=1&ext=1795342300&hash=ATz0"


# What fetch makes of them, and what everybody else reads


@attrs.frozen
class Reading:
    """What somebody makes of a URL: where a connection would go, and whether a user or password is in it."""

    scheme: str
    host: str
    port: int | None
    user: bool

    @property
    def gets_token(self) -> bool:
        """Whether the token is meant for this place."""
        return (self.scheme, self.port, self.user) == ("https", 443, False) and self.host in TOKEN_HOSTS

    @property
    def serves_media(self) -> bool:
        """Whether this place may serve media, at least without the token."""
        below = self.host.endswith((".fbcdn.net", ".whatsapp.net"))
        return self.gets_token or ((self.scheme, self.port, self.user, below) == ("https", 443, False, True))


def _urllib(url: str) -> Reading:
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    return Reading(parts.scheme, parts.hostname or "", port, parts.username is not None or parts.password is not None)


def _httpx(url: str) -> Reading:
    parsed = httpx.URL(url)
    port = parsed.port or {"https": 443, "http": 80}.get(parsed.scheme)
    return Reading(parsed.scheme, parsed.raw_host.decode(), port, bool(parsed.userinfo))


def _yarl(url: str) -> Reading:
    parsed = yarl.URL(url)
    user = parsed.raw_user is not None or parsed.raw_password is not None
    return Reading(parsed.scheme, parsed.raw_host or "", parsed.port, user)


def _browser(url: str) -> Reading:
    """Read as the URL Standard has it: white space vanishes, and a backslash is a slash."""
    stripped = url.strip("".join(map(chr, range(33)))).translate(dict.fromkeys(map(ord, "\t\n\r")))
    scheme, _, rest = stripped.partition(":")
    authority = rest.replace("\\", "/").lstrip("/").partition("/")[0].partition("?")[0].partition("#")[0]
    user, at, address = authority.rpartition("@")
    host, _, port = address.rpartition(":") if address.rpartition(":")[2].isdecimal() else (address, "", "")
    default = {"https": 443, "http": 80}.get(scheme.lower())
    return Reading(scheme.lower(), host.removesuffix(":").lower(), int(port) if port else default, bool(at or user))


READERS: Final[tuple[Callable[[str], Reading], ...]] = (_urllib, _httpx, _yarl, _browser)


def readings(url: str) -> list[Reading | None]:
    """Collect what everybody reads; None where they cannot."""
    found: list[Reading | None] = []
    for read in READERS:
        try:
            found.append(read(url))
        except (ValueError, TypeError, httpx.InvalidURL):
            found.append(None)
    return found


def disguised(name: str) -> list[str]:
    """List what looks like a trusted name, or can be made to look like one, and is none."""
    first, dot, rest = name.partition(".")
    points = ("\u3002", "\uff0e", "\uff61", "%2e", "%E3%80%82", "..", "-", ",")
    letters = {"o": "\u043e", "a": "\uff41", "s": "\u017f", "k": "\u212a", "fb": "\ufb01"}
    between = ("%00", "\0", "%2f", "%23", "%5c", ";", ",", " ", "\t", "\u2044", "\\", "%20", "\xad")
    looks = [
        *(f"{name}.{EVIL}", f"evil{name}", f"evil-{name}", f"evil.{name}", f"{name}.", f"{name}..", f".{name}", rest),
        *(name.replace(".", point) for point in points),
        *(name.replace(letter, like) for letter, like in letters.items()),
        *(f"{name}{character}.{EVIL}" for character in between),
        *(f"{name}{character}" for character in between),
        *(f"{first}\xad{dot}{rest}", f"{first}\u200d{dot}{rest}", f"xn--{first}{dot}{rest}", f"_{name}", f"[{name}]"),
        *(f"{EVIL}\\@{name}", f"{EVIL}#@{name}", f"{EVIL}?@{name}", f"{EVIL}%40{name}", f"{EVIL}:{name}"),
        *(f"{name}\\@{EVIL}", f"{name}&@{EVIL}", f"{name}%40{EVIL}", f"{name}:{name}", f"{name}\u2024test"),
    ]
    return [look for look in dict.fromkeys(looks) if look != name]


ADDRESSES: Final = (
    *(
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "0",
        "0.0.0.0",
        "localhost",
        "localhost.",
    ),
    *(
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:0:0:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
    ),
    *("169.254.169.254", "2852039166", "[fd00:ec2::254]", "[fe80::1%25lo]", "[::ffff:169.254.169.254]", "10.0.0.1"),
    *(
        "192.168.0.1",
        "172.16.0.1",
        "metadata.google.internal",
        "127.0.0.1.nip.io",
        "\u2460\u2461\u2466.0.0.1",
        "127\u30020\u30020\u30021",
    ),
)
NAMES: Final = (HOST, CDN, "graph.facebook.com", "mmg.whatsapp.net")
SCHEMES: Final = (
    *("https://", "http://", "HTTPS://", "hTTps://", "https:", "https:/", "https:///", "https:////", "//", "", "://"),
    *("https:\\\\", "https:/\\", "https:\\/", "ftp://", "file://", "file:///", "ws://", "wss://", "gopher://", "data:"),
    *(
        "javascript:",
        "blob:https://",
        "https://https://",
        "http+unix://",
        "view-source:https://",
        "https://\\",
        "jar:https://",
    ),
    *(
        " https://",
        "\thttps://",
        "ht\ntps://",
        "\x00https://",
        "https\u200b://",
        "https:\n//",
        "\ufeffhttps://",
        "https ://",
    ),
)
USERS: Final = (
    *("", "", "", "user@", "user:pass@", ":@", "@", "@@", f"{HOST}@", f"{HOST}:443@", f"{HOST}%40", f"{HOST}\\@"),
    *(f"{HOST}#@", f"{HOST}?@", f"{HOST}/@", f"https:{HOST}@", f"{HOST}%00@", f"{HOST}\t@", f"{HOST};@", f"{HOST}&@"),
)
PORTS: Final = (
    *("", "", "", ":443", ":80", ":8443", ":0443", ":00443", ":0", ":", ":99999", ":65536", ":-1", ":+443", ": 443"),
    *(
        ":443:443",
        ":443.",
        ":0x1bb",
        ":\uff14\uff14\uff13",
        ":\u0664\u0664\u0663",
        f":443@{EVIL}",
        f":@{EVIL}",
        f":{HOST}",
    ),
)
TAILS: Final = (
    *(
        "",
        "/",
        "/x?y=1",
        "?x",
        f"?@{EVIL}",
        f"#@{EVIL}",
        f"\\@{EVIL}",
        f"/@{EVIL}",
        f"@{EVIL}",
        f"/..//{EVIL}",
        f"//{EVIL}",
    ),
    *(
        f"\\\\{EVIL}",
        f"/\\{EVIL}",
        f"/%2f@{EVIL}",
        " ",
        "\n",
        "\t",
        f"\r\nHost: {EVIL}",
        f"/ HTTP/1.1\r\nHost: {EVIL}\r\n",
    ),
    *(
        "/\x00",
        "/\u00e9",
        "/\u2028",
        "/%",
        "/[",
        "/|^{}",
        "/a b",
        "/\x7f",
        f"/?next=https://{EVIL}",
        f";{EVIL}",
        "/\ud800",
    ),
)
HOSTS: Final = (*NAMES, *ADDRESSES, EVIL, *(disguise for name in NAMES for disguise in disguised(name)))
AWKWARD: Final = st.sampled_from(
    "/\\@:#?%.;&=[]|^{} \t\r\n\0\x7f\x85\xa0\xad\u200b\u2028\u3002\uff0e\uff0f\uff20\uff1a\u212a\u017f\ud800"
)
COMPOSED: Final = st.tuples(*map(st.sampled_from, (SCHEMES, USERS, HOSTS, PORTS, TAILS))).map("".join)
LIKELY: Final = st.tuples(st.just("https://"), st.just(""), *map(st.sampled_from, (HOSTS, PORTS, TAILS))).map("".join)


@st.composite
def tampered(draw: st.DrawFn) -> str:
    """Take a good URL, and put up to three odd characters somewhere into it, or in the place of others."""
    url = draw(
        st.sampled_from([PLAIN, f"https://{CDN}/v/t45.1?oe=6", f"https://{HOST}:443/x", "https://graph.facebook.com"])
    )
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, min(len(url), 45)))
        url = url[:at] + draw(AWKWARD | st.characters()) + url[at + draw(st.integers(0, 1)) :]
    return url


HOSTILE: Final = COMPOSED | LIKELY | tampered() | st.text()


def judged(url: str) -> bool | None:
    """Tell whether a URL would be fetched, with the token or without; None if not at all."""
    try:
        request = media_request(url, Settings())
    except UntrustedUrlError:
        return None
    assert (request.url, request.method) == (url, "GET")
    return request.bearer


@settings(max_examples=2000, deadline=None)
@given(HOSTILE)
@example(PLAIN)
@example(f"https://{CDN}/v/t45.1?oe=6")
@example(f"https://{HOST}:443?x")
@example("https://loo\u212aaside.fbsbx.com/x")
def test_the_token_goes_where_everybody_reads_the_same(url: str) -> None:
    """A URL is fetched only if four others read a trusted host from it, and with the token only if a host that may see it."""
    bearer = judged(url)
    found = readings(url)
    if bearer:
        assert all(reading is not None and reading.gets_token for reading in found), found
    elif bearer is not None:
        assert all(reading is not None and reading.serves_media for reading in found), found
        assert not any(reading is not None and reading.gets_token for reading in found), found


@settings(deadline=None)
@given(
    st.sampled_from([*sorted(TOKEN_HOSTS), CDN, "a.b.c.fbcdn.net", "mmg.whatsapp.net"]),
    st.sampled_from(["", ":443"]),
    st.lists(st.text(string.ascii_letters + string.digits + "-._~", max_size=8), max_size=4),
    st.none() | st.text(string.ascii_letters + string.digits + "-._~=&%/:", max_size=30),
)
def test_plain_urls_of_trusted_hosts_are_fetched(host: str, port: str, path: list[str], query: str | None) -> None:
    """Whatever path and query a trusted host has in its URLs, they are fetched; the token goes to token hosts, and all."""
    url = f"https://{host}{port}/{'/'.join(path)}" + ("" if query is None else f"?{query}")

    assert judged(url) is (host in TOKEN_HOSTS)
    assert judged(url.replace(host, host.upper())) is (host in TOKEN_HOSTS)


IMITATED: Final = (HOST, "graph.facebook.com", "fbcdn.net")
FOREIGN: Final = [
    host
    for host in (EVIL, "fbcdn.net", *ADDRESSES, *(look for name in IMITATED for look in disguised(name)))
    if not re.fullmatch(r"([a-z0-9-]+\.)+fbcdn\.net", host)  # any of whose sub-domains is trusted to serve media
]


@pytest.mark.parametrize("host", FOREIGN, ids=ascii)
def test_disguises(host: str) -> None:
    """No disguise of a trusted host is fetched, with any scheme or port, nor with a trusted host for a user."""
    users = [user for user in USERS if not set(user) & set("/?")]  # which would end the host
    around = [*((user, "") for user in users), *(("", port) for port in PORTS)]
    for url in (f"{scheme}{user}{host}{port}/x" for scheme in SCHEMES for user, port in around):
        assert judged(url) is None, url


@pytest.mark.parametrize("outcome", [True, False, None])
def test_the_strategies_reach_every_outcome(outcome: bool | None) -> None:
    """Among the URLs that are tried are some that get the token, some that do not, and some that are refused."""
    assert judged(find(HOSTILE, lambda url: judged(url) is outcome)) is outcome


# End to end


class World:
    """
    All the servers there are.

    Attributes:
        meta: Where the names that are trusted by default lead to, with their certificate.
        sink: Where everything else leads to.
        names: What was looked up.
        lead: Where a name and port lead to instead.
    """

    def __init__(self, meta: Server, sink: Server) -> None:
        self.meta = meta
        self.sink = sink
        self.names: list[str] = []
        self.lead: dict[str, int] = {}

    def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> list[Any]:
        """Look a name up."""
        name = host.decode() if isinstance(host, bytes) else str(host)
        self.names.append(name)
        trusted = int(port) == 443 and (name in TOKEN_HOSTS or name.endswith((".fbcdn.net", ".whatsapp.net")))
        leads_to = self.lead.get(f"{name}:{port}", self.meta.port if trusted else self.sink.port)
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", leads_to))]

    def forget(self) -> None:
        """Begin anew."""
        self.names.clear()
        self.meta.requests.clear()

    def seen(self) -> list[tuple[str | None, bool]]:
        """List the requests that arrived: the host they were for, and whether the token came along."""
        for request in self.meta.requests:
            names = {name for name, _ in request.headers}
            assert names & {"cookie", "referer", "proxy-authorization", "origin"} == set()
            assert request.header("authorization") in {None, f"Bearer {TOKEN}"}
            assert TOKEN not in request.target
        return [(request.header("host"), request.header("authorization") is not None) for request in self.meta.requests]

    def check(self) -> None:
        """Make sure that nobody heard of us but who is trusted, and of the token but who may see it."""
        assert (self.sink.connections, self.sink.requests) == (0, [])
        for host, token in self.seen():
            name = (host or "").lower().removesuffix(":443")
            assert token is (name in TOKEN_HOSTS)
            assert token or name.endswith((".fbcdn.net", ".whatsapp.net"))
        for name in self.names:
            assert name in TOKEN_HOSTS or name.endswith((".fbcdn.net", ".whatsapp.net"))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A certificate for all names that are trusted by default, and what a server with it needs."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    names = ",".join(f"DNS:{name}" for name in (*sorted(TOKEN_HOSTS), CDN, "*.fbcdn.net", "*.whatsapp.net", *OWN))
    made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=meta"]
    files = ["-keyout", str(folder / "key"), "-out", str(folder / "certificate")]
    command = [openssl, "req", "-x509", *made, "-addext", f"subjectAltName={names}", *files]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate", folder / "key")
    return folder / "certificate", context


@pytest.fixture
async def world(certificate: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """All the servers there are, and every name leads to one of them."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    async with Server(served(), tls=certificate[1]) as meta, Server(page("caught")) as sink:
        everything = World(meta, sink)
        monkeypatch.setattr(socket, "getaddrinfo", everything.getaddrinfo)
        yield everything


@pytest.fixture
async def api(world: World) -> AsyncIterator[MediaApi]:
    """A client with nothing set but what makes it fast."""
    async with MediaApi(TOKEN, "1", settings=Settings(backoff=0.001)) as client:
        yield client


def served() -> bytes:
    """Write the reply of a host that serves media."""
    return page(CONTENT, content_type=JPEG)


What = str | MediaInfo | InboundMedia
Verb = Callable[[MediaApi, What, Path], Awaitable[bytes]]


async def _download(api: MediaApi, what: What, folder: Path) -> bytes:
    saved = await api.download(what, folder / "saved.jpg")
    assert saved.path is not None
    content = saved.path.read_bytes()
    saved.path.unlink()
    return content


async def _read(api: MediaApi, what: What, _: Path) -> bytes:
    return await api.read(what)


async def _streamed(api: MediaApi, what: What, _: Path) -> bytes:
    async with api.stream(what) as stream:
        return b"".join([chunk async for chunk in stream])


VERBS: Final[dict[str, Verb]] = {"download": _download, "read": _read, "stream": _streamed}


def carriers(url: str) -> list[What]:
    """Put a URL into everything that may bring one."""
    return [
        MediaInfo(id="7", url=url, mime_type=JPEG),
        InboundMedia(id="7", kind="image", mime_type=JPEG, url=url),
        *([url] if "://" in url else []),
    ]


async def outcome(verb: Verb, api: MediaApi, what: What, folder: Path) -> MediaError | bytes:
    """Return what a download gave, or what was said of it."""
    try:
        return await verb(api, what, folder)
    except MediaError as error:
        return error


def names(folder: Path) -> list[str]:
    """List a folder."""
    return [entry.name for entry in folder.iterdir()]


@pytest.mark.parametrize("host", FOREIGN, ids=ascii)
async def test_no_disguise_is_called(world: World, api: MediaApi, tmp_path: Path, host: str) -> None:
    """A hostile URL, whoever it is from, is refused before anybody is even looked up; Meta is only asked about its id."""
    for url in (
        f"https://{host}/x",
        f"http://{host}/x",
        f"https://{HOST}@{host}/",
        f"https://{host}:{world.sink.port}/x",
    ):
        for verb in VERBS.values():
            world.forget()
            for what in carriers(url):
                refused = await outcome(verb, api, what, tmp_path)
                assert isinstance(refused, UntrustedUrlError)
                assert refused.attempts == 0
            assert (world.names, world.meta.requests) == ([], [])
            world.meta.script = [info(url, media_id="7")]
            assert isinstance(await outcome(verb, api, "7", tmp_path), UntrustedUrlError)
            assert (await api.get_info("7")).url == url
            assert world.seen() == [("graph.facebook.com", True)] * 2
    world.check()
    assert names(tmp_path) == []


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(url=HOSTILE, verb=st.sampled_from(sorted(VERBS)), how=st.integers(0, 3))
@example(url=PLAIN, verb="read", how=0)
@example(url=f"https://{CDN}/x", verb="stream", how=1)
async def test_whatever_the_url(world: World, api: MediaApi, tmp_path: Path, url: str, verb: str, how: int) -> None:
    """Whatever a URL looks like and wherever it comes from: the media, or an error of ours; and no word to strangers."""
    world.forget()
    world.meta.script = [served()]
    ways = [*carriers(url), url]
    got = await outcome(VERBS[verb], api, ways[how % len(ways)], tmp_path)
    if isinstance(got, NetworkError):
        assert judged(url) is False  # a sub-domain that the certificate does not name
    else:
        assert (got == CONTENT) is (judged(url) is not None)
    world.check()
    assert names(tmp_path) == []


# Redirects


def redirect(status: int, location: str | tuple[str, ...]) -> bytes:
    """Write a reply that leads elsewhere, and wants a cookie back."""
    return page(b"over there", status, location=location, set_cookie="a=b; Domain=.test; Path=/")


async def _by_id(api: MediaApi) -> object:
    return await api.read("7")


async def _by_url(api: MediaApi) -> object:
    return await api.read(PLAIN)


async def _by_webhook(api: MediaApi) -> object:
    async with api.stream(InboundMedia(id="7", kind="image", mime_type=JPEG, url=PLAIN)) as stream:
        return b"".join([chunk async for chunk in stream])


async def _info(api: MediaApi) -> object:
    return await api.get_info("7")


ABOUT: Final = info(PLAIN, media_id="7")
Step = tuple[str, bool]
Asking = tuple[Callable[[MediaApi], Awaitable[object]], list[bytes], bytes, list[Step]]
ASKING: Final[
    dict[str, Asking]
] = {  # what is done; replies before the redirect; the one after; requests up to the redirect
    "read by id": (_by_id, [ABOUT], served(), [("graph.facebook.com", True), (HOST, True)]),
    "read a URL": (_by_url, [], served(), [(HOST, True)]),
    "stream from a webhook": (_by_webhook, [], served(), [(HOST, True)]),
    "get_info": (_info, [], ABOUT, [("graph.facebook.com", True)]),
}
STATUSES: Final = (301, 302, 303, 307, 308)
each_asking = pytest.mark.parametrize("asking", ASKING)


@pytest.mark.parametrize(
    ("location", "host", "token"),
    [
        (f"https://{HOST}/there?hash=x", HOST, True),
        (f"https://{HOST.upper()}:443/there", f"{HOST.upper()}:443", True),
        (f"//{HOST}/there", HOST, True),
        ("https://graph.facebook.com/there", "graph.facebook.com", True),
        (f"https://{CDN}/there?oe=x", CDN, False),
        ("https://mmg.whatsapp.net/there", "mmg.whatsapp.net", False),
        (f"https://{CDN}:443", f"{CDN}:443", False),
    ],
)
@each_asking
async def test_redirects_to_trusted_hosts(
    world: World, api: MediaApi, asking: str, location: str, host: str, token: bool
) -> None:
    """A redirect among trusted hosts is followed, whatever its number; each host gets the token that may see it."""
    ask, before, last, requests = ASKING[asking]
    for status in STATUSES:
        world.forget()
        world.meta.script = [*before, redirect(status, location), last]
        answer = await ask(api)
        assert answer == CONTENT or (isinstance(answer, MediaInfo) and answer.url == PLAIN)
        assert world.seen() == [*requests, (host, token)]
    world.check()


ELSEWHERE: Final = (
    *(
        f"https://{EVIL}/x",
        f"http://{EVIL}/x",
        f"//{EVIL}/x",
        f"https://{HOST}.{EVIL}/x",
        f"https://evil{HOST}/x",
        "https://evilfbcdn.net/x",
        "https://fbcdn.net/x",
    ),
    *(
        f"http://{HOST}/x",
        "http://graph.facebook.com/x",
        f"http://{HOST}:443/x",
        f"https://{HOST}:8443/x",
        f"http://{CDN}/x",
    ),
    *(
        f"https://{HOST}./x",
        f"https://user@{HOST}/x",
        f"https://user:word@{CDN}/x",
        f"https://{HOST}@{EVIL}/x",
        f"//@{HOST}/x",
    ),
    *("http://127.0.0.1:{sink}/x", "https://127.0.0.1:{sink}/x", "//127.0.0.1:{sink}/x", "http://localhost:{sink}/x"),
    *(
        "https://[::1]:{sink}/x",
        "https://[::ffff:127.0.0.1]:{sink}/x",
        "https://2130706433:{sink}/x",
        "http://0:{sink}/x",
    ),
    *(
        "http://10.0.0.1/x",
        "https://192.168.0.1/x",
        "http://169.254.169.254/latest/meta-data",
        "https://169.254.169.254/x",
    ),
    *(
        "http://[fd00:ec2::254]/x",
        "http://metadata.google.internal/x",
        f"https://{HOST}%2f.{EVIL}/x",
        f"https:\\\\{EVIL}\\x",
    ),
    *(
        f"https://{HOST}\\@{EVIL}/x",
        f"https://{EVIL}\\@{HOST}/x",
        f"https://{HOST} .{EVIL}/x",
        f"/\\{EVIL}/x",
        f"\\\\{EVIL}/x",
    ),
    *(
        "https://lookaside\xe3\x80\x82fbsbx\xe3\x80\x82com/x",
        "https://lookaside\xad.fbsbx.com/x",
        "https://[oops",
    ),
    *(
        "file:///etc/hostname",
        "ftp://127.0.0.1:{sink}/x",
        "data:image/jpeg;base64,AA==",
        "javascript:alert(1)",
        "mailto:a@b",
    ),
)


@pytest.mark.parametrize("location", ELSEWHERE, ids=ascii)
@each_asking
async def test_redirects_to_anybody_else(world: World, api: MediaApi, asking: str, location: str) -> None:
    """A redirect to whoever is not trusted is refused at once, whatever its number: nobody is looked up, nor told anything."""
    ask, before, last, requests = ASKING[asking]
    for status in STATUSES:
        world.forget()
        world.meta.script = [*before, redirect(status, location.format(sink=world.sink.port)), last]
        with pytest.raises(UntrustedUrlError) as caught:
            await ask(api)
        assert (caught.value.attempts, caught.value.retryable) == (len(requests), False)
        assert TOKEN not in str(caught.value)
        assert world.seen() == requests
    world.check()


@each_asking
async def test_chains_of_redirects(world: World, api: MediaApi, asking: str) -> None:
    """At each hop the token is given, or not, as if it were the first; a chain that strays is left there, a long one too."""
    ask, before, last, requests = ASKING[asking]
    there, back = f"https://{CDN}/there", f"https://{HOST}/back"
    world.meta.script = [*before, redirect(302, there), redirect(307, back), redirect(301, there), last]
    await ask(api)
    assert world.seen() == [*requests, (CDN, False), (HOST, True), (CDN, False)]

    world.forget()
    world.meta.script = [*before, redirect(302, there), redirect(302, f"https://{EVIL}/x"), last]
    with pytest.raises(UntrustedUrlError):
        await ask(api)
    assert world.seen() == [*requests, (CDN, False)]

    world.forget()
    world.meta.script = [*before, *([redirect(302, there)] * 6), last]
    with pytest.raises(ServerError, match="more than 5 times"):
        await ask(api)
    assert world.seen() == [*requests, *([(CDN, False)] * 5)]
    world.check()


@pytest.mark.parametrize("locations", [(PLAIN, f"https://{EVIL}/x"), (f"https://{EVIL}/x", PLAIN)])
@each_asking
async def test_two_locations(world: World, api: MediaApi, asking: str, locations: tuple[str, str]) -> None:
    """A redirect to two places at once is one of them, judged like any other."""
    ask, before, last, requests = ASKING[asking]
    world.meta.script = [*before, redirect(302, locations), last]
    with contextlib.suppress(UntrustedUrlError):
        await ask(api)
    assert world.seen() in (requests, [*requests, (HOST, True)])
    world.check()


async def test_the_secret_stays_with_graph(world: World) -> None:
    """The proof that we know the app's secret is not carried on to where Graph redirects."""
    own = Settings(app_secret="canary-of-a-secret", backoff=0.001)
    async with MediaApi(TOKEN, "1", settings=own) as api:
        for host in (HOST, CDN):
            world.forget()
            world.meta.script = [redirect(302, f"https://{host}/there"), ABOUT]
            await api.get_info("7")
            first, second = world.meta.requests
            assert "appsecret_proof=" in first.target
            assert second.target == "/there"
    world.check()


CHANGES: Final[dict[str, Callable[[MediaApi], Awaitable[object]]]] = {
    "upload": lambda api: api.upload(b"some text"),
    "large upload": lambda api: api.upload(b"some text " * 30_000, filename="a.txt"),
    "delete": lambda api: api.delete("7"),
    "send": lambda api: api.send("+15550001111", "7"),
}


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("change", CHANGES)
async def test_changes_are_not_redirected(world: World, api: MediaApi, change: str, status: int) -> None:
    """An upload, a deletion or a message is sent once, to Graph, wherever a reply would have it go."""
    for location, kind in (
        (f"https://{HOST}/x", ServerError),
        ("https://graph.facebook.com/v25.0/8", ServerError),
        (f"https://{CDN}/x", ServerError),
        (f"https://{EVIL}/x", UntrustedUrlError),
        (f"http://127.0.0.1:{world.sink.port}/x", UntrustedUrlError),
    ):
        world.forget()
        world.meta.script = [redirect(status, location), told({"id": "1", "success": True})]
        with pytest.raises(kind) as caught:
            await CHANGES[change](api)
        assert caught.value.attempts == 1
        assert world.seen() == [("graph.facebook.com", True)]
    world.check()


# Hosts of one's own, and names that lead astray


async def test_hosts_of_ones_own(world: World) -> None:
    """A host that was set as trusted is so at its very port, and those of the default are not beside it."""
    own = Settings(token_hosts=["tokens.test:8443"], media_hosts=["files.test:8444"], backoff=0.001)
    world.lead = {"tokens.test:8443": world.meta.port, "files.test:8444": world.meta.port}
    async with MediaApi(TOKEN, "1", settings=own) as api:
        world.meta.script = [redirect(302, "https://files.test:8444/x"), served()]
        assert await api.read("https://tokens.test:8443/x") == CONTENT
        assert world.seen() == [("tokens.test:8443", True), ("files.test:8444", False)]
        ports = ("", ":443", ":8444", ":844", ":84430")
        for url in (*(f"https://tokens.test{port}/x" for port in ports), "https://files.test:8443/x", PLAIN):
            world.forget()
            with pytest.raises(UntrustedUrlError):
                await api.read(url)
            world.meta.script = [redirect(302, url), served()]
            with pytest.raises(UntrustedUrlError):
                await api.read("https://files.test:8444/x")
            assert world.seen() == [("files.test:8444", False)]
            assert set(world.names) <= {"files.test"}
    assert world.sink.connections == 0


@contextlib.asynccontextmanager
async def talkative() -> AsyncIterator[tuple[int, list[bytes]]]:
    """Run a server that speaks before it is spoken to, without encryption; give its port, and what it is told."""
    heard: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(served())
        with contextlib.suppress(OSError):
            heard.append(await reader.read())
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], heard


async def test_a_trusted_name_that_leads_elsewhere(world: World, api: MediaApi, tls: ssl.SSLContext) -> None:
    """Whoever answers in the name of a trusted host without its certificate gets neither the token nor a request."""
    async with Server(served(), tls=tls) as stranger, talkative() as (port, heard):
        for place in (stranger.port, port):
            world.lead = {f"{host}:443": place for host in (HOST, "graph.facebook.com")}
            for ask in (_by_url, _by_id, _info):
                with pytest.raises(NetworkError) as caught:
                    await ask(api)
                assert (caught.value.attempts, caught.value.retryable) == (1, False)
        assert (stranger.requests, world.meta.requests) == ([], [])
        await until(lambda: len(heard) == 3)
        assert [b"HTTP" in said or TOKEN.encode() in said for said in heard] == [False] * 3
    world.check()


async def test_a_name_that_the_certificate_has_not(world: World, api: MediaApi) -> None:
    """A sub-domain that is trusted to serve media must have a certificate of its own name."""
    with pytest.raises(NetworkError, match="Hostname mismatch") as caught:
        await api.read("https://deeper.a.fbcdn.net/x")
    assert not caught.value.retryable
    assert (world.names, world.meta.requests) == (["deeper.a.fbcdn.net"], [])
    assert await api.read("https://a.fbcdn.net/x") == CONTENT
    world.check()
