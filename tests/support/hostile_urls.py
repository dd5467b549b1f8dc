"""URLs that imitate trusted hosts, for the tests of requests and of the whole client."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest
from hypothesis import strategies as st

from meta_media import Settings
from meta_media.errors import UntrustedUrlError
from meta_media.protocol.requests import media_request

HOST: Final = "lookaside.fbsbx.com"  # receives the token
CDN: Final = "scontent.xx.fbcdn.net"  # does not
TOKEN_HOSTS: Final = frozenset({HOST, "graph.facebook.com"})
EVIL: Final = "evil.test"
PLAIN: Final = f"https://{HOST}/whatsapp_business/attachments/?mid=1&ext=1795342300&hash=ATz0"


def disguised(name: str) -> list[str]:
    """List names that look like a trusted one and are not."""
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
    *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "0", "0.0.0.0", "localhost"),
    *("localhost.", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]", "[::127.0.0.1]"),
    *("[64:ff9b::7f00:1]", "169.254.169.254", "2852039166", "[fd00:ec2::254]", "[fe80::1%25lo]"),
    *("[::ffff:169.254.169.254]", "10.0.0.1", "192.168.0.1", "172.16.0.1", "metadata.google.internal"),
    *("127.0.0.1.nip.io", "\u2460\u2461\u2466.0.0.1", "127\u30020\u30020\u30021"),
)
NAMES: Final = (HOST, CDN, "graph.facebook.com", "mmg.whatsapp.net")
SCHEMES: Final = (
    *("https://", "http://", "HTTPS://", "hTTps://", "https:", "https:/", "https:///", "https:////", "//", ""),
    *("://", "https:\\\\", "https:/\\", "https:\\/", "ftp://", "file://", "file:///", "ws://", "wss://"),
    *("gopher://", "data:", "javascript:", "blob:https://", "https://https://", "http+unix://"),
    *("view-source:https://", "https://\\", "jar:https://", " https://", "\thttps://", "ht\ntps://"),
    *("\x00https://", "https\u200b://", "https:\n//", "\ufeffhttps://", "https ://"),
)
USERS: Final = (
    *("", "", "", "user@", "user:pass@", ":@", "@", "@@", f"{HOST}@", f"{HOST}:443@", f"{HOST}%40", f"{HOST}\\@"),
    *(f"{HOST}#@", f"{HOST}?@", f"{HOST}/@", f"https:{HOST}@", f"{HOST}%00@", f"{HOST}\t@", f"{HOST};@", f"{HOST}&@"),
)
PORTS: Final = (
    *("", "", "", ":443", ":80", ":8443", ":0443", ":00443", ":0", ":", ":99999", ":65536", ":-1", ":+443"),
    *(": 443", ":443:443", ":443.", ":0x1bb", ":\uff14\uff14\uff13", ":\u0664\u0664\u0663", f":443@{EVIL}"),
    *(f":@{EVIL}", f":{HOST}"),
)
TAILS: Final = (
    *("", "/", "/x?y=1", "?x", f"?@{EVIL}", f"#@{EVIL}", f"\\@{EVIL}", f"/@{EVIL}", f"@{EVIL}", f"/..//{EVIL}"),
    *(f"//{EVIL}", f"\\\\{EVIL}", f"/\\{EVIL}", f"/%2f@{EVIL}", " ", "\n", "\t", f"\r\nHost: {EVIL}"),
    *(f"/ HTTP/1.1\r\nHost: {EVIL}\r\n", "/\x00", "/\xe9", "/\u2028", "/%", "/[", "/|^{}", "/a b", "/\x7f"),
    *(f"/?next=https://{EVIL}", f";{EVIL}", "/\ud800"),
)
HOSTS: Final = (*NAMES, *ADDRESSES, EVIL, *(disguise for name in NAMES for disguise in disguised(name)))
AWKWARD: Final = st.sampled_from(
    "/\\@:#?%.;&=[]|^{} \t\r\n\0\x7f\x85\xa0\xad\u200b\u2028\u3002\uff0e\uff0f\uff20\uff1a\u212a\u017f\ud800"
)
COMPOSED: Final = st.tuples(*map(st.sampled_from, (SCHEMES, USERS, HOSTS, PORTS, TAILS))).map("".join)
LIKELY: Final = st.tuples(st.just("https://"), st.just(""), *map(st.sampled_from, (HOSTS, PORTS, TAILS))).map("".join)


@st.composite
def tampered(draw: st.DrawFn) -> str:
    """Insert up to three odd characters into a good URL, or replace some."""
    url = draw(
        st.sampled_from([PLAIN, f"https://{CDN}/v/t45.1?oe=6", f"https://{HOST}:443/x", "https://graph.facebook.com"])
    )
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, min(len(url), 45)))
        url = url[:at] + draw(AWKWARD | st.characters()) + url[at + draw(st.integers(0, 1)) :]
    return url


HOSTILE: Final = COMPOSED | LIKELY | tampered() | st.text()


def judged(url: str) -> bool | None:
    """Return whether a URL is requested with the token or without it; None if it is refused."""
    try:
        request = media_request(url, Settings())
    except UntrustedUrlError:
        return None
    assert (request.url, request.method) == (url, "GET")
    return request.bearer


IMITATED: Final = (HOST, "graph.facebook.com", "fbcdn.net")
FOREIGN: Final = [
    host
    for host in (EVIL, "fbcdn.net", *ADDRESSES, *(look for name in IMITATED for look in disguised(name)))
    if not re.fullmatch(r"([a-z0-9-]+\.)+fbcdn\.net", host)  # its subdomains may serve media
]


def sweep(values: Any) -> list[Any]:
    """Mark all but every tenth value as slow."""
    return [value if n % 10 == 0 else pytest.param(value, marks=pytest.mark.slow) for n, value in enumerate(values)]
