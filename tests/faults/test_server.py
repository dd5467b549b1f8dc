"""The fault server, seen from a socket: each fault does what its fields say. The matrix proves the rest."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import ssl
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.faults.cells import CELLS
from tests.faults.server import Fault, FaultServer, Graph
from tests.support.stepping import settled_at

CONTENT = random.Random(7).randbytes(10_240)
GET = b"GET /media/7?hash=SIGNATURE HTTP/1.1\r\nhost: x\r\n\r\n"
ASK = b"GET /v25.0/7 HTTP/1.1\r\nhost: x\r\n\r\n"
PART = GET.replace(b"host", b"range: bytes=100-\r\nhost")
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
    """Run a server, over http and over https."""
    context = None
    if request.param == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority = trustme.CA()
        authority.issue_cert("127.0.0.1").configure_cert(context)
        authority.cert_pem.write_to_path(str(tmp_path / "authority"))
    async with FaultServer(Graph(CONTENT), context) as running:
        yield running


class Visitor:
    """A connection to a server."""

    def __init__(self, server: FaultServer, folder: Path) -> None:
        self._server = server
        self._tls = ssl.create_default_context(cafile=folder / "authority") if server.tls else None

    async def __aenter__(self) -> Visitor:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._server.port, ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()  # a TLS goodbye would wait for a server that stalls
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    async def read_all(self, request: bytes) -> tuple[bytes, str]:
        """Send a request, read to the end, and return the bytes and how the connection ended."""
        self.writer.write(request)
        received = b""
        try:
            async with asyncio.timeout(20):
                while data := await self.reader.read(2**16):
                    received += data
        except ConnectionResetError:
            return received, "reset"
        except ssl.SSLError as error:
            return received, str(error.reason)
        return received, "end"

    async def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send a request, and read one response of known length."""
        self.writer.write(request)
        return await self.response()

    async def response(self) -> tuple[int, dict[str, str], bytes]:
        """Read one response of known length."""
        async with asyncio.timeout(20):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
            headers = dict(line.split(": ", 1) for line in head[1:])
            return int(head[0].split()[1]), headers, await self.reader.readexactly(int(headers["content-length"]))


async def test_truth(server: FaultServer, tmp_path: Path) -> None:
    """Without a fault it stores uploads, describes media, serves them whole or in part, and deletes them."""
    async with Visitor(server, tmp_path) as visitor:
        assert json.loads((await visitor.ask(POST + FORM))[2]) == {"id": "7"}
        assert server.graph.stored == [CONTENT]
        known = json.loads((await visitor.ask(ASK))[2])
        assert (known["id"], known["file_size"]) == ("7", len(CONTENT))
        assert (await visitor.ask(GET))[2] == CONTENT
        status, headers, body = await visitor.ask(PART)
        assert (status, headers["content-range"], body) == (206, "bytes 100-10239/10240", CONTENT[100:])
        assert [(await visitor.ask(DELETE))[0] for _ in range(2)] == [200, 400]
    assert (server.connections, len(server.requests), server.errors) == (1, 6, [])


# the fault, whether the whole body is sent, and how the connection ends
ENDS: dict[str, tuple[Fault, bool, str]] = {
    "nothing, RST": (Fault(sends="nothing", ends="reset"), False, "reset"),
    "half the head": (Fault(sends="half the head", ends="end"), False, "end"),
    "the head": (Fault(sends="the head", ends="end"), False, "end"),
    "half the body, RST": (Fault(sends="half the body", ends="reset"), False, "reset"),
    "chunked": (Fault(framing="chunked", ends="end"), True, "end"),
    "unterminated": (Fault(framing="unterminated", ends="end"), True, "end"),
    "close-delimited": (Fault(framing="close"), True, "end"),
    "cut": (Fault(framing="close", sends="half the body", ends="cut"), False, "end"),
}


