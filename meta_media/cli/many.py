"""Many items: what came of each, in the order of the input, and of all together at the end; also when a signal ends it."""

from __future__ import annotations

import sys
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Generic, TypeVar

import anyio
import attrs

from meta_media.bulk.jobs import split_item
from meta_media.bulk.outcomes import Done, Outcome
from meta_media.bulk.run import BulkOptions, BulkRun
from meta_media.cli.lists import Items
from meta_media.cli.output import Output, as_json, described, paragraph, sentence, shown
from meta_media.cli.running import FAILED, USAGE, LeftReadingError
from meta_media.cli.summaries import Labels, Summary
from meta_media.errors import (
    AccountRestrictedError,
    AuthenticationError,
    ConfigurationError,
    MediaError,
    NetworkError,
    RateLimitError,
    ServerError,
)
from meta_media.transfer.progress import ItemProgress

__all__ = ["Reporter", "in_order"]

T = TypeVar("T")
_AT_ONCE: Final = 4
_NOT_ITS_OWN: Final = AccountRestrictedError | AuthenticationError | NetworkError | RateLimitError | ServerError


@attrs.define
class RepeatedError:
    """Failures in a row that are not about the items: of which kind, and whom it befell after the first."""

    kind: tuple[type[MediaError], str]
    first: str = ""
    last: str = ""
    more: int = 0

    def add(self, name: str) -> None:
        self.first, self.last, self.more = self.first or name, name, self.more + 1


@attrs.define(kw_only=True)
class Reporter(Generic[T]):
    """
    Says what comes of the items of a run.

    Attributes:
        output: Where to.
        words: In which words.
        told: A result's plain form and its JSON object, by what the user calls the item.
        name: What the user calls an item.
        items: Where the items come from, if that may be a list.
    """

    output: Output
    words: Labels
    told: Callable[[str, T], tuple[str, Mapping[str, Any]]]
    name: Callable[[Any], str] = str
    items: Items[Any] | None = None
    _usage: int = 0
    _reused: int = 0
    _twice: int = 0
    _streak: RepeatedError | None = None

    async def tell(self, run: BulkRun[T]) -> None:
        """
        Work through a run, and leave the exit status in `output`.

        What had been finished when a signal came is told all the same: an id that is never told is media that is never deleted.
        """
        interrupted = entered = complete = False
        try:
            async with self.output.bars.of(run, self.items):
                try:
                    async with run:
                        entered = True
                        await self._outcomes(run)
                    complete = True
                except CancelledError:
                    interrupted = True
                    raise
                finally:
                    with anyio.CancelScope(shield=True):
                        if entered:
                            await self._outcomes(run)
        finally:
            with anyio.CancelScope(shield=True):
                if complete or interrupted:  # what else ends a run says enough by itself
                    await self._end(run, interrupted=interrupted)
        if self.items is not None and self.items.waits:
            raise LeftReadingError(self.output.status)

    async def _outcomes(self, run: BulkRun[T]) -> None:
        async for outcome in run:
            await self._outcome(outcome)

    async def _outcome(self, outcome: Outcome[T]) -> None:
        name, error = self.name(outcome.source), outcome.error
        self.output.bars.hide(split_item(outcome.source)[1].get("progress"))
        head = {"index": outcome.index, self.words.key: name}
        how: dict[str, Any] = {"skipped": outcome.skipped, "tried": outcome.tried, "attempts": outcome.attempts}
        how["seconds"] = round(outcome.seconds, 4)
        if outcome.value is not None:
            await self._end_streak()
            self._reused += getattr(outcome.value, "reused", False)
            self._twice += getattr(outcome.value, "maybe_duplicate", False) and not outcome.skipped
            plain, data = self.told(name, outcome.value)
            await self.output.result(plain, {**head, **data, **how})
        elif isinstance(error, MediaError):
            await self._failure(error, name, {**head, **how}, tried=outcome.tried)
        elif error is not None:
            raise error  # a defect of ours

    async def _failure(self, error: MediaError, name: str, facts: Mapping[str, Any], *, tried: bool) -> None:
        if self.output.json:
            await self.output.write(as_json({**facts, "error": described(error)}))
        if tried:
            self._usage += isinstance(error, ConfigurationError)
            await self._complain(error, name)

    async def _complain(self, error: MediaError, name: str) -> None:
        """Say what went wrong. What is not about an item is said once, and then, to how many others it happened."""
        kind = (type(error), error.message)
        if self._streak is not None and self._streak.kind == kind:
            self._streak.add(name)
            return
        await self._end_streak()
        self._streak = RepeatedError(kind) if isinstance(error, _NOT_ITS_OWN) else None
        await self.output.complain(sentence(error, name))

    async def _end_streak(self) -> None:
        streak, self._streak = self._streak, None
        if streak is not None and streak.more:
            others = shown(streak.first) + (f" to {shown(streak.last)}" if streak.more > 1 else "")
            await self.output.complain(f"{others}: the same ({streak.more:,} more)")

    async def _end(self, run: BulkRun[T], *, interrupted: bool) -> None:
        await self._end_streak()
        report, items = run.so_far, self.items
        if not report.ok:
            only_usage = report.failed == self._usage and not (report.succeeded or report.skipped or report.not_tried)
            self.output.status = max(self.output.status, USAGE if only_usage else FAILED)
        tally = Summary(
            report=report,
            total=report.total if items is None else items.total,
            reused=self._reused,
            twice=self._twice,
            interrupted=interrupted,
            unread=items is not None and items.unread,
        )
        if (stopped := tally.stopped(self.words)) is not None:
            await self.output.complain(stopped)
        for line in tally.lines(self.words):
            await self.output.remark(line)
        if tally.many and self.words.done and sys.stderr.isatty():  # elsewhere, nothing has scrolled away
            for source, error in tally.failures():
                await self.output.remark(paragraph(f"✗ {sentence(error, self.name(source))}", to="stderr"))
            if tally.further:
                await self.output.remark(f"  … and {tally.further:,} more")


@attrs.frozen
class _Work(Generic[T]):
    """One verb for each item, as a `bulk.Job`."""

    work: Callable[[Any], Awaitable[T]]

    async def open(self) -> None:
        """Do nothing."""

    async def aclose(self) -> None:
        """Do nothing."""

    async def __call__(self, item: Any, move: ItemProgress) -> Done[T]:
        """Do it."""
        return Done(value=await self.work(item))

    def is_fatal(self, error: Exception) -> bool:
        """Go on: they are few."""
        return False


def in_order(items: Iterable[Any], work: Callable[[Any], Awaitable[T]]) -> BulkRun[T]:
    """Make a run that does something with a few items at a time, and gives the outcomes in their order."""
    return BulkRun(items, _Work(work), BulkOptions(concurrency=_AT_ONCE, in_order=True))
