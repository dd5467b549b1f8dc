"""The emulator's faults, as a bare socket or a plain client meets them: which bytes come, and how a connection ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Self

import attrs
import httpx
import pytest

from meta_media.emulator import Emulator, EmulatorSettings, Fault, PlannedFault, faults, read_faults
from meta_media.emulator.faults import FaultQueue, Position
from meta_media.emulator.graph import operation_of
from tests.support.servers import wait_until

CONTENT = os.urandom(5000)
QUIET = 0.2  # seconds in which nothing may come
FORM = (
    b'--B\r\nContent-Disposition: form-data; name="messaging_product"\r\n\r\nwhatsapp\r\n'
    b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\nContent-Type: video/mp4\r\n\r\n'
)


@attrs.frozen(kw_only=True)
class Response:
    """A response as it was received."""

    status: int
    headers: dict[str, str]
    body: bytes


class Peer:
    """A socket, and nothing between it and the test."""

    def __init__(self, base_url: str) -> None:
        host, _, port = base_url.removeprefix("http://").rpartition(":")
        self._address = (host, int(port))
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._loop = asyncio.get_running_loop()

    async def __aenter__(self) -> Self:
        await self._loop.sock_connect(self._socket, self._address)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.hang_up()

    def hang_up(self) -> None:
        """Close the socket."""
        self._socket.close()

    async def send(self, data: bytes) -> None:
        """Send all of the data."""
        await self._loop.sock_sendall(self._socket, data)

    async def receive(self, size: int) -> bytes:
        """Receive `size` bytes."""
        received = b""
        while len(received) < size:
            piece = await self._loop.sock_recv(self._socket, size - len(received))
            assert piece, f"the connection ended after {received!r}"
            received += piece
        return received

    async def receive_all(self) -> tuple[bytes, str]:
        """Receive everything, and return it with how the connection ended."""
        received = bytearray()
        try:
            while piece := await self._loop.sock_recv(self._socket, 65536):
                received += piece
        except ConnectionResetError:
            return bytes(received), "reset"
        return bytes(received), "close"

    async def head(self) -> tuple[int, dict[str, str]]:
        """Receive the head of a response, and no more."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await self.receive(1)
        return parsed(head)

    async def response(self) -> Response:
        """Receive a whole response that says how long it is."""
        status, headers = await self.head()
        return Response(status=status, headers=headers, body=await self.receive(int(headers["content-length"])))

    async def receive_until_silence(self) -> bytes:
        """Receive until nothing comes, on a connection that stays open."""
        received = b""
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(QUIET):
                    received += await self.receive(1)
        return received


def parsed(head: bytes) -> tuple[int, dict[str, str]]:
    """Read the head of a response."""
    first, *lines = head.removesuffix(b"\r\n\r\n").decode().split("\r\n")
    match = re.fullmatch(r"HTTP/1.1 (\d{3}) .*", first)
    assert match, first
    headers = dict(line.split(": ", 1) for line in lines)
    assert len(headers) == len(lines), f"a header twice: {lines}"
    return int(match[1]), headers


def url_in(webhook: bytes) -> str:
    """Read the URL out of a webhook about a video."""
    [message] = json.loads(webhook)["entry"][0]["changes"][0]["value"]["messages"]
    return str(message["video"]["url"])


class World:
    """An emulator with one file in it, and how to ask it for things."""

    def __init__(self, emulator: Emulator, media_id: str, target: str) -> None:
        self.emulator = emulator
        self.media_id = media_id
        self.target = target

    def peer(self) -> Peer:
        """A socket to it."""
        return Peer(self.emulator.base_url)

    def request(self, method: str, target: str, body: bytes = b"", *more: str, version: str = "1.1") -> bytes:
        """Write a request."""
        token, length = self.emulator.access_token, f"content-length: {len(body)}"
        lines = [f"{method} {target} HTTP/{version}", "host: x", "user-agent: me", f"authorization: Bearer {token}"]
        return "\r\n".join([*lines, *([length] if body else []), *more, "", ""]).encode() + body

    @property
    def download(self) -> bytes:
        """The request for the file."""
        return self.request("GET", self.target)

    @property
    def info(self) -> bytes:
        """The request for its description."""
        return self.request("GET", f"/v25.0/{self.media_id}")

    @property
    def delete(self) -> bytes:
        """The request to delete it."""
        return self.request("DELETE", f"/v25.0/{self.media_id}")

    @property
    def exists(self) -> bool:
        """Whether the file is still there."""
        return any(path.name == self.media_id for path in self.files)

    @property
    def files(self) -> list[Path]:
        """What is in the emulator's folder."""
        assert self.emulator._data is not None
        return list((self.emulator._data / "media").iterdir())

    def upload(self, content: bytes = CONTENT) -> bytes:
        """The request to upload a file."""
        kind = "content-type: multipart/form-data; boundary=B"
        body = FORM + content + b"\r\n--B--\r\n"
        return self.request("POST", f"/v25.0/{self.emulator.phone_number_id}/media", body, kind)

    async def is_fine(self) -> None:
        """Check that all faults are used up, and that the file can be downloaded."""
        assert self.emulator.faults == []
        async with self.peer() as peer:
            await peer.send(self.download)
            assert (await peer.response()).body == CONTENT


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """An emulator with one file."""
    async with Emulator(tmp_path) as emulator:
        body, _ = await emulator.receive(CONTENT, "video/mp4")
        [message] = json.loads(body)["entry"][0]["changes"][0]["value"]["messages"]
        yield World(emulator, message["video"]["id"], message["video"]["url"].removeprefix(emulator.base_url))


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """For uvicorn, a request with a fault ends in order: it logs nothing."""
    yield
    for when in ("setup", "call"):
        records = [record for record in caplog.get_records(when) if record.name == "meta_media.emulator"]
        assert [record for record in records if record.levelno >= logging.WARNING] == []


