"""Downloads with a journal on a disk that loses what was not flushed: what is noted as done is there, with its bytes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from meta_media import MediaApi, Settings
from tests.bulk.helpers import outcomes
from tests.bulk.journal_helpers import PHOTO, library, old, serving
from tests.support.servers import Received, Server, info, page, wait_until

DOWNLOADER: Final = Path(__file__).parents[1] / "scripts" / "bulk_downloader.py"
IDS: Final = [str(number) for number in range(1000, 1024)]

# What a run does before it notes a download


@pytest.mark.parametrize(
    ("journaled", "fsync", "synced"), [(True, False, True), (False, False, False), (False, True, True)]
)
async def test_what_is_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journaled: bool, fsync: bool, synced: bool
) -> None:
    """With a journal, each file and its folder are flushed, whatever `Settings.fsync` is. The client's own setting stays."""
    flushed: list[os.stat_result] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor)))
    async with serving(fsync=fsync) as (server, api):
        server.script = [library(server)]
        journal = tmp_path / "run.sqlite" if journaled else None
        found = await outcomes(api.download_many(["1", "2"], tmp_path / "inbox", journal=journal))
        assert api.settings.fsync == fsync
    paths = [*(outcome.value.path for outcome in found), tmp_path / "inbox"]
    assert [any(os.path.samestat(path.stat(), one) for one in flushed) for path in paths] == [synced] * 3


# What the next run does with a file


def zeros(path: Path) -> None:
    """Write zeros over a file, with the times that it had: what a power cut leaves of bytes that were not flushed."""
    state = path.stat()
    path.write_bytes(bytes(state.st_size))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def restored(path: Path) -> None:
    """Put a copy in the place of a file, as from a backup."""
    content = path.read_bytes()
    path.unlink()
    old(path, "")
    path.write_bytes(content)


def linked(path: Path) -> None:
    """Put a symbolic link in the place of a file."""
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def replaced(path: Path) -> None:
    """Put a folder in the place of a file."""
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("happen", "skipped"),
    [
        (lambda path: None, True),
        (lambda path: path.chmod(0o600), True),
        (lambda path: path.touch(), True),
        (restored, True),
        (linked, True),
        (zeros, False),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), False),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"!"), False),
        (lambda path: path.unlink(), False),
        (replaced, False),
    ],
)
async def test_what_happened_to_a_file(tmp_path: Path, happen: Any, skipped: bool) -> None:
    """A download is skipped while its file has its bytes, also as a copy; if not, it is made again under a free name."""
    folder, journal = tmp_path / "inbox", tmp_path / "run.sqlite"
    async with serving() as (server, api):
        server.script = [library(server)]
        (first,) = await outcomes(api.download_many(["1"], folder, journal=journal))
        happen(first.value.path)
        is_free = not first.value.path.exists()
        runs = [await outcomes(api.download_many(["1"], folder, journal=journal)) for _ in range(2)]
    assert [run[0].skipped for run in runs] == [skipped, True]
    assert [run[0].value.path.read_bytes() for run in runs] == [PHOTO] * 2
    assert (runs[0][0].value.path == first.value.path) == (skipped or is_free)


