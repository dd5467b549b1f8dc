"""
`python -m benchmarks.soak`: a client that works for a long time while everything goes wrong now and then.

Many tasks upload, look up, download and delete through `benchmarks.chaos`; a part of the calls is cancelled at a random
moment, by a deadline or twice in a row. Each outcome is judged: what succeeded by the bytes that the emulator holds, or that
lie in the target folder; what failed by its error, by whether a trouble excuses it, and by whether "not applied" was true;
what was cancelled by its leaving nothing. Meanwhile the process is watched for anything that grows.

The exit status is 1 if an outcome was wrong; if descriptors or tasks are not back where they began once the client was
closed; if there are more threads than the two pools may have, or files in the target folders that do not belong there; if
memory grew by more than 1 MiB or Python's objects by more than 2,000 a minute (least squares over the second half; judged from
five minutes on, because in less time it is noise); or if more than 1 in 1000 calls ran into a timeout that nothing excuses, because then the machine is too busy to
tell anything.

The process runs with one arena of malloc's (MALLOC_ARENA_MAX=1): with one for each thread, what they keep for later grows for
longer than a soak takes, though nothing is lost.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import math
import os
import random
import signal
import socket
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import psutil

from meta_media import MediaApi, Settings

from .chaos import NUMBER, TOKENS, running
from .machine import describe
from .servers import API_VERSION, certify
from .soak_calls import Caller, Failure, Soak
from .troubles import TROUBLES

_PATIENCE = 1.5  # seconds of each wait
_BACKOFF = 0.2  # seconds
_EVERY = 2.0  # seconds between two looks at the process
_LOST_NAMES = 0.005  # of the look-ups of a host's name
_TOO_BUSY = 0.001  # of the calls
_STEEPEST = {"memory, MiB": 1.0, "Python objects, in thousands": 2.0}  # a minute
_LONG = 5.0  # minutes
_NEVER = ("CorruptedMediaError", "UnsupportedMediaTypeError", "FileTooLargeError", "StorageError", "ConfigurationError")
_STARTED_WITH = os.environ.get("MALLOC_ARENA_MAX")
_THREADS = 16 + min(32, (os.cpu_count() or 1) + 4) + 1  # ours, asyncio's and the main one
_CLEARED = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_DIR", "WA_APP_SECRET")


class Watch:
    """What the process has, looked at again and again."""

    NAMES = ("memory, MiB", "descriptors", "tasks", "threads", "files in the targets", "Python objects, in thousands")

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = psutil.Process()
        self.looks: list[tuple[float, tuple[float, ...]]] = []

    def look(self) -> tuple[float, ...]:
        """Look once."""
        memory = self._process.memory_info().rss / 2**20
        files = sum(1 for _ in self._folder.glob("targets/*/target/*"))
        tasks = len(asyncio.all_tasks())
        blocks = sys.getallocatedblocks() / 1000
        return memory, self._process.num_fds(), tasks, threading.active_count(), files, blocks

    async def looking(self, every: float) -> AsyncGenerator[tuple[float, ...], None]:
        """Look again and again, every so many seconds."""
        while True:
            yield self.look()
            await asyncio.sleep(every)

    async def run(self) -> None:
        """Keep what is seen."""
        async for looked in self.looking(_EVERY):
            self.looks.append((time.monotonic() / 60, looked))

    def slopes(self) -> list[float]:
        """Return by how much each grew in a minute of the second half."""
        minutes, rows = zip(*self.looks[len(self.looks) // 2 :], strict=True)
        return [statistics.linear_regression(minutes, column).slope for column in zip(*rows, strict=True)]


class Loop(asyncio.SelectorEventLoop):
    """An event loop that cannot find a host's address now and then."""

    lost = 0

    def __init__(self, chance: random.Random, rate: float) -> None:
        super().__init__()
        self._chance, self._rate = chance, rate

    async def getaddrinfo(self, *args: Any, **options: Any) -> Any:
        """Look a name up."""
        if self._chance.random() < self._rate:
            self.lost += 1
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return await super().getaddrinfo(*args, **options)