HTML = "text/html; charset=utf-8"
JSON = "application/json"


@pytest.mark.parametrize(
    ("fault", "status", "headers", "body"),
    [
        (Fault(status=503), 503, {"content-type": None}, b""),
        (Fault(status=599, body=b"\0\xff", headers={"X-A": "b"}), 599, {"content-type": JSON, "x-a": "b"}, b"\0\xff"),
        (Fault(body="[]", headers={"Content-Type": "x/y"}), 200, {"content-type": "x/y"}, b"[]"),
        (Fault(body=""), 200, {"content-type": JSON, "content-length": "0"}, b""),
        (Fault.html(), 200, {"content-type": HTML}, b"<!DOCTYPE html>"),
        (Fault.html(502, "<p>", headers={"age": "9"}), 502, {"content-type": HTML, "age": "9"}, b"<p>"),
        (Fault.redirect("http://10.0.0.1:1/x?y"), 302, {"location": "http://10.0.0.1:1/x?y"}, b""),
        (Fault.redirect("//user@other", 307, body="there"), 307, {"location": "//user@other"}, b"there"),
    ],
    ids=str,
)
async def test_another_reply(
    world: World, fault: Fault, status: int, headers: dict[str, str | None], body: bytes
) -> None:
    """Status, headers and body are as planned; then the connection and the emulator go on as ever."""
    world.emulator.fail("download", fault)
    async with world.peer() as peer:
        await peer.send(world.download)
        response = await peer.response()
        assert (response.status, {name: response.headers.get(name) for name in headers}) == (status, headers)
        assert response.body[: len(body) or None] == body
        assert "date" in response.headers
        await peer.send(world.download)
        assert (await peer.response()).body == CONTENT
    await world.is_fine()


async def test_errors_and_throttles_of_the_graph_api(world: World) -> None:
    """Refusals come in Meta's envelope, and throttles carry the time to wait in each of Meta's ways or in none."""
    emulator, received = world.emulator, []
    emulator.fail("graph", Fault.error(190, 401, "Dead"))
    emulator.fail("graph", Fault.throttle())
    emulator.fail("graph", Fault.throttle(80007, 400, retry_after=2, usage_minutes=5))
    emulator.fail("graph", Fault.throttle(999, retry_after="soon", headers={"via": "me"}))
    async with world.peer() as peer:
        for _ in range(4):
            await peer.send(world.info)
            response = await peer.response()
            error = json.loads(response.body)["error"]
            assert error.pop("fbtrace_id") == response.headers["x-fb-trace-id"]
            names = ("retry-after", "x-business-use-case-usage", "via")
            received.append(
                (response.status, error["code"], error["message"], [response.headers.get(name) for name in names])
            )
    usage = '{"1020304050607":[{"type":"whatsapp","call_count":100,"total_cputime":100,"total_time":100,'
    usage += '"estimated_time_to_regain_access":5}]}'
    assert received == [
        (401, 190, "Dead", [None, None, None]),
        (429, 130429, "(#130429) Rate limit hit", [None, None, None]),
        (400, 80007, "(#80007) Rate limit issues", ["2", usage, None]),
        (429, 999, "(#999) Too many calls", ["soon", None, "me"]),
    ]
    await world.is_fine()


