"""Journals that are used again: how long an id is returned, and which deletes they know."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
import time_machine

from meta_media import MediaApi
from meta_media.emulator import Emulator
from meta_media.errors import PermissionDeniedError
from tests.bulk.helpers import outcomes, refusal
from tests.bulk.journal_helpers import numbered, serving
from tests.support.servers import json_response, silence, wait_until

DELETED = json_response({"success": True})


def later(**time: float) -> time_machine.travel:
    """Move the clock forward."""
    return time_machine.travel(datetime.now(UTC) + timedelta(**time), tick=True)


@pytest.mark.parametrize(
    ("time", "ttl", "skipped"),
    [
        ({"days": 28}, None, True),
        ({"days": 30}, None, False),
        ({"days": 40}, None, False),
        ({"hours": 8}, timedelta(hours=10), True),
        ({"hours": 9, "minutes": 1}, timedelta(hours=10), False),
        ({"days": 28}, timedelta(days=30), True),
        ({"days": 29, "minutes": 1}, timedelta(days=30), False),
    ],
)
async def test_an_upload_expires(
    media: MediaApi, tmp_path: Path, time: dict[str, float], ttl: timedelta | None, skipped: bool
) -> None:
    """A recorded id is returned for 29 days, or nine tenths of a short `ttl`. Then the file is uploaded again, and recorded anew."""
    journal = tmp_path / "run.sqlite"
    (first,) = await outcomes(media.upload_many([b"text"], journal=journal, ttl=ttl))
    with later(**time):
        again, twin = await outcomes(media.upload_many([b"text"] * 2, journal=journal, ttl=ttl, concurrency=1))
    assert (again.skipped, twin.skipped) == (skipped, True)
    assert (again.value.id == first.value.id) is skipped
    assert (twin.value.id, again.value.maybe_duplicate) == (again.value.id, False)


async def test_a_download_and_a_delete_do_not_expire(media: MediaApi, tmp_path: Path) -> None:
    """A file that was downloaded stays, and what was deleted stays deleted."""
    journal, uploaded = tmp_path / "run.sqlite", await media.upload(b"text")
    for wait in ({}, {"days": 40}):
        with later(**wait):
            reports = [
                await media.download_many([uploaded.id], tmp_path, journal=journal).report(),
                await media.delete_many([uploaded.id], journal=journal).report(),
            ]
    assert [(report.skipped, report.succeeded) for report in reports] == [(1, 0), (1, 0)]


async def test_a_crash_while_it_is_uploaded_again(tmp_path: Path) -> None:
    """An expired upload is not a duplicate. If the run is killed while it is repeated, the next one is flagged."""
    journal = tmp_path / "run.sqlite"
    async with serving(numbered()) as (server, api):
        await api.upload_many([b"text"], journal=journal).report()
        with later(days=30):
            server.script = [silence]
            async with api.upload_many([b"text"], journal=journal):
                await wait_until(lambda: len(server.requests) == 2)
            server.script = [numbered()]
            (again,) = await outcomes(api.upload_many([b"text"], journal=journal))
    assert (again.skipped, again.value.maybe_duplicate) == (False, True)


Delete = Callable[[MediaApi, str, Path], Awaitable[object]]
DELETES: dict[str, Delete] = {
    "delete": lambda media, media_id, _: media.delete(media_id),
    "a copy's delete": lambda media, media_id, _: media.with_options(read_timeout=5).delete(media_id),
    "delete_many": lambda media, media_id, _: media.delete_many([media_id]).report(),
    "delete_many with the journal": lambda media, media_id, journal: media.delete_many(
        [media_id], journal=journal
    ).report(),
}


@pytest.mark.parametrize("how", DELETES)
async def test_deleted_by_the_same_client(media: MediaApi, tmp_path: Path, how: str) -> None:
    """An id that this client has deleted is not returned, whether or not the delete knew the journal."""
    journal = tmp_path / "run.sqlite"
    kept, first = await outcomes(media.upload_many([b"kept", b"text"], journal=journal))
    await DELETES[how](media, first.value.id, journal)
    same, again = await outcomes(media.upload_many([b"kept", b"text"], journal=journal))
    assert (same.skipped, same.value) == (True, kept.value)
    assert (again.skipped, again.value.maybe_duplicate) == (False, False)
    assert (await media.get_info(again.value.id)).id != first.value.id


async def test_deleted_during_the_run(media: MediaApi, emulator: Emulator, tmp_path: Path) -> None:
    """What is deleted while a run uploads is struck out of its journal, for other processes too; also by `uploaded`."""
    journal = tmp_path / "run.sqlite"
    async with media.upload_many([b"text", b"kept"], journal=journal) as run, media.uploaded(b"other"):
        async for outcome in run:
            if outcome.source == b"text":
                await media.delete(outcome.result().id)
    async with emulator.api() as other:
        report = await other.upload_many([b"text", b"kept"], journal=journal).report()
    assert (report.succeeded, report.skipped) == (1, 1)


DELETE = """
import asyncio, sys
from meta_media import MediaApi

