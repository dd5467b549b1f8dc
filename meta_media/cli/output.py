"""
What a command prints: results on standard output, errors and remarks on standard error, each on one harmless line.

The progress bars are on standard error: one for each transfer in progress, and one for the whole run. The event loop only
updates numbers. A thread of rich's reads them and draws.
"""

from __future__ import annotations

import json
import math
import re
import sys
import textwrap
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Self, TextIO

import anyio
import attrs
import rich.progress as rich
from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.filesize import decimal
from rich.text import Text

from meta_media import MediaError, Progress
from meta_media.errors import ConfigurationError
from meta_media.protocol.secrets import TOKEN, hide_query
from meta_media.transfer.threads import run_in_thread

__all__ = [
    "FAILED",
    "FINE",
    "NAME_LENGTH",
    "USAGE",
    "Bar",
    "Bars",
    "ExitNowError",
    "Output",
    "as_json",
    "described",
    "paragraph",
    "printable",
    "result_object",
    "sentence",
    "shown",
    "status_of",
]

FINE: Final = 0  # exit statuses
FAILED: Final = 1
USAGE: Final = 2
_NARROW_WIDTH: Final = 64  # columns; below that, a bar has no room for speed and remaining time
_SHORT_WIDTH: Final = 56  # columns; below that, it has no room for bytes
NAME_LENGTH: Final = 24  # columns for a file's name
_RIGHT_MARGIN: Final = 3  # columns, in which a terminal can echo ^C without breaking the line
# What errors advise to users of Python, and what it is on the command line
_ADVICE: Final = tuple(
    (re.compile(python), ours)
    for python, ours in (
        (r"repackage=True \(upload --repackage\)", "--repackage"),
        (r"""mime_type="([^"]*)\"""", r"--mime-type \1"),
        (r"\bkind=(?=\")", "--kind "),
        (r"(?<=pass its )(?:real )?mime_type", "type as --mime-type"),
        (r"^(caption|filename|voice) is for ", r"--\1 is for "),
        (r"^uploads_per_second must", "--rate must"),
        (r"^ttl must be a timedelta (.*), not .*", r"--ttl must be \1, such as 12h or 30d"),
        (r"Recipient\.group\(id\)", "a group id with --group"),
        (r"; a str is a path: for text, .*", ""),
        (r"; pass a file, or all files of the folder: .*", "; pass the files in it"),
        (r", or pass an async function that returns one", ""),
    )
)


class ExitNowError(Exception):
    """Ends the process without waiting for threads: one may be reading a terminal or a pipe that stays silent."""

    def __init__(self, status: int) -> None:
        super().__init__(f"exit with status {status}")
        self.status = status


def printable(text: str) -> str:
    """Escape characters that move the cursor, hide text or break the line: names and responses are untrusted."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(name: str) -> str:
    """Return the name of an item, which may be a signed URL or a token, as one harmless line."""
    return printable(TOKEN.sub("EAA...", _unsigned(name)))


def sentence(error: MediaError, item: str | None = None) -> str:
    """Return an error as one line that names its item."""
    text, name = shown(str(error)), shown(item or "")
    for python, ours in _ADVICE:
        text = python.sub(ours, text)
    return text if not name or name in text else f"{name}: {text}"


def described(error: MediaError) -> dict[str, Any]:
    """Return an error as a JSON object: its class, its sentence and its attributes."""
    known = {name: value for name, value in vars(error).items() if value is not None and not name.startswith("_")}
    nested = {name: described(value) for name, value in known.items() if isinstance(value, MediaError)}
    return {"type": type(error).__name__, **known, **nested, "message": str(error)}


def _unsigned(text: str) -> str:
    """Remove the queries of all URLs: a signed one may have been passed where an id belongs."""
    return re.sub(r"(://[^\s?'\"]*\?)[^\s'\"]+", r"\1...", text)


def as_json(data: Mapping[str, Any]) -> str:
    """Write an object on one line, in ASCII, which every terminal shows unchanged."""
    return _unsigned(json.dumps({name: value for name, value in data.items() if value is not None}, default=_plain))


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def result_object(result: attrs.AttrsInstance) -> dict[str, Any]:
    """Return a result as a JSON object: Meta's further fields beside the known ones, and URLs without their signature."""
    fields = attrs.asdict(result)
    if fields.get("url"):
        fields["url"] = hide_query(fields["url"])
    extra = fields.pop("extra", {})
    return {**extra, **{name: value for name, value in fields.items() if name not in {"media_id", "received_at"}}}


