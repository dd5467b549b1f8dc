"""Deletes without end: memory is flat, and no item is lost or done twice by the emulator's own record."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections import Counter
from pathlib import Path

from .client import Run, watched
from .serving import Order, Served, serving
from .verdicts import Verdict, judge_memory, print_table


def run(items: int, concurrency: int) -> int:
    """Fill an emulator, delete all of it from a generator, compare; return the exit status."""
    with tempfile.TemporaryDirectory(prefix="many-") as name:
        with serving(Path(name), Order(media=items, remembered=4 * items + 1000)) as served:
            found = watched(
                Run(
                    work="deletes",
                    base_url=served.base_url,
                    access_token=served.access_token,
                    phone_number_id=served.phone_number_id,
                    folder=name,
                    items=items,
                    size=0,
                    concurrency=concurrency,
                )
            )
        verdict = Verdict()
        verdict.expect(found["ended_by"] is None, "the run was ended", found["ended_by"])
        _judge(served, verdict)
    print(f"{items:,} deletes from a generator, {concurrency} at a time\n")
    print_table(judge_memory(found, items, verdict))
    return verdict.told()


def _judge(served: Served, verdict: Verdict) -> None:
    """Compare what there was, what the client told, what the emulator was asked, and what is left."""
    ids = served.ids.read_text().split()
    told: Counter[int] = Counter()
    for line in (served.folder / "outcomes").read_text().splitlines():
        index, source, attempts, error = line.split()
        told[int(index)] += 1
        verdict.expect(error == "NoneType", "a delete failed", line)
        verdict.expect(attempts == "1", "a delete took more than one request", line)
        verdict.expect(int(index) < len(ids) and ids[int(index)] == source, "an outcome is about another item", line)
    for item in range(len(ids)):
        verdict.expect(told[item] == 1, "an item has not exactly one outcome", f"{told[item]} of item {item}")
    asked = Counter(it.path.rpartition("/")[2] for it in served.record() if it.method == "DELETE")
    for media_id in ids:
        verdict.expect(asked.pop(media_id, 0) == 1, "the emulator was not asked exactly once", media_id)
    verdict.expect(not asked, "the emulator was asked to delete what is no item", asked)
    with contextlib.closing(sqlite3.connect(served.database)) as database:
        (left,) = database.execute("SELECT count(*) FROM media").fetchone()
    verdict.expect(left == 0, "media are left", left)
    verdict.expect(not any(served.stored("").iterdir()), "files are left")
