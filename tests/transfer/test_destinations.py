"""Everything that can be downloaded to: whole and verified, or as it was before."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import io
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import aiofiles
import anyio
import anyio.to_thread
import pytest

from meta_media import DownloadedMedia, MediaApi, Settings
from meta_media.emulator import Emulator, EmulatorSettings
from meta_media.errors import ConfigurationError, IntegrityError, MediaError, StorageError
from meta_media.protocol.models import InboundMedia
from meta_media.transfer.atomic_file import AtomicFile
from tests.support.marks import slow_except
from tests.support.servers import Server, cut, info, open_files, page, stalled, wait_until
from tests.support.stepping import settled_at
from tests.support.system import files_no_larger_than
from tests.transfer.disks import left_over
from tests.transfer.uploads import Fspath

DATA = bytes(range(256)) * 12_000  # 3 MB
OLD = b"what was there before"


@pytest.fixture
async def media_id(media: MediaApi) -> str:
    """Media that Meta has."""
    return (await media.upload(DATA, mime_type="text/plain", filename="note.txt", validate=False)).id


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder, in which no temporary file stays, nor anything open."""
    path = tmp_path / "folder"
    path.mkdir()
    yield path
    assert [entry.name for entry in path.iterdir() if entry.name.endswith(".part")] == []
    assert open_files(path) == open_files("/no such folder")


def listing(folder: Path) -> dict[str, bytes]:
    """Read all files of a folder."""
    return {entry.name: entry.read_bytes() for entry in folder.iterdir()}


def names(folder: Path) -> set[str]:
    """List a folder."""
    return {entry.name for entry in folder.iterdir()}


def links(folder: Path) -> list[str]:
    """List the symbolic links in a folder."""
    return [entry.name for entry in folder.iterdir() if entry.is_symlink()]


def modes(folder: Path) -> list[int]:
    """Read the permissions of all files in a folder."""
    return [stat.S_IMODE(entry.stat().st_mode) for entry in folder.iterdir()]


def full_device() -> BinaryIO:
    """Open a device that has no room."""
    return Path("/dev/full").open("wb", buffering=0)


def whole(saved: DownloadedMedia) -> bool:
    """Tell whether what is said of a download is said of our data."""
    return (saved.size, saved.sha256) == (len(DATA), hashlib.sha256(DATA).hexdigest())


# Paths


@pytest.mark.parametrize("as_given", [str, Path, Fspath], ids=["str", "Path", "PathLike"])
async def test_path(media: MediaApi, media_id: str, folder: Path, as_given: Callable[[Path], Any]) -> None:
    """A path of any sort gets the file, and is what comes back."""
    saved = await media.download(media_id, as_given(folder / "copy.txt"))
    assert saved.path == folder / "copy.txt"
    assert whole(saved)
    assert listing(folder) == {"copy.txt": DATA}


