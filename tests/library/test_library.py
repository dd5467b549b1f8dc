"""The library: the same bytes have one id, whoever asks, however often, and whatever goes wrong meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import httpx
import pytest

from meta_media import (
    LibraryEntry,
    MediaApi,
    MediaLibrary,
    MemoryStore,
    Progress,
    Settings,
    Source,
    SQLiteStore,
)
from meta_media.emulator import Emulator, Fault
from meta_media.errors import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    CorruptedMediaError,
    IntegrityError,
    MediaError,
    MediaNotFoundError,
    ServerError,
    StorageError,
    UnsupportedMediaTypeError,
)
from meta_media.library.entry import entry_key
from tests.support.servers import Server, page, stalled, told, until
from tests.support.stepping import LeanServer, Stepper, settled_at

CONTENT = b"To be uploaded once, and sent to whom you like.\n" * 10_000
SMALL = b"some text"
CSV = "application/vnd.ms-excel"  # the one other type that Meta takes text for
Hook = Callable[..., Awaitable[object]]


class Hooked(MemoryStore):
    """
    A store to which something happens, as it may to any.

    Attributes:
        before: What to do before a method, by its name.
        calls: The methods that were called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[str, Hook] = {}
        self.calls: list[str] = []

    async def _happen(self, name: str) -> None:
        self.calls.append(name)
        if name in self.before:
            await self.before[name]()

    async def get(self, key: str) -> LibraryEntry | None:
        """See `Store`."""
        await self._happen("get")
        return await super().get(key)

    async def claim(self, key: str, seconds: float) -> int | None:
        """See `Store`."""
        await self._happen("claim")
        return await super().claim(key, seconds)

    async def renew(self, key: str, claim: int, seconds: float) -> bool:
        """See `Store`."""
        await self._happen("renew")
        return await super().renew(key, claim, seconds)

    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        """See `Store`."""
        await self._happen("put")
        return await super().put(entry, claim)

    async def release(self, key: str, claim: int) -> None:
        """See `Store`."""
        await self._happen("release")
        await super().release(key, claim)

    async def touch(self, entry: LibraryEntry) -> None:
        """See `Store`."""
        await self._happen("touch")
        await super().touch(entry)

    async def aclose(self) -> None:
        """See `Store`."""
        await self._happen("aclose")


async def broken() -> None:
    """Fail, as a store does."""
    raise StorageError("the store is away")


@pytest.fixture
def store() -> Hooked:
    """An empty store."""
    return Hooked()


@pytest.fixture
def library(media: MediaApi, store: Hooked) -> MediaLibrary:
    """A library for the emulator."""
    return MediaLibrary(media, store)


def client_of(server: Server | LeanServer) -> MediaApi:
    """Make a client that takes a server for the Graph API."""
    return MediaApi("token", "1", settings=Settings(base_url=server.base_url))


def key_of(content: bytes, emulator: Emulator, mime_type: str = "text/plain") -> str:
    """Name a content as the library does."""
    return entry_key(emulator.phone_number_id, hashlib.sha256(content).hexdigest(), mime_type)


def posts(emulator: Emulator) -> int:
    """Count the uploads that were asked for."""
    return sum(request.method == "POST" for request in emulator.requests)


async def entries_of(library: MediaLibrary) -> list[LibraryEntry]:
    """List a library."""
    return [entry async for entry in library]


async def aged(store: MemoryStore, entry: LibraryEntry, **changes: Any) -> LibraryEntry:
    """Put an entry in the place of another one, as if that had been kept long ago."""
    older = attrs.evolve(entry, **changes)
    claim = await store.claim(entry.key, 60)
    assert claim is not None
    assert await store.put(older, claim)
    return older


# The same, and not the same


async def test_once(emulator: Emulator, media: MediaApi, library: MediaLibrary) -> None:
    """The same bytes are uploaded once; who comes later gets the same entry, and is told so."""
    before = datetime.now(UTC)
    first = await library.ensure(CONTENT)
    second = await library.ensure(bytearray(CONTENT))
    assert first == second
    assert (first.reused, second.reused) == (False, True)
    assert first.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert (first.mime_type, first.phone_number_id) == ("text/plain", emulator.phone_number_id)
    assert before <= first.uploaded_at <= datetime.now(UTC)
    assert first.expires_at - first.uploaded_at == timedelta(days=29)
    assert await media.read(first.id) == CONTENT
    assert posts(emulator) == 1
    assert await entries_of(library) == [first]


