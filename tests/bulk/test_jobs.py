"""`upload_many`, `download_many` and `delete_many`, as their users call them, on real sockets."""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from meta_media import BulkReport, DeletedMedia, DownloadedMedia, MediaApi, Settings, Source, UploadedMedia
from meta_media.bulk.keywords import EnsureKeywords, SendKeywords, UploadKeywords
from meta_media.emulator import Emulator, Fault
from meta_media.errors import ConfigurationError, MediaError, MediaNotFoundError, ServerError, StorageError
from tests.bulk.helpers import client, listing, outcomes
from tests.support.servers import Received, Server, Step, json_response

# Keywords


def test_typed_keywords_are_complete() -> None:
    """The keywords that type checkers know for many items are those of the single verbs."""
    upload = inspect.signature(MediaApi.upload).parameters.keys() - {"self", "source", "progress"}
    assert upload == UploadKeywords.__annotations__.keys()
    assert upload - {"use_case"} == EnsureKeywords.__annotations__.keys()
    send = list(inspect.signature(MediaApi.send).parameters)[3:]  # without self, recipient and media
    assert set(send) == SendKeywords.__annotations__.keys()


# Uploads


async def test_uploads_of_every_kind(media: MediaApi, tmp_path: Path) -> None:
    """Whatever a single upload takes can be one of many, with or without keywords of its own."""
    path = tmp_path / "a.txt"
    path.write_text("a file")

    async def stream() -> AsyncIterator[bytes]:
        yield b"a stream"

    with path.open("rb") as handle:
        sources: list[Any] = [
            *(path, str(path), b"bytes", bytearray(b"bytearray"), memoryview(b"view"), handle, stream()),
            *([b"an ", b"iterable"], Source.bytes(b"a source", name="b.txt")),
            (b"<p>", {"filename": "c.txt", "mime_type": "text/plain"}),
            (path, {}),
        ]
        found = await outcomes(media.upload_many(sources))
    assert [outcome.error for outcome in found] == [None] * len(sources)
    assert [outcome.source for outcome in found] == sources
    assert all(isinstance(outcome.value, UploadedMedia) for outcome in found)
    assert {(outcome.attempts, outcome.value.attempts, outcome.skipped) for outcome in found} == {(1, 1, False)}
    stored = [await media.read(outcome.value.id) for outcome in found]
    assert stored[:3] == [b"a file", b"a file", b"bytes"]
    assert stored[6:] == [b"a stream", b"an iterable", b"a source", b"<p>", b"a file"]


async def test_keywords_for_all_and_for_one(server: Server, api: MediaApi) -> None:
    """Keywords of the run are every item's; an item's own win."""
    server.script = [json_response({"id": "7"})]
    sources = [b"one", (b"two", {"filename": "two.txt", "phone_number_id": "22"}), (b"three", {"mime_type": None})]
    run = api.upload_many(sources, concurrency=1, filename="all.txt", phone_number_id="11", mime_type="text/plain")
    report = await run.report()
    assert report.ok
    assert [request.target for request in server.requests] == [
        *("/v25.0/11/media", "/v25.0/22/media", "/v25.0/11/media")
    ]
    names = [re.findall(rb'filename="(.*?)"', request.body) for request in server.requests]
    assert names == [[b"all.txt"], [b"two.txt"], [b"all.txt"]]


async def test_numbers_of_their_own_will_do(server: Server) -> None:
    """A client without a number can upload many as it can upload one: if each item says for which number."""
    server.script = [json_response({"id": "7"})]
    async with MediaApi("a-token", settings=Settings(base_url=server.base_url)) as api:
        found = await outcomes(api.upload_many([(b"one", {"phone_number_id": "11"}), b"two"]))
        assert [type(outcome.error) for outcome in found] == [type(None), ConfigurationError]
        assert "WA_PHONE_NUMBER_ID" in str(found[1].error)
        assert (await api.upload_many([b"two"], phone_number_id="22").report()).ok


async def test_keywords_that_do_not_exist(server: Server, api: MediaApi) -> None:
    """A keyword that `upload` does not have is refused at once; an item's own fails that item, and no other."""
    wrong: dict[str, Any] = {"file_name": "a.txt", "caption": "hello"}
    with pytest.raises(ConfigurationError, match=r"^upload takes no keyword named caption, file_name$"):
        api.upload_many([b"one"], **wrong)
    wrong = {"ttl": 7}
    with pytest.raises(ConfigurationError, match=r"^ttl must be a timedelta"):
        api.upload_many([b"one"], **wrong)
    server.script = [json_response({"id": "7"})]
    found = await outcomes(
        api.upload_many([(b"one", {"file_name": "a.txt"}), (b"two", {"ttl": 7}), (b"three", {7: 7}), b"four"])
    )
    assert [str(outcome.error)[:40] for outcome in found] == [
        "upload takes no keyword named file_name",
        "ttl must be a timedelta from one hour to"[:40],
        "upload takes no keyword named 7",
        "None",
    ]
    assert len(server.requests) == 1


