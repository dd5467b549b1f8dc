"""`MediaLibrary`: the same bytes have one id, which is stored, verified, forgotten and purged."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from meta_media import MediaApi, MediaLibrary, Progress, Source
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
from tests.library.helpers import (
    CONTENT,
    SMALL,
    HookedStore,
    client_of,
    fail,
    key_of,
    list_entries,
    replace_entry,
    upload_count,
)
from tests.support.servers import Server, json_response, page

CSV = "application/vnd.ms-excel"  # the one other type that Meta takes text for


# The same bytes


async def test_once(emulator: Emulator, media: MediaApi, library: MediaLibrary) -> None:
    """The same bytes are uploaded once. A later call gets the same entry, with `reused` set."""
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
    assert upload_count(emulator) == 1
    assert await list_entries(library) == [first]


async def test_other_bytes_type_number(emulator: Emulator, library: MediaLibrary) -> None:
    """Other bytes, another type and another phone number each have an id of their own, which is found again."""
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
    assert len({entry.id for entry in first}) == len({entry.key for entry in first}) == upload_count(emulator) == 4
    assert [entry.phone_number_id for entry in first] == [emulator.phone_number_id] * 3 + ["200"]
    assert [entry.mime_type for entry in first] == ["text/plain", "text/plain", CSV, "text/plain"]


async def test_name_does_not_matter(emulator: Emulator, library: MediaLibrary, tmp_path: Path) -> None:
    """The file name only matters for the upload: the same bytes under another name have the same id."""
    entries = [await library.ensure(CONTENT, filename=name) for name in ("a.txt", "b.txt")]
    (tmp_path / "c.txt").write_bytes(CONTENT)
    entries.append(await library.ensure(tmp_path / "c.txt"))
    assert len({entry.id for entry in entries}) == upload_count(emulator) == 1


async def test_keywords_reach_the_upload(store: HookedStore) -> None:
    """Name, type, ttl and progress reach the upload; the size is checked; with `verify` Meta is asked."""
    steps: list[Progress] = []
    sha256 = hashlib.sha256(SMALL).hexdigest()
    known = {"messaging_product": "whatsapp", "id": "7", "url": "https://lookaside.fbsbx.com/", "mime_type": "text/csv"}
    async with (
        Server(json_response({"id": "7"}), json_response(known | {"sha256": sha256})) as server,
        client_of(server) as api,
    ):
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
    """A type that WhatsApp does not accept is refused, unless `validate=False`."""
    with pytest.raises(UnsupportedMediaTypeError):
        await library.ensure(b"GIF89a" + bytes(50))
    assert emulator.requests == []
    with pytest.raises(ApiError):
        await library.ensure(b"GIF89a" + bytes(50), validate=False)
    assert upload_count(emulator) == 1
    assert await list_entries(library) == []


async def pieces() -> AsyncIterator[bytes]:
    """Yield the content, once."""
    for start in range(0, len(CONTENT), 100_000):
        yield CONTENT[start : start + 100_000]


async def test_sources(emulator: Emulator, media: MediaApi, library: MediaLibrary, tmp_path: Path) -> None:
    """Every kind of source is read once, sent unchanged, and recognized as the same bytes."""
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
    assert upload_count(emulator) == 7


async def test_stream_that_lies(emulator: Emulator, library: MediaLibrary) -> None:
    """A stream whose size differs from the declared one is refused before anything is sent."""
    for size in (len(CONTENT) - 1, len(CONTENT) + 1):
        with pytest.raises(CorruptedMediaError):
            await library.ensure(pieces(), size=size)
    assert emulator.requests == []


@pytest.mark.parametrize("size", [100_000, len(CONTENT)])
async def test_file_that_changes(
    emulator: Emulator, library: MediaLibrary, store: HookedStore, tmp_path: Path, size: int
) -> None:
    """A file that changes after it was hashed is not sent to the end, and no entry is stored. Then it can be ensured."""
    path, content = tmp_path / "a.txt", CONTENT[:size]
    path.write_bytes(content)

    async def change() -> None:
        await anyio.Path(path).write_bytes(content.swapcase())

    store.before["claim"] = change
    with pytest.raises(CorruptedMediaError, match="no longer has the SHA-256") as caught:
        await library.ensure(path)
    assert not caught.value.maybe_applied
    assert await list_entries(library) == []
    store.before.clear()
    assert await store.claim(key_of(content, emulator), 1) is not None
    assert not (await library.ensure(content.swapcase())).reused
    assert (await library.ensure(path)).reused


async def test_small_file_that_changes(
    media: MediaApi, library: MediaLibrary, store: HookedStore, tmp_path: Path
) -> None:
    """A file that is small enough to be read at once is sent as it was hashed, even if it changes meanwhile."""
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


async def test_file_is_not_hashed_twice(library: MediaLibrary, tmp_path: Path) -> None:
    """A file that was hashed before and has not changed is not read again."""
    path = tmp_path / "a.txt"
    path.write_bytes(CONTENT)
    os.utime(path, (1, 1))
    entry = await library.ensure(path)
    assert list(library._digests._known.values()) == [entry.sha256]
    known = next(iter(library._digests._known))
    library._digests._known[known] = "0" * 64
    with pytest.raises(CorruptedMediaError, match="no longer has the SHA-256"):
        await library.ensure(path)


# Stored entries


async def test_get(emulator: Emulator, library: MediaLibrary, store: HookedStore) -> None:
    """`get` returns the valid entry and uploads nothing."""
    assert await library.get(CONTENT) is None
    entry = await library.ensure(CONTENT)
    found = await library.get(CONTENT)
    assert found == entry
    assert found is not None
    assert found.reused
    assert await library.get(CONTENT, mime_type="text/csv", validate=False) is None
    assert await library.get(CONTENT, phone_number_id="200") is None
    await replace_entry(store, entry, expires_at=datetime.now(UTC))
    assert await library.get(CONTENT) is None
    assert upload_count(emulator) == len(emulator.requests) == 1


async def test_expired(emulator: Emulator, library: MediaLibrary, store: HookedStore) -> None:
    """An expired entry is uploaded again, and the new entry replaces it."""
    entry = await library.ensure(CONTENT)
    await replace_entry(store, entry, expires_at=datetime.now(UTC) + timedelta(minutes=1))
    assert (await library.ensure(CONTENT)).id == entry.id
    await replace_entry(store, entry, expires_at=datetime.now(UTC))
    newer = await library.ensure(CONTENT)
    assert newer.id != entry.id
    assert not newer.reused
    assert await list_entries(library) == [newer]
    assert upload_count(emulator) == 2


async def test_use_is_noted(library: MediaLibrary, store: HookedStore) -> None:
    """The use of an entry is stored, but at most once an hour."""
    entry = await library.ensure(CONTENT)
    await library.ensure(CONTENT)
    await replace_entry(store, entry, used_at=datetime.now(UTC) - timedelta(minutes=50))
    await library.ensure(CONTENT)
    assert "touch" not in store.calls
    await replace_entry(store, entry, used_at=datetime.now(UTC) - timedelta(hours=2))
    used = await library.ensure(CONTENT)
    await library.ensure(CONTENT)
    assert store.calls.count("touch") == 1
    assert datetime.now(UTC) - used.used_at < timedelta(minutes=50)
    assert await list_entries(library) == [used]


async def test_verify(emulator: Emulator, media: MediaApi, library: MediaLibrary) -> None:
    """With `verify`, Meta is asked about a stored id. An id that Meta does not know is removed, and uploaded again."""
    entry = await library.ensure(CONTENT)
    assert (await library.ensure(CONTENT, verify=True)).id == entry.id
    assert [request.method for request in emulator.requests] == ["POST", "GET"]
    async with emulator.api() as other:
        await other.delete(entry.id)
    assert (await library.ensure(CONTENT)).id == entry.id, "without verify, Meta is not asked"
    newer = await library.ensure(CONTENT, verify=True)
    assert newer.id != entry.id
    assert not newer.reused
    assert await media.read(newer.id) == CONTENT
    assert await list_entries(library) == [newer]


async def test_verify_fails(emulator: Emulator, library: MediaLibrary) -> None:
    """An answer that says nothing about the id is raised, and the entry stays."""
    entry = await library.ensure(CONTENT)
    emulator.fail("get_info", Fault.error(190, 401))
    with pytest.raises(AuthenticationError) as caught:
        await library.ensure(CONTENT, verify=True)
    assert caught.value.media_id == entry.id
    assert await library.ensure(CONTENT, verify=True) == entry
    assert upload_count(emulator) == 1


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
    assert await list_entries(library) == []
    emulator.clear_faults()
    assert not (await library.ensure(SMALL)).reused


async def test_forget(emulator: Emulator, media: MediaApi, library: MediaLibrary) -> None:
    """An entry is forgotten by itself or by its id, and its media stays at Meta. The result is whether it existed."""
    first, second = await library.ensure(CONTENT), await library.ensure(SMALL)
    assert [await library.forget(second.id), await library.forget(second.id)] == [True, False]
    assert [await library.forget(first), await library.forget(first)] == [True, False]
    assert not await library.forget("12345")
    assert await list_entries(library) == []
    assert await media.read(first.id) == CONTENT
    newer = await library.ensure(CONTENT)
    assert newer.id != first.id
    assert not await library.forget(first), "another one has its place"
    assert await library.get(CONTENT) == newer
    assert upload_count(emulator) == 3


async def test_purge(emulator: Emulator, media: MediaApi, library: MediaLibrary, store: HookedStore) -> None:
    """Unused media is deleted here and at Meta, an expired entry is removed without a request, and the rest stays."""
    ages = {b"unused": 50, b"used": 10, b"expired": 0}
    entries = {}
    for content, hours in ages.items():
        entry = await library.ensure(content)
        expires_at = datetime.now(UTC) if content == b"expired" else entry.expires_at
        used_at = datetime.now(UTC) - timedelta(hours=hours)
        entries[content] = await replace_entry(store, entry, used_at=used_at, expires_at=expires_at)
    report = await library.purge(unused_for=timedelta(hours=24))
    assert (report.ok, report.succeeded) == (True, 1)
    deletes = [request.path.rpartition("/")[2] for request in emulator.requests if request.method == "DELETE"]
    assert deletes == [entries[b"unused"].id]
    assert await list_entries(library) == [entries[b"used"]]
    with pytest.raises(MediaNotFoundError):
        await media.get_info(entries[b"unused"].id)
    assert (await library.purge()).succeeded == 1
    assert await list_entries(library) == []
    assert (await library.purge()).succeeded == 0


@pytest.mark.parametrize("unused_for", [5, None, "7 days"])
async def test_purge_of_no_time(library: MediaLibrary, unused_for: Any) -> None:
    """A number is no time: it could be days or seconds. One sentence says what is one, and nothing is deleted."""
    entry = await library.ensure(SMALL)
    with pytest.raises(ConfigurationError, match=r"^unused_for must be a timedelta such as timedelta\(days=7\), not "):
        await library.purge(unused_for=unused_for)
    assert await list_entries(library) == [entry]
    assert (await library.purge(unused_for=timedelta.max)).succeeded == 0, "for longer than time can be counted back"


@pytest.mark.parametrize("seconds", [0, -1, "30", None, float("nan"), float("inf"), timedelta(seconds=30)])
async def test_claims_of_no_length(media: MediaApi, store: HookedStore, seconds: Any) -> None:
    """A claim has a length in seconds."""
    with pytest.raises(
        ConfigurationError, match=r"^claim_seconds must be a number of seconds from 0\.01 to 86400, not "
    ):
        MediaLibrary(media, store, claim_seconds=seconds)


async def test_forget_what_has_an_id(media: MediaApi, library: MediaLibrary) -> None:
    """Whatever has a media id can be given to `forget`. What has none is a ConfigurationError, and not "unknown"."""
    entry = await library.ensure(SMALL)
    assert await library.forget(await media.get_info(entry.id))
    with pytest.raises(ConfigurationError, match="the media id must be"):
        await library.forget(None)  # type: ignore[arg-type]  # which is no id


async def test_purge_that_fails(emulator: Emulator, media: MediaApi, library: MediaLibrary) -> None:
    """A failed delete is reported with its id, and its entry is gone. Media that Meta no longer has is no failure."""
    entry = await library.ensure(CONTENT)
    emulator.fail("delete", Fault.error(10, 403))
    report = await library.purge()
    assert (report.ok, report.failed) == (False, 1)
    assert report.failures[0].source == entry.id
    assert isinstance(report.failures[0].error, MediaError)
    assert await list_entries(library) == []
    gone = await library.ensure(CONTENT)
    await media.delete(gone.id)
    assert (await library.purge()).ok


async def test_stores_are_closed_by_whom_they_are_opened(
    media: MediaApi, store: HookedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library closes its default store, in the user's cache folder, and no other. Closing twice is allowed."""
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
    """A run has an outcome with its attempts for each source. Pairs have their own keywords. Bytes are counted."""
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
    assert len({first.id, small.id, other.id}) == upload_count(emulator) == 3
    assert sorted(outcome.attempts for outcome in (outcomes[0], outcomes[2])) == [0, 1]
    assert (outcomes[1].attempts, outcomes[3].attempts) == (1, 1)
    assert (report.succeeded, report.failed) == (4, 1)
    assert report.bytes == len(CONTENT) + 2 * len(SMALL)
    assert steps[-1].transferred == len(SMALL)


