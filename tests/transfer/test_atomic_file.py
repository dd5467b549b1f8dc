"""Files in the making: by themselves, without a download."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import re
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from meta_media import clean_stale
from meta_media.errors import StorageError
from meta_media.transfer import atomic_file
from meta_media.transfer.atomic_file import AtomicFile
from meta_media.transfer.destinations import open_sink
from tests.support.sabotage import Sabotage
from tests.support.servers import open_files

OLD = b"what was there before"
NEW = b"new"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder, in which no temporary file stays, nor anything open."""
    path = tmp_path / "folder"
    path.mkdir()
    before = set(open_files(path))
    yield path
    assert [entry.name for entry in path.iterdir() if entry.name.endswith(".part")] == []
    assert set(open_files(path)) <= before  # what an earlier test left may have been closed


def placed(target: Path, name: str = "", *, overwrite: bool = True, fsync: bool = False) -> Path:
    """Write a draft, and let it appear."""
    draft = AtomicFile(target, overwrite=overwrite, fsync=fsync)
    try:
        draft.file.write(NEW)
        return draft.commit(name)
    finally:
        draft.discard()


def refuse() -> None:
    """Do what a broken disk does."""
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def listing(folder: Path) -> dict[str, bytes]:
    """Read all files of a folder."""
    return {entry.name: entry.read_bytes() for entry in folder.iterdir()}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.txt", ["a.txt", "a (2).txt", "a (3).txt"]),
        ("a", ["a", "a (2)", "a (3)"]),
        ("a.tar.gz", ["a.tar.gz", "a.tar (2).gz", "a.tar (3).gz"]),
    ],
)
@pytest.mark.parametrize("overwrite", [True, False])
def test_names_in_a_folder(folder: Path, name: str, expected: list[str], overwrite: bool) -> None:
    """In a folder a name that is taken gets a number before its extension, from two, whether or not files may be replaced."""
    paths = [placed(folder, name, overwrite=overwrite) for _ in expected]
    assert paths == [folder / name for name in expected]
    assert listing(folder) == dict.fromkeys(expected, NEW)


def test_discarded(folder: Path) -> None:
    """What is not placed is hidden, and for nobody else to read, and leaves nothing behind; it can be discarded again."""
    draft = AtomicFile(folder / "a", overwrite=True, fsync=False)
    draft.file.write(NEW)
    assert list(listing(folder)) == [draft.name]
    assert re.fullmatch(r"\.[0-9a-f]{16}\.meta-media\.part", draft.name), "what clean_stale looks for"
    assert stat.S_IMODE((folder / draft.name).stat().st_mode) == 0o600
    draft.discard()
    assert listing(folder) == {}
    draft.discard()
    assert draft.file.closed


def test_discarded_after_it_was_placed(folder: Path) -> None:
    """To discard what has been placed leaves it alone, and whatever has its old temporary name by then."""
    draft = AtomicFile(folder / "a", overwrite=True, fsync=False)
    assert draft.commit("") == folder / "a"
    (folder / draft.name).write_bytes(OLD)
    draft.discard()
    assert listing(folder) == {"a": b"", draft.name: OLD}
    (folder / draft.name).unlink()


def test_swept_away(folder: Path) -> None:
    """A temporary file that somebody else removed is no reason for an error when it is discarded."""
    draft = AtomicFile(folder / "a", overwrite=True, fsync=False)
    (folder / draft.name).unlink()
    draft.discard()
    assert listing(folder) == {}


def test_another_file_in_its_place(folder: Path) -> None:
    """What somebody put under the temporary name is not placed for the download."""
    draft = AtomicFile(folder / "a", overwrite=True, fsync=False)
    (folder / draft.name).rename(folder / "moved")
    (folder / draft.name).write_bytes(OLD)
    with pytest.raises(StorageError, match="another program replaced the temporary file"):
        draft.commit("")
    draft.discard()
    assert set(listing(folder)) == {"moved"}