async def test_attempts_and_seconds(emulator: Emulator) -> None:
    """An outcome counts its requests, also those in vain, and the time of all of them."""
    async with emulator.api(backoff=0.02, max_retries=2) as api:
        emulator.fail("upload", Fault(status=503), times=2)
        (done,) = await outcomes(api.upload_many([b"text"]))
        emulator.fail("upload", Fault(status=503), times=3)
        (failed,) = await outcomes(api.upload_many([b"text"]))
    assert [(outcome.attempts, outcome.seconds > 0) for outcome in (done, failed)] == [(3, True)] * 2
    assert isinstance(failed.error, ServerError)


async def test_progress_of_the_run_and_of_an_item(emulator: Emulator, tmp_path: Path) -> None:
    """The run's callback sees all bytes of all items; an item's own sees its own; those of a failed item are taken back."""
    content = b"some text " * 30_000
    whole: list[int] = []
    own: list[int] = []

    async def of_one(progress: Any) -> None:
        await asyncio.sleep(0)  # a turn of the loop
        own.append(progress.transferred)

    def of_all(report: BulkReport) -> None:
        whole.append(report.bytes)

    async with emulator.api(chunk_size=65_536, max_retries=1, backoff=0.001) as api:
        emulator.fail("upload", Fault(status=503))
        run = api.upload_many([(content, {"progress": of_one}), b"other"], concurrency=1, progress=of_all)
        assert (await run.report()).bytes == len(content) + 5
        assert own[-1] == len(content)
        assert own.count(65_536) == 2, "there were two tries"
        assert whole[-1] == len(content) + 5
        assert max(whole) == len(content) + 5
        emulator.fail("upload", Fault(status=403))
        report = await api.upload_many([content, b"other"], concurrency=1, progress=of_all).report()
        ids = [outcome.value.id for outcome in await outcomes(api.upload_many([content, b"other"]))]
        downloads = api.download_many(ids, tmp_path, progress=of_all)
        assert (await downloads.report()).bytes == len(content) + 5
    assert (report.bytes, report.failed, report.succeeded) == (5, 1, 1)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_progress_that_raises(server: Server, api: MediaApi, asynchronous: bool) -> None:
    """What a run's progress callback raises comes out of the iteration as it is; an item's own is that item's failure."""
    server.script = [json_response({"id": "7"})]

    def raising(_: Any) -> None:
        raise LookupError("no listener")

    async def raising_later(_: Any) -> None:
        await asyncio.sleep(0)  # a turn of the loop
        raise LookupError("no listener")

    progress = raising_later if asynchronous else raising
    with pytest.raises(LookupError, match="no listener"):
        await api.upload_many([b"one", b"two"], progress=progress).report()
    own, other = await outcomes(api.upload_many([(b"one", {"progress": progress}), b"two"]))
    assert isinstance(own.error, LookupError)
    assert other.error is None


# Downloads and deletes


async def test_downloads(media: MediaApi, emulator: Emulator, tmp_path: Path) -> None:
    """Ids, infos and URLs are downloaded into one folder, each under a name that is free, and nothing is replaced."""
    ids = [(await media.upload(f"text {number}".encode(), filename="a.txt")).id for number in range(4)]
    about = await media.get_info(ids[1])
    url = (await media.get_info(ids[2])).url
    items: list[Any] = [ids[0], about, url, ids[3], "999", "no/id", 7.5]
    found = await outcomes(media.download_many(items, tmp_path))
    assert all(isinstance(outcome.value, DownloadedMedia) for outcome in found[:4])
    assert [outcome.value.path.read_bytes() for outcome in found[:4]] == [b"text %d" % number for number in range(4)]
    assert len({outcome.value.path for outcome in found[:4]}) == 4
    assert {outcome.value.path.parent for outcome in found[:4]} == {tmp_path}
    assert isinstance(found[4].error, MediaNotFoundError)
    assert [outcome.attempts for outcome in found] == [2, 1, 1, 2, 1, 0, 0]
    assert all(isinstance(outcome.error, MediaError) for outcome in found[5:])
    again = await media.download_many(ids[:1], tmp_path).report()
    assert again.ok
    assert len(listing(tmp_path)) == 5