@pytest.mark.parametrize("applied", [False, True])
async def test_a_reply_that_lies(world: World, applied: bool) -> None:
    """Another response is given without doing what was asked, or although it was done."""
    world.emulator.fail("delete", Fault(status=500, applied=applied))
    async with world.peer() as peer:
        await peer.send(world.delete)
        assert (await peer.response()).status == 500
        assert world.exists is not applied
        world.emulator.fail("upload", Fault.html(504, applied=applied))
        await peer.send(world.upload(b"new"))
        assert (await peer.response()).status == 504
    assert any(path.read_bytes() == b"new" for path in world.files) is applied
    assert world.emulator.faults == []


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_connection_that_ends(world: World, end: Any) -> None:
    """Before, in and after head and body, a connection is closed or reset, and what was sent until then has come."""
    positions: tuple[tuple[Any, int | None], ...] = (
        *(("request", None), (None, None), ("reply", None), ("head", None)),
        *((0, 0), (1, 1), (4999, 4999), (5000, 5000), (9999, 5000), ("end", 5000)),
    )
    for at, body in positions:
        world.emulator.fail("download", Fault(at=at, end=end))
        async with world.peer() as peer:
            await peer.send(world.download)
            received, ended = await peer.receive_all()
        assert ended == end
        if at in {"request", "reply", None}:
            assert received == b""
        elif at == "head":
            assert received.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"\r\n\r\n" not in received
        elif end == "close" or sys.platform == "linux":  # elsewhere, RST takes back what was not read yet
            head, _, content = received.partition(b"\r\n\r\n")
            assert parsed(head)[1]["content-length"] == "5000"
            assert content == CONTENT[:body]
    await world.is_fine()


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize(("at", "done"), [("request", False), ("reply", True)])
async def test_done_or_not(world: World, at: Any, end: Any, done: bool) -> None:
    """At "request" nothing is done yet; at "reply" all is."""
    tasks = asyncio.all_tasks()
    world.emulator.fail("delete", Fault(at=at, end=end))
    async with world.peer() as peer:
        await peer.send(world.delete)
        assert await peer.receive_all() == (b"", end)
    await wait_until(lambda: asyncio.all_tasks() == tasks)
    assert world.exists is not done


@pytest.mark.parametrize("at", ["request", "reply", "head", 0, 1000, "end"])
async def test_a_stall(world: World, at: Any) -> None:
    """The connection falls silent and stays open; when the client hangs up, nothing is left of it."""
    tasks = asyncio.all_tasks()
    world.emulator.fail("any", Fault(at=at, end="stall"))
    async with world.peer() as peer:
        await peer.send(world.download)
        if at == "head":
            assert await peer.receive(17) == b"HTTP/1.1 200 OK\r\n"
            assert b"\r\n\r\n" not in await peer.receive_until_silence()
        elif at not in {"request", "reply"}:
            assert (await peer.head())[1]["content-length"] == "5000"
            expected = CONTENT if at == "end" else CONTENT[:at]
            assert await peer.receive(len(expected)) == expected
        assert await peer.receive_until_silence() == b""
        await world.is_fine()
    await wait_until(lambda: asyncio.all_tasks() == tasks)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(end="stall"),
        Fault(at="request", end="stall"),
        Fault(at="request", reads=10, end="stall"),
        Fault(at=10, end="stall"),
        Fault(at="end", end="stall"),
        Fault(delay=3600),
        Fault(at=5, delay=3600),
        Fault(rate=0.001),
        Fault(read_rate=0.001, status=500),
        Fault(applied=True, read_rate=1, status=500),
        Fault(status=413, reads=0, at="end", end="stall"),
    ],
    ids=str,
)
async def test_the_end_of_the_emulator(tmp_path: Path, fault: Fault) -> None:
    """An emulator that stops in the middle of a fault ends every connection, and no task of it is left."""
    tasks = asyncio.all_tasks()
    async with Emulator(tmp_path) as emulator:
        world = World(emulator, "1", "/")
        emulator.fail("any", fault, times=None)
        one, other = world.peer(), world.peer()
        async with one, other:
            await one.send(world.info)
            await other.send(world.upload()[:-1])
            await wait_until(lambda: len(emulator.requests) == 2)
            await emulator.__aexit__(None, None, None)
            for peer in (one, other):
                await peer.receive_all()
    assert asyncio.all_tasks() == tasks


async def test_a_delay(world: World) -> None:
    """Silence comes before everything, before the response or inside it; everything after it is unchanged."""
    places: tuple[Position | None, ...] = ("request", "reply", None, "head", 1000, "end")
    headers = {"accept-ranges": "bytes", "content-length": "5000", "content-type": "video/mp4"}
    for at in places:
        world.emulator.fail("download", Fault(at=at, delay=QUIET))
        async with world.peer() as peer:
            begun = time.monotonic()
            await peer.send(world.download)
            response = await peer.response()
            del response.headers["date"]
            assert (response.status, response.headers, response.body) == (200, headers, CONTENT)
            if at != "end":
                assert time.monotonic() - begun >= QUIET
    await world.is_fine()


