"""
Many items: outcomes as they finish, and nothing that grows with their number.

Workers take items one by one, so nothing queues anywhere, and an item is read only when somebody is about to work on it. They
run in a task of the run's own: no task group is ever open in the caller's frames (PEP 789).
"""

from __future__ import annotations

import inspect
import time
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, Protocol, TypeVar

import anyio.lowlevel
import attrs

from meta_media.bulk.caught import Caught
from meta_media.bulk.outcomes import BulkReport, Done, Outcome
from meta_media.bulk.reader import ItemReader
from meta_media.errors import ConfigurationError, NetworkError
from meta_media.transfer.progress import ItemProgress
from meta_media.transfer.threads import await_completion

if TYPE_CHECKING:
    from asyncio import Event, Queue, Task

__all__ = ["BulkOptions", "BulkRun", "Job", "checked_concurrency"]

T = TypeVar("T")
_FAILURES: Final = 100  # that a report keeps
_IN_A_ROW: Final = 10  # network errors, or twice as many as there are workers, after which there is no way to Meta
_AHEAD: Final = 16  # finished items for each worker that may wait for an earlier one
_CLEAN_UP: Final = 10.0  # seconds that a generator's `finally` may take


class Job(Protocol[T]):
    """What is done with each item of a run."""

    async def open(self) -> None:
        """Prepare; what this raises, the run raises before anything is read."""
        ...

    async def __call__(self, item: Any, move: ItemProgress) -> Done[T]:
        """Work on an item, and tell of the bytes that moved, of which some may be taken back."""
        ...

    def is_fatal(self, error: Exception) -> bool:
        """Tell whether all other items would meet the same error."""
        ...

    async def aclose(self) -> None:
        """Clean up."""
        ...


@attrs.frozen
class BulkOptions:
    """
    How a run goes about it.

    Attributes:
        concurrency: Items at a time.
        stop_on_error: Whether the first error ends the run.
        in_order: Whether outcomes are handed out in the order of the input; each then waits for those before it.
        progress: Called with a `BulkReport` after each outcome and as bytes move; plain or async.
    """

    concurrency: int
    stop_on_error: bool = False
    in_order: bool = False
    progress: Callable[[BulkReport], Any] | None = None


def checked_concurrency(value: Any, most: int) -> int:
    """Return how many items to work on at a time: never more than there are connections, so that none waits for one."""
    if value is None:
        return most
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"concurrency must be a whole number above zero, not {value!r}")
    if value > most:
        raise ConfigurationError(
            f"concurrency {value} is more than the {most} connections there are: pass Settings(concurrency={value})"
        )
    return value


