"""What a command says: results on standard output, errors and remarks on standard error, each on one harmless line."""

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

from meta_media.cli.progress import Bars
from meta_media.cli.running import FAILED, USAGE
from meta_media.errors import ConfigurationError, MediaError
from meta_media.protocol.secrets import hide_query
from meta_media.transfer.threads import run_in_thread

__all__ = [
    "Column",
    "Output",
    "as_json",
    "binary_size",
    "described",
    "paragraph",
    "printable",
    "result_object",
    "sentence",
    "shown",
    "status_of",
    "table",
]

_PLAIN_WIDTH: Final = 10_000  # columns where nobody's window limits them, so that nothing is cut


def printable(text: str) -> str:
    """Escape what could move the cursor, hide text or break the line; names and replies come from strangers."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(name: str) -> str:
    """Write the name of an item, which may be a signed URL, on one harmless line."""
    return printable(_unsigned(name))


def sentence(error: MediaError, item: str | None = None) -> str:
    """Say what went wrong, and with what."""
    text, name = shown(str(error)), shown(item or "")
    return text if not name or name in text else f"{name}: {text}"


def described(error: MediaError) -> dict[str, Any]:
    """Return an error as a JSON object: its class, its sentence, and whatever it knows."""
    known = {name: value for name, value in vars(error).items() if value is not None and not name.startswith("_")}
    nested = {name: described(value) for name, value in known.items() if isinstance(value, MediaError)}
    return {"type": type(error).__name__, **known, **nested, "message": str(error)}


def _unsigned(text: str) -> str:
    """Take the queries out of all URLs: a caller may have passed a signed one where an id belongs."""
    return re.sub(r"(://[^\s?'\"]*\?)[^\s'\"]+", r"\1...", text)


def binary_size(size: int) -> str:
    """Write a size shortly, in the units of WhatsApp's limits."""
    if size < 2**10:
        return f"{size} B"
    unit, name = (2**20, "MiB") if size >= 2**20 else (2**10, "KiB")
    return f"{size / unit:.1f}".removesuffix(".0") + f" {name}"


def as_json(data: Mapping[str, Any]) -> str:
    """Write an object on one line, in ASCII, which no terminal misreads."""
    return _unsigned(json.dumps({name: value for name, value in data.items() if value is not None}, default=_plain))


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def result_object(result: attrs.AttrsInstance) -> dict[str, Any]:
    """Return a result as a JSON object: Meta's further fields beside the known ones, and no signed query."""
    fields = attrs.asdict(result)
    extra = fields.pop("extra", {})
    for name in ("media_id", "received_at"):
        fields.pop(name, None)
    if fields.get("url"):
        fields["url"] = hide_query(fields["url"])
    return {**extra, **fields}


def status_of(error: MediaError) -> int:
    """Return the exit status for an error: wrong usage, or something that failed."""
    return USAGE if isinstance(error, ConfigurationError) else FAILED


@attrs.define(kw_only=True)
class Output:
    """
    Where one command's results and errors go.

    Attributes:
        json: Whether results are JSON objects.
        quiet: Whether remarks are left out.
        bars: What has to step aside on a terminal.
        results: Another stream than standard output, when that carries a file.
        status: The exit status so far.
    """

    json: bool
    quiet: bool
    bars: Bars
    results: TextIO = attrs.field(factory=lambda: sys.stdout)
    status: int = 0

    async def result(self, plain: str, data: Mapping[str, Any]) -> None:
        """Print a result, in its plain form or as JSON."""
        await self.write(as_json(data) if self.json else plain)

    async def failure(self, error: MediaError, **item: str) -> None:
        """Print an error in one sentence, for machines as an object too, and remember the exit status."""
        self.status = max(self.status, status_of(error))
        if self.json:
            await self.write(as_json({**item, "error": described(error)}))
        await self.complain(sentence(error, next(iter(item.values()), None)))

    async def complain(self, text: str) -> None:
        """Print what went wrong, for people and into logs."""
        await run_in_thread(self.bars.write, sys.stderr, f"meta-media: {text}")

    async def remark(self, text: str) -> None:
        """Print something for people only."""
        if not self.quiet:
            await run_in_thread(self.bars.write, sys.stderr, text)

    async def write(self, text: str) -> None:
        """Print lines where results go."""
        await run_in_thread(self.bars.write, self.results, text)


@attrs.frozen
class Column:
    """A table's column: its heading, and whether it holds numbers."""

    name: str
    number: bool = False


def table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    narrow: Sequence[Sequence[str]],
    styles: Sequence[str],
) -> str:
    """
    Lay rows out for standard output: ruled and coloured on a terminal, plain and as wide as they are elsewhere.

    Args:
        columns: The first one is folded where space is short, the others stay whole.
        rows: Their texts; anything unprintable is escaped.
        narrow: What to show instead on a terminal that is too narrow for them.
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
    """Break a long sentence between its words, where it will be read on a terminal."""
    stream = sys.stdout if to == "stdout" else sys.stderr
    if not stream.isatty():
        return text
    width = Console(file=stream).width - 1
    return textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
