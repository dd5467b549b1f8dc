"""`MediaApi.move`: media of one phone number gets an id on another one; the bytes pass through, verified on both ways."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from meta_media import MediaApi, Settings, UploadedMedia, samples
from meta_media.emulator import Emulator, Fault
from meta_media.errors import (
    ApiError,
    ConfigurationError,
    CorruptedMediaError,
    IntegrityError,
    MediaError,
    MediaNotFoundError,
    NetworkError,
    ServerError,
    UnsupportedMediaTypeError,
    UploadRejectedError,
)
from tests.support.servers import Server, info, json_response, page, wait_until
from tests.support.stepping import LeanServer, Stepper, descriptors, none_added, settled_at
from tests.transfer.downloads import received
from tests.transfer.uploads import LONG, TEXT

pytestmark = pytest.mark.usefixtures("nothing_stays_open")

OTHER = "200"
SAMPLES = {path.name: (path, path.read_bytes()) for path in samples.paths()}
SHA256 = hashlib.sha256(TEXT).hexdigest()


@pytest.fixture
async def busy(emulator: Emulator) -> AsyncIterator[MediaApi]:
    """A client with one connection for each direction, and an emulator with a second number."""
    emulator.add_account(OTHER, emulator.access_token)
    async with emulator.api(concurrency=1, backoff=0.001, chunk_size=20_000) as media, asyncio.timeout(60):
        yield media


def count(emulator: Emulator, method: str, path: str) -> int:
    """Count the requests to a place."""
    return sum(request.method == method and path in request.path for request in emulator.requests)


def downloads(emulator: Emulator) -> int:
    """Count the requests for bytes."""
    return count(emulator, "GET", "/whatsapp_business/")


def uploads(emulator: Emulator) -> int:
    """Count the uploads to the other number."""
    return count(emulator, "POST", f"/{OTHER}/media")


async def failure(media: MediaApi, what: Any, kind: type[MediaError], **more: Any) -> Any:
    """Return the error of a move, after which another one succeeds, also over one connection."""
    with pytest.raises(kind) as caught:
        await media.move(what, OTHER, **more)
    assert type(caught.value) is kind
    assert (await media.move(what, OTHER)).id
    return caught.value


@pytest.mark.parametrize("name", ["photo.jpg", "note.ogg", "clip.mp4", "sticker.webp", "table.xlsx", "note.txt"])
async def test_moved(emulator: Emulator, busy: MediaApi, name: str) -> None:
    """The copy has the name, type, size and bytes of the first media, can be sent from its number, and the first one stays."""
    path, content = SAMPLES[name]
    first = await busy.upload(path)
    moved = await busy.move(first, OTHER)
    assert isinstance(moved, UploadedMedia)
    assert moved.id != first.id
    assert (moved.filename, moved.mime_type, moved.file_size) == (first.filename, first.mime_type, len(content))
    assert moved.sha256 == hashlib.sha256(content).hexdigest()
    assert (await busy.get_info(moved, phone_number_id=OTHER)).mime_type == (await busy.get_info(first)).mime_type
    assert await busy.read(moved) == await busy.read(first) == content
    await busy.send("+15550001111", moved, phone_number_id=OTHER)
    with pytest.raises(MediaNotFoundError):
        await busy.send("+15550001111", moved)
    await busy.send("+15550001111", first)


async def test_large(emulator: Emulator, busy: MediaApi) -> None:
    """Media larger than memory keeps of a spooled source passes through in chunks. Progress is that of the upload."""
    first = await busy.upload(LONG, mime_type="text/plain")
    told: list[int] = []
    moved = await busy.move(first.id, OTHER, progress=lambda progress: told.append(progress.transferred))
    assert await busy.read(moved) == LONG
    assert told == [*range(20_000, len(LONG), 20_000), len(LONG)]
    assert moved.filename == f"{first.id}.txt"


@pytest.mark.parametrize(
    ("sample", "mime_type", "given", "name"),
    [
        ("report.pdf", "application/pdf", "../Fatura 05.pdf", "Fatura 05.pdf"),
        ("note.txt", "text/plain", "table.csv", "table.txt"),
        ("photo.jpg", "image/jpeg", None, None),
    ],
)
async def test_from_a_webhook(
    emulator: Emulator, busy: MediaApi, sample: str, mime_type: str, given: str | None, name: str | None
) -> None:
    """Media from a webhook keeps the type that Meta states, and the sender's name, which is made safe."""
    inbound = await received(emulator, SAMPLES[sample][1], mime_type, filename=given)
    moved = await busy.move(inbound, OTHER)
    assert (moved.filename, moved.mime_type) == (name or f"{inbound.id}.jpg", mime_type)


