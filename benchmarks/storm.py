"""
`python -m benchmarks storm`: clients whose callers give up all the time.

Tasks look media up at a server that takes up to 20 ms. In the storm, half of the calls have a random deadline, which may end
them at any moment. Calm stretches without deadlines before and after show whether the client has lost connections or slots on
the way. Stock httpx may hang. The exit status is 1 if meta_media loses, leaves or mistakes anything.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import itertools
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx

from meta_media import MediaApi, Settings
from tests.support.servers import Received, Server, info
from tests.support.stepping import descriptors

from .measure import run_on
from .plan import LOOPS

TASKS = 32  # and as many connections
_CALM_COUNT = 500  # calls before, and after
_LONGEST_RESPONSE, _LONGEST_DEADLINE = 0.020, 0.040  # seconds
_CALL_TIMEOUT = 10.0  # seconds for a call without a deadline
_DEAD_COUNT = 500  # calls in a row without a response, after which a client is dead
_IDS = map(str, itertools.count(10**15))
Call = Callable[[str], Awaitable[str]]  # looks an id up, and returns the id of the response


async def _slow(request: Received, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(random.uniform(0, _LONGEST_RESPONSE))
    writer.write(info("https://lookaside.fbsbx.com/", media_id=request.target.rpartition("/")[2]))


@contextlib.asynccontextmanager
async def _client(name: str, url: str) -> AsyncIterator[Call]:
    settings = Settings(base_url=url, concurrency=TASKS)
    limits, timeout = httpx.Limits(max_connections=TASKS), httpx.Timeout(_CALL_TIMEOUT, pool=2)
    async with contextlib.AsyncExitStack() as stack:
        client = httpx.AsyncClient(limits=limits, timeout=timeout)
        await stack.enter_async_context(client)
        injected = client if name.endswith("over httpx") else None
        media = await stack.enter_async_context(MediaApi("token", "1", settings=settings, http_client=injected))

        async def call(media_id: str) -> str:
            if name == "httpx":
                return str((await client.get(f"{url}/v25.0/{media_id}")).json()["id"])
            return (await media.get_info(media_id)).id

        yield call


async def _calls(call: Call, count: int, outcomes: Counter[str], *, impatient: float) -> float:
    """Make calls from all tasks, a share of them with a deadline; return finished calls per second. A dead client ends it."""
    left, started, before, silent = iter(range(count)), time.perf_counter(), outcomes["finished"], 0

    async def lane() -> None:
        nonlocal silent
        for _ in left:
            hurried = random.random() < impatient
            media_id, limit = next(_IDS), random.uniform(0, _LONGEST_DEADLINE) if hurried else _CALL_TIMEOUT
            try:
                async with asyncio.timeout(limit):
                    outcome = "finished" if await call(media_id) == media_id else "another call's response"
            except TimeoutError:
                outcome = "out of time" if hurried else "never answered"
            except Exception as error:  # noqa: BLE001 - every kind is counted
                outcome = type(error).__name__
            outcomes[outcome] += 1
            silent = 0 if outcome == "finished" else silent + 1
            if silent >= _DEAD_COUNT:
                return

    await asyncio.gather(*(lane() for _ in range(TASKS)))
    return (outcomes["finished"] - before) / (time.perf_counter() - started)


async def _storm(name: str, count: int) -> bool:
    """Print a contender's line of the table; return whether it lost, left or mistook anything."""
    outcomes: Counter[str] = Counter()
    files, tasks = descriptors(), asyncio.all_tasks()
    async with Server(_slow) as server, _client(name, server.base_url) as call:
        calm = await _calls(call, _CALM_COUNT, outcomes, impatient=0)
        rate = await _calls(call, count, outcomes, impatient=0.5)
        after = await _calls(call, _CALM_COUNT, outcomes, impatient=0)
    gc.collect()
    await asyncio.sleep(0.2)  # closing takes a few turns of the loop
    left = len(descriptors() - files) + len(asyncio.all_tasks() - tasks)
    finished, late = outcomes.pop("finished"), outcomes.pop("out of time", 0)
    others = ", ".join(f"{number:,} {outcome}" for outcome, number in outcomes.items()) or "none"
    dead = finished + late + outcomes.total() < count + 2 * _CALM_COUNT
    print(f"| {name} | {calm:,.0f} | {rate:,.0f} | {after:,.0f}{' (dead)' * dead} | {late:,} | {others} | {left} |")
    return bool(dead or outcomes or left)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks storm", description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000, help="in the storm (default 20000)")
    parser.add_argument("--loop", choices=LOOPS, default="asyncio", help="the event loop (default asyncio)")
    options = parser.parse_args()
    print("| | calm/s | finished/s in the storm | calm/s afterwards | out of time | other outcomes | left open |")
    print(f"|---|{'---:|' * 6}")
    lost = [
        name
        for name in ("httpx", "meta_media", "meta_media over httpx")
        if run_on(options.loop, _storm(name, options.calls))
    ]
    if ours := [name for name in lost if name != "httpx"]:
        sys.exit(f"lost, left or mistook something: {', '.join(ours)}")
