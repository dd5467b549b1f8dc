"""Runs into buckets and out of them: lazily, with a journal, and over a store that goes away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore

from meta_media import MediaApi, ObjectDestination, Source
from meta_media.errors import StorageError
from tests.support.object_stores import keys, s3_store
from tests.support.servers import Server, page

pytest_plugins = ["tests.support.object_stores"]

PDF = b"%PDF-1.7\n%%EOF\n"
DATE = "Sun, 29 Nov 2026 13:00:00 GMT"


async def uploaded(media: MediaApi, count: int) -> list[str]:
    """Upload a few documents."""
    return [(await media.upload(PDF + b"%d" % number)).id for number in range(count)]


async def test_a_journal_knows_what_is_in_the_bucket(media: MediaApi, tmp_path: Path) -> None:
    """A run that is repeated downloads only what is no longer in the bucket, or has other bytes there."""
    ids, store, journal = await uploaded(media, 5), MemoryStore(), tmp_path / "journal"

    async def run() -> tuple[int, int]:
        report = await media.download_many(ids, ObjectDestination(store, "in"), journal=journal).report()
        return report.succeeded, report.skipped

    assert await run() == (5, 0)
    assert await run() == (0, 5)
    await store.delete_async(f"in/{ids[0]}.pdf")
    await store.put_async(f"in/{ids[1]}.pdf", b"other bytes")
    await store.put_async(f"in/{ids[2]}.pdf", PDF + b"3", attributes={"sha256": "0" * 64})
    assert await run() == (3, 2)
    names = {f"in/{media_id}.pdf" for media_id in ids} | {f"in/{media_id} (2).pdf" for media_id in ids[1:3]}
    assert set(keys(store)) == names, "no object was replaced"
    other = await media.download_many(ids, ObjectDestination(store, "other"), journal=journal).report()
    assert (other.succeeded, other.skipped) == (5, 0), "another folder is another place"


async def test_a_folder_of_the_disk_is_another_place(media: MediaApi, tmp_path: Path) -> None:
    """What a journal has of a folder says nothing of a bucket, and the other way round."""
    ids, journal = await uploaded(media, 1), tmp_path / "journal"
    for place in (tmp_path / "in", ObjectDestination(MemoryStore(), "in"), tmp_path / "in"):
        report = await media.download_many(ids, place, journal=journal).report()
    assert (report.succeeded, report.skipped) == (0, 1)


@pytest.mark.parametrize("status", [403, 404])
async def test_a_bucket_that_refuses_ends_the_run(media: MediaApi, server: Server, status: int) -> None:
    """The first refusal ends a run, so that nothing more is downloaded for nothing."""
    ids = await uploaded(media, 40)
    server.script = [page(status=status)]
    store = s3_store(server.base_url)
    report = await media.download_many(ids, ObjectDestination(store), concurrency=2).report()
    assert isinstance(report.ended_by, StorageError)
    assert (report.succeeded, len(server.requests) < 5) == (0, True)


async def test_a_store_that_goes_away_ends_the_run(media: MediaApi, server: Server) -> None:
    """Objects that cannot be read, one after the other, end a run; those before are uploaded."""
    server.script = [
        *[page(PDF, last_modified=DATE, etag='"1"', content_range="bytes 0-14/15", status=206)] * 5,
        page(status=500),
    ]
    store = s3_store(server.base_url, retry_config={"max_retries": 0})
    sources = (Source.object(store, f"{number}.pdf") for number in range(500))
    report = await media.upload_many(sources, concurrency=2).report()
    assert isinstance(report.ended_by, StorageError)
    assert report.succeeded == 5
    assert report.failed < 100


async def test_a_listing_is_read_on_demand(media: MediaApi) -> None:
    """A run reads no more of a listing than it works on."""
    store, advanced = MemoryStore(), 0
    for number in range(300):
        await store.put_async(f"{number}.pdf", PDF + b"%d" % number)

    def listed() -> Iterator[Source]:
        nonlocal advanced
        for batch in store.list():
            for entry in batch:
                advanced += 1
                yield Source.object(store, entry["path"])

    async with media.upload_many(listed(), concurrency=4) as run:
        async for outcome in run:
            assert outcome.error is None
            if outcome.index > 20:
                break
    assert advanced < 100


async def test_an_exact_key_is_a_folder_for_many(media: MediaApi) -> None:
    """A key without a slash is a folder of that name, as a path is."""
    ids: list[Any] = await uploaded(media, 2)
    store = MemoryStore()
    async with media.download_many(ids, ObjectDestination(store, "a.pdf")) as run:
        saved = [outcome.result() async for outcome in run]
    assert {each.key for each in saved} == set(keys(store)) == {f"a.pdf/{media_id}.pdf" for media_id in ids}
