"""Claims: concurrent and cancelled calls, and processes that die, lead to one upload of each content."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from meta_media import LibraryEntry, MediaApi, MediaLibrary, MemoryStore, SQLiteStore
from meta_media.emulator import Emulator, Fault
from meta_media.errors import MediaError, StorageError
from meta_media.library.entry import entry_key
from tests.library.helpers import CONTENT, SMALL, HookedStore, client_of, fail, key_of, replace_entry, upload_count
from tests.support.servers import Server, json_response, stalled, wait_until
from tests.support.stepping import LeanServer, Stepper, settled_at

# At the same time


async def test_one_upload_for_all(emulator: Emulator, library: MediaLibrary, store: HookedStore) -> None:
    """Concurrent calls for one content make one upload and one claim, and leave no lock behind."""
    entries = await asyncio.gather(*(library.ensure(CONTENT) for _ in range(50)))
    assert len({entry.id for entry in entries}) == upload_count(emulator) == 1
    assert sum(not entry.reused for entry in entries) == 1
    assert store.calls.count("claim") == 1
    assert library._locks == {}


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_libraries_wait_for_each_other(emulator: Emulator, media: MediaApi, tmp_path: Path, kind: str) -> None:
    """Libraries over the same data wait for each other, as processes do. Other contents do not wait."""
    shared = HookedStore()

    def made() -> MediaLibrary:
        return MediaLibrary(media, shared if kind == "memory" else SQLiteStore(tmp_path / "library.sqlite"))

    libraries = [made() for _ in range(3)]
    contents = [CONTENT, SMALL, CONTENT]
    entries = await asyncio.gather(*(library.ensure(content) for library in libraries * 5 for content in contents))
    assert len({entry.id for entry in entries}) == upload_count(emulator) == 2
    for library in libraries:
        await library._store.aclose()


async def test_memory_needs_no_task(media: MediaApi) -> None:
    """An upload to a store in memory is one task from end to end: nothing of it waits but for the request."""
    library = MediaLibrary(media, MemoryStore())
    await library.ensure(CONTENT)  # which connects
    stepper = Stepper()
    task = await stepper.run(lambda: library.ensure(SMALL))
    assert (task.result().reused, stepper.tasks) == (False, [task])


async def test_entry_that_comes_late(emulator: Emulator, library: MediaLibrary, store: HookedStore) -> None:
    """An entry that another process stored just before the claim is returned, and the claim is released."""
    entry = await library.ensure(CONTENT)
    await library.forget(entry)

    async def made_by_another() -> None:
        del store.before["claim"]
        await replace_entry(store, entry)

    store.before["claim"] = made_by_another
    assert (await library.ensure(CONTENT)).id == entry.id
    assert await store.claim(entry.key, 1) is not None
    assert upload_count(emulator) == 1


async def test_failed_upload_is_tried_by_the_next(emulator: Emulator, library: MediaLibrary) -> None:
    """A failed upload is raised to its caller, and the next waiting call uploads."""
    emulator.fail("upload", Fault.error(131053))
    results = await asyncio.gather(*(library.ensure(CONTENT) for _ in range(10)), return_exceptions=True)
    failed = [result for result in results if isinstance(result, BaseException)]
    entries = {result.id for result in results if isinstance(result, LibraryEntry)}
    assert [type(error).__base__ for error in failed] == [type(failed[0]).__base__]
    assert isinstance(failed[0], MediaError)
    assert len(entries) == 1
    assert upload_count(emulator) == 2
    assert library._locks == {}


async def test_failed_upload_frees_other_processes(
    emulator: Emulator, media: MediaApi, library: MediaLibrary, store: HookedStore
) -> None:
    """After a failed upload, another process can claim the key at once."""
    emulator.fail("upload", Fault.error(131053))
    other = MediaLibrary(media, store)
    with pytest.raises(MediaError):
        await library.ensure(CONTENT)
    assert not (await other.ensure(CONTENT)).reused
    assert store.calls.count("claim") == 2, "the claim was free at once"


# Lost and renewed claims


async def test_claim_is_renewed(emulator: Emulator, store: HookedStore) -> None:
    """A claim is renewed during the upload, even if the store fails now and then."""
    finish, seconds, renewals = asyncio.Event(), 0.9, 0

    async def sometimes() -> None:
        nonlocal renewals
        renewals += 1
        if renewals == 2:
            raise StorageError("the store is away")

    store.before["renew"] = sometimes
    async with Server(stalled(b"", finish, json_response({"id": "7"}))) as server, client_of(server) as api:
        task = asyncio.create_task(MediaLibrary(api, store, claim_seconds=seconds).ensure(SMALL))
        async with asyncio.timeout(60):
            await wait_until(lambda: renewals == 4)  # after more than the seconds of the claim
        key = entry_key("1", hashlib.sha256(SMALL).hexdigest(), "text/plain")
        assert await store.claim(key, 1) is None
        finish.set()
        assert (await task).id == "7"
        await wait_until(lambda: renewals >= 4)
        assert await store.claim(key, 1) is not None


@pytest.mark.parametrize("deleted", [True, False])
async def test_overtaken(store: HookedStore, deleted: bool) -> None:
    """A library that lost its claim returns the entry of its successor, and tries to delete its own media."""
    finish = asyncio.Event()
    store.before["renew"] = fail  # as in a process that is asleep
    last = json_response({"success": True}) if deleted else json_response({"error": {"message": "no", "code": 10}}, 403)
    async with (
        Server(stalled(b"", finish, json_response({"id": "7"})), json_response({"id": "8"}), last) as server,
        client_of(server) as api,
    ):
        task = asyncio.create_task(MediaLibrary(api, store, claim_seconds=0.1).ensure(SMALL))
        await wait_until(lambda: len(server.requests) == 1)
        successor = await MediaLibrary(api, store).ensure(SMALL)
        finish.set()
        entry = await task
        assert (entry.id, entry.reused, successor.id) == ("8", True, "8")
        assert [(request.method, request.target) for request in server.requests[2:]] == [("DELETE", "/v25.0/7")]
    assert [kept.id async for kept in store.entries()] == ["8"]


async def run_out(store: MemoryStore, key: str) -> int:
    """Claim a key when another process's claim has run out."""
    while (claim := await store.claim(key, 600)) is None:  # noqa: ASYNC110 - a claim runs out without an event
        await anyio.sleep(0.02)  # polling
    return claim