async def test_a_body_that_is_not_the_file(world: World) -> None:
    """A bit is flipped, or the end is missing without a trace, also in the later pieces of a large file."""
    large = os.urandom(2**20 + 7)
    async with world.peer() as peer:
        for content, fault, same in (
            (CONTENT, Fault(flip_at=0), 0),
            (CONTENT, Fault(flip_at=4999), 4999),
            (CONTENT, Fault(flip_at=5000), 5000),
            (large, Fault(flip_at=2**20), 2**20),
        ):
            body, _ = await world.emulator.receive(content, "video/mp4")
            world.emulator.fail("download", fault)
            await peer.send(world.request("GET", url_in(body).removeprefix(world.emulator.base_url)))
            received = (await peer.response()).body
            wrong = [index for index, pair in enumerate(zip(received, content, strict=True)) if pair[0] != pair[1]]
            assert wrong == ([same] if same < len(content) else [])
            assert all((received[index] ^ content[index]).bit_count() == 1 for index in wrong)
            world.emulator.fail("download", Fault(truncate=same))
            await peer.send(world.request("GET", url_in(body).removeprefix(world.emulator.base_url)))
            assert (await peer.response()).body == content[:same]
    await world.is_fine()


async def test_a_length_that_lies(world: World) -> None:
    """`Content-Length` says more or less than there is, and the connection stays open if nothing ends it."""
    for length in (0, 4990, 5010):
        world.emulator.fail("download", Fault(content_length=length))
        world.emulator.fail("download", Fault(content_length=length, at="end", end="close"))
        async with world.peer() as peer:
            await peer.send(world.download)
            assert (await peer.head())[1]["content-length"] == str(length)
            assert await peer.receive(5000) == CONTENT
            await peer.send(world.download)
            assert (await peer.head())[1]["content-length"] == str(length)
            assert await peer.receive_all() == (CONTENT, "close")
    await world.is_fine()


async def test_surplus_bytes(world: World) -> None:
    """Bytes follow the end of a response, and the next response follows them."""
    world.emulator.fail("any", Fault(surplus="HTTP/1.1 200 OK\r\n\r\n"))
    async with world.peer() as peer:
        await peer.send(world.download)
        assert (await peer.response()).body == CONTENT
        await peer.send(world.info)
        assert await peer.receive(19) == b"HTTP/1.1 200 OK\r\n\r\n"
        assert json.loads((await peer.response()).body)["id"] == world.media_id
    await world.is_fine()


async def test_chunks(world: World) -> None:
    """A response in chunks has no length, and an end that may be missing."""
    for fault in (Fault(framing="chunked"), Fault(framing="chunked", at=9999, end="close")):
        world.emulator.fail("download", fault)
    world.emulator.fail("download", Fault(framing="chunked", at=1, surplus="!", delay=0.01))
    async with world.peer() as peer:
        await peer.send(world.download)
        _, headers = await peer.head()
        assert (headers["transfer-encoding"], "content-length" in headers) == ("chunked", False)
        whole = b"1388\r\n" + CONTENT + b"\r\n"
        assert await peer.receive(len(whole) + 5) == whole + b"0\r\n\r\n"
        await peer.send(world.download)
        await peer.head()
        assert await peer.receive_all() == (whole, "close")
    async with world.peer() as peer:
        await peer.send(world.download)
        await peer.head()
        said = b"1\r\n" + CONTENT[:1] + b"\r\n1387\r\n" + CONTENT[1:] + b"\r\n0\r\n\r\n!"
        assert await peer.receive(len(said)) == said
        await peer.send(world.download)
        assert (await peer.response()).body == CONTENT
    await world.is_fine()


async def test_a_body_that_ends_with_the_connection(world: World) -> None:
    """A response without a length ends where the connection does, whole or not."""
    for fault, body, end in (
        (Fault(framing="close"), CONTENT, "close"),
        (Fault(framing="close", at=1000, end="close"), CONTENT[:1000], "close"),
        (Fault(framing="close", at="end", end="reset", surplus="!"), CONTENT + b"!", "reset"),
    ):
        world.emulator.fail("download", fault)
        async with world.peer() as peer:
            await peer.send(world.download)
            _, headers = await peer.head()
            assert (headers["connection"], {"content-length", "transfer-encoding"} & set(headers)) == ("close", set())
            assert await peer.receive_all() == (body, end)
    await world.is_fine()


async def test_a_trickle(world: World) -> None:
    """A response's body takes as long as its rate says, and goes on only as long as the client listens."""
    world.emulator.fail("download", Fault(rate=20_000))
    world.emulator.fail("download", Fault(rate=10, framing="chunked"))
    tasks = asyncio.all_tasks()
    async with world.peer() as peer:
        begun = time.monotonic()
        await peer.send(world.download)
        assert (await peer.response()).body == CONTENT
        assert time.monotonic() - begun >= 0.19  # of 0.2: nothing waits after the last piece
        await peer.send(world.download)
        await peer.head()
        assert await peer.receive(12) == b"1\r\n" + CONTENT[:1] + b"\r\n1\r\n" + CONTENT[1:2] + b"\r\n"
    await wait_until(lambda: asyncio.all_tasks() == tasks)
    await world.is_fine()


