"""
Progress bars, drawn by a thread of their own on standard error.

The event loop only leaves numbers behind. Whatever else is written to the terminal meanwhile makes the bars step aside.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TextIO

import anyio
from rich.console import Console, Group
from rich.constrain import Constrain
from rich.filesize import decimal
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

import meta_media
from meta_media.bulk.caught import Caught
from meta_media.transfer.threads import run_in_thread, submit

if TYPE_CHECKING:
    from meta_media.cli.lists import Items

__all__ = ["Bar", "Bars"]

_NAME: Final = 24  # columns for a file's name, so that a line fits in 80
_SHORT_NAME: Final = 12
_NARROW: Final = 64  # columns of a terminal that has room for a name, a bar and a number
_MARGIN: Final = 3  # columns where a terminal can show ^C without breaking the line
_SPARED: Final = 4  # lines of a terminal that are not for the bars of transfers
_REFRESH: Final = 10  # times a second
_TOGETHER: Final = 0.1  # seconds in which lines come together before the bars step aside for them


class Bar:
    """
    The progress of one transfer, and the callback that is told of it.

    Attributes:
        name: What is transferred.
        action: What is being done, shown before the name.
    """

    def __init__(self, name: str, action: str = "↑") -> None:
        self.name = name
        self.action = action
        self.transferred = 0
        self.total: int | None = None

    def label(self, width: int) -> str:
        """Say what stands before the bar."""
        name = self.name if len(self.name) <= width else self.name[: width - 1] + "…"
        return f"{self.action} {name}"

    def __call__(self, progress: meta_media.Progress) -> None:
        """Note how far the transfer is."""
        self.transferred, self.total = progress.transferred, progress.total


class _Followed(Bar):
    """A bar that appears when its transfer begins to move, and goes when that is whole, or when `Bars.hide` is told."""

    def __init__(self, name: str, action: str, bars: Bars) -> None:
        super().__init__(name, action)
        self._bars = bars

    def __call__(self, progress: meta_media.Progress) -> None:
        super().__call__(progress)
        if self.transferred == self.total:
            self._bars.hide(self)
        else:
            self._bars.show(self)


class Bars:
    """
    The bars of one command, as `async with`; none at all where nobody watches.

    Args:
        wanted: Whether to draw any. They appear on a terminal only.
        items: How many transfers there will be.

    Attributes:
        shown: Whether they are drawn.
    """

    def __init__(self, *, wanted: bool, items: int = 1) -> None:
        console = Console(stderr=True)
        self._console = console
        self.shown = wanted and sys.stderr.isatty() and not console.is_dumb_terminal
        self._narrow = console.width < _NARROW
        name = TextColumn("{task.description}", markup=False)
        moved = TextColumn("{task.fields[moved]}", markup=False)
        each: tuple[ProgressColumn, ...] = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        all_of_them: tuple[ProgressColumn, ...] = (moved, TimeRemainingColumn())
        if self._narrow:
            each, all_of_them = (TaskProgressColumn(),), ()
        self._transfers = Progress(name, BarColumn(None), *each, console=console, expand=True)
        self._overall = Progress(
            name, BarColumn(None), MofNCompleteColumn(), *all_of_them, console=console, expand=True
        )
        self._overall_id = self._overall.add_task("all", total=None, moved="", visible=False)
        self._items = items
        self._run: meta_media.BulkRun[Any] | None = None
        self._counted: Items[Any] | None = None
        self._bars: dict[Bar, None] = {}
        self._ids: dict[Bar, TaskID] = {}
        self._ended = 0
        self._making_way = threading.Lock()
        self._waiting: list[tuple[TextIO, str]] = []
        self._soon: threading.Timer | None = None
        self._failure: Exception | None = None
        self._live: Live | None = None

    async def __aenter__(self) -> Self:
        if self.shown:
            try:
                await run_in_thread(self._draw)
            except BaseException:
                await self._stop()
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.shown:
            await self._stop()

    async def _stop(self) -> None:
        with anyio.CancelScope(shield=True):
            await run_in_thread(self._end)

    @asynccontextmanager
    async def of(self, run: meta_media.BulkRun[Any], items: Items[Any] | None) -> AsyncIterator[None]:
        """Show how far a run is, for as long as a block lasts; its items are counted beside it where that is possible."""
        self._run, self._counted = run, items
        async with self:
            if items is not None and items.total is None and self.shown:
                submit(items.count)
            try:
                yield
            finally:
                if items is not None:
                    items.stop_counting()

    @contextlib.contextmanager
    def bar(self, name: str, action: str = "↑") -> Iterator[Bar]:
        """Show a bar while a transfer lasts."""
        bar = Bar(name, action)
        with self.showing(bar):
            yield bar

    @contextlib.contextmanager
    def showing(self, bar: Bar) -> Iterator[None]:
        """Show a bar while a block lasts."""
        self._bars[bar] = None
        try:
            yield
        finally:
            self.hide(bar)
            self._ended += 1

    def following(self, name: str) -> Bar:
        """Make the bar of a download that is known by its progress only."""
        return _Followed(name, "↓", self)

    def show(self, bar: Bar) -> None:
        """Show a bar, if it is not shown already."""
        self._bars[bar] = None

    def hide(self, bar: Bar | None) -> None:
        """Show a bar no longer, if it was shown."""
        if bar is not None:
            self._bars.pop(bar, None)

    def write(self, stream: TextIO, text: str) -> None:
        """Write a line where bars may be, soon after; it blocks, and belongs on a thread."""
        with self._making_way:
            if self._live is None or not stream.isatty():
                _print(stream, text)
                return
            self._waiting.append((stream, text))
            if self._soon is None:
                self._soon = threading.Timer(_TOGETHER, self._step_aside)
                self._soon.daemon = True
                self._soon.start()
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _step_aside(self) -> None:
        """Write what has come together: to make way costs much more than a line."""
        with self._making_way, Caught() as caught:
            self._soon = None
            if self._erase():
                try:
                    self._print_waiting()
                finally:
                    self._draw()
        self._failure = caught.error or self._failure

    def _print_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for stream, text in waiting:
            _print(stream, text)

    def _draw(self) -> None:
        """Draw the bars below what is there; one `Live` cannot be used twice, because it would erase what it drew before."""
        self._live = Live(
            get_renderable=self._render,
            console=self._console,
            transient=True,
            refresh_per_second=_REFRESH,
            redirect_stdout=False,  # or results would end on standard error
            redirect_stderr=False,
        )
        self._live.start(refresh=True)

    def _erase(self) -> bool:
        """Take the bars away, and tell whether there were any."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()
        return live is not None

    def _end(self) -> None:
        with self._making_way:
            self._erase()
            self._print_waiting()

    def _render(self) -> Constrain:
        """Runs on the drawing thread, under its lock, and is the only one to touch rich's tasks."""
        bars = list(self._bars)[: max(1, self._console.height - _SPARED)]
        for bar in bars:
            label = bar.label(_SHORT_NAME if self._narrow else _NAME)
            if bar not in self._ids:
                self._ids[bar] = self._transfers.add_task(label, total=None)
            self._transfers.update(self._ids[bar], description=label, completed=bar.transferred, total=bar.total)
        for bar in [known for known in self._ids if known not in bars]:
            self._transfers.remove_task(self._ids.pop(bar))
        self._render_overall()
        lines = Group(self._transfers.get_renderable(), self._overall.get_renderable())
        return Constrain(lines, self._console.width - _MARGIN)

    def _render_overall(self) -> None:
        done, moved = self._ended, ""
        total: int | None = self._items
        if self._run is not None:
            report = self._run.so_far
            done = report.succeeded + report.skipped + report.failed + report.not_tried
            total = report.total if self._counted is None else self._counted.total
            if report.bytes > 0 and report.seconds:
                moved = f"{decimal(report.bytes)}  {decimal(int(report.bytes / report.seconds))}/s"
        self._overall.update(self._overall_id, completed=done, total=total, moved=moved, visible=total != 1)


def _print(stream: TextIO, text: str) -> None:
    stream.write(text + "\n")
    stream.flush()
