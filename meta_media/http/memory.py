"""
The memory that the transfers of a client hold together: `Settings.memory`, divided among those that are under way.

A transfer asks before each chunk how long it may be. It never waits: an upload may read from an open download.
"""

from __future__ import annotations

import mmap
from typing import Any, Final, Self

__all__ = ["Memory", "Share", "fitting_buffer"]

_CHUNK_COUNT: Final = 4  # that a transfer holds: three on their way, and one that the network or its reader has
_OVERHEAD: Final = 160 * 2**10  # bytes of a transfer beside its chunks: for its connection, TLS, headers and tasks
_FEW: Final = 8  # transfers under way with chunks of full size; with more of them, half of it costs no time
_MIN_CHUNK_SIZE: Final = 2**14  # bytes; shorter chunks would take more time than the network
_MIN_MAPPED_SIZE: Final = 2**14  # bytes of a buffer that is mapped: malloc would keep most of them when it is dropped
_PRIVATE: Final[dict[str, Any]] = (  # Windows has no flags; elsewhere the default is shared with forked children
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
)


class Memory:
    """The memory of the transfers of a client and its copies, in bytes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.left = size  # below 0 where the transfers under way cannot do with less
        self.transfers = 0  # under way


class Share:
    """The memory of one transfer, while it is under way. Call it for the bytes of the next chunk."""

    def __init__(self, memory: Memory, chunk_size: int) -> None:
        self._memory = memory
        self._chunk_size = chunk_size
        self._held = 0

    async def __aenter__(self) -> Self:
        self._memory.transfers += 1
        self._hold(_OVERHEAD)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._memory.transfers -= 1
        self._hold(0)

    def __call__(self, most: int | None = None) -> int:
        """
        Return `most` bytes, by default the settings' `chunk_size`, or half of it while many transfers are under way.

        It is fewer where an equal part of the memory, or what the others leave of it, is less.
        """
        memory = self._memory
        part = min(memory.size // memory.transfers, memory.left + self._held) - _OVERHEAD
        most = most or self._chunk_size
        if memory.transfers > _FEW:
            most = min(most, max(self._chunk_size // 2, _MIN_CHUNK_SIZE))
        size = min(most, max(part // _CHUNK_COUNT, _MIN_CHUNK_SIZE))
        self._hold(_CHUNK_COUNT * size + _OVERHEAD)
        return size

    def _hold(self, size: int) -> None:
        self._memory.left += self._held - size
        self._held = size


def fitting_buffer(size: int, used: memoryview | None = None) -> memoryview:
    """Return a buffer of at most `size` bytes: the used one, unless it is longer, or no longer than half of that."""
    if used is not None and size < 2 * len(used) <= 2 * size:
        return used
    return memoryview(mmap.mmap(-1, size, **_PRIVATE) if size >= _MIN_MAPPED_SIZE else bytearray(size))
