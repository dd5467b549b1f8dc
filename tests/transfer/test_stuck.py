"""What never responds, such as a pipe without a writer or a dead mount: it can be left, and all else goes on."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from meta_media import MediaLibrary
from meta_media.bulk.sqlite_file import SQLiteFile
from meta_media.errors import StorageError, TransferTimeoutError
from meta_media.transfer import thread_pool
from meta_media.transfer.files import OpenedFile, pipe_chunks
from meta_media.transfer.thread_pool import ThreadPool
from meta_media.transfer.threads import FileWork, await_completion, file_deadline, pool, prefetch
from tests.support.sabotage import Sabotage
from tests.support.servers import open_files, wait_until
from tests.support.stepping import LeanServer
from tests.transfer.disks import OLD, SIZE, client, content, left_over, listing, made, media

MANY: Final = 40
TEXT: Final = b"All work and no play. " * 20_000
SOON: Final = 20.0  # seconds: what waits without end would take longer


class Stuck:
    """A path, a file to read and a file to write that do not respond until they are released."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.go = threading.Event()
        self.count = 0  # threads that are stuck
        self.released = 0

    def wait(self) -> None:
        """Do what a dead mount does."""
        self.count += 1
        self.go.wait()
        self.released += 1

    def __fspath__(self) -> str:
        self.wait()
        return str(self.path)

    def reader(self, data: bytes, after: int) -> io.RawIOBase:
        """Make a seekable file whose reads are stuck but for the first ones."""
        return _Reader(self, data, after)


