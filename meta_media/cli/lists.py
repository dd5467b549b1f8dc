"""What a command works on: its arguments, the files of folders, and lists; read as they are needed, however long they are."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, Generic, TypeVar

import attrs

from meta_media.bulk.caught import Caught
from meta_media.cli.output import printable
from meta_media.errors import ConfigurationError, StorageError
from meta_media.transfer.threads import run_in_thread, storage_errors

__all__ = ["STANDARD", "Items", "Listing", "files_below", "is_folder"]

STANDARD: Final = Path("-")
T = TypeVar("T")
_BLOCK: Final = 2**16  # bytes of a list read at a time
_LONGEST: Final = 2**16  # bytes of a name; Linux takes paths of 4,096
_BOM: Final = b"\xef\xbb\xbf"  # with which editors on Windows begin a text


@attrs.frozen(kw_only=True)
class Listing:
    """
    Names in a file or on standard input.

    Attributes:
        file: Where they are.
        null: Whether each ends with NUL, as `find -print0` writes them, instead of with its line.
    """

    file: Path
    null: bool

    def names(self) -> Iterator[str]:
        """
        Read them, each as soon as it is there.

        Raises:
            ConfigurationError: It cannot be opened, or is no list.
            StorageError: It cannot be read any further.
        """
        if self.file == STANDARD:
            yield from self._split(sys.stdin.buffer)
            return
        try:
            stream = self.file.open("rb")
        except (OSError, ValueError) as error:
            why = (isinstance(error, OSError) and error.strerror) or str(error)
            raise ConfigurationError(f"{printable(str(self.file))} cannot be used as a list: {why}") from error
        with stream:
            yield from self._split(stream)

    def _split(self, stream: BinaryIO) -> Iterator[str]:
        end = b"\0" if self.null else b"\n"
        rest, first, more = b"", True, True
        while more:
            with storage_errors(f"read the list {str(self.file)!r}"):
                block = _some(stream)
            more = bool(block)
            *whole, rest = (rest + block).split(end)
            if not more:
                whole.append(rest)  # its end may be missing
            for name in whole:
                yield from self._decoded(name.removeprefix(_BOM) if first else name)
                first = False
            if len(rest) > _LONGEST:
                raise ConfigurationError(f"{printable(str(self.file))} is no list: it has a name that does not end")

    def _decoded(self, name: bytes) -> Iterator[str]:
        name = name if self.null else name.removesuffix(b"\r")
        if name:
            yield os.fsdecode(b"./-" if name == b"-" else name)  # there, it is no more than a name

    def lasts(self) -> bool:
        """Tell whether it can be read a second time, to count it."""
        try:
            return self.file != STANDARD and stat.S_ISREG(self.file.stat().st_mode)
        except (OSError, ValueError):
            return False


def _some(stream: BinaryIO) -> bytes:
    """Read what is there, and wait only if nothing is: whoever writes the list may be slow."""
    return bytes(getattr(stream, "read1", stream.read)(_BLOCK))


class Items(Generic[T]):
    """
    The items of a run. Arguments alone are all at hand; of folders and lists, nothing is read before it is needed.

    Args:
        arguments: Names.
        listing: More names, if there is a list.
        found: What a name stands for; it may block.
        deep: Whether a name may stand for more than one.

    Attributes:
        total: How many there are, as far as that is known.
        unread: Whether a list, or a folder, is not at its end.
    """

    def __init__(
        self, arguments: list[str], listing: Listing | None, found: Callable[[str], Iterable[T]], *, deep: bool = False
    ) -> None:
        self._arguments = arguments
        self._listing = listing
        self._found = found
        self._deep = deep
        self._counting = True
        self.total: int | None = None
        self.unread = False

    async def feed(self) -> Iterable[T]:
        """Return the items as a run takes them."""
        if self._listing is not None or self._deep:
            return self._reading()
        items: list[T] = await run_in_thread(list, self._each())
        self.total = len(items)
        return items

    def _each(self) -> Iterator[T]:
        for name in self._arguments:
            yield from self._found(name)
        for name in self._listing.names() if self._listing else ():
            yield from self._found(name)

    def _reading(self) -> Iterator[T]:
        self.unread, number = True, 0
        for item in self._each():
            number += 1
            yield item
        self.unread, self.total = False, number

    def count(self) -> None:
        """Find out how many there are, on a thread beside the work, where that takes no more than reading twice."""
        if self._listing is not None and not self._listing.lasts():
            return
        counted = 0
        with Caught():  # whoever works on them will hear of it
            for _ in self._each():
                counted += 1
                if not self._counting:
                    return
            self.total = counted

    def stop_counting(self) -> None:
        """Let the thread go."""
        self._counting = False

    @property
    def waits(self) -> bool:
        """Whether a thread may still be waiting for a list that somebody else has not written yet."""
        return self.unread and self._listing is not None and not self._listing.lasts()


def is_folder(name: str) -> bool:
    """Tell whether a name is that of a folder; what cannot be told will show when it is opened."""
    try:
        return Path(name).is_dir()
    except OSError:
        return False


def files_below(folder: str) -> Iterator[str | StorageError]:
    """
    List the files in a folder and in the folders below, in the order of their names; hidden ones are left out.

    Links to files are followed and links to folders are not, so that there are no circles. What is neither, such as a pipe, is
    left out, too. A folder that cannot be read is an error in its place.
    """
    waiting = [folder]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                seen = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda one: one.name)
        except OSError as error:
            yield StorageError(f"could not read the folder {folder!r}: {error.strerror}", errno=error.errno)
            continue
        yield from (entry.path for entry in seen if _is_file(entry))
        waiting += reversed([entry.path for entry in seen if entry.is_dir(follow_symlinks=False)])


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False
