"""
Hostile URLs against the whole client: only trusted hosts receive a connection, and only token hosts the token.

All names lead to this machine: the hosts that are trusted by default to a server with their certificate, all other names and
addresses to a server that must never receive a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from meta_media import InboundMedia, MediaApi, MediaInfo, Settings
from meta_media.errors import MediaError, NetworkError, ServerError, UntrustedUrlError
from tests.support.hostile_urls import CDN, EVIL, FOREIGN, HOST, HOSTILE, PLAIN, TOKEN_HOSTS, judged, sweep
from tests.support.resolver import replace_resolver
from tests.support.servers import Server, info, json_response, page, wait_until

TOKEN: Final = "EAAG-canary-of-a-token"
CONTENT: Final = b"\xff\xd8\xff" + bytes(range(256)) * 8
JPEG: Final = "image/jpeg"
OWN: Final = ("tokens.test", "files.test")  # trusted only where a setting says so


class World:
    """All the servers there are."""

    def __init__(self, meta: Server, sink: Server) -> None:
        self.meta = meta  # all names lead here that are trusted by default
        self.sink = sink  # all others lead here
        self.names: list[str] = []  # that were looked up
        self.lead: dict[str, int] = {}  # the ports that a name and port lead to instead

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
        """Check that only trusted hosts were contacted, and only token hosts received the token."""
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
    """Two servers, one of which every name leads to."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    async with Server(served(), tls=certificate[1]) as meta, Server(page("caught")) as sink:
        everything = World(meta, sink)
        replace_resolver(monkeypatch, everything.getaddrinfo)
        yield everything


@pytest.fixture
async def api(world: World) -> AsyncIterator[MediaApi]:
    """A client with default settings but a short backoff."""
    async with MediaApi(TOKEN, "1", settings=Settings(backoff=0.001)) as client:
        yield client


def served() -> bytes:
    """Write the response of a host that serves media."""
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
    """Put a URL into every value that can have one."""
    return [
        MediaInfo(id="7", url=url, mime_type=JPEG),
        InboundMedia(id="7", kind="image", mime_type=JPEG, url=url),
        *([url] if "://" in url else []),
    ]


async def outcome(verb: Verb, api: MediaApi, what: What, folder: Path) -> MediaError | bytes:
    """Return the bytes of a download, or its error."""
    try:
        return await verb(api, what, folder)
    except MediaError as error:
        return error


def names(folder: Path) -> list[str]:
    """List a folder."""
    return [entry.name for entry in folder.iterdir()]


@pytest.mark.parametrize("host", sweep(FOREIGN), ids=ascii)
async def test_no_disguise_is_called(world: World, api: MediaApi, tmp_path: Path, host: str) -> None:
    """
    A hostile URL is refused before its name is looked up, whether it comes from a webhook, a caller or Meta.

    Where an id is known, Meta is asked once for another URL.
    """
    for url in (
        f"https://{host}/x",
        f"http://{host}/x",
        f"https://{HOST}@{host}/",
        f"https://{host}:{world.sink.port}/x",
    ):
        for verb in VERBS.values():
            world.forget()
            world.meta.script = [info(url, media_id="7")]
            for what in carriers(url):
                assert isinstance(await outcome(verb, api, what, tmp_path), UntrustedUrlError)
                assert world.seen() == ([] if isinstance(what, str) else [("graph.facebook.com", True)])
                world.forget()
            assert isinstance(await outcome(verb, api, "7", tmp_path), UntrustedUrlError)
            assert (await api.get_info("7")).url == url
            assert world.seen() == [("graph.facebook.com", True)] * 2
    world.check()
    assert names(tmp_path) == []


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(url=HOSTILE, verb=st.sampled_from(sorted(VERBS)), how=st.integers(0, 3))
@example(url=PLAIN, verb="read", how=0)
@example(url=f"https://{CDN}/x", verb="stream", how=1)
async def test_any_url(world: World, api: MediaApi, tmp_path: Path, url: str, verb: str, how: int) -> None:
    """Any URL from any source gives the media or an error, and no host that is not trusted is contacted."""
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
    """Write a redirect that sets a cookie."""
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
AGAIN: Final = {"stream from a webhook": [("graph.facebook.com", True)]}  # an id that is known is asked for another URL
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
    """A redirect between trusted hosts is followed, with any status; only token hosts receive the token."""
    ask, before, last, requests = ASKING[asking]
    for status in STATUSES:
        world.forget()
        world.meta.script = [*before, redirect(status, location), last]
        answer = await ask(api)
        assert answer == CONTENT or (isinstance(answer, MediaInfo) and answer.url == PLAIN)
        assert world.seen() == [*requests, (host, token)]
    world.check()


