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
from meta_media.emulator.app import operation_of
from meta_media.emulator.faults import FaultQueue, Position
from tests.support.servers import until

CONTENT = os.urandom(5000)
QUIET = 0.2  # seconds in which nothing comes, where nothing is to come
FORM = (
    b'--B\r\nContent-Disposition: form-data; name="messaging_product"\r\n\r\nwhatsapp\r\n'
    b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\nContent-Type: video/mp4\r\n\r\n'
)


@attrs.frozen(kw_only=True)
class Reply:
    """A reply as it stood on the wire."""

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
        """Close, at once and for good."""
        self._socket.close()

    async def say(self, data: bytes) -> None:
        """Send all of this."""
        await self._loop.sock_sendall(self._socket, data)

    async def hear(self, size: int) -> bytes:
        """Receive so many bytes."""
        heard = b""
        while len(heard) < size:
            piece = await self._loop.sock_recv(self._socket, size - len(heard))
            assert piece, f"the connection ended after {heard!r}"
            heard += piece
        return heard

    async def hear_out(self) -> tuple[bytes, str]:
        """Receive everything there is, and tell how the connection ended."""
        heard = bytearray()
        try:
            while piece := await self._loop.sock_recv(self._socket, 65536):
                heard += piece
        except ConnectionResetError:
            return bytes(heard), "reset"
        return bytes(heard), "close"

    async def head(self) -> tuple[int, dict[str, str]]:
        """Receive the head of a reply, and no more."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await self.hear(1)
        return parsed(head)

    async def reply(self) -> Reply:
        """Receive a whole reply that says how long it is."""
        status, headers = await self.head()
        return Reply(status=status, headers=headers, body=await self.hear(int(headers["content-length"])))

    async def hear_until_silence(self) -> bytes:
        """Receive until nothing comes, on a connection that stays open."""
        heard = b""
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(QUIET):
                    heard += await self.hear(1)
        return heard


def parsed(head: bytes) -> tuple[int, dict[str, str]]:
    """Read the head of a reply."""
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
            await peer.say(self.download)
            assert (await peer.reply()).body == CONTENT


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """An emulator with one file."""
    async with Emulator(tmp_path) as emulator:
        body, _ = await emulator.receive(CONTENT, "video/mp4")
        [message] = json.loads(body)["entry"][0]["changes"][0]["value"]["messages"]
        yield World(emulator, message["video"]["id"], message["video"]["url"].removeprefix(emulator.base_url))


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """To the server below, every exchange that a fault spoils is one that ended in order."""
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
    """Status, headers and body are as told; then the connection and the emulator go on as ever."""
    world.emulator.fail("download", fault)
    async with world.peer() as peer:
        await peer.say(world.download)
        reply = await peer.reply()
        assert (reply.status, {name: reply.headers.get(name) for name in headers}) == (status, headers)
        assert reply.body[: len(body) or None] == body
        assert "date" in reply.headers
        await peer.say(world.download)
        assert (await peer.reply()).body == CONTENT
    await world.is_fine()


async def test_errors_and_throttles_of_the_graph_api(world: World) -> None:
    """Refusals come in Meta's envelope, and throttles say how long to wait in each of Meta's ways or in none."""
    emulator, heard = world.emulator, []
    emulator.fail("graph", Fault.error(190, 401, "Dead"))
    emulator.fail("graph", Fault.throttle())
    emulator.fail("graph", Fault.throttle(80007, 400, retry_after=2, usage_minutes=5))
    emulator.fail("graph", Fault.throttle(999, retry_after="soon", headers={"via": "me"}))
    async with world.peer() as peer:
        for _ in range(4):
            await peer.say(world.info)
            reply = await peer.reply()
            error = json.loads(reply.body)["error"]
            assert error.pop("fbtrace_id") == reply.headers["x-fb-trace-id"]
            names = ("retry-after", "x-business-use-case-usage", "via")
            heard.append((reply.status, error["code"], error["message"], [reply.headers.get(name) for name in names]))
    usage = '{"1020304050607":[{"type":"whatsapp","call_count":100,"total_cputime":100,"total_time":100,'
    usage += '"estimated_time_to_regain_access":5}]}'
    assert heard == [
        (401, 190, "Dead", [None, None, None]),
        (429, 130429, "(#130429) Rate limit hit", [None, None, None]),
        (400, 80007, "(#80007) Rate limit issues", ["2", usage, None]),
        (429, 999, "(#999) Too many calls", ["soon", None, "me"]),
    ]
    await world.is_fine()


@pytest.mark.parametrize("applied", [False, True])
async def test_a_reply_that_lies(world: World, applied: bool) -> None:
    """Another reply is given without doing what was asked, or although it was done."""
    world.emulator.fail("delete", Fault(status=500, applied=applied))
    async with world.peer() as peer:
        await peer.say(world.delete)
        assert (await peer.reply()).status == 500
        assert world.exists is not applied
        world.emulator.fail("upload", Fault.html(504, applied=applied))
        await peer.say(world.upload(b"new"))
        assert (await peer.reply()).status == 504
    assert any(path.read_bytes() == b"new" for path in world.files) is applied
    assert world.emulator.faults == []


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize(
    ("at", "body"),
    [
        *(("request", None), (None, None), ("reply", None), ("head", None)),
        *((0, 0), (1, 1), (4999, 4999), (5000, 5000), (9999, 5000), ("end", 5000)),
    ],
)
async def test_a_connection_that_ends(world: World, at: Any, body: int | None, end: Any) -> None:
    """Before, in and after head and body, a connection is closed or reset, and what was said until then has come."""
    world.emulator.fail("download", Fault(at=at, end=end))
    async with world.peer() as peer:
        await peer.say(world.download)
        heard, ended = await peer.hear_out()
    assert ended == end
    if at in {"request", "reply", None}:
        assert heard == b""
    elif at == "head":
        assert heard.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\n\r\n" not in heard
    elif end == "close" or sys.platform == "linux":  # elsewhere, RST takes back what was not read yet
        head, _, content = heard.partition(b"\r\n\r\n")
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
        await peer.say(world.delete)
        assert await peer.hear_out() == (b"", end)
    await until(lambda: asyncio.all_tasks() == tasks)
    assert world.exists is not done


@pytest.mark.parametrize("at", ["request", "reply", "head", 0, 1000, "end"])
async def test_a_stall(world: World, at: Any) -> None:
    """The connection falls silent and stays open; when the client hangs up, nothing is left of it."""
    tasks = asyncio.all_tasks()
    world.emulator.fail("any", Fault(at=at, end="stall"))
    async with world.peer() as peer:
        await peer.say(world.download)
        if at == "head":
            assert await peer.hear(17) == b"HTTP/1.1 200 OK\r\n"
            assert b"\r\n\r\n" not in await peer.hear_until_silence()
        elif at not in {"request", "reply"}:
            assert (await peer.head())[1]["content-length"] == "5000"
            expected = CONTENT if at == "end" else CONTENT[:at]
            assert await peer.hear(len(expected)) == expected
        assert await peer.hear_until_silence() == b""
        await world.is_fine()
    await until(lambda: asyncio.all_tasks() == tasks)


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
            await one.say(world.info)
            await other.say(world.upload()[:-1])
            await until(lambda: len(emulator.requests) == 2)
            await emulator.__aexit__(None, None, None)
            for peer in (one, other):
                await peer.hear_out()
    assert asyncio.all_tasks() == tasks


async def test_a_delay(world: World) -> None:
    """Silence comes before everything, before the reply or inside of it; all that follows is as ever."""
    places: tuple[Position | None, ...] = ("request", "reply", None, "head", 1000, "end")
    headers = {"accept-ranges": "bytes", "content-length": "5000", "content-type": "video/mp4"}
    for at in places:
        world.emulator.fail("download", Fault(at=at, delay=QUIET))
        async with world.peer() as peer:
            begun = time.monotonic()
            await peer.say(world.download)
            reply = await peer.reply()
            del reply.headers["date"]
            assert (reply.status, reply.headers, reply.body) == (200, headers, CONTENT)
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
            await peer.say(world.request("GET", url_in(body).removeprefix(world.emulator.base_url)))
            heard = (await peer.reply()).body
            wrong = [index for index, pair in enumerate(zip(heard, content, strict=True)) if pair[0] != pair[1]]
            assert wrong == ([same] if same < len(content) else [])
            assert all((heard[index] ^ content[index]).bit_count() == 1 for index in wrong)
            world.emulator.fail("download", Fault(truncate=same))
            await peer.say(world.request("GET", url_in(body).removeprefix(world.emulator.base_url)))
            assert (await peer.reply()).body == content[:same]
    await world.is_fine()


async def test_a_length_that_lies(world: World) -> None:
    """`Content-Length` says more or less than there is, and the connection stays open if nothing ends it."""
    for told in (0, 4990, 5010):
        world.emulator.fail("download", Fault(content_length=told))
        world.emulator.fail("download", Fault(content_length=told, at="end", end="close"))
        async with world.peer() as peer:
            await peer.say(world.download)
            assert (await peer.head())[1]["content-length"] == str(told)
            assert await peer.hear(5000) == CONTENT
            await peer.say(world.download)
            assert (await peer.head())[1]["content-length"] == str(told)
            assert await peer.hear_out() == (CONTENT, "close")
    await world.is_fine()


async def test_surplus_bytes(world: World) -> None:
    """Bytes follow the end of a reply, and the next reply follows them."""
    world.emulator.fail("any", Fault(surplus="HTTP/1.1 200 OK\r\n\r\n"))
    async with world.peer() as peer:
        await peer.say(world.download)
        assert (await peer.reply()).body == CONTENT
        await peer.say(world.info)
        assert await peer.hear(19) == b"HTTP/1.1 200 OK\r\n\r\n"
        assert json.loads((await peer.reply()).body)["id"] == world.media_id
    await world.is_fine()


async def test_chunks(world: World) -> None:
    """A reply in chunks has no length, and an end that may be missing."""
    for fault in (Fault(framing="chunked"), Fault(framing="chunked", at=9999, end="close")):
        world.emulator.fail("download", fault)
    world.emulator.fail("download", Fault(framing="chunked", at=1, surplus="!", delay=0.01))
    async with world.peer() as peer:
        await peer.say(world.download)
        _, headers = await peer.head()
        assert (headers["transfer-encoding"], "content-length" in headers) == ("chunked", False)
        whole = b"1388\r\n" + CONTENT + b"\r\n"
        assert await peer.hear(len(whole) + 5) == whole + b"0\r\n\r\n"
        await peer.say(world.download)
        await peer.head()
        assert await peer.hear_out() == (whole, "close")
    async with world.peer() as peer:
        await peer.say(world.download)
        await peer.head()
        said = b"1\r\n" + CONTENT[:1] + b"\r\n1387\r\n" + CONTENT[1:] + b"\r\n0\r\n\r\n!"
        assert await peer.hear(len(said)) == said
        await peer.say(world.download)
        assert (await peer.reply()).body == CONTENT
    await world.is_fine()


async def test_a_body_that_ends_with_the_connection(world: World) -> None:
    """A reply without a length ends where the connection does, whole or not."""
    for fault, body, end in (
        (Fault(framing="close"), CONTENT, "close"),
        (Fault(framing="close", at=1000, end="close"), CONTENT[:1000], "close"),
        (Fault(framing="close", at="end", end="reset", surplus="!"), CONTENT + b"!", "reset"),
    ):
        world.emulator.fail("download", fault)
        async with world.peer() as peer:
            await peer.say(world.download)
            _, headers = await peer.head()
            assert (headers["connection"], {"content-length", "transfer-encoding"} & set(headers)) == ("close", set())
            assert await peer.hear_out() == (body, end)
    await world.is_fine()


async def test_a_trickle(world: World) -> None:
    """A reply's body takes as long as its rate says, and goes on only as long as somebody listens."""
    world.emulator.fail("download", Fault(rate=20_000))
    world.emulator.fail("download", Fault(rate=10, framing="chunked"))
    tasks = asyncio.all_tasks()
    async with world.peer() as peer:
        begun = time.monotonic()
        await peer.say(world.download)
        assert (await peer.reply()).body == CONTENT
        assert time.monotonic() - begun >= 0.19  # of 0.2: nothing waits after the last piece
        await peer.say(world.download)
        await peer.head()
        assert await peer.hear(12) == b"1\r\n" + CONTENT[:1] + b"\r\n1\r\n" + CONTENT[1:2] + b"\r\n"
    await until(lambda: asyncio.all_tasks() == tasks)
    await world.is_fine()