async def test_emptied(folder: Path) -> None:
    """After all was taken back, what is written then begins the file, and ends it."""
    async with open_sink(folder / "a", overwrite=True, fsync=False) as sink:
        await sink.work.run(sink.put, memoryview(OLD + NEW))
        await sink.rewind()
        await sink.work.run(sink.put, memoryview(NEW))
        await sink.commit("")
    assert listing(folder) == {"a": NEW}


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("at", ["path", "folder"])
def test_what_survives_a_power_cut(folder: Path, overwrite: bool, at: str) -> None:
    """Where it is to survive a power cut, the bytes are on the disk before their name is, and then the name, too."""
    for fsync in (True, False):
        with Sabotage(folder).watching() as watch:
            placed(folder / f"{fsync}" if at == "path" else folder, f"{fsync}", overwrite=overwrite, fsync=fsync)
        order = [name for name in watch.operations if name in {"write", "fsync", "close", "link", "replace"}]
        appears = order.index("replace" if overwrite and at == "path" else "link")
        assert order[:appears] == (["write", "fsync", "close"] if fsync else ["write", "close"])
        assert order[appears + 1 :].count("fsync") == fsync


def test_a_folder_that_cannot_be_synchronised(folder: Path) -> None:
    """A disk that refuses to make the name safe is an error, and the folder is let go all the same."""
    draft = AtomicFile(folder / "a", overwrite=True, fsync=True)
    with Sabotage(folder).watching() as watch:
        placed(folder / "b", fsync=True)
    last = len(watch.operations) - watch.operations[::-1].index("fsync")
    with Sabotage(folder, last, refuse).watching() as broken, pytest.raises(OSError, match="Input/output error"):
        placed(folder / "b", fsync=True)
    assert broken.struck == "fsync"
    draft.discard()


def test_permissions(folder: Path) -> None:
    """What replaces a file gets its permissions, but no more than those; anything else gets those of a new file."""
    usual = folder / "usual"
    usual.touch()
    old = folder / "old"
    old.touch()
    old.chmod(0o6751)
    link = folder / "link"
    link.symlink_to(old)
    modes = [stat.S_IMODE(placed(path).lstat().st_mode) for path in (old, link, folder / "new")]
    assert modes == [0o751, stat.S_IMODE(usual.stat().st_mode), stat.S_IMODE(usual.stat().st_mode)]
    assert not link.is_symlink()


def test_the_process_keeps_its_mask(folder: Path) -> None:
    """To learn what permissions a new file gets changes nothing for the files of others."""
    before = os.umask(0o027)
    atomic_file._umask.cache_clear()
    try:
        placed(folder / "a")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
        atomic_file._umask.cache_clear()


@pytest.mark.parametrize("kind", ["file", "folder", "pipe", "link", "broken link"])
def test_what_is_at_the_path(folder: Path, kind: str, tmp_path: Path) -> None:
    """Only a file or a link may be replaced; with overwrite off, nothing; and no descriptor stays open for the refusal."""
    target = folder / "target"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(OLD)
    if kind == "pipe":
        os.mkfifo(target)
    elif kind == "file":
        target.write_bytes(OLD)
    elif "link" in kind:
        target.symlink_to(elsewhere if kind == "link" else tmp_path / "nowhere")
    if kind == "folder":
        target.mkdir()
        assert placed(target, "a", overwrite=False) == target / "a"
        return
    with pytest.raises(StorageError, match="exists already, and overwrite is off") as caught:
        AtomicFile(target, overwrite=False, fsync=False)
    assert caught.value.errno == errno.EEXIST
    if kind == "pipe":
        with pytest.raises(StorageError, match="is not a file"):
            AtomicFile(target, overwrite=True, fsync=False)
    else:
        placed(target)
        assert (target.is_symlink(), target.read_bytes()) == (False, NEW)
    assert elsewhere.read_bytes() == OLD


