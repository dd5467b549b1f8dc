"""A process that is killed in the middle of a run over many files, again and again: what the next one finds and does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from tests.support.servers import Received, Server, json_response, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")]

NURSERY: Final = Path(__file__).parents[1] / "scripts" / "bulk_nursery.py"
FILES: Final = 2_000
LIVES: Final = 20  # that are ended with SIGKILL
CONCURRENCY: Final = 16
FLAGS: Final = {"0": False, "1": True}


@attrs.frozen
class Acknowledged:
    """What a process said of a file: that it is uploaded, as what, by whom, and whether that may have happened twice."""

    file: int
    media_id: str
    skipped: bool
    duplicate: bool


class Shelf:
    """A server that stores whatever arrives whole, and takes its time to say so."""

    def __init__(self, dice: random.Random) -> None:
        self.stored: list[tuple[int, str]] = []  # the number of a file, and its media id
        self._dice = dice

    def holds(self, count: int) -> Callable[[], bool]:
        """Make the condition that `count` uploads are stored."""
        return lambda: len(self.stored) >= count

    async def step(self, request: Received, writer: asyncio.StreamWriter) -> None:
        """Store an upload by what its content says, and reply."""
        found = re.search(rb"This is file ([0-9]+)\.", request.body)
        assert found, request
        media_id = str(10_000 + len(self.stored))
        self.stored.append((int(found[1]), media_id))
        await asyncio.sleep(self._dice.uniform(0, 0.01))  # in which it is stored and not acknowledged
        writer.write(json_response({"id": media_id}))


class Nursery:
    """Children that upload, each made of a process that has done so before; see `scripts/bulk_nursery.py`."""

    def __init__(self, process: asyncio.subprocess.Process, order: dict[str, Any]) -> None:
        self._process = process
        self._order = order

    async def live(self, kill_at: Callable[[], bool] | None = None, later: float = 0.0) -> list[Acknowledged]:
        """Let a child live, to its end or until `later` seconds after `kill_at`; return what it acknowledged."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(self._order | {"doomed": kill_at is not None}).encode() + b"\n")
        await self._process.stdin.drain()
        heading, child = await self._line()
        assert heading == "born"
        listening = asyncio.ensure_future(self._heard())
        if kill_at is not None:
            await wait_until(kill_at)
            await asyncio.sleep(later)  # the moment is anywhere, not just where something begins
            os.kill(int(child), signal.SIGKILL)
        acknowledged, status = await listening
        assert status == ("0" if kill_at is None else str(-signal.SIGKILL))
        return acknowledged

    async def _heard(self) -> tuple[list[Acknowledged], str]:
        acknowledged = []
        while (words := await self._line())[0] != "ended":
            if words != ["over"]:
                assert words[0] == "acknowledged", words
                _, file, media_id, skipped, duplicate = words
                acknowledged.append(Acknowledged(int(file), media_id, FLAGS[skipped], FLAGS[duplicate]))
        return acknowledged, words[1]

    async def _line(self) -> list[str]:
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().split()


