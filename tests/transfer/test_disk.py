"""Disks that are full or read-only, limits of the process, and devices that take nothing."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

import aiofiles
import anyio
import anyio.to_thread
import pytest

from meta_media.errors import StorageError
from tests.support.stepping import LeanServer
from tests.support.system import files_no_larger_than, unshared
from tests.transfer.disks import (
    CHUNK,
    OLD,
    SAVER,
    SIZE,
    SPOOLED,
    client,
    content,
    digest,
    listing,
    made,
    media,
    pieces,
    settings,
)

# Real disks that are full or read-only, and real limits


def mounted(folder: Path, options: str, *, read_only: bool = False) -> list[str]:
    """Return what to put in front of a command so that it finds a small file system at a folder, with an old file in it."""
    then = ' && mount -o remount,ro "$1"' if read_only else ""
    script = f'mount -t tmpfs -o {options} tmpfs "$1" && printf %s "{OLD.decode()}" > "$1/old.jpg"{then} && shift && exec "$@"'
    return [*unshared(("-rm",), ("-m",)), "sh", "-c", script, "sh", str(folder)]


def unprivileged() -> list[str]:
    """Return what to put in front of a command so that modes count for it, as they do for everybody but root."""
    if os.geteuid() != 0:
        return []
    return unshared(("-U", "--map-user=1000", "--map-group=1000"))


async def outcomes(*command: str, server: LeanServer, jobs: list[dict[str, Any]], **environment: str) -> list[Any]:
    """Do work in a process with something in front of its command, and return what became of each piece."""
    paths = os.pathsep.join(filter(None, sys.path))
    order = json.dumps({"settings": settings(server), "jobs": jobs})
    done = await anyio.run_process(
        [*command, sys.executable, str(SAVER), order], env=os.environ | {"PYTHONPATH": paths} | environment, stderr=None
    )
    told = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert len(told) == len(jobs)
    assert [outcome["left open"] for outcome in told] == [[]] * len(jobs)
    return told


def download(server: LeanServer, path: Path, folder: Path, size: int = SIZE, **more: Any) -> dict[str, Any]:
    """Describe a download for another process."""
    url = f"{server.base_url}/media/{size}"
    return {"work": "download", "url": url, "path": str(path), "folder": str(folder)} | more


async def test_file_system_of_200_kilobytes(warehouse: LeanServer, tmp_path: Path) -> None:
    """On a disk that is full, downloads are StorageErrors that leave the old file; what there is room for arrives."""
    sizes = [(1_000_000, "old.jpg"), (1_000_000, ""), (1_000_000, "new.jpg"), (50_000, "old.jpg"), (160_000, "old.jpg")]
    jobs = [download(warehouse, tmp_path / name, tmp_path, size) for size, name in sizes]
    jobs.append(download(warehouse, tmp_path / "new.jpg", tmp_path, 1_000_000, overwrite=False))
    jobs.append(download(warehouse, tmp_path / "new.jpg", tmp_path, 100_000, overwrite=False))
    told = await outcomes(*mounted(tmp_path, "size=200k"), server=warehouse, jobs=jobs)
    refused = [outcome["errno"] if outcome["error"] else None for outcome in told]
    assert refused == [28, 28, 28, None, 28, 28, None]
    assert {outcome["error"][0] for outcome in told if outcome["error"]} == {"StorageError"}
    assert all("No space left on device" in outcome["message"] for outcome in told if outcome["error"])
    old, small = {"old.jpg": digest(OLD)}, {"old.jpg": digest(content(50_000))}
    after = [outcome["listing"] for outcome in told]
    assert after == [old, old, old, small, small, small, small | {"new.jpg": digest(content(100_000))}]


@pytest.mark.slow
async def test_file_system_without_room_for_another_file(warehouse: LeanServer, tmp_path: Path) -> None:
    """Where no further file can be made, that is told before anything is asked of Meta."""
    jobs = [download(warehouse, tmp_path / name, tmp_path, 10) for name in ("old.jpg", "new.jpg", "")]
    told = await outcomes(*mounted(tmp_path, "nr_inodes=2"), server=warehouse, jobs=jobs)
    assert [(outcome["error"][0], outcome["errno"], outcome["attempts"]) for outcome in told] == [
        ("StorageError", errno.ENOSPC, 0)
    ] * 3
    assert [outcome["listing"] for outcome in told] == [{"old.jpg": digest(OLD)}] * 3
    assert warehouse.requests == []


@pytest.mark.slow
async def test_spool_on_a_full_disk(warehouse: LeanServer, tmp_path: Path) -> None:
    """An upload that must be spooled, to a disk without room for it, is a StorageError before anything is sent."""
    jobs: list[dict[str, Any]] = [
        {"work": "upload", "size": SPOOLED, "folder": str(tmp_path)},
        {"work": "upload", "size": 500_000, "folder": str(tmp_path)},
        {"work": "upload", "path": str(tmp_path / "old.jpg"), "folder": str(tmp_path)},
    ]
    command = mounted(tmp_path, "size=200k")
    told = await outcomes(*command, server=warehouse, jobs=jobs, TMPDIR=str(tmp_path))
    first, *others = told
    assert (first["error"][0], first["errno"], first["attempts"]) == ("StorageError", errno.ENOSPC, 0)
    assert [other["error"] for other in others] == [None, None]
    assert [outcome["listing"] for outcome in told] == [{"old.jpg": digest(OLD)}] * 3
    assert len(warehouse.requests) == 2


async def test_read_only_file_system(warehouse: LeanServer, tmp_path: Path) -> None:
    """Where nobody may write, root included, that is told before anything is asked of Meta; reading from there works."""
    jobs = [download(warehouse, tmp_path / name, tmp_path) for name in ("old.jpg", "new.jpg", "")]
    jobs.append({"work": "upload", "path": str(tmp_path / "old.jpg"), "folder": str(tmp_path)})
    told = await outcomes(*mounted(tmp_path, "size=200k", read_only=True), server=warehouse, jobs=jobs)
    *refused, uploaded = told
    assert [(outcome["error"][0], outcome["errno"], outcome["attempts"]) for outcome in refused] == [
        ("StorageError", errno.EROFS, 0)
    ] * 3
    assert uploaded["error"] is None
    assert [outcome["listing"] for outcome in told] == [{"old.jpg": digest(OLD)}] * 4
    assert [method for method, _ in warehouse.requests] == ["POST"]


async def test_folder_in_which_one_may_not_write(warehouse: LeanServer, tmp_path: Path) -> None:
    """Without permission for the folder that is told before anything is asked; a file's own mode protects nothing."""
    closed, open_ = tmp_path / "closed", tmp_path / "open"
    for folder, mode in ((closed, 0o500), (open_, 0o700)):
        made(folder, "old.jpg").chmod(0o400)
        folder.chmod(mode)
    jobs = [download(warehouse, closed / name, closed) for name in ("old.jpg", "new.jpg", "")]
    jobs += [download(warehouse, open_ / "old.jpg", open_), {"work": "upload", "path": str(closed)}]
    told = await outcomes(*unprivileged(), server=warehouse, jobs=jobs)
    *refused, replaced, no_file = told
    assert [(outcome["error"][0], outcome["errno"], outcome["attempts"]) for outcome in refused] == [
        ("StorageError", errno.EACCES, 0)
    ] * 3
    assert [outcome["listing"] for outcome in refused] == [{"old.jpg": digest(OLD)}] * 3
    assert (replaced["error"], replaced["listing"]) == (None, {"old.jpg": digest(content(SIZE))})
    assert stat.S_IMODE((open_ / "old.jpg").stat().st_mode) == 0o400
    assert (no_file["error"][0], no_file["errno"]) == ("StorageError", errno.EISDIR)
    assert len(warehouse.requests) == 1
    closed.chmod(0o700)