def status_of(error: MediaError) -> int:
    """Return the exit status of an error."""
    return USAGE if isinstance(error, ConfigurationError) else FAILED


@attrs.define(kw_only=True)
class Output:
    """The results and errors of one command."""

    json: bool
    quiet: bool  # no remarks
    bars: Bars  # lines are written above them
    results: TextIO = attrs.field(factory=lambda: sys.stdout)  # not if standard output carries a file
    status: int = 0  # the exit status so far

    async def result(self, plain: str, data: Mapping[str, Any]) -> None:
        """Write a result, as text or as JSON. Where it cannot be written, it and all that follow go to standard error."""
        text = as_json(data) if self.json else plain
        try:
            await self.write(text)
        except OSError:
            self.results = sys.stderr  # an id that is lost cannot be deleted
            await self.write(text)
            raise

    async def failure(self, error: MediaError, **item: str) -> None:
        """Write an error as one line, with `json` also as an object, and update the exit status."""
        self.status = max(self.status, status_of(error))
        if self.json:
            await self.write(as_json({**item, "error": described(error)}))
        await self.complain(sentence(error, next(iter(item.values()), None)))

    async def complain(self, text: str) -> None:
        """Write an error to standard error."""
        await run_in_thread(self.bars.write, sys.stderr, f"meta-media: {text}")

    async def remark(self, text: str) -> None:
        """Write a line that is no result to standard error, unless `quiet`."""
        if not self.quiet:
            await run_in_thread(self.bars.write, sys.stderr, text)

    async def write(self, text: str) -> None:
        """Write lines where results go."""
        await run_in_thread(self.bars.write, self.results, text)


def paragraph(text: str, stream: TextIO) -> str:
    """Wrap a long sentence at the width of the terminal, if the stream is one."""
    if not stream.isatty():
        return text
    width = Console(file=stream).width - 1
    return textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


class Bars(rich.Progress):
    """The progress bars of one command, as `async with`. They are drawn on a terminal only, and disappear at the end."""

    def __init__(self, *, wanted: bool) -> None:
        self._terminal = console = Console(stderr=True)
        self._waits_until = 0.0  # seconds of the monotonic clock
        wide = console.width >= _NARROW_WIDTH
        super().__init__(
            rich.TextColumn("{task.description}", markup=False),
            rich.BarColumn(None),
            _Amount(short=console.width < _SHORT_WIDTH),
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
        short = name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"
        return None if self.disable else Bar(self, f"{action} {short}")

    def count(self, done: int, total: int | None) -> None:
        """Update the bar of the whole run, in items. A run of one item has none."""
        self.update(self._overall, completed=done, total=total, visible=total != 1)

    def move(self, size: int) -> None:
        """Add bytes to those of the whole run; a transfer that starts again takes its bytes back."""
        self.update(self._overall, moved=self._tasks[self._overall].fields["moved"] + size)

    def wait(self, seconds: float) -> bool:
        """Show for how long Meta asks to wait. Return whether a line has to say so, because no bars are drawn."""
        now = time.monotonic()
        begins, self._waits_until = now >= self._waits_until, max(self._waits_until, now + seconds)
        return begins and not self.live.is_started

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
        drawn, left = super().get_renderable(), math.ceil(self._waits_until - time.monotonic())
        if left > 0:
            drawn = Group(drawn, Text(f"Meta asks to wait: {left} s", "yellow"))
        return Constrain(drawn, self._terminal.width - _RIGHT_MARGIN)


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
    """Bytes of a transfer, or in short a percentage; items of the whole run, and unless in short its bytes."""

    def __init__(self, *, short: bool) -> None:
        super().__init__()
        self._short = short

    def render(self, task: rich.Task) -> Text:
        """Return the text."""
        if not task.fields:
            return Text(f"{task.percentage:3.0f}%", "progress.download") if self._short else super().render(task)
        total = "?" if task.total is None else f"{task.total:.0f}"
        moved = "" if self._short or task.fields["moved"] <= 0 else f" {decimal(task.fields['moved'])}"
        return Text(f"{task.completed:.0f}/{total}{moved}", style="progress.download")


class _Speed(rich.TransferSpeedColumn):
    """Bytes per second: of a transfer now, of the whole run on average."""

    def render(self, task: rich.Task) -> Text:
        """Return the text."""
        if not task.fields:
            return super().render(task)
        speed = int(task.fields["moved"] / (task.elapsed or 1))
        return Text(f"{decimal(speed)}/s" if speed > 0 else "", style="progress.data.speed")
