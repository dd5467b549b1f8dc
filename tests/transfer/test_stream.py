"""Streams that are not read to their end, calls inside their blocks, and cancelled downloads."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from meta_media import MediaApi, Progress
from meta_media.emulator import Emulator
from meta_media.errors import (
    ConfigurationError,
    DownloadTooLargeError,
    IntegrityError,
    MediaError,
    MediaNotFoundError,
    NetworkError,
    PermissionDeniedError,
    ServerError,
    UntrustedUrlError,
)
from tests.support.servers import (
    Server,
    Step,
    cut,
    endless,
    json_response,
    open_files,
    page,
    silence,
    stalled,
    wait_until,
)
from tests.support.stepping import settled_at
from tests.transfer.disks import left_over
from tests.transfer.downloads import (
    CONTENT,
    OLD,
    PHOTO,
    Verb,
    chunked,
    client,
    download,
    every_verb,
    failure,
    known,
    listing,
    sockets,
)

# Streams that are not read to their end


async def test_a_stream_left_early(emulator: Emulator) -> None:
    """Leaving the block ends the download and frees its place."""
    async with emulator.api(concurrency=1, chunk_size=1000) as media:
        uploaded = await media.upload(CONTENT, filename="a.txt", validate=False, mime_type="text/plain")
        for _ in range(5):
            async with media.stream(uploaded.id) as stream:
                async for chunk in stream:
                    assert chunk == CONTENT[:1000]
                    break
        assert await media.read(uploaded.id) == CONTENT


async def test_a_stream_nobody_reads(server: Server) -> None:
    """A stream that is not read costs nothing, and its connection is closed."""
    async with client(server, concurrency=1) as media:
        server.script = [
            endless(page(length=None), b"x" * 1000),
            endless(page(length=None), b"x" * 1000),
            page(CONTENT),
        ]
        for _ in range(2):
            async with media.stream(known(server, file_size=None)):
                pass
        assert await media.read(known(server)) == CONTENT


async def test_a_stream_left_by_an_error(emulator: Emulator) -> None:
    """What the block raises arrives as it is."""
    async with emulator.api(concurrency=1, chunk_size=1000) as media:
        uploaded = await media.upload(PHOTO)

        async def fail() -> None:
            async with media.stream(uploaded.id) as stream:
                async for _ in stream:
                    raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"):
            await fail()
        assert await media.read(uploaded.id) == PHOTO


async def test_a_stream_is_read_once(media: MediaApi) -> None:
    """A stream that has ended says so, instead of giving nothing."""
    uploaded = await media.upload(PHOTO)
    async with media.stream(uploaded.id) as stream:
        assert b"".join([chunk async for chunk in stream]) == PHOTO
        with pytest.raises(ConfigurationError, match="once"):
            [chunk async for chunk in stream]
    with pytest.raises(ConfigurationError, match="once"):
        [chunk async for chunk in stream]


async def test_a_stream_read_outside_of_its_block(media: MediaApi) -> None:
    """A stream whose block was left gives nothing more."""
    uploaded = await media.upload(PHOTO)
    async with media.stream(uploaded.id) as stream:
        pass
    with pytest.raises(ConfigurationError, match="inside its block"):
        [chunk async for chunk in stream]


async def test_a_stream_read_in_two_goes(emulator: Emulator) -> None:
    """A loop that was left can be taken up again, and the whole is verified."""
    async with emulator.api(chunk_size=1000) as media:
        uploaded = await media.upload(PHOTO)
        async with media.stream(uploaded.id) as stream:
            first = await anext(aiter(stream))
            rest = b"".join([chunk async for chunk in stream])
    assert first + rest == PHOTO


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (cut(page(CONTENT[:20_000], length=len(CONTENT))), NetworkError),
        (endless(page(length=None), b"x" * 1000), DownloadTooLargeError),
        (page(CONTENT[:-1] + b"x"), IntegrityError),
        (chunked(CONTENT[:-1]), IntegrityError),
    ],
)
async def test_a_stream_that_failed_stays_failed(server: Server, step: Step, kind: type[MediaError]) -> None:
    """Reading on after an error does not look like a good end."""
    async with client(server, max_download_size=len(CONTENT)) as media:
        server.script = [step]
        size = None if kind is DownloadTooLargeError else len(CONTENT)
        async with media.stream(known(server, file_size=size)) as stream:
            with pytest.raises(kind):
                [chunk async for chunk in stream]
            with pytest.raises(ConfigurationError):
                [chunk async for chunk in stream]


async def test_a_stream_whose_read_was_given_up_stays_failed(server: Server, scripted: MediaApi) -> None:
    """Reading on after a chunk that was not waited for does not look like a good end."""
    server.script = [stalled(page(CONTENT[:20_000], length=len(CONTENT)), asyncio.Event())]
    async with scripted.stream(known(server)) as stream:
        chunks = aiter(stream)
        assert await anext(chunks) == CONTENT[:10_000]
        assert await anext(chunks) == CONTENT[10_000:20_000]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(chunks), 0.05)  # the rest never comes
        with pytest.raises(ConfigurationError):
            [chunk async for chunk in stream]


async def test_nothing_stays_open(server: Server, folder: Path) -> None:
    """After streams left early, failures and an end, closing the client closes every socket."""
    before = sockets()
    async with client(server) as media:
        server.script = [
            endless(page(length=None), b"x" * 1000),
            cut(page(CONTENT[:20_000], length=len(CONTENT))),
            page(status=302, location="https://example.com"),
            page(status=500),
            page(CONTENT),
        ]
        async with media.stream(known(server, file_size=None)) as opened:
            await anext(aiter(opened))
        for kind in (NetworkError, UntrustedUrlError, ServerError):
            await failure(media, f"{server.base_url}/old", download, folder, kind)
        assert await media.read(known(server)) == CONTENT
    await wait_until(lambda: sockets() == before)
    assert open_files(folder) == open_files("/no such folder")


# Other calls inside a stream's block


async def test_an_upload_inside_a_stream(emulator: Emulator) -> None:
    """A download can be sent on while it comes, also when there is one place for each."""
    async with emulator.api(concurrency=1, chunk_size=1000) as media:
        uploaded = await media.upload(PHOTO)
        async with asyncio.timeout(60), media.stream(uploaded.id) as stream:
            again = await media.upload(stream, filename="again.jpg", size=stream.size)
            await media.get_info(again.id)
            await media.delete(uploaded.id)
        assert again.id != uploaded.id
        assert await media.read(again.id) == PHOTO


async def test_a_failed_call_inside_a_stream(server: Server, scripted: MediaApi) -> None:
    """An error of another call inside the block keeps its own story."""
    server.script = [
        page(CONTENT),
        json_response({"error": {"message": "gone", "code": 100, "error_subcode": 33}}, 400),
    ]
    with pytest.raises(MediaNotFoundError) as caught:
        async with scripted.stream(known(server)):
            await scripted.delete("2")
    assert (caught.value.operation, caught.value.media_id, caught.value.attempts) == ("delete", "2", 1)


async def test_a_refused_call_inside_a_stream(server: Server, scripted: MediaApi) -> None:
    """An inner call that never sent anything does not count the outer call's request."""
    server.script = [page(CONTENT)]
    with pytest.raises(ConfigurationError) as caught:
        async with scripted.stream(known(server)):
            await scripted.delete("../2")
    assert (caught.value.operation, caught.value.media_id, caught.value.attempts) == ("delete", None, 0)