async def test_relative_path(media: MediaApi, media_id: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path without a folder is in the working directory."""
    monkeypatch.chdir(folder)
    assert (await media.download(media_id, "copy.txt")).path == Path("copy.txt")
    assert listing(folder) == {"copy.txt": DATA}


async def test_overwrite(media: MediaApi, media_id: str, folder: Path) -> None:
    """A file at the path is replaced, and whoever has it open keeps the old one."""
    target = folder / "copy.txt"
    target.write_bytes(OLD)
    with target.open("rb") as reader:
        await media.download(media_id, target)
        assert reader.read() == OLD
    assert listing(folder) == {"copy.txt": DATA}


async def test_overwrite_off(media: MediaApi, emulator: Emulator, media_id: str, folder: Path) -> None:
    """With overwrite off an existing file is a StorageError before any request; a free name is taken."""
    (folder / "copy.txt").write_bytes(OLD)
    before = len(emulator.requests)
    with pytest.raises(StorageError, match="exists already, and overwrite is off") as caught:
        await media.download(media_id, folder / "copy.txt", overwrite=False)
    assert (caught.value.errno, caught.value.operation, caught.value.media_id) == (17, "download", media_id)
    assert len(emulator.requests) == before
    await media.download(media_id, folder / "other.txt", overwrite=False)
    assert listing(folder) == {"copy.txt": OLD, "other.txt": DATA}


async def test_overwrite_off_and_somebody_was_faster(media: MediaApi, media_id: str, folder: Path) -> None:
    """A file that appears while the download runs is not overwritten either."""
    target = folder / "copy.txt"

    def appear(_: object) -> None:
        os.close(os.open(target, os.O_CREAT))

    with pytest.raises(StorageError, match="File exists"):
        await media.download(media_id, target, overwrite=False, progress=appear)
    assert listing(folder) == {"copy.txt": b""}


async def test_symbolic_link_is_replaced(media: MediaApi, media_id: str, folder: Path, tmp_path: Path) -> None:
    """A symbolic link at the path is replaced, not followed."""
    elsewhere = tmp_path / "elsewhere.txt"
    elsewhere.write_bytes(OLD)
    (folder / "copy.txt").symlink_to(elsewhere)
    (folder / "broken.txt").symlink_to(tmp_path / "nowhere.txt")
    await media.download(media_id, folder / "copy.txt")
    await media.download(media_id, folder / "broken.txt")
    assert listing(folder) == {"copy.txt": DATA, "broken.txt": DATA}
    assert links(folder) == []
    assert elsewhere.read_bytes() == OLD
    assert not (tmp_path / "nowhere.txt").exists()


async def test_broken_link_counts_as_existing(media: MediaApi, media_id: str, folder: Path) -> None:
    """With overwrite off even a broken symbolic link is kept."""
    (folder / "broken.txt").symlink_to(folder / "nowhere.txt")
    with pytest.raises(StorageError, match="exists already"):
        await media.download(media_id, folder / "broken.txt", overwrite=False)
    assert (folder / "broken.txt").is_symlink()
    (folder / "broken.txt").unlink()


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("missing/copy.txt", 2),
        ("file/copy.txt", 20),
        ("n" * 256, 36),
        ("a\0b", None),
        ("fifo", None),
        ("loop/copy.txt", 40),
    ],
    ids=["missing folder", "below a file", "too long", "NUL", "pipe", "loop of links"],
)
async def test_path_that_cannot_be_written(
    media: MediaApi, emulator: Emulator, media_id: str, folder: Path, name: str, number: int | None
) -> None:
    """A path that cannot be a file is a StorageError before any request."""
    (folder / "file").write_bytes(OLD)
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "fifo")
    before = len(emulator.requests)
    with pytest.raises(StorageError) as caught:
        await media.download(media_id, f"{folder}/{name}")
    assert caught.value.errno == number
    assert len(emulator.requests) == before
    assert names(folder) == {"file", "fifo", "loop"}


async def test_folder_without_permission(media: MediaApi, emulator: Emulator, media_id: str) -> None:
    """A folder in which nobody may create files, root included, is a StorageError before any request."""
    before = len(emulator.requests)
    with pytest.raises(StorageError, match="could not write to '/proc/self/fd/") as caught:
        await media.download(media_id, "/proc/self/fd/copy.txt")
    assert caught.value.errno in {1, 2, 13}
    assert len(emulator.requests) == before


async def test_device_is_not_replaced(media: MediaApi, media_id: str) -> None:
    """A device is not replaced by a file, not even by root."""
    with pytest.raises(StorageError, match="'/dev/null' is not a file"):
        await media.download(media_id, "/dev/null")
    assert (await anyio.Path("/dev/null").stat()).st_rdev == os.makedev(1, 3)


@pytest.mark.parametrize(
    ("mask", "expected"), slow_except([(0o027, 0o640)], [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600), (0, 0o666)])
)
def test_permissions_of_new_files(tmp_path: Path, mask: int, expected: int) -> None:
    """A new file, at a path or in a folder, gets the permissions that any new file of the process gets."""
    code = """
import asyncio, sys
from pathlib import Path
from meta_media.emulator import Emulator
async def main(folder):
    async with Emulator() as emulator, emulator.api() as media:
        uploaded = await media.upload(b"some text")
        await media.download(uploaded.id, folder / "copy.txt")
        await media.download(uploaded.id, folder)
asyncio.run(main(Path(sys.argv[1])))
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, preexec_fn=lambda: os.umask(mask) and None)
    assert modes(tmp_path) == [expected, expected]