async def test_other_bytes_type_number(emulator: Emulator, library: MediaLibrary) -> None:
    """Other bytes, another type and another number have ids of their own, and each is found again."""
    emulator.add_account("200", emulator.access_token)
    ways: list[tuple[bytes, dict[str, Any]]] = [
        (CONTENT, {}),
        (CONTENT + b"!", {}),
        (CONTENT, {"mime_type": CSV, "validate": False}),
        (CONTENT, {"phone_number_id": "200"}),
    ]
    first = [await library.ensure(content, **keywords) for content, keywords in ways]
    again = [await library.ensure(content, **keywords) for content, keywords in ways]
    assert first == again
    assert len({entry.id for entry in first}) == len({entry.key for entry in first}) == posts(emulator) == 4
    assert [entry.phone_number_id for entry in first] == [emulator.phone_number_id] * 3 + ["200"]
    assert [entry.mime_type for entry in first] == ["text/plain", "text/plain", CSV, "text/plain"]


async def test_name_does_not_matter(emulator: Emulator, library: MediaLibrary, tmp_path: Path) -> None:
    """What a file is called is of its first upload only."""
    entries = [await library.ensure(CONTENT, filename=name) for name in ("a.txt", "b.txt")]
    (tmp_path / "c.txt").write_bytes(CONTENT)
    entries.append(await library.ensure(tmp_path / "c.txt"))
    assert len({entry.id for entry in entries}) == posts(emulator) == 1


async def test_keywords_reach_the_upload(store: Hooked) -> None:
    """Name, type, ttl and progress are those of the upload; a size is checked, and with `verify` Meta is asked."""
    steps: list[Progress] = []
    sha256 = hashlib.sha256(SMALL).hexdigest()
    known = {"messaging_product": "whatsapp", "id": "7", "url": "https://lookaside.fbsbx.com/", "mime_type": "text/csv"}
    async with Server(told({"id": "7"}), told(known | {"sha256": sha256})) as server, client_of(server) as api:
        entry = await MediaLibrary(api, store).ensure(
            SMALL,
            filename="note.csv",
            mime_type="text/csv",
            size=len(SMALL),
            validate=False,
            verify=True,
            ttl=timedelta(hours=10),
            phone_number_id="2",
            progress=steps.append,
        )
        sent, asked = server.requests
    assert sent.target == "/v25.0/2/media"
    assert b'filename="note.csv"\r\nContent-Type: text/csv\r\n\r\n' + SMALL in sent.body
    assert b'name="ttl_minutes"\r\n\r\n600\r\n' in sent.body
    assert (asked.method, asked.target) == ("GET", "/v25.0/7")
    assert entry.expires_at - entry.uploaded_at == timedelta(hours=9)
    assert steps[-1] == Progress(transferred=len(SMALL), total=len(SMALL))


@pytest.mark.parametrize(
    ("keywords", "named"),
    [
        ({"use_case": "call_voicemail_announcement"}, "use_case"),
        ({"ttl": timedelta(minutes=5)}, "ttl"),
        ({"colour": "red"}, "colour"),
        ({"phone_number_id": "../me"}, "phone_number_id"),
    ],
)
async def test_keywords_that_cannot_work(
    emulator: Emulator, library: MediaLibrary, keywords: dict[str, Any], named: str
) -> None:
    """A keyword that cannot work is a ConfigurationError that names it, before anything is hashed or sent."""
    for call in (library.ensure, library.get):
        with pytest.raises(ConfigurationError, match=named):
            await call(Path("/nowhere"), **keywords)
    with pytest.raises(ConfigurationError, match=named):
        await library.ensure_many([CONTENT], **keywords).report()
    assert emulator.requests == []


async def test_validation(emulator: Emulator, library: MediaLibrary) -> None:
    """What WhatsApp does not take is refused, unless that is not wanted."""
    with pytest.raises(UnsupportedMediaTypeError):
        await library.ensure(b"GIF89a" + bytes(50))
    assert emulator.requests == []
    with pytest.raises(ApiError):
        await library.ensure(b"GIF89a" + bytes(50), validate=False)
    assert posts(emulator) == 1
    assert await entries_of(library) == []


