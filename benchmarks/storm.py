"""
`python -m benchmarks.storm`: what becomes of a client whose callers give up all the time.

Many tasks look media up and upload small files at a slow server, half of the calls under a random deadline which may end them
anywhere between the first byte of a connection and the last one of a reply. A client that loses something each time (a
connection, a place in a queue, a task) gets slower from tenth to tenth, and dies in the end. Before and after the storm there
is a calm stretch without deadlines, which tells the client's drift from that of the machine.

The other half of the callers is patient. Were nobody, a machine that is a little too slow would finish nothing at all: those
who give up cost the next one a new connection, which makes more of them give up. That says nothing about the client.

The exit status is 1 if meta_media loses, leaves or mistakes anything.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib.util
import itertools
import json
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from meta_media import MediaApi, Settings

from .contenders import FORM, HEADERS, NUMBER, TOKEN, check
from .heartbeat import percentile
from .machine import describe
from .servers import API_VERSION, HOUSE
from .slow_server import content, running

TASKS = 64  # and as many connections
CALM = 1000  # calls without a deadline, before and after
_PATIENCE = 10.0  # seconds for a call that has to work
_STREAK = 500  # calls in a row that did not finish, after which the client is asked whether it lives
_IMPATIENT = 0.5  # of the calls
_EXPECTED = ("finished", "out of time")

Call = Callable[[str], Awaitable[str]]  # looks up or uploads the media of an id, and gives the id that was answered


@contextlib.asynccontextmanager
async def _meta_media(url: str, client: httpx.AsyncClient | None = None) -> AsyncIterator[Call]:
    settings = Settings(base_url=url, api_version=API_VERSION, concurrency=TASKS)
    async with MediaApi(TOKEN, NUMBER, settings=settings, http_client=client) as media:

        async def call(media_id: str) -> str:
            if int(media_id) % 2:
                return (await media.upload(content(media_id), filename="call.txt", mime_type="text/plain")).id
            return (await media.get_info(media_id)).id

        yield call


@contextlib.asynccontextmanager
async def _injected(url: str) -> AsyncIterator[Call]:
    limits = httpx.Limits(max_connections=TASKS)
    async with httpx.AsyncClient(limits=limits) as client, _meta_media(url, client) as call:
        yield call


@contextlib.asynccontextmanager
async def _httpx(url: str) -> AsyncIterator[Call]:
    limits, timeout = httpx.Limits(max_connections=TASKS), httpx.Timeout(5, pool=2)
    async with httpx.AsyncClient(limits=limits, timeout=timeout, headers=HEADERS) as client:

        async def call(media_id: str) -> str:
            if int(media_id) % 2:
                files = {"file": ("call.txt", content(media_id), "text/plain")}
                form = FORM | {"type": "text/plain"}
                reply = await client.post(f"{url}/{API_VERSION}/{NUMBER}/media", files=files, data=form)
            else:
                reply = await client.get(f"{url}/{API_VERSION}/{media_id}")
            return str(reply.raise_for_status().json()["id"])

        yield call


@contextlib.asynccontextmanager
async def _aiohttp(url: str) -> AsyncIterator[Call]:
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=TASKS), headers=HEADERS) as session:

        async def call(media_id: str) -> str:
            if int(media_id) % 2:
                form = aiohttp.FormData(FORM | {"type": "text/plain"})
                form.add_field("file", content(media_id), filename="call.txt", content_type="text/plain")
                request = session.post(f"{url}/{API_VERSION}/{NUMBER}/media", data=form)
            else:
                request = session.get(f"{url}/{API_VERSION}/{media_id}")
            async with request as reply:
                reply.raise_for_status()
                return str((await reply.json())["id"])

        yield call


CONTENDERS = {"meta_media": _meta_media, "meta_media over httpx": _injected, "httpx": _httpx, "aiohttp": _aiohttp}


class Storm:
    """
    Calls of one client, from many tasks at a time.

    Attributes:
        outcomes, calm: What became of calls under deadlines, and of others: `_EXPECTED`, or the name of an error.
        overdue: How late calls gave up, in milliseconds after their deadline.
        died: After how many calls nothing was ever answered again.
        marks: Seconds, processor seconds and calls finished, at the start and after each tenth.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._ids = map(str, itertools.count(10**15))
        self._heard = 0  # how many calls were over when one was last answered
        self.outcomes: Counter[str] = Counter()
        self.calm: Counter[str] = Counter()
        self.overdue: list[float] = []
        self.died: int | None = None
        self.marks: list[tuple[float, float, int]] = []

    async def rest(self, calls: int) -> float:
        """Make calls without deadlines; return how many there were in a second."""
        left, started = iter(range(calls)), time.perf_counter()

        async def lane() -> None:
            for _ in left:
                await self.one(_PATIENCE, self.calm)

        await asyncio.gather(*(lane() for _ in range(TASKS)))
        return calls / (time.perf_counter() - started)

    async def rage(self, deadlines: Sequence[float]) -> None:
        """Make a call under each deadline, or as many as the client lives to see."""
        left = iter(deadlines)
        self._mark()
        while self.outcomes.total() < len(deadlines) and self.died is None:
            await asyncio.gather(*(self._lane(left, len(deadlines) / 10) for _ in range(TASKS)))
            if self._silent:
                answered = self.calm["finished"]
                await self.rest(TASKS)
                self.died = self._heard if self.calm["finished"] == answered else None
                self._heard = self.outcomes.total()

    @property
    def _silent(self) -> bool:
        return self.outcomes.total() - self._heard >= _STREAK

    async def _lane(self, left: Iterator[float], tenth: float) -> None:
        while not self._silent and (deadline := next(left, None)) is not None:
            if await self.one(deadline, self.outcomes):
                self._heard = self.outcomes.total()
            if self.outcomes.total() >= tenth * len(self.marks):
                self._mark()

    def _mark(self) -> None:
        self.marks.append((time.perf_counter(), time.process_time(), self.outcomes["finished"]))

    async def one(self, limit: float, outcomes: Counter[str]) -> bool:
        """Make a call; count what became of it, and tell whether it was answered."""
        media_id, ends, outcome = next(self._ids), time.perf_counter() + limit, "finished"
        try:
            async with asyncio.timeout(limit):
                check(media_id, await self._call(media_id))
        except TimeoutError:
            outcome = "out of time" if limit < _PATIENCE else "unanswered"
            self.overdue.append((time.perf_counter() - ends) * 1000)
        except Exception as error:  # noqa: BLE001 - every kind is counted
            outcome = type(error).__name__
        outcomes[outcome] += 1
        return outcome == "finished"


