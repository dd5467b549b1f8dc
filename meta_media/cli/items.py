"""What a command works on: its arguments, the files in folders, and lists, each read when it is needed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO, Final

import attrs

from meta_media import Source
from meta_media.bulk.ending import split_item
from meta_media.cli.output import Bars, printable, shown
from meta_media.errors import ConfigurationError, StorageError
from meta_media.protocol.recipient import address
from meta_media.transfer.bodies import Body
from meta_media.transfer.threads import run_in_thread, storage_errors

__all__ = ["STANDARD", "Files", "Items", "Listing", "Recipients", "label_of", "source_of"]

STANDARD: Final = Path("-")  # standard input or output
_BLOCK_SIZE: Final = 2**16  # bytes of a list read at a time
_NAME_SIZE: Final = 2**16  # bytes of a name at most; Linux takes paths of 4,096
_SQLITE_FILES: Final = ("", "-wal", "-shm", "-journal")  # what is appended to a database's name
_BOM: Final = b"\xef\xbb\xbf"  # with which editors on Windows begin a text


@attrs.frozen
class Listing:
    """Names in a file, or on standard input for "-". Each ends with a newline, or with NUL as `find -print0` writes them."""

    file: Path
    null: bool

    def names(self) -> Iterator[str]:
        """Read the names, each as soon as it is there."""
        if self.file == STANDARD:
            yield from self._split(sys.stdin.buffer)
            return
        try:
            stream = self.file.open("rb")
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise ConfigurationError(f"{printable(str(self.file))} cannot be used as a list: {why}") from error
        with stream:
            yield from self._split(stream)

    def _split(self, stream: BinaryIO) -> Iterator[str]:
        end = b"\0" if self.null else b"\n"
        read = getattr(stream, "read1", stream.read)  # what a pipe holds now: its writer may be slow
        rest, first, more = b"", True, True
        while more:
            with storage_errors(f"read the list {str(self.file)!r}"):
                block = read(_BLOCK_SIZE)
            more = bool(block)
            *whole, rest = (rest + block).split(end)
            if not more:
                whole.append(rest)  # the last name may have no end
            for name in whole:
                yield from self._decode(name.removeprefix(_BOM) if first else name)
                first = False
            if len(rest) > _NAME_SIZE:
                why = f"a name in it has more than {_NAME_SIZE:,} bytes"
                raise ConfigurationError(f"{printable(str(self.file))} is no list: {why}")

    def _decode(self, name: bytes) -> Iterator[str]:
        name = name if self.null else name.removesuffix(b"\r")
        if b"\0" in name:
            why = "a name in it has a NUL: pass --null if each ends with one"
            raise ConfigurationError(f"{printable(str(self.file))} is no list: {why}")
        if name:
            yield os.fsdecode(b"./-" if name == b"-" else name)  # in a list, "-" is the name of a file

    def can_be_read_again(self) -> bool:
        """Return whether it is a regular file, which can be read a second time to count its names."""
        return self.file != STANDARD and os.path.isfile(self.file)  # noqa: PTH113 - raises no error


class Items:
    """The items of a run: media ids. Arguments alone are all read at once; a list is read as the run needs its names."""

    action = "↓"

    def __init__(self, arguments: list[str], listing: Listing | None, bars: Bars | None = None) -> None:
        self._arguments = arguments
        self._listing = listing
        self._lazy = listing is not None
        self._bars = bars  # None for items that move no bytes
        self._counting = True
        self.total: int | None = None  # number of items; None while it is unknown
        self.unread = False  # whether a list or a folder has not been read to its end
        self.skipped_links: set[str] = set()  # those that lead out of their folder

    async def read(self) -> Iterable[Any]:
        """Return the items for a bulk verb: a list of all, or an iterator that reads them one by one."""
        if self._lazy:
            return self._iterate()
        items: list[Any] = await run_in_thread(list, self._each())
        self.total = len(items)
        return items

    def count(self) -> None:
        """Set `total` by reading everything once more, on a thread beside the run. A pipe cannot be counted."""
        if self._listing is not None and not self._listing.can_be_read_again():
            return
        counted = 0
        try:
            for _ in self._each():
                counted += 1
                if not self._counting:
                    return
        except Exception:  # noqa: BLE001 - the run meets the same error and reports it
            return
        self.total = counted

    def stop_counting(self) -> None:
        """End `count`."""
        self._counting = False

    @property
    def may_block(self) -> bool:
        """Whether a thread may still be waiting for a list that another program writes."""
        return self.unread and self._listing is not None and not self._listing.can_be_read_again()

    def _iterate(self) -> Iterator[Any]:
        self.unread, number = True, 0
        for item in self._each():
            number += 1
            yield item
        self.unread, self.total = False, number

    def _each(self) -> Iterator[Any]:
        for name in self._arguments:
            yield from self._expand(name)
        for name in self._listing.names() if self._listing else ():
            yield from self._expand(name)

    def _expand(self, name: str) -> Iterator[Any]:
        """Yield the items that a name stands for."""
        yield self._with_bar(name.strip(), shown(name))

    def _with_bar(self, item: Any, name: str) -> Any:
        bar = self._bars and self._bars.bar(name, self.action)
        return (item, {"progress": bar}) if bar else item


class Recipients(Items):
    """The items of a send: phone numbers, user ids, and groups as `group:ID`."""

    def _expand(self, name: str) -> Iterator[Any]:
        kind, _, group_id = (name := name.strip()).partition(":")
        yield (address(group_id, "group") if kind == "group" else None) or name


class Files(Items):
    """
    The items of an upload: files, standard input under the name `filename`, and with `recursive` the files in folders.

    In a folder, the files that the command itself writes or reads are left out: `own`, SQLite's files beside them, and those
    that standard output and standard error lead to.
    """

    action = "↑"

    def __init__(
        self,
        arguments: list[str],
        listing: Listing | None,
        bars: Bars,
        *,
        recursive: bool,
        filename: str | None,
        own: Iterable[Path | None] = (),
    ) -> None:
        super().__init__(arguments, listing, bars)
        self._own = [Path(f"{path}{end}") for path in own if path for end in _SQLITE_FILES]
        self._lazy = self._lazy or recursive
        self._recursive = recursive
        self._filename = filename

    def _expand(self, name: str) -> Iterator[Any]:
        if name == str(STANDARD):
            yield self._with_bar(source_of(name, self._filename), "standard input")
        elif not os.path.isdir(name):  # noqa: PTH112 - False where the system does not say: opening it reports why
            yield self._file(name)
        elif self._recursive:
            yield from map(self._file, self._files_below(name))
        else:
            why = f"{name!r} is a folder: pass --recursive to upload the files in it"
            yield _Unreadable(label=name, error=StorageError(why))

    def _files_below(self, folder: str) -> Iterator[str | _Unreadable]:
        """
        List the files in a folder, sorted by name, then those in its sub-folders. Hidden ones are left out.

        Links to files in the folder are followed. Links to folders are not, so that there are no circles. Pipes and other
        special files are left out. A folder that cannot be read is an unreadable source in its place.
        """
        pending, is_wanted = [folder], self._filter(os.path.realpath(folder).rstrip(os.sep) + os.sep)
        while pending:
            folder = pending.pop()
            try:
                with os.scandir(folder) as entries:
                    visible = sorted((one for one in entries if not one.name.startswith(".")), key=attrgetter("name"))
            except OSError as error:
                why = f"could not read the folder {folder!r}: {error.strerror}"
                yield _Unreadable(label=folder, error=StorageError(why, errno=error.errno))
                continue
            yield from (entry.path for entry in visible if is_wanted(entry) and _is_file(entry))
            pending += reversed([entry.path for entry in visible if entry.is_dir(follow_symlinks=False)])

    def _filter(self, inside: str) -> Callable[[os.DirEntry[str]], bool]:
        """Return a function that refuses the command's own files, and links that do not lead to a path in `inside`."""
        own, names = {os.path.realpath(path) for path in self._own}, {path.name for path in self._own}
        written = [os.fstat(number) for number in (1, 2)]  # what standard output and standard error lead to

        def is_wanted(entry: os.DirEntry[str]) -> bool:
            target = os.path.realpath(entry.path) if entry.is_symlink() or entry.name in names else inside
            if not (target + os.sep).startswith(inside):
                self.skipped_links.add(entry.path)
                return False
            return target not in own and not any(
                entry.inode() == one.st_ino and os.path.samestat(entry.stat(), one) for one in written
            )

        return is_wanted

    def _file(self, file: str | _Unreadable) -> Any:
        return self._with_bar(file, printable(Path(file).name)) if isinstance(file, str) else file


@attrs.frozen(kw_only=True)
class _Unreadable(Source):
    """A folder in the place of a source: opening it raises the error."""

    label: str
    error: StorageError

    def open(self) -> AbstractAsyncContextManager[Body]:
        """Raise the error."""
        raise self.error


def source_of(name: str, filename: str | None = None) -> Source:
    """Return a file as a source; "-" is standard input. Opened by its number, it has no name but `filename`."""
    if name == str(STANDARD):
        return Source.handle(os.fdopen(sys.stdin.fileno(), "rb", closefd=False), name=filename)
    return Source.path(name)


def label_of(item: Any) -> str:
    """Return the name by which the user knows an item of `Files`."""
    source, _ = split_item(item)
    return source if isinstance(source, str) else str(getattr(source, "label", STANDARD))


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False