async def test_permissions_of_a_replaced_file(media: MediaApi, media_id: str, folder: Path) -> None:
    """A file that is replaced hands its permissions on."""
    target = folder / "copy.txt"
    target.write_bytes(OLD)
    target.chmod(0o604)
    await media.download(media_id, target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o604


async def test_temporary_file_is_private(media: MediaApi, media_id: str, folder: Path) -> None:
    """While it is written the file is beside its target, hidden, and nobody else's to read."""
    seen: list[list[tuple[bool, int]]] = []

    def look() -> list[tuple[bool, int]]:
        return [
            (entry.name.startswith(".") and entry.name.endswith(".part"), stat.S_IMODE(entry.stat().st_mode))
            for entry in folder.iterdir()
        ]

    async def progress(_: object) -> None:
        seen.append(await anyio.to_thread.run_sync(look))

    await media.with_options(chunk_size=2**20).download(media_id, folder / "copy.txt", progress=progress)
    assert seen == [[(True, 0o600)]] * 3


# Failures


@pytest.fixture
async def failing() -> AsyncIterator[Callable[..., Any]]:
    """Make clients of a server that says what it is told to."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(*script: Any, **settings: Any) -> tuple[Server, MediaApi, InboundMedia]:
            server = await stack.enter_async_context(Server(*script))
            configured = Settings(base_url=server.base_url, chunk_size=65536, **settings)
            api = await stack.enter_async_context(MediaApi("token", "1", settings=configured))
            sha256 = hashlib.sha256(DATA).hexdigest()
            url = f"{server.base_url}/media?ext=1"
            return server, api, InboundMedia(id="7", kind="image", mime_type="image/jpeg", sha256=sha256, url=url)

        yield make


@pytest.mark.parametrize("failure", ["cut", "wrong bytes", "too long", "refused", "callback"])
@pytest.mark.parametrize("as_folder", [True, False])
async def test_failure_leaves_all_as_it_was(failing: Any, folder: Path, failure: str, as_folder: bool) -> None:
    """Whatever goes wrong, the old file is as it was and no temporary file stays."""
    scripts = {
        "cut": cut(page(DATA[:-1], length=len(DATA))),
        "wrong bytes": page(DATA[:-1] + b"?"),
        "too long": page(DATA, length=None),
        "refused": page("no", 500),
        "callback": page(DATA),
    }
    _, api, media = await failing(scripts[failure], max_download_size=10**6 if failure == "too long" else 10**8)
    (folder / "7.jpg").write_bytes(OLD)

    def progress(_: object) -> None:
        if failure == "callback":
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError if failure == "callback" else MediaError):
        await api.download(media, folder if as_folder else folder / "7.jpg", progress=progress)
    assert listing(folder) == {"7.jpg": OLD}


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("after", [None, 0, 1, len(DATA) - 1])
async def test_cancellation_leaves_all_as_it_was(failing: Any, folder: Path, after: int | None, times: int) -> None:
    """A download that is cancelled, once or twice, before, during or after its bytes leaves all as it was, and works again."""
    hold = asyncio.Event()
    said = b"" if after is None else page(DATA[:after], length=len(DATA))
    server, api, media = await failing(stalled(said, hold), page(DATA))
    (folder / "7.jpg").write_bytes(OLD)
    got: list[int] = []
    download = asyncio.ensure_future(
        api.download(media, folder / "7.jpg", progress=lambda progress: got.append(progress.transferred))
    )
    await wait_until(lambda: len(server.requests) == 1 and sum(got[-1:]) >= (after or 0) - 65536)
    for _ in range(times):
        download.cancel()
        await asyncio.sleep(0)  # so that the second one arrives during the clean-up
    with pytest.raises(asyncio.CancelledError):
        await download
    await settled_at([], lambda: left_over(folder))  # a thread of a slow disk may be left behind
    assert listing(folder) == {"7.jpg": OLD}
    assert (await api.download(media, folder / "7.jpg")).size == len(DATA)
    assert listing(folder) == {"7.jpg": DATA}


@pytest.mark.parametrize("turns", range(0, 60, 3))
async def test_cancelled_at_any_time(failing: Any, folder: Path, turns: int) -> None:
    """A download that is cancelled after any number of turns of the loop has done all or nothing."""
    _, api, media = await failing(page(DATA))
    (folder / "7.jpg").write_bytes(OLD)
    download = asyncio.ensure_future(api.download(media, folder / "7.jpg"))
    for _ in range(turns):
        await asyncio.sleep(0.001)  # a turn that lets threads and sockets get on with it
    download.cancel()
    await asyncio.wait([download])
    await settled_at([], lambda: left_over(folder))  # a thread of a slow disk may be left behind
    if download.cancelled():
        assert listing(folder) in ({"7.jpg": OLD}, {"7.jpg": DATA})
    else:
        assert download.result().size == len(DATA)
        assert listing(folder) == {"7.jpg": DATA}
    await api.download(media, folder / "7.jpg")
    assert listing(folder) == {"7.jpg": DATA}


async def test_timeout_leaves_all_as_it_was(failing: Any, folder: Path) -> None:
    """A timeout of asyncio or anyio around a download is a timeout, and leaves all as it was."""
    _, api, media = await failing(stalled(page(DATA[:100_000], length=len(DATA)), asyncio.Event()))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await api.download(media, folder / "7.jpg")
    with anyio.move_on_after(0.3) as scope:
        await api.download(media, folder / "7.jpg")
    assert scope.cancelled_caught
    await settled_at([], lambda: left_over(folder))  # a thread of a slow disk may be left behind
    assert listing(folder) == {}


@pytest.mark.parametrize("room", [0, 1_000_000, len(DATA) - 1])
async def test_disk_full(failing: Any, folder: Path, room: int) -> None:
    """A disk that is full at the first, a middle or the last byte is a StorageError; the old file is as it was."""
    _, api, media = await failing(page(DATA))
    (folder / "7.jpg").write_bytes(OLD)
    with files_no_larger_than(room), pytest.raises(StorageError, match="File too large") as caught:
        await api.download(media, folder / "7.jpg")
    assert (caught.value.errno, caught.value.media_id) == (27, "7")
    assert listing(folder) == {"7.jpg": OLD}


async def test_disk_full_shows_at_close(failing: Any, folder: Path) -> None:
    """A small file whose bytes are refused only when it is closed is a StorageError too."""
    _, api, _ = await failing(info("x", b"tiny"), page("tiny"))
    with files_no_larger_than(0), pytest.raises(StorageError, match="File too large"):
        await api.download(f"{api.settings.base_url}/media", folder / "tiny.txt")
    assert listing(folder) == {}


async def test_folder_vanishes(failing: Any, folder: Path) -> None:
    """A folder that is removed while the download runs is a StorageError."""
    _, api, media = await failing(page(DATA))
    inner = folder / "inner"
    inner.mkdir()

    async def vanish(_: object) -> None:
        await anyio.to_thread.run_sync(lambda: shutil.rmtree(inner, ignore_errors=True))

    with pytest.raises(StorageError, match="No such file or directory"):
        await api.download(media, inner / "copy.jpg", progress=vanish)
    assert listing(folder) == {}


# Folders


async def test_folder_gets_a_name(media: MediaApi, media_id: str, folder: Path) -> None:
    """A folder gets a file named after the media, with the extension of its type; a second one gets a number."""
    for expected in (f"{media_id}.txt", f"{media_id} (2).txt", f"{media_id} (3).txt"):
        assert (await media.download(media_id, folder)).path == folder / expected
    assert set(listing(folder).values()) == {DATA}


async def test_folder_behind_a_link(media: MediaApi, media_id: str, folder: Path, tmp_path: Path) -> None:
    """A symbolic link to a folder is that folder."""
    (tmp_path / "link").symlink_to(folder)
    assert (await media.download(media_id, tmp_path / "link")).path == tmp_path / "link" / f"{media_id}.txt"
    assert listing(folder) == {f"{media_id}.txt": DATA}


async def test_downloads_race_for_a_name(failing: Any, folder: Path) -> None:
    """Many downloads of the same name into one folder all get a name of their own."""
    _, api, media = await failing(page(DATA))
    saved = await asyncio.gather(*(api.download(media, folder) for _ in range(20)))
    names = ["7.jpg", *(f"7 ({number}).jpg" for number in range(2, 21))]
    assert sorted(str(one.path.name) for one in saved) == sorted(names)
    assert listing(folder) == dict.fromkeys(names, DATA)


NAMES = {
    "../../x.txt": "x.txt",
    "/etc/passwd": "passwd.txt",
    "..\\..\\x.txt": "x.txt",
    "C:\\windows\\system32\\evil.txt": "evil.txt",
    "con.txt": "_con.txt",
    "NUL": "_NUL.txt",
    "a\r\nX-Evil: 1.txt": "aX-Evil_ 1.txt",
    "..": None,
    ".": None,
    "": None,
    ".bashrc": "bashrc.txt",
    "report.txt. . ": "report.txt",
    "\u202egpj.exe": "gpj.exe.txt",
    "п" * 200 + ".txt": "п" * 118 + ".txt",
    "a (1).txt": "a (1).txt",
}


@pytest.mark.parametrize("name", NAMES, ids=repr)
async def test_hostile_name_of_inbound_media(emulator: Emulator, media: MediaApi, folder: Path, name: str) -> None:
    """A webhook's file name is made harmless before it becomes a path."""
    uploaded = await media.upload(b"some text")
    inbound = InboundMedia(id=uploaded.id, kind="document", mime_type="text/plain", filename=name)
    saved = await media.download(inbound, folder)
    assert saved.path == folder / (NAMES[name] or f"{uploaded.id}.txt")
    assert listing(folder) == {(NAMES[name] or f"{uploaded.id}.txt"): b"some text"}


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('attachment; filename="../../x.txt"', "x.txt"),
        ('attachment; filename="/etc/passwd"', "passwd.jpg"),
        ("attachment; filename=a.jpg; filename*=UTF-8''b%2F..%2Fc.jpg", "c.jpg"),
        ("attachment; filename*=UTF-8''%2e%2e%2f%0d%0aevil.txt", "evil.txt"),
        ('attachment; filename="COM1"', "_COM1.jpg"),
        ("attachment; filename=", "7.jpg"),
        ("attachment; filename*=nonsense''%ff", None),
        ("\xff\xfe", "7.jpg"),
    ],
)
async def test_hostile_name_of_a_header(failing: Any, folder: Path, header: str, name: str | None) -> None:
    """A server's file name is made harmless before it becomes a path."""
    _, api, media = await failing(page(DATA, content_disposition=header))
    saved = await api.download(media, folder)
    assert names(folder) == {saved.path.name}
    assert name in {None, saved.path.name}
    assert saved.path.parent == folder


