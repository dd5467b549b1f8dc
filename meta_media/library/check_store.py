"""A conformance test of stores: `check_store` tries each promise of `Store`."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import anyio
import attrs

from meta_media.library.entry import LibraryEntry
from meta_media.library.store import Store

__all__ = ["check_store"]

_BRIEF: Final = 0.2  # seconds of a claim that is to run out
_LONG: Final = 600.0  # seconds of one that is not
_PATIENCE: Final = 10.0  # seconds that running out may take longer than it should
_CROWD: Final = 40  # claims at the same time
_MANY: Final = 600  # entries: more than a store is likely to read at a time


async def check_store(make_store: Callable[[], Store | Awaitable[Store]]) -> None:
    """
    Check that a store keeps every promise of `meta_media.library.store.Store`, for the tests of whoever writes one.

    ```python
    async def test_my_store(tmp_path):
        await check_store(lambda: MyStore(tmp_path / "library"))
    ```

    Two stores are made, used together as two processes would use them, and closed. It takes some seconds, because some
    claims have to run out.

    Args:
        make_store: Makes a store, each time over the same data, in which nothing is at first; plain or async. Of a store that
            keeps its data to itself, such as `MemoryStore`, it returns the same one again.

    Raises:
        AssertionError: A promise was broken; the message says which.
    """
    stores: list[Store] = []
    for _ in range(2):
        made = make_store()
        stores.append(await made if inspect.isawaitable(made) else made)
    try:
        for check in (_check_nothing, _check_entries_are_kept, _check_replacing, _check_touch, _check_remove):
            await check(*stores)
        for check in (_check_claims, _check_crowd, _check_lost_claim, _check_late_claim, _check_renewal):
            await check(*stores)
        await _check_expired(*stores)
        await _check_iteration(*stores)
    finally:
        for store in (*stores, *stores):
            await store.aclose()


def _promised(kept: bool, sentence: str) -> None:
    if not kept:
        raise AssertionError(f"Store: {sentence}")


def _some_entry(number: str, media_id: str = "1", **more: Any) -> LibraryEntry:
    now = datetime.now(UTC)
    fields = {"uploaded_at": now - timedelta(hours=2), "expires_at": now + timedelta(days=29), "used_at": now, **more}
    sha256 = hashlib.sha256(number.encode()).hexdigest()
    fields = {"mime_type": "audio/ogg; codecs=opus", "sha256": sha256, **fields}
    return LibraryEntry(id=media_id, phone_number_id=number, **fields)


async def _kept(store: Store, entry: LibraryEntry) -> LibraryEntry:
    """Keep an entry, as a library does."""
    claim = await store.claim(entry.key, _LONG)
    _promised(claim is not None, "claim of a key that nobody has must return a number, not None")
    _promised(await store.put(entry, claim or 0), "put by whoever has the claim must return True")
    return entry


async def _run_out(store: Store, key: str) -> int:
    """Claim a key once somebody else's claim of it has run out."""
    until = time.monotonic() + _PATIENCE
    while (claim := await store.claim(key, _LONG)) is None:
        _promised(time.monotonic() < until, "a claim must run out after the seconds it was made for")
        await anyio.sleep(_BRIEF / 4)
    return claim


async def _check_nothing(one: Store, other: Store) -> None:
    entry = _some_entry("1")
    _promised([entry async for entry in one.entries()] == [], "entries of fresh data must yield nothing")
    _promised(await one.get(entry.key) is None, "get of a key that was never put must return None")
    _promised(not await one.remove(entry), "remove of what is not kept must return False")
    _promised(not await one.renew(entry.key, 1, _LONG), "renew of a claim that nobody has must return False")
    await one.release(entry.key, 1)
    await one.touch(entry)
    _promised(await other.get(entry.key) is None, "touch must keep nothing that was not kept already")