def _held(before: int = 0) -> tuple[int, int]:
    """Count descriptors beyond those that were open before, and tasks beside this one."""
    return len(list(Path("/proc/self/fd").iterdir())) - before, len(asyncio.all_tasks()) - 1


async def _measure(name: str, url: str, calls: int, longest: float) -> dict[str, Any]:
    """Warm up, calm, storm, one more call, calm, close."""
    complaints: Counter[str] = Counter()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.update([context["message"]]))
    before, chance = _held()[0], random.Random(TASKS)
    async with CONTENDERS[name](url) as call:
        storm = Storm(call)
        await storm.rest(4 * TASKS)
        calm = [await storm.rest(CALM)]
        impatient = (chance.random() < _IMPATIENT for _ in range(calls))
        await storm.rage([chance.uniform(0, longest) / 1000 if it else _PATIENCE for it in impatient])
        if works := await storm.one(_PATIENCE, storm.calm):
            calm.append(await storm.rest(CALM))
        gc.collect()  # a task whose error nobody asked for complains now
        held = _held(before)
    latest = time.monotonic() + 2
    while any(_held(before)) and time.monotonic() < latest:  # noqa: ASYNC110 - nobody tells what is still closing
        await asyncio.sleep(0.01)
    said = {name: value for name, value in vars(storm).items() if not name.startswith("_")}
    said |= {"overdue": percentile(storm.overdue, 0.99), "rates": calm, "works": works}
    return said | {"calls": calls, "held": held, "left": _held(before), "complaints": complaints}


