"""
Progress bars, drawn by a thread of their own on standard error.

The event loop only leaves numbers behind. Whatever else is written to the terminal meanwhile makes the bars step aside.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self, TextIO

import anyio
from rich.console import Console, Group
from rich.constrain import Constrain
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

import meta_media

from ..files import in_thread

__all__ = ["Bar", "Bars"]

_NAME: Final = 24  # columns for a file's name, so that a line fits in 80
_MARGIN: Final = 3  # columns where a terminal can show ^C without breaking the line
_REFRESH: Final = 10  # times a second


class Bar:
    """
    The progress of one transfer, and the callback that is told of it.

    Attributes:
        action: What is being done, shown before the name.
    """

    def __init__(self, name: str, action: str) -> None:
        self._name = name if len(name) <= _NAME else name[: _NAME - 1] + "…"
        self.action = action
        self.transferred = 0
        self.total: int | None = None

    @property
    def label(self) -> str:
        """What stands before the bar."""
        return f"{self.action} {self._name}"

    def __call__(self, progress: meta_media.Progress) -> None:
        """Note how far the transfer is."""
        self.transferred, self.total = progress.transferred, progress.total


class Bars:
    """
    The bars of one command, as `async with`; none at all where nobody watches.

    Args:
        wanted: Whether to draw any. They appear on a terminal only.
        items: How many transfers there will be.
    """

    def __init__(self, *, wanted: bool, items: int = 1) -> None:
        console = Console(stderr=True)
        self._console = console
        name = TextColumn("{task.description}", markup=False)
        self._shown = wanted and sys.stderr.isatty() and not console.is_dumb_terminal
        self._transfers = Progress(
            name,
            BarColumn(None),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            expand=True,
        )
        self._overall = Progress(name, BarColumn(None), MofNCompleteColumn(), console=console, expand=True)
        self._overall_id = self._overall.add_task("all", total=items, visible=items > 1)
        self._bars: dict[Bar, None] = {}
        self._ids: dict[Bar, TaskID] = {}
        self._ended = 0
        self._making_way = threading.Lock()
        self._live = Live(
            get_renderable=self._render,
            console=console,
            transient=True,
            refresh_per_second=_REFRESH,
            redirect_stdout=False,  # or results would end on standard error
            redirect_stderr=False,
        )

    async def __aenter__(self) -> Self:
        if self._shown:
            try:
                await in_thread(functools.partial(self._live.start, refresh=True))
            except BaseException:
                await self._stop()
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._shown:
            await self._stop()

    async def _stop(self) -> None:
        with anyio.CancelScope(shield=True):
            await in_thread(self._live.stop)

    @contextlib.contextmanager
    def bar(self, name: str, action: str = "↑") -> Iterator[Bar]:
        """Show a bar while a transfer lasts."""
        bar = Bar(name, action)
        self._bars[bar] = None
        try:
            yield bar
        finally:
            del self._bars[bar]
            self._ended += 1

    def write(self, stream: TextIO, text: str) -> None:
        """Write a line where bars may be; it blocks, and belongs on a thread."""
        with self._making_way:
            aside = self._live.is_started and stream.isatty()
            if aside:
                self._live.stop()
            try:
                stream.write(text + "\n")
                stream.flush()
            finally:
                if aside:
                    self._live.start(refresh=True)

    def _render(self) -> Constrain:
        """Runs on the drawing thread, under its lock, and is the only one to touch rich's tasks."""
        bars = list(self._bars)
        for bar in bars:
            if bar not in self._ids:
                self._ids[bar] = self._transfers.add_task(bar.label, total=None)
            self._transfers.update(self._ids[bar], description=bar.label, completed=bar.transferred, total=bar.total)
        for bar in [known for known in self._ids if known not in bars]:
            self._transfers.remove_task(self._ids.pop(bar))
        self._overall.update(self._overall_id, completed=self._ended)
        lines = Group(self._transfers.get_renderable(), self._overall.get_renderable())
        return Constrain(lines, self._console.width - _MARGIN)
