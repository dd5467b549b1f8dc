"""Objects of a store as sources: read by ranges, of one version, as often as needed."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from obstore.store import HTTPStore, LocalStore, MemoryStore

from meta_media import MediaApi, MediaLibrary, Source
from meta_media import MemoryStore as LibraryStore
from meta_media.emulator import Emulator, Fault
from meta_media.errors import CorruptedMediaError, StorageError, UnsupportedMediaTypeError
from meta_media.transfer.objects import store_location
from tests.support.object_stores import s3_store
from tests.support.servers import Server, page

pytest_plugins = ["tests.support.object_stores"]

PDF = b"%PDF-1.7\n" + b"a page\n" * 500_000 + b"%%EOF\n"
SMALL = b"%PDF-1.7\n%%EOF\n"
DATE = "Sun, 29 Nov 2026 13:00:00 GMT"


@pytest.mark.parametrize("data", [SMALL, PDF], ids=["small", "large"])
async def test_an_object_is_uploaded(media: MediaApi, store: Any, data: bytes) -> None:
    """All bytes of an object reach Meta, under the name of the key, and of the type that they have."""
    await store.put_async("out/report", data)
    uploaded = await media.upload(Source.object(store, "out/report"), verify=True)
    assert (uploaded.filename, uploaded.mime_type) == ("report.pdf", "application/pdf")
    assert await media.read(uploaded) == data


async def test_the_type_of_the_store_is_a_hint(media: MediaApi) -> None:
    """Content-Type decides where the bytes do not, unless another type is given."""
    store = MemoryStore()
    await store.put_async("a", b"a,b\n1,2\n" * 10, attributes={"Content-Type": "text/csv"})
    with pytest.raises(UnsupportedMediaTypeError, match="text/csv"):
        await media.upload(Source.object(store, "a"))
    given = Source.object(store, "a", name="b.txt", mime_type="text/plain")
    assert ((await media.upload(given)).filename, given.name) == ("b.txt", "b.txt")


async def test_an_empty_object_is_no_media(media: MediaApi, store: Any) -> None:
    """An object without bytes, of which no range can be asked, is refused like an empty file."""
    await store.put_async("empty", b"")
    with pytest.raises(CorruptedMediaError, match="empty"):
        await media.upload(Source.object(store, "empty"))


async def test_a_failed_upload_reads_the_ranges_again(emulator: Emulator) -> None:
    """Another attempt sends the object from its start."""
    store = MemoryStore()
    await store.put_async("a.pdf", PDF)
    emulator.fail("upload", Fault(status=503, reads=2_000_000))
    async with emulator.api() as media:
        uploaded = await media.upload(Source.object(store, "a.pdf"), verify=True)
    assert uploaded.attempts > 2


async def test_an_object_that_changes_is_an_error(media: MediaApi, store: Any) -> None:
    """The bytes of two versions are never mixed."""
    await store.put_async("a.pdf", PDF)
    changed = False

    async def change(_: object) -> None:
        nonlocal changed
        if not changed:
            changed = True
            await store.put_async("a.pdf", PDF[:-1] + b"!")

    with pytest.raises(CorruptedMediaError, match=r"^could not read 'a.pdf': the object has changed meanwhile"):
        await media.upload(Source.object(store, "a.pdf"), progress=change)


async def test_a_version_without_an_etag_is_known_by_its_time(media: MediaApi, server: Server) -> None:
    """Where a store gives no ETag, a range is asked for on the condition that nothing was written since."""
    head = page(PDF[: 2**20], status=206, content_range=f"bytes 0-{2**20 - 1}/{len(PDF)}", last_modified=DATE)
    server.script = [head, page(status=412)]
    with pytest.raises(CorruptedMediaError, match="has changed meanwhile"):
        await media.upload(Source.object(s3_store(server.base_url), "a.pdf"))
    assert server.requests[1].header("if-unmodified-since") == DATE


async def test_an_object_that_is_not_there(media: MediaApi, store: Any) -> None:
    """A missing object is an error of its own, and nothing is sent."""
    with pytest.raises(
        StorageError, match=r"^could not read 'missing.pdf': there is no such object or bucket"
    ) as caught:
        await media.upload(Source.object(store, "missing.pdf"))
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    with pytest.raises(StorageError, match="the store cannot have such a key"):
        await media.upload(Source.object(store, "a/../b"))


async def test_a_store_that_goes_away_in_the_middle(media: MediaApi, server: Server) -> None:
    """A range that cannot be read ends the upload, with an error that names the object."""
    head = page(
        PDF[: 2**20], status=206, content_range=f"bytes 0-{2**20 - 1}/{len(PDF)}", etag='"1"', last_modified=DATE
    )
    server.script = [head, page(status=500)]
    store = s3_store(server.base_url, retry_config={"max_retries": 0})
    with pytest.raises(StorageError, match=r"^could not read 'a.pdf': the store failed") as caught:
        await media.upload(Source.object(store, "a.pdf"))
    assert caught.value.retryable


async def test_a_first_range_that_fails(media: MediaApi, server: Server) -> None:
    """An object whose range is refused although it has bytes is an error."""
    server.script = [page(status=416), page(b"12345", etag='"1"', last_modified=DATE).replace(b"12345", b"")]
    with pytest.raises(StorageError, match="the store failed"):
        await media.upload(Source.object(s3_store(server.base_url), "a.pdf"))


async def test_signed_urls_are_not_shown(media: MediaApi, server: Server) -> None:
    """What has a password or a query in its text is not kept as the cause."""
    server.script = [page(status=400)]
    url = f"{server.base_url.replace('://', '://user:CANARY@')}/x"
    with pytest.raises(StorageError) as caught:
        await media.upload(Source.object(HTTPStore(url, client_options={"allow_http": True}), "a.pdf"))
    assert caught.value.__cause__ is None
    assert "CANARY" not in str(caught.value)


# Many objects


def listed(store: Any, prefix: str) -> Iterator[Source]:
    """Yield the objects of a listing as sources."""
    return (Source.object(store, entry["path"]) for batch in store.list(prefix) for entry in batch)


async def test_a_listing_is_uploaded(emulator: Emulator, media: MediaApi, store: Any, tmp_path: Path) -> None:
    """`upload_many` takes a listing. With a journal, what was uploaded is not uploaded again."""
    for number in range(5):
        await store.put_async(f"list/{number}.pdf", SMALL + b"%d" % number)
    report = await media.upload_many(listed(store, "list"), journal=tmp_path / "journal").report()
    assert (report.succeeded, report.skipped) == (5, 0)
    again = await media.upload_many(listed(store, "list"), journal=tmp_path / "journal").report()
    assert (again.succeeded, again.skipped) == (0, 5)


class Counting:
    """A store that counts the bytes of ranges that are asked for."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.asked = 0

    def __repr__(self) -> str:
        return "Counting()"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def get_async(self, path: str, *, options: Any = None) -> Any:
        """Count, and pass on."""
        start, stop = options["range"]
        self.asked += stop - start
        return await self._store.get_async(path, options=options)