def _cells(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Say what was found of a contender."""
    outcomes, died = Counter(found["outcomes"]), found["died"]
    pairs = list(itertools.pairwise(found["marks"]))
    seconds, cpu, finished = ([later[it] - sooner[it] for sooner, later in pairs] for it in range(3))
    rates = [count / took for count, took in zip(finished, seconds, strict=True)]
    yield "calls", f"{outcomes.total():,}" + ("" if died is None else f" (**dead after {died:,}**)")
    yield "finished, out of time", ", ".join(f"{outcomes[name]:,}" for name in _EXPECTED)
    yield "overdue, 99th percentile", f"{found['overdue']:.0f} ms"
    for number in range(10):
        known = number < len(pairs)
        every = found["calls"] / 10 / seconds[number] if known else 0
        yield f"tenth {number + 1}", f"{every:,.0f} ({rates[number]:,.0f})" if known else "dead"
    yield "last tenth / first", _ratio(rates[9:], rates[:1])
    yield "tenths 9, 10 / 2, 3", _ratio(rates[8:], rates[1:3])
    yield "their processor time per call", _ratio(cpu[8:], cpu[1:3])
    yield "calm before, after", ", ".join(f"{rate:,.0f}" for rate in found["rates"])
    yield "calm after / before", _ratio(found["rates"][1:], found["rates"][:1])
    yield "next call works", "yes" if found["works"] else "**no**"
    yield "other outcomes, also in calm", _listed(_others(found))
    yield "open before closing", "{} descriptors, {} tasks".format(*found["held"])
    yield "left after closing", "{} descriptors, {} tasks".format(*found["left"])
    yield "complaints of the event loop", _listed(found["complaints"])


def _others(found: dict[str, Any]) -> Counter[str]:
    storm = {name: count for name, count in found["outcomes"].items() if name not in _EXPECTED}
    return Counter(storm) + Counter({name: count for name, count in found["calm"].items() if name != "finished"})


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"


def _ratio(later: list[float], sooner: list[float]) -> str:
    return f"{statistics.median(later) / statistics.median(sooner):.2f}" if later and all(sooner) else "none"


def _table(found: dict[str, dict[str, Any]], scheme: str) -> str:
    machine, columns = describe(), [dict(_cells(one)) for one in found.values()]
    where = f"{machine['processor']}, {machine['processors']} processors; {machine['python']}"
    lines = [f"{TASKS} tasks over {scheme}; {where}. Per second: all calls, and in brackets those that finished.\n"]
    lines += [f"| | {' | '.join(found)} |", "|---|" + "---:|" * len(found)]
    return "\n".join(lines + [f"| {name} | {' | '.join(it[name] for it in columns)} |" for name in columns[0]])


def _sound(found: dict[str, Any]) -> bool:
    """Tell whether nothing was lost, left or mistaken."""
    connections, tasks = found["held"]
    wrong = _others(found) or found["complaints"] or tasks or any(found["left"])
    return found["works"] and connections <= TASKS and not wrong


def _found(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run a contender in a process of its own against a new server."""
    command = [sys.executable, "-m", "benchmarks.storm", "--only", name, "--calls", str(options.calls)]
    with running(tls=options.tls) as (url, env):
        command += ["--longest", str(options.longest), "--client", url]
        ended = subprocess.run(command, cwd=HOUSE, env=env, stdout=subprocess.PIPE, timeout=1800, check=True)
    return dict(json.loads(ended.stdout))


def main() -> None:
    """Read the command line; be a contender's process, or run all and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storm", description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000, help="under a deadline, at least 100 (default 20000)")
    parser.add_argument("--longest", type=float, default=40, metavar="MS", help="the longest deadline (default 40)")
    parser.add_argument("--only", action="append", choices=CONTENDERS, metavar="NAME", help=", ".join(CONTENDERS))
    parser.add_argument("--tls", action="store_true", help="https instead of http")
    parser.add_argument("--client", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        print(json.dumps(asyncio.run(_measure(options.only[0], options.client, options.calls, options.longest))))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # so that the server is ended, too
    names = [name for name in options.only or CONTENDERS if name != "aiohttp" or importlib.util.find_spec(name)]
    found = {name: _found(name, options) for name in names}
    print(_table(found, "https" if options.tls else "http"))
    if unsound := [name for name in names if name.startswith("meta_media") and not _sound(found[name])]:
        sys.exit(f"lost, left or mistook something: {', '.join(unsound)}")


if __name__ == "__main__":
    main()
