"""Heads that are written and read without h11: h11 takes each of them with the same result, or it gets them."""

from __future__ import annotations

import random
import re
import sys
from collections import Counter
from collections.abc import Iterator

import h11
import pytest

from meta_media.http.heads import RequestHeaders, SharedHeaders, request_head, response_head
from meta_media.protocol.requests import Request
from meta_media.protocol.secrets import Secret
from meta_media.protocol.settings import Settings
from tests.support.marks import slow_except

# As programs send them, with a Content-Length; names are those of the programs
RESPONSES = {
    "graph": b"HTTP/1.1 200 OK\r\nVary: Origin\r\nVary: Accept-Encoding\r\nx-app-usage: "
    b'{"call_count":1,"total_cputime":0,"total_time":0}\r\nContent-Type: application/json; charset=UTF-8\r\n'
    b'WWW-Authenticate: OAuth "Facebook Platform" "invalid_token" "Invalid OAuth access token."\r\n'
    b"facebook-api-version: v25.0\r\nStrict-Transport-Security: max-age=15552000; preload\r\nPragma: no-cache\r\n"
    b"Cache-Control: private, no-cache, no-store, must-revalidate\r\nExpires: Sat, 01 Jan 2000 00:00:00 GMT\r\n"
    b"x-fb-request-id: AbcDef\r\nx-fb-trace-id: GhiJkl\r\nx-fb-rev: 1031\r\nX-FB-Debug: ab/cd+ef==\r\n"
    b'Date: Sun, 29 Nov 2026 07:00:00 GMT\r\nAlt-Svc: h3=":443"; ma=86400\r\nConnection: keep-alive\r\n'
    b'Content-Length: 11\r\n\r\n{"id": "7"}',
    "uvicorn": b"HTTP/1.1 200 OK\r\ndate: Sun, 29 Nov 2026 07:00:00 GMT\r\nserver: uvicorn\r\ncontent-length: 2\r\n"
    b"content-type: application/json\r\n\r\n{}",
    "nginx": b"HTTP/1.1 502 Bad Gateway\r\nServer: nginx/1.26.2\r\nDate: Sun, 29 Nov 2026 07:00:00 GMT\r\n"
    b"Content-Type: text/html\r\nContent-Length: 4\r\nConnection: close\r\n\r\ntext",
    "apache": b"HTTP/1.1 206 Partial Content\r\nDate: Sun, 29 Nov 2026 07:00:00 GMT\r\nServer: Apache/2.4.62 (Debian)\r\n"
    b'ETag: "5-61b"\r\nAccept-Ranges: bytes\r\nContent-Length: 3\r\nContent-Range: bytes 1-3/5\r\n'
    b"Keep-Alive: timeout=5, max=100\r\nConnection: Keep-Alive\r\n\r\nabc",
    "aiohttp": b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 14\r\n"
    b"Date: Sun, 29 Nov 2026 07:00:00 GMT\r\nServer: Python/3.11 aiohttp/3.14.5\r\n\r\n404: Not Found",
    "node": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Sun, 29 Nov 2026 07:00:00 GMT\r\n"
    b'Connection: keep-alive\r\nKeep-Alive: timeout=5\r\nContent-Length: 10\r\n\r\n{"id":"7"}',
    "werkzeug": b"HTTP/1.1 200 OK\r\nServer: Werkzeug/3.1.9 Python/3.11.7\r\nDate: Sun, 29 Nov 2026 07:00:00 GMT\r\n"
    b"Content-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
    "http.server": b"HTTP/1.1 404 File not found\r\nServer: SimpleHTTP/0.6 Python/3.11.7\r\n"
    b"Date: Sun, 29 Nov 2026 07:00:00 GMT\r\nConnection: close\r\nContent-Type: text/html;charset=utf-8\r\n"
    b"Content-Length: 15\r\n\r\n<!DOCTYPE HTML>",
    "cookies": b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n",
    "go": b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n",
    "bare": b"HTTP/1.1 200\r\ncontent-length:5\r\n\r\nhello",
    "latin": b'HTTP/1.1 200 D\xe9j\xe0\r\nContent-Disposition: attachment; filename="\xe9\xa0\x85.jpg"\r\n'
    b"X-Tab: \t a  b\tc \t\r\nContent-Length: \t1 \r\n\r\nxyz",
    "spaces": b"HTTP/1.1 200  All is \r\nX-Empty:\r\nX-Spaces:   a  b, c:  \r\nContent-Length:1 \r\n\r\nxyz",
}
OTHERS = (  # what a plain head may become
    *(
        b"\x00",
        b"\r",
        b"\n",
        b"\t",
        b" ",
        b":",
        b",",
        b"\x0b",
        b"\x7f",
        b"\x80",
        b"\xff",
        b"\x1c",
        b"\r\n",
        b"\r\n\r\n",
        b"\r\n ",
    ),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\n",
        b"CONTENT-LENGTH: 7, 7\r\n",
        b"Connection: close\r\n",
    ),
    *(
        b"connection: Keep-Alive, Close\r\n",
        b"Connection: keep-alive\r\n",
        b"Upgrade: h2c\r\n",
        b": x\r\n",
        b"a b: c\r\n",
        b"x : y\r\n",
    ),
    *(
        b"HTTP/1.0",
        b"HTTP/1.1",
        b"HTTP/2.0",
        b" 100 ",
        b" 101 ",
        b" 204 ",
        b" 700 ",
        b"-1",
        b"+",
        b"0x",
        b"_",
        b"9" * 19,
    ),
)


