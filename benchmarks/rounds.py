"""Running the plan: every contender of every case once per round, in turn, each time in a new process."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from meta_media import samples

from .contenders import Job
from .plan import LARGE, SMALL, Case, Entry
from .servers import HOUSE, Media, Servers, media_ids, pdf, running

_PATIENCE = 600.0  # seconds one process may take
_CLEARED = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_DIR", "CURL_CA_BUNDLE")
_OURS = ("CLOUD_API_ACCESS_TOKEN", "CLOUD_API_VERSION", "WA_APP_SECRET", "WA_BASE_URL", "WA_PHONE_NUMBER_ID")


@dataclass
class Row:
    """What one contender showed in one case: a measurement per round, or why there is none."""

    case: Case
    entry: Entry
    samples: list[dict[str, Any]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@dataclass
class Results:
    """A whole run."""

    rows: list[Row]
    missing: list[str]
    rounds: int
    download_server: str


@dataclass(frozen=True)
class _Bench:
    """What every job needs."""

    servers: Servers
    small: Media
    large: Media
    photo: Path
    saved: Path


def photograph(path: Path) -> Path:
    """Write a JPEG of exactly 64 KiB: a sample, with a comment behind its first segment."""
    sample = next(found for found in samples.paths() if found.suffix == ".jpg").read_bytes()
    first = 4 + int.from_bytes(sample[4:6], "big")  # ITU-T T.81, B.1.1.4: two bytes of marker, then the length
    room = SMALL - len(sample) - 2
    path.write_bytes(sample[:first] + b"\xff\xfe" + room.to_bytes(2, "big") + b"x" * (room - 2) + sample[first:])
    return path


def installed(need: str) -> bool:
    """Tell whether a distribution, or the program curl, is here."""
    if need == "curl":
        return shutil.which("curl") is not None
    try:
        metadata.version(need)
    except metadata.PackageNotFoundError:
        return False
    return True


def run(cases: Sequence[Case], rounds: int) -> Results:
    """Start the servers, run every row once per round, end the servers; tell on standard error how far it is."""
    entries = [(case, entry) for case in cases for entry in case.entries]
    needs = {need for _, entry in entries for need in entry.needs}
    missing = sorted(need for need in needs if not installed(need))
    rows = [Row(case, entry) for case, entry in entries if not set(entry.needs) & set(missing)]
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as name:
        folder = Path(name)
        for part in ("served", "sources", "saved"):
            (folder / part).mkdir()
        ids = media_ids()
        size = max((case.size for case in cases if case.size != SMALL), default=LARGE)
        small = pdf(folder / "sources" / "small.pdf", SMALL, next(ids))
        large = pdf(folder / "sources" / "large.pdf", size, next(ids))
        photo = photograph(folder / "sources" / "photo.jpg")
        with running(folder / "served", (small, large)) as servers:
            bench = _Bench(servers, small, large, photo, folder / "saved")
            dice = random.Random(rounds)
            for number in range(rounds):
                for done, row in enumerate(_shuffled(rows, dice)):
                    _tell(
                        f"round {number + 1} of {rounds}, {done + 1} of {len(rows)}: {row.case.name}, {row.entry.name}"
                    )
                    _measure(bench, row)
            _tell("")
            return Results(rows, missing, rounds, servers.download_server)


def _shuffled(rows: list[Row], dice: random.Random) -> list[Row]:
    """Give every contender of a case its turn to be the first."""
    shuffled = dice.sample(rows, len(rows))
    cases = [row.case for row in rows]
    return sorted(shuffled, key=lambda row: cases.index(row.case))


def _settle(folder: Path, size: int) -> None:
    """
    Write as many bytes as will be written, and delete them.

    A virtual machine's free memory may not be there until it is used: the first to write would pay for all.
    """
    path, piece = folder / "settle", bytes(2**20)
    with path.open("wb") as file:
        for _ in range(size // len(piece)):
            file.write(piece)
    path.unlink()


def _tell(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _measure(bench: _Bench, row: Row) -> None:
    """Run one process and keep what it says."""
    environment = {name: value for name, value in os.environ.items() if name.upper() not in {*_CLEARED, *_OURS}}
    if row.case.work == "save":
        _settle(bench.saved, row.case.limit * row.case.size * 2)
    environment["SSL_CERT_FILE"] = environment["CURL_CA_BUNDLE"] = str(bench.servers.certificate)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "benchmarks.worker"],
            input=json.dumps(asdict(_job(bench, row))),
            cwd=HOUSE,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        row.errors.append(f"not done after {_PATIENCE:.0f} s")
        return
    if ended.returncode == 0:
        row.samples.append(json.loads(ended.stdout))
    else:
        said = (ended.stderr.strip().splitlines() or [""])[-1][:300]
        for ours in (bench.saved.parent, HOUSE, sys.prefix):  # the report is shown to others
            said = said.replace(str(ours), "…")
        row.errors.append(f"exit status {ended.returncode}: {said}")


def _job(bench: _Bench, row: Row) -> Job:
    case, servers = row.case, bench.servers
    photo = case.work == "upload_bytes"
    down = servers.https if case.scheme == "https" else servers.http
    return Job(
        contender=row.entry.module,
        library=row.entry.library,
        work=case.work,
        base_url=servers.upload if case.uploads else down,
        media_id=bench.large.media_id,
        warm_id=bench.small.media_id,
        size=case.size,
        sha256=bench.large.sha256,
        source=str(bench.photo if photo else bench.large.path),
        warm_source=str(bench.small.path),
        folder=str(bench.saved),
        concurrency=case.concurrency,
        limit=case.limit,
        seconds=case.seconds,
        mime_type="image/jpeg" if photo else "application/pdf",
        verify=row.entry.verify,
        variant=row.entry.variant,
        server_pid=servers.upload_pid if case.uploads else servers.download_pid,
    )