async def test_a_listener_that_is_late(world: World) -> None:
    """What is said before a reset is not held back in the emulator for one who does not listen yet."""
    large = bytes(64 * 2**20)
    body, _ = await world.emulator.receive(large, "video/mp4")
    world.emulator.fail("download", Fault(at=len(large), end="reset"))
    async with world.peer() as peer:
        await peer.send(world.request("GET", url_in(body).removeprefix(world.emulator.base_url)))
        assert (await peer.head())[1]["content-length"] == str(len(large))
        await asyncio.sleep(QUIET)  # so late
        received, end = await peer.receive_all()
    assert end == "reset"
    assert len(large) // 2 < len(received) <= len(large)  # but for what the system had not delivered
    await world.is_fine()


async def test_a_slow_reader(world: World) -> None:
    """A request's body is read no faster than planned, and arrives whole; also one that gets another response."""
    content = os.urandom(2**20)
    for fault, status in ((Fault(read_rate=4e6), 200), (Fault(read_rate=4e6, status=500), 500)):
        world.emulator.fail("upload", fault)
        async with world.peer() as peer:
            begun = time.monotonic()
            await peer.send(world.upload(content))
            assert (await peer.response()).status == status
            assert time.monotonic() - begun >= 0.1  # of 0.26, less what came along with the head
            await peer.send(world.upload())
            assert (await peer.response()).status == 200
    assert sum(path.read_bytes() == content for path in world.files) == 1
    await world.is_fine()


async def test_a_steady_reader(world: World) -> None:
    """What is read at a rate is read in small steps, not in a gulp with a long rest after it."""
    world.emulator.fail("upload", Fault(status=500, reads=100, read_rate=200))
    body = world.upload(bytes(200_000))
    begin = body.index(b"\r\n\r\n") + 5  # with one byte of the body, which counts not
    async with world.peer() as peer:
        await peer.send(body[:begin])
        await wait_until(lambda: bool(world.emulator.requests))
        await peer.send(body[begin:])
        assert (await peer.response()).status == 500
    await world.is_fine()


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_an_end_for_a_client_that_has_left(world: World, end: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A connection that the client has closed meanwhile is not ended once more: nothing is logged as an error."""
    world.emulator.fail("get_info", Fault(delay=30, end=end))
    async with world.peer() as peer:
        before = len(world.emulator.requests)
        await peer.send(world.info)
        await asyncio.sleep(0.1)  # time in which the request arrives: nothing tells that it waits
        peer.hang_up()
        await wait_until(lambda: len(world.emulator.requests) > before)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    await world.is_fine()


@pytest.mark.parametrize("end", [None, "close", "reset", "stall"])
async def test_an_early_reply(world: World, end: Any) -> None:
    """A response comes while the request's body is still on its way; then the rest is read, cut off or left unread."""
    body, rest = world.upload(bytes(15_000_000)), 14_999_000
    world.emulator.fail("upload", Fault(status=413, reads=0, at=None if end is None else "end", end=end))
    async with world.peer() as peer:
        await peer.send(body[:-rest])
        assert (await peer.response()).status == 413
        if end is None:
            await peer.send(body[-rest:] + world.info)
            assert (await peer.response()).status == 200
        elif end == "stall":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(QUIET):
                    await peer.send(body[-rest:])
        else:
            assert await peer.receive_all() == (b"", end)
    await world.is_fine()


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault(status=413, reads=300_000), "413"),
        (Fault(at="request", reads=300_000, end="reset"), "reset"),
        (Fault(at="request", reads=300_000, delay=0.01, status=500), "500"),
    ],
    ids=str,
)
async def test_after_part_of_a_request(world: World, fault: Fault, expected: str) -> None:
    """It happens once that many bytes of the request's body have been read, not before, and without waiting for more."""
    body = world.upload(bytes(8_000_000))
    world.emulator.fail("upload", fault)
    async with world.peer() as peer:
        await peer.send(body[:200_000])
        assert await peer.receive_until_silence() == b""
        await peer.send(body[200_000:400_000])
        if expected == "reset":
            assert await peer.receive_all() == (b"", "reset")
        else:
            assert str((await peer.response()).status) == expected
    assert len(world.files) == 1
    await world.is_fine()


async def test_an_expired_url(tmp_path: Path) -> None:
    """A look-up hands out a URL that has expired, or a download finds its own expired: the response is the real one."""
    async with Emulator(tmp_path, settings=EmulatorSettings(expired_url_status=403)) as emulator:
        body, _ = await emulator.receive(CONTENT, "video/mp4")
        world = World(emulator, re.findall(rb'"id":"(\d{16})"', body)[0].decode(), url_in(body))
        headers = {"authorization": f"Bearer {emulator.access_token}"}
        async with httpx.AsyncClient(base_url=emulator.base_url, headers=headers, trust_env=False) as http:
            emulator.fail("get_info", Fault(expired_url=True))
            emulator.fail("download", Fault(expired_url=True), times=2)
            expired = (await http.get(f"/v25.0/{world.media_id}")).json()["url"]
            fresh = (await http.get(f"/v25.0/{world.media_id}")).json()["url"]
            responses = [await http.get(url) for url in (fresh, fresh, fresh, expired)]
    assert [response.status_code for response in responses] == [403, 403, 200, 403]
    assert {response.text for response in responses if response.status_code == 403} == {"URL signature expired"}
    assert emulator.faults == []


