"""A store with hooks, and other helpers that the tests of the library share."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from meta_media import LibraryEntry, MediaApi, MediaLibrary, MemoryStore, Settings
from meta_media.emulator import Emulator
from meta_media.errors import StorageError
from meta_media.library import Store
from meta_media.library.entry import entry_key
from tests.support.servers import Server
from tests.support.stepping import LeanServer

CONTENT = b"To be uploaded once, and sent to whom you like.\n" * 10_000
SMALL = b"some text"
OLD_ENTRY = (  # the stored format of the first version, which must stay readable
    '{"id": "7", "sha256": "abababababababababababababababababababababababababababababababab", "mime_type": "text/plain", '
    '"phone_number_id": "1", "uploaded_at": 1767268800.123457, "expires_at": 4102444800.0,'
    ' "used_at": 1767268800.123457, "maybe_duplicate": true}'
)
Hook = Callable[..., Awaitable[object]]
_HOOKED = {"get", "find", "claim", "renew", "put", "release", "touch", "remove", "put_message", "get_message", "aclose"}


class HookedStore(MemoryStore):
    """A store whose methods can be made to wait or fail."""

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[str, Hook] = {}  # run before the method of this name
        self.calls: list[str] = []  # the names of the methods that were called

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in _HOOKED:
            return found

        async def hooked(*arguments: Any) -> Any:
            self.calls.append(name)
            if name in self.before:
                await self.before[name]()
            return await found(*arguments)

        return hooked


async def fail() -> None:
    """Fail, as a store may."""
    raise StorageError("the store is away")


def client_of(server: Server | LeanServer) -> MediaApi:
    """Make a client whose Graph API is a test's server."""
    return MediaApi("token", "1", settings=Settings(base_url=server.base_url))


def key_of(content: bytes, emulator: Emulator, mime_type: str = "text/plain") -> str:
    """Return the library's key of a content."""
    return entry_key(emulator.phone_number_id, hashlib.sha256(content).hexdigest(), mime_type)


def upload_count(emulator: Emulator) -> int:
    """Count the requests to upload."""
    return sum(request.method == "POST" for request in emulator.requests)


async def list_entries(library: MediaLibrary) -> list[LibraryEntry]:
    """List the entries of a library."""
    return [entry async for entry in library]


async def replace_entry(store: MemoryStore, entry: LibraryEntry, **changes: Any) -> LibraryEntry:
    """Replace an entry in a store by a changed one."""
    return await put_entry(store, attrs.evolve(entry, **changes))


def entry_of(number: str, media_id: str = "7", *, expires_in: timedelta = timedelta(days=1)) -> LibraryEntry:
    """Make an entry."""
    now = datetime.now(UTC)
    return LibraryEntry(
        id=media_id,
        sha256="0" * 64,
        mime_type="text/plain",
        phone_number_id=number,
        uploaded_at=now,
        expires_at=now + expires_in,
        used_at=now,
    )


async def put_entry(store: Store, entry: LibraryEntry) -> LibraryEntry:
    """Store an entry, as a library does."""
    claim = await store.claim(entry.key, 60)
    assert claim is not None
    assert await store.put(entry, claim)
    return entry
