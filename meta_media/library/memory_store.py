"""Entries of one process, until it ends."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from meta_media.library.entry import LibraryEntry

__all__ = ["MemoryStore"]


class MemoryStore:
    """A store in memory, for one process and tests."""

    def __init__(self) -> None:
        self._entries: dict[str, LibraryEntry] = {}
        self._claims: dict[str, tuple[int, float]] = {}  # number, and until when
        self._numbers = 0

    async def get(self, key: str) -> LibraryEntry | None:
        """See `Store`."""
        return self._entries.get(key)

    async def claim(self, key: str, seconds: float) -> int | None:
        """See `Store`."""
        now = time.monotonic()
        if key in self._claims and now < self._claims[key][1]:
            return None
        self._numbers += 1
        self._claims[key] = self._numbers, now + seconds
        return self._numbers

    async def renew(self, key: str, claim: int, seconds: float) -> bool:
        """See `Store`."""
        if not self._holds(key, claim):
            return False
        self._claims[key] = claim, time.monotonic() + seconds
        return True

    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        """See `Store`."""
        if not self._holds(entry.key, claim):
            return False
        self._entries[entry.key] = entry
        await self.release(entry.key, claim)
        return True

    async def release(self, key: str, claim: int) -> None:
        """See `Store`."""
        if self._holds(key, claim):
            del self._claims[key]

    async def touch(self, entry: LibraryEntry) -> None:
        """See `Store`."""
        if self._keeps(entry):
            self._entries[entry.key] = entry

    async def remove(self, entry: LibraryEntry) -> bool:
        """See `Store`."""
        kept = self._keeps(entry)
        if kept:
            del self._entries[entry.key]
        return kept

    async def entries(self) -> AsyncIterator[LibraryEntry]:
        """See `Store`."""
        for entry in tuple(self._entries.values()):
            yield entry

    async def aclose(self) -> None:
        """See `Store`."""

    def _holds(self, key: str, claim: int) -> bool:
        return self._claims.get(key, (0, 0.0))[0] == claim

    def _keeps(self, entry: LibraryEntry) -> bool:
        kept = self._entries.get(entry.key)
        return kept is not None and kept.id == entry.id
