"""How a stream ends: verified, or by an error; never quietly, whatever task reads it and however its block is left."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import pytest

from meta_media import MediaApi, MediaStream, UploadedMedia
from meta_media.emulator import Emulator, Fault
from meta_media.errors import ConfigurationError, IntegrityError, MediaNotFoundError
from tests.support.servers import Server, page, silence, stalled, wait_until
from tests.transfer.downloads import CONTENT, PHOTO, SHA256, chunked, client, known, sockets

HALF = page(CONTENT[:25_000], length=len(CONTENT))  # two and a half chunks


@pytest.fixture
async def single(server: Server) -> AsyncIterator[MediaApi]:
    """A client with one connection for downloads: one that is not given back stops the next download."""
    async with client(server, concurrency=1) as media:
        yield media


async def works(media: MediaApi, server: Server) -> None:
    """The client downloads on, and no task is left of what was before."""
    server.script, server.requests = [page(CONTENT)], []
    assert await media.read(known(server)) == CONTENT
    ours = [task for task in asyncio.all_tasks() if "meta_media" in repr(task.get_coro())]
    assert ours == []


# After the block


async def test_an_iterator_that_outlives_its_block(server: Server, single: MediaApi) -> None:
    """What is left of a stream after its block raises, at every way to read it."""
    server.script = [page(CONTENT)]
    async with single.stream(known(server)) as stream:
        chunks = aiter(stream)
        assert await anext(chunks) == CONTENT[:10_000]
        assert await stream.read(5) == CONTENT[10_000:10_005]  # the rest of this chunk is in memory
    for again in (stream.__anext__, stream.read, stream.__aenter__):
        with pytest.raises(ConfigurationError, match="inside its block"):
            await again()
    with pytest.raises(ConfigurationError, match="inside its block"):
        [chunk async for chunk in chunks]
    assert not stream.verified
    await works(single, server)


async def test_a_stream_that_was_not_begun_before_its_block_ended(server: Server, single: MediaApi) -> None:
    """An iterator that is taken in the block and read after it raises at its first step."""
    server.script = [page(CONTENT)]
    async with single.stream(known(server)) as stream:
        chunks = aiter(stream)
    with pytest.raises(ConfigurationError, match="inside its block"):
        await anext(chunks)


async def test_a_stream_that_was_read_to_its_end(server: Server, single: MediaApi) -> None:
    """After its last byte a stream has ended, inside its block and after it."""
    server.script = [page(CONTENT)]
    async with single.stream(known(server)) as stream:
        assert b"".join([chunk async for chunk in stream]) == CONTENT
        assert (await stream.read(), stream.verified, stream.sha256) == (b"", True, SHA256)
    assert await stream.read(5) == b""
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_the_block_ends_while_a_task_reads(server: Server, single: MediaApi) -> None:
    """A task that waits for a chunk when the block ends gets an error, not the end of the stream."""
    server.script = [stalled(HALF, asyncio.Event())]
    async with single.stream(known(server)) as stream:
        reader = asyncio.ensure_future(joined(stream))
        await wait_until(lambda: stream._received == 20_000)
        await asyncio.sleep(0)  # it waits for the next one
    with pytest.raises(ConfigurationError, match="inside its block"):
        await reader
    assert not reader.cancelling()
    await works(single, server)


async def test_the_block_fails_while_a_task_reads(server: Server, single: MediaApi) -> None:
    """A task that waits for a chunk when the block fails is cancelled; the block's own error goes on."""
    server.script = [stalled(HALF, asyncio.Event())]
    readers = []

    async def fail() -> None:
        async with single.stream(known(server)) as stream:
            readers.append(asyncio.ensure_future(joined(stream)))
            await wait_until(lambda: stream._received == 20_000)
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await fail()
    await asyncio.wait(readers)
    assert readers[0].cancelled()
    await works(single, server)


