"""A store in memory, for one process and for tests."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Final

from meta_media.library.entry import LibraryEntry
from meta_media.library.store import AsyncCloseable, Store

__all__ = ["MemoryStore"]

_MESSAGE_COUNT: Final = 100_000  # a message takes 250 bytes


class MemoryStore(AsyncCloseable, Store):
    """A store in memory. Its entries are lost when the process ends."""

    def __init__(self) -> None:
        self._entries: dict[str, LibraryEntry] = {}
        self._claims: dict[str, tuple[int, float]] = {}  # number, and time.monotonic() at which it runs out
        self._last_claim = 0
        self._messages: OrderedDict[str, LibraryEntry] = OrderedDict()  # by message id: the last ones

    async def get(self, key: str) -> LibraryEntry | None:
        return self._entries.get(key)

    async def find(self, media_id: str) -> LibraryEntry | None:
        """Return the entry with a media id, or None."""
        return next((entry for entry in self._entries.values() if entry.id == media_id), None)

    async def claim(self, key: str, seconds: float) -> int | None:
        now = time.monotonic()
        if key in self._claims and now < self._claims[key][1]:
            return None
        self._last_claim += 1
        self._claims[key] = self._last_claim, now + seconds
        return self._last_claim

    async def renew(self, key: str, claim: int, seconds: float) -> bool:
        if not self._is_claim(key, claim):
            return False
        self._claims[key] = claim, time.monotonic() + seconds
        return True

    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        if not self._is_claim(entry.key, claim):
            return False
        self._entries[entry.key] = entry
        del self._claims[entry.key]
        return True

    async def release(self, key: str, claim: int) -> None:
        if self._is_claim(key, claim):
            del self._claims[key]

    async def touch(self, entry: LibraryEntry) -> None:
        if self._is_stored(entry):
            self._entries[entry.key] = entry

    async def remove(self, entry: LibraryEntry) -> bool:
        if stored := self._is_stored(entry):
            del self._entries[entry.key]
        return stored

    async def entries(self) -> AsyncIterator[LibraryEntry]:
        for entry in tuple(self._entries.values()):
            yield entry

    async def put_message(self, message_id: str, entry: LibraryEntry) -> None:
        """See `MessageStore`. The last 100,000 messages are kept."""
        self._messages[message_id] = entry
        if len(self._messages) > _MESSAGE_COUNT:
            self._messages.popitem(last=False)

    async def get_message(self, message_id: str) -> LibraryEntry | None:
        """See `MessageStore`."""
        return self._messages.get(message_id)

    def _is_claim(self, key: str, claim: int) -> bool:
        return self._claims.get(key, (0, 0.0))[0] == claim

    def _is_stored(self, entry: LibraryEntry) -> bool:
        stored = self._entries.get(entry.key)
        return stored is not None and stored.id == entry.id