async def test_name_of_the_upload_comes_back(folder: Path) -> None:
    """Where the service tells the name of the upload, a folder gets it, hostile or not."""
    async with Emulator(settings=EmulatorSettings(content_disposition=True)) as emulator, emulator.api() as media:
        for name, expected in {
            "résumé 1.txt": "résumé 1.txt",
            "..\\..\\a\r\nb.txt": "ab.txt",
            "nul.txt": "_nul.txt",
        }.items():
            uploaded = await media.upload(b"some text", filename=name)
            assert (await media.download(uploaded.id, folder)).path == folder / expected


# Handles


class _Collector:
    """What an object store's SDK may give: nothing but an async write."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []

    async def write(self, chunk: bytes) -> bool:
        self.chunks.append(bytes(chunk))
        return True

    def getvalue(self) -> bytes:
        return b"".join(self.chunks)


async def test_object_with_async_write(media: MediaApi, media_id: str) -> None:
    """Anything with an async write gets chunks of the size that was set, whatever it returns."""
    collector = _Collector()
    saved = await media.with_options(chunk_size=10**6).download(media_id, collector)
    assert (saved.path, whole(saved)) == (None, True)
    assert [len(chunk) for chunk in collector.chunks] == [10**6, 10**6, 10**6, len(DATA) - 3 * 10**6]
    assert collector.getvalue() == DATA


async def test_async_handles(media: MediaApi, media_id: str, folder: Path) -> None:
    """Handles of aiofiles and anyio are written from where they stand, and stay open."""
    async with aiofiles.open(folder / "a", "wb") as handle, await anyio.open_file(folder / "b", "wb") as other:
        for file in (handle, other):
            await file.write(OLD)
            assert whole(await media.download(media_id, file))
            await file.write(OLD)
    assert listing(folder) == {"a": OLD + DATA + OLD, "b": OLD + DATA + OLD}


async def test_plain_files(media: MediaApi, media_id: str, folder: Path) -> None:
    """Plain binary file objects are written off the event loop, and stay open."""
    memory = io.BytesIO()
    with (
        (folder / "a").open("wb") as file,
        (folder / "b").open("wb", buffering=0) as raw,
        tempfile.SpooledTemporaryFile(max_size=10) as spool,
    ):
        for destination in (file, raw, memory, spool):
            assert (await media.download(media_id, destination)).path is None
        spool.seek(0)
        assert spool.read() == DATA
    assert memory.getvalue() == DATA
    assert listing(folder) == {"a": DATA, "b": DATA}


class _Short(io.RawIOBase):
    """An unbuffered file that takes a few bytes at a time, and then no more."""

    def __init__(self, room: int) -> None:
        self.taken = b""
        self._room = room

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        piece = bytes(data[: min(70_000, self._room - len(self.taken))])
        self.taken += piece
        return len(piece)


async def test_short_writes(media: MediaApi, media_id: str) -> None:
    """A file that takes less than it is given gets the rest in the next write."""
    with _Short(10**9) as short:
        assert whole(await media.download(media_id, short))
        assert short.taken == DATA


async def test_write_that_takes_nothing(media: MediaApi, media_id: str) -> None:
    """A file that takes nothing any more is a StorageError, not a silent loss."""
    with _Short(100_000) as short, pytest.raises(StorageError, match="could not write to the destination"):
        await media.download(media_id, short)


async def test_full_device(media: MediaApi, media_id: str) -> None:
    """A device that is full is a StorageError, through a plain handle and an async one."""
    with full_device() as full:
        with pytest.raises(StorageError, match="No space left on device") as caught:
            await media.download(media_id, full)
        assert caught.value.errno == 28
    async with aiofiles.open("/dev/full", "wb", buffering=0) as handle:
        with pytest.raises(StorageError, match="No space left on device"):
            await media.download(media_id, handle)


async def test_handle_that_is_closed(media: MediaApi, media_id: str, folder: Path) -> None:
    """A closed handle, or one for reading, is a StorageError."""
    with (folder / "a").open("wb") as closed:
        pass
    with (folder / "a").open("rb") as reading:
        for handle in (closed, reading):
            with pytest.raises(StorageError, match="could not write to the destination"):
                await media.download(media_id, handle)


async def test_destination_that_raises(media: MediaApi, media_id: str) -> None:
    """What a destination raises arrives unchanged, unless it is the system's word, which is a StorageError."""

    class _Raising:
        def __init__(self, error: Exception) -> None:
            self.error = error

        async def write(self, _: bytes) -> None:
            raise self.error

    own = ZeroDivisionError("mine")
    with pytest.raises(ZeroDivisionError) as caught:
        await media.download(media_id, _Raising(own))
    assert caught.value is own
    gone = OSError(107, "gone")
    with pytest.raises(StorageError) as refused:
        await media.download(media_id, _Raising(gone))
    assert refused.value.__cause__ is gone


