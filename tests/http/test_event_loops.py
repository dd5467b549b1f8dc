"""Event loops: two at the same time are refused at once, one after another work, and so does a forked child; and trio."""

from __future__ import annotations

import asyncio
import functools
import gc
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from meta_media import MediaApi, MediaLibrary, MemoryStore, Settings, SQLiteStore
from meta_media.emulator import Emulator
from meta_media.errors import ConfigurationError
from meta_media.http.limits import Limits
from tests.support.servers import Server, json_response

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
UPLOADED = json_response({"id": "1"})
IN_USE = r"is in use by another event loop: make one for each$"
Work = Callable[[], Awaitable[object]]


@pytest.fixture(autouse=True)
def _warnings_in_time() -> Iterator[None]:
    """Let asyncio warn now of what died with its loop, and not in another test."""
    yield
    gc.collect()


@pytest.fixture
def portal() -> Iterator[BlockingPortal]:
    """An event loop in a thread, which runs for as long as the test."""
    with start_blocking_portal() as running:
        yield running


@pytest.fixture
def running(portal: BlockingPortal) -> Iterator[Emulator]:
    """An emulator in that loop."""
    with portal.wrap_async_context_manager(Emulator()) as emulator:
        yield emulator


def at_once_in_two_loops(work: Work, count: int) -> list[list[object]]:
    """Do work `count` times at once in each of two threads with a loop of its own; return the results and errors."""
    ready = threading.Barrier(2)
    outcomes: list[list[object]] = []

    async def many() -> None:
        ready.wait()
        async with asyncio.timeout(10):
            outcomes.append(await asyncio.gather(*(work() for _ in range(count)), return_exceptions=True))

    threads = [threading.Thread(target=lambda: asyncio.run(many())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def check_answers(outcomes: list[list[object]], count: int) -> None:
    """See that every call was answered, and that what was refused is told why."""
    assert [len(answers) for answers in outcomes] == [count, count]
    errors = {str(answer) for answers in outcomes for answer in answers if isinstance(answer, BaseException)}
    assert errors <= {f"this {name} is in use by another event loop: make one for each" for name in OWNERS}
    assert not all(isinstance(answer, BaseException) for answers in outcomes for answer in answers)


OWNERS = ("MediaApi", "MediaLibrary")


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_two_loops_at_once(running: Emulator, rounds: int) -> None:
    """Two threads use a client for the first time together, 64 calls each: a result or one sentence, never a wait."""
    for _ in range(rounds):
        media = running.api(deadline=5)
        outcomes = at_once_in_two_loops(lambda media=media: media.upload(b"hello", filename="a.txt"), 64)  # type: ignore[misc]
        check_answers(outcomes, 64)
        asyncio.run(media.aclose())


def test_two_loops_wait_for_one_token(running: Emulator) -> None:
    """A token function that both would wait for changes nothing."""

    async def token() -> str:
        await asyncio.sleep(0.01)  # so that the others wait for it
        return running.access_token

    media = MediaApi(token, running.phone_number_id, settings=Settings(base_url=running.base_url))
    check_answers(at_once_in_two_loops(lambda: media.upload(b"hello", filename="a.txt"), 8), 8)
    asyncio.run(media.aclose())


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_library_in_two_loops(running: Emulator, kind: str, tmp_path: Path) -> None:
    """Both loops want the same content of a library: each call is answered."""
    media = running.api()
    library = MediaLibrary(media, MemoryStore() if kind == "memory" else SQLiteStore(tmp_path / "library"))
    check_answers(at_once_in_two_loops(lambda: library.ensure(b"hello", filename="a.txt"), 16), 16)

    async def close() -> None:
        await library._store.aclose()
        await media.aclose()

    asyncio.run(close())


def test_a_journal_in_two_loops(running: Emulator, tmp_path: Path) -> None:
    """Two runs with one journal: one goes, and the other is told that the journal is in use, or goes after it."""
    media = [running.api(), running.api()]

    async def run() -> object:
        api = media.pop()
        async with api:
            return await api.upload_many([b"a", b"b"], journal=tmp_path / "journal", filename="a.txt").report()

    errors = [answer for (answer,) in at_once_in_two_loops(run, 1) if isinstance(answer, BaseException)]
    assert [str(error).partition(" is in use by another run")[1] for error in errors] == [
        " is in use by another run"
    ] * len(errors)
    assert len(errors) < 2


async def test_a_run_of_another_loop(media: MediaApi, portal: BlockingPortal) -> None:
    """A run belongs to the loop that entered it."""
    async with media.upload_many([b"a"], filename="a.txt") as run:
        with pytest.raises(ConfigurationError, match=f"^this BulkRun {IN_USE}"):
            await asyncio.to_thread(portal.call, anext, run)
        assert [outcome.error async for outcome in run] == [None]


async def test_a_stream_of_another_loop(media: MediaApi, portal: BlockingPortal) -> None:
    """A stream belongs to the loop that opened it, and goes on there."""
    uploaded = await media.upload(b"hello", filename="a.txt")
    async with media.stream(uploaded) as stream:
        works: list[Any] = [stream.read, functools.partial(anext, stream), stream.aclose]
        for work in works:
            with pytest.raises(ConfigurationError, match=f"^this MediaStream {IN_USE}"):
                await asyncio.to_thread(portal.call, work)
        assert await stream.read() == b"hello"


async def test_every_verb_is_refused_in_a_second_loop(media: MediaApi, portal: BlockingPortal) -> None:
    """While the first loop runs, another one gets the same sentence from each verb, from entering and from closing."""
    await media.upload(b"hello", filename="a.txt")

    async def enter() -> None:
        async with media:
            pass

    for work in (*VERBS(media), enter, media.aclose, lambda: media.with_options(max_retries=0).get_info("1")):
        with pytest.raises(ConfigurationError, match=f"^this MediaApi {IN_USE}"):
            await asyncio.to_thread(portal.call, work)
    await media.upload(b"hello", filename="a.txt")


def VERBS(media: MediaApi) -> list[Callable[[], Any]]:  # noqa: N802 - a table
    """Every verb, as a function without arguments."""

    async def stream() -> None:
        async with media.stream("1"):
            pass

    return [
        lambda: media.upload(b"hello", filename="a.txt"),
        lambda: media.get_info("1"),
        lambda: media.download("1", "nowhere"),
        lambda: media.read("1"),
        stream,
        lambda: media.delete("1"),
        lambda: media.send("+15550001111", "1", kind="image"),
        lambda: media.client.get(media.settings.base_url),
    ]


def test_loops_in_turn(running: Emulator) -> None:
    """A loop that has ended, also with calls in progress, leaves every slot to the next one; so does one that pauses."""
    media = running.api(concurrency=2)
    paused = asyncio.new_event_loop()
    calls = [paused.create_task(media.upload(b"hello", filename="a.txt")) for _ in range(4)]
    paused.run_until_complete(asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED))

    async def use() -> None:
        async with asyncio.timeout(10):
            await asyncio.gather(*(media.upload(b"hello", filename="a.txt") for _ in range(4)))

    for _ in range(2):
        asyncio.run(use())
    paused.run_until_complete(asyncio.wait_for(asyncio.gather(*calls), 10))
    paused.run_until_complete(media.aclose())
    paused.close()


FORK = """
import asyncio, os, sys
from meta_media import MediaApi, Settings
from meta_media.errors import RateLimitError

media = MediaApi("token", "1", settings=Settings(base_url=sys.argv[1], concurrency=1, max_retries=0))
throttle = media.shared.limits.throttle

async def use():
    async with asyncio.timeout(20):
        assert (await media.upload(b"hello", filename="a.txt")).id == "1"

async def fork():
    throttle("1").shut(throttle("1").enter(), 0.0, 0.0)  # one at a time from now on
    holding = asyncio.ensure_future(use())
    while not media.shared.limiter("upload").value == 0:
        await asyncio.sleep(0)
    child = os.fork()
    if not child:
        asyncio.run(use())
        os._exit(0)
    assert await asyncio.to_thread(os.waitpid, child, 0) == (child, 0)
    await holding

asyncio.run(fork())
"""


async def test_a_fork_while_every_slot_is_held() -> None:
    """A child of a process whose calls hold every slot, and the only turn after a pause, waits for none of them."""
    async with Server(UPLOADED) as server:
        child = await asyncio.create_subprocess_exec(sys.executable, "-W", "ignore", "-c", FORK, server.base_url)
        assert await asyncio.wait_for(child.wait(), 60) == 0
    assert len(server.requests) == 2


def test_a_pause_outlives_its_loop() -> None:
    """What Meta has limited stays so in the next loop; the requests in flight are not counted there."""
    limits = Limits()

    async def shut() -> None:
        throttle = limits.throttle("1")
        throttle.shut(throttle.enter(), 30.0, 0.5)
        throttle.enter()

    async def look() -> tuple[bool, bool]:
        throttle = limits.throttle("1")
        throttle._shut_until = 0.0
        return throttle.left > 0, throttle.open

    async def left() -> float:
        return limits.throttle("1").left

    asyncio.run(shut())
    assert 0 < asyncio.run(left()) <= 30
    assert asyncio.run(look()) == (False, True)


# trio


def test_trio(running: Emulator, tmp_path: Path) -> None:
    """On trio, every verb and the block say in one sentence that asyncio is needed."""
    pytest.importorskip("trio")
    media = running.api()
    library = MediaLibrary(media, SQLiteStore(tmp_path / "library"))

    async def enter() -> None:
        async with MediaApi("token", "1"):
            pass

    async def all_of() -> list[str]:
        said = []
        many = media.upload_many([b"a"], journal=tmp_path / "journal")
        for work in (
            *VERBS(media),
            enter,
            many.report,
            lambda: library.ensure(b"a"),
            lambda: library.get(b"a"),
            library._store.aclose,
        ):
            with pytest.raises(ConfigurationError) as caught:
                await work()
            said.append(str(caught.value))
        return said

    assert set(anyio.run(all_of, backend="trio")) == {
        "meta_media needs a running asyncio event loop: use asyncio.run, or anyio.run without trio as its backend"
    }
