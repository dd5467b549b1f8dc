"""Every file operation fails once; and other programs that change a folder during a download."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import stat
import sys
import tempfile
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import pytest

from meta_media import MediaApi, clean_stale
from meta_media.errors import MediaError, StorageError
from tests.support.marks import slow_except
from tests.support.sabotage import Sabotage
from tests.support.servers import Received, Server, json_response, open_files, page, wait_until
from tests.support.stepping import LeanServer, descriptors, none_added, settled_at
from tests.transfer.disks import (
    CHUNK,
    NUMBERS,
    OLD,
    SIZE,
    SPOOLED,
    TEXT,
    WRITING,
    client,
    content,
    left_over,
    listing,
    made,
    media,
    pieces,
)

# Every file operation fails once


def without_hard_links(*_: object, **__: object) -> None:
    """Answer as a file system does that has none."""
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


WAYS: dict[str, tuple[str, str, bool]] = {  # the destination, where the bytes end up, and whether they may replace
    "over a file": ("old.jpg", "old.jpg", True),
    "to a free path": ("free.jpg", "free.jpg", True),
    "never over a file": ("free.jpg", "free.jpg", False),
    "into a folder": ("empty", "empty/7.jpg", True),
    "beside others": ("crowded", "crowded/7 (3).jpg", True),
}
PLACING: Final = frozenset({"link", "rename", "replace"})


FURNITURE: Final = ("old.jpg", "crowded/7.jpg", "crowded/7 (2).jpg")


def furnished(folder: Path) -> Path:
    """Make a folder with files in it, and folders with and without any."""
    for name in FURNITURE:
        made(folder, name)
    (folder / "empty").mkdir()
    return folder


def raising(number: int) -> Callable[[], object]:
    """Make what the system does when it refuses."""

    def refuse() -> None:
        raise OSError(number, os.strerror(number))

    return refuse


async def attempted(api: MediaApi, sabotage: Sabotage, *args: Any, **options: Any) -> MediaError | None:
    """Download, with a file operation that fails, and return what was said of it."""
    with sabotage.watching():
        try:
            await api.download(*args, **options)
        except MediaError as error:
            return error
    return None


def check_refusal(error: MediaError | None, number: int) -> None:
    """Make sure that an error says what the system said, in one sentence, and of what."""
    assert isinstance(error, StorageError)
    assert error.errno == number
    assert re.fullmatch(rf"could not [a-z][^\n]*: {re.escape(os.strerror(number))}", str(error))
    assert (error.operation, error.media_id, error.maybe_applied) == ("download", "7", False)


def state(target: Path) -> str:
    """Tell what is at a path."""
    if not target.exists():
        return "absent"
    data = target.read_bytes()
    return {OLD: "old", content(SIZE): "whole"}.get(data, f"{len(data)} other bytes")


def check_folder(folder: Path, sabotage: Sabotage, target: Path, before: str, error: MediaError | None) -> None:
    """Make sure that a folder holds what it held, or the new file; and a temporary one only if that could not be removed."""
    assert len(left_over(folder)) <= (sabotage.struck in {"unlink", "remove"}), sabotage.operations
    others = {path for path in folder.rglob("*") if path.is_file()} - {target, *left_over(folder)}
    assert {str(path.relative_to(folder)) for path in others} | {"old.jpg"} == set(FURNITURE)
    assert {path.read_bytes() for path in others} == {OLD}
    by_rename = sabotage.reached and sabotage.struck == "link"  # which is tried next
    may_be_placed = by_rename or PLACING.intersection(sabotage.operations[: sabotage.at - 1])
    allowed = {"whole"} if error is None else {before, "whole"} if may_be_placed else {before}
    assert state(target) in allowed, sabotage.operations
    for left in left_over(folder):
        left.unlink()


@pytest.mark.parametrize(
    ("way", "hard_links"),
    slow_except(
        [("over a file", True), ("beside others", False)],
        [*((way, True) for way in WAYS), *((way, False) for way in list(WAYS)[2:])],
    ),
)
@pytest.mark.parametrize(
    ("number", "durable"),
    [
        (errno.ENOSPC, True),
        *(pytest.param(number, True, marks=pytest.mark.slow) for number in NUMBERS[1:]),
        pytest.param(errno.ENOSPC, False, marks=pytest.mark.slow),
    ],
)
async def test_each_file_operation_of_a_download_fails(
    warehouse: LeanServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    hard_links: bool,
    number: int,
    durable: bool,
) -> None:
    """Whichever of its file operations the system refuses, a download says so, and leaves the old file and nothing else."""
    if not hard_links:
        monkeypatch.setattr(os, "link", without_hard_links)
    destination, result, overwrite = WAYS[way]
    failed, survived, at = list[str](), list[str](), 0
    async with client(warehouse, fsync=durable) as warm:
        await warm.download(media(warehouse), tmp_path / "warm.jpg")
    await settled_at(set(), lambda: warehouse.open)
    before = descriptors()
    while True:
        at += 1
        folder = furnished(tmp_path / str(at))
        was = state(folder / result)
        sabotage = Sabotage(folder, at, raising(number))
        async with client(warehouse, fsync=durable) as api:
            error = await attempted(api, sabotage, media(warehouse), folder / destination, overwrite=overwrite)
            if not sabotage.reached:
                break
            check_folder(folder, sabotage, folder / result, was, error)
            if error is None:
                survived.append(sabotage.struck)
            else:
                failed.append(sabotage.struck)
                check_refusal(error, number)
            again = folder / destination if overwrite else folder / "again.jpg"
            assert (await api.download(media(warehouse), again, overwrite=overwrite)).size == SIZE
            assert left_over(folder) == []
        await none_added(before, descriptors)
    assert error is None
    sys.stdout.write(f"{way}: {len(failed)} operations failed ({' '.join(failed)}), {survived} without harm\n")
    assert set(failed) >= {"open", "write", "close"}
    placed = max(place for place, name in enumerate(sabotage.operations) if name in PLACING)
    synced = [place < placed for place, name in enumerate(sabotage.operations) if name == "fsync"]
    assert synced == ([True, False] if durable else [])  # the bytes before they appear, the name after
    assert failed.count("fsync") == len(synced)
    # Where there are no links; of a descriptor that nothing was written to; of a second name; of one path of the folder.
    assert set(survived) <= {"link", "close", "unlink", "stat"}


@pytest.mark.parametrize("durable", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["fsync", "no fsync"])
@pytest.mark.parametrize("way", WAYS)
async def test_disk_is_full_from_some_operation_on(
    warehouse: LeanServer, tmp_path: Path, way: str, durable: bool
) -> None:
    """Whenever the disk becomes full, and stays so, the old file stays too, and the temporary one goes."""
    destination, result, overwrite = WAYS[way]
    at = 0
    async with client(warehouse, fsync=durable) as api:
        while True:
            at += 1
            folder = furnished(tmp_path / str(at))
            was = state(folder / result)
            sabotage = Sabotage(folder, at, raising(errno.ENOSPC), onwards=WRITING)
            error = await attempted(api, sabotage, media(warehouse), folder / destination, overwrite=overwrite)
            if not sabotage.reached:
                break
            check_folder(folder, sabotage, folder / result, was, error)
            if error is not None:
                check_refusal(error, errno.ENOSPC)
        assert error is None
    assert at > SIZE / CHUNK


async def test_temporary_file_that_cannot_be_removed(warehouse: LeanServer, tmp_path: Path) -> None:
    """On a disk that lets nothing be written nor removed, the error is that of the writing, and tells what is left."""
    target = made(tmp_path, "old.jpg")
    async with client(warehouse) as api:
        fine = Sabotage(tmp_path)
        assert await attempted(api, fine, media(warehouse), tmp_path / "fine.jpg") is None
        at = fine.operations.index("write") + 1
        broken = Sabotage(tmp_path, at, raising(errno.EIO), onwards=frozenset({"write", "unlink", "remove"}))
        error = await attempted(api, broken, media(warehouse), target)
    (left,) = left_over(tmp_path)
    check_refusal(error, errno.EIO)
    assert "write" in str(error)
    assert any(left.name in note for note in getattr(error, "__notes__", []))
    assert target.read_bytes() == OLD
    assert await clean_stale(tmp_path, older_than=timedelta(0)) == [left]


@pytest.mark.parametrize("kind", ["path", "handle", "spool"])
@pytest.mark.parametrize("number", slow_except([errno.ENOSPC], NUMBERS))
async def test_each_file_operation_of_an_upload_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, number: int
) -> None:
    """Whichever of its file operations the system refuses, an upload says so or has sent the very bytes; nothing stays."""
    size = SPOOLED if kind == "spool" else SIZE
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    source = tmp_path / "source.txt"
    if kind != "spool":
        source.write_bytes(TEXT[:size])
    expected = listing(tmp_path)
    failed, survived, at = list[str](), list[str](), 0
    async with Server(json_response({"id": "1"})) as server:
        async with client(server) as warm:
            await warm.upload(b"text")
        await asyncio.sleep(0)
        while True:
            at += 1
            server.requests.clear()
            sabotage = Sabotage(tmp_path, at, raising(number))
            async with client(server, chunk_size=300_000) as api:
                handle = sabotage.opened(source) if kind == "handle" else None
                error = await uploaded(api, sabotage, {"path": source, "handle": handle, "spool": pieces(size)}[kind])
                sent = [request for request in server.requests if TEXT[:size] in request.body]
                left_at = None if handle is None else (handle.closed, handle.tell())
                if handle is not None:
                    handle.close()
                if not sabotage.reached:
                    break
                if error is None:
                    survived.append(sabotage.struck)
                    assert len(sent) == 1
                else:
                    failed.append(sabotage.struck)
                    assert isinstance(error, StorageError)
                    assert (error.errno, error.operation) == (number, "upload")
                    assert os.strerror(number) in str(error)
                    assert error.attempts == 0 or sabotage.struck != "write", (
                        "the spool was not safe before it was sent"
                    )
                    assert error.maybe_applied or not server.requests, f"it was sent, and nobody is told: {error}"
                assert listing(tmp_path) == expected
                assert left_at in {None, (False, 0)} or sabotage.struck == "seek"
                assert open_files(tmp_path) == open_files("/no such folder")
                assert (await api.upload(b"text")).id == "1"
    assert (error, len(sent)) == (None, 1)
    sys.stdout.write(f"{kind}: failed at {' '.join(failed)}, did without {' '.join(survived)}\n")
    assert "read" in failed
    assert "write" in failed or kind != "spool"


async def uploaded(api: MediaApi, sabotage: Sabotage, source: Any) -> MediaError | None:
    """Upload, with a file operation that fails, and return what was said of it."""
    with sabotage.watching():
        try:
            await api.upload(source, filename="a.txt")
        except MediaError as error:
            return error
    return None


# What others do meanwhile


def once(action: Callable[[], object]) -> Callable[[object], Any]:
    """Make a progress callback that does something off the event loop, at the first chunk only."""
    left = [action]

    async def progress(_: object) -> None:
        while left:
            await anyio.to_thread.run_sync(left.pop())

    return progress


@pytest.mark.parametrize("way", WAYS)
async def test_private_from_its_creation(warehouse: LeanServer, tmp_path: Path, way: str) -> None:
    """At no moment before the bytes are complete may anybody else open the temporary file, whatever the umask is."""
    destination, result, overwrite = WAYS[way]
    seen: set[tuple[int, int]] = set()
    at, reached = 0, True
    async with client(warehouse) as api:
        await api.download(media(warehouse), tmp_path / "warm.jpg")  # after which our own umask is known
        while reached:
            at += 1
            folder = furnished(tmp_path / str(at))

            def look(folder: Path = folder) -> None:
                seen.update((left.stat().st_size, stat.S_IMODE(left.stat().st_mode)) for left in left_over(folder))

            sabotage = Sabotage(folder, at, look, late=True)
            mask = os.umask(0)
            try:
                error = await attempted(api, sabotage, media(warehouse), folder / destination, overwrite=overwrite)
            finally:
                os.umask(mask)
            assert error is None
            reached = sabotage.reached
            assert (folder / result).read_bytes() == content(SIZE)
    assert {mode for size, mode in seen if size < SIZE} == {0o600}
    assert min(size for size, _ in seen) == 0


async def gathered(*downloads: Any) -> tuple[list[Any], list[BaseException]]:
    """Wait for all, and sort them by their outcomes."""
    all_of_them = await asyncio.gather(*downloads, return_exceptions=True)
    errors = [outcome for outcome in all_of_them if isinstance(outcome, BaseException)]
    return [outcome for outcome in all_of_them if not isinstance(outcome, BaseException)], errors


@pytest.mark.parametrize("overwrite", [True, False])
async def test_downloads_to_one_path_at_once(tmp_path: Path, overwrite: bool) -> None:
    """Downloads to one path have a temporary file each, and one of them wins, whole; where none may replace, only one."""
    go = asyncio.Event()
    sizes = range(SIZE, SIZE + 8)

    async def halves(received: Received, writer: asyncio.StreamWriter) -> None:
        body = content(int(received.target.rpartition("/")[2]))
        writer.write(page(body, content_type="image/jpeg")[:-1000])
        await go.wait()
        writer.write(body[-1000:])

    async with Server(halves) as server, client(server) as api:
        target = tmp_path / "one.jpg"
        downloads = (api.download(media(server, size), target, overwrite=overwrite) for size in sizes)
        waiting = asyncio.ensure_future(gathered(*downloads))
        await wait_until(lambda: len(server.requests) == len(sizes))
        written = {path.name for path in left_over(tmp_path)}
        assert (len(written), set(listing(tmp_path))) == (len(sizes), written)
        go.set()
        saved, errors = await waiting
    assert len(saved) == (len(sizes) if overwrite else 1)
    assert {type(error) for error in errors} <= {StorageError}
    assert {getattr(error, "errno", None) for error in errors} <= {errno.EEXIST}
    assert listing(tmp_path) in [{"one.jpg": content(one.size)} for one in saved]


async def test_readers_never_see_a_torn_file(warehouse: LeanServer, tmp_path: Path) -> None:
    """Whoever opens a path, again and again while downloads replace its file, reads one whole file or another."""
    target = made(tmp_path, "read.jpg")
    whole = {OLD: "old"} | {content(size): str(size) for size in range(SIZE, SIZE + 30)}
    over = threading.Event()
    seen: list[str | None] = []

    def read() -> None:
        while not over.is_set():
            seen.append(whole.get(target.read_bytes()))

    async with client(warehouse) as api, anyio.create_task_group() as readers:
        readers.start_soon(anyio.to_thread.run_sync, read)
        try:
            await wait_until(lambda: bool(seen))
            for size in range(SIZE, SIZE + 30):
                await api.download(media(warehouse, size), target)
        finally:
            over.set()
    assert None not in seen
    assert len(set(seen)) > 1


async def test_folder_that_is_moved(warehouse: LeanServer, tmp_path: Path) -> None:
    """A folder that is moved meanwhile keeps no temporary file, and its old place gets none."""
    folder = made(tmp_path / "here", "old.jpg").parent
    async with client(warehouse) as api:
        with contextlib.suppress(StorageError):  # the path has gone; the file may have come along, whole
            await api.download(
                media(warehouse), folder / "old.jpg", progress=once(lambda: folder.rename(tmp_path / "there"))
            )
    assert left_over(tmp_path) == []
    assert state(tmp_path / "there" / "old.jpg") in {"old", "whole"}
    assert not folder.exists()


async def test_link_to_the_folder_is_turned_elsewhere(warehouse: LeanServer, tmp_path: Path) -> None:
    """Where the folder is a symbolic link that changes meanwhile, nothing half-done is left at either end."""
    first, second = made(tmp_path / "first", "old.jpg").parent, made(tmp_path / "second", "old.jpg").parent
    link = tmp_path / "link"
    link.symlink_to(first)

    def turn() -> None:
        (tmp_path / "new").symlink_to(second)
        (tmp_path / "new").replace(link)

    async with client(warehouse) as api:
        with contextlib.suppress(StorageError):  # there is no right place any more; but all or nothing
            await api.download(media(warehouse), link / "old.jpg", progress=once(turn))
    assert left_over(tmp_path) == []
    assert {state(first / "old.jpg"), state(second / "old.jpg")} <= {"old", "whole"}


async def test_another_working_directory(
    warehouse: LeanServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path without a folder is in the directory that was the working one when the download began."""
    begun, later = made(tmp_path / "begun", "old.jpg").parent, tmp_path / "later"
    later.mkdir()
    monkeypatch.chdir(begun)
    async with client(warehouse) as api:
        saved = await api.download(media(warehouse), "old.jpg", progress=once(lambda: os.chdir(later)))
    assert left_over(tmp_path) == []
    assert (listing(begun), listing(later)) == ({"old.jpg": content(SIZE)}, {})
    assert saved.size == SIZE