@pytest.mark.parametrize("wrong", [None, 3, object(), [], b"path"], ids=["None", "int", "object", "list", "bytes"])
async def test_what_is_no_destination(media: MediaApi, emulator: Emulator, wrong: Any) -> None:
    """Whatever cannot be written to is a ConfigurationError before any request."""
    with pytest.raises(ConfigurationError, match=f"cannot download to a {type(wrong).__name__}"):
        await media.download("1", wrong)
    assert emulator.requests == []


async def test_text_mode(media: MediaApi, emulator: Emulator, tmp_path: Path) -> None:
    """A file that is open in text mode is refused before any request, with what to do."""
    with (tmp_path / "text").open("w") as file, pytest.raises(ConfigurationError, match="open it with mode 'wb'"):
        await media.download("1", file)
    assert emulator.requests == []


async def test_wrong_bytes_into_a_handle(failing: Any) -> None:
    """A handle keeps what was written before an error came to light."""
    _, api, media = await failing(page(DATA[:-1] + b"?"))
    memory = io.BytesIO()
    with pytest.raises(IntegrityError):
        await api.download(media, memory)
    assert memory.getvalue() == DATA[:-1] + b"?"


# File systems without hard links


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


def refuse_hard_links() -> bool:
    """Let the kernel answer every linkat of this thread with EPERM, as file systems without hard links do (seccomp)."""
    load_number, equals_linkat = (0x20, 0, 0, 0), (0x15, 0, 1, 265)
    refuse, allow = (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)
    steps = (load_number, equals_linkat, refuse, allow)
    filters = (_Instruction * 4)(*(_Instruction(*step) for step in steps))
    libc = ctypes.CDLL(None)
    unprivileged = libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    return bool(unprivileged == 0 == libc.prctl(22, 2, ctypes.byref(_Program(4, filters))))  # PR_SET_SECCOMP


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the number of the system call is that of x86-64")
def test_without_hard_links(tmp_path: Path) -> None:
    """Where no hard link can be made, a free name is claimed all the same, and a taken one still left alone."""
    drafts = [AtomicFile(tmp_path / name, overwrite=False, fsync=False) for name in ("free", "taken")]
    (tmp_path / "taken").write_bytes(OLD)  # by somebody who was faster

    def work() -> tuple[bool, Exception | None]:
        able = refuse_hard_links()
        try:
            for draft in drafts:
                draft.file.write(b"new")
                draft.commit("")
        except FileExistsError as error:
            return able, error
        return able, None

    with ThreadPoolExecutor(1) as thread:
        able, error = thread.submit(work).result()
    if not able:
        pytest.skip("this system does not let a thread give up a system call")
    assert isinstance(error, FileExistsError)
    for draft in drafts:
        draft.discard()
    assert listing(tmp_path) == {"free": b"new", "taken": OLD}