@pytest.mark.slow
async def test_no_descriptor_to_be_had(warehouse: LeanServer, tmp_path: Path) -> None:
    """With ever so few files that may still be opened, downloads and uploads end in order, and work again afterwards."""
    old = made(tmp_path, "old.jpg")
    jobs: list[dict[str, Any]] = [{"work": "upload", "size": SPOOLED}]  # which finds out where temporary files belong
    for more in range(8):
        jobs.append(download(warehouse, tmp_path / f"new{more}.jpg", tmp_path, descriptors=more))
        jobs.append({"work": "upload", "path": str(old), "descriptors": more})
        jobs.append({"work": "upload", "size": SPOOLED, "descriptors": more, "folder": str(tmp_path)})
        jobs.append(download(warehouse, tmp_path / f"again{more}.jpg", tmp_path))
    told = (await outcomes(server=warehouse, jobs=jobs, TMPDIR=str(tmp_path)))[1:]
    names = {"old.jpg": digest(OLD)}
    for more in range(8):
        new, path, spool, again = told[4 * more : 4 * more + 4]
        assert again["error"] is None
        for outcome in (new, path, spool):
            assert outcome["error"] is None or outcome["error"][0] in {"StorageError", "NetworkError"}
            assert outcome["error"] is None or "Too many open files" in outcome["message"]
        names |= {} if new["error"] else {f"new{more}.jpg": digest(content(SIZE))}
        assert spool["listing"] == names
        names |= {f"again{more}.jpg": digest(content(SIZE))}
        assert again["listing"] == names
    assert [(outcome["error"][0], outcome["errno"]) for outcome in told[:3]] == [("StorageError", errno.EMFILE)] * 3
    assert [outcome["error"] for outcome in told[-4:]] == [None] * 4