async def test_path_becomes_a_folder(warehouse: LeanServer, tmp_path: Path) -> None:
    """A folder that appears at the path meanwhile is a StorageError, and stays as it is."""
    target = tmp_path / "new.jpg"
    async with client(warehouse) as api:
        with pytest.raises(StorageError, match="Is a directory") as caught:
            await api.download(media(warehouse), target, progress=once(lambda: made(target, "inside.jpg")))
    assert caught.value.errno == errno.EISDIR
    assert (listing(tmp_path), listing(target)) == ({}, {"inside.jpg": OLD})


async def test_temporary_file_is_swept_away(warehouse: LeanServer, tmp_path: Path) -> None:
    """A temporary file that somebody removes meanwhile is a StorageError, and the old file stays."""
    target = made(tmp_path, "old.jpg")

    def sweep() -> None:
        (temporary,) = left_over(tmp_path)
        temporary.unlink()

    async with client(warehouse) as api:
        with pytest.raises(StorageError, match="No such file or directory"):
            await api.download(media(warehouse), target, progress=once(sweep))
        assert listing(tmp_path) == {"old.jpg": OLD}
        await api.download(media(warehouse), target)
    assert listing(tmp_path) == {"old.jpg": content(SIZE)}


async def test_temporary_file_is_exchanged_for_a_link(warehouse: LeanServer, tmp_path: Path) -> None:
    """Who may write to the folder can spoil the download, but not reach a file elsewhere through it."""
    victim = made(tmp_path / "elsewhere", "private.jpg")
    victim.chmod(0o600)
    target = made(tmp_path / "folder", "old.jpg")
    target.chmod(0o666)

    def exchange() -> None:
        (temporary,) = left_over(target.parent)
        temporary.unlink()
        temporary.symlink_to(victim)

    async with client(warehouse) as api:
        with contextlib.suppress(StorageError):  # it may be told, or not
            await api.download(media(warehouse), target, progress=once(exchange))
    assert (victim.read_bytes(), stat.S_IMODE(victim.stat().st_mode)) == (OLD, 0o600)
