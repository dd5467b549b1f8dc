"""
Compare the verdicts on the corpus with what they must be: `python -m tests.corpus.check FOLDER [WORD ...]`.

Each file is judged by `meta-media check --json`. Then a client that does not validate uploads it to the emulator and sends it
in a message: the two verdicts must agree. The reads beyond the head are counted where the readers ask for them.
"""

from __future__ import annotations

import asyncio
import collections
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from meta_media import parse_webhook
from meta_media.emulator import Emulator
from meta_media.errors import MediaError
from meta_media.protocol.media_types import ACCEPTED, HEAD_SIZE, named_type
from meta_media.protocol.signatures import sniff_steps
from tests.corpus.table import Row, table

_MAX_READS: Final = 8
_MAX_BYTES: Final = 8192  # beyond the head, of one file


def _judged(folder: Path, names: list[str]) -> dict[str, Any]:
    """Return the verdicts of the command line."""
    command = [sys.executable, "-m", "meta_media", "check", "--json", *names]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    if len(lines) != len(names):
        raise SystemExit(f"check printed {len(lines)} lines for {len(names)} files: {run.stderr[-2000:]}")
    return {line["file"]: line for line in lines}


async def _delivered(folder: Path, verdicts: dict[str, Any]) -> dict[str, str | None]:
    """Return why the emulator does not deliver each file, which is declared as found, or as its name says; None if it does."""
    found: dict[str, str | None] = {}
    async with Emulator() as emulator, emulator.api(validate=False) as media:
        for name, seen in verdicts.items():
            named = named_type(name)
            declared = seen["mime_type"] if seen["accepted"] else named if named in ACCEPTED else None
            try:
                uploaded = await media.upload(folder / name, mime_type=declared)
                sent = await media.send("+15550003333", uploaded)
            except MediaError as error:
                found[name] = str(error)
                continue
            statuses = [one for body, _ in emulator.statuses[-4:] for one in parse_webhook(body).statuses]
            failed = [one for one in statuses if one.message_id == sent.id and one.status == "failed"]
            found[name] = str(failed[0].errors[0]) if failed else None
            await media.delete(uploaded.id)
    return found


def _reads(path: Path) -> tuple[int, int]:
    """Return the number of reads beyond the head, and their bytes."""
    with path.open("rb") as file:
        head, size = file.read(HEAD_SIZE), path.stat().st_size
        steps, count, total = sniff_steps(head, size == len(head)), 0, 0
        try:
            offset, length = next(steps)
            while True:
                file.seek(offset, 0 if offset >= 0 else 2)  # a negative offset counts from the end
                content = file.read(length)
                count, total = count + 1, total + len(content)
                offset, length = steps.send(content)
        except StopIteration:
            return count, total


def _problems(row: Row, seen: Any, undelivered: str | None, reads: tuple[int, int]) -> list[str]:
    found = [row.verdict.problem(seen)]
    if seen["accepted"] and undelivered:
        found.append(f"check accepts it, the emulator does not: {undelivered}")
    if not seen["accepted"] and not undelivered:
        found.append("the emulator delivers it, check refuses it")
    if reads[0] > _MAX_READS or reads[1] > _MAX_BYTES:
        found.append(f"{reads[0]} reads of {reads[1]:,} bytes beyond the head")
    return [problem for problem in found if problem]


def _report(rows: dict[str, Row], verdicts: dict[str, Any], reads: dict[str, tuple[int, int]]) -> None:
    most: dict[str, tuple[int, int]] = {}
    count: collections.Counter[str] = collections.Counter()
    for name in rows:
        kind = verdicts[name].get("mime_type") or verdicts[name]["error"].get("actual") or "?"
        most[kind] = max(most.get(kind, (0, 0)), reads[name])
        count[kind] += 1
    for kind, (times, size) in sorted(most.items(), key=lambda item: item[1], reverse=True):
        if times:
            print(f"  {str(kind)[:60]:60} {count[kind]:4} files, at most {times} reads, {size:,} bytes")


def main(folder: Path, words: list[str]) -> int:
    """Print what is wrong, and return the exit status."""
    folder = folder / "files"
    rows = {
        name: row
        for name, row in table().items()
        if (folder / name).exists() and (not words or any(word in f"{row.program} {name}" for word in words))
    }
    verdicts = _judged(folder, list(rows))
    undelivered = asyncio.run(_delivered(folder, verdicts))
    reads = {name: _reads(folder / name) for name in rows}
    wrong = disagree = 0
    for name, row in rows.items():
        problems = _problems(row, verdicts[name], undelivered[name], reads[name])
        wrong += row.verdict.problem(verdicts[name]) is not None
        disagree += verdicts[name]["accepted"] != (undelivered[name] is None)
        for problem in problems:
            print(f"{name} ({row.program}): {problem}")
    missing = len(table()) - len(rows) if not words else 0
    programs = len({row.program for row in rows.values()})
    print(f"{len(rows)} files of {programs} programs ({missing} rows not made)")
    share = 100 * (len(rows) - wrong) / max(len(rows), 1)
    print(f"right: {share:.1f} %, {wrong} wrong; check and the emulator disagree on {disagree}; beyond the head:")
    _report(rows, verdicts, reads)
    most = max(reads.values(), default=(0, 0)), max((size for _, size in reads.values()), default=0)
    return 1 if wrong or disagree or most[0][0] > _MAX_READS or most[1] > _MAX_BYTES else 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), sys.argv[2:]))