async def test_of_a_type_that_is_not_uploaded(emulator: Emulator, busy: MediaApi) -> None:
    """People may send types that Meta takes no upload of: they are refused before the upload."""
    inbound = await received(emulator, b"PK\x05\x06" + bytes(18), "application/zip", filename="a.zip")
    with pytest.raises(UnsupportedMediaTypeError, match="application/zip"):
        await busy.move(inbound, OTHER)
    assert uploads(emulator) == 0


@pytest.mark.parametrize("number", ["106540352242922", "200", "999"])
async def test_source_number(emulator: Emulator, busy: MediaApi, number: str) -> None:
    """Meta is told the number of the first media, if it is given, and refuses a wrong one."""
    first = await busy.upload(TEXT)
    if number == emulator.phone_number_id:
        await busy.move(first, OTHER, phone_number_id=number)
    else:
        with pytest.raises(ApiError) as caught:
            await busy.move(first, OTHER, phone_number_id=number)
        assert caught.value.operation == "get_info"
        assert uploads(emulator) == 0


@pytest.mark.parametrize("number", [None, "", "1/2", "+1 555", 7.5], ids=str)
async def test_wrong_number(emulator: Emulator, busy: MediaApi, number: Any) -> None:
    """A number that is no id is refused before any request."""
    with pytest.raises(ConfigurationError, match="to_number"):
        await busy.move("7", number)
    assert emulator.requests == []


async def test_unknown_media(emulator: Emulator, busy: MediaApi) -> None:
    """Media that is gone is an error of the lookup; nothing is uploaded."""
    with pytest.raises(MediaNotFoundError) as caught:
        await busy.move("7", OTHER)
    assert (caught.value.operation, caught.value.media_id) == ("get_info", "7")
    assert uploads(emulator) == 0


# Faults on the way


@pytest.mark.parametrize("at", [0, 1, 60_000, len(TEXT) - 1])
@pytest.mark.parametrize("end", ["close", "reset"])
async def test_cut_download(emulator: Emulator, busy: MediaApi, at: int, end: Any) -> None:
    """A download that is cut goes on where it was; the upload does not notice."""
    first = await busy.upload(TEXT)
    emulator.fail("download", Fault(at=at, end=end))
    moved = await busy.move(first, OTHER)
    assert await busy.read(moved) == TEXT
    assert (downloads(emulator), uploads(emulator)) == (3, 1)


@pytest.mark.parametrize("reads", [0, 100_000, None])
async def test_refused_upload(emulator: Emulator, busy: MediaApi, reads: int | None) -> None:
    """If Meta refuses the upload at any time, its error is raised, and the download stops."""
    first = await busy.upload(LONG, mime_type="text/plain")
    emulator.fail("upload", Fault.error(131053, reads=reads))
    error = await failure(busy, first, UploadRejectedError)
    assert (error.operation, error.code) == ("upload", 131053)


@pytest.mark.parametrize(
    ("fault", "doubtful"),
    [
        (Fault.error(131000, 500), True),
        (Fault.throttle(retry_after=0), False),
        (Fault.error(131057, 503, reads=0), False),
        (Fault(at="request", end="reset"), True),
        (Fault(at="reply", end="close"), True),
    ],
    ids=["500", "429", "early 503", "cut request", "cut response"],
)
async def test_upload_that_is_tried_again(emulator: Emulator, busy: MediaApi, fault: Fault, doubtful: bool) -> None:
    """An upload that may succeed later is sent again, with a download of its own, over one connection each."""
    first = await busy.upload(LONG, mime_type="text/plain")
    emulator.fail("upload", fault)
    told: list[int] = []
    moved = await busy.move(first, OTHER, progress=lambda progress: told.append(progress.transferred))
    assert await busy.read(moved) == LONG
    assert moved.sha256 == hashlib.sha256(LONG).hexdigest()
    assert (downloads(emulator), uploads(emulator), told[-1]) == (3, 2, len(LONG))
    assert moved.maybe_duplicate is doubtful


