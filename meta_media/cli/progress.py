"""
Progress bars on standard error: one for each transfer in progress, and one for the whole run.

The event loop only updates numbers. A thread of rich's reads them and draws.
"""

from __future__ import annotations

import sys
from typing import Final, Self, TextIO

import anyio
import rich.progress as rich
from rich.console import Console, RenderableType
from rich.constrain import Constrain
from rich.filesize import decimal
from rich.text import Text

from meta_media import Progress
from meta_media.transfer.threads import run_in_thread

__all__ = ["Bar", "Bars"]

_NARROW_WIDTH: Final = 64  # columns; below that, a line has no room for speed and remaining time
_NAME_LENGTH: Final = 24  # columns for a file's name
_RIGHT_MARGIN: Final = 3  # columns, in which a terminal can echo ^C without breaking the line


class Bars(rich.Progress):
    """
    The progress bars of one command, as `async with`. They are drawn on a terminal only, and disappear at the end.

    Args:
        wanted: Whether to draw them.
    """

    def __init__(self, *, wanted: bool) -> None:
        self._terminal = console = Console(stderr=True)
        wide = console.width >= _NARROW_WIDTH
        self._name_length = _NAME_LENGTH if wide else _NAME_LENGTH // 2
        super().__init__(
            rich.TextColumn("{task.description}", markup=False),
            rich.BarColumn(None),
            _Amount(),
            *((_Speed(), rich.TimeRemainingColumn()) if wide else ()),
            console=console,
            expand=True,
            transient=True,
            redirect_stdout=False,  # redirected, results would end on standard error
            redirect_stderr=False,
            disable=not wanted or not sys.stderr.isatty() or console.is_dumb_terminal,
        )
        self._overall = self.add_task("all", total=None, visible=False, moved=0)

    async def __aenter__(self) -> Self:
        try:
            await run_in_thread(self.start)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.CancelScope(shield=True):
            await run_in_thread(self.stop)

    def bar(self, name: str, action: str = "↑") -> Bar | None:
        """Make the progress callback of one transfer; None where no bars are drawn."""
        short = name if len(name) <= self._name_length else name[: self._name_length - 1] + "…"
        return None if self.disable else Bar(self, f"{action} {short}")

    def count(self, done: int, total: int | None) -> None:
        """Update the bar of the whole run, in items. A run of one item has none."""
        self.update(self._overall, completed=done, total=total, visible=total != 1)

    def move(self, size: int) -> None:
        """Add bytes to those of the whole run; a transfer that starts again takes its bytes back."""
        self.update(self._overall, moved=self._tasks[self._overall].fields["moved"] + size)

    def write(self, stream: TextIO, text: str) -> None:
        """Write a line, above the bars if they share its terminal. This blocks, so it runs on a thread."""
        if self.live.is_started and stream.isatty():
            self.console.out(text, highlight=False)
        else:
            stream.write(text + "\n")
            stream.flush()

    def refresh(self) -> None:
        """Draw nothing: `add_task` would draw at once, and block the event loop."""

    def get_renderable(self) -> RenderableType:
        """Return what to draw."""
        return Constrain(super().get_renderable(), self._terminal.width - _RIGHT_MARGIN)


class Bar:
    """A transfer's progress callback. Its bar appears with the first byte and goes with the last one, or by `hide`."""

    def __init__(self, bars: Bars, label: str) -> None:
        self._bars = bars
        self._label = label
        self._task: rich.TaskID | None = None
        self._transferred = 0

    def __call__(self, now: Progress) -> None:
        """Update the bar."""
        self._bars.move(now.transferred - self._transferred)
        self._transferred = now.transferred
        if self._task is None:
            self._task = self._bars.add_task(self._label, total=now.total)
        self._bars.update(self._task, completed=now.transferred, total=now.total)
        if now.transferred == now.total:
            self.hide()

    def hide(self) -> None:
        """Remove the bar, if it is shown."""
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None


class _Amount(rich.DownloadColumn):
    """Bytes of a transfer; items and bytes of the whole run."""

    def render(self, task: rich.Task) -> Text:
        """Return the text."""
        if not task.fields:
            return super().render(task)
        total = "?" if task.total is None else f"{task.total:.0f}"
        moved = f" {decimal(moved)}" if (moved := task.fields["moved"]) > 0 else ""
        return Text(f"{task.completed:.0f}/{total}{moved}", style="progress.download")


class _Speed(rich.TransferSpeedColumn):
    """Bytes per second: of a transfer now, of the whole run on average."""

    def render(self, task: rich.Task) -> Text:
        """Return the text."""
        if not task.fields:
            return super().render(task)
        speed = int(task.fields["moved"] / (task.elapsed or 1))
        return Text(f"{decimal(speed)}/s" if speed > 0 else "", style="progress.data.speed")