@pytest.mark.parametrize("room", [0, CHUNK, SIZE - 1])
@pytest.mark.parametrize("where", ["folder", "free path"])
async def test_file_too_large_for_the_system(warehouse: LeanServer, tmp_path: Path, where: str, room: int) -> None:
    """A limit on the size of files is a StorageError, and there is no name without a file, nor a file without its bytes."""
    made(tmp_path, "7.jpg")
    target = tmp_path if where == "folder" else tmp_path / "new.jpg"
    async with client(warehouse) as api:
        with files_no_larger_than(room), pytest.raises(StorageError, match="File too large") as caught:
            await api.download(media(warehouse), target, overwrite=False)
        assert caught.value.errno == errno.EFBIG
        assert listing(tmp_path) == {"7.jpg": OLD}
        with files_no_larger_than(SIZE):
            saved = await api.download(media(warehouse), target, overwrite=False)
    name = "7 (2).jpg" if where == "folder" else "new.jpg"
    assert saved.path == tmp_path / name
    assert listing(tmp_path) == {"7.jpg": OLD, name: content(SIZE)}


async def test_spool_too_large_for_the_system(
    warehouse: LeanServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spool that may not grow is a StorageError, and nothing has been sent."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with client(warehouse) as api:
        with files_no_larger_than(10_000), pytest.raises(StorageError, match="File too large") as caught:
            await api.upload(pieces(SPOOLED), filename="a.txt")
        assert (caught.value.errno, caught.value.maybe_applied, warehouse.requests) == (errno.EFBIG, False, [])
        assert (await api.upload(pieces(SPOOLED), filename="a.txt")).file_size == SPOOLED
    assert listing(tmp_path) == {}


# Handles on a device that is full


def full_device(buffering: int) -> BinaryIO:
    """Open a device that has no room, which shows when a buffer is flushed."""
    return Path("/dev/full").open("wb", buffering)


def closed(handle: BinaryIO) -> int | None:
    """Close a handle, and tell which error that gave."""
    try:
        handle.close()
    except OSError as error:
        return error.errno
    return None


@pytest.mark.parametrize("size", [SIZE, 100])
@pytest.mark.parametrize("buffering", [8_192, 10 * SIZE], ids=["small buffer", "large buffer"])
async def test_buffered_handle_on_a_full_device(warehouse: LeanServer, size: int, buffering: int) -> None:
    """What a handle's buffer hides is told when it is flushed: by the download, or at last by its owner's `close`."""
    handle = full_device(buffering)
    failure = None
    async with client(warehouse) as api:
        try:
            await api.download(media(warehouse, size), handle)
        except StorageError as error:
            failure = error
    at_last = closed(handle)
    assert failure or (size <= buffering and at_last == errno.ENOSPC)
    assert failure is None or (failure.errno, failure.media_id) == (errno.ENOSPC, "7")


async def test_async_handle_on_a_full_device(warehouse: LeanServer) -> None:
    """A buffered handle of aiofiles tells as well, and stays its owner's to close."""
    async with client(warehouse) as api:
        handle = await aiofiles.open("/dev/full", "wb")
        with pytest.raises(StorageError, match="No space left on device"):
            await api.download(media(warehouse), handle)
        assert not handle.closed
        with contextlib.suppress(OSError):  # it may still hold what was refused
            await handle.close()
        assert (await api.read(media(warehouse))) == content(SIZE)
