"""A run holds no more for five thousand items than for one thousand, and does each of them once, also where it never ends."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from meta_media.emulator import Emulator
from tests.support.servers import wait_until
from tests.support.stepping import descriptors, none_added

pytestmark = pytest.mark.slow

# Has media whose ids are then in a file; when told to end, prints the path of each DELETE, in the order in which they came.
EMULATOR: Final = """
import json, sys
from pathlib import Path

import anyio
from meta_media.emulator import Emulator, EmulatorSettings

async def main():
    async with Emulator(settings=EmulatorSettings(remembered=100_000)) as emulator:
        with Path(sys.argv[1]).open("w") as ids:
            for number in range(int(sys.argv[2])):
                body, _ = await emulator.receive(b"%d" % number, "text/plain")
                message = json.loads(body)["entry"][0]["changes"][0]["value"]["messages"][0]
                ids.write(message["document"]["id"] + "\\n")
        print(emulator.base_url, emulator.access_token, emulator.phone_number_id, flush=True)
        await emulator.serve_forever()
        print(*(it.path for it in emulator.requests if it.method == "DELETE"), sep="\\n")

anyio.run(main)
"""

# Deletes what a file names, first some and then more, and prints how many of Python's objects each run held over idle, in the
# middle of what was seen in its second half; and writes each outcome to another file.
CLIENT: Final = """
import gc, json, statistics, sys
from itertools import islice
from pathlib import Path

import anyio
from meta_media import MediaApi, Settings

ids, told, url, token, number, tasks, counts, options = sys.argv[1:]

def now():
    gc.collect()
    return sys.getallocatedblocks()

async def main():
    with Path(ids).open() as lines, Path(told).open("w") as file:
        media_ids = (line.strip() for line in lines)
        async with MediaApi(token, number, settings=Settings(base_url=url, concurrency=int(tasks))) as media:
            for count in json.loads(counts):
                held, idle = [], now()
                chosen = islice(media_ids, count)
                async with media.delete_many((it for it in chosen), **json.loads(options)) as run:
                    async for outcome in run:
                        file.write(f"{outcome.index} {outcome.source} {type(outcome.error).__name__}\\n")
                        if outcome.index % (count // 16) == 0:
                            held.append(now() - idle)
                assert run.so_far.succeeded + run.so_far.failed == count
                print(statistics.median(held[len(held) // 2 :]))
                gc.freeze()

anyio.run(main)
"""


def emulated(ids: Path, media: int) -> tuple[subprocess.Popen[str], list[str]]:
    """Start an emulator that has media; return its process, and its address, token and number."""
    command = [sys.executable, "-c", EMULATOR, str(ids), str(media)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().split()


@pytest.mark.parametrize(
    ("runs", "tasks", "options", "ended"),
    [
        ((100, 1000, 5000), 64, {}, "NoneType"),
        ((100, 300, 1500), 16, {}, "MediaNotFoundError"),
        ((100, 300, 1500), 16, {"missing_ok": True, "in_order": True}, "NoneType"),
        ((100, 300, 1500), 16, {"missing_ok": True, "journal": "run.sqlite"}, "NoneType"),
    ],
    ids=["deleted", "failed", "in order", "with a journal"],
)
def test_a_run_holds_nothing_of_what_it_has_handed_out(
    runs: tuple[int, ...], tasks: int, options: dict[str, Any], ended: str, tmp_path: Path
) -> None:
    """Five times as many items cost no more objects; each item has one outcome, and the emulator saw one request for it."""
    ids, told, known = tmp_path / "ids", tmp_path / "told", not options and ended == "NoneType"
    process, address = emulated(ids, sum(runs) if known else 0)
    with process:
        try:
            if not known:
                ids.write_text("".join(f"{10**15 + number}\n" for number in range(sum(runs))))
            order = [str(ids), str(told), *address, str(tasks), json.dumps(runs), json.dumps(options)]
            command = [sys.executable, "-c", CLIENT, *order]
            client = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=240, cwd=tmp_path)
        finally:
            process.terminate()
        asked = process.communicate(timeout=60)[0].split()
    _, few, many = map(float, client.stdout.split())
    sys.stdout.write(f"{few:,.0f} objects with {runs[1]:,} items, {many:,.0f} with {runs[2]:,}\n")
    # A client keeps the ids that it has deleted, which are two objects each. An outcome that is kept is at least five more.
    assert many - few < 4 * (runs[2] - runs[1])
    expected = Counter(ids.read_text().split())
    lines = [line.split() for line in told.read_text().splitlines()]
    assert {error for _, _, error in lines} == {ended}
    assert Counter(source for _, source, _ in lines) == expected
    assert Counter(int(index) for index, _, _ in lines) == sum((Counter(range(count)) for count in runs), Counter())
    assert Counter(path.rpartition("/")[2] for path in asked) == expected


def _plain(numbers: Iterator[int], ended: list[str]) -> Iterator[str]:
    try:
        for number in numbers:
            yield str(number)
    finally:
        ended.append("plain")


async def _async(numbers: Iterator[int], ended: list[str]) -> AsyncIterator[str]:
    try:
        for number in numbers:
            yield str(number)
    finally:
        ended.append("async")


@pytest.mark.parametrize("endless", [_plain, _async])
async def test_an_endless_input_is_left_where_the_caller_leaves_it(
    endless: Callable[[Iterator[int], list[str]], Any], emulator: Emulator
) -> None:
    """No more is read than the workers are ahead by, the generator runs its `finally`, nothing is asked twice, nothing stays."""
    numbers, ended, told = itertools.count(10**15), list[str](), list[str]()
    before, tasks = descriptors(), asyncio.all_tasks()
    async with emulator.api(concurrency=8) as media:
        async with media.delete_many(endless(numbers, ended), missing_ok=True) as run:
            async for outcome in run:
                told.append(outcome.source)
                if len(told) == 500:
                    break
        async with asyncio.timeout(20):  # at once, unless the machine is so busy that the generator counts as stuck
            await wait_until(lambda: bool(ended))
        given = next(numbers) - 10**15
    await none_added(tasks, asyncio.all_tasks)
    await none_added(before, descriptors)
    asked = Counter(request.path.rpartition("/")[2] for request in emulator.requests)
    assert len(ended) == 1
    assert 500 <= given <= 500 + 2 * 8 + 1
    assert set(asked.values()) == {1}
    assert set(told) <= set(asked) <= {str(10**15 + number) for number in range(given)}
    assert len(set(told)) == len(told)
