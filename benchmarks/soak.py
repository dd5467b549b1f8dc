"""
`python -m benchmarks soak`: a client that works for a long time while everything around it fails.

Tasks upload, look up, download and delete media over https at an emulator in a process of its own, which does something wrong to
a share of the requests. Others reuse media by libraries and journals, while Redis is killed and stopped, the clock jumps, files
are damaged and disks are full. Some calls are cancelled at a random moment.

Each outcome is judged: a success by the bytes that the emulator holds or that lie in the target folder, an error by the faults
that the call met and by whether `maybe_applied` was true, a cancellation by what it leaves. The soak ends at the first wrong
outcome. The exit status is 1 if there is one, if descriptors or tasks are left, or if anything grows.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from meta_media import MediaApi, Settings

from .measure import run_on
from .plan import LOOPS
from .processes import certify, python
from .soak_callers import Caller, Failure, Soak
from .soak_growth import BOUNDS, EVERY, Growth, Slope
from .soak_state import Keeper, Redis, connected, jump, jumping_clock, stores
from .troubles import Trouble, met_by_call

_WAIT_TIMEOUT: Final = 2.0  # seconds of each wait; only a stall takes as long
_REMEMBERED: Final = 100_000  # media ids, the last that a client deleted: it starts with them, for they are no growth
_HARDSHIP_EVERY: Final = 20.0  # seconds, about
_TOO_BUSY: Final = 0.002  # of the calls may time out without a fault, which is the machine's doing
_NEVER: Final = frozenset({"CorruptedMediaError", "UnsupportedMediaTypeError", "FileTooLargeError", "StorageError"})


def _judge_failures(soak: Soak, met: dict[str, list[Trouble]]) -> None:
    """Record the errors that no fault explains."""
    late, failures = 0, [Failure(*it) for it in soak.failures.read()]
    for failure in failures:
        troubles = met.get(str(failure.call), [])
        enough = failure.single or len(troubles) > 1
        stale = (
            failure.single and failure.error == "NetworkError"
        )  # of a kept connection that another call's fault closed
        explained = stale or any(failure.error in it.error.split() and (it.at_once or enough) for it in troubles)
        if failure.error == "TransferTimeoutError" and not explained:
            late += 1
        elif failure.error in _NEVER or not (explained or (enough and troubles)):
            names = [trouble.name for trouble in troubles] or "no fault"
            soak.wrong.append(f"call {failure.call}, {failure.operation}, which met {names}: {failure.message}")
    soak.expect(late <= len(failures) * 0.1 + _TOO_BUSY * soak.outcomes.total(), f"{late} timed out without a fault")


def _judge_emulator(soak: Soak) -> None:
    """Compare what the emulator holds in the end with what the outcomes say."""
    with sqlite3.connect(next((soak.folder / "data").glob("*.sqlite*"))) as database:
        rows = database.execute("SELECT id, filename, sha256 FROM media").fetchall()
    database.close()
    shelf, doubtful = {media.id: media for media in soak.shelf}, set(soak.doubtful.read())
    for media_id, filename, sha256 in rows:
        call, media = int(filename.removesuffix(".txt")), shelf.pop(media_id, None)
        soak.expect(media is not None or call in doubtful, f"call {call}: the emulator holds an unreported upload")
        soak.expect(media is None or media.sha256 == sha256, f"call {call}: the emulator holds other bytes")
    for media in shelf.values():
        soak.wrong.append(f"call {media.call}: the emulator does not hold the upload")


async def _soaked(folder: Path, server: dict[str, str], options: argparse.Namespace) -> tuple[Soak, dict[str, Slope]]:
    """Work for as long as asked, or until something is wrong; judge what is left in this process."""
    timeouts = dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), _WAIT_TIMEOUT)
    settings = Settings(base_url=server["base_url"], backoff=0.2, **timeouts)  # type: ignore[arg-type]
    growth, redis, ready = Growth(), Redis(folder), asyncio.Event()
    async with AsyncExitStack() as stack:
        move = stack.enter_context(jumping_clock())
        client = await stack.enter_async_context(
            MediaApi(server["access_token"], server["phone_number_id"], settings=settings)
        )
        shared = await stack.enter_async_context(stores(folder, redis))
        soak = Soak(folder, client, random.Random(options.seed), server["access_token"])
        asyncio.get_running_loop().set_exception_handler(lambda _, it: soak.wrong.append(f"the event loop: {it}"))
        for number in range(_REMEMBERED):
            await client.shared.deleted.add(f"earlier-{number}")
        before = growth.now()
        until = time.monotonic() + options.minutes * 60
        hardships = [
            asyncio.create_task(redis.trouble(soak, _HARDSHIP_EVERY, ready)),
            asyncio.create_task(jump(soak, move, _HARDSHIP_EVERY / 2)),
        ]
        await ready.wait()
        keepers = max(1, options.tasks // 4)
        callers: list[Caller] = [Keeper(soak, it, redis, shared) for it in range(keepers)]
        callers += [Caller(soak, it) for it in range(keepers, options.tasks)]
        working = [asyncio.create_task(caller.work(until)) for caller in callers]
        while (seen := await asyncio.wait(working, timeout=EVERY))[1]:
            if not seen[0]:  # in the end, tasks are gone one by one
                await soak.resting(lambda: connected(shared["redis"]), growth.look)
            soak.wrong += [f"a hardship ended: {it.exception()!r}" for it in hardships if it.done()]
        for task in hardships:
            task.cancel()
        await asyncio.wait(hardships)
    gc.collect()  # a task whose error was never retrieved complains now
    await asyncio.sleep(0.5)  # closing takes a few turns of the loop
    after, slopes = growth.now(), growth.slopes()
    soak.expect(after <= before, f"descriptors and tasks: {before} before, {after} afterwards")
    soak.expect(not (steep := growth.too_steep()), f"grew in a minute by {steep}, of {BOUNDS}")
    return soak, slopes


def _report(
    soak: Soak, requests: int, met: dict[str, list[Trouble]], slopes: dict[str, Slope], options: argparse.Namespace
) -> None:
    calls = soak.outcomes.total()
    print(
        f"{options.minutes:g} minutes, {options.tasks} tasks, {options.loop}, seed {options.seed}: {calls:,} calls, {requests:,} requests"
    )
    _print_table("outcomes", soak.outcomes)
    _print_table("faults", Counter(trouble.name for troubles in met.values() for trouble in troubles))
    _print_table("hardships", soak.hardships)
    _print_table("growth in a minute", slopes)
    _print_table("verdict", {"outcomes that were judged": calls, "wrong": len(soak.wrong)})
    for line in soak.wrong[:20]:
        print(f"WRONG: {line}")
    sys.exit(1 if soak.wrong else 0)


def _print_table(title: str, rows: Mapping[str, object]) -> None:
    print(f"\n| {title} | |\n|---|---:|")
    for name, value in sorted(rows.items()):
        print(f"| {name} | {value:,} |" if isinstance(value, int) else f"| {name} | {value} |")


def main() -> None:
    """Read the command line; soak and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--tasks", type=int, default=32, help="that make calls (default 32)")
    parser.add_argument("--faults", type=float, default=2, metavar="PERCENT", help="of the requests (default 2)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="chooses calls and faults")
    parser.add_argument("--loop", choices=LOOPS, default="asyncio", help="the event loop (default asyncio)")
    options = parser.parse_args()
    if shutil.which("redis-server") is None:
        sys.exit("there is no redis-server on the PATH (Debian: apt-get install redis-server)")
    rate = options.faults / 100
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # so that the servers end, too
    warnings.simplefilter("error", ResourceWarning)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "WA_APP_SECRET", "CLOUD_API_VERSION"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        certify(folder)
        os.environ["SSL_CERT_FILE"] = str(folder / "authority.pem")
        with python("benchmarks.soak_server", name, str(rate), str(options.seed)) as (_, server):
            soak, slopes = run_on(options.loop, _soaked(folder, server, options))
        requests, met = met_by_call(folder, rate, options.seed)
        _judge_failures(soak, met)
        _judge_emulator(soak)
        _report(soak, requests, met, slopes, options)


if __name__ == "__main__":
    main()
