"""From measurements to what the report says: medians, spreads, ratios, goals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from .plan import GOALS, MOST_LATENESS, MOST_MEMORY, OURS, Case
from .rounds import Results, Row


@dataclass(frozen=True)
class Spread:
    """A median and the extremes around it."""

    median: float
    least: float
    most: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Summarise one value per round."""
        return Spread(median(values), min(values), max(values))


@dataclass(frozen=True)
class Line:
    """
    One contender in one case.

    Attributes:
        row: What was measured.
        value: Requests/s or MB/s.
        cpu: Processor seconds per 1,000 requests or per GB.
        memory: Bytes over idle at the peak.
        lateness_median: Of the event loop, ms; so are the next two.
        lateness_p99: Likewise.
        lateness_worst: Of all rounds.
        server_busy: Share of a processor that the server took.
        others_busy: Processors that somebody else took meanwhile.
        ratio: Our median to this one's; above 1, we are better. None where we were not measured.
        rounds_ratio: The same within each round, which a busy hour disturbs less.
        cpu_ratio: This one's processor time to ours; above 1, we are better.
    """

    row: Row
    value: Spread
    cpu: float
    memory: float
    lateness_median: float
    lateness_p99: float
    lateness_worst: float
    server_busy: float
    others_busy: float
    ratio: float | None
    rounds_ratio: Spread | None
    cpu_ratio: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return it for `results.json`."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "row"}
        return {name: vars(value) if isinstance(value, Spread) else value for name, value in found.items()}


def values(row: Row) -> list[float]:
    """Return the value of each round."""
    return [row.case.value(found["transfers"], found["seconds"]) for found in row.samples]


def costs(row: Row) -> list[float]:
    """Return the processor seconds per thousand requests, or per GB, of each round."""
    return [found["cpu_seconds"] / row.case.per(found["transfers"]) for found in row.samples]


def line(row: Row, ours: Row | None) -> Line | None:
    """Summarise a row beside ours; None if it has no measurement."""
    if not row.samples:
        return None

    def middle(name: str) -> float:
        return median(float(found[name]) for found in row.samples)

    value, cpu = Spread.of(values(row)), median(costs(row))
    compared = ours is not None and bool(ours.samples)
    ratio = rounds_ratio = cpu_ratio = None
    if ours is not None and compared:
        ratio = median(values(ours)) / value.median
        cpu_ratio = cpu / median(costs(ours)) if median(costs(ours)) else None
        if len(row.samples) == len(ours.samples):
            pairs = zip(values(ours), values(row), strict=True)
            rounds_ratio = Spread.of([mine / theirs for mine, theirs in pairs])
    return Line(
        row=row,
        value=value,
        cpu=cpu,
        memory=middle("memory"),
        lateness_median=middle("lateness_median"),
        lateness_p99=middle("lateness_p99"),
        lateness_worst=max(found["lateness_worst"] for found in row.samples),
        server_busy=middle("server_busy"),
        others_busy=middle("others_busy"),
        ratio=ratio,
        rounds_ratio=rounds_ratio,
        cpu_ratio=cpu_ratio,
    )


def by_case(results: Results) -> dict[Case, list[Line]]:
    """Return the lines of each case, in the plan's order."""
    found: dict[Case, list[Line]] = {}
    for row in results.rows:
        ours = next((mine for mine in results.rows if mine.case == row.case and mine.entry.name == OURS), None)
        summary = line(row, ours)
        if summary is not None:
            found.setdefault(row.case, []).append(summary)
    return found


@dataclass(frozen=True)
class Verdict:
    """A goal and what became of it."""

    sentence: str
    wanted: str
    found: str
    met: bool


def verdicts(lines: dict[Case, list[Line]]) -> list[Verdict]:
    """Compare with the goals all that was measured."""
    known = {(case.name, it.row.entry.shown): it for case, its in lines.items() for it in its}
    mine = {case.name: it for case, its in lines.items() for it in its if it.row.entry.name == OURS}
    said: list[Verdict] = []
    for goal in GOALS:
        ours = mine.get(goal.case)
        peer = mine.get(goal.other_case) if goal.other_case else known.get((goal.case, goal.peer))
        if ours and peer:
            ratio = ours.value.median / peer.value.median
            to = f"itself in {goal.other_case}" if goal.other_case else goal.peer
            met = ratio >= goal.at_least
            said.append(Verdict(f"{goal.case}: rate, to {to}", f"at least {goal.at_least:.2f}", f"{ratio:.2f}", met))
    for name in ("upload-8", "save-8"):
        if it := mine.get(name):
            memory = f"{it.memory / 2**20:.0f} MiB"
            said.append(
                Verdict(f"{name}: memory over idle", f"below {MOST_MEMORY >> 20} MiB", memory, it.memory < MOST_MEMORY)
            )
            late = f"{it.lateness_p99:.1f} ms"
            wanted = f"at most {MOST_LATENESS:.0f} ms"
            said.append(Verdict(f"{name}: loop lateness, p99", wanted, late, it.lateness_p99 <= MOST_LATENESS))
    return said