def changed(head: bytes, rng: random.Random) -> bytes:
    """Change a head at one to three places."""
    for _ in range(rng.randint(1, 3)):
        at = rng.choice(
            [rng.randrange(len(head) + 1), *(match.start() for match in re.finditer(rb"(?<=\n)|(?<=:)|\r", head))]
        )
        kind = rng.randrange(4)
        if kind == 0:
            head = head[:at] + rng.choice(OTHERS) + head[at:]
        elif kind == 1:
            head = head[:at] + head[at + rng.randint(1, 4) :]
        elif kind == 2:
            head = head[:at] + bytes([rng.randrange(256)]) + head[at + 1 :]
        else:
            lines = head.split(b"\r\n")
            lines.insert(rng.randrange(len(lines)), rng.choice(lines))
            head = b"\r\n".join(lines)
    return head


def heads(count: int) -> Iterator[bytes]:
    """Generate heads: each that a program sends, cut after each byte, and changed ones; the same in each run."""
    for head in RESPONSES.values():
        yield from (head[:end] for end in range(len(head) + 1))
    rng = random.Random(8)
    for _ in range(count):
        yield changed(rng.choice([*RESPONSES.values()]), rng)


def show(what: str, taken: int, handed_over: Counter[str]) -> None:
    """Report a comparison: `pytest -rP` prints it."""
    others = ", ".join(f"{number:,} {verdict}" for verdict, number in handed_over.most_common())
    every = taken + handed_over.total()
    sys.stdout.write(
        f"{every:,} heads of {what}: {taken:,} taken, all equal; {every - taken:,} left to h11: {others}\n"
    )


