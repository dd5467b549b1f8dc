"""What becomes of many items: of each of them, and of all together."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import attrs

__all__ = ["BulkReport", "Done", "Outcome"]

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Done(Generic[T]):
    """
    What a job has done.

    Attributes:
        value: What it gives.
        attempts: Requests that it took.
        skipped: Whether an earlier run had done it.
    """

    value: T
    attempts: int = 0
    skipped: bool = False


@attrs.frozen(kw_only=True)
class Outcome(Generic[T]):
    """
    What became of one item.

    Attributes:
        index: Its place in the input, from 0.
        source: The item, as it was given.
        value: What the single verb would have returned; None if it failed.
        error: What the single verb would have raised, or what ended the run before this was tried.
        attempts: Requests sent for it.
        seconds: From its beginning to its end.
        skipped: Whether an earlier run had done it already, as the journal says.
        tried: Whether it was begun at all.
    """

    index: int
    source: Any
    value: T | None = None
    error: Exception | None = None
    attempts: int = 0
    seconds: float = 0.0
    skipped: bool = False
    tried: bool = True


@attrs.frozen(kw_only=True)
class BulkReport:
    """
    What became of all items whose outcomes have been handed out.

    Attributes:
        succeeded: Done by this run.
        failed: Tried, and not done.
        skipped: Done by an earlier run, as the journal says.
        not_tried: Left alone because the run ended before.
        bytes: Bytes moved; while a run goes on, also of what is under way.
        seconds: Since the run began.
        total: Items in all, where the input could tell.
        failures: The first hundred outcomes with an error, and with their sources: bytes among them stay in memory as well.
        ended_by: What ended the run before its input did: the error of an item, all others of which would have met it too.
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