async def _soaked(folder: Path, base_url: str, options: argparse.Namespace) -> tuple[Soak, Watch, list[Any]]:
    """Work for as long as asked; return what became of it, and the looks before, at the end and after."""
    tokens = itertools.cycle(TOKENS)

    async def token() -> str:
        return next(tokens)

    settings = Settings(
        base_url=base_url,
        api_version=API_VERSION,
        connect_timeout=_PATIENCE,
        read_timeout=_PATIENCE,
        write_timeout=_PATIENCE,
        backoff=_BACKOFF,
    )
    watch = Watch(folder)
    async with MediaApi(token, NUMBER, settings=settings) as client:
        soak = Soak(folder, client, random.Random(options.seed))
        asyncio.get_running_loop().set_exception_handler(lambda _, context: soak.complain(f"the event loop: {context}"))
        sys.unraisablehook = lambda what: soak.complain(f"{what.exc_value!r} in {what.object!r}")
        callers = [Caller(soak, number) for number in range(options.tasks)]
        before = watch.look()
        watching = asyncio.create_task(watch.run())
        await asyncio.gather(*(caller.work(time.monotonic() + options.minutes * 60) for caller in callers))
        watching.cancel()
        gc.collect()  # a task whose error nobody asked for complains now
        await asyncio.wait({watching})
        at_end = watch.look()
    latest = time.monotonic() + 5
    async for looked in watch.looking(0.05):  # nobody tells what is still closing
        if looked[1:3] == before[1:3] or time.monotonic() > latest:
            break
    return soak, watch, [before, at_end, watch.look()]


def _unexcused(soak: Soak, journal: dict[str, list[tuple[str, str]]]) -> Iterator[Failure]:
    """Find the calls that failed without a reason; several troubles are one, as they may be more than retries cure."""
    at_connect = {name for _, name in journal["-"]}  # before anything told which call it was
    for failure in soak.failed:
        met = journal.get(str(failure.call), [])
        excused = len(met) > 1 or (failure.once and (met or (failure.error == "NetworkError" and at_connect)))
        excused = excused and failure.error not in _NEVER
        for kind, name in met:
            possible = [trouble for trouble in TROUBLES if trouble.name == name]
            excused = excused or any(it.excuses({kind, *failure.ways}, failure.error) for it in possible)
        for told, name in (
            ("Connection refused", "connection refused"),
            ("not connect: the server does not speak TLS", "no TLS spoken"),
        ):
            excused = excused or (told in failure.told and name in at_connect)
        if not excused:
            yield failure


def _judge_emulator(soak: Soak) -> None:
    """Compare what the emulator holds in the end with what the client was told."""
    with sqlite3.connect(soak.folder / "emulator" / "emulator.sqlite3") as database:
        rows = database.execute("SELECT id, filename, sha256 FROM media").fetchall()
    database.close()
    shelf = {media.id: media for media in soak.shelf}
    for media_id, filename, sha256 in rows:
        call = int(filename.removesuffix(".txt"))
        media = shelf.pop(media_id, None)
        if media is None and call not in soak.doubtful:
            soak.complain("the emulator has media that was said not to be there", call)
        if media is not None and (media.call, media.sha256) != (call, sha256):
            soak.complain("the emulator has other media than was sent", call)
    for media in shelf.values():
        soak.complain("the emulator does not have the media", media.call)


def _judge_process(soak: Soak, watch: Watch, looks: list[Any], options: argparse.Namespace) -> None:
    """Complain of what leaked."""
    before, _, after = looks
    if after[1:3] != before[1:3]:
        soak.complain(f"left open: {after[1] - before[1]:.0f} descriptors, {after[2] - before[2]:.0f} tasks")
    if after[3] > _THREADS:
        soak.complain(f"{after[3]} threads, and {_THREADS} are enough")
    if after[4] != options.tasks:
        soak.complain(f"{after[4]} files in the targets, where {options.tasks} belong")
    for name, slope in zip(Watch.NAMES, watch.slopes(), strict=True):
        if options.minutes >= _LONG and slope > _STEEPEST.get(name, math.inf):
            soak.complain(f"{name}: {slope:+.2f} a minute")


