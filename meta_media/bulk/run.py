"""
Runs over many items. Outcomes come as they finish, and memory does not grow with the number of items.

Workers take items one by one from a `WorkQueue` and put outcomes into an `OutcomeBuffer`. They run in a task of the run's
own, so that no task group is ever open in the caller's frames (PEP 789).
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, Protocol, TypeVar

import anyio.lowlevel
import attrs

from meta_media.bulk.ending import is_shared
from meta_media.bulk.outcomes import BulkReport, Outcome, OutcomeBuffer, RunningReport
from meta_media.bulk.work_queue import WorkQueue
from meta_media.errors import ConfigurationError, MediaError
from meta_media.http.loop_bound import LoopBound
from meta_media.transfer.progress import ItemProgress, check_callback
from meta_media.transfer.threads import await_completion

__all__ = ["BulkOptions", "BulkRun", "Job", "as_failure", "checked_concurrency"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
_SHARED_ERRORS_COUNT: Final = 10  # in a row, or two for each worker, which the other items would meet as well
_ROOM_COUNT: Final = 2  # items for each worker that may be read without their outcomes having been taken
_ROOM_IN_ORDER_COUNT: Final = 16  # the same, where outcomes wait for earlier ones


class Job(Protocol[T_co]):
    """The work that a run does on each item."""

    def open(self) -> Awaitable[None]:
        """Prepare, before an item is read. The run raises an error of this."""
        ...

    async def __call__(self, item: Any, progress: ItemProgress, /) -> T_co:
        """Work on an item, and report the bytes that moved, and whether an earlier run had done the item."""
        ...

    def is_fatal(self, error: Exception, /) -> bool:
        """Return whether all other items would meet the same error."""
        ...

    async def aclose(self) -> None:
        """Clean up."""


@attrs.frozen
class BulkOptions:
    """Options of a run."""

    concurrency: int  # number of items worked on at a time
    stop_on_error: bool = False  # whether the first error ends the run
    in_order: bool = False  # whether outcomes come in the order of the input; each then waits for those before it
    progress: Callable[[BulkReport], Any] | None = None  # called after each outcome and as bytes move; plain or async

    def __attrs_post_init__(self) -> None:
        check_callback(self.progress)


def checked_concurrency(value: Any, most: int) -> int:
    """Return the number of items to work on at a time: at most one for each connection, so that no item waits for one."""
    if value is None:
        return most
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"concurrency must be a whole number above zero, not {value!r}")
    if value > most:
        raise ConfigurationError(
            f"concurrency {value} is more than the {most} connections there are: pass Settings(concurrency={value})"
        )
    return value


def as_failure(raised: BaseException) -> Exception:
    """
    Return the failure of one item, for a caught exception; raise that again if it must end the current task.

    A `CancelledError` is only a failure if the current task is not being cancelled: then a task or future that was awaited
    has been cancelled by other code.
    """
    if isinstance(raised, Exception):
        return raised
    task = asyncio.current_task()
    if not isinstance(raised, asyncio.CancelledError) or task is None or task.cancelling():
        raise raised
    failure = MediaError("other code cancelled a task that this item waited for")
    failure.__cause__ = raised
    return failure


class BulkRun(Generic[T]):
    """
    A run over many items.

    Use it as `async with media.upload_many(paths) as run` and `async for outcome in run`. Where only the result matters,
    use `await media.upload_many(paths).report()`.

    An item that fails does not disturb the others. An error that all items would meet ends the run: a dead token, a locked
    account, an untrusted certificate, a full disk; and, ten times in a row, an unreachable network, store or folder, or a
    callback that raises. Requests in progress are then finished, and waits for a retry or a rate limit end. The rest of a
    list is reported as not tried; an iterator is read no further.

    Leaving the block ends all work. An error of the input itself is raised after the outcomes of the items before it.

    Args:
        items: An iterable or async iterable; it may be endless.
        job: The work on each item.
        options: See `BulkOptions`.
    """

    def __init__(self, items: AsyncIterable[Any] | Iterable[Any], job: Job[T], options: BulkOptions) -> None:
        room = options.concurrency * (_ROOM_IN_ORDER_COUNT if options.in_order else _ROOM_COUNT)
        self._queue = WorkQueue(items, workers=options.concurrency, room=room)
        self._job = job
        self._options = options
        self._outcomes = OutcomeBuffer[T](in_order=options.in_order)
        self._returned: deque[Outcome[T]] = deque()  # counted already; the caller that took them was cancelled
        self._report = RunningReport(self._queue.total)
        self._scope = anyio.CancelScope()
        self._task: asyncio.Task[None] | None = None
        self._in_progress: set[ItemProgress] = set()
        self._bound = LoopBound("BulkRun", lambda _: None)
        self._exhausted = False  # whether the end was reached inside the block
        self._shared_errors_count = 0  # in a row

    async def __aenter__(self) -> BulkRun[T]:
        self._bound.get()
        if self._report.started_at:
            raise ConfigurationError("a BulkRun runs once: make another for another run")
        self._report.started_at = time.monotonic()
        try:
            await self._job.open()
        except BaseException:
            await self._job.aclose()
            raise
        self._task = asyncio.create_task(self._work())
        self._task.add_done_callback(lambda _: self._outcomes.close())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._scope.cancel()
        if self._task is not None:
            await await_completion(self._end(self._task))

    async def _end(self, task: asyncio.Task[None]) -> None:
        await asyncio.wait((task,))
        await self._job.aclose()

    def __aiter__(self) -> BulkRun[T]:
        return self

    async def __anext__(self) -> Outcome[T]:
        outcome = await self._take()
        if outcome is not None:
            return outcome
        if not self._exhausted:
            raise ConfigurationError("this BulkRun was left before its end: take all outcomes inside its block")
        raise StopAsyncIteration

    if not TYPE_CHECKING:  # type checkers find `await run` and `for outcome in run` themselves

        def __iter__(self) -> NoReturn:
            raise TypeError("a BulkRun is iterated with async for: async with run, then async for outcome in run")

        def __await__(self) -> NoReturn:
            raise ConfigurationError("a BulkRun cannot be awaited: use async with run, or await run.report()")

    async def _take(self) -> Outcome[T] | None:
        """Wait for the next outcome; return None after the last one."""
        if self._task is None:
            raise ConfigurationError("a BulkRun is iterated inside its block: async with media.upload_many(...) as run")
        self._bound.get()
        if self._returned:
            return self._returned.popleft()
        outcome = await self._outcomes.take()
        if outcome is None:
            self._check_end(self._task)
            return None
        self._queue.release()
        self._report.add(outcome)
        try:
            await self._report_progress()
        except BaseException:
            self._returned.append(outcome)
            raise
        return outcome

    async def report(self) -> BulkReport:
        """Take all remaining outcomes, and return the report over all."""
        if self._task is None:
            async with self:
                return await self.report()
        while await self._take() is not None:
            pass
        return self.so_far

    @property
    def so_far(self) -> BulkReport:
        """The report over the outcomes that were taken so far."""
        return self._report.freeze()

    def _check_end(self, task: asyncio.Task[None]) -> None:
        """Raise the error that ended the run before its last outcome, if there is one."""
        left = self._scope.cancel_called
        error, self._queue.error = self._queue.error, None
        if error is not None and not (isinstance(error, asyncio.CancelledError) and (left or self._report.ended_by)):
            raise error
        if not left and (task.cancelled() or self._queue.read_count > self._outcomes.taken_count):
            raise asyncio.CancelledError("other code cancelled the tasks of this run")
        with contextlib.suppress(asyncio.CancelledError):
            task.result()  # raises an error that is no `Exception`
        self._exhausted = self._exhausted or not left

    async def _report_progress(self) -> None:
        if self._options.progress is not None:
            result = self._options.progress(self.so_far)
            if inspect.isawaitable(result):
                await result

    async def _work(self) -> None:
        self._queue.start()
        try:
            with self._scope:
                async with anyio.create_task_group() as group:
                    for _ in range(self._options.concurrency):
                        group.start_soon(self._worker)
        finally:
            await await_completion(self._queue.aclose())
            self._report.ended_at = time.monotonic()

    async def _worker(self) -> None:
        while (given := await self._queue.get()) is not None:
            await anyio.lowlevel.checkpoint()  # the transport notices here that the server closed the last connection
            index, item = given
            if self._report.ended_by is not None:
                outcome: Outcome[T] = Outcome(index=index, source=item, error=self._report.ended_by, tried=False)
            else:
                outcome = await self._attempt(index, item)
            self._outcomes.add(outcome)

    async def _attempt(self, index: int, item: Any) -> Outcome[T]:
        started_at, progress = time.monotonic(), ItemProgress(self._move)
        self._in_progress.add(progress)
        try:
            value = await self._job(item, progress)
        except BaseException as raised:  # noqa: BLE001 - the failure of one item must not end the others
            error, call = as_failure(raised), progress.call
            self._report.bytes -= progress.size
            if call is not None and call.unsent:
                return Outcome(index=index, source=item, error=self._report.ended_by, tried=False)
            attempts = getattr(error, "attempts", progress.attempts)
            seconds = time.monotonic() - started_at
            await self._end_if_shared(error, item, progress)
            return Outcome(index=index, source=item, error=error, attempts=attempts, seconds=seconds)
        finally:
            self._in_progress.remove(progress)
        self._shared_errors_count = 0
        seconds = time.monotonic() - started_at
        facts: Any = {"attempts": progress.attempts, "seconds": seconds, "skipped": progress.skipped}
        return Outcome(index=index, source=item, value=value, **facts)

    async def _move(self, size: int) -> None:
        self._report.bytes += size
        await self._report_progress()

    async def _end_if_shared(self, error: Exception, item: Any, progress: ItemProgress) -> None:
        """End the run if the other items would meet the same error."""
        shared = await is_shared(error, item, progress)
        self._shared_errors_count = self._shared_errors_count + 1 if shared else 0
        many = self._shared_errors_count >= max(_SHARED_ERRORS_COUNT, 2 * self._options.concurrency)
        if self._options.stop_on_error or many or self._job.is_fatal(error):
            self._report.ended_by = self._report.ended_by or error
            for other in self._in_progress:
                other.stop_waiting()
            self._queue.stop()
