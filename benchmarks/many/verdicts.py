"""What a watched run has shown: what was wrong, and how much memory and time it took."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

MOST_MEMORY = 32 * 2**20  # bytes over idle
_STEEPEST = 0.5  # MiB for 10,000 items, over the second half
_MOST_OBJECTS = 2.0  # that an item may leave, over the second half; an outcome that is kept leaves more
_LONG = 10_000  # items; over fewer of them, the slopes are noise
_SHOWN = 20


class Verdict:
    """Complaints about a run; those of a kind are counted, and the first ones shown."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._first: list[str] = []

    def complain(self, what: str, about: object = "") -> None:
        """Note something that is wrong."""
        self._counts[what] += 1
        if len(self._first) < _SHOWN:
            self._first.append(f"{what}: {about}" if about != "" else what)

    def expect(self, good: bool, otherwise: str, about: object = "") -> None:
        """Note something that is wrong unless it is good."""
        if not good:
            self.complain(otherwise, about)

    def told(self) -> int:
        """Print what was wrong, and return the exit status."""
        for line in self._first:
            print(f"WRONG: {line}")
        for what, count in self._counts.items():
            print(f"{count:,} times wrong: {what}")
        if not self._counts:
            print("nothing was wrong")
        return 1 if self._counts else 0


def slope(looks: Sequence[tuple[int, int]]) -> float:
    """Return by how much something grew with each item, over the second half; least squares."""
    items, held = zip(*looks[len(looks) // 2 :], strict=True)
    return statistics.linear_regression(items, held).slope


def judge_memory(
    found: dict[str, Any], items: int, verdict: Verdict, *, contents: bool = False
) -> list[tuple[str, str]]:
    """
    Complain of memory that was too much or grew; return lines for a table about memory and speed.

    Args:
        found: By the client.
        items: How many.
        verdict: Where to complain.
        contents: Whether items are bytes. Then memory is what those under way and those that failed take, in as many pieces as
            malloc likes, so it is told and not judged; what Python holds is.
    """
    over, steep = found["peak"] - found["idle"], slope(found["looks"]) * 10_000 / 2**20
    each = slope(found["objects"])
    verdict.expect(contents or over < MOST_MEMORY, "more than 32 MiB over idle", f"{over / 2**20:.1f} MiB")
    if items >= _LONG:
        verdict.expect(contents or steep < _STEEPEST, "memory grows with the items", f"{steep:+.3f} MiB per 10,000")
        verdict.expect(each < _MOST_OBJECTS, "objects grow with the items", f"{each:+.2f} for each")
    middle, end = found["looks"][len(found["looks"]) // 2][1], found["looks"][-1][1]
    seconds, cpu = found["seconds"], found["cpu_seconds"]
    return [
        ("seconds", f"{seconds:,.1f}, {cpu:,.1f} of them on the client's processor"),
        ("items a second", f"{items / seconds:,.0f}"),
        ("the client's processor, per item", f"{cpu / items * 1e6:,.0f} µs"),
        ("the client's memory when idle", f"{found['idle'] / 2**20:.1f} MiB"),
        ("at most, over idle", f"{over / 2**20:.1f} MiB"),
        (
            "half way, at the end, over idle",
            ", ".join(f"{(it - found['idle']) / 2**20:.1f} MiB" for it in (middle, end)),
        ),
        ("slope of the second half, per 10,000 items", f"{steep:+.3f} MiB"),
        ("Python's objects, for each item of the second half", f"{each:+.3f}"),
    ]


def print_table(rows: Sequence[tuple[str, str]]) -> None:
    """Print two columns."""
    print("| | |\n|---|---:|")
    for name, value in rows:
        print(f"| {name} | {value} |")
    print()
