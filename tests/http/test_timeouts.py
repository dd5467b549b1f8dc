"""How long a transfer may take: nothing that trickles lasts, and nothing that flows is ended."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from meta_media import MediaApi, Settings
from meta_media.errors import TransferTimeoutError
from meta_media.http.timeouts import DeadlineError, TooSlowError, TransferTimeouts
from tests.support.marks import slow_except
from tests.support.servers import Received, Server, Step, info, json_response, page

pytest_plugins = ["tests.support.clock"]
pytestmark = pytest.mark.usefixtures("steady_clock")  # the servers are on the loop of their clients

LARGE = 30 * 10**6
Phase = Literal["connect", "read", "write"]
PHASES: dict[Phase, type[Exception]] = {
    "connect": httpx.ConnectTimeout,
    "read": httpx.ReadTimeout,
    "write": httpx.WriteTimeout,
}


# The clock alone


class Time:
    """What `time.monotonic` says."""

    now = 1000.0

    def __call__(self) -> float:
        """Say it."""
        return self.now


@pytest.fixture
def clock_time(monkeypatch: pytest.MonkeyPatch) -> Time:
    """Time that passes when told to."""
    told_time = Time()
    monkeypatch.setattr(time, "monotonic", told_time)
    return told_time


def made(rate: float = 100, deadline: float | None = None) -> TransferTimeouts:
    """Make a clock whose waits are three different ones."""
    return TransferTimeouts(connect=1, read=2, write=4, rate=rate, deadline=deadline)


def test_waits_end_with_the_deadline(clock_time: Time) -> None:
    """A wait takes its own time, or what is left of the time for all; never less than nothing."""
    timeouts = made(deadline=3)
    with timeouts:
        assert [timeouts.wait(phase) for phase in PHASES] == [1, 2, 3]
        assert remaining(timeouts) == 3
        clock_time.now += 1.5
        assert [timeouts.wait(phase) for phase in PHASES] == [0, 0.5, 1.5]  # nothing has moved meanwhile
        timeouts.restart()
        assert [timeouts.wait(phase) for phase in PHASES] == [1, 1.5, 1.5]
        clock_time.now += 2
        assert [timeouts.wait(phase) for phase in PHASES] == [0, 0, 0]
        assert remaining(timeouts) == 0


def remaining(timeouts: TransferTimeouts) -> float | None:
    """Return the seconds to its deadline."""
    ends = timeouts.ends()
    return None if ends is None else max(ends - time.monotonic(), 0)


def test_waits_without_limits(clock_time: Time) -> None:
    """Without any limit a wait may take for ever."""
    timeouts = TransferTimeouts(connect=None, read=None, write=None, rate=0, deadline=None)
    timeouts.extend(10)
    with timeouts:
        clock_time.now += 10**9
        assert [timeouts.wait(phase) for phase in PHASES] == [None, None, None]
        assert remaining(timeouts) is None
        timeouts.record("read", 1)
    assert timeouts.timeouts() == {}
    assert made().timeouts() == {"connect": 1, "read": 2, "write": 4}


def test_only_time_inside_counts(clock_time: Time) -> None:
    """Time between two blocks does not count; that inside several adds up."""
    timeouts = made(deadline=3)
    for left in (3, 2, 1):
        with timeouts:
            assert remaining(timeouts) == left
            clock_time.now += 1
        clock_time.now += 100
    with timeouts:
        assert remaining(timeouts) == 0
        assert isinstance(timeouts.error("read"), DeadlineError)


def test_default_deadline_grows_with_what_is_expected(clock_time: Time) -> None:
    """Without a deadline, each part may take its waits and its bytes at the least rate, and leaves none of it to the next."""
    timeouts = made(rate=100)
    timeouts.extend(1000)
    with timeouts:
        assert remaining(timeouts) == 7 + 10
        clock_time.now += 1
    timeouts.extend(0)
    with timeouts:
        assert remaining(timeouts) == 7
    fixed, any_rate = made(deadline=3), made(rate=0)
    for other, size, left in ((fixed, 1000, 3), (any_rate, 1000, None), (any_rate, 0, 7)):
        other.extend(size)
        with other:
            assert remaining(other) == left
    timeouts.extend(10**400)  # as a server may state it
    assert timeouts.left == math.inf


def test_waits_before_another_attempt(clock_time: Time) -> None:
    """The deadline that was set limits them; one that follows from the timeouts does not, until it has passed."""
    fixed, scaled = made(deadline=3), made()
    assert (fixed.left, scaled.left) == (3, math.inf)
    scaled.extend(0)
    for left, timeouts in ((-5, fixed), (-1, scaled)):
        with timeouts:
            clock_time.now += 8
        assert timeouts.left == left


def test_only_bytes_of_a_body_restart_the_time(clock_time: Time) -> None:
    """Each wait has what is left of the time since a byte of a body moved, or something else was begun."""
    timeouts = made(rate=0, deadline=1000)
    begun: list[Callable[[], None]] = [
        lambda: timeouts.extend(0),
        timeouts.restart,
        lambda: timeouts.record("read", 1),
        lambda: timeouts.check_idle("read", 200),
    ]
    with timeouts:
        for begin in begun:
            clock_time.now += 1.5
            begin()
            assert timeouts.wait("read") == 2
            clock_time.now += 0.5
            assert timeouts.wait("read") == 1.5
            assert timeouts.ends("read") == clock_time.now + 1.5
    clock_time.now += 100  # not ours
    assert timeouts.wait("read") == 1.5


def test_deadline_where_nothing_is_waited_for(clock_time: Time) -> None:
    """It is noticed whenever bytes are at hand, too."""
    timeouts = made(deadline=3)
    with timeouts:
        timeouts.check_deadline()
        timeouts.record("read", 10**6)
        clock_time.now += 3
        with pytest.raises(DeadlineError):
            timeouts.check_deadline()
        with pytest.raises(DeadlineError):
            timeouts.record("read", 10**6)


@pytest.mark.parametrize("phase", PHASES)
def test_a_wait_that_took_all_of_its_time(clock_time: Time, phase: Phase) -> None:
    """Nothing moved: idle. Less than the rate: too slow. As much: go on. Past the deadline: over, whatever moved."""
    timeouts = made(rate=100, deadline=1000)
    enough = {"connect": 100, "read": 200, "write": 400}[phase]
    with timeouts:
        for moved in (0, -1):
            with pytest.raises(PHASES[phase]):
                timeouts.check_idle(phase, moved)
        for moved in (1, enough - 1):
            with pytest.raises(TooSlowError, match=f"{moved} bytes in"):
                timeouts.check_idle(phase, moved)
        timeouts.check_idle(phase, enough)
        assert isinstance(timeouts.error(phase), PHASES[phase])
        clock_time.now += 1000
        for moved in (0, 1, 10 * enough):
            with pytest.raises(DeadlineError):
                timeouts.check_idle(phase, moved)
        assert isinstance(timeouts.error(phase), DeadlineError)


@pytest.mark.parametrize("phase", PHASES)
def test_a_timer_that_ends_a_moment_early(clock_time: Time, phase: Phase) -> None:
    """What was due first is what ended a wait, though the clock shows a moment before it, as after uvloop's timers."""
    limit = {"connect": 1, "read": 2, "write": 4}[phase]
    for deadline, error in ((limit - 0.1, DeadlineError), (limit + 0.1, PHASES[phase])):
        timeouts = made(rate=0, deadline=deadline)
        with timeouts:
            clock_time.now += min(limit, deadline) - 0.001
            assert isinstance(timeouts.error(phase), error)
            assert isinstance(timeouts.error(None), DeadlineError)


