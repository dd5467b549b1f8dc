"""Identities: a source's SHA-256, read once, and remembered for files as long as they have not changed."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from meta_media import MediaApi, Settings
from meta_media.errors import CorruptedMediaError, FileTooLargeError, StorageError, UnsupportedMediaTypeError
from meta_media.transfer.fingerprint import RecentDigestCache, fingerprint
from meta_media.transfer.upload import UploadOptions
from tests.support.servers import open_files
from tests.support.stepping import none_added

CLIENT = MediaApi("token", "1", settings=Settings(chunk_size=65_536))
CONTENT = b"To be known again by its bytes.\n" * 20_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = CONTENT.swapcase()
LONG_AGO = 1_000_000_000  # seconds since 1970: long enough for any file system to tell the next change apart


class Noted(RecentDigestCache):
    """Notes what is asked of it, and what it remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str | None] = []  # each answer
        self.told: list[str] = []  # each stamp that was to be remembered

    async def find(self, stamp: str) -> str | None:
        """See `Digests`."""
        self.found.append(await super().find(stamp))
        return self.found[-1]

    async def remember(self, stamp: str, sha256: str) -> None:
        """See `Digests`."""
        self.told.append(stamp)
        await super().remember(stamp, sha256)


def settle(path: Path, at: float = LONG_AGO) -> None:
    """Make a file look as if nobody had changed it for long."""
    os.utime(path, (at, at))


async def sha256_of(source: Any, digests: RecentDigestCache, **options: Any) -> str:
    """Identify a source."""
    options.setdefault("mime_type", "text/plain")
    async with fingerprint(source, UploadOptions(**options), digests, CLIENT) as identity:
        assert identity.source.sha256 in {None, identity.sha256}
        async with identity.source.open() as body:
            content = b"".join([bytes(chunk) async for chunk in body.chunks(lambda: 10_000)])
        assert hashlib.sha256(content).hexdigest() == identity.sha256 or identity.sha256 == "f" * 64
        assert identity.size == len(content)
        return identity.sha256


async def pieces() -> AsyncIterator[bytes]:
    """Yield the content in pieces."""
    for start in range(0, len(CONTENT), 100_000):
        yield CONTENT[start : start + 100_000]


SOURCES: dict[str, Any] = {
    "bytes": lambda path: (CONTENT, {}),
    "path": lambda path: (path, {}),
    "handle": lambda path: (path.open("rb"), {}),
    "stream": lambda path: (pieces(), {}),
    "declared stream": lambda path: (pieces(), {"size": len(CONTENT)}),
    "plain iterable": lambda path: ([CONTENT[:7], CONTENT[7:]], {}),
}


@pytest.mark.parametrize("kind", SOURCES)
async def test_sources(tmp_path: Path, kind: str) -> None:
    """Every kind of source is known by the SHA-256 of its bytes, and can still be read, more than once; nothing stays open."""
    path = tmp_path / "a.txt"
    path.write_bytes(CONTENT)
    before = set(open_files(tmp_path))
    source, options = SOURCES[kind](path)
    async with fingerprint(
        source, UploadOptions(mime_type="text/plain", **options), RecentDigestCache(), CLIENT
    ) as identity:
        assert (identity.sha256, identity.mime_type, identity.size) == (SHA256, "text/plain", len(CONTENT))
        for _ in range(2):
            async with identity.source.open() as body:
                assert body.replayable
                assert b"".join([bytes(chunk) async for chunk in body.chunks(lambda: 10_000)]) == CONTENT
    if kind == "handle":
        assert source.tell() == 0
        source.close()
    await none_added(before, lambda: set(open_files(tmp_path)))


async def test_names_and_types(tmp_path: Path) -> None:
    """Name and type are those that the source would be sent with."""
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b\n")
    async with fingerprint(path, UploadOptions(validate=False), RecentDigestCache(), CLIENT) as identity:
        assert (identity.source.name, identity.mime_type) == ("a.csv", "text/csv")


async def test_a_source_is_judged_once() -> None:
    """The upload of a hashed source takes the type and the size that were found before it was hashed."""
    async with (
        fingerprint(b"text", UploadOptions(filename="a.txt"), RecentDigestCache(), CLIENT) as identity,
        identity.source.open() as body,
    ):
        assert body.prepared == (identity.mime_type, identity.size)


async def test_unchanged_file_is_hashed_once(tmp_path: Path) -> None:
    """A file that was hashed before and has not changed is not hashed again, whatever name it has."""
    digests, path, link = Noted(), tmp_path / "a.txt", tmp_path / "b.txt"
    path.write_bytes(CONTENT)
    os.link(path, link)
    settle(path)
    assert [await sha256_of(source, digests) for source in (path, str(path), link)] == [SHA256] * 3
    assert digests.found == [None, SHA256, SHA256]
    assert len(digests.told) == 1


async def test_what_is_remembered_is_used(tmp_path: Path) -> None:
    """What is remembered of a file is believed: its bytes are not read for their hash."""
    digests, path = Noted(), tmp_path / "a.txt"
    path.write_bytes(CONTENT)
    settle(path)
    await sha256_of(path, digests)
    digests._known.update(dict.fromkeys(digests.told, "f" * 64))
    assert await sha256_of(path, digests) == "f" * 64