async def pieces() -> AsyncIterator[bytes]:
    """Yield the content, once."""
    for start in range(0, len(CONTENT), 100_000):
        yield CONTENT[start : start + 100_000]


async def test_sources(emulator: Emulator, media: MediaApi, library: MediaLibrary, tmp_path: Path) -> None:
    """Any kind of source is read once, sent as it is, and known again as any other kind."""
    path = tmp_path / "a.txt"
    path.write_bytes(CONTENT)

    async def given(source: Any, **keywords: Any) -> None:
        entry = await library.ensure(source, mime_type="text/plain", **keywords)
        assert not entry.reused
        assert await media.read(entry.id) == CONTENT
        assert (await library.ensure(CONTENT)).id == entry.id
        assert (await library.get(path)) == entry
        assert await library.forget(entry)

    await given(pieces())
    await given(pieces(), size=len(CONTENT))
    await given([CONTENT[:5], CONTENT[5:]])
    await given(Source.stream(pieces(), name="b.txt", size=len(CONTENT)))
    with path.open("rb") as handle:
        await given(handle)
        assert handle.tell() == 0
    async with Server(page(CONTENT, content_type="text/plain")) as server, httpx.AsyncClient(trust_env=False) as http:
        for length in (-1, None):
            server.script = [page(CONTENT, content_type="text/plain", length=length)]
            async with http.stream("GET", f"{server.base_url}/c.txt") as response:
                await given(response)
        assert len(server.requests) == 2
    assert posts(emulator) == 7


async def test_stream_that_lies(emulator: Emulator, library: MediaLibrary) -> None:
    """A stream of another size than was declared is refused before anything is sent."""
    for size in (len(CONTENT) - 1, len(CONTENT) + 1):
        with pytest.raises(CorruptedMediaError):
            await library.ensure(pieces(), size=size)
    assert emulator.requests == []


@pytest.mark.parametrize("size", [100_000, len(CONTENT)])
async def test_file_that_changes(
    emulator: Emulator, library: MediaLibrary, store: Hooked, tmp_path: Path, size: int
) -> None:
    """A file that changes after it was hashed is not sent to the end, and nothing is kept; then it is as any other."""
    path, content = tmp_path / "a.txt", CONTENT[:size]
    path.write_bytes(content)

    async def change() -> None:
        await anyio.Path(path).write_bytes(content.swapcase())

    store.before["claim"] = change
    with pytest.raises(CorruptedMediaError, match="no longer has the SHA-256") as caught:
        await library.ensure(path)
    assert not caught.value.maybe_applied
    assert await entries_of(library) == []
    store.before.clear()
    assert await store.claim(key_of(content, emulator), 1) is not None
    assert not (await library.ensure(content.swapcase())).reused
    assert (await library.ensure(path)).reused


async def test_small_file_that_changes(media: MediaApi, library: MediaLibrary, store: Hooked, tmp_path: Path) -> None:
    """Of a file so small that it is read in one go, what was hashed is sent, whatever becomes of the file meanwhile."""
    path = tmp_path / "a.txt"
    path.write_bytes(SMALL)

    async def change() -> None:
        await anyio.Path(path).write_bytes(SMALL.swapcase())

    store.before["claim"] = change
    entry = await library.ensure(path)
    assert entry.sha256 == hashlib.sha256(SMALL).hexdigest()
    assert await media.read(entry.id) == SMALL
    store.before.clear()
    assert not (await library.ensure(path)).reused


# What is kept, and for how long


async def test_get(emulator: Emulator, library: MediaLibrary, store: Hooked) -> None:
    """`get` gives what is there and uploads nothing."""
    assert await library.get(CONTENT) is None
    entry = await library.ensure(CONTENT)
    found = await library.get(CONTENT)
    assert found == entry
    assert found is not None
    assert found.reused
    assert await library.get(CONTENT, mime_type="text/csv", validate=False) is None
    assert await library.get(CONTENT, phone_number_id="200") is None
    await aged(store, entry, expires_at=datetime.now(UTC))
    assert await library.get(CONTENT) is None
    assert posts(emulator) == len(emulator.requests) == 1


async def test_expired(emulator: Emulator, library: MediaLibrary, store: Hooked) -> None:
    """What has expired is uploaded again, and the new entry takes its place."""
    entry = await library.ensure(CONTENT)
    await aged(store, entry, expires_at=datetime.now(UTC) + timedelta(minutes=1))
    assert (await library.ensure(CONTENT)).id == entry.id
    await aged(store, entry, expires_at=datetime.now(UTC))
    newer = await library.ensure(CONTENT)
    assert newer.id != entry.id
    assert not newer.reused
    assert await entries_of(library) == [newer]
    assert posts(emulator) == 2