async def _check_entries_are_kept(one: Store, other: Store) -> None:
    plain = await _kept(one, _some_entry("2"))
    odd = await _kept(one, _some_entry("2", "2", mime_type="text/x-'%*?[]{}\"\\", maybe_duplicate=True))
    for store in (one, other):
        where = "" if store is one else ", also from another store over the same data"
        for entry in (plain, odd):
            _promised(await store.get(entry.key) == entry, f"get must return all fields of what was put{where}")
    near = [_some_entry("2", sha256="0" * 64), _some_entry("2", mime_type="text/plain"), _some_entry("22")]
    for stranger in near:
        _promised(await one.get(stranger.key) is None, "get must return the entry of exactly this key")


async def _check_replacing(one: Store, other: Store) -> None:
    await _kept(one, _some_entry("3"))
    newer = await _kept(other, _some_entry("3", "2"))
    _promised(await one.get(newer.key) == newer, "put must replace what a key had before")
    listed = [entry async for entry in one.entries() if entry.key == newer.key]
    _promised(listed == [newer], "entries must yield one entry for each key: the one that was put last")


async def _check_touch(one: Store, other: Store) -> None:
    entry = await _kept(one, _some_entry("4"))
    used = attrs.evolve(entry, used_at=datetime.now(UTC) + timedelta(minutes=1))
    await other.touch(used)
    _promised(await one.get(entry.key) == used, "touch must note used_at of the entry that is kept")
    newer = await _kept(one, _some_entry("4", "2"))
    await other.touch(used)
    _promised(await one.get(entry.key) == newer, "touch must change nothing if the key has another entry by now")


async def _check_remove(one: Store, other: Store) -> None:
    older = await _kept(one, _some_entry("5"))
    newer = await _kept(one, _some_entry("5", "2"))
    _promised(not await other.remove(older), "remove must return False if the key has another entry by now")
    _promised(await one.get(newer.key) == newer, "remove must forget nothing if the key has another entry by now")
    _promised(await other.remove(newer), "remove of the entry that is kept must return True")
    _promised(await one.get(newer.key) is None, "remove must forget the entry")
    _promised(not await one.remove(newer), "remove must return False when there is nothing any more")
    await one.touch(newer)
    _promised(await one.get(newer.key) is None, "touch must not bring back what was removed")


async def _check_claims(one: Store, other: Store) -> None:
    entry = _some_entry("6")
    first = await one.claim(entry.key, _LONG)
    _promised(first is not None, "claim of a key that nobody has must return a number, not None")
    for store in (one, other):
        _promised(await store.claim(entry.key, _LONG) is None, "claim must return None while somebody else has it")
    _promised(await other.claim(_some_entry("66").key, _LONG) is not None, "each key must have a claim of its own")
    await one.release(entry.key, first or 0)
    _promised(not await one.renew(entry.key, first or 0, _LONG), "renew must return False once a claim was released")
    second = await other.claim(entry.key, _LONG)
    _promised(second is not None, "claim of a key that was released must return a number at once")
    _promised((second or 0) > (first or 0), "each claim of a key must have a larger number than those before")
    await one.release(entry.key, first or 0)
    _promised(not await one.renew(entry.key, first or 0, _LONG), "renew must return False if somebody else has the key")
    _promised(await one.claim(entry.key, _LONG) is None, "release must change nothing if somebody else has the key")
    _promised(await other.put(entry, second or 0), "put by whoever has the claim must return True")
    _promised(not await one.renew(entry.key, second or 0, _LONG), "put must end the claim: renew is False then")
    third = await one.claim(entry.key, _LONG)
    _promised(third is not None, "put must end the claim: the next one must be had at once")
    _promised((third or 0) > (second or 0), "each claim of a key must have a larger number than those before")