async def test_a_reader_that_is_cancelled_as_the_block_ends(server: Server, single: MediaApi) -> None:
    """A task that was cancelled by its owner, too, is cancelled."""
    server.script = [stalled(HALF, asyncio.Event())]
    async with single.stream(known(server)) as stream:
        reader = asyncio.ensure_future(joined(stream))
        await wait_until(lambda: stream._received == 20_000)
        reader.cancel()
    await asyncio.wait([reader])
    assert reader.cancelled()


async def test_two_tasks_read_a_stream(server: Server, single: MediaApi) -> None:
    """A second task is refused, and the first one goes on."""
    go_on = asyncio.Event()
    server.script = [stalled(HALF, go_on, CONTENT[25_000:])]
    async with single.stream(known(server)) as stream:
        reader = asyncio.ensure_future(joined(stream))
        await wait_until(lambda: stream._received == 20_000)
        for second in (stream.__anext__, stream.read, stream.__aenter__):
            with pytest.raises(ConfigurationError, match="another task"):
                await second()
        go_on.set()
        assert await reader == CONTENT


# Cancellation


async def joined(stream: MediaStream) -> bytes:
    """Read a stream to its end, in chunks."""
    return b"".join([chunk async for chunk in stream])


async def read(stream: MediaStream) -> bytes:
    """Read a stream to its end, in pieces that are no chunks."""
    pieces = []
    while piece := await stream.read(7_000):
        pieces.append(piece)
    return b"".join(pieces)


async def put_async(stream: MediaStream, consume: Callable[[MediaStream], Awaitable[bytes]]) -> bytes:
    """Read a stream in a task of its own, as obstore does: a cancelled caller does not wait for that task, nor cancel it."""
    done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def finish(task: asyncio.Future[bytes]) -> None:
        if not done.done():
            done.cancel() if task.cancelled() else done.set_result(task.result())

    reader = asyncio.ensure_future(consume(stream))
    reader.add_done_callback(finish)
    return await done


@pytest.mark.parametrize("consume", [joined, read])
@pytest.mark.parametrize("steps", [range(60), pytest.param(range(0, 600, 3), marks=pytest.mark.slow)], ids=len)
async def test_cancelled_while_another_task_reads(
    consume: Callable[[MediaStream], Awaitable[bytes]], steps: range
) -> None:
    """A caller that is cancelled is cancelled, at whatever step of a reader's, and nothing of either is left."""
    before, cancelled = sockets(), 0
    async with Server() as server, client(server, concurrency=1) as single:

        async def store() -> None:
            async with single.stream(known(server)) as stream:
                await put_async(stream, consume)

        for count in steps:
            server.script, server.requests = [stalled(HALF, asyncio.Event())], []
            task = asyncio.ensure_future(store())
            for _ in range(count):
                await asyncio.sleep(0)  # a step of the loop
            task.cancel()
            await asyncio.wait([task])
            cancelled += task.cancelled()
        await works(single, server)
    assert cancelled == len(steps)
    await wait_until(lambda: sockets() <= before)


async def test_a_timeout_around_a_stream_that_another_task_reads(server: Server, single: MediaApi) -> None:
    """`asyncio.timeout` gives its TimeoutError, and anyio's scopes end as they do."""
    server.script = [stalled(HALF, asyncio.Event())]
    for _ in range(5):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), single.stream(known(server)) as stream:
                await put_async(stream, joined)
    with anyio.move_on_after(0.05) as scope:
        async with single.stream(known(server)) as stream, anyio.create_task_group() as group:
            group.start_soon(joined, stream)
    assert scope.cancelled_caught
    await works(single, server)


@pytest.mark.parametrize("consume", [joined, read])
async def test_a_cancelled_reader(
    server: Server, single: MediaApi, consume: Callable[[MediaStream], Awaitable[bytes]]
) -> None:
    """A reader in a task of its own that is cancelled is cancelled, and the stream then has an error for everybody."""
    server.script = [stalled(HALF, asyncio.Event())]
    async with single.stream(known(server)) as stream:
        reader = asyncio.ensure_future(consume(stream))
        await wait_until(lambda: stream._received == 20_000)
        reader.cancel()
        await asyncio.wait([reader])
        assert reader.cancelled()
        with pytest.raises(ConfigurationError):
            await consume(stream)
    await works(single, server)