@pytest.mark.parametrize("name", ENDS)
async def test_how_it_ends(server: FaultServer, tmp_path: Path, name: str) -> None:
    """The part of the response that a fault names is sent, in its framing, and the connection ends as it says."""
    fault, whole, ends = ENDS[name]
    server.arm([fault])
    async with Visitor(server, tmp_path) as visitor:
        received, ended = await visitor.read_all(GET)
    assert (ended, len(server.faults)) == (ends, 0)
    head, mark, body = received.partition(b"\r\n\r\n")
    assert bool(mark) is (fault.sends not in {"nothing", "half the head"})
    assert (b"transfer-encoding: chunked" in head) is (fault.framing in {"chunked", "unterminated"})
    assert body.endswith(b"0\r\n\r\n") is (fault.framing == "chunked")
    assert (b"content-length" in head) is (bool(mark) and fault.framing == "length")
    halves = CONTENT[: len(CONTENT) // 2], CONTENT[len(CONTENT) // 2 :]
    assert fault.sends != "half the body" or body == halves[0]
    assert all(half in body for half in halves) is whole


WRONG: dict[str, tuple[Fault, bytes, tuple[int, str | None, bytes]]] = {
    "flip": (Fault(flips=True), GET, (200, None, CONTENT[:5120] + bytes([CONTENT[5120] ^ 1]) + CONTENT[5121:])),
    "padding": (Fault(padding=2), GET, (200, None, CONTENT + b"xx")),
    "text": (Fault(text="<", repeat=3), GET, (200, None, b"<<<")),
    "range ignored": (Fault(ranges="ignore"), PART, (200, None, CONTENT)),
    "range shifted": (Fault(ranges="shift"), PART, (206, "bytes 99-10239/10240", CONTENT[99:])),
    "range refused": (Fault(ranges="refuse"), PART, (416, "bytes */10240", b"")),
    "surplus": (Fault(surplus=True), GET, (200, None, CONTENT)),
}


@pytest.mark.parametrize("name", WRONG)
async def test_wrong_responses(server: FaultServer, tmp_path: Path, name: str) -> None:
    """A response is wrong in the one way that its fault names, under a length that fits; the next one is right."""
    fault, request, expected = WRONG[name]
    server.arm([fault])
    async with Visitor(server, tmp_path) as visitor:
        status, headers, body = await visitor.ask(request)
        assert (status, headers.get("content-range"), body) == expected
        if fault.surplus:
            assert json.loads((await visitor.response())[2])["id"] == "9"
        assert (await visitor.ask(GET))[2] == CONTENT


async def test_slow_and_silent(server: FaultServer, tmp_path: Path) -> None:
    """A pace puts time between single bytes; a stall sends nothing more, and notices that its client has gone."""
    server.arm([Fault(pace=30.0), Fault(sends="half the body", ends="stall")])
    for received in (CONTENT[:1], CONTENT[:5120]):
        async with Visitor(server, tmp_path) as visitor:
            visitor.writer.write(GET)
            await visitor.reader.readuntil(b"\r\n\r\n" + received)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await visitor.reader.read(1)
        server.open -= received == CONTENT[:1]  # it sleeps, and does not notice
    await settled_at(0, lambda: server.open)


@pytest.mark.parametrize("ends", ["end", "reset", "drain"])
async def test_early(server: FaultServer, tmp_path: Path, ends: Any) -> None:
    """A fault at the head answers before the body is whole, and nothing is stored."""
    server.arm([Fault(when="head", reads=100, status=413, ends=ends)])
    async with Visitor(server, tmp_path) as visitor:
        status, _, body = await visitor.ask(POST + FORM[:2000])
        assert (status, json.loads(body)["error"]["fbtrace_id"]) == (413, "AbScriptedTrace")
    assert (server.graph.stored, len(server.faults)) == ([], 0)


async def test_what_was_done(server: FaultServer, tmp_path: Path) -> None:
    """A request whose response is lost is carried out, unless the fault says otherwise; a refused one is not."""
    for fault, done in (
        (Fault(applied=False, sends="nothing", ends="end"), False),
        (Fault(status=500, ends="end"), False),
        (Fault(ends="end"), True),
    ):
        server.arm([fault])
        async with Visitor(server, tmp_path) as visitor:
            await visitor.read_all(DELETE)
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
    """A TLS handshake fails as its fault says, before any request; the next one succeeds."""
    server.arm([Fault(when="connection", handshake=handshake)])
    with pytest.raises(HANDSHAKES[handshake]):
        async with asyncio.timeout(0.5 if handshake == "silence" else 20), Visitor(server, tmp_path):
            pass
    assert (len(server.faults), server.requests) == (0, [])
    async with Visitor(server, tmp_path) as visitor:
        assert (await visitor.ask(GET))[2] == CONTENT


@pytest.mark.parametrize("server", ["https"], indirect=True)
async def test_damaged_record(server: FaultServer, tmp_path: Path) -> None:
    """A bit that is flipped after encryption is an error of TLS, after the first half has arrived."""
    server.arm([Fault(flips_record=True)])
    async with Visitor(server, tmp_path) as visitor:
        received, ended = await visitor.read_all(GET)
    assert CONTENT[5120:] not in received
    assert "BAD_RECORD_MAC" in ended


def test_every_fault_is_used() -> None:
    """The matrix uses every fault that it names."""
    matrix = tomllib.loads(Path(__file__).with_name("matrix.toml").read_text())
    before = {name for row in matrix["row"] for cell in row["cell"] for name in cell.get("before", [])}
    assert set(matrix["fault"]) == before | {name for cell in CELLS for name in cell.names}