async def test_downloads_wait_for_their_turn(server: Server) -> None:
    """No more downloads run at once than `concurrency` says."""
    go_on = asyncio.Event()
    async with client(server, concurrency=2) as media:
        server.script = [stalled(page(length=len(CONTENT)), go_on, CONTENT)]
        tasks = [asyncio.create_task(media.read(known(server))) for _ in range(6)]
        await wait_until(lambda: len(server.requests) == 2)
        go_on.set()
        assert await asyncio.gather(*tasks) == [CONTENT] * 6
    assert (server.most_at_once, server.connections) == (2, 2)


# Cancellation


async def cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel a task, and see that it is."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


@pytest.mark.parametrize("after", [1, 2, 13, 26])
async def test_cancelled_at_some_chunk(emulator: Emulator, folder: Path, after: int) -> None:
    """A download cancelled at any chunk leaves the old file, no temporary one, and a client that works."""
    async with emulator.api(chunk_size=10_000, concurrency=1) as media:
        uploaded = await media.upload(CONTENT, mime_type="text/plain", validate=False)
        heard: list[Progress] = []

        def callback(progress: Progress) -> None:
            heard.append(progress)
            if len(heard) == after:
                task.cancel()

        task = asyncio.create_task(media.download(uploaded.id, folder / "photo.jpg", progress=callback))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert after <= len(heard) <= after + 3  # a few small chunks are there already
        await settled_at([], lambda: left_over(folder))  # a thread of a slow disk may be left behind
        assert listing(folder) == {"photo.jpg": OLD}
        assert await media.read(uploaded.id) == CONTENT


