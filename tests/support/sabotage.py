"""Counts the operations on files below one folder, and makes the k-th one fail or end the process."""

from __future__ import annotations

import builtins
import contextlib
import functools
import io
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

# All functions of the standard library that work with files, except those that only read the kernel's memory.
_FUNCTIONS: Final = (
    *("access", "chmod", "close", "copy_file_range", "fchmod", "fdatasync", "fstat", "fsync", "ftruncate", "link"),
    *("listdir", "lseek", "lstat", "mkdir", "open", "posix_fallocate", "pread", "pwrite", "pwritev", "read", "readv"),
    *("remove", "rename", "replace", "rmdir", "scandir", "sendfile", "stat", "statvfs", "symlink", "truncate"),
    *("unlink", "utime", "write", "writev"),
)
_OPEN: Final[tuple[tuple[Any, str], ...]] = ((builtins, "open"), (io, "open"))
_READLINK: Final = os.readlink
_CLOSING: Final = "close"


class Sabotage:
    """
    Watches a folder: the functions of `os`, and the binary files opened below it.

    Operation `at` is struck, counted from 1; with `late`, it is carried out first. `strike` raises, or ends the process.
    Later operations named in `onwards` are struck as well. A failing close closes nevertheless, like the kernel's.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        at: int = 0,
        strike: Callable[[], object] = lambda: None,
        *,
        late: bool = False,
        onwards: frozenset[str] = frozenset(),
    ) -> None:
        self.operations: list[str] = []  # the names of all so far
        self._folder = os.path.realpath(folder)
        self.at = at
        self._strike = strike
        self._late = late
        self._onwards = onwards
        self._armed = False
        self._lock = threading.Lock()

    @property
    def reached(self) -> bool:
        """Whether the operation to strike was reached."""
        return 0 < self.at <= len(self.operations)

    @property
    def struck(self) -> str:
        """The name of the struck operation."""
        return self.operations[self.at - 1]

    def opened(self, path: os.PathLike[str]) -> io.FileIO:
        """Open a watched file for reading."""
        raw = _Raw(path)
        raw.watch = self
        return raw

    @contextlib.contextmanager
    def watching(self) -> Iterator[Sabotage]:
        """Watch the standard library for as long as the block lasts."""
        places: list[tuple[Any, str]] = [(os, name) for name in _FUNCTIONS if hasattr(os, name)]
        originals = [(module, name, getattr(module, name)) for module, name in (*places, *_OPEN)]
        try:
            for module, name, original in originals:
                watched = self._watched(name, original) if module is os else functools.partial(self._opened, original)
                setattr(module, name, watched)
            self._armed = True
            yield self
        finally:
            self._armed = False
            for module, name, original in originals:
                setattr(module, name, original)

    def carried_out(self, name: str, request: Callable[[], Any]) -> Any:
        """Count an operation, and carry it out unless it is struck before."""
        if not self._armed:
            return request()
        with self._lock:
            self.operations.append(name)
            count = len(self.operations)
        struck = count == self.at or (0 < self.at < count and name in self._onwards)
        late = self._late or name == _CLOSING
        if struck and not late:
            self._strike()
        try:
            return request()
        finally:
            if struck and late:
                self._strike()

    def _watched(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def watched(*args: Any, **options: Any) -> Any:
            request = functools.partial(original, *args, **options)
            if any(map(self._concerns, (*args, *options.values()))):
                return self.carried_out(name, request)
            return request()

        return watched

    def _concerns(self, what: object) -> bool:
        if isinstance(what, bool) or not isinstance(what, int | str | bytes | os.PathLike):
            return False
        try:
            path = _READLINK(f"/proc/self/fd/{what}") if isinstance(what, int) else os.fsdecode(what)
        except OSError:  # a number that is no descriptor
            return False
        return path == self._folder or path.startswith(self._folder + os.sep)

    def _opened(
        self, original: Any, file: Any, mode: str = "r", buffering: int = -1, *args: Any, **options: Any
    ) -> Any:
        if "b" not in mode or not self._concerns(file):
            return original(file, mode, buffering, *args, **options)
        opener = options.get("opener")
        raw_mode = mode.replace("b", "")
        opening = functools.partial(_Raw, file, raw_mode, closefd=options.get("closefd", True), opener=opener)
        counted = opener or isinstance(file, int)  # what it calls is: `os.open`
        raw: _Raw = opening() if counted else self.carried_out("open", opening)
        raw.watch = self
        if buffering == 0:
            return raw
        size = io.DEFAULT_BUFFER_SIZE if buffering < 0 else buffering
        if "+" in mode:
            return io.BufferedRandom(raw, size)
        return io.BufferedReader(raw, size) if "r" in mode else io.BufferedWriter(raw, size)


class _Raw(io.FileIO):
    """An unbuffered file whose operations are counted."""

    watch: Sabotage | None = None

    def _carried_out(self, name: str, request: Callable[[], Any]) -> Any:
        return self.watch.carried_out(name, request) if self.watch is not None else request()

    def write(self, data: Any, /) -> int:
        return int(self._carried_out("write", functools.partial(super().write, data)))

    def read(self, size: int | None = -1, /) -> Any:
        return self._carried_out("read", functools.partial(super().read, -1 if size is None else size))

    def readall(self) -> Any:
        return self._carried_out("read", super().readall)

    def readinto(self, buffer: Any, /) -> Any:
        return self._carried_out("read", functools.partial(super().readinto, buffer))

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return int(self._carried_out("seek", functools.partial(super().seek, offset, whence)))

    def truncate(self, size: int | None = None, /) -> int:
        return int(self._carried_out("truncate", functools.partial(super().truncate, size)))

    def close(self) -> None:
        if self.closed:
            super().close()
        else:
            self._carried_out("close", super().close)