async def test_overtaken_by_a_failed_successor(store: HookedStore) -> None:
    """A library that lost its claim returns its own media if the successor has stored none."""
    finish = asyncio.Event()
    store.before["renew"] = fail
    key = entry_key("1", hashlib.sha256(SMALL).hexdigest(), "text/plain")
    async with Server(stalled(b"", finish, json_response({"id": "7"}))) as server, client_of(server) as api:
        task = asyncio.create_task(MediaLibrary(api, store, claim_seconds=0.1).ensure(SMALL))
        await wait_until(lambda: len(server.requests) == 1)
        claim = await run_out(store, key)
        finish.set()
        entry = await task
        assert (entry.id, entry.reused, len(server.requests)) == ("7", False, 1)
        store.before.clear()
        assert await store.renew(key, claim, 600), "the claim of the successor stays"
    assert [kept async for kept in store.entries()] == []


async def test_claim_of_the_dead(
    media: MediaApi, library: MediaLibrary, store: HookedStore, emulator: Emulator
) -> None:
    """The claim of a dead process is waited for until it runs out, and is then taken over."""
    key = key_of(CONTENT, emulator)
    assert await store.claim(key, 0.3) == 1
    entry = await library.ensure(CONTENT)
    assert not entry.reused
    assert store.calls.count("claim") > 2
    assert await media.read(entry.id) == CONTENT


# Cancelled


def graph(method: str, target: str) -> bytes:
    """Respond as Meta does."""
    return json_response({"id": "7", "success": True})


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", ["memory", pytest.param("sqlite", marks=pytest.mark.slow)])
async def test_cancelled_at_every_await(tmp_path: Path, kind: str, late: bool) -> None:
    """A call that is cancelled at any await releases its claim and leaves nothing behind. Waiting calls go on."""
    async with LeanServer(graph) as server:
        at, going = 0, True
        while going:
            at += 1
            store = MemoryStore() if kind == "memory" else SQLiteStore(tmp_path / f"{at}.sqlite")
            async with client_of(server) as api:
                library = MediaLibrary(api, store)
                stepper = Stepper(at, late=late)
                task = await stepper.run(lambda library=library: library.ensure(SMALL))  # type: ignore[misc]
                going = stepper.reached
                assert task.cancelled() or not going or task.result().id == "7"
                await settled_at([], lambda stepper=stepper: stepper.alive)  # type: ignore[misc]
                assert library._locks == {}
                if (await library.get(SMALL)) is None:
                    key = entry_key("1", hashlib.sha256(SMALL).hexdigest(), "text/plain")
                    claim = await store.claim(key, 600)
                    assert claim is not None, f"cancelled at await {at}, it kept its claim"
                    await store.release(key, claim)
                assert (await library.ensure(SMALL)).id == "7"
            await store.aclose()
    assert at > 6


