"""`check_store`: our stores pass it, and it finds every broken promise."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import attrs
import pytest

from meta_media import LibraryEntry, MemoryStore, RedisStore, SQLiteStore
from meta_media.library import Store, check_store
from tests.support.redis_server import RedisServer

pytest_plugins = ["tests.support.redis_server"]

Broken = type[MemoryStore]
BROKEN: dict[bool, dict[Broken, str]] = {
    False: {},
    True: {},
}  # promises by store; those that take ten seconds are apart


def breaks(promise: str, *, slow: bool = False) -> Callable[[Broken], Broken]:
    """Register a store that breaks a promise."""

    def register(store: Broken) -> Broken:
        BROKEN[slow][store] = promise
        return store

    return register


async def test_memory() -> None:
    """A store in memory keeps every promise."""
    store = MemoryStore()
    await check_store(lambda: store)


async def test_without_optional_methods() -> None:
    """A store need not find entries by their ids, nor store messages."""

    class Plain(MemoryStore):
        find = None  # type: ignore[assignment]  # as if it had no such method
        get_message = None  # type: ignore[assignment]  # likewise

    store = Plain()
    await check_store(lambda: store)


async def test_sqlite(tmp_path: Path) -> None:
    """A store in a file keeps every promise, also between two stores."""
    await check_store(lambda: SQLiteStore(tmp_path / "library.sqlite"))


async def test_redis(redis_server: RedisServer) -> None:
    """A store in Redis keeps every promise, also between two stores. `make_store` may be async."""

    async def make() -> Store:
        return RedisStore(redis_server.url, prefix="check_store")

    await check_store(make)


@breaks("get must return all fields of the stored entry")
class _Forgets(MemoryStore):
    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        await self.release(entry.key, claim)
        return True


@breaks("get must return all fields of the stored entry")
class _KeepsLittle(MemoryStore):
    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        return await super().put(attrs.evolve(entry, maybe_duplicate=False), claim)


@breaks("find must return the stored entry with this id")
class _FindsNothing(MemoryStore):
    async def find(self, media_id: str) -> LibraryEntry | None:
        return None


@breaks("get_message must return all fields of the message's entry, also if it is not stored any more")
class _ForgetsNames(MemoryStore):
    async def put_message(self, message_id: str, entry: LibraryEntry) -> None:
        await super().put_message(message_id, attrs.evolve(entry, filename=None))


@breaks("get_message must return all fields of the message's entry, also if it is not stored any more")
class _KeepsOneMessage(MemoryStore):
    async def put_message(self, message_id: str, entry: LibraryEntry) -> None:
        self._messages.clear()
        await super().put_message(message_id, entry)


@breaks("get_message of a message that is not stored must return None")
class _KnowsAnyMessage(MemoryStore):
    async def get_message(self, message_id: str) -> LibraryEntry | None:
        return await super().get_message(message_id) or next(iter(self._entries.values()))


class _FindsTheFirst(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self._first: dict[str, LibraryEntry] = {}

    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        self._first[entry.id] = entry
        return await super().put(entry, claim)


@breaks("find must not return an entry that was replaced")
class _FindsTheReplaced(_FindsTheFirst):
    async def find(self, media_id: str) -> LibraryEntry | None:
        return self._first.get(media_id)


@breaks("find must not return an entry that was removed")
class _FindsTheRemoved(_FindsTheFirst):
    async def find(self, media_id: str) -> LibraryEntry | None:
        found = self._first.get(media_id)
        return found and (found if self._entries.get(found.key, found).id == media_id else None)


@breaks("put with the current claim must return True")
class _RefusesToPut(MemoryStore):
    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        return await super().put(entry, claim) and False


@breaks("put must replace the earlier entry of the key")
class _KeepsTheFirst(MemoryStore):
    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        kept = self._entries.get(entry.key, entry)
        return await super().put(kept, claim)


@breaks("put must return False after a later claim of the key")
class _PutsAnyway(MemoryStore):
    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        if not await super().put(entry, claim):
            self._entries[entry.key] = entry
        return True


@breaks("put must store nothing after a later claim of the key")
class _PutsUnnoticed(MemoryStore):
    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        done = await super().put(entry, claim)
        self._entries[entry.key] = entry
        return done


@breaks("put must return False after a later claim of the key, even if that one has ended")
class _PutsWithoutAClaim(MemoryStore):
    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        if entry.key in self._claims and not self._is_claim(entry.key, claim):
            return False
        self._entries[entry.key] = entry
        await self.release(entry.key, claim)
        return True


@breaks("put must store an entry whose claim has run out, if no later claim was made")
class _PutsInTimeOnly(MemoryStore):
    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        if self._claims.get(entry.key, (0, 0.0))[1] < asyncio.get_running_loop().time():
            return False
        return await super().put(entry, claim)


@breaks("claim of a key without a claim must return a number, not None")
class _PutKeepsTheClaim(MemoryStore):
    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        self._entries[entry.key] = entry
        return self._is_claim(entry.key, claim)


@breaks("claim of a key without a claim must return a number, not None")
class _ClaimsNothing(MemoryStore):
    async def claim(self, key: str, seconds: float) -> int | None:
        return None


@breaks("claim must return None while another claim holds")
class _ClaimsAlways(MemoryStore):
    async def claim(self, key: str, seconds: float) -> int | None:
        self._claims.pop(key, None)
        return await super().claim(key, seconds)


@breaks("claims of other keys must not matter")
class _OneClaimForAll(MemoryStore):
    async def claim(self, key: str, seconds: float) -> int | None:
        return None if set(self._claims) - {key} else await super().claim(key, seconds)


@breaks("a claim must run out after its seconds", slow=True)
class _ClaimsForEver(MemoryStore):
    async def claim(self, key: str, seconds: float) -> int | None:
        return await super().claim(key, 1e9)


@breaks("one of 40 concurrent claims must succeed, not ")
class _ClaimsInTwoSteps(MemoryStore):
    async def claim(self, key: str, seconds: float) -> int | None:
        if time.monotonic() < self._claims.get(key, (0, 0.0))[1]:
            return None
        await asyncio.sleep(0)
        self._claims.pop(key, None)
        return await super().claim(key, seconds)


@breaks("claim must return a larger number than every earlier claim of the key")
class _ClaimsByTheSameNumber(MemoryStore):
    async def claim(self, key: str, seconds: float) -> int | None:
        self._last_claim = 0
        return await super().claim(key, seconds)


@breaks("renew must extend the claim by its seconds from now")
class _RenewsNothing(MemoryStore):
    async def renew(self, key: str, claim: int, seconds: float) -> bool:
        return self._is_claim(key, claim)


@breaks("renew of a claim that has not run out must return True")
class _RenewsNever(MemoryStore):
    async def renew(self, key: str, claim: int, seconds: float) -> bool:
        return False


@breaks("renew of a claim that was never made must return False")
class _RenewsAnything(MemoryStore):
    async def renew(self, key: str, claim: int, seconds: float) -> bool:
        return True


@breaks("renew must return False if another claim holds the key")
class _RenewsAnother(MemoryStore):
    async def renew(self, key: str, claim: int, seconds: float) -> bool:
        return key in self._claims


@breaks("a claim must run out after its seconds", slow=True)
class _RenewsLonger(MemoryStore):
    async def renew(self, key: str, claim: int, seconds: float) -> bool:
        return await super().renew(key, claim, max(seconds, 60))


@breaks("renew of a released claim must return False")
class _ReleasesNothing(MemoryStore):
    async def release(self, key: str, claim: int) -> None:
        pass


@breaks("release must not end another claim of the key")
class _ReleasesAnother(MemoryStore):
    async def release(self, key: str, claim: int) -> None:
        self._claims.pop(key, None)


@breaks("touch must update used_at of the stored entry")
class _TouchesNothing(MemoryStore):
    async def touch(self, entry: LibraryEntry) -> None:
        pass


@breaks("touch must not store a new entry")
class _TouchesAnything(MemoryStore):
    async def touch(self, entry: LibraryEntry) -> None:
        self._entries[entry.key] = entry


@breaks("touch must change nothing if the key has another entry")
class _TouchesByKey(MemoryStore):
    async def touch(self, entry: LibraryEntry) -> None:
        if entry.key in self._entries:
            self._entries[entry.key] = entry


@breaks("remove must return False if the key has another entry")
class _RemovesByKey(MemoryStore):
    async def remove(self, entry: LibraryEntry) -> bool:
        return self._entries.pop(entry.key, None) is not None


@breaks("remove must not remove another entry of the key")
class _RemovesUnnoticed(MemoryStore):
    async def remove(self, entry: LibraryEntry) -> bool:
        self._entries.pop(entry.key, None)
        return await super().remove(entry)


@breaks("remove must remove the entry")
class _RemovesNothing(MemoryStore):
    async def remove(self, entry: LibraryEntry) -> bool:
        return self._is_stored(entry)


@breaks("remove of an entry that is not stored must return False")
class _RemovesAlways(MemoryStore):
    async def remove(self, entry: LibraryEntry) -> bool:
        await super().remove(entry)
        return True


@breaks("get must return the entry of exactly this key")
class _FindsByNumber(MemoryStore):
    async def get(self, key: str) -> LibraryEntry | None:
        if key in self._entries:
            return self._entries[key]
        return next((entry for known, entry in self._entries.items() if known[:9] == key[:9]), None)


@breaks("entries must yield each of 600 entries once")
class _ListsSome(MemoryStore):
    async def entries(self) -> AsyncIterator[LibraryEntry]:
        for entry in tuple(self._entries.values())[:500]:
            yield entry


@breaks("entries must yield every entry, also if those it has yielded are removed meanwhile")
class _ListsByNumber(MemoryStore):
    async def entries(self) -> AsyncIterator[LibraryEntry]:
        page = 0
        while found := list(self._entries.values())[page : page + 100]:
            for entry in found:
                yield entry
            page += 100


@breaks("entries must yield one entry per key: the last one that was put")
class _ListsTwice(MemoryStore):
    async def entries(self) -> AsyncIterator[LibraryEntry]:
        for entry in (*self._entries.values(), *self._entries.values()):
            yield entry


@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.slow)])
async def test_broken_promises(slow: bool) -> None:
    """The check of a store that breaks a promise fails with that promise."""
    found: dict[Broken, str] = {}

    async def check(kind: Broken) -> None:
        store = kind()
        try:
            await check_store(lambda: store)
        except AssertionError as error:
            found[kind] = str(error)

    async with anyio.create_task_group() as group:
        for kind in BROKEN[slow]:
            group.start_soon(check, kind)
    wanted = {kind: f"Store: {promise}" for kind, promise in BROKEN[slow].items()}
    assert {kind: found.get(kind, "nothing")[: len(wanted[kind])] for kind in wanted} == wanted


async def test_busy_machine() -> None:
    """If a claim runs out before the check can renew it, as on a busy machine, the check tries a longer one."""

    class Busy(MemoryStore):
        async def renew(self, key: str, claim: int, seconds: float) -> bool:
            if key.startswith("10/") and claim < self._numbers_of_busy:
                await asyncio.sleep(self._claims[key][1] - time.monotonic())  # until it has run out
                return False
            return await super().renew(key, claim, seconds)

        async def claim(self, key: str, seconds: float) -> int | None:
            claim = await super().claim(key, seconds)
            if key.startswith("10/") and self._numbers_of_busy == 0:
                self._numbers_of_busy = self._last_claim + 1
            return claim

        _numbers_of_busy = 0

    store = Busy()
    await check_store(lambda: store)
    assert store._numbers_of_busy > 0


async def test_separate_stores() -> None:
    """Two stores that do not share their data fail the check."""
    with pytest.raises(AssertionError, match="also from another store over the same data"):
        await check_store(MemoryStore)


async def test_stores_are_closed() -> None:
    """Both stores are closed twice, also if a promise is broken."""
    closed = []

    class Closing(_RenewsAnything):
        async def aclose(self) -> None:
            closed.append(self)

    with pytest.raises(AssertionError):
        await check_store(Closing)
    assert len(closed) == 4
    assert len(set(closed)) == 2