async def test_ensure_many_ends_at_once(emulator: Emulator, library: MediaLibrary) -> None:
    """An error that every item would meet ends the run, and so does any error with `stop_on_error`."""
    emulator.fail("upload", Fault.error(190, 401), times=50)
    report = await library.ensure_many([f"{number}".encode() for number in range(50)], concurrency=1).report()
    assert (report.failed, report.not_tried) == (1, 49)
    assert isinstance(report.ended_by, AuthenticationError)
    emulator.clear_faults()
    report = await library.ensure_many([b"GIF89a" + bytes(50), SMALL], concurrency=1, stop_on_error=True).report()
    assert (report.failed, report.not_tried) == (1, 1)
    with pytest.raises(ConfigurationError, match="concurrency 99"):
        library.ensure_many([SMALL], concurrency=99)


# Stores that fail


@pytest.mark.parametrize("method", ["get", "claim"])
async def test_store_fails_before(emulator: Emulator, library: MediaLibrary, store: HookedStore, method: str) -> None:
    """A store that fails before the upload is a StorageError, and nothing is sent."""
    store.before[method] = fail
    with pytest.raises(StorageError, match="the store is away") as caught:
        await library.ensure(CONTENT)
    assert (caught.value.media_id, caught.value.maybe_applied) == (None, False)
    assert emulator.requests == []
    store.before.clear()
    assert not (await library.ensure(CONTENT)).reused