async def _check_crowd(one: Store, other: Store) -> None:
    key, last = _some_entry("7").key, 0
    for _ in range(3):
        await one.claim(key, _BRIEF)
        await anyio.sleep(_BRIEF * 2)  # until it has run out
        claims: list[int] = []

        async def claim(store: Store, claims: list[int]) -> None:
            if (number := await store.claim(key, _LONG)) is not None:
                claims.append(number)

        async with anyio.create_task_group() as group:
            for store in (one, other) * (_CROWD // 2):
                group.start_soon(claim, store, claims)
        _promised(claims != [], "a claim must run out after the seconds it was made for")
        _promised(len(claims) == 1, f"of {_CROWD} claims of a key at the same time one must be had, not {len(claims)}")
        _promised(claims[0] > last, "each claim of a key must have a larger number than those before")
        last = claims[0]
        await other.release(key, last)


async def _check_lost_claim(one: Store, other: Store) -> None:
    for number in ("8", "88"):
        late, entry = _some_entry(number), _some_entry(number, "2")
        lost = await one.claim(late.key, _BRIEF) or 0
        claim = await _run_out(other, late.key)
        _promised(claim > lost, "each claim of a key must have a larger number than those before")
        _promised(not await one.renew(late.key, lost, _LONG), "renew must return False if somebody else has the key")
        _promised(not await one.put(late, lost), "put must return False if somebody else has claimed the key since")
        _promised(await one.get(late.key) is None, "put must keep nothing if somebody else has claimed the key since")
        await one.release(late.key, lost)
        _promised(await one.claim(late.key, _LONG) is None, "release must change nothing if somebody else has the key")
        if number == "8":
            _promised(await other.put(entry, claim), "put by whoever has the claim must return True")
        else:
            await other.release(late.key, claim)
        what = "put must return False if somebody else has claimed the key since, also when that claim has ended"
        _promised(not await one.put(late, lost), what)
        _promised(await one.get(late.key) == (entry if number == "8" else None), what)


async def _check_late_claim(one: Store, other: Store) -> None:
    entry = _some_entry("9")
    claim = await one.claim(entry.key, _BRIEF)
    await anyio.sleep(_BRIEF * 2)
    what = "put must keep an entry whose claim has run out, as long as nobody else has claimed the key"
    _promised(await one.put(entry, claim or 0), what)
    _promised(await other.get(entry.key) == entry, what)


async def _check_renewal(one: Store, other: Store) -> None:
    key, seconds, began = _some_entry("10").key, _BRIEF, time.monotonic()
    claim = await one.claim(key, seconds) or 0
    while not await one.renew(key, claim, _LONG):
        ran_out = time.monotonic() - began >= seconds  # on a machine that is busy
        _promised(ran_out, "renew of a claim that has not run out must return True")
        await one.release(key, claim)
        seconds, began = seconds * 4, time.monotonic()
        claim = await one.claim(key, seconds) or 0
    await anyio.sleep(seconds * 2)
    _promised(await other.claim(key, _LONG) is None, "renew must let a claim last for so many seconds from now")
    await one.renew(key, claim, _BRIEF)
    await _run_out(other, key)


async def _check_expired(one: Store, other: Store) -> None:
    await _kept(one, _some_entry("11"))
    expired = await _kept(one, _some_entry("11", "2", expires_at=datetime.now(UTC) - timedelta(minutes=1)))
    found = await other.get(expired.key)
    _promised(found in (None, expired), "get of a key whose entry has expired must return that entry, or None")
    newer = await _kept(other, _some_entry("11", "3"))
    _promised(await one.get(newer.key) == newer, "put must replace what a key had before, also when that has expired")


async def _check_iteration(one: Store, other: Store) -> None:
    wanted = {f"12{number:04}": _some_entry(f"12{number:04}") for number in range(_MANY)}
    numbers = list(wanted)
    for start in range(0, _MANY, _CROWD):
        async with anyio.create_task_group() as group:
            for number in numbers[start : start + _CROWD]:
                group.start_soon(_kept, one, wanted[number])
    for store in (one, other):
        found = [entry async for entry in store.entries() if entry.phone_number_id in wanted]
        complete = len(found) == _MANY and {entry.phone_number_id: entry for entry in found} == wanted
        _promised(complete, f"entries must yield all {_MANY} entries that were put, each once")
    async for entry in one.entries():
        _promised(
            await other.remove(entry), "remove of an entry that is kept must return True, also during an iteration"
        )
    left = [entry async for entry in other.entries()]
    _promised(left == [], "entries must yield everything, also when what it has yielded is removed meanwhile")