ELSEWHERE: Final = (
    *(f"https://{EVIL}/x", f"http://{EVIL}/x", f"//{EVIL}/x", f"https://{HOST}.{EVIL}/x", f"https://evil{HOST}/x"),
    *("https://evilfbcdn.net/x", "https://fbcdn.net/x"),
    *(f"http://{HOST}/x", "http://graph.facebook.com/x", f"http://{HOST}:443/x", f"https://{HOST}:8443/x"),
    *(f"http://{CDN}/x",),
    *(f"https://{HOST}./x", f"https://user@{HOST}/x", f"https://user:word@{CDN}/x", f"https://{HOST}@{EVIL}/x"),
    *(f"//@{HOST}/x",),
    *("http://127.0.0.1:{sink}/x", "https://127.0.0.1:{sink}/x", "//127.0.0.1:{sink}/x", "http://localhost:{sink}/x"),
    *("https://[::1]:{sink}/x", "https://[::ffff:127.0.0.1]:{sink}/x", "https://2130706433:{sink}/x"),
    *("http://0:{sink}/x",),
    *("http://10.0.0.1/x", "https://192.168.0.1/x", "http://169.254.169.254/latest/meta-data"),
    *("https://169.254.169.254/x",),
    *("http://[fd00:ec2::254]/x", "http://metadata.google.internal/x", f"https://{HOST}%2f.{EVIL}/x"),
    *(f"https:\\\\{EVIL}\\x",),
    *(f"https://{HOST}\\@{EVIL}/x", f"https://{EVIL}\\@{HOST}/x", f"https://{HOST} .{EVIL}/x", f"/\\{EVIL}/x"),
    *(f"\\\\{EVIL}/x",),
    *("https://lookaside\xe3\x80\x82fbsbx\xe3\x80\x82com/x", "https://lookaside\xad.fbsbx.com/x", "https://[oops"),
    *("file:///etc/hostname", "ftp://127.0.0.1:{sink}/x", "data:image/jpeg;base64,AA==", "javascript:alert(1)"),
    *("mailto:a@b",),
)


@pytest.mark.parametrize("location", sweep(ELSEWHERE), ids=ascii)
@each_asking
async def test_redirects_to_other_hosts(world: World, api: MediaApi, asking: str, location: str) -> None:
    """A redirect to a host that is not trusted is refused, with any status, before its name is looked up."""
    ask, before, last, requests = ASKING[asking]
    for status in STATUSES:
        world.forget()
        elsewhere, again = redirect(status, location.format(sink=world.sink.port)), AGAIN.get(asking, [])
        world.meta.script = [*before, elsewhere, *([ABOUT, elsewhere] if again else []), last]
        with pytest.raises(UntrustedUrlError) as caught:
            await ask(api)
        expected = [*requests, *again, *(requests if again else [])]
        assert (caught.value.attempts, caught.value.retryable) == (len(expected), False)
        assert TOKEN not in str(caught.value)
        assert world.seen() == expected
    world.check()