async def test_use_is_noted(library: MediaLibrary, store: Hooked) -> None:
    """That an entry is used is noted, but not more than once an hour."""
    entry = await library.ensure(CONTENT)
    await library.ensure(CONTENT)
    await aged(store, entry, used_at=datetime.now(UTC) - timedelta(minutes=50))
    await library.ensure(CONTENT)
    assert "touch" not in store.calls
    await aged(store, entry, used_at=datetime.now(UTC) - timedelta(hours=2))
    used = await library.ensure(CONTENT)
    await library.ensure(CONTENT)
    assert store.calls.count("touch") == 1
    assert datetime.now(UTC) - used.used_at < timedelta(minutes=50)
    assert await entries_of(library) == [used]


async def test_verify(emulator: Emulator, media: MediaApi, library: MediaLibrary) -> None:
    """With `verify`, Meta is asked about a kept id; one that she has forgotten is dropped, and uploaded again."""
    entry = await library.ensure(CONTENT)
    assert (await library.ensure(CONTENT, verify=True)).id == entry.id
    assert [request.method for request in emulator.requests] == ["POST", "GET"]
    await media.delete(entry.id)
    assert (await library.ensure(CONTENT)).id == entry.id, "without it, nobody is asked"
    newer = await library.ensure(CONTENT, verify=True)
    assert newer.id != entry.id
    assert not newer.reused
    assert await media.read(newer.id) == CONTENT
    assert await entries_of(library) == [newer]


async def test_verify_fails(emulator: Emulator, library: MediaLibrary) -> None:
    """An answer that says nothing of the id is raised, and the entry stays."""
    entry = await library.ensure(CONTENT)
    emulator.fail("get_info", Fault.error(190, 401))
    with pytest.raises(AuthenticationError) as caught:
        await library.ensure(CONTENT, verify=True)
    assert caught.value.media_id == entry.id
    assert await library.ensure(CONTENT, verify=True) == entry
    assert posts(emulator) == 1


async def test_verify_finds_other_bytes(emulator: Emulator, library: MediaLibrary) -> None:
    """An upload of which Meta stored other bytes is not kept."""
    lie = b'{"messaging_product":"whatsapp","id":"%s","url":"https://lookaside.fbsbx.com/","mime_type":"text/plain"}'

    async def lied(progress: Progress) -> None:
        if progress.transferred == progress.total:
            emulator.fail("get_info", Fault(body=lie.replace(b"%s", b"1")), times=9)

    with pytest.raises((IntegrityError, ServerError)) as caught:
        await library.ensure(SMALL, verify=True, progress=lied)
    assert caught.value.maybe_applied
    assert caught.value.media_id is not None
    assert await entries_of(library) == []
    emulator.clear_faults()
    assert not (await library.ensure(SMALL)).reused


async def test_forget(emulator: Emulator, media: MediaApi, library: MediaLibrary) -> None:
    """An entry is forgotten by itself or by its id, and stays at Meta; whether there was one is told."""
    first, second = await library.ensure(CONTENT), await library.ensure(SMALL)
    assert [await library.forget(first), await library.forget(first)] == [True, False]
    assert [await library.forget(second.id), await library.forget(second.id)] == [True, False]
    assert not await library.forget("12345")
    assert await entries_of(library) == []
    assert await media.read(first.id) == CONTENT
    newer = await library.ensure(CONTENT)
    assert newer.id != first.id
    assert not await library.forget(first), "another one has its place"
    assert await library.get(CONTENT) == newer
    assert posts(emulator) == 3


