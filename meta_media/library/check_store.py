"""`check_store`: a conformance test for stores."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import attrs

from meta_media.library.entry import LibraryEntry
from meta_media.library.store import MessageStore, Store

__all__ = ["check_store"]

_SHORT_CLAIM: Final = 0.1  # seconds; the check waits until it has run out
_LONG_CLAIM: Final = 600.0  # seconds; does not run out during the check
_RUN_OUT_TIMEOUT: Final = 10.0  # seconds that a claim may last too long
_CLAIM_COUNT: Final = 40  # at the same time
_ENTRY_COUNT: Final = 600  # more than a store is likely to read at a time

# Sentences that more than one check needs.
_RISING: Final = "claim must return a larger number than every earlier claim of the key"
_RUNS_OUT: Final = "a claim must run out after its seconds"
_PUT: Final = "put with the current claim must return True"
_REPLACED: Final = "put must replace the earlier entry of the key"
_RENEW_LOST: Final = "renew must return False if another claim holds the key"
_RELEASE_LOST: Final = "release must not end another claim of the key"


async def check_store(make_store: Callable[[], Store | Awaitable[Store]]) -> None:
    """
    Check that a store keeps every promise of `Store`. Call it in a test of your own store.

    ```python notest
    async def test_my_store(tmp_path):
        await check_store(lambda: MyStore(tmp_path / "library"))
    ```

    Two stores are made, used as two processes would use them, and closed. The check takes some seconds, because it waits
    for claims to run out.

    Args:
        make_store: Makes a store; plain or async. All stores that it makes share the same data, which is empty at first. A
            store that shares nothing, such as `MemoryStore`, must be the same object each time.

    Raises:
        AssertionError: The store broke a promise. The message says which.
    """
    stores: list[Store] = []
    for _ in range(2):
        made = make_store()
        stores.append(await made if inspect.isawaitable(made) else made)
    try:
        for check in (_check_empty, _check_put, _check_touch_and_remove, _check_claims, _check_concurrent_claims):
            await check(*stores)
        for check in (_check_find, _check_messages, _check_late_put, _check_renew, _check_entries):
            await check(*stores)
    finally:
        for store in (*stores, *stores):
            await store.aclose()


def _require(condition: bool, promise: str) -> None:
    if not condition:
        raise AssertionError(f"Store: {promise}")


def _make_entry(number: str, media_id: str = "1", **fields: Any) -> LibraryEntry:
    now = datetime.now(UTC)
    times = {"uploaded_at": now - timedelta(hours=2), "expires_at": now + timedelta(days=29), "used_at": now}
    fields = {"sha256": hashlib.sha256(number.encode()).hexdigest(), "mime_type": "audio/ogg; codecs=opus", **fields}
    return LibraryEntry(id=media_id, phone_number_id=number, **{**times, **fields})


async def _claim(store: Store, key: str, seconds: float = _LONG_CLAIM) -> int:
    claim = await store.claim(key, seconds)
    _require(claim is not None, "claim of a key without a claim must return a number, not None")
    return claim or 0


async def _put(store: Store, entry: LibraryEntry) -> LibraryEntry:
    _require(await store.put(entry, await _claim(store, entry.key)), _PUT)
    return entry


async def _claim_when_run_out(store: Store, key: str) -> int:
    deadline = time.monotonic() + _RUN_OUT_TIMEOUT
    while (claim := await store.claim(key, _LONG_CLAIM)) is None:
        _require(time.monotonic() < deadline, _RUNS_OUT)
        await asyncio.sleep(_SHORT_CLAIM / 4)
    return claim


async def _check_empty(one: Store, other: Store) -> None:
    entry = _make_entry("1")
    _require([entry async for entry in one.entries()] == [], "entries of an empty store must yield nothing")
    _require(await one.get(entry.key) is None, "get of a key without an entry must return None")
    _require(not await one.remove(entry), "remove of an entry that is not stored must return False")
    _require(not await one.renew(entry.key, 1, _LONG_CLAIM), "renew of a claim that was never made must return False")
    await one.release(entry.key, 1)
    await one.touch(entry)
    _require(await other.get(entry.key) is None, "touch must not store a new entry")


async def _check_put(one: Store, other: Store) -> None:
    plain = await _put(one, _make_entry("2"))
    odd = await _put(one, _make_entry("2", "2", mime_type="text/x-'%*?[]{}\"\\", maybe_duplicate=True))
    for store in (one, other):
        where = "" if store is one else ", also from another store over the same data"
        for entry in (plain, odd):
            _require(await store.get(entry.key) == entry, f"get must return all fields of the stored entry{where}")
    for stranger in (_make_entry("2", sha256="0" * 64), _make_entry("2", mime_type="text/plain"), _make_entry("22")):
        _require(await one.get(stranger.key) is None, "get must return the entry of exactly this key")
    await _put(one, _make_entry("3"))
    newer = await _put(other, _make_entry("3", "2"))
    _require(await one.get(newer.key) == newer, _REPLACED)
    listed = [entry async for entry in one.entries() if entry.key == newer.key]
    _require(listed == [newer], "entries must yield one entry per key: the last one that was put")
    expired = await _put(one, _make_entry("3", "3", expires_at=datetime.now(UTC) - timedelta(minutes=1)))
    found = await other.get(expired.key)
    _require(found in (None, expired), "get of a key whose entry has expired must return that entry or None")
    newer = await _put(other, _make_entry("3", "4"))
    _require(await one.get(newer.key) == newer, f"{_REPLACED}, also an expired one")


async def _check_touch_and_remove(one: Store, other: Store) -> None:
    entry = await _put(one, _make_entry("4"))
    used = attrs.evolve(entry, used_at=datetime.now(UTC) + timedelta(minutes=1))
    await other.touch(used)
    _require(await one.get(entry.key) == used, "touch must update used_at of the stored entry")
    newer = await _put(one, _make_entry("4", "2"))
    await other.touch(used)
    _require(await one.get(entry.key) == newer, "touch must change nothing if the key has another entry")
    _require(not await other.remove(entry), "remove must return False if the key has another entry")
    _require(await one.get(newer.key) == newer, "remove must not remove another entry of the key")
    _require(await other.remove(newer), "remove of the stored entry must return True")
    _require(await one.get(newer.key) is None, "remove must remove the entry")
    _require(not await one.remove(newer), "remove of an entry that was removed must return False")
    await one.touch(newer)
    _require(await one.get(newer.key) is None, "touch must not store an entry that was removed")


async def _check_find(one: Store, other: Store) -> None:
    find = getattr(other, "find", None)
    if find is None:  # which is allowed
        return
    entry = await _put(one, _make_entry("5", "50"))
    _require(await find("50") == entry, "find must return the stored entry with this id")
    newer = await _put(one, _make_entry("5", "51"))
    _require(await find("50") is None, "find must not return an entry that was replaced")
    await one.remove(newer)
    _require(await find("51") is None, "find must not return an entry that was removed")


async def _check_messages(one: Store, other: Store) -> None:
    if not (isinstance(one, MessageStore) and isinstance(other, MessageStore)):  # which is allowed
        return
    _require(await one.get_message("wamid.1") is None, "get_message of a message that is not stored must return None")
    entry = _make_entry("5", "52", filename="a name.txt")
    await one.put_message("wamid.1", entry)
    await one.put_message("wamid.2", _make_entry("5", "53"))
    for store in (one, other):
        found = await store.get_message("wamid.1")
        complete = found is not None and found == entry and found.filename == entry.filename
        _require(
            complete, "get_message must return all fields of the message's entry, also if it is not stored any more"
        )


async def _check_claims(one: Store, other: Store) -> None:
    entry = _make_entry("6")
    first = await _claim(one, entry.key)
    for store in (one, other):
        _require(await store.claim(entry.key, _LONG_CLAIM) is None, "claim must return None while another claim holds")
    _require(await other.claim(_make_entry("66").key, _LONG_CLAIM) is not None, "claims of other keys must not matter")
    await one.release(entry.key, first)
    _require(not await one.renew(entry.key, first, _LONG_CLAIM), "renew of a released claim must return False")
    second = await _claim(other, entry.key)
    _require(second > first, _RISING)
    await one.release(entry.key, first)
    _require(not await one.renew(entry.key, first, _LONG_CLAIM), _RENEW_LOST)
    _require(await one.claim(entry.key, _LONG_CLAIM) is None, _RELEASE_LOST)
    _require(await other.put(entry, second), _PUT)
    _require(not await one.renew(entry.key, second, _LONG_CLAIM), "put must end its claim: renew must return False")
    _require(await _claim(one, entry.key) > second, _RISING)


async def _check_concurrent_claims(one: Store, other: Store) -> None:
    key, last = _make_entry("7").key, 0
    for _ in range(3):
        await one.claim(key, _SHORT_CLAIM)
        await asyncio.sleep(_SHORT_CLAIM * 2)  # until it has run out
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(store.claim(key, _LONG_CLAIM)) for store in (one, other) * (_CLAIM_COUNT // 2)]
        claims = [claim for task in tasks if (claim := task.result()) is not None]
        _require(claims != [], _RUNS_OUT)
        _require(len(claims) == 1, f"one of {_CLAIM_COUNT} concurrent claims must succeed, not {len(claims)}")
        _require(claims[0] > last, _RISING)
        last = claims[0]
        await other.release(key, last)


async def _check_late_put(one: Store, other: Store) -> None:
    for number, successor in (("8", "2"), ("88", None)):  # the later claim ends with an entry, or without one
        late, entry = _make_entry(number), _make_entry(number, successor or "")
        lost = await _claim(one, late.key, _SHORT_CLAIM)
        claim = await _claim_when_run_out(other, late.key)
        _require(claim > lost, _RISING)
        _require(not await one.renew(late.key, lost, _LONG_CLAIM), _RENEW_LOST)
        _require(not await one.put(late, lost), "put must return False after a later claim of the key")
        _require(await one.get(late.key) is None, "put must store nothing after a later claim of the key")
        await one.release(late.key, lost)
        _require(await one.claim(late.key, _LONG_CLAIM) is None, _RELEASE_LOST)
        if successor:
            _require(await other.put(entry, claim), _PUT)
        else:
            await other.release(late.key, claim)
        ended = "put must return False after a later claim of the key, even if that one has ended"
        _require(not await one.put(late, lost), ended)
        _require(await one.get(late.key) == (entry if successor else None), ended)
    entry = _make_entry("9")  # whose claim runs out, without a later one
    claim = await _claim(one, entry.key, _SHORT_CLAIM)
    await asyncio.sleep(_SHORT_CLAIM * 2)
    promise = "put must store an entry whose claim has run out, if no later claim was made"
    _require(await one.put(entry, claim), promise)
    _require(await other.get(entry.key) == entry, promise)


async def _check_renew(one: Store, other: Store) -> None:
    key, seconds, began = _make_entry("10").key, _SHORT_CLAIM, time.monotonic()
    claim = await _claim(one, key, seconds)
    while not await one.renew(key, claim, _LONG_CLAIM):
        # On a busy machine it may have run out.
        _require(time.monotonic() - began >= seconds, "renew of a claim that has not run out must return True")
        await one.release(key, claim)
        seconds, began = seconds * 4, time.monotonic()
        claim = await _claim(one, key, seconds)
    await asyncio.sleep(seconds * 2)
    _require(await other.claim(key, _LONG_CLAIM) is None, "renew must extend the claim by its seconds from now")
    await one.renew(key, claim, _SHORT_CLAIM)
    await _claim_when_run_out(other, key)


async def _check_entries(one: Store, other: Store) -> None:
    wanted = {f"12{number:04}": _make_entry(f"12{number:04}") for number in range(_ENTRY_COUNT)}
    entries = list(wanted.values())
    for start in range(0, _ENTRY_COUNT, _CLAIM_COUNT):
        async with asyncio.TaskGroup() as group:
            for entry in entries[start : start + _CLAIM_COUNT]:
                group.create_task(_put(one, entry))
    for store in (one, other):
        found = [entry async for entry in store.entries() if entry.phone_number_id in wanted]
        complete = len(found) == _ENTRY_COUNT and {entry.phone_number_id: entry for entry in found} == wanted
        _require(complete, f"entries must yield each of {_ENTRY_COUNT} entries once")
    seen: set[str] = set()
    async for entry in one.entries():
        if len(seen) < _CLAIM_COUNT:
            _require(await other.remove(entry), "remove of a stored entry must return True, also during an iteration")
        seen.add(entry.key)
    complete = seen >= {entry.key for entry in entries}
    _require(complete, "entries must yield every entry, also if those it has yielded are removed meanwhile")