async def main():
    async with MediaApi() as media:
        return await media.delete_many([sys.argv[1]], journal=sys.argv[2]).report()

assert asyncio.run(main()).succeeded == 1
"""


@pytest.mark.slow
async def test_deleted_by_another_process(media: MediaApi, emulator: Emulator, tmp_path: Path) -> None:
    """A delete by another process with the same journal strikes the id out."""
    journal = tmp_path / "run.sqlite"
    (first,) = await outcomes(media.upload_many([b"text"], journal=journal))
    environment = os.environ | {"WA_BASE_URL": emulator.base_url, "CLOUD_API_ACCESS_TOKEN": emulator.access_token}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    await anyio.run_process([sys.executable, "-c", DELETE, first.value.id, str(journal)], env=environment)
    (again,) = await outcomes(media.upload_many([b"text"], journal=journal))
    assert not again.skipped
    assert (await media.get_info(again.value.id)).id != first.value.id


async def test_deleted_where_the_journal_is_not_known(media: MediaApi, emulator: Emulator, tmp_path: Path) -> None:
    """A journal does not know the deletes of other clients without it. With `verify`, Meta is asked about each recorded id."""
    journal = tmp_path / "run.sqlite"
    kept, first = await outcomes(media.upload_many([b"kept", b"text"], journal=journal))
    async with emulator.api() as other:
        await other.delete(first.value.id)
    (unknown,) = await outcomes(media.upload_many([b"text"], journal=journal))
    same, again = await outcomes(media.upload_many([b"kept", b"text"], journal=journal, verify=True))
    assert (unknown.skipped, unknown.value.id) == (True, first.value.id)
    assert (same.skipped, same.value, same.attempts) == (True, kept.value, 1)
    assert (again.skipped, again.value.maybe_duplicate) == (False, False)
    assert (await media.get_info(again.value.id)).id != first.value.id


@pytest.mark.parametrize(("reply", "skipped"), [(refusal(10, 403), True), (DELETED, False)])
async def test_a_delete_that_failed(tmp_path: Path, reply: bytes, skipped: bool) -> None:
    """A delete that Meta refused leaves the upload in the journal; the next process returns its id."""
    journal = tmp_path / "run.sqlite"
    async with serving(numbered()) as (server, api):
        (first,) = await outcomes(api.upload_many([b"text"], journal=journal))
        server.script = [reply]
        (deleted,) = await outcomes(api.delete_many([first.value.id], journal=journal))
    assert isinstance(deleted.error, PermissionDeniedError) is skipped
    async with serving(numbered()) as (server, other):
        (again,) = await outcomes(other.upload_many([b"text"], journal=journal))
    assert again.skipped is skipped


async def test_only_the_last_deletes_are_known(media: MediaApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client remembers a limited number of its deletes."""
    monkeypatch.setattr("meta_media.http.client._DELETED_COUNT", 2)
    for media_id in ("1", "2", "3"):
        await media.delete(media_id, missing_ok=True)
    assert [media_id in media.shared.deleted for media_id in ("1", "2", "3")] == [False, True, True]


async def test_cancelled_before_it_was_sent(tmp_path: Path) -> None:
    """An item that is cancelled while it waits for a connection was not sent, and is not flagged by the next run."""
    journal = tmp_path / "run.sqlite"
    async with serving(silence) as (server, api):
        blockers = [asyncio.ensure_future(api.upload(b"other")) for _ in range(4)]
        await wait_until(lambda: len(server.requests) == 4)
        async with api.upload_many([b"text"], journal=journal) as run:
            await wait_until(lambda: any(item.call for item in run._in_progress))
        for blocker in blockers:
            blocker.cancel()
        await asyncio.wait(blockers)
        server.script = [numbered()]
        (done,) = await outcomes(api.upload_many([b"text"], journal=journal))
    assert (done.skipped, done.value.maybe_duplicate) == (False, False)
