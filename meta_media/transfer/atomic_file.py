"""
A file that appears under its name whole, or not at all: it is written to a temporary file beside it.

There is one exception. A new name is empty for a moment on a file system without hard links whose `rename` always replaces;
a process that is killed in this moment leaves an empty file. Linux's FAT, exFAT and SMB have another `rename`.

Everything except `clean_stale` blocks, and belongs on a thread. The folder is held open where the system supports that, so
that nothing is written elsewhere if another folder takes its path meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import stat
import time
from datetime import timedelta
from pathlib import Path
from typing import Final

from meta_media.errors import ConfigurationError, StorageError
from meta_media.protocol.filenames import numbered
from meta_media.protocol.secrets import excerpt
from meta_media.transfer.adapters import is_url
from meta_media.transfer.threads import FileWork, storage_error, storage_errors

__all__ = ["AtomicFile", "clean_stale", "make_folder"]

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_HAS_DIR_FD: Final = {os.link, os.open, os.rename, os.stat, os.unlink} <= os.supports_dir_fd  # not on Windows
_FOLDER: Final = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_PATH", 0)  # O_PATH: without the right to list it
_NO_FOLLOW: Final = {"follow_symlinks": False} if os.link in os.supports_follow_symlinks else {}
_SEPARATORS: Final = tuple(filter(None, (os.sep, os.altsep)))
_MAX_LINKS: Final = 40  # that Linux follows (path_resolution(7))
_OF_THE_SYSTEM: Final = ("/dev/", "/proc/")  # folders whose links are the system's
_RENAME_NOREPLACE: Final = 1  # of renameat2(2)
_SUFFIX: Final = ".meta-media.part"
_TEMPORARY: Final = re.compile(r"\.[0-9a-f]{16}" + re.escape(_SUFFIX))


def make_folder(folder: str | os.PathLike[str]) -> Path:
    """Return the path of a folder, which is made if it is missing, with its parents. It blocks."""
    text = _path_of(folder)
    path = Path(text)
    with storage_errors(f"make the folder {excerpt(text)}"):
        path.mkdir(parents=True, exist_ok=True)
    return path


def _path_of(destination: str | os.PathLike[str]) -> str:
    """Return a path as text. A URL is refused: it would be a folder of this machine, named after its scheme."""
    text = os.fsdecode(destination)
    if is_url(text):
        raise ConfigurationError(
            f"{excerpt(text)} is a URL, not a path: for a bucket, pass ObjectDestination(store, key)"
        )
    return text


class AtomicFile:
    """
    A new file, `file`, with access for its owner only until it is committed.

    The path is a folder if it is one already, or ends in a separator: then it is made if it is missing. In a folder, `commit`
    chooses a free name. Any other path is that of the file. With `fsync`, `commit` waits until all is on the disk.
    """

    def __init__(self, destination: str | os.PathLike[str], *, overwrite: bool, fsync: bool) -> None:
        text = _path_of(destination)
        named_folder = text.endswith(_SEPARATORS)
        path = make_folder(text) if named_folder else Path(text)
        in_folder = named_folder or path.is_dir()  # a folder that is gone again does not become a file
        self._folder_path = path if in_folder else path.parent
        self._name = None if in_folder else path.name
        self._shown = excerpt(str(path))
        self._overwrite = overwrite
        self._fsync = fsync
        self.name = f".{os.urandom(8).hex()}{_SUFFIX}"  # of the temporary file
        self._absolute = self._folder_path.absolute()
        try:
            self._folder = os.open(self._folder_path, _FOLDER) if _HAS_DIR_FD else None
        except FileNotFoundError as error:
            missing = f"there is no folder {excerpt(str(self._folder_path))}"
            cure = f"make it first, or pass a folder, such as {f'inbox{os.sep}'!r}, which is made"
            raise StorageError(f"{missing}: {cure}", errno=errno.ENOENT) from error
        try:
            self._identity = None if self._folder is None else os.fstat(self._folder)
            self._check()
            self.file = os.fdopen(self._create(self.name), "wb")
        except BaseException:
            self._close()
            raise
        self._temporary_exists = True

    def _at(self, name: str) -> str:
        """Return the path of a name in the folder, as it goes with `dir_fd`."""
        return name if _HAS_DIR_FD else str(self._absolute / name)

    def _create(self, name: str) -> int:
        return os.open(self._at(name), _CREATE, 0o600, dir_fd=self._folder)

    def _close(self) -> None:
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    def _stat(self, name: str) -> os.stat_result | None:
        """Return the status of a name in the folder, without following a symbolic link; None if it does not exist."""
        try:
            return os.stat(self._at(name), dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _check(self) -> os.stat_result | None:
        """Return the status of what the file replaces; None if there is nothing. Raise if it must not be replaced."""
        found = None if self._name is None else self._stat(self._name)
        if found is None:
            return None
        if not self._overwrite:
            raise StorageError(
                f"{self._shown} exists already, and overwrite is off: choose another name", errno=errno.EEXIST
            )
        is_link = stat.S_ISLNK(found.st_mode)
        replaceable = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)  # a folder refuses by itself
        if not replaceable and not (is_link and _leads_to_file(self._absolute / str(self._name))):
            raise StorageError(f"{self._shown} is not a file: open it and pass the handle to write to it")
        return found

    def commit(self, name: str) -> Path:
        """
        Make the file appear, and return its path. `OSError`: nothing has changed.

        In a folder it gets this name, with a number if the name is taken.
        """
        self.file.flush()  # may report a full disk
        with contextlib.suppress(AttributeError):  # missing on Windows before Python 3.13, and not needed there
            os.fchmod(self.file.fileno(), self._mode())
        if self._fsync:
            os.fsync(self.file.fileno())
        written = os.fstat(self.file.fileno())
        self.file.close()
        found = self._stat(self.name)
        if found is not None and not os.path.samestat(found, written):
            raise StorageError(f"another program replaced the temporary file {self.name!r}: download again")
        if self._name is None:
            name = self._claim_similar(name)
        elif self._overwrite:
            self._move(self._name)
        else:
            self._claim(self._name)
        if self._fsync and _HAS_DIR_FD:  # Windows cannot open a folder, and flushes names by itself
            self._sync_folder()
        return self._place() / (self._name or name)

    def _place(self) -> Path:
        """Return the path of the folder as it is now: it may have been renamed, or was relative to another folder."""
        if self._identity is None:
            return self._folder_path
        places = [self._folder_path, self._absolute]
        with contextlib.suppress(OSError):  # only Linux has it
            places.append(Path(f"/proc/self/fd/{self._folder}").readlink())
        for place in places:
            with contextlib.suppress(OSError):
                if os.path.samestat(place.stat(), self._identity):
                    return place
        what = f"the folder of {self._shown} was moved while the file was written"
        raise StorageError(f"{what}: look for the file in it, which is complete")

    def _mode(self) -> int:
        """Return the permissions of the file that is replaced, or the default for a new file."""
        found = self._check() if self._overwrite else None
        return found.st_mode & 0o777 if found is not None and stat.S_ISREG(found.st_mode) else 0o666 & ~_umask()

    def _claim_similar(self, name: str) -> str:
        number = 1
        while True:
            free = numbered(name, number)
            with contextlib.suppress(FileExistsError):
                self._claim(free)
                return free
            number += 1

    def _move(self, name: str) -> None:
        os.replace(self._at(self.name), self._at(name), src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._temporary_exists = False

    def _claim(self, name: str) -> None:
        """Move to a free name. A hard link fails if the name exists, and appears at once."""
        try:
            os.link(self._at(self.name), self._at(name), src_dir_fd=self._folder, dst_dir_fd=self._folder, **_NO_FOLLOW)
        except FileExistsError:
            raise
        except OSError:
            self._claim_without_links(name)

    def _claim_without_links(self, name: str) -> None:
        """Move to a free name on a file system without hard links: at once, or by way of an empty file."""
        if self._folder is not None and _rename_new(self._folder, self.name, name):
            self._temporary_exists = False
            return
        claimed = self._create(name)
        try:
            os.close(claimed)
            self._move(name)
        except OSError:
            os.unlink(self._at(name), dir_fd=self._folder)
            raise

    def _sync_folder(self) -> None:
        """Flush the name to the disk."""
        descriptor = os.open(".", os.O_RDONLY, dir_fd=self._folder)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def discard(self) -> None:
        """Remove the temporary file, if it still exists, and close the folder."""
        with contextlib.suppress(OSError):  # a full disk: flushing fails once more
            self.file.close()
        try:
            if self._temporary_exists:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._at(self.name), dir_fd=self._folder)
        finally:
            self._close()


def _leads_to_file(link: Path) -> bool:
    """Return whether a link may be replaced: it leads to a file or nowhere, and not by a descriptor, like /dev/stdout."""
    path = link
    for _ in range(_MAX_LINKS):
        folder = path.parent.resolve()
        if f"{folder}/".startswith(_OF_THE_SYSTEM):
            return False
        if not path.is_symlink():
            break
        path = folder / path.readlink()
    return link.is_file() or not link.exists()


def _rename_new(folder: int, old: str, new: str) -> bool:
    """Rename a file, and raise if the new name exists. Return False where the system or the file system cannot do that."""
    import ctypes

    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # Linux, since glibc 2.28
    if rename is None or rename(folder, os.fsencode(old), folder, os.fsencode(new), _RENAME_NOREPLACE) == 0:
        return rename is not None
    if ctypes.get_errno() == errno.EEXIST:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
    return False


@functools.cache
def _umask() -> int:
    mask = os.umask(0o077)  # it can only be read by setting it; other threads may create files meanwhile
    os.umask(mask)
    return mask


async def clean_stale(folder: str | os.PathLike[str], *, older_than: timedelta = timedelta(hours=1)) -> list[Path]:
    """
    Remove temporary files that killed downloads left in a folder. Downloads beside it go on.

    Args:
        folder: Folder to clean, without the folders in it.
        older_than: Age of the last write from which a temporary file is removed. A download in progress keeps writing to its own.

    Returns:
        Paths of the removed files.

    Raises:
        StorageError: The folder cannot be listed, or a file cannot be removed. The other files are.
    """
    return await FileWork(folder).run(_clean, folder, older_than.total_seconds())


def _clean(folder: str | os.PathLike[str], seconds: float) -> list[Path]:
    removed, refusal = [], None
    path = Path(os.fsdecode(folder))
    with storage_errors(f"clean {excerpt(str(path))}"):
        entries = sorted(entry for entry in path.iterdir() if _TEMPORARY.fullmatch(entry.name))
    for entry in entries:
        try:
            found = entry.lstat()
            if stat.S_ISREG(found.st_mode) and time.time() - found.st_mtime >= seconds:
                entry.unlink()
                removed.append(entry)
        except FileNotFoundError:  # its download is complete, or another program removed it
            pass
        except OSError as error:
            refusal = refusal or storage_error(f"remove {excerpt(str(entry))}", error)
    if refusal is not None:
        raise refusal
    return removed