@each_asking
async def test_chains_of_redirects(world: World, api: MediaApi, asking: str) -> None:
    """Each hop of a chain is judged like the first; a chain ends at a host that is not trusted, and after 5 hops."""
    ask, before, last, requests = ASKING[asking]
    there, back = f"https://{CDN}/there", f"https://{HOST}/back"
    world.meta.script = [*before, redirect(302, there), redirect(307, back), redirect(301, there), last]
    await ask(api)
    assert world.seen() == [*requests, (CDN, False), (HOST, True), (CDN, False)]
    world.forget()
    chain, again = [redirect(302, there), redirect(302, f"https://{EVIL}/x")], AGAIN.get(asking, [])
    world.meta.script = [*before, *chain, *([ABOUT, *chain] if again else []), last]
    with pytest.raises(UntrustedUrlError):
        await ask(api)
    followed = [*requests, (CDN, False)]
    assert world.seen() == [*followed, *again, *(followed if again else [])]
    world.forget()
    chain = [redirect(302, there)] * 6
    world.meta.script = [*before, *chain, *([ABOUT, *chain] if again else []), last]
    with pytest.raises(ServerError, match="more than 5 times"):
        await ask(api)
    followed = [*requests, *([(CDN, False)] * 5)]
    assert world.seen() == [*followed, *again, *(followed if again else [])]
    world.check()


@pytest.mark.parametrize("locations", [(PLAIN, f"https://{EVIL}/x"), (f"https://{EVIL}/x", PLAIN)])
@each_asking
async def test_two_locations(world: World, api: MediaApi, asking: str, locations: tuple[str, str]) -> None:
    """A redirect with two locations follows none of them."""
    ask, before, last, requests = ASKING[asking]
    both, again = redirect(302, locations), AGAIN.get(asking, [])
    world.meta.script = [*before, both, *([ABOUT, both] if again else []), last]
    with pytest.raises(UntrustedUrlError):
        await ask(api)
    assert world.seen() == ([*requests, *again, *requests] if again else requests)
    world.check()


async def test_the_secret_stays_with_graph(world: World) -> None:
    """`appsecret_proof` is not sent to the target of a redirect."""
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
    "send": lambda api: api.send("+15550001111", "7", kind="image"),
}


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("change", CHANGES)
async def test_changes_are_not_redirected(world: World, api: MediaApi, change: str, status: int) -> None:
    """An upload, delete or message is sent once, to Graph; no redirect of it is followed."""
    for location, kind in (
        (f"https://{HOST}/x", ServerError),
        ("https://graph.facebook.com/v25.0/8", ServerError),
        (f"https://{CDN}/x", ServerError),
        (f"https://{EVIL}/x", UntrustedUrlError),
        (f"http://127.0.0.1:{world.sink.port}/x", UntrustedUrlError),
    ):
        world.forget()
        world.meta.script = [redirect(status, location), json_response({"id": "1", "success": True})]
        with pytest.raises(kind) as caught:
            await CHANGES[change](api)
        assert caught.value.attempts == 1
        assert world.seen() == [("graph.facebook.com", True)]
    world.check()


# Hosts of one's own, and names that lead astray


async def test_hosts_in_the_settings(world: World) -> None:
    """A host in the settings is trusted with its own port only, and replaces the default hosts."""
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
    """Run a server that responds before a request, without TLS; give its port and the bytes it received."""
    heard: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(served())
        with contextlib.suppress(OSError):
            heard.append(await reader.read())
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], heard


async def test_a_trusted_name_that_leads_elsewhere(world: World, api: MediaApi, tls: ssl.SSLContext) -> None:
    """A server without the certificate of a trusted host receives neither the token nor a request."""
    async with Server(served(), tls=tls) as stranger, talkative() as (port, heard):
        for place in (stranger.port, port):
            world.lead = {f"{host}:443": place for host in (HOST, "graph.facebook.com")}
            for ask in (_by_url, _by_id, _info):
                with pytest.raises(NetworkError) as caught:
                    await ask(api)
                assert (caught.value.attempts, caught.value.retryable) == (1, False)
        assert (stranger.requests, world.meta.requests) == ([], [])
        await wait_until(lambda: len(heard) == 3)
        assert [b"HTTP" in said or TOKEN.encode() in said for said in heard] == [False] * 3
    world.check()


async def test_a_name_that_the_certificate_has_not(world: World, api: MediaApi) -> None:
    """A subdomain that may serve media must have a certificate for its name."""
    with pytest.raises(NetworkError, match="Hostname mismatch") as caught:
        await api.read("https://deeper.a.fbcdn.net/x")
    assert not caught.value.retryable
    assert (world.names, world.meta.requests) == (["deeper.a.fbcdn.net"], [])
    assert await api.read("https://a.fbcdn.net/x") == CONTENT
    world.check()