@contextlib.asynccontextmanager
async def nursery(base_url: str, folder: Path) -> AsyncIterator[Nursery]:
    """Run a process that has uploaded one file of its own, and makes children."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(NURSERY), stdin=pipe, stdout=pipe, env=environment
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        chosen = {"base_url": base_url, "concurrency": CONCURRENCY}
        first = {"folder": str(folder / "first"), "journal": str(folder / "first.sqlite")}
        process.stdin.write(f"{json.dumps(chosen)}\n{json.dumps(first)}\n".encode())
        assert (await process.stdout.readline()).startswith(b"acknowledged 0 ")
        yield Nursery(process, {"folder": str(folder / "files"), "journal": str(folder / "journal.sqlite")})
        process.stdin.close()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def files(folder: Path) -> None:
    """Make files that all differ, and are not so new that the next change might look the same."""
    before = time.time() - 60
    for name, numbers in (("first", [FILES]), ("files", range(FILES))):
        (folder / name).mkdir()
        for number in numbers:
            path = folder / name / f"{number}.txt"
            path.write_text(f"This is file {number}. " + "It has something to say. " * (number % 20))
            os.utime(path, (before, before))


def checked(journal: Path, folder: Path) -> str:
    """Say what SQLite thinks of a journal as it was left; of a copy, for to open it would mend it."""
    folder.mkdir()
    for path in journal.parent.glob(journal.name + "*"):
        shutil.copy(path, folder)
    if not (folder / journal.name).exists():
        return "ok"  # not even begun
    with contextlib.closing(sqlite3.connect(folder / journal.name)) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


def moments(dice: random.Random) -> list[tuple[int, float]]:
    """Choose when to kill: after how many uploads of this life, and how many seconds later."""
    chosen = [(dice.randint(1, 150), dice.uniform(0, 0.02)) for _ in range(LIVES - 4)]
    chosen += [(0, dice.uniform(0, 0.1)) for _ in range(3)]
    dice.shuffle(chosen)
    return [*chosen, (FILES, dice.uniform(0, 0.01))]  # the last one when all is stored, but not all acknowledged


@pytest.mark.timeout(400)  # a quarter of a minute, where nothing else is going on
async def test_killed_twenty_times(tmp_path: Path) -> None:
    """Killed at any of twenty moments, a run over 2,000 files goes on where it was; nothing that was acknowledged is redone."""
    seed = random.SystemRandom().randrange(2**32)
    sys.stdout.write(f"the seed is {seed}\n")
    dice = random.Random(seed)
    shelf = Shelf(dice)
    files(tmp_path)
    lives: list[list[Acknowledged]] = []
    stored_by_then: list[int] = []
    async with Server(shelf.step) as server, nursery(server.base_url, tmp_path) as home:
        assert shelf.stored == [(FILES, "10000")]
        shelf.stored.clear()
        for number, (uploads, later) in enumerate(moments(dice)):
            lives.append(await home.live(shelf.holds(min(len(shelf.stored) + uploads, FILES)), later))
            stored_by_then.append(len(shelf.stored))
            assert checked(tmp_path / "journal.sqlite", tmp_path / f"copy {number}") == "ok"
        lives.append(await home.live())
        stored_by_then.append(len(shelf.stored))
        assert checked(tmp_path / "journal.sqlite", tmp_path / "copy") == "ok"
        again = await home.live()
    examined(shelf.stored, stored_by_then, lives)
    assert len(shelf.stored) == stored_by_then[-1], "a run over what is done uploaded something"
    assert {said.file: said.media_id for said in again if said.skipped} == {
        said.file: said.media_id for said in lives[-1]
    }


def examined(stored: list[tuple[int, str]], stored_by_then: list[int], lives: list[list[Acknowledged]]) -> None:
    """Compare what the server stored with what each life acknowledged, and when."""
    final = {said.file: said for said in lives[-1]}
    assert set(final) == set(range(FILES)), "not all are uploaded"
    ids: dict[int, list[str]] = {}
    for file, media_id in stored:
        ids.setdefault(file, []).append(media_id)
    fresh = Counter(said.file for life in lives for said in life if not said.skipped)
    assert set(fresh.values()) == {1}, "something was acknowledged as done twice"
    for end, life in zip(stored_by_then, lives, strict=True):
        later = {file for file, _ in stored[end:]}
        assert later.isdisjoint(said.file for said in life), "something was uploaded again after it was acknowledged"
        assert {(said.file, said.media_id, said.duplicate) for said in life} <= {
            (said.file, said.media_id, said.duplicate) for said in final.values()
        }, "what was acknowledged once was acknowledged as something else later"
    assert {file: said.media_id for file, said in final.items()} == {file: known[-1] for file, known in ids.items()}
    twice = {file for file, known in ids.items() if len(known) > 1}
    flagged = {file for file, said in final.items() if said.duplicate}
    assert twice <= flagged, "an upload was repeated and is not flagged"
    assert 0 < len(flagged) <= LIVES * CONCURRENCY, "only items in progress may be flagged"
    sys.stdout.write(f"{len(stored)} uploads of {FILES} files; {len(twice)} twice, {len(flagged)} flagged\n")