async def test_repackaged_upload_that_is_tried_again(emulator: Emulator, busy: MediaApi) -> None:
    """A download that is uploaded with `repackage`, and is no Opus, is fetched anew as well."""
    first = await busy.upload(LONG, mime_type="text/plain")
    emulator.fail("upload", Fault.error(131000, 500))
    again = await busy.upload(busy.stream(first), repackage=True, phone_number_id=OTHER)
    assert await busy.read(again) == LONG
    assert (downloads(emulator), uploads(emulator)) == (3, 2)


async def test_renewed_token(emulator: Emulator) -> None:
    """If the token dies during the move, the upload is sent again with a new one."""
    emulator.add_account(OTHER, emulator.access_token)
    emulator.add_account(OTHER, "EAAG-second-token-of-the-account")
    emulator.add_account(emulator.phone_number_id, "EAAG-second-token-of-the-account")
    tokens = [emulator.access_token, "EAAG-second-token-of-the-account"]

    async def token() -> str:
        return tokens.pop(0)

    async with emulator.api(concurrency=1) as plain:
        media = plain.with_options(access_token=token)
        first = await media.upload(TEXT)
        emulator.fail("upload", Fault.error(190, 401, reads=0))
        moved = await media.move(first, OTHER)
        assert await media.read(moved) == TEXT
        assert tokens == []


async def test_upload_that_fails_each_time(emulator: Emulator, busy: MediaApi) -> None:
    """An upload is tried as often as any other, and its error is the last one."""
    first = await busy.upload(TEXT)
    emulator.fail("upload", Fault.error(131016, 503), times=3)
    error = await failure(busy, first, ServerError)
    assert (error.operation, error.code, error.attempts) == ("upload", 131016, 3)
    assert (downloads(emulator), uploads(emulator)) == (4, 4)


async def test_download_that_fails_each_time(emulator: Emulator, busy: MediaApi) -> None:
    """A download that fails for good is not begun again by the upload."""
    first = await busy.upload(TEXT)
    emulator.fail("download", Fault(at=50_000, end="reset"), times=3)
    error = await failure(busy, first, NetworkError)
    assert (error.operation, error.media_id, error.attempts) == ("download", first.id, 3)
    assert downloads(emulator) == 4


async def test_wrong_bytes_from_meta(emulator: Emulator, busy: MediaApi) -> None:
    """Bytes that do not have the promised SHA-256 are not stored under another number."""
    first = await busy.upload(LONG, mime_type="text/plain")
    emulator.fail("download", Fault(flip_at=1_000_000))
    error = await failure(busy, first, IntegrityError)
    assert (error.operation, error.media_id) == ("download", first.id)
    assert error.expected == hashlib.sha256(LONG).hexdigest()


async def test_wrong_bytes_stored() -> None:
    """If Meta stored other bytes than were sent, the error names the copy."""
    async with Server() as server, MediaApi("token", "1").with_options(base_url=server.base_url) as media:
        promised = info(f"{server.base_url}/media", TEXT, mime_type="text/plain", sha256=SHA256)
        stored = info(f"{server.base_url}/media", TEXT, media_id="2", mime_type="text/plain", sha256="0" * 64)
        server.script = [promised, page(TEXT, content_type="text/plain"), json_response({"id": "2"}), stored]
        with pytest.raises(IntegrityError, match="stored other bytes than were sent, as media 2") as caught:
            await media.move("1", OTHER)
        assert (caught.value.media_id, caught.value.maybe_applied) == ("2", True)


