"""
The interface of a store, which keeps a library's entries and claims.

```
MemoryStore   one process, until it ends
SQLiteStore   the processes of one machine
RedisStore    many machines
```
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, Protocol, Self, runtime_checkable

from meta_media.library.entry import LibraryEntry

__all__ = ["MESSAGE_LIFETIME", "AsyncCloseable", "MessageStore", "Store"]

MESSAGE_LIFETIME: Final = 8 * 86_400.0  # seconds: Meta repeats a webhook for 7 days, and media is refused within one


class Store(Protocol):
    """
    Entries by key, and claims. A claim lets one process at a time upload the content of a key.

    Each method is atomic, also between processes. A failure is a `StorageError`, which is `retryable` if the store may answer
    the next call. `check_store` tests whether a store keeps every promise below.

    A store may also have a method `async find(media_id)`, which returns the entry with an id, or None. Without it, a library
    cannot remove the entry of media that its client deletes. It then only does not return that id itself. It may also have
    the methods of `MessageStore`. Without them, only the library that has sent a message knows what was in it.
    """

    async def get(self, key: str) -> LibraryEntry | None:
        """
        Return the entry of a key, or None. An expired entry may be returned or be gone.

        For a damaged entry, raise the `StorageError` of `LibraryEntry.from_json`. A library then makes the entry anew.
        """
        ...

    async def claim(self, key: str, seconds: float) -> int | None:
        """
        Claim a key for a number of seconds. Return None while another claim holds the key.

        Otherwise return the claim's number, which is larger than that of every earlier claim of the key. A
        store that can lose its data adds a random part. A wall clock that is set makes no claim last longer.
        """
        ...

    async def renew(self, key: str, claim: int, seconds: float) -> bool:
        """Extend a claim to a number of seconds from now. Return False if this claim no longer holds the key."""
        ...

    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        """
        Store an entry under its `key`, in place of an earlier one, and end the claim under which it was made.

        Return False, and store nothing, if a later claim was made. A claim that has run out without a later one is still good.
        """
        ...

    async def release(self, key: str, claim: int) -> None:
        """End a claim without storing an entry. A later claim of the key stays."""

    async def touch(self, entry: LibraryEntry) -> None:
        """Update `used_at` of a stored entry. Do nothing if the key has no entry, or one with another id."""

    async def remove(self, entry: LibraryEntry) -> bool:
        """Remove an entry. Return False if the key has no entry, or one with another id."""
        ...

    def entries(self) -> AsyncIterator[LibraryEntry]:
        """Iterate over all entries but damaged ones. One that is stored or removed meanwhile may appear or not."""
        ...

    async def aclose(self) -> None:
        """Close the store. Closing twice is allowed."""


@runtime_checkable
class MessageStore(Protocol):
    """The entries that messages were sent with, for `MediaLibrary.failed`. Both methods are optional for a `Store`."""

    async def put_message(self, message_id: str, entry: LibraryEntry) -> None:
        """Store the entry of a message that was sent, for at least `MESSAGE_LIFETIME`. The entry may be removed meanwhile."""

    async def get_message(self, message_id: str) -> LibraryEntry | None:
        """Return the entry of a message, or None. For a damaged one, raise as `Store.get` does."""
        ...


class AsyncCloseable:
    """Base class that closes an object at the end of its `async with` block."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the object."""
