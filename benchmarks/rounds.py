"""
Runs a plan: every contender of every case once per round, each time in a new process, in an order that changes.

This is not pyperf: it measures one benchmark to its end before the next, so that a drifting machine favours some of them, and
neither processor time, memory nor loop lateness.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from meta_media import samples

from .contenders import Job
from .measure import installed
from .plan import SMALL, Case, Entry
from .processes import API_VERSION, ProcessError, ask_child, certify, environment, python, redis
from .worker import content_of, file_of

_PROCESS_TIMEOUT = 600.0  # seconds that one process may take
_FILE_AGE = 1000.0  # seconds: a library hashes a file that has only just changed again
_MEDIA_ID, _WARM_ID = "1045500012345679", "1045500012345678"


@dataclass
class Row:
    """One contender in one case: its measurements, one per round, or its errors."""

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


@dataclass(frozen=True)
class _Bench:
    """Server and files that every job needs."""

    folder: Path
    ports: dict[str, dict[str, int]]
    pid: int
    sha256: str

    def job(self, case: Case, entry: Entry, folder: Path, redis_url: str) -> Job:
        """Return the work of one process."""
        server = "media" if case.work in {"discard", "save"} else "graph"
        photo = case.work == "upload_bytes" or (case.work == "upload_all" and case.sources in {"bytes", "path"})
        return Job(
            contender=entry.module,
            library=entry.library,
            variant=entry.variant,
            verify=entry.verify,
            work=case.work,
            loop=case.loop,
            base_url=f"{case.scheme}://127.0.0.1:{self.ports[server][case.scheme]}",
            redis=redis_url,
            media_id=_MEDIA_ID,
            warm_id=_WARM_ID,
            size=case.size,
            sha256=self.sha256,
            source=str(self.folder / ("photo.jpg" if photo else f"{_MEDIA_ID}.pdf")),
            warm_source=str(self.folder / f"{_WARM_ID}.pdf"),
            folder=str(folder),
            files=str(self.folder / "files"),
            sources=case.sources,
            again=case.again,
            concurrency=case.concurrency,
            limit=entry.limit or case.limit,
            seconds=case.seconds,
            mime_type="image/jpeg" if photo else "application/pdf",
            server_pid=self.pid,
            version=API_VERSION,
        )


def photograph(path: Path) -> None:
    """Write a JPEG of exactly 64 KiB: a sample, with a comment behind its first segment."""
    sample = next(found for found in samples.paths() if found.suffix == ".jpg").read_bytes()
    first = 4 + int.from_bytes(sample[4:6], "big")  # ITU-T T.81, B.1.1.4: two bytes of marker, then the length
    room = SMALL - len(sample) - 2
    path.write_bytes(sample[:first] + b"\xff\xfe" + room.to_bytes(2, "big") + b"x" * (room - 2) + sample[first:])


def _write_media(path: Path, size: int) -> str:
    """Write a PDF of random bytes, which no client can compress; return its SHA-256."""
    head, tail = b"%PDF-1.7\n", b"\n%%EOF\n"
    content = head + os.urandom(size - len(head) - len(tail)) + tail
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _write_files(folder: Path, cases: Sequence[Case]) -> None:
    """Write the files of the runs that read a different file for each item."""
    numbers = max((case.limit + 2 * case.concurrency for case in cases if case.sources == "files"), default=0)
    folder.mkdir()
    written = time.time() - _FILE_AGE
    for number in range(numbers):
        path = file_of(folder, number)
        path.write_bytes(content_of(number, SMALL))
        os.utime(path, (written, written))


@contextlib.contextmanager
def _bench(cases: Sequence[Case]) -> Iterator[_Bench]:
    """Write all files, start all servers, and end them."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-")))
        certify(folder)
        photograph(folder / "photo.jpg")
        _write_media(folder / f"{_WARM_ID}.pdf", SMALL)
        sizes = [case.size for case in cases if not case.counts_requests]
        sha256 = _write_media(folder / f"{_MEDIA_ID}.pdf", max(sizes, default=SMALL))
        _write_files(folder / "files", cases)
        process, ports = stack.enter_context(python("benchmarks.server", str(folder)))
        yield _Bench(folder, ports, process.pid, sha256)


def run(cases: Sequence[Case], rounds: int) -> Results:
    """Run every row once per round; print each measurement on standard error."""
    entries = [(case, entry) for case in cases for entry in case.entries]
    missing = sorted({need for _, entry in entries for need in entry.needs if not installed(need)})
    rows = [Row(case, entry) for case, entry in entries if not set(entry.needs) & set(missing)]
    with _bench(cases) as bench:
        order = random.Random(rounds)
        for number in range(rounds):
            shuffled = sorted(order.sample(rows, len(rows)), key=lambda row: cases.index(row.case))
            for done, row in enumerate(shuffled):
                found = _measure(bench, row)
                where = f"round {number + 1} of {rounds}, {done + 1} of {len(rows)}"
                print(f"{where}: {row.case.name}, {row.entry.name}: {found}", file=sys.stderr, flush=True)
    return Results(rows, missing, rounds)


def _settle(path: Path, size: int) -> None:
    """
    Write that many bytes, and delete them.

    A virtual machine may get its free memory only when it is used. Otherwise the first contender that writes would pay for all.
    """
    piece = bytes(2**20)
    with path.open("wb") as file:
        for _ in range(size // len(piece)):
            file.write(piece)
    path.unlink()


def _measure(bench: _Bench, row: Row) -> str:
    """Run one process, and keep its measurement or its error; return it in a few words."""
    case, authority = row.case, str(bench.folder / "authority.pem")
    with tempfile.TemporaryDirectory(dir=bench.folder) as name:
        if case.work == "save":
            _settle(Path(name, "settle"), (case.limit + 1) * case.size)  # one warms up
        env = environment(row.entry.build, SSL_CERT_FILE=authority, CURL_CA_BUNDLE=authority)
        started = redis(Path(name)) if row.entry.variant == "redis" else contextlib.nullcontext("")
        try:
            with started as url:
                job = bench.job(case, row.entry, Path(name), url)
                sample = ask_child("benchmarks.worker", asdict(job), env, _PROCESS_TIMEOUT)
        except ProcessError as error:
            row.errors.append(str(error).replace(str(bench.folder), "…"))
            return f"failed: {row.errors[-1]}"
    row.samples.append(sample)
    return f"{sample['transfers']:,} in {sample['seconds']:.2f} s, {sample['cpu_seconds']:.2f} s of a processor"