# Without a block


async def test_a_stream_without_a_block(server: Server, single: MediaApi) -> None:
    """A stream is iterable as it is: it opens at the first step and gives its place back at the end."""
    server.script = [page(CONTENT)]
    stream = single.stream(known(server))
    assert server.requests == []
    assert await joined(stream) == CONTENT
    assert (stream.verified, stream.mime_type) == (True, "image/jpeg")
    with pytest.raises(ConfigurationError):
        await joined(stream)
    await works(single, server)


async def test_a_stream_without_a_block_that_fails(server: Server, single: MediaApi) -> None:
    """What a download fails with is raised at the first step, and a second look gives no other end."""
    server.script = [page(status=404)]
    stream = single.stream(f"{server.base_url}/x")
    with pytest.raises(MediaNotFoundError) as caught:
        await joined(stream)
    assert (caught.value.operation, caught.value.attempts) == ("download", 1)
    with pytest.raises(ConfigurationError):
        await joined(stream)
    await works(single, server)


async def test_a_stream_without_a_block_that_is_dropped(server: Server, single: MediaApi) -> None:
    """A loop that breaks gives its connection back without a collection of garbage."""
    gc.disable()
    try:
        server.script = [stalled(HALF, asyncio.Event())]
        async for chunk in single.stream(known(server)):
            assert chunk == CONTENT[:10_000]
            break
        await works(single, server)
    finally:
        gc.enable()


async def test_a_stream_that_is_closed_by_hand(server: Server, single: MediaApi) -> None:
    """`aclose` ends a stream, one that was never opened, too; and it may be called twice."""
    server.script = [stalled(HALF, asyncio.Event())]
    opened, never = single.stream(known(server)), single.stream(known(server))
    assert await opened.read(3) == CONTENT[:3]
    for stream in (opened, never, opened):
        await stream.aclose()
        with pytest.raises(ConfigurationError):
            await stream.read()
    assert len(server.requests) == 1
    await works(single, server)


async def test_what_is_known_before_a_stream_is_open(server: Server, single: MediaApi) -> None:
    """Type, size and name are asked for in the block; before it, the error says so."""
    stream = single.stream(known(server))
    for name in ("info", "media_id", "mime_type", "size", "filename", "sha256"):
        with pytest.raises(ConfigurationError, match="not open yet"):
            getattr(stream, name)
    assert not stream.verified
    await stream.aclose()


async def test_a_waiting_stream_can_be_left(server: Server, single: MediaApi) -> None:
    """A stream that waits for its turn, or for a silent server, can be closed by another task."""
    server.script = [silence]
    stream = single.stream(known(server))
    opening = asyncio.ensure_future(stream.read())
    await wait_until(lambda: len(server.requests) == 1)
    await stream.aclose()
    with pytest.raises(ConfigurationError):
        await opening
    await works(single, server)


# read


@pytest.mark.parametrize(
    "n", [1_000, 7_001, 10_000, 25_000, len(CONTENT) - 1, len(CONTENT), len(CONTENT) + 1, -1, None]
)
async def test_reads_of_any_size(server: Server, single: MediaApi, n: int | None) -> None:
    """`read(n)` gives exactly n bytes until the end, then nothing, and the whole is verified with its last byte."""
    server.script = [page(CONTENT)]
    async with single.stream(known(server)) as stream:
        assert await stream.read(0) == b""
        pieces = [await stream.read(n)]
        while len(pieces[-1]) == n:
            pieces.append(await stream.read(n))
        assert b"".join(pieces) == CONTENT
        assert {len(piece) for piece in pieces[:-1]} <= {n}
        assert stream.verified
        assert await stream.read(n) == b""


async def test_reads_and_chunks(server: Server, single: MediaApi) -> None:
    """A loop goes on where a `read` ended."""
    server.script = [page(CONTENT)]
    async with single.stream(known(server)) as stream:
        first = await stream.read(15_000)
        second = await anext(stream)
        assert (first, second) == (CONTENT[:15_000], CONTENT[15_000:20_000])
        assert await joined(stream) == CONTENT[20_000:]


