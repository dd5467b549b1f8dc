"""A table on standard output: ruled and coloured on a terminal, as wide as that is; plain and uncut elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from meta_media.cli.output import NAME_LENGTH, printable

__all__ = ["Columns", "table"]

_PLAIN_WIDTH: Final = 10_000  # columns where there is no terminal, so that nothing is cut

Columns: TypeAlias = Mapping[str, JustifyMethod]  # headings, and how the cells below them are aligned


def table(
    columns: Columns, rows: Sequence[Sequence[str]], narrow: Sequence[Sequence[str]], styles: Sequence[str]
) -> str:
    """
    Lay rows out for standard output: ruled and coloured on a terminal, plain and uncut elsewhere. This blocks.

    Args:
        columns: Headings and how they are aligned. Where space is short, the first one is folded, and others are left out.
        rows: Their texts; anything unprintable is escaped.
        narrow: Shorter rows for a terminal that is too narrow.
        styles: One per row, for its last column.
    """
    terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout, width=None if terminal else _PLAIN_WIDTH, highlight=False)
    grid = _grid(columns, rows, styles, ruled=terminal)
    if console.measure(grid, options=console.options.update(width=_PLAIN_WIDTH)).maximum > console.width:
        grid = _grid(*_fitted(columns, narrow, console.width), styles, ruled=True)
    with console.capture() as capture:
        console.print(grid)
    return "\n".join(line.rstrip() for line in capture.get().split("\n")).strip("\n")


def _fitted(columns: Columns, rows: Sequence[Sequence[str]], width: int) -> tuple[Columns, list[list[str]]]:
    """Drop columns, the widest first, until the names have room. The first and the last one stay."""
    names, cells = list(columns), [list(row) for row in rows]
    while len(names) > 2:
        widths = [max(map(cell_len, (*name.split("\n"), *column))) for name, *column in zip(names, *cells, strict=True)]
        if min(widths[0], NAME_LENGTH) + sum(widths[1:]) + 2 * len(widths) <= width:
            break
        widest = max(range(1, len(names) - 1), key=widths.__getitem__)
        for row in (names, *cells):
            del row[widest]
    return {name: columns[name] for name in names}, cells


def _grid(columns: Columns, rows: Sequence[Sequence[str]], styles: Sequence[str], *, ruled: bool) -> Table:
    grid = Table(box=SIMPLE_HEAD if ruled else None, pad_edge=False, padding=(0, 1 if ruled else 2, 0, 0))
    for index, (name, justify) in enumerate(columns.items()):
        grid.add_column(name if ruled else name.replace("\n", " "), justify=justify, no_wrap=index > 0, overflow="fold")
    for row, style in zip(rows, styles, strict=True):
        *texts, last = (printable(text) for text in row)
        grid.add_row(*map(Text, texts), Text(last, style))
    return grid
