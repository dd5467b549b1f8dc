"""Runs beside what one would write instead, what journal and library add to them, and how they cost more items."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ..plan import SMALL
from ..rounds import installed, photograph
from ..servers import ServerError, ended, python_server
from .contents import content
from .costs import Cost, measured, named

PEERS = {"meta_media": "ours", "httpx": "with_httpx", "aiohttp": "with_aiohttp", "pywa": "with_pywa"}
_BLOCKING = ("with_httpx", "with_pywa")
_SOURCES = {"bytes": "from memory", "path": "from disk"}
_WAYS = ("run", "journal", "memory", "sqlite", "redis")
_STORES = {"memory": "library in memory", "sqlite": "library in SQLite", "redis": "library in Redis"}
_GROWTH = (1_000, 10_000, 100_000)
_TINY = 1024  # bytes: the run is what is measured
_SETTLED = 1000.0  # seconds ago that the files were written: what has only just changed is hashed again
_PATIENCE = 30.0  # seconds a server may take to start
_MOST_GROWTH = 1.25  # times the cost of an item among a thousand that one among a hundred thousand may have

Found = defaultdict[tuple[str, str], list[float]]


class Row(NamedTuple):
    """What is measured once in each round."""

    name: str
    cost: Cost


def _measured(rows: Sequence[Row], rounds: int) -> Found:
    """Measure all rows in each round, in another order each time; return values by row and by what they are."""
    found: Found = defaultdict(list)
    for number in range(rounds):
        for done, row in enumerate(random.Random(number).sample(rows, len(rows))):
            if sys.stderr.isatty():
                where = f"round {number + 1} of {rounds}, {done + 1} of {len(rows)}"
                print(f"\r\x1b[K{where}: {row.name}", end="", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(prefix="many-", dir=row.cost.folder) as own:
                for shared in ("photo.jpg", "sources"):
                    (Path(own) / shared).symlink_to(Path(row.cost.folder) / shared)
                for when, values in measured(replace(row.cost, folder=own)).items():
                    for name, value in values.items():
                        found[row.name, f"{when} {name}"].append(value)
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    return found


@contextlib.contextmanager
def _served() -> Iterator[tuple[Path, str]]:
    """Run the lean upload server; give a folder and the server's URL."""
    with (
        tempfile.TemporaryDirectory(prefix="many-") as folder,
        python_server("benchmarks.upload_server") as (_, said),
    ):
        yield Path(folder), f"http://127.0.0.1:{said['port']}"


def peers(items: int, concurrency: int, rounds: int) -> int:
    """Measure `upload_many` beside a semaphore over each peer; return the exit status."""
    here = [name for name in PEERS if name == "meta_media" or installed(name)]
    with _served() as (folder, url):
        photograph(folder / "photo.jpg")
        common: dict[str, Any] = {
            "items": items,
            "size": SMALL,
            "concurrency": concurrency,
            "base_url": url,
            "folder": str(folder),
        }
        rows = [
            Row(f"{name} {sources}", Cost(way=PEERS[name], sources=sources, **common))
            for name in here
            for sources in _SOURCES
        ]
        found = _measured(rows, rounds)
    print(f"{items:,} uploads of 64 KiB, {concurrency} at a time; medians of {rounds} rounds, and least and most\n")
    _print_rates(rows, found, items)
    _print_ratios([name for name in here if name != "meta_media"], found, items)
    if missing := [name for name in PEERS if name not in here]:
        print(f"\nNot measured, because not installed: {', '.join(missing)}.")
    return 0


def _print_rates(rows: Sequence[Row], found: Found, items: int) -> None:
    print("| | items a second | the client's processor, µs per item | memory over idle, MiB |\n|---|---:|---:|---:|")
    for name, cost in rows:
        rates = [items / seconds for seconds in found[name, "new seconds"]]
        cpu = statistics.median(found[name, "new cpu_seconds"]) / items * 1e6
        memory = statistics.median(found[name, "new memory"]) / 2**20
        spread = f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"
        blocks = " ⊘" if cost.sources == "path" and cost.way in _BLOCKING else ""
        shown = f"{name.partition(' ')[0]}, {_SOURCES[cost.sources]}{blocks}"
        print(f"| {shown} | {spread} | {cpu:,.0f} | {memory:,.1f} |")
    print("\n⊘ reads files on the event loop")


