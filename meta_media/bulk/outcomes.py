"""Results of a run: the outcome of one item, the report over all, and the buffer of outcomes that were not taken yet."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any, Final, Generic, TypeVar, cast

import attrs

from meta_media.protocol.secrets import excerpt

__all__ = ["BulkReport", "Outcome", "OutcomeBuffer", "RunningReport"]

T = TypeVar("T")
_KEPT_FAILURES_COUNT: Final = 100  # outcomes with an error in a report


@attrs.frozen(kw_only=True)
class Outcome(Generic[T]):
    """
    The result of one item of a run.

    Attributes:
        index: Position of the item in the input, from 0.
        source: The item, as it was passed.
        value: The return value of the single verb; None after an error.
        error: The error that the single verb would have raised; for an item that was not tried, the error that ended the run.
        attempts: Requests sent for the item.
        seconds: Time from the start of the item to its end.
        skipped: Whether an earlier run had done the item, according to the journal.
        tried: Whether the item was started.
    """

    index: int
    source: Any = attrs.field(repr=excerpt)
    value: T | None = None
    error: Exception | None = None
    attempts: int = 0
    seconds: float = 0.0
    skipped: bool = False
    tried: bool = True

    def result(self) -> T:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return cast("T", self.value)


@attrs.frozen(kw_only=True)
class BulkReport:
    """
    Counts over all outcomes that were taken from a run.

    Attributes:
        succeeded: Items done by this run.
        failed: Items that were tried and ended with an error.
        skipped: Items done by an earlier run, according to the journal.
        not_tried: Items that were not started because the run had ended.
        bytes: Bytes moved, those of unfinished items included.
        seconds: Time since the run started, or the run's duration.
        total: Number of items in the input; None for an iterator.
        failures: The first 100 outcomes with an error. They keep their sources, also bytes, in memory.
        ended_by: The error that ended the run before its input ended, because other items would meet it too.
    """

    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    not_tried: int = 0
    bytes: int = 0
    seconds: float = 0.0
    total: int | None = None
    failures: tuple[Outcome[Any], ...] = ()
    ended_by: Exception | None = None

    @property
    def ok(self) -> bool:
        """Whether every item is done, now or by an earlier run."""
        return not (self.failed or self.not_tried or self.ended_by)


@attrs.define
class RunningReport:
    """Counts and times of a run that goes on. The attributes have the names that they have in a `BulkReport`."""

    total: int | None
    bytes: int = 0
    ended_by: Exception | None = None
    started_at: float = 0.0  # seconds of the monotonic clock, as is the next; 0.0 for never
    ended_at: float = 0.0
    _counts: Counter[str] = attrs.field(factory=Counter)
    _failures: list[Outcome[Any]] = attrs.field(factory=list)

    def add(self, outcome: Outcome[Any]) -> None:
        """Count an outcome."""
        if outcome.error is None:
            self._counts["skipped" if outcome.skipped else "succeeded"] += 1
            return
        self._counts["failed" if outcome.tried else "not_tried"] += 1
        if len(self._failures) < _KEPT_FAILURES_COUNT:
            self._failures.append(outcome)

    def freeze(self) -> BulkReport:
        """Return the report of this moment."""
        seconds = (self.ended_at or time.monotonic()) - self.started_at if self.started_at else 0.0
        failures = tuple(self._failures)
        return BulkReport(
            **self._counts,
            bytes=self.bytes,
            seconds=seconds,
            total=self.total,
            failures=failures,
            ended_by=self.ended_by,
        )


class OutcomeBuffer(Generic[T]):
    """Outcomes that the caller has not taken yet. They are taken as they were added, or in the order of the input."""

    def __init__(self, *, in_order: bool) -> None:
        self.taken_count = 0
        self._added_count = 0
        self._in_order = in_order
        self._outcomes: dict[int, Outcome[T]] = {}  # by index, or by how many were added before
        self._changed = asyncio.Event()
        self._closed = False

    def add(self, outcome: Outcome[T]) -> None:
        """Add an outcome."""
        self._outcomes[outcome.index if self._in_order else self._added_count] = outcome
        self._added_count += 1
        self._changed.set()

    def close(self) -> None:
        """Note that no outcome will be added any more, so that `take` comes to an end."""
        self._closed = True
        self._changed.set()

    async def take(self) -> Outcome[T] | None:
        """Wait for the next outcome and return it; return None after the last one."""
        while (index := self._next_index()) not in self._outcomes:
            if self._closed:
                return None
            self._changed.clear()
            await self._changed.wait()
        self.taken_count += 1
        return self._outcomes.pop(index)

    def _next_index(self) -> int:
        """Return what `take` waits for. A run that was cancelled leaves gaps in the order."""
        return min(self._outcomes, default=-1) if self._in_order and self._closed else self.taken_count