def test_a_folder_that_is_moved(folder: Path, tmp_path: Path) -> None:
    """A draft stays in the folder it was begun in, whatever its path means meanwhile; nothing is touched elsewhere."""
    inner, moved = folder / "inner", folder / "moved"
    inner.mkdir()
    for overwrite in (True, False):
        draft = AtomicFile(inner / f"{overwrite}", overwrite=overwrite, fsync=True)
        draft.file.write(NEW)
        inner.rename(moved)
        inner.mkdir()
        (inner / f"{overwrite}").write_bytes(OLD)
        assert draft.commit("") == moved / f"{overwrite}", "where the file is"
        draft.discard()
        assert listing(inner) == {f"{overwrite}": OLD}
        assert listing(moved) == {f"{overwrite}": NEW}
        for path in (inner, moved):
            (path / f"{overwrite}").unlink()
        moved.rmdir()
    draft = AtomicFile(inner, overwrite=True, fsync=False)
    inner.rename(moved)
    inner.symlink_to(tmp_path)
    assert draft.commit("a") == moved / "a"
    draft.discard()
    assert listing(moved) == {"a": b""}


def test_a_folder_that_is_removed(folder: Path) -> None:
    """Where the file is in no folder any more, that is an error."""
    inner = folder / "inner"
    inner.mkdir()

    def remove() -> None:
        (inner / "a").unlink()
        inner.rmdir()

    with Sabotage(folder).watching() as watch:
        placed(folder / "b")
    at = watch.operations.index("replace") + 1
    gone = "the folder of '.*a' was moved while the file was written: look for the file"
    with Sabotage(folder, at, remove, late=True).watching(), pytest.raises(StorageError, match=gone):
        placed(inner / "a")


def test_another_working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A relative path is that of the beginning."""
    monkeypatch.chdir(folder)
    draft = AtomicFile(Path("a"), overwrite=True, fsync=False)
    monkeypatch.chdir(tmp_path)
    assert draft.commit("") == folder / "a"
    draft.discard()
    assert listing(folder) == {"a": b""}


def without(*_: object, **__: object) -> None:
    """Do what a file system does that has no hard links."""
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has renameat2")
def test_without_hard_links(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no hard links, a name appears with all of its bytes as well, and no file is replaced."""
    monkeypatch.setattr(os, "link", without)
    with Sabotage(folder).watching() as watch:
        assert placed(folder / "a", overwrite=False) == folder / "a"
        assert placed(folder, "a") == folder / "a (2)"
    assert watch.operations.count("open") == 4, "a folder and a temporary file each, and no empty file"
    draft = AtomicFile(folder / "b", overwrite=False, fsync=False)
    (folder / "b").write_bytes(OLD)
    with pytest.raises(FileExistsError):
        draft.commit("")
    draft.discard()
    assert listing(folder) == {"a": NEW, "a (2)": NEW, "b": OLD}


def test_without_hard_links_and_renameat2(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a rename always replaces, a free name is claimed, and let go of if the file cannot be moved there after all."""
    monkeypatch.setattr(os, "link", without)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())  # a libc without it
    with Sabotage(folder).watching() as watch:
        assert placed(folder / "a", overwrite=False) == folder / "a"
    assert placed(folder, "a") == folder / "a (2)"
    assert listing(folder) == {"a": NEW, "a (2)": NEW}
    draft = AtomicFile(folder / "b", overwrite=False, fsync=False)
    at = watch.operations.index("replace") + 1
    with Sabotage(folder, at, refuse).watching(), pytest.raises(OSError, match="Input/output error"):
        placed(folder / "c", overwrite=False)
    (folder / "b").write_bytes(OLD)
    with pytest.raises(FileExistsError):
        draft.commit("")
    draft.discard()
    assert listing(folder) == {"a": NEW, "a (2)": NEW, "b": OLD}


def test_file_system_that_cannot_rename_without_replacing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that refuses renameat2's flag gets an empty file first."""

    class Libc:
        @staticmethod
        def renameat2(*_: object) -> int:
            ctypes.set_errno(errno.EINVAL)
            return -1

    monkeypatch.setattr(os, "link", without)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Libc)
    assert placed(folder / "a", overwrite=False) == folder / "a"
    assert listing(folder) == {"a": NEW}