class _Reader(io.RawIOBase):
    def __init__(self, stuck: Stuck, data: bytes, after: int) -> None:
        self._stuck = stuck
        self._data = io.BytesIO(data)
        self._left = after

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._data.seek(offset, whence)

    def tell(self) -> int:
        return self._data.tell()

    def read(self, size: int = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            self._stuck.wait()
        return self._data.read(size)


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[Stuck]:
    """Something that does not respond during the test."""
    path = tmp_path / "note.txt"
    path.write_bytes(TEXT)
    made = Stuck(path)
    yield made
    made.go.set()
    until = time.monotonic() + SOON
    while made.released < made.count and time.monotonic() < until:
        time.sleep(0.01)  # until its threads are back, so that they do not count as another test's


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A named pipe that nothing writes to."""
    path = tmp_path / "pipe.txt"
    os.mkfifo(path)
    return path


async def given_up(work: Coroutine[Any, Any, object], ready: Callable[[], bool], way: str = "asyncio") -> None:
    """Start work, and give it up once it is stuck."""
    async with asyncio.timeout(SOON):
        if way == "anyio":
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: work)
                await wait_until(ready)
                group.cancel_scope.cancel()
            return
        task = asyncio.ensure_future(work)
        await wait_until(ready)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def all_of(works: Sequence[Coroutine[Any, Any, object]]) -> None:
    """Do all works at once."""
    await asyncio.gather(*works)


WAYS: Final = pytest.mark.parametrize("way", ["asyncio", "anyio"])


# Sources


@WAYS
async def test_pipes_without_a_writer(warehouse: LeanServer, fifo: Path, way: str) -> None:
    """Pipes that nothing writes to are given up at once. They take no thread, and are closed."""
    await wait_until(lambda: not any(pool()._began.values()))  # the threads of earlier tests are back
    before = max(len(pool()._began), 16)
    async with client(warehouse) as api:
        works = [api.upload(fifo, mime_type="text/plain") for _ in range(MANY)]
        await given_up(all_of(works), lambda: open_files(fifo).count(str(fifo)) == 16, way)
        assert len(pool()._began) <= before
        await wait_until(lambda: str(fifo) not in open_files(fifo))
        assert (await api.upload(TEXT, mime_type="text/plain")).id == "1"


async def test_pipe_whose_writer_comes_and_pauses(warehouse: LeanServer, fifo: Path) -> None:
    """The bytes of a pipe are read as they come, until its last writer closes it."""
    async with client(warehouse) as api:
        upload = asyncio.ensure_future(api.upload(fifo, mime_type="text/plain"))
        await wait_until(lambda: str(fifo) in open_files(fifo))
        with fifo.open("wb", buffering=0) as writer:  # which does not block, because the pipe has a reader
            for piece in (b"one ", b"two"):
                await asyncio.sleep(0.05)  # a pause
                writer.write(piece)
        assert (await upload).file_size == len(b"one two")


async def test_deadline_at_a_pipe(warehouse: LeanServer, fifo: Path) -> None:
    """A deadline ends the wait for a pipe, in one sentence that names the deadline."""
    async with client(warehouse, deadline=0.2) as api:
        with pytest.raises(
            TransferTimeoutError, match=r"not responded within the deadline of 0\.2 s: look at"
        ) as caught:
            await api.upload(fifo, mime_type="text/plain")
    assert (caught.value.phase, caught.value.retryable, caught.value.operation) == ("deadline", False, "upload")
    assert str(fifo) not in open_files(fifo)


@WAYS
async def test_paths_that_do_not_respond(warehouse: LeanServer, stuck: Stuck, way: str) -> None:
    """Beside many paths that do not respond, other uploads and downloads go on. A cancellation gets through."""
    async with client(warehouse, concurrency=MANY + 8) as api:

        async def others() -> None:
            await wait_until(lambda: stuck.count == MANY)
            await api.upload(stuck.path)
            await api.download(media(warehouse), stuck.path.parent / "other.jpg")
            beside.set()

        beside = asyncio.Event()
        works: list[Any] = [api.upload(stuck) if number % 2 else api.download("7", stuck) for number in range(MANY)]
        await given_up(all_of([*works, others()]), beside.is_set, way)
        stuck.go.set()
        await wait_until(lambda: stuck.released == MANY)
        await wait_until(lambda: str(stuck.path) not in open_files(stuck.path))
        await wait_until(lambda: not left_over(stuck.path.parent))
    assert stuck.path.read_bytes() == TEXT


@pytest.mark.parametrize("verb", ["upload", "download", "upload_many", "ensure"])
async def test_deadline_at_a_path(warehouse: LeanServer, stuck: Stuck, verb: str) -> None:
    """A deadline ends the wait for a path, whatever the thread does."""
    async with client(warehouse, deadline=0.2) as api:
        if verb == "upload_many":
            async with api.upload_many([stuck, stuck.path]) as run:
                errors = {outcome.index: type(outcome.error) async for outcome in run}
            assert errors == {0: TransferTimeoutError, 1: type(None)}
            return
        works: dict[str, Callable[[Any], Any]] = {
            "upload": api.upload,
            "download": lambda path: api.download("7", path),
            "ensure": MediaLibrary(api).ensure,
        }
        with pytest.raises(TransferTimeoutError, match=r"a Stuck has not responded within the deadline of 0\.2 s"):
            await works[verb](stuck)


async def test_path_without_a_deadline(warehouse: LeanServer, stuck: Stuck, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a deadline, a path has a limit of its own."""
    assert FileWork("path").limit == 60
    monkeypatch.setattr(FileWork, "limit", 0.1)
    async with client(warehouse) as api:
        with pytest.raises(StorageError, match=r"a Stuck has not responded for 0\.1 s: look at the mount") as caught:
            await api.upload(stuck)
    assert caught.value.errno == errno.ETIMEDOUT


@pytest.mark.parametrize("after", [0, 1, 3])
async def test_handle_that_does_not_respond(warehouse: LeanServer, stuck: Stuck, after: int) -> None:
    """A handle whose read does not return can be left. When it returns after all, its position is restored."""
    handle = stuck.reader(TEXT, after)
    handle.seek(7)
    async with client(warehouse) as api:
        await given_up(api.upload(handle, mime_type="text/plain"), lambda: stuck.count == 1)
        stuck.go.set()
        await wait_until(lambda: handle.tell() == 7)
        again = stuck.reader(TEXT, 0)
        assert (await api.upload(again, mime_type="text/plain")).file_size == len(TEXT)


async def test_deadline_at_a_handle(warehouse: LeanServer, stuck: Stuck) -> None:
    """A deadline ends the wait for a handle, also while its bytes are sent."""
    async with client(warehouse, deadline=0.3) as api:
        for after in (0, 3):
            with pytest.raises(TransferTimeoutError, match="a _Reader has not responded within the deadline"):
                await api.upload(stuck.reader(TEXT, after), mime_type="text/plain")
    assert FileWork(stuck, limit=None).limit is None


@WAYS
async def test_iterables_that_do_not_respond(warehouse: LeanServer, stuck: Stuck, way: str) -> None:
    """Many generators that block their threads do not stop other uploads."""

    def blocking() -> Iterator[bytes]:
        yield TEXT
        stuck.wait()

    async with client(warehouse, concurrency=MANY + 8) as api:

        async def other() -> None:
            await wait_until(lambda: stuck.count == MANY)
            await api.upload(stuck.path)
            beside.set()

        beside = asyncio.Event()
        works = [api.upload(blocking(), mime_type="text/plain") for _ in range(MANY)]
        await given_up(all_of([*works, other()]), beside.is_set, way)


async def test_async_handle_that_does_not_respond(warehouse: LeanServer) -> None:
    """An async handle whose read shields itself can be left, too."""

    class Handle:
        position, reads = 0, 0

        async def read(self, size: int) -> bytes:
            self.reads += 1
            with anyio.CancelScope(shield=True):
                await released.wait()
            return b""

        async def tell(self) -> int:
            return self.position

        async def seek(self, offset: int, whence: int = 0) -> int:
            self.position = offset if whence == 0 else 100
            return self.position

    released, handle = asyncio.Event(), Handle()
    async with client(warehouse) as api:
        await given_up(api.upload(handle, mime_type="text/plain"), lambda: handle.reads == 1, "anyio")
    released.set()


# Destinations


@pytest.mark.parametrize("operation", ["open", "write", "replace", "fsync"])
@WAYS
async def test_disk_that_does_not_respond(warehouse: LeanServer, stuck: Stuck, operation: str, way: str) -> None:
    """A download to a disk that does not respond can be left. When it responds again, nothing is left over."""
    folder = made(stuck.path.parent / "folder", "old.jpg").parent
    async with client(warehouse, fsync=True) as api:
        with Sabotage(folder).watching() as watch:
            await api.download(media(warehouse), folder / "old.jpg")
        made(folder, "old.jpg")
        at = watch.operations.index(operation, 2) + 1
        with Sabotage(folder, at, stuck.wait).watching():
            await given_up(api.download(media(warehouse), folder / "old.jpg"), lambda: stuck.count == 1, way)
            assert (folder / "old.jpg").read_bytes() == OLD
            stuck.go.set()
            await wait_until(lambda: not left_over(folder) and str(folder) not in open_files(folder))
    assert listing(folder) in ({"old.jpg": OLD}, {"old.jpg": content(SIZE)})


@WAYS
async def test_pipe_without_a_reader(warehouse: LeanServer, way: str) -> None:
    """A download into a pipe that nothing reads can be left, and has the deadline."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb"), os.fdopen(writing, "wb", buffering=0) as handle:
        async with client(warehouse) as api:
            await given_up(api.download(media(warehouse, 10 * SIZE), handle), lambda: _is_full(writing), way)
            with pytest.raises(TransferTimeoutError, match="a FileIO has not responded within the deadline"):
                await api.with_options(deadline=0.2).download(media(warehouse), handle)
            assert await api.read(media(warehouse)) == content(SIZE)
        os.read(reading, 2**20)


def _is_full(pipe: int) -> bool:
    return not select.select([], [pipe], [], 0)[1]


# Runs


async def test_runs_that_do_not_respond(warehouse: LeanServer, stuck: Stuck) -> None:
    """A run whose sources, folder or journal do not respond can be left. The journal notes its item all the same."""
    async with client(warehouse, concurrency=MANY) as api:

        async def uploads() -> None:
            async with api.upload_many([stuck] * MANY) as run:
                await run.report()

        async def downloads() -> None:
            async with api.download_many(["7"], stuck) as run:
                await run.report()

        await given_up(uploads(), lambda: stuck.count == MANY)
        await given_up(downloads(), lambda: stuck.count == MANY + 1)
    file, done = SQLiteFile(stuck.path.parent / "a.sqlite", ("test", 7), ("CREATE TABLE IF NOT EXISTS a (b)",)), []

    def work(_: object) -> None:
        stuck.wait()
        done.append(1)

    await given_up(file.run(work), lambda: stuck.count == MANY + 2)
    stuck.go.set()
    await file.run(lambda _: done.append(2))
    assert done == [1, 2]
    await file.aclose()


# Threads


async def test_all_threads_are_taken(stuck: Stuck, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stuck threads are replaced, up to a number. When all are stuck, work is refused in one sentence, until one is back."""
    monkeypatch.setattr(thread_pool, "_PATIENCE", 0.5)
    pool = ThreadPool()
    works = [pool.submit(stuck.wait) for _ in range(200)]
    cancelled = works.pop()
    assert cancelled.cancel()
    await wait_until(lambda: stuck.count == 80)
    for work in works[80:]:
        with pytest.raises(StorageError, match=r"all 80 threads for files wait for .* that does not respond: look at"):
            await asyncio.wrap_future(work)
    last = pool.submit(int)
    stuck.go.set()
    assert await asyncio.wrap_future(last) == 0
    await wait_until(lambda: all(work.done() for work in works))
    assert stuck.count == 80
    results = [pool.submit(divmod, number, 7) for number in range(1000)]
    assert [await asyncio.wrap_future(result) for result in results] == [divmod(number, 7) for number in range(1000)]


async def test_work_that_waits_for_a_thread_is_dropped_when_it_is_cancelled(stuck: Stuck) -> None:
    """Work that has not begun is never done for a caller that has left."""
    pool = ThreadPool()
    done: list[int] = []
    stuck_works = [pool.submit(stuck.wait) for _ in range(80)]
    waiting = pool.submit(done.append, 1)
    assert waiting.cancel()
    stuck.go.set()
    await asyncio.gather(*map(asyncio.wrap_future, stuck_works))
    assert await asyncio.wrap_future(pool.submit(len, done)) == 0


async def test_work_on_a_file_is_done_in_order(stuck: Stuck) -> None:
    """What follows on a file waits for the thread that was left behind."""
    work, done = FileWork(), []
    await given_up(work.run(stuck.wait, undo=lambda _: done.append("undone")), lambda: stuck.count == 1)
    await work.finish(done.append, "finished")
    assert done == []
    stuck.go.set()
    await wait_until(lambda: len(done) == 2)
    assert done == ["undone", "finished"]


async def test_clean_up_that_does_not_respond(stuck: Stuck, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clean-up of a file is waited for only for a while."""
    monkeypatch.setattr("meta_media.transfer.threads._CLEANUP_TIMEOUT", 0.1)
    await FileWork().finish(stuck.wait)
    assert (stuck.count, stuck.released) == (1, 0)


@pytest.mark.parametrize("way", ["deadline", "cancelled", "too long"])
async def test_clean_up_is_never_dropped(
    stuck: Stuck, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str
) -> None:
    """The last work on a file waits for a thread when all are taken, even if its caller has left."""
    pool = ThreadPool()
    monkeypatch.setattr("meta_media.transfer.threads.pool", lambda: pool)
    monkeypatch.setattr("meta_media.transfer.threads._CLEANUP_TIMEOUT", 0.1)
    file = SQLiteFile(tmp_path / "file", ("test file", 1), ("CREATE TABLE a (b)",))
    done: list[int] = []
    await file.run(lambda db: db.execute("SELECT 1"))
    taken = [pool.submit(stuck.wait) for _ in range(80)]
    await wait_until(lambda: stuck.count == 80)
    async with file_deadline(0.1 if way == "deadline" else None):
        works = {asyncio.ensure_future(FileWork().finish(done.append, 1)), asyncio.ensure_future(file.aclose())}
    if way == "cancelled":
        await asyncio.sleep(0)  # until they wait
        for work in works:
            work.cancel()
    await asyncio.wait(works, timeout=0.3)
    stuck.go.set()
    await asyncio.wait([*works, *map(asyncio.wrap_future, taken)])
    await wait_until(lambda: done == [1] and file._connection is None)
    assert [work.cancelled() for work in works] == [way == "cancelled"] * 2
    _ = [work.exception() for work in works if not work.cancelled()]


@pytest.mark.parametrize("of", ["a file", "another task"])
async def test_clean_up_of_a_loop_that_ends(of: str) -> None:
    """A loop that ends cancels all tasks at once, also those that have not begun. The last work on a file is done."""
    done: list[int] = []

    async def clean_up() -> None:
        await asyncio.sleep(0)
        done.append(1)

    finishing = FileWork().finish(done.append, 1) if of == "a file" else await_completion(clean_up())
    leaving = asyncio.ensure_future(finishing)
    await asyncio.sleep(0)  # until it waits
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await wait_until(lambda: done == [1])


async def test_two_readers_of_one_pipe(fifo: Path) -> None:
    """A reader that finds a pipe empty, because another one was faster, goes on waiting."""
    async with OpenedFile(fifo, 0) as one, OpenedFile(fifo, 0) as two:
        chunks = [pipe_chunks(opened.file, 100) for opened in (one, two)]
        steps = {asyncio.ensure_future(anext(chunk)) for chunk in chunks}
        with fifo.open("wb", buffering=0) as writer:
            writer.write(b"first")
            done, waiting = await asyncio.wait(steps, return_when=asyncio.FIRST_COMPLETED)
            assert [step.result() for step in done] == [b"first"]
            writer.write(b"second")
            assert [await step for step in waiting] == [b"second"]
        for chunk in chunks:
            await chunk.aclose()


async def test_cancelled_while_a_step_is_left() -> None:
    """A cancellation that arrives while an early end waits for the next step is not lost."""
    entered, go = asyncio.Event(), asyncio.Event()

    async def steps() -> AsyncGenerator[int, None]:
        yield 1
        with anyio.CancelScope(shield=True):
            with contextlib.suppress(asyncio.CancelledError):
                entered.set()
                await asyncio.sleep(SOON)  # until it is cancelled
            leaving.set()
            await go.wait()

    async def consume() -> None:
        async with contextlib.aclosing(prefetch(steps())) as values:
            assert await anext(values) == 1
            await entered.wait()

    leaving = asyncio.Event()
    task = asyncio.ensure_future(consume())
    await leaving.wait()
    task.cancel()
    await asyncio.sleep(0.01)  # in which the cancellation arrives
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_exit_of_a_child_process() -> None:
    """The exit of a forked process waits for no thread of its parent."""
    pool, go = ThreadPool(), threading.Event()
    work = pool.submit(go.wait)
    pool._process = -1
    pool._finish()
    assert not work.done()
    go.set()
    work.result()


EXIT: Final = """
import asyncio, threading
from meta_media import MediaApi

entered = threading.Event()

class Stuck:
    def __fspath__(self):
        entered.set()
        threading.Event().wait()

async def main():
    async with MediaApi("token", "1") as media:
        upload = asyncio.create_task(media.upload(Stuck()))
        while not entered.is_set():
            await asyncio.sleep(0.01)
        upload.cancel()
        await asyncio.wait([upload])
        print("left")

asyncio.run(main())
"""


def test_exit_of_the_interpreter() -> None:
    """A thread that is stuck for ever does not keep the interpreter from exiting."""
    ended = subprocess.run([sys.executable, "-c", EXIT], timeout=60, check=True, capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("left\n", "")


def test_exit_waits_for_work() -> None:
    """At the exit of the interpreter, work in progress is finished."""
    code = "import time; from meta_media.transfer.threads import pool; pool().submit(lambda: (time.sleep(0.2), print('done')))"
    ended = subprocess.run([sys.executable, "-c", code], timeout=60, check=True, capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("done\n", "")
