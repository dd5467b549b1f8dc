"""The fault server itself, as sockets see it: each fault does what it says, and nothing else does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import ssl
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import pytest
import trustme

from tests.faults.cells import CELLS
from tests.faults.server import Fault, FaultServer, Graph
from tests.support.stepping import settled_at

CONTENT = random.Random(7).randbytes(10_240)
GET = b"GET /media/7?hash=SIGNATURE HTTP/1.1\r\nhost: x\r\n\r\n"
ASK = b"GET /v25.0/7 HTTP/1.1\r\nhost: x\r\n\r\n"
DELETE = b"DELETE /v25.0/7 HTTP/1.1\r\nhost: x\r\n\r\n"
FORM = (
    b'--b\r\ncontent-disposition: form-data; name="type"\r\n\r\ntext/plain\r\n'
    b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.txt"\r\n\r\n' + CONTENT + b"\r\n--b--\r\n"
)
POST = (
    b"POST /v25.0/1/media HTTP/1.1\r\ncontent-type: multipart/form-data; boundary=b\r\ncontent-length: %d\r\n\r\n"
    % len(FORM)
)


@pytest.fixture(params=["http", "https"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[FaultServer]:
    """A server, plain and in TLS."""
    context = None
    if request.param == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority = trustme.CA()
        authority.issue_cert("127.0.0.1").configure_cert(context)
        authority.cert_pem.write_to_path(str(tmp_path / "authority"))
    async with FaultServer(Graph(CONTENT), context) as running:
        yield running


class Visitor:
    """A connection to a server, and how it went."""

    def __init__(self, server: FaultServer, folder: Path) -> None:
        self._server = server
        self._tls = ssl.create_default_context(cafile=folder / "authority") if server.tls else None

    async def __aenter__(self) -> Visitor:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._server.port, ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()  # without taking leave, for which a server that stalls would be waited
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    async def say(self, data: bytes) -> None:
        """Send something."""
        self.writer.write(data)
        await self.writer.drain()

    async def hear(self) -> tuple[bytes, str]:
        """Take all that comes; say how it ended."""
        heard = b""
        try:
            async with asyncio.timeout(20):
                while data := await self.reader.read(2**16):
                    heard += data
        except ConnectionResetError:
            return heard, "reset"
        except ssl.SSLError as error:
            return heard, str(error.reason)
        return heard, "end"

    async def reply(self) -> tuple[int, dict[str, str], bytes]:
        """Take one reply of known length."""
        async with asyncio.timeout(20):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
            headers = dict(line.split(": ", 1) for line in head[1:])
            return int(head[0].split()[1]), headers, await self.reader.readexactly(int(headers["content-length"]))


async def test_truth(server: FaultServer, tmp_path: Path) -> None:
    """Without a fault it stores what is uploaded, tells of it, serves it whole or in part, and forgets what is deleted."""
    async with Visitor(server, tmp_path) as visitor:
        await visitor.say(POST + FORM)
        assert json.loads((await visitor.reply())[2]) == {"id": "7"}
        assert server.graph.stored == [CONTENT]
        await visitor.say(ASK)
        told = json.loads((await visitor.reply())[2])
        assert (told["id"], told["file_size"]) == ("7", len(CONTENT))
        await visitor.say(GET)
        assert (await visitor.reply())[2] == CONTENT
        await visitor.say(GET.replace(b"host", b"range: bytes=100-\r\nhost"))
        status, headers, body = await visitor.reply()
        assert (status, headers["content-range"], body) == (206, "bytes 100-10239/10240", CONTENT[100:])
        for expected in (200, 400):
            await visitor.say(DELETE)
            assert (await visitor.reply())[0] == expected
    assert (server.connections, len(server.requests), server.errors) == (1, 6, [])


# what is sent of a reply, and how the connection ends
ENDS: dict[str, tuple[dict[str, Any], bool, str]] = {
    "nothing, RST": ({"sends": "nothing", "ends": "reset"}, False, "reset"),
    "nothing, FIN": ({"sends": "nothing", "ends": "end"}, False, "end"),
    "half the head": ({"sends": "half the head", "ends": "end"}, False, "end"),
    "the head": ({"sends": "the head", "ends": "end"}, False, "end"),
    "half the body, RST": ({"sends": "half the body", "ends": "reset"}, False, "reset"),
    "half the body": ({"sends": "half the body", "ends": "end"}, False, "end"),
    "all, FIN": ({"ends": "end"}, True, "end"),
    "chunked": ({"framing": "chunked", "ends": "end"}, True, "end"),
    "unterminated": ({"framing": "unterminated", "ends": "end"}, True, "end"),
    "close-delimited": ({"framing": "close"}, True, "end"),
    "cut": ({"framing": "close", "sends": "half the body", "ends": "cut"}, False, "end"),
}


@pytest.mark.parametrize("name", ENDS)
async def test_how_it_ends(server: FaultServer, tmp_path: Path, name: str) -> None:
    """As much of a reply leaves as a fault says, in the framing that it says, and the connection ends as it says."""
    facts, whole, ends = ENDS[name]
    server.arm([Fault(**facts)])
    async with Visitor(server, tmp_path) as visitor:
        await visitor.say(GET)
        heard, ended = await visitor.hear()
    assert ended == ends
    assert not server.faults
    head, mark, body = heard.partition(b"\r\n\r\n")
    assert bool(mark) is (facts.get("sends") not in {"nothing", "half the head"})
    assert (b"transfer-encoding: chunked" in head) is (facts.get("framing") in {"chunked", "unterminated"})
    assert body.endswith(b"0\r\n\r\n") is (facts.get("framing") == "chunked")
    assert (b"content-length" in head) is (mark != b"" and "framing" not in facts)
    halves = CONTENT[: len(CONTENT) // 2], CONTENT[len(CONTENT) // 2 :]
    if facts.get("sends") == "half the body":
        assert body == halves[0]
    assert all(half in body for half in halves) is whole


@pytest.mark.parametrize("server", ["https"], indirect=True)
async def test_taking_leave(server: FaultServer, tmp_path: Path) -> None:
    """In TLS, `end` takes leave and `cut` does not: OpenSSL tells them apart."""
    trusting = ssl.create_default_context(cafile=tmp_path / "authority")
    ways: list[tuple[Literal["end", "cut"], bytes | None]] = [("end", b""), ("cut", None)]
    for ends, expected in ways:
        server.arm([Fault(framing="close", ends=ends)])
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        secured = trusting.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        asked, last = False, None
        while True:
            try:
                if not asked:
                    secured.do_handshake()
                    secured.write(GET)
                    asked = True
                last = secured.read(2**16)
                if not last:
                    break
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                data = await reader.read(2**16)
                if data:
                    incoming.write(data)
                else:
                    incoming.write_eof()
            except ssl.SSLEOFError:
                last = None
                break
        writer.close()
        await writer.wait_closed()
        assert last == expected


@pytest.mark.parametrize("pace", [0.001, 30.0])
async def test_trickle(server: FaultServer, tmp_path: Path, pace: float) -> None:
    """What trickles comes byte by byte, with time between them."""
    server.graph.content = b"tick"
    server.arm([Fault(pace=pace)])
    async with Visitor(server, tmp_path) as visitor:
        await visitor.say(GET)
        await visitor.reader.readuntil(b"\r\n\r\n")
        if pace < 1:
            assert await visitor.reader.readexactly(4) == b"tick"
            return
        assert await visitor.reader.read(9) == b"t"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await visitor.reader.read(1)


async def test_stall(server: FaultServer, tmp_path: Path) -> None:
    """A stall says nothing more, and notices when its client has gone."""
    server.arm([Fault(sends="half the body", ends="stall")])
    async with Visitor(server, tmp_path) as visitor:
        await visitor.say(GET)
        heard = await visitor.reader.readuntil(CONTENT[:5120])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await visitor.reader.read(1)
    assert heard.endswith(CONTENT[:5120])
    await settled_at(0, lambda: server.open)


@pytest.mark.parametrize("ends", ["end", "reset", "drain"])
async def test_early(server: FaultServer, tmp_path: Path, ends: Any) -> None:
    """At the head means before the body: the answer comes though the request is not whole, and nothing is stored."""
    server.arm([Fault(when="head", reads=100, status=413, ends=ends)])
    async with Visitor(server, tmp_path) as visitor:
        await visitor.say(POST + FORM[:2000])
        status, _, body = await visitor.reply()
        assert (status, json.loads(body)["error"]["fbtrace_id"]) == (413, "AbScriptedTrace")
        with contextlib.suppress(ConnectionError):  # it may have gone
            await visitor.say(FORM[2000:])
    assert server.graph.stored == []
    assert server.requests[0].method == "POST"
    assert not server.faults


WRONG: dict[str, tuple[dict[str, Any], bytes]] = {
    "flip": ({"flips": True}, CONTENT[:5120] + bytes([CONTENT[5120] ^ 1]) + CONTENT[5121:]),
    "padding": ({"padding": 2}, CONTENT + b"xx"),
    "text": ({"text": "<", "repeat": 3}, b"<<<"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_wrong_bytes(server: FaultServer, tmp_path: Path, name: str) -> None:
    """Wrong bytes are wrong in one way, under a length that fits them; the next answer is true."""
    facts, expected = WRONG[name]
    server.arm([Fault(**facts)])
    async with Visitor(server, tmp_path) as visitor:
        for body in (expected, CONTENT):
            await visitor.say(GET)
            assert (await visitor.reply())[2] == body


async def test_surplus(server: FaultServer, tmp_path: Path) -> None:
    """A surplus is a second answer to one request, about another media."""
    server.arm([Fault(surplus=True)])
    async with Visitor(server, tmp_path) as visitor:
        await visitor.say(GET)
        assert (await visitor.reply())[2] == CONTENT
        assert json.loads((await visitor.reply())[2])["id"] == "9"


@pytest.mark.parametrize("ranges", ["ignore", "shift", "refuse"])
async def test_ranges(server: FaultServer, tmp_path: Path, ranges: Any) -> None:
    """A Range may be ignored, answered by another part, or refused."""
    server.arm([Fault(ranges=ranges)])
    async with Visitor(server, tmp_path) as visitor:
        await visitor.say(GET.replace(b"host", b"range: bytes=100-\r\nhost"))
        status, headers, body = await visitor.reply()
    expected = {
        "ignore": (200, None, CONTENT),
        "shift": (206, "bytes 99-10239/10240", CONTENT[99:]),
        "refuse": (416, "bytes */10240", b""),
    }
    assert (status, headers.get("content-range"), body) == expected[ranges]


async def test_what_was_done(server: FaultServer, tmp_path: Path) -> None:
    """A request whose reply is lost was carried out, unless the fault says otherwise; one that is refused was not."""
    for facts, done in (({"applied": False, "sends": "nothing"}, False), ({"status": 500}, False), ({}, True)):
        server.arm([Fault(**facts, ends="end")])
        async with Visitor(server, tmp_path) as visitor:
            await visitor.say(DELETE)
            await visitor.hear()
        assert (server.graph.deleted == {"7"}) is done


HANDSHAKES: dict[str, type[Exception]] = {
    "reset": ConnectionResetError,
    "end": ConnectionError,
    "flip": ssl.SSLError,
    "plain": ssl.SSLError,
    "silence": TimeoutError,
}


@pytest.mark.parametrize("server", ["https"], indirect=True)
@pytest.mark.parametrize("handshake", HANDSHAKES)
async def test_handshakes(server: FaultServer, tmp_path: Path, handshake: Any) -> None:
    """A TLS handshake goes wrong as a fault says, before any request; the next one does not."""
    server.arm([Fault(when="connection", handshake=handshake)])
    with pytest.raises(HANDSHAKES[handshake]):
        async with asyncio.timeout(0.5 if handshake == "silence" else 20), Visitor(server, tmp_path):
            pass
    assert not server.faults
    assert server.requests == []
    async with Visitor(server, tmp_path) as visitor:
        await visitor.say(GET)
        assert (await visitor.reply())[2] == CONTENT


@pytest.mark.parametrize("server", ["http"], indirect=True)
@pytest.mark.parametrize("ends", ["reset", "end"])
async def test_hangs_up_at_once(server: FaultServer, tmp_path: Path, ends: Any) -> None:
    """Without TLS, a connection can be ended before its first request."""
    server.arm([Fault(when="connection", handshake=ends)])
    async with Visitor(server, tmp_path) as visitor:
        assert (await visitor.hear()) == (b"", ends)
    assert not server.faults


@pytest.mark.parametrize("server", ["https"], indirect=True)
async def test_damaged_record(server: FaultServer, tmp_path: Path) -> None:
    """A bit that is flipped after encryption ends in an error of TLS, after the first half has come."""
    server.arm([Fault(flips_record=True)])
    async with Visitor(server, tmp_path) as visitor:
        await visitor.say(GET)
        heard, ended = await visitor.hear()
    assert CONTENT[5120:] not in heard
    assert "BAD_RECORD_MAC" in ended


def test_every_fault_is_used() -> None:
    """The matrix names no fault in vain."""
    matrix = tomllib.loads(Path(__file__).with_name("matrix.toml").read_text())
    before = {name for row in matrix["row"] for cell in row["cell"] for name in cell.get("before", [])}
    assert set(matrix["fault"]) == before | {name for cell in CELLS for name in cell.names}
