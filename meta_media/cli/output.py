"""What a command prints: results on standard output, errors and remarks on standard error, each on one harmless line."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, TextIO

import attrs
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from meta_media import MediaError
from meta_media.cli.progress import Bars
from meta_media.errors import ConfigurationError
from meta_media.protocol.secrets import hide_query
from meta_media.transfer.threads import run_in_thread

__all__ = [
    "FAILED",
    "FINE",
    "USAGE",
    "Column",
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
    "table",
]

FINE: Final = 0  # exit statuses
FAILED: Final = 1
USAGE: Final = 2
_PLAIN_WIDTH: Final = 10_000  # columns where there is no terminal, so that nothing is cut


class ExitNowError(Exception):
    """
    Ends the process without waiting for threads: one may be reading a terminal or a pipe that stays silent.

    Attributes:
        status: The exit status.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"exit with status {status}")
        self.status = status


def printable(text: str) -> str:
    """Escape characters that move the cursor, hide text or break the line: names and responses are untrusted."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(name: str) -> str:
    """Return the name of an item, which may be a signed URL, as one harmless line."""
    return printable(_unsigned(name))


def sentence(error: MediaError, item: str | None = None) -> str:
    """Return an error as one line that names its item."""
    text, name = shown(str(error)), shown(item or "")
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
    extra = fields.pop("extra", {})
    for name in ("media_id", "received_at"):
        fields.pop(name, None)
    if fields.get("url"):
        fields["url"] = hide_query(fields["url"])
    return {**extra, **fields}


def status_of(error: MediaError) -> int:
    """Return the exit status of an error."""
    return USAGE if isinstance(error, ConfigurationError) else FAILED


@attrs.define(kw_only=True)
class Output:
    """
    The results and errors of one command.

    Attributes:
        json: Whether results are JSON objects.
        quiet: Whether remarks are left out.
        bars: The progress bars. Lines are written above them.
        results: Where results go: standard output, unless that carries a file.
        status: The exit status so far.
    """

    json: bool
    quiet: bool
    bars: Bars
    results: TextIO = attrs.field(factory=lambda: sys.stdout)
    status: int = 0

    async def result(self, plain: str, data: Mapping[str, Any]) -> None:
        """Write a result, as text or as JSON."""
        await self.write(as_json(data) if self.json else plain)

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


@attrs.frozen
class Column:
    """A table's column: its heading, and whether it holds numbers."""

    name: str
    number: bool = False


def table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], narrow: Sequence[Sequence[str]], styles: Sequence[str]
) -> str:
    """
    Lay rows out for standard output: ruled and coloured on a terminal, plain and uncut elsewhere. This blocks.

    Args:
        columns: The first one is folded where space is short, the others stay whole.
        rows: Their texts; anything unprintable is escaped.
        narrow: Shorter rows for a terminal that is too narrow.
        styles: One per row, for its last column.
    """
    terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout, width=None if terminal else _PLAIN_WIDTH, highlight=False)
    grid = _grid(columns, rows, styles, ruled=terminal)
    if console.measure(grid, options=console.options.update(width=_PLAIN_WIDTH)).maximum > console.width:
        grid = _grid(columns, narrow, styles, ruled=True)
    with console.capture() as capture:
        console.print(grid)
    return "\n".join(line.rstrip() for line in capture.get().split("\n")).strip("\n")


def _grid(columns: Sequence[Column], rows: Sequence[Sequence[str]], styles: Sequence[str], *, ruled: bool) -> Table:
    grid = Table(box=SIMPLE_HEAD if ruled else None, pad_edge=False, padding=(0, 1 if ruled else 2, 0, 0))
    for index, column in enumerate(columns):
        name = column.name if ruled else column.name.replace("\n", " ")
        grid.add_column(name, justify="right" if column.number else "left", no_wrap=index > 0, overflow="fold")
    for row, style in zip(rows, styles, strict=True):
        *texts, last = (printable(text) for text in row)
        grid.add_row(*map(Text, texts), Text(last, style))
    return grid


def paragraph(text: str, *, to: Literal["stdout", "stderr"] = "stdout") -> str:
    """Wrap a long sentence at the width of the terminal, if there is one."""
    stream = sys.stdout if to == "stdout" else sys.stderr
    if not stream.isatty():
        return text
    width = Console(file=stream).width - 1
    return textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