def by_h11(data: bytes) -> tuple[int, list[tuple[str, str]], int, bool, bytes] | str:
    """Return what h11 makes of a response, in the form of `response_head`; or a word if it is no such response."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=100 * 2**10)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "host")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    try:
        response = connection.next_event()
    except h11.RemoteProtocolError:
        return "refused"
    if not isinstance(response, h11.Response):
        return "incomplete" if response is h11.NEED_DATA else "interim"
    fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers]
    length = int(dict(fields).get("content-length", -1))
    reusable = connection.our_state is h11.DONE
    return response.status_code, fields, length, reusable, connection.trailing_data[0]


@pytest.mark.parametrize("count", slow_except({2_000}, [2_000, 100_000]))
def test_responses(count: int) -> None:
    """
    What is read here, h11 reads: the same status, headers, length and rest, and whether the connection may be used again.

    How many heads that were, and what h11 makes of all others, is shown by `pytest tests/http/test_heads.py -rP`.
    """
    handed_over = Counter[str]()
    taken = 0
    for data in heads(count):
        verdict = by_h11(data)
        if plain := response_head(data):
            taken += 1
            *read, rest = plain
            assert (*read, bytes(rest)) == verdict
        else:
            handed_over[verdict if isinstance(verdict, str) else "read"] += 1
    show("responses", taken, handed_over)
    assert taken > count / 8
    assert min(handed_over[verdict] for verdict in ("read", "refused", "incomplete")) > 0


@pytest.mark.parametrize("program", RESPONSES)
def test_responses_of_programs(program: str) -> None:
    """What servers send is read here."""
    assert response_head(RESPONSES[program])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
        b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: x, close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 5\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: a\r\n b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n",
    ],
)
def test_responses_that_h11_decides_about(data: bytes) -> None:
    """What is not plain is not read here."""
    assert response_head(data) is None


def test_spaces_take_linear_time() -> None:
    """A head is read once, whatever it has: 16 KiB of any two characters would take minutes otherwise."""
    for pair in (b" \t", b"a ", b": ", b"a:", b"\xff "):
        assert response_head(b"HTTP/1.1 200 OK\r\nX: " + pair * 2**13 + b"\x00\r\n\r\n") is None
        assert response_head(b"HTTP/1.1 200 " + pair * 2**13 + b"\x00\r\n\r\n") is None
        assert request_head("GET", "/", [("Host", "host"), ("X", pair.decode("latin-1") * 2**13 + "\x00")]) is None


# Requests

REQUEST = [
    ("Host", "graph.facebook.com"),
    ("Accept", "application/json"),
    ("User-Agent", "meta-media/0.9 (python 3.11.7)"),
    ("Content-Type", "multipart/form-data; boundary=meta-media-0123"),
    ("Content-Length", "65999"),
    ("Authorization", Secret("Bearer EAAtoken")),
]
NAMES = [
    "Host",
    "host",
    "Content-Length",
    "content-length",
    "Transfer-Encoding",
    "Connection",
    "Expect",
    "Upgrade",
    "X",
]
NAMES += ["", "a b", "a,b", "X: y", "X:", "X\r\nY", "X\n", "\xe9", "X-" * 20]
VALUES = [
    "",
    "x",
    "a b",
    " a",
    "a ",
    "a  b",
    "a\tb",
    "5",
    "+5",
    "5, 5",
    "-1",
    "9" * 19,
    "9" * 21,
    "chunked",
    "gzip",
    "close",
    "a: b",
]
VALUES += [
    "a\r\nX: y",
    "a\nX: y",
    "a\r",
    "\x00",
    "\x7f",
    "\x80",
    "\u20ac",
    "\xe9",
    "100-continue",
    "a\r\n\r\nGET / HTTP/1.1",
    "\x01",
]
GRAPH = Request(operation="upload", method="POST", url="https://graph.example:8443/v25.0/1/media", graph=True)
METHODS = ["GET", "POST", "HEAD", "CONNECT", "get", "", "G T", "GET\r\n", "GET / HTTP/1.1\r\nX: y\r\n", "\xe9"]
TARGETS = [
    "/",
    "/v25.0/7?a=b",
    "",
    "/a b",
    "/\r\n",
    "/ HTTP/1.1\r\nX: y\r\n\r\nGET /",
    "/\xe9",
    "/\t",
    "*",
    "host:443",
    "/\x7f",
]


def requests(count: int) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """Generate requests: ours, with changes that may break the rules; the same in each run."""
    rng = random.Random(8)
    for _ in range(count):
        method, target = (rng.choice(each if rng.random() < 0.1 else each[:2]) for each in (METHODS, TARGETS))
        headers = list(REQUEST)
        for _ in range(rng.randrange(3)):
            at = rng.randrange(len(headers))
            name, value = rng.choice(NAMES), rng.choice(VALUES)
            headers[at : at + rng.randrange(2)] = [
                (rng.choice([name, headers[at][0]]), rng.choice([value, headers[at][1]]))
            ]
        yield method, target, headers


@pytest.mark.parametrize("count", slow_except({2_000}, [2_000, 100_000]))
def test_requests(count: int) -> None:
    """What is written here, h11 writes byte for byte, and takes a body of that length for."""
    handed_over = Counter[str]()
    taken = 0
    for method, target, headers in requests(count):
        plain = request_head(method, target, headers)
        connection = h11.Connection(h11.CLIENT)
        try:
            written = connection.send(h11.Request(method=method, target=target, headers=headers))
        except (h11.LocalProtocolError, UnicodeEncodeError):
            assert plain is None, "h11 refuses it"
            handed_over["refused"] += 1
            continue
        if plain is None:
            handed_over["written"] += 1
            continue
        taken += 1
        head, length = plain
        assert written == bytes(head)
        connection.send_with_data_passthrough(h11.Data(data=range(length)))  # type: ignore[arg-type]  # has a length
        connection.send(h11.EndOfMessage())
        assert connection.our_state is not h11.SEND_BODY
    show("requests", taken, handed_over)
    assert taken > count / 4


@pytest.mark.parametrize("count", slow_except({1_000}, [1_000, 50_000]))
def test_requests_with_shared_headers(count: int) -> None:
    """The same holds where some headers were written before, for another request."""
    shared, taken = SharedHeaders(GRAPH, Settings(), Secret("EAAtoken")), 0
    for method, target, headers in requests(count):
        own = RequestHeaders(shared, dict(headers[3:5]))
        if plain := request_head(method, target, own):
            taken += 1
            assert (
                h11.Connection(h11.CLIENT).send(h11.Request(method=method, target=target, headers=[*own])) == plain[0]
            )
            assert plain[1] == int(own.own.get("Content-Length", 0))
    assert taken > count / 4


def test_shared_headers() -> None:
    """A host comes first, a token last, and headers that h11 must decide about are not written."""
    written = SharedHeaders(GRAPH, Settings(), Secret("EAAtoken"))
    assert written.text is not None
    assert written.text.startswith("Host: graph.example:8443\r\nUser-Agent: ")
    assert written.text.endswith("\r\nAuthorization: Bearer EAAtoken\r\n")
    unusual = RequestHeaders(SharedHeaders(GRAPH, Settings(user_agent_suffix="a  b"), Secret()), {"X": "y"})
    assert unusual.shared.text is None
    assert request_head("GET", "/", unusual) is None
    assert request_head("GET", "/", RequestHeaders(written, {"Host": "other"})) is None, "there would be two"
    assert "EAAtoken" not in repr(vars(written))
    elsewhere = Request(operation="download", method="GET", url="https://media.example/x", bearer=False)
    assert "Authorization" not in dict(SharedHeaders(elsewhere, Settings(), Secret()).items)


def test_request_of_bytes() -> None:
    """A request of an `httpx.Request` is of bytes, which h11 writes."""
    assert request_head("GET", "/", [(b"Host", b"host")]) is None
    assert request_head("GET", b"/", [("Host", "host")]) is None