async def test_small_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    """A file of up to 64 KiB is hashed each time, as it is read anyway; nothing is looked up, and nothing kept."""
    digests, path = Noted(), tmp_path / "a.txt"
    for content in (CONTENT[:65_536], CONTENT[1:65_537]):
        path.write_bytes(content)
        settle(path)
        assert await sha256_of(path, digests) == hashlib.sha256(content).hexdigest()
    assert digests.found == digests.told == []


def changed(path: Path, content: bytes, at: float = LONG_AGO) -> None:
    """Write other bytes into a file, and make it look as if that was at another time."""
    before = path.stat().st_ctime_ns
    path.write_bytes(content)
    while path.stat().st_ctime_ns == before:  # the system's clock for files goes in steps
        settle(path, at)
    settle(path, at)


def replaced(path: Path, content: bytes) -> None:
    """Put another file in the place of one, of the same times."""
    other = path.parent / "new"
    other.write_bytes(content)
    settle(other)
    other.replace(path)


CHANGES: dict[str, Callable[[Path], None]] = {
    "other bytes": lambda path: changed(path, OTHER, LONG_AGO + 100),
    "other bytes, same times": lambda path: changed(path, OTHER),
    "other size": lambda path: changed(path, CONTENT * 2),
    "another file": lambda path: replaced(path, OTHER),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_changed_file_is_hashed_again(tmp_path: Path, change: str) -> None:
    """A file that has changed is hashed again, also when its size and the time of its change were made to look the same."""
    digests, path = Noted(), tmp_path / "a.txt"
    path.write_bytes(CONTENT)
    settle(path)
    first = await sha256_of(path, digests)
    CHANGES[change](path)
    second = await sha256_of(path, digests)
    assert (first, second) == (SHA256, hashlib.sha256(path.read_bytes()).hexdigest())
    assert first != second
    assert digests.found == [None, None]


async def test_files_of_one_moment(tmp_path: Path) -> None:
    """Files of the same size that were made and changed at the same moment are still told apart."""
    digests, one, other = Noted(), tmp_path / "one.txt", tmp_path / "other.txt"
    one.write_bytes(CONTENT)
    other.write_bytes(OTHER)
    for _ in range(500):  # the system's clock for files goes in steps, mostly of some milliseconds
        settle(one)
        settle(other)
        if one.stat().st_ctime_ns == other.stat().st_ctime_ns:
            break
    assert [await sha256_of(one, digests), await sha256_of(other, digests)] == [
        SHA256,
        hashlib.sha256(OTHER).hexdigest(),
    ]


async def test_file_that_has_just_changed(tmp_path: Path) -> None:
    """A file that changed within two seconds is not remembered: its next change might leave the same times."""
    digests, path = Noted(), tmp_path / "a.txt"
    path.write_bytes(CONTENT)
    settle(path, time.time() + 3600)  # as if the machine were busy for any time: it has just changed
    state = path.stat()
    assert await sha256_of(path, digests) == SHA256
    path.write_bytes(OTHER)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert await sha256_of(path, digests) == hashlib.sha256(OTHER).hexdigest()
    assert digests.found == digests.told == []


async def test_only_files_are_remembered(tmp_path: Path) -> None:
    """Only a file that was given by its path is remembered: a handle may stand anywhere in it."""
    digests, path = Noted(), tmp_path / "a.txt"
    path.write_bytes(CONTENT)
    settle(path)
    await sha256_of(CONTENT, digests)
    with path.open("rb") as handle:
        handle.seek(32)
        assert await sha256_of(handle, digests) == hashlib.sha256(CONTENT[32:]).hexdigest()
        assert handle.tell() == 32
    assert digests.found == digests.told == []


async def test_memory_of_digests_is_bounded() -> None:
    """Ten thousand files are remembered; the one that was used least recently is the first to be forgotten."""
    digests = RecentDigestCache()
    for number in range(10_000):
        await digests.remember(str(number), f"sha {number}")
    assert await digests.find("0") == "sha 0"
    await digests.remember("one more", "sha")
    assert [await digests.find(stamp) for stamp in ("0", "1", "2", "one more")] == ["sha 0", None, "sha 2", "sha"]
    for number in range(10_000):
        await digests.remember(f"new {number}", "sha")
    assert len(digests._known) == 10_000


async def test_what_is_refused(tmp_path: Path) -> None:
    """What WhatsApp does not take, or cannot be read, is refused before it is hashed, and a wrong size as well."""
    digests = Noted()
    wrong: list[tuple[Any, dict[str, Any], type[Exception]]] = [
        (b"GIF89a" + bytes(50), {}, UnsupportedMediaTypeError),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x10\x08\x06\0\0\0" + bytes(5 * 2**20), {}, FileTooLargeError),
        (tmp_path / "missing.txt", {}, StorageError),
        (CONTENT, {"size": 5}, CorruptedMediaError),
        ([CONTENT], {"size": len(CONTENT) + 1}, CorruptedMediaError),
        ([CONTENT], {"size": len(CONTENT) - 1}, CorruptedMediaError),
    ]
    for source, options, kind in wrong:
        with pytest.raises(kind):
            async with fingerprint(source, UploadOptions(**options), digests, CLIENT):
                raise AssertionError("it was let through")
    assert digests.found == []
