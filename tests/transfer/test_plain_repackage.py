"""The plain `repackage`: over bytes, files and pipes, whose position and openness stay."""

from __future__ import annotations

import io
import os
import pickle
import threading
import tracemalloc
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from meta_media import repackage
from meta_media.errors import CorruptedMediaError, InvalidMediaError, StorageError
from tests.support.opus import mp4, packets, simple, webm

LARGE = [b"\x08" + bytes([number % 251]) * 500 for number in range(1000)]
FILES = {
    "webm": webm(*map(simple, LARGE)),
    "fragments": mp4(LARGE, [960] * 1000, fragments=True),
    "first": mp4(LARGE, [960] * 1000),
    "last": mp4(LARGE, [960] * 1000, last=True),
}


class Socket:
    """A raw file that cannot seek, and gives a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._file, self.count = io.BytesIO(data), 0

    def read(self, size: int) -> bytes:
        """Return up to 999 bytes."""
        data = self._file.read(min(size, 999))
        self.count += len(data)
        return data


@pytest.mark.parametrize("name", FILES)
def test_files_and_pipes(name: str, tmp_path: Path) -> None:
    """Bytes, a file, a part of a file, a pipe and a raw object without `seek` give the same pages."""
    data = FILES[name]
    result = b"".join(repackage(data))
    assert packets(result) == LARGE
    path = tmp_path / "voice"
    path.write_bytes(b"before" + data)
    with path.open("rb") as file:
        file.seek(6)
        assert b"".join(repackage(file)) == result
        assert file.tell() == 6
    assert b"".join(repackage(cast(BinaryIO, Socket(data)))) == result
    reading, writing = os.pipe()

    def write() -> None:
        with open(writing, "wb") as end:  # noqa: PTH123 - a file descriptor
            end.write(data)

    with open(reading, "rb") as pipe:  # noqa: PTH123 - a file descriptor
        writer = threading.Thread(target=write)
        writer.start()
        assert b"".join(repackage(pipe)) == result
        writer.join()


def test_pages_come_as_the_file_is_read() -> None:
    """A recording is not read to its end before its first page comes."""
    socket = Socket(FILES["webm"])
    first = next(repackage(cast(BinaryIO, socket)))
    assert first.startswith(b"OggS")
    assert socket.count <= 2**16


def test_the_position_is_restored() -> None:
    """A file that is left in the middle, or is damaged, stands where it stood, and is open."""
    file = io.BytesIO(b"12345" + FILES["webm"])
    file.seek(5)
    pages = repackage(file)
    next(pages)
    pages.close()  # type: ignore[attr-defined]  # it is a generator
    assert file.tell() == 5
    file.truncate(1000)
    with pytest.raises(CorruptedMediaError):
        list(repackage(file))
    assert file.tell() == 5


@pytest.mark.parametrize("wrong", ["voice.webm", None, Path("voice.webm")])
def test_what_is_no_file_is_refused(wrong: Any) -> None:
    """A path is not opened: what to pass is said."""
    with pytest.raises(InvalidMediaError, match=f"^cannot read a {type(wrong).__name__}: pass bytes, or a file opened"):
        next(repackage(wrong))


def test_text_is_refused() -> None:
    """A file that was opened as text is refused by what it gives."""
    with pytest.raises(InvalidMediaError, match="open a file with mode 'rb'"):
        next(repackage(cast(BinaryIO, io.StringIO("text"))))


def test_the_name_of_what_cannot_be(tmp_path: Path) -> None:
    """The errors name an open file."""
    path = tmp_path / "voice.webm"
    path.write_bytes(FILES["webm"][:300])
    with path.open("rb") as file, pytest.raises(CorruptedMediaError, match=r"^'voice\.webm' is damaged") as caught:
        list(repackage(file))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value) == caught.value.message
    with pytest.raises(StorageError, match=r"^could not read 'voice\.webm'"):
        list(repackage(file))


def test_a_closed_file_is_a_storage_error() -> None:
    """An error of the system is typed, and so is a file that was closed meanwhile."""
    file = io.BytesIO(FILES["webm"])
    pages = repackage(file)
    next(pages)
    file.close()
    with pytest.raises(StorageError, match="could not read the file"):
        list(pages)
    with pytest.raises(StorageError, match="could not read the file"):
        next(repackage(file))


class Recorder(io.RawIOBase):
    """A recording of any length, which is made as it is read."""

    def __init__(self, blocks: int) -> None:
        self._parts = chain([webm()], repeat(simple(b"\x1b\x42" + bytes(1000)), blocks))  # of 120 ms
        self._rest = b""

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return some bytes; none at the end."""
        self._rest = self._rest or b"".join(islice(self._parts, 8))
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def test_memory_is_constant() -> None:
    """Six minutes of 3 MB are repackaged in less than 512 KiB, from a source that cannot seek."""
    tracemalloc.start()
    try:
        size = sum(map(len, repackage(cast(BinaryIO, Recorder(3000)))))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 3_000_000
    assert peak < 2**19