@pytest.mark.parametrize("fault", [Fault(status=200, body="x"), Fault(rate=1e9), Fault(framing="chunked")], ids=str)
async def test_other_kinds_of_requests(world: World, fault: Fault) -> None:
    """HEAD has no body, and a client that wants the connection closed has it closed."""
    world.emulator.fail("any", fault, times=3)
    async with world.peer() as peer:
        await peer.send(world.request("HEAD", world.target) + world.info)
        _, headers = await peer.head()
        length = None if fault.framing == "chunked" else str(len(fault.body or CONTENT))
        assert headers.get("content-length") == length
        assert (await peer.head())[0] == 200
    for version, more in (("1.1", ["connection: close"]), ("1.0", [])):
        async with world.peer() as peer:
            await peer.send(world.request("GET", world.target, b"", *more, version=version))
            _, headers = await peer.head()
            assert headers.get("connection") == ("close" if more else None)
            assert (await peer.receive_all())[1] == "close"
    await world.is_fine()


async def test_headers_of_the_real_reply(world: World) -> None:
    """Headers join those of the real response or take their place."""
    world.emulator.fail("download", Fault(headers={"Content-Type": "text/html", "Content-Encoding": "gzip"}))
    async with world.peer() as peer:
        await peer.send(world.download)
        response = await peer.response()
    names = ("content-type", "content-encoding", "accept-ranges")
    assert [response.headers[name] for name in names] == ["text/html", "gzip", "bytes"]
    assert response.body == CONTENT
    await world.is_fine()


async def test_a_refusal_that_is_real(world: World) -> None:
    """What happens to responses happens to refusals too."""
    world.emulator.fail("get_info", Fault(flip_at=0))
    async with world.peer() as peer:
        await peer.send(world.request("GET", "/v25.0/1"))
        response = await peer.response()
    assert (response.status, response.body[:2]) == (400, b'z"')
    await world.is_fine()


async def test_the_queue(world: World) -> None:
    """Each request takes the first fault planned for it; what is left can be seen, and forgotten."""
    emulator = world.emulator
    emulator.fail("delete", Fault(status=501))
    emulator.fail("get_info", Fault(status=502), times=2)
    emulator.fail("any", Fault(status=503))
    emulator.fail("get_info", Fault(status=504), times=None)
    emulator.fail("send", Fault(status=505), times=3)
    received = []
    async with world.peer() as peer:
        message = world.request("POST", "/v25.0/1/messages", b"{}")
        for request in (world.info, world.download, world.info, world.info, world.download, message):
            await peer.send(request)
            received.append((await peer.response()).status)
        assert received == [502, 503, 502, 504, 200, 505]
        assert emulator.faults == [
            PlannedFault(operation="delete", fault=Fault(status=501)),
            PlannedFault(operation="get_info", fault=Fault(status=504), times=None),
            PlannedFault(operation="send", fault=Fault(status=505), times=2),
        ]
        emulator.clear_faults()
        await peer.send(world.info)
        assert (await peer.response()).status == 200
    await world.is_fine()


async def test_throttle_counts_anew(world: World) -> None:
    """A second call of `throttle` takes the place of the first, touches no other fault, and none ends it."""
    emulator = world.emulator
    emulator.throttle(5)
    emulator.fail("graph", Fault(status=500))
    emulator.throttle(1)
    assert [(planned.times, planned.fault.status) for planned in emulator.faults] == [(1, 500), (1, 400)]
    emulator.throttle(0)
    assert [(planned.times, planned.fault.status) for planned in emulator.faults] == [(1, 500)]


async def test_chance(world: World) -> None:
    """A probability strikes about as often as it says, at the same requests in every run of one seed."""

    def struck(seed: int) -> list[bool]:
        queue, fault = FaultQueue(), Fault(status=500)
        queue.add(PlannedFault(operation="any", fault=fault, times=None, probability=0.1, seed=seed))
        return [queue.take("upload") is fault for _ in range(1000)]

    first = struck(0)
    assert 70 < sum(first) < 130
    assert first == struck(0) != struck(1)
    world.emulator.fail("download", Fault(status=500), probability=1e-9)
    async with world.peer() as peer:
        await peer.send(world.download)
        assert (await peer.response()).status == 200
    assert len(world.emulator.faults) == 1