def test_any_rate() -> None:
    """A least rate of zero minds only that something moves."""
    timeouts = made(rate=0)
    timeouts.check_idle("read", 1)
    with pytest.raises(httpx.ReadTimeout):
        timeouts.check_idle("read", 0)


def test_bytes_that_came_in_any_number_of_waits(clock_time: Time) -> None:
    """They are judged once for each span of the read timeout, over all that came in it, in however many blocks."""
    timeouts = made(rate=100, deadline=1000)
    with timeouts:
        for _ in range(3):
            timeouts.record("read", 10)
            clock_time.now += 1
            timeouts.record("read", 10)
            clock_time.now += 1
            timeouts.record("read", 180)  # which makes two hundred in two seconds
        clock_time.now += 1.9
        timeouts.record("read", 1)
        clock_time.now += 0.1
        with pytest.raises(TooSlowError):
            timeouts.record("read", 198)
    timeouts.extend(10**6)  # which begins anew
    for _ in range(3):
        clock_time.now += 100  # not ours
        with timeouts:
            timeouts.record("read", 60)
            clock_time.now += 0.5
    clock_time.now += 100  # not ours
    with timeouts:
        clock_time.now += 0.5
        with pytest.raises(TooSlowError):
            timeouts.record("read", 10)


# Through everything


