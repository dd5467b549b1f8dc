"""
Where a library keeps its entries: in memory, in a SQLite file, in Redis, or in anything that can do what `Store` says.

```
memory   for one process, until it ends
sqlite   for the processes of one machine
redis    for many machines
```
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from meta_media.library.entry import LibraryEntry

__all__ = ["Store"]


class Store(Protocol):
    """
    Entries by key, and claims: of many that want to upload the same thing, one at a time may.

    Each method is atomic, also between processes. What fails raises a `StorageError`. `meta_media.testing.check_store` tells
    whether a store does all of this.
    """

    async def get(self, key: str) -> LibraryEntry | None:
        """Return the entry of a key, expired or not, unless the store has forgotten it by then."""
        ...

    async def claim(self, key: str, seconds: float) -> int | None:
        """
        Claim a key for so many seconds, if nobody else has it.

        Returns:
            The claim's number, larger than that of every earlier claim of that key; None while somebody else has it.
        """
        ...

    async def renew(self, key: str, claim: int, seconds: float) -> bool:
        """Let a claim last for so many seconds from now; False if somebody else has the key, or nobody has."""
        ...

    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        """
        Keep an entry under its `key`, and end the claim by which it was made.

        Returns:
            Whether it was kept. False when the claim had run out and somebody else has claimed the key since.
        """
        ...

    async def release(self, key: str, claim: int) -> None:
        """End a claim without an entry; nothing happens if somebody else has the key by now."""
        ...

    async def touch(self, entry: LibraryEntry) -> None:
        """Note `used_at` of an entry, if it is still the one that is kept."""
        ...

    async def remove(self, entry: LibraryEntry) -> bool:
        """Forget an entry; False if the key has another one by now, or none."""
        ...

    def entries(self) -> AsyncIterator[LibraryEntry]:
        """Iterate over all entries; what is added or removed meanwhile may be among them or not."""
        ...

    async def aclose(self) -> None:
        """Close what was opened; twice does no harm."""
        ...
