"""Blocking work on threads of our own: never on the event loop, always to its end, and everything closed."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from meta_media.errors import StorageError
from meta_media.transfer.files import OpenedFile, spooled
from meta_media.transfer.threads import FileWork, await_completion, run_in_thread, storage_errors, submit
from tests.support.servers import open_files, wait_until
from tests.support.stepping import none_added, settled_at


async def test_own_threads() -> None:
    """Work runs on threads that are not the event loop's, with its arguments, and gives its result."""
    name = await run_in_thread(lambda prefix: prefix + threading.current_thread().name, "on ")
    assert name.startswith("on meta_media")


async def test_errors_of_work() -> None:
    """What the work raises arrives."""
    with pytest.raises(ZeroDivisionError):
        await run_in_thread(divmod, 1, 0)


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_cancellation_waits_for_the_work(times: int) -> None:
    """A cancellation, also a second one, arrives when the thread is done, if that is soon."""
    go = threading.Event()
    done: list[bool] = []

    def work() -> None:
        done.append(go.wait())

    task = asyncio.ensure_future(run_in_thread(work))
    await asyncio.sleep(0)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0.01)  # so that each cancellation is delivered by itself
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [True]


@pytest.mark.parametrize("cancelled", [False, True])
async def test_dropped_work_ends(cancelled: bool) -> None:
    """Work whose result is not wanted is waited for, and a cancellation arrives when it has ended."""
    work, begun, go = FileWork(), threading.Event(), threading.Event()

    def wait() -> bool:
        begun.set()
        return go.wait()

    started = work.start(wait)
    await wait_until(begun.is_set)
    task = asyncio.ensure_future(work.drop(started))
    await asyncio.sleep(0)
    if cancelled:
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    go.set()
    await asyncio.wait((task,))
    assert (task.cancelled(), started.result()) == (cancelled, True)


async def test_dropped_work_that_waits_is_never_done() -> None:
    """Work whose result is not wanted is not begun if it still waits for earlier work."""
    work, go, done = FileWork(), threading.Event(), threading.Event()
    first, second = work.start(go.wait), work.start(done.set)
    await work.drop(second)
    go.set()
    assert await work.result(first)
    assert second.cancelled()
    assert not done.is_set()


async def test_result_that_is_there_needs_no_turn() -> None:
    """The result of work that is done is returned at once, and so is its error."""
    work = FileWork()
    for divisor in (2, 0):
        started = work.start(divmod, 5, divisor)
        await wait_until(started.done)
        waiting = work.result(started)
        with pytest.raises(StopIteration if divisor else ZeroDivisionError):
            waiting.send(None)


async def test_anyio_cancellation_waits_for_the_work() -> None:
    """An anyio scope that is cancelled meanwhile lets the work end."""
    go, done, loop = threading.Event(), list[bool](), asyncio.get_running_loop()
    with anyio.CancelScope() as scope:
        loop.call_soon(scope.cancel)
        loop.call_later(0.05, go.set)  # time for a caller that does not wait
        await run_in_thread(lambda: done.append(go.wait()))
    assert scope.cancelled_caught
    assert done == [True]


async def test_cancelled_work_that_fails() -> None:
    """A cancellation wins over the error of work that it waited for."""

    async def fail() -> None:
        await asyncio.sleep(0.05)  # so that the cancellation comes first
        raise ZeroDivisionError

    task = asyncio.ensure_future(await_completion(fail(), undo=lambda _: asyncio.sleep(0)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_started_work_is_left_behind() -> None:
    """A cancelled caller of `started` does not wait."""
    go = threading.Event()
    reading = threading.Event()

    def work() -> bool:
        reading.set()
        return go.wait()

    async def caller() -> None:
        await submit(work)

    task = asyncio.ensure_future(caller())
    await wait_until(reading.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not go.is_set()
    go.set()


async def test_file_opened_for_a_cancelled_caller_is_closed(tmp_path: Path) -> None:
    """A file whose opening was cancelled is closed again."""
    path = tmp_path / "file"
    path.write_bytes(b"more than is small")

    async def caller() -> None:
        async with OpenedFile(path, small=10):
            raise AssertionError("a cancelled caller went on")

    task = asyncio.ensure_future(caller())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settled_at(False, lambda: str(path) in open_files(path))  # a thread of a slow disk may be left behind


async def test_file_is_closed_after_an_error(tmp_path: Path) -> None:
    """An error inside the block arrives as it is, and the file is closed."""
    path = tmp_path / "file"
    path.write_bytes(b"more than is small")
    with pytest.raises(ZeroDivisionError):
        async with OpenedFile(path, small=10) as known:
            raise ZeroDivisionError
    assert known.content is None
    assert known.file.closed


@pytest.mark.parametrize("size", [1, 9, 10])
async def test_small_file_is_read_at_once(size: int, tmp_path: Path) -> None:
    """A small file is read whole, and closed before anybody sees it."""
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    async with OpenedFile(path, small=10) as known:
        assert known.content == bytes(size)
        assert known.file is None
        assert str(path) not in open_files(path)
        assert known.stat.st_size == size


async def test_file_that_outgrows_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that grows while it is being read is not taken for a small one, and stands at its beginning."""
    path = tmp_path / "file"
    path.write_bytes(bytes(10))
    state = os.fstat

    def grown(descriptor: int) -> os.stat_result:
        found = state(descriptor)
        with path.open("ab") as more:
            more.write(b"!")
        return found

    monkeypatch.setattr(os, "fstat", grown)
    async with OpenedFile(path, small=10) as known:
        assert known.content is None
        assert known.file.tell() == 0


async def test_file_whose_state_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is closed again when the system opens it but says nothing of it."""
    path = tmp_path / "file"
    path.write_bytes(b"text")

    def refuse(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fstat", refuse)
    with pytest.raises(StorageError, match="could not open"):
        async with OpenedFile(path, small=10):
            raise AssertionError("an error was not told")
    monkeypatch.undo()
    assert str(path) not in open_files(path)


async def test_spool_has_no_name() -> None:
    """A spool that has outgrown memory is a file that nobody else can open, and is gone when it is closed."""
    before = set(open_files("/no such folder"))
    async with spooled(10) as spool:
        await spool.write(b"more than ten bytes")
        assert len(set(open_files("/no such folder")) - before) == 1
    await none_added(before, lambda: set(open_files("/no such folder")))


@pytest.mark.parametrize(
    ("error", "sentence", "number"),
    [
        (OSError(28, "whatever the system says"), "could not write: No space left on device", 28),
        (OSError("no number"), "could not write: no number", None),
        (ValueError("I/O operation on closed file."), "could not write: I/O operation on closed file.", None),
    ],
)
def test_storage_errors(error: Exception, sentence: str, number: int | None) -> None:
    """The system's refusal becomes a StorageError that says what was tried, why not, and the number."""
    with pytest.raises(StorageError) as caught, storage_errors("write"):
        raise error
    assert (str(caught.value), caught.value.errno) == (sentence, number)
    assert caught.value.__cause__ is error


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # forking with threads is what is tested
async def test_after_a_fork() -> None:
    """A child process gets threads of its own."""
    await run_in_thread(int)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            asyncio.set_event_loop(None)
            asyncio.events._set_running_loop(None)
            code = asyncio.run(asyncio.wait_for(run_in_thread(int), 20))
        finally:
            os._exit(code)
    _, status = await anyio.to_thread.run_sync(os.waitpid, child, 0)
    assert status == 0