async def test_a_listener_that_is_late(world: World) -> None:
    """What is said before a reset is not held back in the emulator for one who does not listen yet."""
    large = bytes(64 * 2**20)
    body, _ = await world.emulator.receive(large, "video/mp4")
    world.emulator.fail("download", Fault(at=len(large), end="reset"))
    async with world.peer() as peer:
        await peer.say(world.request("GET", url_in(body).removeprefix(world.emulator.base_url)))
        assert (await peer.head())[1]["content-length"] == str(len(large))
        await asyncio.sleep(QUIET)  # so late
        heard, end = await peer.hear_out()
    assert end == "reset"
    assert len(large) // 2 < len(heard) <= len(large)  # but for what the system had not delivered
    await world.is_fine()


async def test_a_slow_reader(world: World) -> None:
    """A request's body is read no faster than told, and arrives whole; also one that gets another reply."""
    content = os.urandom(2**20)
    for fault, status in ((Fault(read_rate=4e6), 200), (Fault(read_rate=4e6, status=500), 500)):
        world.emulator.fail("upload", fault)
        async with world.peer() as peer:
            begun = time.monotonic()
            await peer.say(world.upload(content))
            assert (await peer.reply()).status == status
            assert time.monotonic() - begun >= 0.1  # of 0.26, less what came along with the head
            await peer.say(world.upload())
            assert (await peer.reply()).status == 200
    assert sum(path.read_bytes() == content for path in world.files) == 1
    await world.is_fine()


