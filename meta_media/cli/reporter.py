"""What a run prints: each outcome in the order of the input, and a summary at the end, also when a signal ends it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, Generic, TypeVar

import anyio
import attrs
from rich.filesize import decimal

from meta_media import BulkReport, BulkRun, MediaError, Outcome
from meta_media.bulk.ending import split_item
from meta_media.bulk.run import BulkOptions
from meta_media.cli.items import Items
from meta_media.cli.output import FAILED, USAGE, ExitNowError, Output, as_json, described, paragraph, sentence, shown
from meta_media.errors import (
    AccountRestrictedError,
    AuthenticationError,
    ConfigurationError,
    NetworkError,
    RateLimitError,
    ServerError,
)
from meta_media.transfer.progress import ItemProgress
from meta_media.transfer.threads import submit

__all__ = ["Labels", "Reporter", "Summary", "in_order"]

T = TypeVar("T")
_CONCURRENCY: Final = 4  # items at a time of a command that takes only a few
_LINE_COUNT: Final = 10  # items up to which the summary is one line instead of a table
_FAILURE_COUNT: Final = 10  # failures that are repeated below the table
_NOT_ABOUT_THE_ITEM: Final = AccountRestrictedError | AuthenticationError | NetworkError | RateLimitError | ServerError


@attrs.frozen(kw_only=True)
class Labels:
    """The nouns and verbs of a command."""

    key: str  # an item, in JSON
    items: str = "items"
    done: str = ""  # past participle of the command's verb; empty for a command without a summary
    again: str = ""  # how to continue after an interruption


@attrs.frozen(kw_only=True)
class Summary:
    """The result of a run as text."""

    report: BulkReport  # counts of the outcomes that were printed
    total: int | None = None  # number of items, if it is known
    reused: int = 0  # successes that came from the library
    twice: int = 0  # files uploaded again although an earlier upload may have arrived
    unread: bool = False  # whether a list or a folder was not read to its end

    @property
    def printed(self) -> int:
        """Number of items whose outcome was printed."""
        report = self.report
        return report.succeeded + report.skipped + report.failed + report.not_tried

    @property
    def known(self) -> int:
        """Number of items, as far as it is known."""
        return max(self.printed, self.total or 0)

    @property
    def open_ended(self) -> bool:
        """Whether there may be more items than are known."""
        return self.unread and self.total is None

    @property
    def long(self) -> bool:
        """Whether there are too many items for one line."""
        return self.known > _LINE_COUNT

    def lines(self, labels: Labels) -> Iterator[str]:
        """Yield the lines of the summary. A single item has none."""
        if self.long:
            yield from self._table(labels)
        elif self.known > 1:
            yield self._line(labels)
        elif self.known == 0 and not self.unread:
            yield f"there was nothing to do: no {labels.items}"

    def stopped(self, labels: Labels) -> str | None:
        """Return a sentence about the items that were not tried because all of them would fail; None if there are none."""
        if self.report.ended_by is None or not (self.report.not_tried or self.unread):
            return None
        left = f"{self.known - self.printed + self.report.not_tried:,} of {self.known:,} {labels.items}"
        if self.open_ended:
            left = f"the rest of the {labels.items}"
        return f"stopped, because the others would meet the same error: {left} were not tried"

    def _line(self, labels: Labels) -> str:
        report = self.report
        of = "" if self.open_ended else f" of {self.known}"
        line = f"{report.succeeded + report.skipped}{of} {labels.items} {labels.done}"
        if report.skipped:
            line += f", {report.skipped} of them in the journal already"
        if self.reused:
            line += f", {self.reused} of them reused"
        return line + (f", {self.twice} of them perhaps twice" if self.twice else "")

    def _table(self, labels: Labels) -> Iterator[str]:
        report, seconds = self.report, self.report.seconds
        rows = [
            (labels.items, f"{self.known:,}" + ("+" if self.open_ended else "")),
            (labels.done, f"{report.succeeded - self.reused:,}"),
            ("reused", f"{self.reused:,}" if self.reused else ""),
            ("skipped", f"{report.skipped:,}  in the journal already" if report.skipped else "0"),
            ("failed", f"{report.failed:,}"),
            ("not tried", f"{self.known - self.printed + report.not_tried:,}"),
            ("perhaps twice", f"{self.twice:,}" if self.twice else ""),
            ("bytes", decimal(report.bytes) if report.bytes else ""),
            ("time", f"{seconds:.1f} s" if seconds < 100 else str(timedelta(seconds=round(seconds)))),
            ("rate", self._rate(labels)),
        ]
        yield from (f" {name:<14} {value}" for name, value in rows if value)

    def _rate(self, labels: Labels) -> str:
        report = self.report
        if not report.seconds or not report.succeeded:
            return ""
        rate = f"{report.succeeded / report.seconds:,.1f} {labels.items}/s"
        return rate + (f", {decimal(int(report.bytes / report.seconds))}/s" if report.bytes else "")


@attrs.define
class _RepeatedError:
    """Consecutive errors with one cause that is not the item. The first is printed; the others are named here."""

    kind: tuple[type[MediaError], str]
    first: str = ""
    last: str = ""
    more: int = 0


@attrs.define
class Reporter(Generic[T]):
    """Prints the outcomes of a run. `render` makes a result's text and JSON object of the item's name and the result."""

    output: Output
    labels: Labels
    render: Callable[[str, T], tuple[str, Mapping[str, Any]]]
    name: Callable[[Any], str] = str
    items: Items | None = None  # if a list or a folder may be among them
    aligned: bool = False  # whether a failure is an empty line, so that line N is about item N
    _usage: int = 0  # errors that are wrong usage
    _reused: int = 0
    _twice: int = 0
    _repeated: _RepeatedError | None = None

    async def print(self, run: BulkRun[T]) -> int:
        """
        Execute a run, print its outcomes and a summary, and return the exit status.

        A signal ends the run. What was finished by then is printed all the same: media whose id is lost cannot be deleted.
        """
        interrupted = entered = complete = False
        try:
            async with self.output.bars:
                self._count(run)
                if self.items is not None and self.items.total is None and not self.output.bars.disable:
                    submit(self.items.count)
                try:
                    async with run:
                        entered = True
                        await self._outcomes(run)
                    complete = True
                except asyncio.CancelledError:
                    interrupted = True
                    raise
                finally:
                    if self.items is not None:
                        self.items.stop_counting()
                    with anyio.CancelScope(shield=True), suppress(ConfigurationError):  # it was left before its end
                        if entered:
                            await self._outcomes(run)
        finally:
            with anyio.CancelScope(shield=True):
                if complete or interrupted:  # any other end is an error with a sentence of its own
                    await self._end(run, interrupted=interrupted)
        if self.items is not None and self.items.may_block:
            raise ExitNowError(self.output.status)
        return self.output.status

    def _count(self, run: BulkRun[T]) -> None:
        summary = self._summary(run)
        self.output.bars.count(summary.printed, summary.total)

    def _summary(self, run: BulkRun[T]) -> Summary:
        report, items = run.so_far, self.items
        total, unread = (report.total, False) if items is None else (items.total, items.unread)
        return Summary(report=report, total=total, reused=self._reused, twice=self._twice, unread=unread)

    async def _outcomes(self, run: BulkRun[T]) -> None:
        async for outcome in run:
            self._count(run)
            await self._outcome(outcome)

    async def _outcome(self, outcome: Outcome[T]) -> None:
        name, error = self.name(outcome.source), outcome.error
        if (bar := split_item(outcome.source)[1].get("progress")) is not None:
            bar.hide()
        facts: dict[str, Any] = {"index": outcome.index, self.labels.key: name}
        how: dict[str, Any] = {"skipped": outcome.skipped, "tried": outcome.tried, "attempts": outcome.attempts}
        how["seconds"] = round(outcome.seconds, 4)
        if outcome.value is not None:
            if not hasattr(outcome.value, "attempts"):
                del how["attempts"]  # which only the value has
            await self._end_repetition()
            self._reused += getattr(outcome.value, "reused", False)
            self._twice += getattr(outcome.value, "maybe_duplicate", False) and not outcome.skipped
            text, data = self.render(name, outcome.value)
            await self.output.result(text, {**facts, **data, **how})
        elif isinstance(error, MediaError):
            if self.output.json:
                await self.output.write(as_json({**facts, **how, "error": described(error)}))
            elif self.aligned:
                await self.output.result("", {})
            if outcome.tried:
                self._usage += isinstance(error, ConfigurationError)
                await self._complain(error, name)
        elif error is not None:
            raise error  # a defect of this package

    async def _complain(self, error: MediaError, name: str) -> None:
        """Print an error. One that is not about the item is printed once, and later the number of its repetitions."""
        kind = (type(error), error.message)
        if self._repeated is not None and self._repeated.kind == kind:
            self._repeated.first = self._repeated.first or name
            self._repeated.last = name
            self._repeated.more += 1
            return
        await self._end_repetition()
        self._repeated = _RepeatedError(kind) if isinstance(error, _NOT_ABOUT_THE_ITEM) else None
        await self.output.complain(sentence(error, name))

    async def _end_repetition(self) -> None:
        repeated, self._repeated = self._repeated, None
        if repeated is not None and repeated.more:
            others = shown(repeated.first) + (f" to {shown(repeated.last)}" if repeated.more > 1 else "")
            await self.output.complain(f"{others}: the same error ({repeated.more:,} more)")

    async def _end(self, run: BulkRun[T], *, interrupted: bool) -> None:
        await self._end_repetition()
        summary, report = self._summary(run), run.so_far
        if not report.ok:
            only_usage = report.failed == self._usage == summary.printed
            self.output.status = max(self.output.status, USAGE if only_usage else FAILED)
        if (stopped := summary.stopped(self.labels)) is not None:
            await self.output.complain(stopped)
        if not self.labels.done:
            return
        for line in summary.lines(self.labels):
            await self.output.remark(line)
        if self.items is not None and (links := len(self.items.skipped_links)):
            await self.output.remark(
                f"skipped {links:,} link{'s' * (links > 1)} that lead{'s' * (links == 1)} out of the folder"
            )
        if interrupted and self.labels.again:
            await self.output.remark(self.labels.again)
        if summary.long and sys.stderr.isatty():  # a file or a pipe has them above
            await self._repeat_failures(report)

    async def _repeat_failures(self, report: BulkReport) -> None:
        """Print the first failures again, which may have scrolled away."""
        failed = [(one.source, one.error) for one in report.failures if one.tried]
        for source, error in failed[:_FAILURE_COUNT]:
            if isinstance(error, MediaError):
                await self.output.remark(paragraph(f"✗ {sentence(error, self.name(source))}", sys.stderr))
        if report.failed > _FAILURE_COUNT:
            await self.output.remark(f"  … and {report.failed - _FAILURE_COUNT:,} more")


@attrs.frozen
class _Work(Generic[T]):
    """A bulk job that calls a function with each item."""

    work: Callable[[Any], Awaitable[T]]

    async def __call__(self, item: Any, move: ItemProgress) -> T:
        return await self.work(item)

    def is_fatal(self, error: Exception) -> bool:
        return False  # there are only a few items, and each error is printed

    async def open(self) -> None: ...

    async def aclose(self) -> None: ...


def in_order(items: Iterable[Any], work: Callable[[Any], Awaitable[T]]) -> BulkRun[T]:
    """Make a run that calls a function with a few items at a time, and has the outcomes in the items' order."""
    return BulkRun(items, _Work(work), BulkOptions(concurrency=_CONCURRENCY, in_order=True))