@pytest.fixture(params=["ours", "injected"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient | None]:
    """The caller's client, or none."""
    async with contextlib.AsyncExitStack() as stack:
        yield await stack.enter_async_context(httpx.AsyncClient()) if request.param == "injected" else None


Call = Callable[[MediaApi, str, Path], Awaitable[object]]


async def get_info(api: MediaApi, _: str, __: Path) -> object:
    """Ask."""
    return await api.get_info("7")


async def download(api: MediaApi, url: str, path: Path) -> object:
    """Download to a file."""
    return await api.download(f"{url}/media", path / "media")


async def read(api: MediaApi, url: str, _: Path) -> object:
    """Download to memory."""
    return await api.read(f"{url}/media")


async def upload(api: MediaApi, _: str, __: Path) -> object:
    """Upload what takes a while."""
    return await api.upload(bytes(LARGE), filename="a.txt", mime_type="text/plain", validate=False)


def trickled(before: bytes, piece: bytes, pause: float = 0.02, times: float = math.inf) -> Step:
    """Say something, and then a little again and again."""

    async def step(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(before)
        said = 0
        while said < times:
            writer.write(piece)
            await asyncio.sleep(pause)  # the pace
            said += 1

    return step


def late(reply: bytes, pause: float) -> Step:
    """Answer late."""

    async def step(_: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(pause)  # the answer's delay
        writer.write(reply)

    return step


@contextlib.asynccontextmanager
async def taker(piece: int, pause: float) -> AsyncIterator[str]:
    """Serve uploads, of which so many bytes at a time are taken."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError), contextlib.closing(writer):
            head = await reader.readuntil(b"\r\n\r\n")
            left = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            while left:
                left -= len(await reader.readexactly(min(piece, left)))
                await asyncio.sleep(pause)  # the pace
            writer.write(json_response({"id": "7"}))
            await writer.drain()

    async with await asyncio.start_server(take, "127.0.0.1", 0, limit=2**15) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@contextlib.asynccontextmanager
async def server_for(call: Call, *script: Step) -> AsyncIterator[str]:
    """Serve replies by a script, or uploads slowly."""
    if call is upload:
        async with taker(2**16, 0.05) as url:
            yield url
    else:
        async with Server(*script) as server:
            yield server.base_url


async def ended(call: Call, url: str, path: Path, client: httpx.AsyncClient | None, **settings: Any) -> str:
    """Make a call that must not last, and say which phase ended it."""
    async with MediaApi("token", "1", settings=Settings(base_url=url, **settings), http_client=client) as api:
        started = time.monotonic()
        with pytest.raises(TransferTimeoutError) as caught:
            await asyncio.wait_for(call(api, url, path), 30)
        assert time.monotonic() - started < 15
        assert caught.value.maybe_applied is (call is upload)
        told = {"rate": "minimum_rate", "deadline": "deadline"}.get(str(caught.value.phase), "no progress")
        assert told in str(caught.value)
        return str(caught.value.phase)


HEAD = b"HTTP/1.1 200 OK\r\n"
BODIES = {
    "length": (HEAD + b"content-length: 100000\r\n\r\n", b"x"),
    "chunked": (HEAD + b"transfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "closed": (HEAD + b"\r\n", b"x"),
}


@pytest.mark.parametrize("call", slow_except([download], [get_info, download, read]))
@pytest.mark.parametrize("body", slow_except(["length"], BODIES))
async def test_trickling_reply(body: str, call: Call, client: httpx.AsyncClient | None, tmp_path: Path) -> None:
    """A body that trickles, always in time for the next wait, is ended because of its rate."""
    async with Server(trickled(*BODIES[body])) as server:
        phase = await ended(call, server.base_url, tmp_path, client, read_timeout=0.3, minimum_rate=10_000, deadline=5)
    assert phase == "rate"
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - not worth a thread


async def test_silence_is_idle_not_slow(client: httpx.AsyncClient | None, tmp_path: Path) -> None:
    """A body of which nothing comes is ended by the read timeout."""
    async with Server(page("", length=9)) as server:
        assert await ended(read, server.base_url, tmp_path, client, read_timeout=0.3) == "read"


async def test_slow_but_steady_download(client: httpx.AsyncClient | None) -> None:
    """A server above the least rate may take many times the read timeout."""
    pieces = 60
    head = HEAD + b"content-length: %d\r\n\r\n" % (20_000 * pieces)
    async with Server(trickled(head, b"x" * 20_000, 0.03, pieces)) as server:
        settings = Settings(base_url=server.base_url, read_timeout=0.5, minimum_rate=10_000)
        async with MediaApi("token", "1", settings=settings, http_client=client) as api:
            started = time.monotonic()
            assert len(await api.read(f"{server.base_url}/media")) == 20_000 * pieces
            assert time.monotonic() - started > 3 * 0.5


@pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="this system takes as much as it likes")
async def test_what_the_system_holds_is_not_silence() -> None:
    """At the end of an upload to a slow but steady server, the wait for the reply begins when nearly all has left."""
    size = 4 * 10**6

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            left = size
            while left > 0:
                left -= len(await reader.read(20_000))
                await asyncio.sleep(0.02)  # the pace
            writer.write(json_response({"id": "7"}))
            await writer.drain()

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)  # what waits there has left
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with (
            await asyncio.start_server(take, sock=listener, limit=2**15),
            MediaApi("token", "1", settings=Settings(base_url=url, read_timeout=1.5)) as api,
        ):
            uploaded = await api.upload(bytes(size), filename="a.txt", mime_type="text/plain", validate=False)
            assert uploaded.id == "7"


async def test_the_caller_s_source_takes_its_time(client: httpx.AsyncClient | None) -> None:
    """Time that the caller's own source takes counts for no clock, whether a deadline was set or follows from the waits."""

    async def source() -> AsyncIterator[bytes]:
        for _ in range(4):
            await asyncio.sleep(0.4)  # its time
            yield bytes(300_000)

    async with Server(json_response({"id": "7"})) as server:
        waits = {"connect_timeout": 0.3, "read_timeout": 0.3, "write_timeout": 0.3, "minimum_rate": 10**7}
        for settings in ({"deadline": 1.0}, waits):
            configured = Settings(base_url=server.base_url, **settings)  # type: ignore[arg-type]  # of several types
            async with MediaApi("token", "1", settings=configured, http_client=client) as api:
                made = api.upload(source(), size=1_200_000, filename="a.txt", mime_type="text/plain", validate=False)
                assert (await made).id == "7"


async def test_slow_but_steady_upload(client: httpx.AsyncClient | None) -> None:
    """A server that takes an upload above the least rate may take many times the write timeout."""
    async with taker(2**18, 0.015) as url:
        settings = Settings(base_url=url, write_timeout=0.5, minimum_rate=10_000, chunk_size=2**18)
        async with MediaApi("token", "1", settings=settings, http_client=client) as api:
            started = time.monotonic()
            assert (await api.upload(bytes(LARGE), mime_type="text/plain", filename="a.txt", validate=False)).id == "7"
            assert time.monotonic() - started > 3 * 0.5


async def test_upload_to_a_slow_server(client: httpx.AsyncClient | None, tmp_path: Path) -> None:
    """An upload that is taken too slowly is ended."""
    async with taker(2**16, 0.05) as url:
        assert await ended(upload, url, tmp_path, client, write_timeout=0.5, minimum_rate=10**9) in {"rate", "write"}


@pytest.mark.parametrize("call", [get_info, download, read, upload])
async def test_deadline(call: Call, client: httpx.AsyncClient | None, tmp_path: Path) -> None:
    """The deadline ends what trickles, in whatever direction."""
    async with server_for(call, trickled(*BODIES["length"])) as url:
        assert await ended(call, url, tmp_path, client, deadline=0.3) == "deadline"
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - not worth a thread


@pytest.mark.parametrize("call", [get_info, download, upload])
async def test_deadline_of_a_reply_whose_head_trickles(
    call: Call, client: httpx.AsyncClient | None, tmp_path: Path
) -> None:
    """The deadline ends a head that trickles, too."""
    async with Server(trickled(HEAD, b"x")) as server:
        assert await ended(call, server.base_url, tmp_path, client, deadline=0.3) == "deadline"


async def test_default_deadline(client: httpx.AsyncClient | None, tmp_path: Path) -> None:
    """Without a deadline of the caller's, the waits together are one for what no rate applies to."""
    waits = {"connect_timeout": 0.5, "read_timeout": 1, "write_timeout": 0.5, "minimum_rate": 1}
    async with Server(trickled(HEAD + b"\r\n", b" ")) as server:
        assert await ended(get_info, server.base_url, tmp_path, client, **waits) == "deadline"


async def test_deadline_of_all_requests_together(client: httpx.AsyncClient | None) -> None:
    """Requests of one call share its deadline."""
    async with Server(b"") as server:
        server.script = [late(info(f"{server.base_url}/media", b"text", media_id="7"), 0.6), late(page("text"), 0.6)]
        settings = Settings(base_url=server.base_url, deadline=0.9)
        async with MediaApi("token", "1", settings=settings, http_client=client) as api:
            with pytest.raises(TransferTimeoutError) as caught:
                await api.read("7")
    assert caught.value.phase == "deadline"
    assert len(server.requests) == 2


async def test_waiting_for_a_turn_does_not_count(client: httpx.AsyncClient | None) -> None:
    """The deadline begins with a call's turn, and is each call's own."""
    async with Server(late(info("https://lookaside.fbsbx.com/", media_id="7"), 0.6)) as server:
        settings = Settings(base_url=server.base_url, deadline=1.1, concurrency=1)
        async with MediaApi("token", "1", settings=settings, http_client=client) as api:
            found = await asyncio.gather(*(api.get_info("7") for _ in range(2)))
    assert [media.id for media in found] == ["7", "7"]


async def test_what_the_consumer_of_a_stream_does_does_not_count(client: httpx.AsyncClient | None) -> None:
    """Time spent between the chunks of a stream is the caller's."""
    async with Server(page("x" * 8000)) as server:
        settings = Settings(base_url=server.base_url, deadline=1, read_timeout=0.9, chunk_size=1000)
        async with MediaApi("token", "1", settings=settings, http_client=client) as api:
            received = b""
            started = time.monotonic()
            async with api.stream(f"{server.base_url}/media") as stream:
                async for chunk in stream:
                    received += chunk
                    await asyncio.sleep(0.2)  # as a slow caller does
            assert time.monotonic() - started > 1
    assert received == b"x" * 8000


async def test_waits_between_the_chunks_of_a_stream_add_up(client: httpx.AsyncClient | None) -> None:
    """Time spent waiting for each chunk counts, though each comes soon."""
    async with Server(trickled(*BODIES["length"])) as server:
        settings = Settings(base_url=server.base_url, deadline=0.5, chunk_size=5)
        async with MediaApi("token", "1", settings=settings, http_client=client) as api:
            chunks = []

            async def consume() -> None:
                async with api.stream(f"{server.base_url}/media") as stream:
                    async for chunk in stream:
                        chunks.append(chunk)  # noqa: PERF401 - those before the error count

            with pytest.raises(TransferTimeoutError) as caught:
                await consume()
    assert caught.value.phase == "deadline"
    assert 1 <= len(chunks) < 100
