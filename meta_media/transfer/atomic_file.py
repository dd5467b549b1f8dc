"""
A file in the making, beside where it will be: it appears under its name whole, or not at all.

All of it blocks, and belongs on a thread. The folder is held open where the system can do that, so that nothing is written
or left elsewhere when its path comes to mean another folder meanwhile.
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

from meta_media.errors import StorageError
from meta_media.transfer.threads import run_in_thread, storage_errors

__all__ = ["AtomicFile", "clean_stale"]

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_HELD: Final = {os.link, os.open, os.rename, os.stat, os.unlink} <= os.supports_dir_fd  # not on Windows
_FOLDER: Final = getattr(os, "O_DIRECTORY", 0) | getattr(
    os, "O_PATH", 0
)  # to pass through one needs no right to list it
_AS_IT_IS: Final = {"follow_symlinks": False} if os.link in os.supports_follow_symlinks else {}
_SUFFIX: Final = ".meta-media.part"
_TEMPORARY: Final = re.compile(r"\.[0-9a-f]{16}" + re.escape(_SUFFIX))


class AtomicFile:
    """
    A new file, readable by nobody else until it is placed.

    Args:
        target: The path that it is for, or a folder, in which it gets a name that is still free.
        overwrite: Whether it may replace a file.
        fsync: Whether it waits for the disk before it appears.

    Attributes:
        file: To be written to.
        name: Of the temporary file.

    Raises:
        OSError: It cannot be begun.
        StorageError: What is at the path may not be replaced.
    """

    def __init__(self, target: Path, *, overwrite: bool, fsync: bool) -> None:
        in_folder = target.is_dir()
        self._path = target if in_folder else target.parent
        self._name = None if in_folder else target.name
        self._overwrite = overwrite
        self._fsync = fsync
        self.name = f".{os.urandom(8).hex()}{_SUFFIX}"
        self._absolute = self._path.absolute()
        self._folder = os.open(self._path, _FOLDER) if _HELD else None
        try:
            self._check(target)
            self.file = os.fdopen(self._create(self.name), "wb")
        except BaseException:
            self._close()
            raise
        self._left = True

    def _at(self, name: str) -> str:
        """Give what the system takes beside `dir_fd`."""
        return name if _HELD else str(self._absolute / name)

    def _create(self, name: str) -> int:
        return os.open(self._at(name), _CREATE, 0o600, dir_fd=self._folder)

    def _close(self) -> None:
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    def _stat(self, name: str) -> os.stat_result | None:
        """Look at what has a name, never through a symbolic link."""
        try:
            return os.stat(self._at(name), dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _check(self, target: Path) -> None:
        found = None if self._name is None else self._stat(self._name)
        if found is None:
            return
        if not self._overwrite:
            raise StorageError(f"{str(target)!r} exists already, and overwrite is off", errno=errno.EEXIST)
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):  # replacing /dev/null would harm everybody
            raise StorageError(f"{str(target)!r} is not a file; open it and pass the handle to write to it")

    def truncate(self) -> None:
        """Take back all that was written."""
        self.file.seek(0)
        self.file.truncate()

    def commit(self, name: str) -> Path:
        """
        Let it appear; where it is for a folder, under a name like this one. Return its path.

        Raises:
            OSError: It cannot be, and nothing has changed.
        """
        self.file.flush()  # a full disk may show only now
        with contextlib.suppress(AttributeError):  # which Windows has since Python 3.13, and does not need
            os.fchmod(self.file.fileno(), self._mode())
        if self._fsync:
            os.fsync(self.file.fileno())
        ours = os.fstat(self.file.fileno())
        self.file.close()
        found = self._stat(self.name)
        if found is not None and not os.path.samestat(found, ours):
            raise StorageError(f"somebody has put another file in the place of {self.name!r}")
        placed = self._place_beside_others(Path(name)) if self._name is None else self._place_at(self._name)
        if self._fsync:
            self._sync_folder()
        return self._path / placed

    def _mode(self) -> int:
        """Keep the permissions of the file that is replaced; a new one gets what any new file gets."""
        found = None if self._name is None else self._stat(self._name)
        return found.st_mode & 0o777 if found is not None and stat.S_ISREG(found.st_mode) else 0o666 & ~_umask()

    def _place_at(self, name: str) -> str:
        if self._overwrite:
            self._move(name)
        else:
            self._claim(name)
        return name

    def _place_beside_others(self, name: Path) -> str:
        number = 1
        while True:
            free = str(name) if number == 1 else f"{name.stem} ({number}){name.suffix}"
            try:
                self._claim(free)
            except FileExistsError:
                number += 1
            else:
                return free

    def _move(self, name: str) -> None:
        os.replace(self._at(self.name), self._at(name), src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._left = False

    def _claim(self, name: str) -> None:
        """Move to a name that nobody has; a hard link fails where one exists, and is never seen half done."""
        try:
            os.link(self._at(self.name), self._at(name), src_dir_fd=self._folder, dst_dir_fd=self._folder, **_AS_IT_IS)
        except FileExistsError:
            raise
        except OSError:
            self._claim_without_links(name)

    def _claim_without_links(self, name: str) -> None:
        """Claim the name with an empty file, on a file system that has no hard links."""
        claimed = self._create(name)
        try:
            os.close(claimed)
            self._move(name)
        except OSError:
            os.unlink(self._at(name), dir_fd=self._folder)
            raise

    def _sync_folder(self) -> None:
        """Let the name survive a power cut, too; systems that cannot open a folder keep names by other means."""
        for descriptor in [os.open(".", os.O_RDONLY, dir_fd=self._folder)] if _HELD else ():
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def discard(self) -> None:
        """
        Remove what is left of it, and let the folder go.

        Raises:
            OSError: The temporary file cannot be removed.
        """
        with contextlib.suppress(OSError):  # a full disk, once more
            self.file.close()
        try:
            if self._left:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._at(self.name), dir_fd=self._folder)
        finally:
            self._close()


@functools.cache
def _umask() -> int:
    mask = os.umask(0o077)  # it can only be read by setting it; strict meanwhile, for other threads' sake
    os.umask(mask)
    return mask


async def clean_stale(folder: str | os.PathLike[str], *, older_than: timedelta = timedelta(hours=1)) -> list[Path]:
    """
    Remove what downloads into a folder left when their process was killed, or the power was cut.

    Args:
        folder: Not searched below.
        older_than: How long nothing must have been written to a temporary file: a download under way writes to its own.

    Returns:
        What was removed.

    Raises:
        StorageError: It cannot be looked into, or something in it cannot be removed.
    """
    with storage_errors(f"clean {os.fsdecode(folder)!r}"):
        return await run_in_thread(_clean, Path(os.fsdecode(folder)), older_than.total_seconds())


def _clean(folder: Path, seconds: float) -> list[Path]:
    removed = []
    for path in sorted(folder.iterdir()):
        if _TEMPORARY.fullmatch(path.name) and time.time() - path.lstat().st_mtime >= seconds:
            path.unlink(missing_ok=True)
            removed.append(path)
    return removed
