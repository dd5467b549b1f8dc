"""Libraries that are used again: how long an entry is returned, and which deletes they know."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
import time_machine

from meta_media import MediaApi, MediaLibrary, MemoryStore, SQLiteStore
from meta_media.emulator import Emulator
from meta_media.errors import ConfigurationError, MediaNotFoundError
from meta_media.library import Store
from tests.library.helpers import CONTENT, SMALL, HookedStore, fail, list_entries


@pytest.fixture(params=["memory", "sqlite"])
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MemoryStore | SQLiteStore]:
    """An empty store."""
    async with MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "library.sqlite") as store:
        yield store


def later(**time: float) -> time_machine.travel:
    """Move the clock forward."""
    return time_machine.travel(datetime.now(UTC) + timedelta(**time), tick=True)


@pytest.mark.parametrize(
    ("time", "ttl", "reused"),
    [
        ({"days": 28}, None, True),
        ({"days": 30}, None, False),
        ({"days": 40}, None, False),
        ({"hours": 8}, timedelta(hours=10), True),
        ({"hours": 9, "minutes": 1}, timedelta(hours=10), False),
    ],
)
async def test_an_entry_expires(
    media: MediaApi, kept: Store, time: dict[str, float], ttl: timedelta | None, reused: bool
) -> None:
    """An entry is returned for 29 days, or nine tenths of a short `ttl`. Then the file is uploaded again."""
    library = MediaLibrary(media, kept)
    first = await library.ensure(SMALL, ttl=ttl)
    with later(**time):
        again = await library.ensure(SMALL, ttl=ttl)
        assert again.reused is reused
        assert (again.id == first.id) is reused
        assert (await media.get_info(again.id)).id == again.id


DELETES: dict[str, Callable[[MediaApi, str], Awaitable[Any]]] = {
    "delete": lambda media, media_id: media.delete(media_id),
    "a copy's delete": lambda media, media_id: media.with_options(read_timeout=5).delete(media_id),
    "delete_many": lambda media, media_id: media.delete_many([media_id]).report(),
}


@pytest.mark.parametrize("how", DELETES)
async def test_deleted_by_the_same_client(
    media: MediaApi, emulator: Emulator, kept: MemoryStore | SQLiteStore, how: str
) -> None:
    """A delete by the client of a library removes the entry from the store, also for other processes."""
    library = MediaLibrary(media, kept)
    first, other = await library.ensure(CONTENT), await library.ensure(SMALL)
    assert await kept.find(first.id) == first
    await DELETES[how](media, first.id)
    assert await list_entries(library) == [other]
    assert await kept.find(first.id) is None
    async with emulator.api() as another:
        again = await MediaLibrary(another, kept).ensure(CONTENT)
    assert (again.reused, again.id == first.id) == (False, False)


async def test_a_store_without_find(media: MediaApi) -> None:
    """A store that cannot find an entry by its id keeps the entry; this client does not return it."""

    class Plain(MemoryStore):
        find = None  # type: ignore[assignment]  # which a store need not have

    library = MediaLibrary(media, Plain())
    first = await library.ensure(CONTENT)
    await media.delete(first.id)
    assert await list_entries(library) == [first]
    assert await library.get(CONTENT) is None
    assert not (await library.ensure(CONTENT)).reused


async def test_deleted_by_another_client(media: MediaApi, emulator: Emulator, library: MediaLibrary) -> None:
    """A library does not know the deletes of other clients: `verify` asks Meta, `forget` removes the entry."""
    first = await library.ensure(CONTENT)
    async with emulator.api() as other:
        await other.delete(first.id)
    assert (await library.ensure(CONTENT)).id == first.id
    second = await library.ensure(CONTENT, verify=True)
    assert not second.reused
    assert await library.forget(second.id)
    assert not (await library.ensure(CONTENT)).reused


async def test_a_store_that_fails_does_not_stop_a_delete(
    media: MediaApi, store: HookedStore, caplog: pytest.LogCaptureFixture
) -> None:
    """If the store is away, the media is deleted all the same, and the log says that the entry stays."""
    library = MediaLibrary(media, store)
    entry = await library.ensure(CONTENT)
    store.before["find"] = fail
    assert (await media.delete(entry.id)).success
    assert caplog.messages == [
        f"media {entry.id} is deleted, but another process may still be given its id: the store is away"
    ]
    with pytest.raises(MediaNotFoundError):
        await media.get_info(entry.id)
    assert not (await library.ensure(CONTENT)).reused


async def test_a_closed_library_hears_of_nothing(media: MediaApi, store: HookedStore) -> None:
    """After its block, a library does not use the store any more."""
    async with MediaLibrary(media, store) as library:
        entry = await library.ensure(CONTENT)
    store.before["find"] = fail
    await media.delete(entry.id)
    assert "find" not in store.calls


async def test_a_library_that_is_closed_during_a_delete(media: MediaApi, caplog: pytest.LogCaptureFixture) -> None:
    """While one library looks for the id, the other one is closed: its store is not asked, and the log stays empty."""
    both = HookedStore(), HookedStore()
    libraries = [MediaLibrary(media, store) for store in both]
    uploaded = await media.upload(CONTENT, filename="a.txt")
    for store, other in zip(both, reversed(libraries), strict=True):
        store.before["find"] = other.aclose
    await media.delete(uploaded.id)
    assert sum(store.calls.count("find") for store in both) == 1
    assert caplog.messages == []


async def test_a_library_that_is_dropped_during_a_delete(media: MediaApi) -> None:
    """While one library looks for the id, the other one is dropped and freed. Else deletes that overlap would keep all alive."""
    both = HookedStore(), HookedStore()
    libraries = [MediaLibrary(media, store) for store in both]
    uploaded = await media.upload(CONTENT, filename="a.txt")
    alive = [ref(library) for library in libraries]
    left: list[int] = []

    async def drop() -> None:
        libraries.clear()
        left.append(sum(library() is not None for library in alive))

    for store in both:
        store.before["find"] = drop
    await media.delete(uploaded.id)
    assert left == [1]  # the one that is asked


@pytest.mark.parametrize("store", ["library.sqlite", Path("library.sqlite"), MemoryStore, 5])
async def test_no_store(media: MediaApi, store: Any) -> None:
    """What is no store is one sentence."""
    with pytest.raises(ConfigurationError, match=r"a store such as SQLiteStore\(path\), not MediaApi and \w+$"):
        MediaLibrary(media, store)
    with pytest.raises(ConfigurationError, match="needs a MediaApi and a store"):
        MediaLibrary(MemoryStore(), media)  # type: ignore[arg-type]  # the wrong way round