@pytest.mark.parametrize("kind", ["pipe", "socket", "descriptor", "descriptor of a file", "two links", "device"])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_link_to_what_is_no_file(folder: Path, tmp_path: Path, kind: str, when: str) -> None:
    """A link that leads to a pipe, a device, a socket or a descriptor is not replaced, like /dev/stdout."""
    target = folder / "stdout"
    other = AtomicFile(target, overwrite=True, fsync=False)
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "log").open("wb") as log, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        (tmp_path / "link").symlink_to(f"/proc/self/fd/{log.fileno()}")
        ends: dict[str, str | Path] = {
            "pipe": "../pipe",
            "socket": tmp_path / "socket",
            "descriptor": f"/proc/self/fd/{os.open(tmp_path / 'pipe', os.O_RDWR)}",
            "descriptor of a file": f"/dev/fd/{log.fileno()}",
            "two links": "../link",
            "device": "/dev/null",
        }
        target.symlink_to(ends[kind])
        before = target.readlink()
        refused = r"'.*stdout' is not a file: open it and pass the handle"
        attempt = (
            (lambda: AtomicFile(target, overwrite=True, fsync=False))
            if when == "before"
            else (lambda: other.commit(""))
        )
        with pytest.raises(StorageError, match=refused):
            attempt()
        os.close(int(str(ends["descriptor"]).rpartition("/")[2]))
        assert target.readlink() == before
    other.discard()
    target.unlink()


def test_link_to_itself(folder: Path) -> None:
    """A link that leads nowhere, because it leads to itself, is replaced."""
    target = folder / "loop"
    target.symlink_to(target)
    assert placed(target) == target
    assert listing(folder) == {"loop": NEW}