async def test_a_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A file that is as it was is not read; one that was restored is read by the next run, and by none after that.

    One that has just changed is read by each run, because the next change might look the same.
    """
    journal = tmp_path / "run.sqlite"
    read: list[str] = []
    digest = hashlib.file_digest

    def watched(file: Any, name: str) -> Any:
        read.append(name)
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", watched)
    async with serving() as (server, api):
        server.script = [library(server)]
        (first,) = await outcomes(api.download_many(["1"], tmp_path, journal=journal))
        counts = []
        for state in (None, time.time() + 60, None, 1.0, None):
            if state is not None:
                restored(first.value.path)
                os.utime(first.value.path, (state, state))
            (again,) = await outcomes(api.download_many(["1"], tmp_path, journal=journal))
            assert again.skipped
            counts.append(len(read))
    assert counts == [0, 1, 2, 3, 3]


# Killed, on a disk that loses what was not flushed


def content(media_id: str) -> bytes:
    """Return the bytes of a media: no two are the same."""
    return b"\xff\xd8\xff\xe0" + f"This is media {media_id}. ".encode() * (1 + int(media_id) % 300)


def shelf(server: Server, dice: random.Random) -> Any:
    """Make a step that has a photo under every id, and takes its time."""

    async def step(request: Received, writer: asyncio.StreamWriter) -> None:
        media_id = request.target.split("?")[0].rpartition("/")[2]
        await asyncio.sleep(dice.uniform(0, 0.004))  # so that a kill finds all kinds of moments
        if request.target.startswith("/file"):
            writer.write(page(content(media_id), content_type="image/jpeg"))
        else:
            writer.write(info(f"{server.base_url}/file/{media_id}?hash=s", content(media_id), media_id=media_id))

    return step


class Disk:
    """A folder of downloads, and the notes of what of it was flushed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "inbox"
        self.notes = folder / "notes"
        self.journal = folder / "run.sqlite"
        self.folder.mkdir()
        self.notes.touch()

    def lose(self) -> None:
        """Lose names that no flush of the folder has seen, and the bytes of files that were not flushed."""
        notes = [json.loads(line) for line in self.notes.read_text().splitlines() if line.endswith("}")]
        names = {name: inode for note in notes for name, inode in note.get("names", {}).items()}
        files = {note["inode"] for note in notes}
        for path in self.folder.iterdir():
            inode = path.stat().st_ino
            if names.get(path.name) != inode:
                path.unlink()
            elif inode not in files:
                zeros(path)
        self.notes.write_text("")
        left = {path.name: path.stat().st_ino for path in self.folder.iterdir()}
        flushed = [{"inode": 0, "names": left}, *({"inode": inode} for inode in left.values())]
        self.notes.write_text("".join(json.dumps(note) + "\n" for note in flushed))


@contextlib.asynccontextmanager
async def downloading(server: Server, disk: Disk, more: int) -> AsyncIterator[None]:
    """Run a process that downloads, until it has sent some requests; it is killed at the end of the block."""
    seen = len(server.requests)
    order = {"base_url": server.base_url, "ids": IDS, "folder": str(disk.folder)}
    order |= {"journal": str(disk.journal), "notes": str(disk.notes)}
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(DOWNLOADER), json.dumps(order), stdout=asyncio.subprocess.PIPE, env=environment
    )
    try:
        await wait_until(lambda: len(server.requests) >= seen + more or process.returncode is not None)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def noted(journal: Path) -> dict[str, Path]:
    """List the downloads that a journal has as done: media ids and paths."""
    with contextlib.closing(sqlite3.connect(journal)) as connection:
        results = [json.loads(value) for (value,) in connection.execute("SELECT value FROM items WHERE value NOT NULL")]
    return {result["media_id"]: Path(result["path"]) for result in results}


async def killed(folder: Path, times: int, seed: int) -> dict[str, int]:
    """Kill runs at random moments, lose what was not flushed, and look at what the next run takes for done. Count."""
    dice = random.Random(seed)
    counts = {"kills": 0, "skipped": 0, "done": 0, "rounds": 0}
    async with Server() as server, MediaApi("a-token", "1", settings=Settings(base_url=server.base_url)) as api:
        server.script = [shelf(server, dice)]
        while counts["kills"] < times:
            counts["rounds"] += 1
            (folder / str(counts["rounds"])).mkdir()
            disk = Disk(folder / str(counts["rounds"]))
            for _ in range(dice.randrange(1, 4)):
                async with downloading(server, disk, more=dice.randrange(1, 30)):
                    await asyncio.sleep(dice.uniform(0, 0.02))  # any moment
                disk.lose()
                counts["kills"] += 1
                for media_id, path in noted(disk.journal).items() if disk.journal.exists() else ():
                    assert path.read_bytes() == content(media_id), "the journal was ahead of the disk"
            found = await outcomes(api.download_many(IDS, disk.folder, journal=disk.journal))
            assert [outcome.source for outcome in found] == IDS
            assert all(outcome.value.path.read_bytes() == content(outcome.source) for outcome in found)
            counts["done"] += len(found)
            counts["skipped"] += sum(outcome.skipped for outcome in found)
    return counts


@pytest.mark.slow
async def test_killed_on_a_disk_that_forgets(tmp_path: Path) -> None:
    """Killed at any moment, on a disk that loses what was not flushed, no download is taken for done that is not there."""
    seed = random.SystemRandom().randrange(2**32)
    sys.stdout.write(f"the seed is {seed}\n")
    counts = await killed(tmp_path, 12, seed)
    sys.stdout.write(f"{counts}\n")
    assert 0 < counts["skipped"] < counts["done"]
