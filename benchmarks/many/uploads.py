"""
Uploads while one request in four meets a fault: every outcome is right, and duplicates are only where they are said to be.

Each upload has a length of its own, so the emulator's record tells which item a request was for; and its dice are thrown again
here, so it is known what happened to each request. An outcome is then judged by all that happened to the item.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .client import Run, sizes, watched
from .contents import content
from .kinds import KINDS, TRIES, Kind, replayed
from .serving import Asked, Order, Served, serving
from .verdicts import Verdict, judge_memory, print_table

_STALE = "NetworkError"  # of a request on a connection that is gone: the emulator has no record of it
_LATE = "TransferTimeoutError"
_TOO_BUSY = 0.001  # of the items may be late without a fault, which is the machine's doing

Met = dict[int, list[Kind | None]]
Rows = Mapping[int, list[tuple[str, str]]]  # by item: media id and SHA-256


def run(items: int, size: int, faults: float, concurrency: int) -> int:
    """Upload, compare; return the exit status."""
    sizes(items, size)  # raises now what the client would raise
    with tempfile.TemporaryDirectory(prefix="many-") as name:
        with serving(Path(name), Order(media=1, remembered=4 * items + 1000, faults=faults)) as served:
            found = watched(
                Run(
                    work="uploads",
                    base_url=served.base_url,
                    access_token=served.access_token,
                    phone_number_id=served.phone_number_id,
                    folder=name,
                    items=items,
                    size=size,
                    concurrency=concurrency,
                )
            )
        verdict = Verdict()
        verdict.expect(found["ended_by"] is None, "the run was ended", found["ended_by"])
        record = [asked for asked in served.record() if asked.method == "POST"]
        met, happened = _met(record, items, size, faults, verdict)
        judge = _Judge(served, met, _rows(served), size, items, verdict)
        outcomes = judge.outcomes()
    shown = f"{items:,} uploads of {size:,} bytes on average, {concurrency} at a time"
    print(f"{shown}; each of {len(KINDS)} faults happens to {faults:.1%} of the requests\n")
    rows = judge_memory(found, items, verdict, contents=True)
    rows.insert(2, ("MB a second", f"{items * size / found['seconds'] / 1e6:,.1f}"))
    print_table([*rows, *judge.lines(outcomes), ("requests that the emulator saw", f"{len(record):,}")])
    print_table([(name, f"{count:,}") for name, count in happened.most_common()])
    return verdict.told()


def _met(record: Sequence[Asked], items: int, size: int, faults: float, verdict: Verdict) -> tuple[Met, Counter[str]]:
    """Find out what each item met, request by request."""
    lengths = [asked.length or 0 for asked in record]
    frame = min(lengths, default=0) - sizes(items, size)[0]
    met: Met = defaultdict(list)
    happened: Counter[str] = Counter()
    for asked, kind in zip(record, replayed(((it.method, it.path) for it in record), faults), strict=True):
        number = (asked.length or 0) - frame - sizes(items, size)[0]
        verdict.expect(0 <= number < items, "a request is of no item's length", asked)
        met[number].append(kind)
        happened[kind.name if kind else "nothing"] += 1
    return met, happened


def _rows(served: Served) -> Rows:
    """Read what the emulator holds, but for what was there to begin with."""
    rows: defaultdict[int, list[tuple[str, str]]] = defaultdict(list)
    with contextlib.closing(sqlite3.connect(served.database)) as database:
        for media_id, name, sha256 in database.execute("SELECT id, filename, sha256 FROM media"):
            if name is not None:
                rows[int(name.partition(".")[0])].append((media_id, sha256))
    return rows


class _Judge:
    """Compares what the client told of each item with what the emulator holds of it, and what happened to it."""

    def __init__(self, served: Served, met: Met, rows: Rows, size: int, items: int, verdict: Verdict) -> None:
        self._served = served
        self._met = met
        self._rows = rows
        self._sizes = sizes(items, size)
        self._verdict = verdict
        self._late = 0

    def outcomes(self) -> list[dict[str, Any]]:
        """Judge all; return what was told."""
        told = [json.loads(line) for line in (self._served.folder / "outcomes").read_text().splitlines()]
        counts = Counter(outcome["index"] for outcome in told)
        for index in range(len(self._sizes)):
            self._verdict.expect(counts[index] == 1, "an item has not exactly one outcome", f"{counts[index]}: {index}")
        self._verdict.expect(counts.total() == len(self._sizes), "outcomes of what is no item", counts.total())
        for outcome in told:
            self._judge(outcome)
        share = self._late / len(self._sizes)
        self._verdict.expect(share <= _TOO_BUSY, "the machine is too busy for this", f"{self._late} were late")
        return told

    def _judge(self, told: dict[str, Any]) -> None:
        number, expect = told["index"], self._verdict.expect
        met = self._met.get(number, [])
        about = f"{told}, which met {[kind.name if kind else 'nothing' for kind in met]}"
        unseen = told["attempts"] - len(met)  # sent on connections that were gone
        expect(unseen >= 0, "more requests than were told of", about)
        expect(told["attempts"] <= TRIES, "more tries than allowed", about)
        doubtful = unseen > 0 or any(kind is not None and kind.doubtful for kind in met)
        if "error" in told:
            expect(self._excused(told["error"], met, told["attempts"]), "nothing explains the error", about)
            expect(told["doubtful"] or not self._rows.get(number), "said not to be there, but it is", about)
        else:
            expect(bool(met) and (met[-1] is None or not met[-1].ends), "a success without a good answer", about)
            self._judge_success(told, about)
        expect(doubtful or not told["doubtful"], "a doubt without a reason", about)

    def _judge_success(self, told: dict[str, Any], about: str) -> None:
        number, rows, expect = told["index"], self._rows.get(told["index"], []), self._verdict.expect
        sent = content(number, self._sizes[number])
        expect(told["size"] == len(sent), "another size was told", about)
        expect(told["id"] in [media_id for media_id, _ in rows], "the emulator does not have it", about)
        expect(len(rows) == 1 or told["doubtful"], "a duplicate that was not told of", about)
        stored = self._served.stored(told["id"])
        expect(stored.is_file() and stored.read_bytes() == sent, "the emulator has other bytes", about)

    def _excused(self, error: str, met: Sequence[Kind | None], attempts: int) -> bool:
        """Tell whether a call may have ended with this error after all that."""
        last = met[-1] if met else None
        if error == _STALE and attempts > len(met):
            return attempts == TRIES
        if last is None or error not in last.ends.split():
            self._late += error == _LATE
            return error == _LATE
        alike = sum(kind is not None and kind.after == last.after for kind in met)
        return attempts == TRIES or alike >= last.after

    def lines(self, outcomes: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
        """Return lines for a table about what became of the items."""
        errors = Counter(outcome.get("error", "") for outcome in outcomes)
        done = errors.pop("", 0)
        flagged = sum("error" not in outcome and outcome["doubtful"] for outcome in outcomes)
        extra = sum(max(len(rows) - 1, 0) for rows in self._rows.values())
        lost = sum("error" in outcome and bool(self._rows.get(outcome["index"])) for outcome in outcomes)
        return [
            ("uploaded", f"{done:,}"),
            ("of these, said to be perhaps duplicates", f"{flagged:,}"),
            ("failed", ", ".join(f"{count:,} {name}" for name, count in errors.most_common()) or "none"),
            ("of these, there all the same, as they said might be", f"{lost:,}"),
            ("media beyond one for each file", f"{extra:,}"),
        ]