@pytest.mark.parametrize(
    "script",
    [
        [silence],
        [stalled(page(CONTENT[:20_000], length=len(CONTENT)), asyncio.Event())],
        [page(status=404), silence],
        [page(status=302, location="/next"), silence],
    ],
    ids=["before the reply", "in the body", "while renewing", "after a redirect"],
)
@every_verb
async def test_cancelled_while_waiting(server: Server, verb: Verb, folder: Path, script: list[Step]) -> None:
    """A download that waits for a silent server can be cancelled, and the client works afterwards."""
    async with client(server, concurrency=1) as media:
        server.script = [*script, page(CONTENT)]
        task = asyncio.create_task(verb(media, known(server), folder))
        await wait_until(lambda: len(server.requests) == len(script))
        await cancelled(task)
        await settled_at([], lambda: left_over(folder))  # a thread of a slow disk may be left behind
        assert listing(folder) == {"photo.jpg": OLD}
        assert await media.read(known(server)) == CONTENT


@every_verb
async def test_cancelled_anywhere(emulator: Emulator, verb: Verb, folder: Path) -> None:
    """Cancelled after any number of steps, a download leaves nothing behind, or has been done."""
    async with emulator.api(concurrency=1, chunk_size=50_000) as media:
        uploaded = await media.upload(CONTENT, mime_type="text/plain", validate=False)
        for steps in range(60):
            (folder / "photo.jpg").write_bytes(OLD)
            task = asyncio.create_task(verb(media, uploaded.id, folder))
            for _ in range(steps):
                await asyncio.sleep(0)  # one step of the loop
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() or task.exception() is None
            await settled_at([], lambda: left_over(folder))  # a thread of a slow disk may be left behind
            assert listing(folder).items() <= {("photo.jpg", OLD), ("photo.jpg", CONTENT)}
        assert await media.read(uploaded.id) == CONTENT


async def test_cancelled_inside_a_stream(emulator: Emulator) -> None:
    """A task cancelled in the middle of its block frees its place."""
    async with emulator.api(concurrency=1, chunk_size=1000) as media:
        uploaded = await media.upload(PHOTO)
        inside = asyncio.Event()

        async def linger() -> None:
            async with media.stream(uploaded.id) as stream:
                async for _ in stream:
                    inside.set()
                    await asyncio.Event().wait()

        task = asyncio.create_task(linger())
        await inside.wait()
        await cancelled(task)
        assert await media.read(uploaded.id) == PHOTO


async def test_cancelled_in_the_queue(server: Server) -> None:
    """A download that waits for its turn can be cancelled, and the queue moves on."""
    go_on = asyncio.Event()
    async with client(server, concurrency=1) as media:
        server.script = [stalled(page(length=len(CONTENT)), go_on, CONTENT), page(CONTENT)]
        first, second, third = (asyncio.create_task(media.read(known(server))) for _ in range(3))
        await wait_until(lambda: len(server.requests) == 1)
        await cancelled(second)
        go_on.set()
        assert [await first, await third] == [CONTENT] * 2
    assert len(server.requests) == 2


async def test_a_permission_that_is_missing(emulator: Emulator, media: MediaApi, folder: Path) -> None:
    """A token without permission is told so."""
    uploaded = await media.upload(PHOTO)
    emulator.forbid(emulator.access_token, code=10)
    error = await failure(media, uploaded.id, download, folder, PermissionDeniedError)
    assert (error.code, error.status, error.media_id) == (10, 403, uploaded.id)