async def test_a_steady_reader(world: World) -> None:
    """What is read at a rate is read in small steps, not in a gulp with a long rest after it."""
    world.emulator.fail("upload", Fault(status=500, reads=100, read_rate=200))
    body = world.upload(bytes(200_000))
    begin = body.index(b"\r\n\r\n") + 5  # with one byte of the body, which counts not
    async with world.peer() as peer:
        await peer.say(body[:begin])
        await until(lambda: bool(world.emulator.requests))
        await peer.say(body[begin:])
        assert (await peer.reply()).status == 500
    await world.is_fine()


@pytest.mark.parametrize("end", [None, "close", "reset", "stall"])
async def test_an_early_reply(world: World, end: Any) -> None:
    """A reply comes while the request's body is still on its way; then the rest is read, cut off or left unread."""
    body, rest = world.upload(bytes(15_000_000)), 14_999_000
    world.emulator.fail("upload", Fault(status=413, reads=0, at=None if end is None else "end", end=end))
    async with world.peer() as peer:
        await peer.say(body[:-rest])
        assert (await peer.reply()).status == 413
        if end is None:
            await peer.say(body[-rest:] + world.info)
            assert (await peer.reply()).status == 200
        elif end == "stall":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(QUIET):
                    await peer.say(body[-rest:])
        else:
            assert await peer.hear_out() == (b"", end)
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
    """It happens when so many bytes of the request's body have been read, not before, and without waiting for more."""
    body = world.upload(bytes(8_000_000))
    world.emulator.fail("upload", fault)
    async with world.peer() as peer:
        await peer.say(body[:200_000])
        assert await peer.hear_until_silence() == b""
        await peer.say(body[200_000:400_000])
        if expected == "reset":
            assert await peer.hear_out() == (b"", "reset")
        else:
            assert str((await peer.reply()).status) == expected
    assert len(world.files) == 1
    await world.is_fine()