def _print_ratios(others: Sequence[str], found: Found, items: int) -> None:
    print(f"\n| `upload_many` | items a second | {' | '.join(f'to {name}' for name in others)} |")
    print("|---|---:|" + "---:|" * len(others))
    for sources, shown in _SOURCES.items():
        ours = statistics.median(found[f"meta_media {sources}", "new seconds"])
        ratios = [statistics.median(found[f"{name} {sources}", "new seconds"]) / ours for name in others]
        print(f"| 64 KiB {shown} | {items / ours:,.0f} | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |")


@contextlib.contextmanager
def _redis() -> Iterator[str]:
    """Run a Redis server that keeps nothing on disk; give its URL, or nothing where there is no such program."""
    program = shutil.which("redis-server")
    if program is None or not installed("redis"):
        yield ""
        return
    with tempfile.TemporaryDirectory(prefix="many-redis-") as folder:
        where = Path(folder) / "socket"
        command = [program, "--port", "0", "--unixsocket", str(where), "--save", "", "--appendonly", "no"]
        with ended(subprocess.Popen([*command, "--dir", folder], stdout=subprocess.DEVNULL, text=True)) as process:
            deadline = time.monotonic() + _PATIENCE
            while not where.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise ServerError("redis-server did not start")
                time.sleep(0.05)  # nobody tells
            yield f"unix://{where}"


def overheads(items: int, concurrency: int, rounds: int) -> int:
    """Measure what a journal and a library add to each item of a run; return the exit status."""
    with _served() as (folder, url), _redis() as redis:
        (folder / "sources").mkdir()
        for number in range(items + 2 * concurrency):
            path = named(folder, number)
            path.write_bytes(content(number, SMALL))
            before = time.time() - _SETTLED
            os.utime(path, (before, before))
        common: dict[str, Any] = {
            "items": items,
            "size": SMALL,
            "concurrency": concurrency,
            "base_url": url,
            "folder": str(folder),
        }
        rows = [
            Row(way, Cost(way=way, sources="files", redis=redis, again=way != "run", **common))
            for way in _WAYS
            if redis or way != "redis"
        ]
        found = _measured(rows, rounds)

    def each(way: str, what: str) -> float:
        return statistics.median(found[way, what]) / items * 1e6

    print(f"{items:,} uploads of 64 KiB from files, {concurrency} at a time; medians of {rounds} rounds, µs per item\n")
    print("| | first run: more than without | its processor time | second run: all of it | its processor time |")
    print("|---|---:|---:|---:|---:|")
    print(f"| without (in all) | {each('run', 'new seconds'):,.0f} | {each('run', 'new cpu_seconds'):,.0f} | | |")
    for way, _ in rows[1:]:
        more = [each(way, f"new {what}") - each("run", f"new {what}") for what in ("seconds", "cpu_seconds")]
        again = [each(way, f"again {what}") for what in ("seconds", "cpu_seconds")]
        cells = " | ".join([*(f"{value:+,.0f}" for value in more), *(f"{value:,.0f}" for value in again)])
        print(f"| {_STORES.get(way, way)} | {cells} |")
    if not redis:
        print("\nRedis was not measured: there is no redis-server on PATH, or no redis-py.")
    return 0


def growth(most: int, concurrency: int, rounds: int) -> int:
    """Measure an item's cost in a run of a thousand, ten thousand, a hundred thousand; return the exit status."""
    lengths = [items for items in _GROWTH if items <= most]
    with _served() as (folder, url):
        common: dict[str, Any] = {"size": _TINY, "concurrency": concurrency, "base_url": url, "folder": str(folder)}
        ways = _WAYS[:2]
        rows = [
            Row(f"{way} {items}", Cost(way=way, sources="generator", items=items, **common))
            for way in ways
            for items in lengths
        ]
        found = _measured(rows, rounds)
    print(
        f"Uploads of 1 KiB from a generator, {concurrency} at a time; medians of {rounds} rounds, seconds per 1,000 items\n"
    )
    print(
        "| | "
        + " | ".join(f"{items:,}" for items in lengths)
        + " | last to first |\n|---|---:|"
        + "---:|" * len(lengths)
    )
    linear = True
    for way in ways:
        for what, shown in (("seconds", ""), ("cpu_seconds", ", processor time")):
            each = [statistics.median(found[f"{way} {items}", f"new {what}"]) * 1000 / items for items in lengths]
            ratio = each[-1] / each[0]
            linear = linear and (what == "seconds" or ratio <= _MOST_GROWTH)
            name = "upload_many" if way == "run" else "with a journal"
            print(f"| {name}{shown} | {' | '.join(f'{value:.3f}' for value in each)} | {ratio:.2f} |")
    print("\nlinear" if linear else f"\nWRONG: not linear; processor time of an item grew beyond {_MOST_GROWTH} times")
    return 0 if linear else 1