async def test_store_fails_after(
    emulator: Emulator, media: MediaApi, library: MediaLibrary, store: HookedStore
) -> None:
    """A store that fails after the upload is a StorageError with the media id, and the claim is released."""
    store.before["put"] = fail
    with pytest.raises(StorageError, match="the store is away") as caught:
        await library.ensure(CONTENT)
    assert caught.value.maybe_applied
    assert caught.value.media_id is not None
    assert await media.read(caught.value.media_id) == CONTENT
    store.before.clear()
    assert not (await library.ensure(CONTENT)).reused
    assert upload_count(emulator) == 2


async def test_store_fails_to_take_a_claim_back(emulator: Emulator, library: MediaLibrary, store: HookedStore) -> None:
    """If the claim cannot be released either, the first error is raised. The claim runs out."""
    store.before["release"] = fail
    emulator.fail("upload", Fault.error(190, 401))
    with pytest.raises(AuthenticationError):
        await library.ensure(CONTENT)
    assert "release" in store.calls


async def test_store_fails_between(emulator: Emulator, library: MediaLibrary, store: HookedStore) -> None:
    """If the store fails just after the claim, its error is raised and the claim is released."""

    async def fail_from_now_on() -> None:
        store.before["get"] = fail

    store.before["claim"] = fail_from_now_on
    with pytest.raises(StorageError, match="the store is away"):
        await library.ensure(CONTENT)
    assert emulator.requests == []
    store.before.clear()
    assert await store.claim(key_of(CONTENT, emulator), 1) is not None
