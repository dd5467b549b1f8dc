"""
How late the event loop runs while eight transfers of 100 MB do.

`python -m benchmarks.heartbeat` starts an emulator in a process of its own, then uploads and downloads eight files at once,
while a task on the same loop sleeps 5 ms at a time and notes how late it wakes. `--limit` makes it fail above so many ms.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio

from meta_media import MediaApi, Settings

SIZE = 100 * 2**20
TRANSFERS = 8
BEAT = 0.005  # seconds

SERVER = """
import anyio
from meta_media.emulator import Emulator

async def main():
    async with Emulator() as emulator:
        print(emulator.base_url, emulator.access_token, emulator.phone_number_id, flush=True)
        await emulator.serve_forever()

anyio.run(main)
"""


async def beat(lateness: list[float]) -> None:
    """Sleep, and note how much longer it took than asked, in ms."""
    while True:
        started = time.perf_counter()
        await asyncio.sleep(BEAT)
        lateness.append((time.perf_counter() - started - BEAT) * 1000)


async def measured(name: str, work: Callable[[int], Coroutine[Any, Any, object]]) -> float:
    """Run eight transfers beside a heartbeat and print what it noticed; return the worst, in ms."""
    lateness: list[float] = []
    heart = asyncio.create_task(beat(lateness))
    started = time.perf_counter()
    async with anyio.create_task_group() as group:
        for number in range(TRANSFERS):
            group.start_soon(work, number)
    seconds = time.perf_counter() - started
    heart.cancel()
    lateness.sort()
    ninety_ninth = lateness[int(len(lateness) * 0.99)]
    rate = TRANSFERS * SIZE / 2**20 / seconds
    print(
        f"{name:9} {TRANSFERS} x 100 MiB  {rate:6.0f} MiB/s  lateness ms: median {lateness[len(lateness) // 2]:.1f}"
        f"  99th percentile {ninety_ninth:.1f}  worst {lateness[-1]:.1f}  ({len(lateness)} beats)"
    )
    return lateness[-1]


async def transfers(base_url: str, token: str, number: str, folder: Path) -> float:
    """Upload eight files from disk, then download them to disk."""
    paths = [folder / f"{number}.txt" for number in range(TRANSFERS)]
    for path in paths:
        path.write_bytes(os.urandom(SIZE // 2).hex().encode())
    ids: dict[int, str] = {}
    async with MediaApi(token, number, settings=Settings(base_url=base_url)) as media:
        await media.upload(b"warm up")

        async def upload(index: int) -> None:
            ids[index] = (await media.upload(paths[index])).id

        async def download(index: int) -> None:
            await media.download(ids[index], folder / f"copy-{index}.txt")

        return max(await measured("upload", upload), await measured("download", download))


def main() -> None:
    """Measure, print, and fail above the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=float, default=float("inf"), help="ms that the worst beat may be late")
    limit = parser.parse_args().limit
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as server,
    ):
        assert server.stdout is not None
        try:
            base_url, token, number = server.stdout.readline().split()
            worst = asyncio.run(transfers(base_url, token, number, Path(folder)))
        finally:
            server.terminate()
    sys.exit(worst > limit)


if __name__ == "__main__":
    main()