async def test_an_expired_url(tmp_path: Path) -> None:
    """A look-up hands out a URL that has expired, or a download finds its own expired: the reply is the real one."""
    async with Emulator(tmp_path, settings=EmulatorSettings(expired_url_status=403)) as emulator:
        body, _ = await emulator.receive(CONTENT, "video/mp4")
        world = World(emulator, re.findall(rb'"id":"(\d{16})"', body)[0].decode(), url_in(body))
        headers = {"authorization": f"Bearer {emulator.access_token}"}
        async with httpx.AsyncClient(base_url=emulator.base_url, headers=headers, trust_env=False) as http:
            emulator.fail("get_info", Fault(expired_url=True))
            emulator.fail("download", Fault(expired_url=True), times=2)
            expired = (await http.get(f"/v25.0/{world.media_id}")).json()["url"]
            fresh = (await http.get(f"/v25.0/{world.media_id}")).json()["url"]
            replies = [await http.get(url) for url in (fresh, fresh, fresh, expired)]
    assert [reply.status_code for reply in replies] == [403, 403, 200, 403]
    assert {reply.text for reply in replies if reply.status_code == 403} == {"URL signature expired"}
    assert emulator.faults == []


@pytest.mark.parametrize("fault", [Fault(status=200, body="x"), Fault(rate=1e9), Fault(framing="chunked")], ids=str)
async def test_other_kinds_of_requests(world: World, fault: Fault) -> None:
    """HEAD has no body, and a client that wants the connection closed has it closed."""
    world.emulator.fail("any", fault, times=3)
    async with world.peer() as peer:
        await peer.say(world.request("HEAD", world.target) + world.info)
        _, headers = await peer.head()
        length = None if fault.framing == "chunked" else str(len(fault.body or CONTENT))
        assert headers.get("content-length") == length
        assert (await peer.head())[0] == 200
    for version, more in (("1.1", ["connection: close"]), ("1.0", [])):
        async with world.peer() as peer:
            await peer.say(world.request("GET", world.target, b"", *more, version=version))
            _, headers = await peer.head()
            assert headers.get("connection") == ("close" if more else None)
            assert (await peer.hear_out())[1] == "close"
    await world.is_fine()