async def test_purge(emulator: Emulator, media: MediaApi, library: MediaLibrary, store: Hooked) -> None:
    """What was not used is deleted here and at Meta; what has expired is dropped without a request; the rest stays."""
    ages = {b"unused": 50, b"used": 10, b"expired": 0}
    entries = {}
    for content, hours in ages.items():
        entry = await library.ensure(content)
        expires_at = datetime.now(UTC) if content == b"expired" else entry.expires_at
        used_at = datetime.now(UTC) - timedelta(hours=hours)
        entries[content] = await aged(store, entry, used_at=used_at, expires_at=expires_at)
    report = await library.purge(unused_for=timedelta(hours=24))
    assert (report.ok, report.succeeded) == (True, 1)
    deletes = [request.path.rpartition("/")[2] for request in emulator.requests if request.method == "DELETE"]
    assert deletes == [entries[b"unused"].id]
    assert await entries_of(library) == [entries[b"used"]]
    with pytest.raises(MediaNotFoundError):
        await media.get_info(entries[b"unused"].id)
    assert (await library.purge()).succeeded == 1
    assert await entries_of(library) == []
    assert (await library.purge()).succeeded == 0


async def test_purge_that_fails(emulator: Emulator, media: MediaApi, library: MediaLibrary) -> None:
    """A delete that fails is reported, with the id; the entry is gone all the same. One that Meta has forgotten is fine."""
    entry = await library.ensure(CONTENT)
    emulator.fail("delete", Fault.error(10, 403))
    report = await library.purge()
    assert (report.ok, report.failed) == (False, 1)
    assert report.failures[0].source == entry.id
    assert isinstance(report.failures[0].error, MediaError)
    assert await entries_of(library) == []
    gone = await library.ensure(CONTENT)
    await media.delete(gone.id)
    assert (await library.purge()).ok


async def test_iteration_over_many(media: MediaApi, tmp_path: Path) -> None:
    """A library is iterated over to its end, however many entries there are."""
    now = datetime.now(UTC)
    async with MediaLibrary(media, SQLiteStore(tmp_path / "library.sqlite")) as library:
        store = library._store

        async def keep(number: int) -> None:
            entry = LibraryEntry(
                id=str(number),
                sha256=f"{number:064}",
                mime_type="text/plain",
                phone_number_id="1",
                uploaded_at=now,
                expires_at=now + timedelta(days=1),
                used_at=now,
            )
            assert await store.put(entry, await store.claim(entry.key, 60) or 0)

        async with anyio.create_task_group() as group:
            for number in range(1234):
                group.start_soon(keep, number)
        assert sorted(int(entry.id) for entry in await entries_of(library)) == list(range(1234))
        assert await library.forget("1000")
        await store.aclose()