def test_without_descriptors_of_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system that cannot open a folder, such as Windows, the path is used."""
    monkeypatch.setattr(atomic_file, "_HAS_DIR_FD", False)
    assert placed(folder / "a") == folder / "a"
    assert placed(folder, "a") == folder / "a (2)"
    assert listing(folder) == {"a": NEW, "a (2)": NEW}


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/stderr", "/dev/fd/1", "/proc/self/fd/2"])
def test_standard_streams(path: str) -> None:
    """The links of the standard streams are refused as they are, wherever they lead, and root replaces none."""
    if not os.path.lexists(path):  # a small container
        pytest.skip(f"there is no {path}")
    with pytest.raises(StorageError, match=f"'{path}' is not a file: open it and pass the handle"):
        AtomicFile(path, overwrite=True, fsync=False)


def test_a_temporary_file_that_cannot_be_removed(folder: Path) -> None:
    """A draft that cannot be removed says so, and lets the folder go all the same."""
    draft = AtomicFile(folder / "a", overwrite=True, fsync=False)
    with Sabotage(folder, 1, refuse).watching() as watch, pytest.raises(OSError, match="Input/output error"):
        draft.discard()
    assert watch.struck == "unlink"
    (left,) = folder.iterdir()
    left.unlink()


async def test_clean_stale(folder: Path) -> None:
    """Files that downloads left and that nothing wrote to for an hour, or the time asked for, are removed and named."""
    temporary = [folder / f".{number:016x}.meta-media.part" for number in range(4)]
    others = [
        folder / "a.par",
        folder / ".0123456789abcdef.meta-media.part.txt",
        folder / "x.0123456789abcdef.meta-media.part",
        folder / ".0123456789abcde.meta-media.part",
        folder / ".0123456789abcdeF.meta-media.part",
    ]
    now = time.time()
    for age, path in zip((7200, 3601, 3500, -100), temporary, strict=True):
        path.touch()
        os.utime(path, (now, now - age))
    for path in others:
        path.touch()
        os.utime(path, (now, now - 7200))
    assert await clean_stale(folder) == temporary[:2]
    assert await clean_stale(str(folder), older_than=timedelta(minutes=30)) == [temporary[2]]
    assert await clean_stale(folder, older_than=timedelta(0)) == []
    assert set(listing(folder)) == {path.name for path in [*others, temporary[3]]}
    temporary[3].unlink()
    with pytest.raises(StorageError, match=r"could not clean '.*nowhere'"):
        await clean_stale(folder / "nowhere")
    others[2].unlink()
    others[3].unlink()
    others[4].unlink()


async def test_clean_stale_keeps_what_is_no_file(folder: Path) -> None:
    """A folder, a link and a pipe of such a name are no files of downloads. They stay, and do not keep the rest."""
    names = [folder / f".{number:016x}.meta-media.part" for number in range(4)]
    names[0].mkdir()
    names[1].symlink_to(folder / "nowhere")
    os.mkfifo(names[2])
    names[3].touch()
    assert await clean_stale(folder, older_than=timedelta(0)) == [names[3]]
    names[0].rmdir()
    for path in names[1:3]:
        path.unlink()


async def test_clean_stale_is_refused_once(folder: Path) -> None:
    """A file that cannot be removed is named in the error. All others are removed."""
    names = [folder / f".{number:016x}.meta-media.part" for number in range(3)]
    with Sabotage(folder).watching() as watch:
        names[0].touch()
        await clean_stale(folder, older_than=timedelta(0))
    at = watch.operations.index("unlink") + 1
    with Sabotage(folder).watching() as watch:
        names[0].touch()
    at -= len(watch.operations)
    for path in names:
        path.touch()
    with (
        Sabotage(folder, at, refuse).watching(),
        pytest.raises(
            StorageError, match=r"could not remove '.*\.0000000000000000\.meta-media\.part': Input/output"
        ) as caught,
    ):
        await clean_stale(folder, older_than=timedelta(0))
    assert caught.value.errno == errno.EIO
    assert list(listing(folder)) == [names[0].name]
    names[0].unlink()


async def test_clean_stale_beside_another(folder: Path) -> None:
    """A file that is gone when it would be removed is not an error, and is not named."""
    path = folder / ".0123456789abcdef.meta-media.part"
    with Sabotage(folder).watching() as watch:
        path.touch()
        before = len(watch.operations)
        assert await clean_stale(folder, older_than=timedelta(0)) == [path]
    unlink = watch.operations.index("unlink") + 1 - before
    for at, operation in ((unlink - 1, "stat"), (unlink, "unlink")):
        path.touch()
        with Sabotage(folder, at, path.unlink).watching() as struck:
            assert await clean_stale(folder, older_than=timedelta(0)) == []
        assert struck.struck == operation


def test_clean_stale_beside_downloads(folder: Path) -> None:
    """Files appear and are replaced beside many sweeps. Each sweep and each file succeeds."""
    over = threading.Event()

    def write(name: str) -> int:
        for _ in range(300):
            placed(folder / name)
            placed(folder, name).unlink()
        return 1

    async def sweep() -> list[Path]:
        removed = []
        while not over.is_set():
            removed += await clean_stale(folder)
        return removed

    with ThreadPoolExecutor(6) as threads:
        sweeps = [threads.submit(asyncio.run, sweep()) for _ in range(2)]
        writes = [threads.submit(write, f"{number}.txt") for number in range(4)]
        try:
            assert sum(write.result() for write in writes) == 4
        finally:
            over.set()
        assert [swept.result() for swept in sweeps] == [[], []]