async def test_headers_of_the_real_reply(world: World) -> None:
    """Headers join those of the real reply or take their place."""
    world.emulator.fail("download", Fault(headers={"Content-Type": "text/html", "Content-Encoding": "gzip"}))
    async with world.peer() as peer:
        await peer.say(world.download)
        reply = await peer.reply()
    names = ("content-type", "content-encoding", "accept-ranges")
    assert [reply.headers[name] for name in names] == ["text/html", "gzip", "bytes"]
    assert reply.body == CONTENT
    await world.is_fine()


async def test_a_refusal_that_is_real(world: World) -> None:
    """What happens to replies happens to refusals too."""
    world.emulator.fail("get_info", Fault(flip_at=0))
    async with world.peer() as peer:
        await peer.say(world.request("GET", "/v25.0/1"))
        reply = await peer.reply()
    assert (reply.status, reply.body[:2]) == (400, b'z"')
    await world.is_fine()


async def test_the_queue(world: World) -> None:
    """Each request takes the first fault planned for it; what is left can be seen, and forgotten."""
    emulator = world.emulator
    emulator.fail("delete", Fault(status=501))
    emulator.fail("get_info", Fault(status=502), times=2)
    emulator.fail("any", Fault(status=503))
    emulator.fail("get_info", Fault(status=504), times=None)
    emulator.fail("send", Fault(status=505), times=3)
    heard = []
    async with world.peer() as peer:
        message = world.request("POST", "/v25.0/1/messages", b"{}")
        for request in (world.info, world.download, world.info, world.info, world.download, message):
            await peer.say(request)
            heard.append((await peer.reply()).status)
        assert heard == [502, 503, 502, 504, 200, 505]
        assert emulator.faults == [
            PlannedFault(operation="delete", fault=Fault(status=501)),
            PlannedFault(operation="get_info", fault=Fault(status=504), times=None),
            PlannedFault(operation="send", fault=Fault(status=505), times=2),
        ]
        emulator.clear_faults()
        await peer.say(world.info)
        assert (await peer.reply()).status == 200
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
        faults = FaultQueue()
        fault = Fault(status=500)
        faults.add(PlannedFault(operation="any", fault=fault, times=None, probability=0.02, seed=seed))
        return [faults.take("upload") is fault for _ in range(10_000)]

    assert 150 < sum(struck(0)) < 250
    assert struck(0) == struck(0) != struck(1)
    world.emulator.fail("download", Fault(status=500), probability=1e-9)
    async with world.peer() as peer:
        await peer.say(world.download)
        assert (await peer.reply()).status == 200
    assert len(world.emulator.faults) == 1


def test_threads() -> None:
    """Faults that several threads plan while requests take them are each taken once."""
    faults, taken = FaultQueue(), []

    def plan() -> None:
        for number in range(500):
            faults.add(PlannedFault(operation="any", fault=Fault(status=200 + number % 100), times=2))
            faults.left()

    threads = [threading.Thread(target=plan) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) or faults.left():
        fault = faults.take("send")
        if fault is not None:
            taken.append(fault)
    assert len(taken) == 4 * 500 * 2


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
        await peer.say(World(emulator, "1", "/").info)
        assert (await peer.reply()).status == 503


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
        (
            {"end": "reset", "status": 500, "rate": 1},
            "the connection ends before the response: leave out rate, status",
        ),
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
            "operation must be one of upload, get_info, download, delete, send, graph, any, not 'info'",
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
