"""A process that is killed while it downloads leaves the old file or the new one, and what it leaves besides can be told."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import random
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

import meta_media
from tests.support.servers import Received, Server, page
from tests.support.stepping import LeanServer

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

NURSERY: Final = Path(__file__).parents[1] / "scripts" / "nursery.py"
CONTENT: Final = random.Random(7).randbytes(120_000)
SHA256: Final = hashlib.sha256(CONTENT).hexdigest()
OLD: Final = b"what was there before"
PIECE: Final = 4_000  # bytes between two moments at which a process may be killed
HEAD: Final = page(b"", length=len(CONTENT), content_type="image/jpeg")
TEMPORARY: Final = re.compile(r"\.[0-9a-f]{16}\.meta-media\.part")
DECOYS: Final = (
    *("notes.part", "0123456789abcdef.meta-media.part", ".0123456789abcdef.meta-media.part.txt", ".meta-media.part"),
    *(".0123456789abcde.meta-media.part", ".0123456789abcdefg.meta-media.part", ".0123456789ABCDEF.meta-media.part"),
    *(".0123456789abcdef.part", ".0123456789abcdef.meta-media.part\n", "0.0123456789abcdef.meta-media.part"),
)


class Nursery:
    """Children that download, each made of a process that has done so before; see `scripts/nursery.py`."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self._process = process
        self._media = {"url": url, "mime_type": "image/jpeg", "sha256": SHA256}

    async def bear(self, destination: Path, *, overwrite: bool = True, **order: Any) -> int:
        """Make a child, which downloads at once, and return its process id."""
        order |= {"destination": str(destination), "overwrite": overwrite, "media": self._media}
        order.setdefault("folder", str(destination.parent))
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        await self._process.stdin.drain()
        return int(await self.word("born"))

    async def word(self, wanted: str) -> str:
        """Return what is told next under this heading; a child that is killed may have told of its download before."""
        assert self._process.stdout is not None
        line = (await self._process.stdout.readline()).decode()
        heading, _, told = line.rstrip("\n").partition(" ")
        if (heading, wanted) == ("done", "ended"):
            return await self.word(wanted)
        assert heading == wanted, line
        return told