async def test_keywords_of_a_download(media: MediaApi, tmp_path: Path) -> None:
    """A download may have a progress callback of its own, and no other keyword."""
    media_id = (await media.upload(b"some text")).id
    told: list[Any] = []
    items = [(media_id, {"progress": told.append}), (media_id, {"overwrite": False, "max_size": 7})]
    done, failed = await outcomes(media.download_many(items, tmp_path))
    assert told[-1].transferred == done.value.size == 9
    assert isinstance(failed.error, ConfigurationError)
    assert "not max_size, overwrite" in str(failed.error)


async def test_a_folder_to_download_to(server: Server, api: MediaApi, tmp_path: Path) -> None:
    """Where a file has the folder's name, a run of downloads does not begin: a StorageError, and nothing is read or asked."""
    (tmp_path / "file").touch()
    ids = itertools.count()
    with pytest.raises(StorageError, match=r"could not make the folder .*file'") as caught:
        await api.download_many(map(str, ids), tmp_path / "file").report()
    assert caught.value.errno is not None
    assert (next(ids), server.requests, listing(tmp_path)) == (0, [], ["file"])


async def test_deletes(media: MediaApi, emulator: Emulator) -> None:
    """Ids are deleted; one that is not there is an error, or with `missing_ok` a result."""
    ids = [(await media.upload(f"text {number}".encode())).id for number in range(5)]
    found = await outcomes(media.delete_many([*ids, "999", "no/id"]))
    assert all(isinstance(outcome.value, DeletedMedia) for outcome in found[:5])
    assert {(outcome.value.success, outcome.attempts) for outcome in found[:5]} == {(True, 1)}
    assert [type(outcome.error) for outcome in found[5:]] == [MediaNotFoundError, ConfigurationError]
    again = await outcomes(media.delete_many(ids, missing_ok=True, phone_number_id=emulator.phone_number_id))
    assert [(outcome.value.success, outcome.error) for outcome in again] == [(False, None)] * 5
    asked = [request.query for request in emulator.requests if request.method == "DELETE"]
    assert [query.get("phone_number_id") for query in asked] == [None] * 6 + [emulator.phone_number_id] * 5


async def test_deletes_for_a_number_that_cannot_be(api: MediaApi) -> None:
    """A number that is none is refused at once."""
    with pytest.raises(ConfigurationError, match="phone_number_id must be digits"):
        api.delete_many(["1"], phone_number_id="../1")


def together(server: Server, count: int) -> Step:
    """Make a step that responds once `count` requests have been in progress at the same time."""
    met = asyncio.Event()

    async def step(_: Received, writer: asyncio.StreamWriter) -> None:
        if server.most_at_once >= count:
            met.set()
        await met.wait()
        writer.write(json_response({"success": True}))

    return step


async def test_many_deletes_from_a_generator(server: Server) -> None:
    """A long run from a generator over few connections loses nothing, does nothing twice, and never waits in a queue."""
    server.script = [together(server, 8)]
    async with client(server, concurrency=8) as api:
        report = await api.delete_many(str(number) for number in range(1000)).report()
    assert (report.succeeded, report.ok, report.total) == (1000, True, None)
    asked = sorted(int(request.target.rpartition("/")[2]) for request in server.requests)
    assert asked == list(range(1000))
    assert (server.connections, server.most_at_once) == (8, 8)


# How many at a time


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, True, "2", 3, 10**9])
async def test_concurrency_that_cannot_be(api: MediaApi, tmp_path: Path, concurrency: Any) -> None:
    """As many at a time as there are connections, at most: anything else is refused at once, with what to do."""
    sentence = (
        "concurrency .* is more than the 2 connections" if concurrency in {3, 10**9} else "must be a whole number"
    )
    for verb in (api.upload_many, api.delete_many, functools.partial(api.download_many, directory=tmp_path)):
        with pytest.raises(ConfigurationError, match=sentence):
            verb([], concurrency=concurrency)


@pytest.mark.parametrize(("given", "expected"), [(None, 2), (1, 1), (2, 2)])
async def test_concurrency(server: Server, api: MediaApi, given: int | None, expected: int) -> None:
    """`concurrency` requests are in progress at a time."""
    server.script = [together(server, expected)]
    assert (await api.delete_many(map(str, range(50)), concurrency=given).report()).ok
    assert server.most_at_once == expected


@pytest.mark.parametrize("one", ["photo.jpg", b"bytes", Path("photo.jpg"), 7, None])
async def test_one_by_mistake(api: MediaApi, tmp_path: Path, one: Any) -> None:
    """One item where many belong is refused at once."""
    for verb in (api.upload_many, api.delete_many, functools.partial(api.download_many, directory=tmp_path)):
        with pytest.raises(ConfigurationError, match="pass a list or an iterator"):
            verb(one)