async def test_cancelled_by_a_scope(store: HookedStore) -> None:
    """A call that is cancelled by a scope of anyio, which cancels every later await, releases its claim."""
    store.before["release"] = anyio.lowlevel.checkpoint  # where a scope that is cancelled cancels again
    async with (
        Server(stalled(b"", asyncio.Event())) as server,
        client_of(server) as api,
        asyncio.timeout(60),
        anyio.create_task_group() as group,
    ):
        group.start_soon(MediaLibrary(api, store).ensure, SMALL)
        await wait_until(lambda: len(server.requests) == 1)
        group.cancel_scope.cancel()
    assert await store.claim(entry_key("1", hashlib.sha256(SMALL).hexdigest(), "text/plain"), 1) is not None


async def test_waiter_that_is_cancelled(store: HookedStore) -> None:
    """A cancelled waiting call changes nothing for later calls: they wait without asking the store."""
    finish = asyncio.Event()
    async with Server(stalled(b"", finish, json_response({"id": "7"}))) as server, client_of(server) as api:
        library = MediaLibrary(api, store)
        first = asyncio.create_task(library.ensure(SMALL))
        await wait_until(lambda: len(server.requests) == 1)
        (lock,) = library._locks.values()
        second = asyncio.create_task(library.ensure(SMALL))
        await wait_until(lambda: lock.statistics().tasks_waiting == 1)
        second.cancel()
        await asyncio.wait((second,))
        third = asyncio.create_task(library.ensure(SMALL))
        await wait_until(lambda: lock.statistics().tasks_waiting == 1 or store.calls.count("claim") > 1)
        finish.set()
        assert [(await task).id for task in (first, third)] == ["7", "7"]
        assert store.calls.count("claim") == 1
        assert library._locks == {}


async def test_cancelled_while_others_wait(tmp_path: Path) -> None:
    """If the uploading call is cancelled, a waiting one uploads. Cancelled waiting calls leave nothing behind."""
    finish, store = asyncio.Event(), SQLiteStore(tmp_path / "library.sqlite")
    async with (
        Server(stalled(b"", finish, json_response({"id": "6"})), json_response({"id": "7"})) as server,
        client_of(server) as api,
    ):
        library, other = MediaLibrary(api, store), MediaLibrary(api, store)
        first = asyncio.create_task(library.ensure(SMALL))
        await wait_until(lambda: len(server.requests) == 1)
        waiting = [asyncio.create_task(library.ensure(SMALL)) for _ in range(5)]
        elsewhere = asyncio.create_task(other.ensure(SMALL))
        await asyncio.sleep(0.1)  # so that they wait; if they do not yet, they come to wait later
        waiting[0].cancel()
        first.cancel()
        waiting[1].cancel()
        await asyncio.wait((first, *waiting, elsewhere))
        assert [task.cancelled() for task in (first, *waiting)] == [True, True, True, False, False, False]
        assert {task.result().id for task in (*waiting[2:], elsewhere)} == {"7"}
        assert len(server.requests) == 2
        assert library._locks == other._locks == {}
    await store.aclose()


async def test_cancelled_while_another_claim_holds(
    emulator: Emulator, library: MediaLibrary, store: HookedStore
) -> None:
    """A call that is cancelled while it asks for a claim leaves another process's claim alone."""
    key, asked, answer = key_of(CONTENT, emulator), asyncio.Event(), asyncio.Event()
    claim = await store.claim(key, 600)
    assert claim is not None

    async def ask() -> None:
        asked.set()
        await answer.wait()

    store.before["claim"] = ask
    task = asyncio.create_task(library.ensure(CONTENT))
    await asked.wait()
    task.cancel()
    await asyncio.sleep(0)  # so that it hears of it
    answer.set()
    await asyncio.wait((task,))
    assert task.cancelled()
    assert await store.renew(key, claim, 600)
    assert "release" not in store.calls