@contextlib.asynccontextmanager
async def nursery(base_url: str) -> AsyncIterator[Nursery]:
    """Run a process that has made a connection, and makes children."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (NURSERY.parents[1], *filter(None, sys.path))))}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(NURSERY), stdin=pipe, stdout=pipe, env=environment
    )
    assert process.stdin is not None
    url = f"{base_url}/media?ext=1"
    chosen = {"base_url": base_url, "chunk_size": PIECE, "warm": url, "fsync": True}
    process.stdin.write(json.dumps(chosen).encode() + b"\n")
    try:
        yield Nursery(process, url)
        process.stdin.close()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Drip:
    """Gives the content piece by piece."""

    def __init__(self) -> None:
        self.awaited = 0  # pieces
        self.left = asyncio.Event()  # set once they have left

    async def step(self, _: Received, writer: asyncio.StreamWriter) -> None:
        """Answer a request, slowly."""
        writer.write(HEAD)
        for count, start in enumerate(range(0, len(CONTENT), PIECE), 1):
            writer.write(CONTENT[start : start + PIECE])
            await writer.drain()
            await asyncio.sleep(0.001)  # so that the transfer lasts, and the child has a life to be killed in
            if count == self.awaited:
                self.left.set()


def moments(dice: random.Random) -> Iterator[tuple[int | None, float]]:
    """
    Yield fifty moments: after how many pieces (None: after the download), and how many seconds later.

    Most are in the middle of the transfer; as many as matter are just after its last piece, when the file is put in its
    place. A few are before the first piece, and some when all is over.
    """
    last = len(CONTENT) // PIECE
    for _ in range(25):
        yield dice.randint(1, last - 1), dice.uniform(0, 0.002)
    for _ in range(13):
        yield last, dice.uniform(0, 0.008)
    for _ in range(6):
        yield 0, dice.uniform(0, 0.02)
    for _ in range(6):
        yield None, dice.uniform(0, 0.002)


def state(target: Path) -> str:
    """Tell what is at a path."""
    try:
        content = target.read_bytes()
    except FileNotFoundError:
        return "absent"
    return {OLD: "old", CONTENT: "whole"}.get(content, f"{len(content)} other bytes")


def temporary(folder: Path) -> set[Path]:
    """List what looks like one of our temporary files."""
    return {entry for entry in folder.iterdir() if TEMPORARY.fullmatch(entry.name)}


def listing(folder: Path) -> set[Path]:
    """List a folder."""
    return set(folder.iterdir())


def seeded(folder: Path, names: tuple[str, ...]) -> set[Path]:
    """Put a file of each name into a folder."""
    for name in names:
        (folder / name).write_bytes(OLD)
    return listing(folder)


async def killed(child: int, drip: Drip, home: Nursery, moment: tuple[int | None, float]) -> None:
    """Kill a process when the moment has come."""
    pieces, later = moment
    if pieces is None:
        await home.word("done")
    elif pieces:
        await drip.left.wait()
    await asyncio.sleep(later)  # the moment is anywhere, not just where something begins
    os.kill(child, signal.SIGKILL)
    assert await home.word("ended") == str(-signal.SIGKILL)


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in range(1, 6))])
async def test_killed_at_any_moment(tmp_path: Path, part: int) -> None:
    """Killed at any of fifty moments, a download leaves the old file, none or all of the new one; the rest is swept away."""
    seed = random.SystemRandom().randrange(2**32)
    sys.stdout.write(f"part {part}: the seed is {seed}\n")
    dice = random.Random(seed)
    chosen = list(moments(dice))
    dice.shuffle(chosen)
    outcomes: Counter[str] = Counter()
    decoys = seeded(tmp_path, DECOYS)
    targets = {tmp_path / f"{number}.jpg" for number in range(len(chosen))}
    async with Server(page(CONTENT, content_type="image/jpeg")) as server, nursery(server.base_url) as home:
        for number, moment in enumerate(chosen):
            target, drip = tmp_path / f"{number}.jpg", Drip()
            server.script, drip.awaited = [drip.step], moment[0] or 0
            before = "old" if dice.random() < 0.5 else "absent"
            if before == "old":
                target.write_bytes(OLD)
            await killed(await home.bear(target, overwrite=before == "old" or dice.random() < 0.5), drip, home, moment)
            after = state(target)
            assert after in {before, "whole"}
            assert moment[0] is not None or after == "whole", "it was over before the end came"
            outcomes[after] += 1
    left = temporary(tmp_path)
    sys.stdout.write(f"{dict(outcomes)}, {len(left)} temporary files\n")
    assert set(outcomes) == {"absent", "old", "whole"}
    assert left
    assert listing(tmp_path) <= left | decoys | targets
    kept = listing(tmp_path) - left
    assert set(await meta_media.clean_stale(tmp_path)) == set(), "they are not an hour old"
    assert sorted(await meta_media.clean_stale(tmp_path, older_than=timedelta(0))) == sorted(left)
    assert listing(tmp_path) == kept


WAYS: dict[str, tuple[str, str, bool]] = {  # the destination, where the bytes end up, and whether they may replace
    "over a file": ("old.jpg", "old.jpg", True),
    "to a free path": ("free.jpg", "free.jpg", True),
    "never over a file": ("free.jpg", "free.jpg", False),
    "into a folder": ("", "7.jpg", True),
    "beside others": ("crowded", "crowded/7 (3).jpg", True),
}


@pytest.mark.slow
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("way", WAYS)
async def test_killed_at_each_file_operation(tmp_path: Path, way: str, late: bool) -> None:
    """Killed before or after any one of its file operations, a download leaves the old file, none or all of the new one."""
    destination, result, overwrite = WAYS[way]
    seen: list[str] = []
    async with LeanServer(lambda *_: HEAD + CONTENT) as server, nursery(server.base_url) as home:
        ended, operation = "-9", 0
        while ended == "-9":
            operation += 1
            folder = tmp_path / str(operation)
            (folder / "crowded").mkdir(parents=True)
            others = seeded(folder, ("old.jpg",)) | seeded(folder / "crowded", ("7.jpg", "7 (2).jpg"))
            before = state(folder / result)
            target = folder / destination
            await home.bear(target, overwrite=overwrite, folder=str(folder), operation=operation, late=late)
            ended = await home.word("ended")
            seen.append(state(folder / result))
            left = temporary(folder / "crowded") | temporary(folder)
            assert listing(folder) | listing(folder / "crowded") <= others | left | {folder / result}
            assert {state(other) for other in others - {folder / result, folder / "crowded"}} == {"old"}
            assert len(left) <= 1
    assert (ended, left) == ("0", set())
    assert seen == [before] * seen.index("whole") + ["whole"] * (len(seen) - seen.index("whole"))
    sys.stdout.write(f"{way}: killed at each of {operation - 1} operations, whole from {seen.index('whole') + 1} on\n")
    assert operation > len(CONTENT) / io.DEFAULT_BUFFER_SIZE