def test_threads() -> None:
    """Faults that several threads plan while requests take them are each taken once."""
    queue, taken, count = FaultQueue(), 0, 100

    def plan() -> None:
        for number in range(count):
            queue.add(PlannedFault(operation="any", fault=Fault(status=200 + number), times=2))
            queue.left()

    threads = [threading.Thread(target=plan) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) or queue.left():
        taken += queue.take("send") is not None
    assert taken == 4 * count * 2


@pytest.mark.parametrize(
    ("method", "path", "operation"),
    [
        ("POST", "/v25.0/1/media", "upload"),
        ("GET", "/v25.0/1", "get_info"),
        ("HEAD", "/v25.0/1", "get_info"),
        ("GET", "/whatsapp_business/attachments/", "download"),
        ("DELETE", "/v25.0/1", "delete"),
        ("POST", "/v25.0/1/messages", "send"),
        ("GET", "/", None),
        ("POST", "/v25.0/1", None),
        ("GET", "/v25.0/1/media", None),
    ],
)
def test_operations(method: str, path: str, operation: Any) -> None:
    """Every request is of one operation or none; "graph" is all but downloads, "any" is everything."""
    assert operation_of(method, path) == operation

    def strikes(planned: Any) -> bool:
        return PlannedFault(operation=planned, fault=Fault(status=500)).is_for(operation)

    verbs = ("upload", "get_info", "download", "delete", "send")
    assert [verb for verb in verbs if strikes(verb)] == [verb for verb in verbs if verb == operation]
    assert (strikes("any"), strikes("graph")) == (True, operation not in {None, "download"})


async def test_before_the_start(tmp_path: Path) -> None:
    """Faults may be planned before the emulator runs, and the first request meets them."""
    emulator = Emulator(tmp_path)
    emulator.fail("any", Fault(status=503))
    async with emulator, World(emulator, "1", "/").peer() as peer:
        await peer.send(World(emulator, "1", "/").info)
        assert (await peer.response()).status == 503


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "a fault needs at least one field"),
        ({"status": 199}, "status must be a whole number from 200 to 599, not 199"),
        ({"status": True}, "status must be a whole number from 200 to 599, not True"),
        ({"body": 5}, "body must be text or bytes, not 5"),
        ({"headers": "a: b"}, "headers must be a mapping of names to values in printable ASCII, not 'a: b'"),
        (
            {"headers": {"a": "b\r\nc"}},
            "headers must be a mapping of names to values in printable ASCII, not {'a': 'b\\r\\nc'}",
        ),
        ({"headers": {"a": 1}}, "headers must be a mapping of names to values in printable ASCII, not {'a': 1}"),
        ({"status": 500, "applied": 1}, "applied must be true or false, not 1"),
        ({"rate": 0}, "rate must be a number above 0, not 0"),
        ({"rate": float("nan")}, "rate must be a number above 0, not nan"),
        ({"delay": float("inf")}, "delay must be a number above 0, not inf"),
        ({"flip_at": -1}, "flip_at must be a whole number of at least 0, not -1"),
        ({"framing": "none"}, "framing must be one of length, chunked, close, not 'none'"),
        ({"end": []}, "end must be one of close, reset, stall, not []"),
        (
            {"at": "body", "end": "close"},
            "at must be one of request, reply, head, end or a number of bytes, not 'body'",
        ),
        ({"at": -1, "end": "close"}, "at must be one of request, reply, head, end or a number of bytes, not -1"),
        ({"at": "head"}, "at is where something happens: give a delay, an end or both"),
        ({"applied": True}, "applied = true needs a status or a body to answer with"),
        ({"applied": True, "status": 500, "reads": 1}, "applied reads the whole request: leave out reads"),
        ({"reads": 1, "rate": 5}, 'reads needs a status, a body, or an end at "request"'),
        ({"reads": 1, "end": "close"}, 'reads needs a status, a body, or an end at "request"'),
        ({"expired_url": True, "body": "x"}, "expired_url changes the real response: leave out status and body"),
        (
            {"content_length": 1, "framing": "close"},
            "a response of framing close has no length: leave out content_length",
        ),
        ({"end": "reset", "status": 500, "rate": 1}, "the connection ends before the response: leave out rate, status"),
    ],
)
def test_faults_that_cannot_be(fields: dict[str, Any], sentence: str) -> None:
    """A fault that makes no sense is refused in one sentence that names the field."""
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        Fault(**fields)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"operation": "info"},
            "operation must be one of upload, upload_handle, get_info, download, delete, send, graph, any, not 'info'",
        ),
        ({"times": 0}, "times must be a whole number of at least 1, not 0"),
        ({"probability": 2}, "probability must be a number above 0 and at most 1, not 2"),
        ({"probability": 0}, "probability must be a number above 0 and at most 1, not 0"),
    ],
)
def test_plans_that_cannot_be(arguments: dict[str, Any], sentence: str) -> None:
    """So is a plan."""
    emulator = Emulator()
    given: dict[str, Any] = {"operation": "any", "fault": Fault(status=500)} | arguments
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        emulator.fail(**given)
    assert emulator.faults == []


