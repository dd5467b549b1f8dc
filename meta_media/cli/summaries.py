"""What became of many items together, in a line or in a table that fits any terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs
from rich.filesize import decimal

from meta_media.bulk.outcomes import BulkReport
from meta_media.errors import MediaError

__all__ = ["Labels", "Summary"]

_FEW: Final = 10  # items after which a line becomes a table
_SHOWN: Final = 10  # failures that are said again below it


@attrs.frozen(kw_only=True)
class Labels:
    """
    What a command calls things.

    Attributes:
        key: An item, in JSON.
        items: Several of them.
        done: What has been done to them; empty where nothing is to be said of all together.
        again: How to go on after an interruption.
    """

    key: str
    items: str = "items"
    done: str = ""
    again: str = ""


@attrs.frozen(kw_only=True)
class Summary:
    """
    A run's report, and what only the command line knows.

    Attributes:
        report: What became of the items that were told.
        total: How many there are, where that is known.
        reused: How many of those that succeeded were in the library.
        twice: How many were uploaded again although they may have arrived.
        interrupted: Whether a signal ended it.
        unread: Whether there may be more, in a list or in folders.
    """

    report: BulkReport
    total: int | None = None
    reused: int = 0
    twice: int = 0
    interrupted: bool = False
    unread: bool = False

    @property
    def told(self) -> int:
        """How many items are accounted for."""
        report = self.report
        return report.succeeded + report.skipped + report.failed + report.not_tried

    @property
    def open_ended(self) -> bool:
        """Whether nobody knows how many there are."""
        return self.unread and self.total is None

    @property
    def many(self) -> bool:
        """Whether they are more than one looks through."""
        return max(self.told, self.total or 0) > _FEW

    def lines(self, words: Labels) -> Iterator[str]:
        """Say it to people; of a single item there is nothing to say."""
        single = max(self.told, self.total or 0) == 1
        if not words.done or (single and not self.interrupted):
            return
        if self.told == 0 and not self.interrupted:
            yield f"there was nothing to do: no {words.items}"
        elif self.many:
            yield from self._table(words)
        elif not single:
            yield self._line(words)
        if self.interrupted and words.again:
            yield words.again

    def stopped(self, words: Labels) -> str | None:
        """Say that the run ended before its input did, because of what every item would have met."""
        if self.report.ended_by is None or not (self.report.not_tried or self.unread):
            return None
        known = max(self.told, self.total or 0)
        left = f"{known - self.told + self.report.not_tried:,} of {known:,} {words.items}"
        if self.open_ended:
            left = f"the rest of the {words.items}"
        return f"stopped, because the others would meet the same: {left} were not tried"

    def _line(self, words: Labels) -> str:
        report = self.report
        of = "" if self.open_ended else f" of {max(self.told, self.total or 0)}"
        line = f"{report.succeeded + report.skipped}{of} {words.items} {words.done}"
        if report.skipped:
            line += f", {report.skipped} of them by an earlier run"
        if self.reused:
            line += f", {self.reused} of them reused"
        return line + (f", {self.twice} of them perhaps twice" if self.twice else "")

    def _table(self, words: Labels) -> Iterator[str]:
        report = self.report
        left = max(self.told, self.total or 0) - self.told + report.not_tried
        rows = [
            (words.items, f"{max(self.told, self.total or 0):,}" + ("+" if self.open_ended else "")),
            (words.done, f"{report.succeeded - self.reused:,}"),
            ("reused", f"{self.reused:,}" if self.reused else ""),
            ("skipped", f"{report.skipped:,}  done by an earlier run" if report.skipped else "0"),
            ("failed", f"{report.failed:,}"),
            ("not tried", f"{left:,}"),
            ("perhaps twice", f"{self.twice:,}" if self.twice else ""),
            ("bytes", decimal(report.bytes) if report.bytes else ""),
            ("time", _duration(report.seconds)),
            ("rate", self._rate(words)),
        ]
        yield from (f" {name:<14} {value}" for name, value in rows if value)

    def _rate(self, words: Labels) -> str:
        report = self.report
        if not report.seconds or not report.succeeded:
            return ""
        rate = f"{report.succeeded / report.seconds:,.1f} {words.items}/s"
        return rate + (f", {decimal(int(report.bytes / report.seconds))}/s" if report.bytes else "")

    def failures(self) -> Iterator[tuple[object, MediaError]]:
        """Give the first failures again, which may have scrolled away."""
        failed = [one for one in self.report.failures if one.tried and isinstance(one.error, MediaError)]
        yield from ((one.source, one.error) for one in failed[:_SHOWN] if isinstance(one.error, MediaError))

    @property
    def further(self) -> int:
        """How many failures `failures` leaves out."""
        return max(0, self.report.failed - _SHOWN)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02} min"