async def test_a_hash_is_known_by_the_etag(media: MediaApi) -> None:
    """An object whose ETag was hashed before is not read to be hashed; one that was written just now is."""
    store = Counting(MemoryStore())
    await store.put_async("a.pdf", PDF)
    library = MediaLibrary(media, LibraryStore())
    source = Source.object(store, "a.pdf")
    entry = await library.ensure(source)
    once = store.asked
    assert (await library.ensure(source)).id == entry.id
    assert store.asked - once == len(PDF), "it was written just now"
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=1), tick=True):
        await library.ensure(source)
        before = store.asked
        assert (await library.ensure(source)).id == entry.id
    assert store.asked - before == 2**20, "the first range alone"


def test_where_a_store_is(tmp_path: Path) -> None:
    """The text that names a bucket is the same in every process, and has no secret. A store in memory has none."""
    stores = [s3_store("http://127.0.0.1:1"), s3_store("http://127.0.0.1:2"), s3_store("http://127.0.0.1:1", "other")]
    assert len({store_location(store) for store in (*stores, LocalStore(tmp_path), LocalStore("/"))}) == 5
    assert store_location(stores[0]) == hashlib.sha256(b'S3Store(bucket="media") http://127.0.0.1:1').hexdigest()
    assert store_location(MemoryStore()) is None


async def test_a_cancelled_upload_leaves_nothing(emulator: Emulator, store: Any) -> None:
    """A cancellation while a range is read ends at once, and the client works on."""
    await store.put_async("a.pdf", PDF)
    async with emulator.api() as media:
        for moment in range(8):
            task = asyncio.ensure_future(media.upload(Source.object(store, "a.pdf")))
            await asyncio.sleep(0.003 * moment)  # anywhere in it
            task.cancel()
            await asyncio.wait((task,))
        assert hashlib.sha256(await media.read(await media.upload(Source.object(store, "a.pdf")))).digest() == (
            hashlib.sha256(PDF).digest()
        )