@pytest.mark.parametrize("n", [len(CONTENT), len(CONTENT) // 2, -1])
async def test_the_last_byte_is_not_returned_unverified(server: Server, single: MediaApi, n: int) -> None:
    """Whoever reads as many bytes as the stream has, and not to its end, gets the error with the last of them."""
    server.script = [page(CONTENT[:-1] + b"?")]
    async with single.stream(known(server)) as stream:
        if n == len(CONTENT) // 2:
            assert await stream.read(n) == CONTENT[:n]
        with pytest.raises(IntegrityError):
            await stream.read(n)
        with pytest.raises(ConfigurationError):
            await stream.read(n)


async def test_a_stream_of_unknown_size_that_is_read(server: Server, single: MediaApi) -> None:
    """Where nothing tells the size, the end of the response does."""
    server.script = [chunked(CONTENT)]
    async with single.stream(known(server, file_size=None)) as stream:
        assert stream.size is None
        assert [len(await stream.read(200_000)), len(await stream.read(200_000))] == [200_000, 56_000]
        assert (await stream.read(1), stream.verified) == (b"", True)


# As a source


async def test_a_stream_is_a_source(emulator: Emulator) -> None:
    """A stream that is uploaded keeps its name, size and type, in its block and without one, and is not spooled."""
    async with emulator.api(concurrency=1, chunk_size=1_000) as media:
        first = await media.upload(PHOTO, filename="holiday.jpg")
        alone = await media.upload(media.stream(first.id))
        async with media.stream(first.id) as stream:
            inside = await media.upload(stream)
            assert stream.verified
        for uploaded in (alone, inside):
            assert (uploaded.mime_type, uploaded.file_size) == ("image/jpeg", len(PHOTO))
            assert uploaded.filename == f"{first.id}.jpg"
            assert await media.read(uploaded.id) == PHOTO
        async with media.stream(first.id) as stream:
            await stream.read(1)
            with pytest.raises(ConfigurationError, match="was read already"):
                await media.upload(stream)


async def test_the_type_of_a_stream_that_its_bytes_do_not_tell(emulator: Emulator) -> None:
    """The type that Meta states is the upload's, where the bytes do not say another."""
    async with emulator.api() as media:
        first = await media.upload(b"a", mime_type="application/vnd.ms-excel", filename="a.xls", validate=False)
        again = await media.upload(media.stream(first.id), validate=False)
    assert again.mime_type == "application/vnd.ms-excel"


async def test_uploads_of_streams_do_not_wait_for_each_other(emulator: Emulator) -> None:
    """With one connection for each direction, uploads that read from downloads all come to an end."""
    async with emulator.api(concurrency=1) as media, asyncio.timeout(60):
        first = await media.upload(PHOTO)

        async def nested() -> UploadedMedia:
            async with media.stream(first.id) as stream:
                return await media.upload(stream)

        work = [nested() if number % 2 else media.upload(media.stream(first.id)) for number in range(20)]
        assert len({uploaded.id for uploaded in await asyncio.gather(*work)}) == 20


async def test_an_upload_whose_download_is_cut_does_not_wait_for_another(emulator: Emulator) -> None:
    """A download that is cut keeps its turn: an upload that waits for its own turn would take it, and both would wait for ever."""
    async with emulator.api(concurrency=1, chunk_size=20_000, backoff=0.001) as media, asyncio.timeout(60):
        first = await media.upload(CONTENT, mime_type="text/plain", validate=False)
        emulator.fail("download", Fault(at=100_000, end="reset"))
        work = [media.upload(media.stream(first), validate=False, filename="a.txt") for _ in range(3)]
        assert len({uploaded.id for uploaded in await asyncio.gather(*work)}) == 3


async def test_an_upload_of_a_stream_with_wrong_bytes(server: Server, single: MediaApi) -> None:
    """Bytes that are not Meta's end the upload before it is complete."""
    server.script = [page(CONTENT[:-1] + b"?")]
    with pytest.raises(IntegrityError):
        await single.upload(single.stream(known(server)), validate=False, mime_type="text/plain", filename="a.txt")