async def test_bytes_that_changed() -> None:
    """If the second download has another size than the first, the upload is not completed."""
    async with Server() as server, MediaApi("token", "1").with_options(base_url=server.base_url) as media:
        busy = json_response({"error": {"message": "busy", "code": 131016}}, 503)
        first, longer = (page(content, content_type="text/plain") for content in (TEXT, TEXT + b"!"))
        server.script = [first, busy, longer, json_response({"id": "2"})]
        with pytest.raises(CorruptedMediaError, match=f"more than the declared {len(TEXT)} bytes"):
            await media.with_options(backoff=0.001).upload(media.stream(f"{server.base_url}/media"))


async def test_many_that_fail(emulator: Emulator, busy: MediaApi) -> None:
    """Moves that fail and are tried again do not wait for each other, with one connection in each direction."""
    first = await busy.upload(TEXT)
    emulator.fail("upload", Fault.error(131000, 500), times=None, probability=0.4, seed=3)
    emulator.fail("download", Fault(at=100_000, end="close"), times=None, probability=0.2, seed=3)
    patient = busy.with_options(max_retries=20)
    moved = await asyncio.gather(*(patient.move(first, OTHER) for _ in range(20)))
    assert len({one.id for one in moved}) == 20
    emulator.clear_faults()
    assert await busy.read(moved[-1]) == TEXT


async def test_a_stream_in_its_block(emulator: Emulator, busy: MediaApi) -> None:
    """The upload of a stream is sent again with a download of its own also inside the block of the stream."""
    first = await busy.upload(TEXT)
    emulator.fail("upload", Fault.error(131000, 500))
    async with busy.stream(first) as stream:
        moved = await busy.upload(stream, phone_number_id=OTHER)
        assert not stream.verified or downloads(emulator) == 2
    assert await busy.read(moved) == TEXT


async def test_cancelled_while_meta_is_silent(emulator: Emulator, busy: MediaApi) -> None:
    """A cancelled move closes both connections at once."""
    first = await busy.upload(LONG, mime_type="text/plain")
    emulator.fail("upload", Fault(reads=0, at="request", end="stall"))
    task = asyncio.create_task(busy.move(first, OTHER))
    await wait_until(lambda: uploads(emulator) == 1)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert await busy.read(await busy.move(first, OTHER)) == LONG


def graph(server: LeanServer, small: bytes) -> None:
    """Let a server respond as Meta does, and refuse the first upload of each client."""

    def answer(method: str, target: str) -> bytes:
        if method == "POST":
            failed = sum(asked == "POST" for asked, _ in server.requests) % 2
            return (
                json_response({"error": {"message": "busy", "code": 131016}}, 503)
                if failed
                else json_response({"id": "2"})
            )
        if target.startswith("/media"):
            return page(small, content_type="text/plain")
        sha256 = hashlib.sha256(small).hexdigest()
        media_id = target.rpartition("/")[2].partition("?")[0]
        return info(f"{server.base_url}/media", small, media_id=media_id, mime_type="text/plain", sha256=sha256)

    server.answer = answer


@pytest.mark.parametrize("late", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["before", "after"])
async def test_cancelled_at_every_await(late: bool) -> None:
    """A move that is cancelled at any await, of its first or second try, leaves no task and no descriptor; the next one works."""
    content = TEXT[:60_000]
    async with LeanServer(lambda *_: b"") as server:
        graph(server, content)
        settings = Settings(base_url=server.base_url, concurrency=1, chunk_size=20_000, backoff=0.0)
        before = descriptors()
        at, going = 0, True
        while going:
            at += 1
            server.requests.clear()
            async with MediaApi("token", "1", settings=settings) as media:
                stepper = Stepper(at, late=late)
                task = await stepper.run(lambda media=media: media.move("1", OTHER))  # type: ignore[misc]
                going = stepper.reached
                assert task.cancelled() or task.result().id == "2"
                await settled_at([], lambda stepper=stepper: stepper.alive)  # type: ignore[misc]
                async with asyncio.timeout(20):
                    assert (await media.move("1", OTHER)).id == "2"
            await settled_at(set(), lambda: server.open)
            await none_added(before, descriptors)
    assert at > 10