def test_faults_are_values() -> None:
    """A fault shows what was given, equals its like, and does not change with what it was made from."""
    headers = {"a": "b"}
    fault = Fault(status=500, body="é", headers=headers, at=0, end="stall")
    headers["a"] = "c"
    assert repr(fault) == "Fault(status=500, body=b'\\xc3\\xa9', headers={'a': 'b'}, at=0, end='stall')"
    assert fault == Fault(status=500, body="é".encode(), headers={"a": "b"}, at=0, end="stall")
    assert repr(Fault(body="")) == "Fault(body=b'')"


FILE = """
[[fault]]
operation = "download"
times = 2
at = 1000
end = "reset"

[[fault]]
operation = "graph"
kind = "throttle"
times = "always"
probability = 0.5
seed = 7
retry_after = 2
surplus = "x"

[[fault]]
operation = "any"
kind = "redirect"
location = "http://elsewhere"

[[fault]]
operation = "send"
status = 500
body = "no"
headers = {content-type = "text/plain"}
"""


def test_a_file(tmp_path: Path) -> None:
    """A file says what calls of `fail` say, in order."""
    (tmp_path / "faults.toml").write_text(FILE)
    reset, throttle, redirect, plain = read_faults(tmp_path / "faults.toml")
    assert reset == PlannedFault(operation="download", fault=Fault(at=1000, end="reset"), times=2)
    assert (throttle.times, throttle.probability, throttle.seed) == (None, 0.5, 7)
    assert (throttle.fault.status, throttle.fault.headers["retry-after"], throttle.fault.surplus) == (429, "2", b"x")
    assert redirect == PlannedFault(operation="any", fault=Fault.redirect("http://elsewhere"))
    assert plain.fault == Fault(status=500, body="no", headers={"content-type": "text/plain"})


def test_the_guide(tmp_path: Path) -> None:
    """The guide's table has every field of a fault with an example that works, and its file can be read."""
    guide = Path(faults.__file__).with_name("README.md").read_text("utf-8")
    rows = [line.split(" | ") for line in guide.splitlines() if line.startswith("| `") and "`Fault(" in line]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row[0])} == {
        field.name for field in attrs.fields(Fault)
    }
    for row in rows:
        assert isinstance(eval(row[2].strip("`| ")), Fault)
    [toml] = re.findall(r"^```toml\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    (tmp_path / "faults.toml").write_text(toml)
    assert [planned.operation for planned in read_faults(tmp_path / "faults.toml")] == ["upload", "download"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[[fault", "the file is not TOML: "),
        (b"\xff", "the file is not TOML: "),
        ("", "the file holds no list of tables [[fault]]"),
        ("fault = 5", "the file holds no list of tables [[fault]]"),
        ("fault = [5]", "the file holds no list of tables [[fault]]"),
        ("[[faults]]\nstatus = 5", "the file may hold tables [[fault]] only: remove 'faults'"),
        ("[[fault]]\nstatus = 500", "fault 1: it needs an operation: one of upload, "),
        ('[[fault]]\noperation = "x"\nstatus = 500', "fault 1: operation must be one of upload, "),
        ('[[fault]]\noperation = "any"', "fault 1: a fault needs at least one field"),
        ('[[fault]]\noperation = "any"\nstatus = 9', "fault 1: status must be a whole number from 200 "),
        ('[[fault]]\noperation = "any"\nstauts = 9', "fault 1: there is no 'stauts'; there are operation, times, "),
        ('[[fault]]\noperation = "any"\nmore = 9', "fault 1: there is no 'more'; there are "),
        (
            '[[fault]]\noperation = "any"\nkind = "fire"',
            "fault 1: kind must be one of error, html, redirect, throttle,",
        ),
        ('[[fault]]\noperation = "any"\nkind = ["fire"]', "fault 1: kind must be one of error, html, redirect, throt"),
        ('[[fault]]\noperation = "any"\nkind = "redirect"', "fault 1: Fault.redirect() missing 1 required"),
        ('[[fault]]\noperation = "any"\nkind = "html"\nbody = 5', "fault 1: body must be text or bytes, not 5"),
        ('[[fault]]\noperation = "any"\ntimes = "never"\nstatus = 500', "fault 1: times must be a whole number"),
        (FILE + '[[fault]]\noperation = "any"\nseed = "x"\nstatus = 500', "fault 5: seed must be a whole number"),
    ],
)
def test_files_that_cannot_be(tmp_path: Path, content: str | bytes, sentence: str) -> None:
    """A wrong file is refused in one sentence that says what is wrong where."""
    path = tmp_path / "faults.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}.*$") as caught:
        read_faults(path)
    assert "\n" not in str(caught.value)
