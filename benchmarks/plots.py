"""The plots: one picture per group of cases, a panel per case, a bar per contender with its spread."""

from __future__ import annotations

import importlib
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .plan import CONCURRENT, OURS, Case
from .summary import Line

_OURS, _VERIFIES, _OTHERS = "#1a7f37", "#5b7fa6", "#b4bfcc"


def draw(lines: dict[Case, list[Line]], folder: Path) -> dict[str, str]:
    """Draw every group into the folder, and return the file name of each."""
    groups: dict[str, list[tuple[Case, list[Line]]]] = {}
    for case, its in lines.items():
        groups.setdefault(case.group, []).append((case, its))
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as cache:  # else matplotlib leaves one at home
        os.environ["MPLCONFIGDIR"] = cache
        return {group: _picture(group, panels, folder) for group, panels in groups.items()}


def _picture(group: str, panels: Sequence[tuple[Case, list[Line]]], folder: Path) -> str:
    backend: Any = importlib.import_module("matplotlib.backends.backend_agg")
    figures: Any = importlib.import_module("matplotlib.figure")
    rows = 3 if panels[0][0].concurrency == CONCURRENT else 1
    most = max(len(its) for _, its in panels)
    figure = figures.Figure(figsize=(5.6 * len(panels), (0.9 + 0.36 * most) * rows), layout="constrained")
    backend.FigureCanvasAgg(figure)
    axes: Any = figure.subplots(rows, len(panels), squeeze=False)
    for column, (case, its) in enumerate(panels):
        _rates(axes[0][column], case, its)
        if rows > 1:
            late = [it.lateness_p99 for it in its]
            _bars(axes[1][column], its, late, "event loop late, 99th percentile, ms (less is better)", ".1f")
            memory = [it.memory / 2**20 for it in its]
            _bars(axes[2][column], its, memory, "peak memory over idle, MiB (less is better)", ".0f")
    name = re.sub(r"[^a-z0-9]+", "-", group.lower()) + ".png"
    figure.savefig(folder / name, dpi=120)
    return name


def _rates(axis: Any, case: Case, lines: list[Line]) -> None:
    spreads = [
        [it.value.median - it.value.least for it in lines],
        [it.value.most - it.value.median for it in lines],
    ]
    medians = [it.value.median for it in lines]
    _bars(axis, lines, medians, f"{case.unit}, median and spread (more is better)", ",.0f", spreads)
    axis.set_title(case.title, fontsize=10)


def _bars(
    axis: Any, lines: list[Line], lengths: list[float], label: str, shape: str, spreads: list[list[float]] | None = None
) -> None:
    names = [it.row.entry.name + (", SHA-256" if it.row.entry.verify else "") for it in lines]
    colours = [_OURS if it.row.entry.name == OURS else _VERIFIES if it.row.entry.verify else _OTHERS for it in lines]
    positions = range(len(lines))
    axis.barh(positions, lengths, color=colours, xerr=spreads, error_kw={"elinewidth": 1, "ecolor": "#444444"})
    longest = max(lengths, default=1.0)
    ends = [length + (spreads[1][index] if spreads else 0) for index, length in enumerate(lengths)]
    for position, (length, end) in enumerate(zip(lengths, ends, strict=True)):
        axis.text(end + longest * 0.01, position, format(length, shape), va="center", fontsize=8)
    axis.set_yticks(positions, names, fontsize=8)
    axis.set_xlim(0, (max(ends, default=1.0) or 1.0) * 1.15)
    axis.set_xlabel(label, fontsize=8)
    axis.tick_params(axis="x", labelsize=8)
    axis.invert_yaxis()
    axis.spines[["top", "right"]].set_visible(False)