async def test_stores_are_closed_by_whom_they_are_opened(
    media: MediaApi, store: Hooked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library closes its own store, in the user's cache folder, and no other; twice does no harm."""
    async with MediaLibrary(media, store):
        pass
    assert "aclose" not in store.calls
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    async with MediaLibrary(media) as library:
        entry = await library.ensure(CONTENT)
    await library.aclose()
    with pytest.raises(ConfigurationError, match="is closed"):
        await library.ensure(CONTENT)
    async with MediaLibrary(media) as another:
        assert (await another.ensure(CONTENT)).id == entry.id
    assert (tmp_path / "meta_media" / "library.sqlite").is_file()


# Many


async def test_ensure_many(emulator: Emulator, library: MediaLibrary) -> None:
    """Many sources make a run: an outcome for each, with what it took; pairs have keywords of their own; bytes are counted."""
    steps: list[Progress] = []
    items: list[Any] = [
        CONTENT,
        SMALL,
        CONTENT,
        (SMALL, {"mime_type": CSV, "validate": False, "progress": steps.append}),
        b"",
    ]
    async with library.ensure_many(items, in_order=True, mime_type="text/plain") as run:
        outcomes = [outcome async for outcome in run]
        report = await run.report()
    assert [type(outcome.error) for outcome in outcomes] == [type(None)] * 4 + [CorruptedMediaError]
    first, small, again, other = (outcome.value for outcome in outcomes[:4])
    assert first is not None
    assert small is not None
    assert other is not None
    assert (first, first.mime_type, other.mime_type) == (again, "text/plain", CSV)
    assert len({first.id, small.id, other.id}) == posts(emulator) == 3
    assert sorted(outcome.attempts for outcome in (outcomes[0], outcomes[2])) == [0, 1]
    assert (outcomes[1].attempts, outcomes[3].attempts) == (1, 1)
    assert (report.succeeded, report.failed) == (4, 1)
    assert report.bytes == len(CONTENT) + 2 * len(SMALL)
    assert steps[-1].transferred == len(SMALL)


async def test_ensure_many_ends_at_once(emulator: Emulator, library: MediaLibrary) -> None:
    """What all items would meet ends the run, and so does the first error if that is wanted; concurrency has its limit."""
    emulator.fail("upload", Fault.error(190, 401), times=50)
    report = await library.ensure_many([f"{number}".encode() for number in range(50)], concurrency=1).report()
    assert (report.failed, report.not_tried) == (1, 49)
    assert isinstance(report.ended_by, AuthenticationError)
    emulator.clear_faults()
    report = await library.ensure_many([b"GIF89a" + bytes(50), SMALL], concurrency=1, stop_on_error=True).report()
    assert (report.failed, report.not_tried) == (1, 1)
    with pytest.raises(ConfigurationError, match="concurrency 99"):
        library.ensure_many([SMALL], concurrency=99)


# At the same time


async def test_one_upload_for_all(emulator: Emulator, library: MediaLibrary, store: Hooked) -> None:
    """Callers of the same content at the same time make one upload and one claim, and nothing is left of their waiting."""
    entries = await asyncio.gather(*(library.ensure(CONTENT) for _ in range(50)))
    assert len({entry.id for entry in entries}) == posts(emulator) == 1
    assert sum(not entry.reused for entry in entries) == 1
    assert store.calls.count("claim") == 1
    assert library._locks == {}


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_libraries_wait_for_each_other(emulator: Emulator, media: MediaApi, tmp_path: Path, kind: str) -> None:
    """Libraries over the same data wait for each other, as processes do; other contents wait for nobody."""
    shared = Hooked()

    def made() -> MediaLibrary:
        return MediaLibrary(media, shared if kind == "memory" else SQLiteStore(tmp_path / "library.sqlite"))

    libraries = [made() for _ in range(3)]
    contents = [CONTENT, SMALL, CONTENT]
    entries = await asyncio.gather(*(library.ensure(content) for library in libraries * 5 for content in contents))
    assert len({entry.id for entry in entries}) == posts(emulator) == 2
    for library in libraries:
        await library._store.aclose()


async def test_entry_that_comes_late(emulator: Emulator, library: MediaLibrary, store: Hooked) -> None:
    """An entry that somebody else made between looking and claiming is used, and the claim is given back."""
    entry = await library.ensure(CONTENT)
    await library.forget(entry)

    async def made_by_another() -> None:
        del store.before["claim"]
        await aged(store, entry)

    store.before["claim"] = made_by_another
    assert (await library.ensure(CONTENT)).id == entry.id
    assert await store.claim(entry.key, 1) is not None
    assert posts(emulator) == 1


async def test_failed_upload_is_tried_by_the_next(emulator: Emulator, library: MediaLibrary) -> None:
    """When an upload fails, its caller is told, the claim is given back, and the next one tries."""
    emulator.fail("upload", Fault.error(131053))
    results = await asyncio.gather(*(library.ensure(CONTENT) for _ in range(10)), return_exceptions=True)
    failed = [result for result in results if isinstance(result, BaseException)]
    entries = {result.id for result in results if isinstance(result, LibraryEntry)}
    assert [type(error).__base__ for error in failed] == [type(failed[0]).__base__]
    assert isinstance(failed[0], MediaError)
    assert len(entries) == 1
    assert posts(emulator) == 2
    assert library._locks == {}


async def test_failed_upload_frees_other_processes(
    emulator: Emulator, media: MediaApi, library: MediaLibrary, store: Hooked
) -> None:
    """When an upload fails, whoever waits in another process goes on at once."""
    emulator.fail("upload", Fault.error(131053))
    other = MediaLibrary(media, store)
    with pytest.raises(MediaError):
        await library.ensure(CONTENT)
    assert not (await other.ensure(CONTENT)).reused
    assert store.calls.count("claim") == 2, "nobody had to wait"


# Stores that fail


@pytest.mark.parametrize("method", ["get", "claim"])
async def test_store_fails_before(emulator: Emulator, library: MediaLibrary, store: Hooked, method: str) -> None:
    """A store that fails before the upload is a StorageError of which nothing has come."""
    store.before[method] = broken
    with pytest.raises(StorageError, match="the store is away") as caught:
        await library.ensure(CONTENT)
    assert (caught.value.media_id, caught.value.maybe_applied) == (None, False)
    assert emulator.requests == []
    store.before.clear()
    assert not (await library.ensure(CONTENT)).reused


async def test_store_fails_after(emulator: Emulator, media: MediaApi, library: MediaLibrary, store: Hooked) -> None:
    """A store that fails after the upload is a StorageError with the media id; the claim is given back."""
    store.before["put"] = broken
    with pytest.raises(StorageError, match="the store is away") as caught:
        await library.ensure(CONTENT)
    assert caught.value.maybe_applied
    assert caught.value.media_id is not None
    assert await media.read(caught.value.media_id) == CONTENT
    store.before.clear()
    assert not (await library.ensure(CONTENT)).reused
    assert posts(emulator) == 2


async def test_store_fails_to_take_a_claim_back(emulator: Emulator, library: MediaLibrary, store: Hooked) -> None:
    """If the claim cannot be given back either, what went wrong first is told; the claim runs out by itself."""
    store.before["release"] = broken
    emulator.fail("upload", Fault.error(190, 401))
    with pytest.raises(AuthenticationError):
        await library.ensure(CONTENT)
    assert "release" in store.calls


async def test_store_fails_between(emulator: Emulator, library: MediaLibrary, store: Hooked) -> None:
    """A store that fails just after the claim is told of, and the claim is given back."""

    async def fail_from_now_on() -> None:
        store.before["get"] = broken

    store.before["claim"] = fail_from_now_on
    with pytest.raises(StorageError, match="the store is away"):
        await library.ensure(CONTENT)
    assert emulator.requests == []
    store.before.clear()
    assert await store.claim(key_of(CONTENT, emulator), 1) is not None


async def test_file_is_not_hashed_twice(library: MediaLibrary, tmp_path: Path) -> None:
    """A file that the library knows, and that has not changed, is not read again."""
    path = tmp_path / "a.txt"
    path.write_bytes(CONTENT)
    os.utime(path, (1, 1))
    entry = await library.ensure(path)
    assert list(library._digests._known.values()) == [entry.sha256]
    known = next(iter(library._digests._known))
    library._digests._known[known] = "0" * 64
    with pytest.raises(CorruptedMediaError, match="no longer has the SHA-256"):
        await library.ensure(path)


# Claims


async def test_claim_is_renewed(emulator: Emulator, store: Hooked) -> None:
    """While an upload lasts, its claim is renewed, also when the store is away now and then."""
    finish, seconds, renewals = asyncio.Event(), 0.9, 0

    async def sometimes() -> None:
        nonlocal renewals
        renewals += 1
        if renewals == 2:
            raise StorageError("the store is away")

    store.before["renew"] = sometimes
    async with Server(stalled(b"", finish, told({"id": "7"}))) as server, client_of(server) as api:
        task = asyncio.create_task(MediaLibrary(api, store, claim_seconds=seconds).ensure(SMALL))
        async with asyncio.timeout(60):
            await until(lambda: renewals == 6)  # after twice the time for which it was claimed
        key = entry_key("1", hashlib.sha256(SMALL).hexdigest(), "text/plain")
        assert await store.claim(key, 1) is None
        finish.set()
        assert (await task).id == "7"
        await until(lambda: renewals >= 6)
        assert await store.claim(key, 1) is not None


@pytest.mark.parametrize("deleted", [True, False])
async def test_overtaken(store: Hooked, deleted: bool) -> None:
    """Who lost its claim gives way to whoever has taken over: its own media is deleted, if that can be."""
    finish = asyncio.Event()
    store.before["renew"] = broken  # as in a process that is asleep
    last = told({"success": True}) if deleted else told({"error": {"message": "no", "code": 10}}, 403)
    async with (
        Server(stalled(b"", finish, told({"id": "7"})), told({"id": "8"}), last) as server,
        client_of(server) as api,
    ):
        task = asyncio.create_task(MediaLibrary(api, store, claim_seconds=0.1).ensure(SMALL))
        await until(lambda: len(server.requests) == 1)
        theirs = await MediaLibrary(api, store).ensure(SMALL)
        finish.set()
        entry = await task
        assert (entry.id, entry.reused, theirs.id) == ("8", True, "8")
        assert [(request.method, request.target) for request in server.requests[2:]] == [("DELETE", "/v25.0/7")]
    assert [kept.id async for kept in store.entries()] == ["8"]


async def run_out(store: MemoryStore, key: str) -> int:
    """Claim a key when somebody else's claim has run out."""
    while (claim := await store.claim(key, 600)) is None:  # noqa: ASYNC110 - nobody tells of it
        await anyio.sleep(0.02)  # polling
    return claim


async def test_overtaken_by_somebody_who_failed(store: Hooked) -> None:
    """Who lost its claim to somebody who came to nothing keeps its media, though not in the store."""
    finish = asyncio.Event()
    store.before["renew"] = broken
    key = entry_key("1", hashlib.sha256(SMALL).hexdigest(), "text/plain")
    async with Server(stalled(b"", finish, told({"id": "7"}))) as server, client_of(server) as api:
        task = asyncio.create_task(MediaLibrary(api, store, claim_seconds=0.1).ensure(SMALL))
        await until(lambda: len(server.requests) == 1)
        claim = await run_out(store, key)
        finish.set()
        entry = await task
        assert (entry.id, entry.reused, len(server.requests)) == ("7", False, 1)
        store.before.clear()
        assert await store.renew(key, claim, 600), "the other's claim is left alone"
    assert [kept async for kept in store.entries()] == []


async def test_claim_of_the_dead(media: MediaApi, library: MediaLibrary, store: Hooked, emulator: Emulator) -> None:
    """A claim whose holder has died is waited for until it runs out, and then taken over."""
    key = key_of(CONTENT, emulator)
    assert await store.claim(key, 0.3) == 1
    entry = await library.ensure(CONTENT)
    assert not entry.reused
    assert store.calls.count("claim") > 2
    assert await media.read(entry.id) == CONTENT


# Cancelled


def graph(method: str, target: str) -> bytes:
    """Answer as Meta does."""
    return told({"id": "7", "success": True})


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_cancelled_at_every_await(tmp_path: Path, kind: str, late: bool) -> None:
    """Cancelled at any await, a call gives its claim back, leaves nothing behind, and whoever waits for it goes on."""
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


async def test_cancelled_by_a_scope(store: Hooked) -> None:
    """A call that is cancelled by a scope of anyio's, which goes on cancelling, still gives its claim back."""
    store.before["release"] = anyio.lowlevel.checkpoint  # where a scope that is cancelled cancels again
    async with (
        Server(stalled(b"", asyncio.Event())) as server,
        client_of(server) as api,
        asyncio.timeout(60),
        anyio.create_task_group() as group,
    ):
        group.start_soon(MediaLibrary(api, store).ensure, SMALL)
        await until(lambda: len(server.requests) == 1)
        group.cancel_scope.cancel()
    assert await store.claim(entry_key("1", hashlib.sha256(SMALL).hexdigest(), "text/plain"), 1) is not None


async def test_waiter_that_is_cancelled(store: Hooked) -> None:
    """A waiter that is cancelled changes nothing for those that come after it: they wait without asking the store."""
    finish = asyncio.Event()
    async with Server(stalled(b"", finish, told({"id": "7"}))) as server, client_of(server) as api:
        library = MediaLibrary(api, store)
        first = asyncio.create_task(library.ensure(SMALL))
        await until(lambda: len(server.requests) == 1)
        (lock,) = library._locks.values()
        second = asyncio.create_task(library.ensure(SMALL))
        await until(lambda: lock.statistics().tasks_waiting == 1)
        second.cancel()
        await asyncio.wait((second,))
        third = asyncio.create_task(library.ensure(SMALL))
        await until(lambda: lock.statistics().tasks_waiting == 1 or store.calls.count("claim") > 1)
        finish.set()
        assert [(await task).id for task in (first, third)] == ["7", "7"]
        assert store.calls.count("claim") == 1
        assert library._locks == {}


async def test_cancelled_while_others_wait(tmp_path: Path) -> None:
    """When the one that uploads is cancelled, another one of those that wait does it; cancelled waiters leave nothing."""
    finish, store = asyncio.Event(), SQLiteStore(tmp_path / "library.sqlite")
    async with Server(stalled(b"", finish, told({"id": "6"})), told({"id": "7"})) as server, client_of(server) as api:
        library, other = MediaLibrary(api, store), MediaLibrary(api, store)
        first = asyncio.create_task(library.ensure(SMALL))
        await until(lambda: len(server.requests) == 1)
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


async def test_cancelled_while_somebody_else_has_the_claim(
    emulator: Emulator, library: MediaLibrary, store: Hooked
) -> None:
    """A call that is cancelled while it asks for a claim that it does not get leaves the other's claim alone."""
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