class BulkRun(Generic[T]):
    """
    A run over many items, whose outcomes come as they finish.

    `async with media.upload_many(paths) as run`, then `async for outcome in run`; or, where only the result matters,
    `await media.upload_many(paths).report()`.

    One item's failure disturbs no other. What all others would meet, too (a dead token, a locked account, a certificate
    nobody trusts, a full disk, no way to Meta), ends the run: requests under way come to their end, nothing waits any more
    for its turn or another try, the rest of a list is handed out as not tried, and an iterator is not read on. Leaving the
    block ends all work. What the input itself raises comes out of the iteration, after the outcomes of what it gave before.

    Args:
        items: An iterable or async iterable, endless if it likes.
        job: What to do with each.
        options: How.
    """

    def __init__(self, items: AsyncIterable[Any] | Iterable[Any], job: Job[T], options: BulkOptions) -> None:
        self._feed = ItemReader(items)
        self._job = job
        self._options = options
        self._scope = anyio.CancelScope()
        self._reader: Task[None] | None = None
        self._asking = self._closing = False  # what the reader is doing: asking the input for an item, closing it
        self._room = options.concurrency * (_AHEAD if options.in_order else 2)  # for outcomes nobody has asked for yet
        self._wanted = 0  # items for which workers wait
        self._finished: deque[Outcome[T]] = deque()
        self._returned: deque[Outcome[T]] = deque()  # whoever was to have them was cancelled
        self._held: dict[int, Outcome[T]] = {}
        self._news: Event  # of an outcome, or of the end; the other one, of workers or room for an outcome
        self._demand: Event
        self._items: Queue[tuple[int, Any] | None]
        self._read = self._handed_out = 0
        self._unreachable = 0  # network errors in a row
        self._under_way: set[ItemProgress] = set()
        self._ended_by: Exception | None = None
        self._input_error: BaseException | None = None
        self._task: Task[None] | None = None
        self._counts = dict.fromkeys(("succeeded", "failed", "skipped", "not_tried"), 0)
        self._failures: list[Outcome[T]] = []
        self._moved = 0
        self._began = self._over = 0.0

    async def __aenter__(self) -> BulkRun[T]:
        import asyncio

        if self._began:
            raise ConfigurationError("a BulkRun runs once: make another for another run")
        self._began = time.monotonic()
        try:
            await self._job.open()
        except BaseException:
            await self._job.aclose()
            raise
        self._news, self._demand, self._items = asyncio.Event(), asyncio.Event(), asyncio.Queue()
        self._task = asyncio.create_task(self._work())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._scope.cancel()
        if self._task is not None:
            await await_completion(self._end(self._task))

    async def _end(self, task: Task[None]) -> None:
        import asyncio

        await asyncio.wait((task,))
        await self._job.aclose()

    def __aiter__(self) -> BulkRun[T]:
        if self._task is None:
            raise ConfigurationError("a BulkRun is iterated inside its block: async with media.upload_many(...) as run")
        return self

    async def __anext__(self) -> Outcome[T]:
        if self._returned:
            return self._returned.popleft()
        while (outcome := self._next_finished()) is None:
            if self._task is None or self._task.done():
                self._raise_end()
            self._news.clear()
            await self._news.wait()
        self._count(outcome)
        try:
            await self._tell()
        except BaseException:
            self._returned.append(outcome)
            raise
        return outcome

    async def report(self) -> BulkReport:
        """Wait for all (remaining) outcomes, and say what became of them together."""
        if self._task is None:
            async with self:
                return await self.report()
        async for _ in self:
            pass
        return self.so_far

    @property
    def so_far(self) -> BulkReport:
        """What became of the items whose outcomes have been handed out."""
        return BulkReport(
            **self._counts,
            bytes=self._moved,
            seconds=(self._over or time.monotonic()) - self._began if self._began else 0.0,
            total=self._feed.total,
            failures=tuple(self._failures),
            ended_by=self._ended_by,
        )

    # Handing out

    def _next_finished(self) -> Outcome[T] | None:
        if not self._options.in_order:
            return self._finished.popleft() if self._finished else None
        while self._finished:
            outcome = self._finished.popleft()
            self._held[outcome.index] = outcome
        interrupted = self._task is not None and self._task.done()  # then what was not finished is never going to be
        due = min(self._held, default=0) if interrupted else self._handed_out
        return self._held.pop(due, None)

    def _raise_end(self) -> NoReturn:
        import asyncio

        error, self._input_error = self._input_error, None
        if error is not None:
            raise error
        for task in filter(None, (self._reader, self._task)):
            if not task.cancelled():
                task.result()  # raises what is no `Exception`
        left = self._scope.cancel_called
        if not left and (
            self._read > self._handed_out or (self._reader and self._reader.cancelled() and not self._ended_by)
        ):
            raise asyncio.CancelledError("somebody else cancelled this run's tasks")
        raise StopAsyncIteration

    def _count(self, outcome: Outcome[T]) -> None:
        self._handed_out += 1
        self._room += 1
        self._demand.set()
        if outcome.error is not None and len(self._failures) < _FAILURES:
            self._failures.append(outcome)
        done = "skipped" if outcome.skipped else "succeeded"
        self._counts["not_tried" if not outcome.tried else "failed" if outcome.error is not None else done] += 1

    async def _tell(self) -> None:
        if self._options.progress is not None:
            told = self._options.progress(self.so_far)
            if inspect.isawaitable(told):
                await told

    # Working

    async def _work(self) -> None:
        import asyncio

        self._reader = asyncio.create_task(self._feed_workers())
        try:
            with self._scope:
                async with anyio.create_task_group() as group:
                    for _ in range(self._options.concurrency):
                        group.start_soon(self._worker)
        finally:
            await await_completion(self._stop_reading(self._reader))
            self._over = time.monotonic()
            self._news.set()

    async def _feed_workers(self) -> None:
        """
        Read the input, in a task that does nothing else and is cancelled once.

        A generator may have its own scopes and timeouts open, and may await in its `finally`; in a scope of anyio's, each such
        await would be cancelled again.
        """
        try:
            with Caught() as reading:
                while (item := await self._next_item()) is not None:
                    self._items.put_nowait((self._read, *item))
                    self._read += 1
        finally:
            self._closing = True
            try:
                with Caught() as closing:
                    await self._feed.aclose()
            finally:
                for _ in range(self._options.concurrency):
                    self._items.put_nowait(None)
        self._input_error = reading.raised or closing.raised

    async def _next_item(self) -> tuple[Any] | None:
        while not (self._wanted and self._room):
            self._demand.clear()
            await self._demand.wait()
        if self._ended_by is not None and not self._feed.stop():
            return None
        room, self._asking = self._room, True
        self._wanted, self._room = self._wanted - 1, self._room - 1
        try:
            return await self._feed.next(room)
        finally:
            self._asking = False

    async def _stop_reading(self, reader: Task[None]) -> None:
        import asyncio

        while not reader.done():
            if not self._closing:
                reader.cancel()
            await asyncio.wait((reader,), timeout=_CLEAN_UP)
            self._closing = False  # it has had its time

    async def _worker(self) -> None:
        while True:
            self._wanted += 1
            self._demand.set()
            if (given := await self._items.get()) is None:
                return
            await anyio.lowlevel.checkpoint()  # lets a connection used just now be heard of, if it said too much
            if self._ended_by is not None:
                outcome: Outcome[T] = Outcome(index=given[0], source=given[1], error=self._ended_by, tried=False)
            else:
                outcome = await self._attempt(*given)
                self._judge(outcome.error)
            self._finished.append(outcome)
            self._news.set()

    async def _attempt(self, index: int, item: Any) -> Outcome[T]:
        began, moved, done = time.monotonic(), ItemProgress(self._move), None
        self._under_way.add(moved)
        try:
            with Caught() as caught:
                done = await self._job(item, moved)
        finally:
            self._under_way.remove(moved)
        seconds = time.monotonic() - began
        if done is None:
            self._moved -= moved.size
            attempts = getattr(caught.error, "attempts", moved.call.attempts if moved.call else 0)
            if moved.call is not None and moved.call.unsent:
                return Outcome(index=index, source=item, error=self._ended_by, tried=False)
            return Outcome(index=index, source=item, error=caught.error, attempts=attempts, seconds=seconds)
        value, attempts, skipped = done.value, done.attempts, done.skipped
        return Outcome(index=index, source=item, value=value, attempts=attempts, seconds=seconds, skipped=skipped)

    async def _move(self, size: int) -> None:
        self._moved += size
        await self._tell()

    def _judge(self, error: Exception | None) -> None:
        """End the run if the other items would meet the same error."""
        self._unreachable = self._unreachable + 1 if isinstance(error, NetworkError) else 0
        unreachable = self._unreachable >= max(_IN_A_ROW, 2 * self._options.concurrency)
        if error is not None and (self._options.stop_on_error or unreachable or self._job.is_fatal(error)):
            self._ended_by = self._ended_by or error
            for moved in self._under_way:
                moved.stop_waiting()
            if not self._feed.stop() and self._asking and self._reader is not None:
                self._reader.cancel()