def _judge(soak: Soak, watch: Watch, looks: list[Any], options: argparse.Namespace) -> Counter[str]:
    """Complain of what shows only in the end; return how often each trouble happened."""
    journal: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for line in (soak.folder / "journal").read_text().splitlines():
        call, kind, name = line.split("\t")
        journal[call].append((kind, name))
    _judge_emulator(soak)
    calls = sum(counts.total() for counts in soak.outcomes.values())
    late = 0
    for failure in _unexcused(soak, journal):
        late += failure.error == "TransferTimeoutError"
        if failure.error != "TransferTimeoutError":
            soak.complain(f"nothing excuses {failure.error}, {failure.ways}: {failure.told}", failure.call)
    several = sum(len(journal.get(str(failure.call), [])) > 1 for failure in soak.failed)
    print(f"{len(soak.failed):,} of {calls:,} calls failed, {several:,} of them after several troubles")
    print(f"{late} timed out without an excuse, which is the machine's doing")
    if late > calls * _TOO_BUSY:
        soak.complain("the machine is too busy for this")
    names = Counter(name for met in journal.values() for _, name in met)
    if names["LEAK"]:
        soak.complain(f"a host that is not trusted was asked {names['LEAK']} times")
    _judge_process(soak, watch, looks, options)
    for number, what in soak.wrong:
        met = [f"{kind}: {name}" for kind, name in journal.get(str(number), [])]
        print(f"WRONG: {what}" + (f" (call {number}, which met {met or 'no trouble'})" if number is not None else ""))
    return names


def _print(soak: Soak, watch: Watch, looks: list[Any], requests: Counter[str], options: argparse.Namespace) -> None:
    """Print the tables."""
    machine, calls = describe(), sum(counts.total() for counts in soak.outcomes.values())
    where = f"{machine['processor']}, {machine['processors']} processors; {machine['python']}"
    print(f"\n{options.minutes:g} minutes, {options.tasks} tasks, seed {options.seed}; {where}")
    repeated = requests.pop("repeated", 0)
    print(f"{calls:,} calls, {calls / options.minutes / 60:.0f} a second")
    print(f"{requests.total():,} requests, of which {repeated:,} were made again\n")
    print("| | before | middle | end | closed | a minute, second half |\n|---|---:|---:|---:|---:|---:|")
    before, at_end, after = looks
    middle = watch.looks[len(watch.looks) // 2][1]
    for name, slope, *values in zip(Watch.NAMES, watch.slopes(), before, middle, at_end, after, strict=True):
        cells = " | ".join(f"{value:,.1f}".removesuffix(".0") for value in values)
        print(f"| {name} | {cells} | {slope:+.2f} |")
    print("\n| calls | how many | what became of them |\n|---|---:|---|")
    for operation, counts in soak.outcomes.items():
        print(f"| {operation} | {counts.total():,} | {_listed(counts)} |")


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in counts.most_common())


def main() -> None:
    """Read the command line, soak, judge, tell."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--tasks", type=int, default=32, help="that make calls (default 32)")
    parser.add_argument("--faults", type=float, default=2, metavar="PERCENT", help="of the requests (default 2)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="chooses calls and faults")
    parser.add_argument("--tls", action="store_true", help="https instead of http")
    options = parser.parse_args()
    if os.environ.setdefault("MALLOC_ARENA_MAX", "1") != _STARTED_WITH:  # it is read when a process starts
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks.soak", *sys.argv[1:]])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # so that the server is ended, too
    warnings.simplefilter("error", ResourceWarning)
    for name in _CLEARED:
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder, tls, rate = Path(name), [], options.faults / 100
        if options.tls:
            certify(folder)
            tls = [str(folder / "certificate.pem"), str(folder / "key.pem")]
            os.environ["SSL_CERT_FILE"] = tls[0]
        loop = Loop(random.Random(options.seed), _LOST_NAMES if rate else 0)
        serving, runner = running(folder, rate, options.seed, tls), asyncio.Runner(loop_factory=lambda: loop)
        with serving as (port, requests), runner:
            base_url = f"http{'s' if tls else ''}://localhost:{port}"
            soak, watch, looks = runner.run(_soaked(folder, base_url, options))
        troubles = _judge(soak, watch, looks, options) + Counter({"name not found": loop.lost})
    _print(soak, watch, looks, requests, options)
    print(f"\n{troubles.total():,} troubles: {_listed(troubles)}")
    if soak.wrong:
        sys.exit(f"{len(soak.wrong)} things were wrong")
    print("\nnothing was wrong")


if __name__ == "__main__":
    main()
