"""`Settings.memory`: transfers divide it, chunk by chunk, and none waits for it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_media import MediaApi, Settings
from meta_media.errors import StorageError
from meta_media.http.memory import Memory, Share, fitting_buffer
from tests.support.servers import page
from tests.support.stepping import LeanServer

KIB, MIB = 2**10, 2**20
LEAST, MOST = 16 * KIB, MIB  # bytes of a chunk
BESIDE = 160 * KIB  # bytes that a transfer holds beside its chunks
CONTENT = bytes(range(256)) * 2**14  # 4 MiB


def answer(method: str, target: str) -> bytes:
    """Take every upload, and give the content to every other request."""
    return page(b'{"id":"1"}', content_type="application/json") if method == "POST" else page(CONTENT)


@pytest.fixture
async def server() -> AsyncIterator[LeanServer]:
    """A server that has one file."""
    async with LeanServer(answer) as running:
        yield running


def client(server: LeanServer, **settings: Any) -> MediaApi:
    """Make a client whose calls wait for no slot."""
    return MediaApi("token", "1", settings=Settings(base_url=server.base_url, concurrency=100, **settings))


class Sizes:
    """A progress callback that records the bytes of each chunk, and holds the first one until all transfers have begun."""

    def __init__(self, begun: asyncio.Barrier) -> None:
        self.sizes: list[int] = []
        self._before = 0
        self._begun = begun

    async def __call__(self, progress: Any) -> None:
        """Record what came since the last call."""
        self.sizes.append(progress.transferred - self._before)
        self._before = progress.transferred
        if len(self.sizes) == 1:
            await self._begun.wait()


@pytest.mark.parametrize(
    ("transfers", "size"),
    [(1, MIB), (8, MIB), (9, MIB // 2), (118, MIB // 2), (256, 216 * KIB), (1000, 26148), (9999, LEAST)],
)
async def test_default(transfers: int, size: int) -> None:
    """A chunk has the bytes that the docstring of `Settings` states for a number of transfers under way."""
    memory = Memory(Settings().memory)
    async with AsyncExitStack() as stack:
        shares = [await stack.enter_async_context(Share(memory, MOST)) for _ in range(transfers)]
        assert {share() for share in shares} == {size}
    assert (memory.left, memory.transfers) == (memory.size, 0)


async def test_transfers_that_hold_more_than_their_part() -> None:
    """Those that came first give up their surplus at their next chunk. Until then, the others do with what is left."""
    memory = Memory(10 * MIB)
    async with Share(memory, MOST) as first, Share(memory, MOST) as second:
        assert (first(), second()) == (MIB, MIB)
        async with Share(memory, MOST) as late:
            assert late() == (2 * MIB - 3 * BESIDE) // 4
            part = (10 * MIB // 3 - BESIDE) // 4
            assert (first(), second(), late()) == (part, part, part)
        assert (first(), second()) == (MIB, MIB)


@given(
    size=st.integers(1, 64 * MIB),
    most=st.integers(1, 2 * MIB),
    steps=st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=150),
)
def test_ceiling(size: int, most: int, steps: list[tuple[int, bool]]) -> None:
    """In any order, transfers hold more than the memory only by the least that each of them needs; in the end, nothing."""

    async def run() -> None:
        memory = Memory(size)
        shares: dict[int, Share] = {}
        for number, leaves in steps:
            if number not in shares:
                shares[number] = await Share(memory, most).__aenter__()
            elif leaves:
                await shares.pop(number).__aexit__()
                continue
            assert min(most, LEAST) <= shares[number]() <= most
            assert memory.left >= -len(shares) * (4 * LEAST + BESIDE)
        for share in shares.values():
            await share.__aexit__()
        assert (memory.left, memory.transfers) == (size, 0)

    asyncio.run(run())


async def test_streams(server: LeanServer) -> None:
    """A stream's chunks are short while many are open, and long again when they are closed."""
    async with client(server, memory=16 * MIB) as media, media.stream(f"{server.base_url}/1") as stream:
        assert len(await anext(stream)) == MIB
        async with AsyncExitStack() as stack:
            for _ in range(31):
                await stack.enter_async_context(media.stream(f"{server.base_url}/1"))
            part = 16 * MIB // 32 // 4 - BESIDE // 4
            sizes = [len(await anext(stream)) for _ in range(2)]
            assert sizes[-1] == part
        sizes += [len(chunk) async for chunk in stream]
        assert MIB in sizes
        assert sum(sizes) == len(CONTENT) - MIB
        assert stream.sha256


@pytest.mark.parametrize("verify", [False, True])
async def test_uploads(server: LeanServer, tmp_path: Path, verify: bool) -> None:
    """Twenty uploads at once send short chunks; one sends long ones. Copies share the memory of the original."""
    path = tmp_path / "note.txt"
    path.write_bytes(CONTENT[65:91] * 2**17)
    async with client(server, memory=16 * MIB) as media:
        copies = [media.with_options(access_token=f"token-{number}") for number in range(20)]
        begun = asyncio.Barrier(20)
        crowd, alone = [Sizes(begun) for _ in copies], Sizes(asyncio.Barrier(1))
        uploads = [copy.upload(path, progress=sizes) for copy, sizes in zip(copies, crowd, strict=True)]
        await asyncio.gather(*uploads)
        await media.upload(path, progress=alone)
    total = path.stat().st_size
    assert {sum(sizes.sizes) for sizes in (alone, *crowd)} == {total}
    assert max(alone.sizes) == MIB
    assert min(min(sizes.sizes[1:-1]) for sizes in crowd) <= 16 * MIB // 20 // 4 - BESIDE // 4


async def test_downloads(server: LeanServer, tmp_path: Path) -> None:
    """Twenty downloads at once write short chunks, and each of them is verified."""
    begun = asyncio.Barrier(20)
    crowd = [Sizes(begun) for _ in range(20)]
    async with client(server, memory=16 * MIB) as media:
        downloads = [
            media.download(f"{server.base_url}/1", tmp_path / f"{number}", progress=sizes)
            for number, sizes in enumerate(crowd)
        ]
        await asyncio.gather(*downloads)
    assert all((tmp_path / f"{number}").read_bytes() == CONTENT for number in range(20))
    assert min(min(sizes.sizes[:-1]) for sizes in crowd) <= 16 * MIB // 20 // 4 - BESIDE // 4


async def test_hardly_any_memory(server: LeanServer, tmp_path: Path) -> None:
    """With less memory than one transfer needs, nothing waits: not even uploads that read from open downloads."""
    async with client(server, memory=1) as media:
        url = f"{server.base_url}/1"
        streams = [media.stream(url) for _ in range(3)]
        uploads = [media.upload(stream, filename="note.txt", validate=False) for stream in streams]
        uploaded, content = await asyncio.gather(asyncio.gather(*uploads), media.read(url))
        assert [(it.id, it.file_size) for it in uploaded] == [("1", len(CONTENT))] * 3
        assert content == CONTENT


async def test_spool(server: LeanServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source of unknown length is kept in memory up to a megabyte, or up to a chunk where memory is scarce."""
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")

    def pieces() -> Any:
        return (b"some text\n" * 1000 for _ in range(50))

    async with client(server, chunk_size=4096) as media:
        assert (await media.upload(pieces(), filename="note.txt")).file_size == 500_000
    async with client(server, memory=1) as media:
        with pytest.raises(StorageError):
            await media.upload(pieces(), filename="note.txt")


@pytest.mark.parametrize(("used", "kept"), [(100_000, True), (50_001, True), (50_000, False), (100_001, False)])
def test_buffers_are_used_again(used: int, kept: bool) -> None:
    """A used buffer is taken unless it is longer than allowed, or no longer than half of that."""
    before = memoryview(bytearray(used))
    buffer = fitting_buffer(100_000, before)
    assert (buffer is before) is kept
    assert len(buffer) == (used if kept else 100_000)


@pytest.mark.parametrize("size", [1, LEAST - 1, LEAST, MIB + 1])
def test_buffers(size: int) -> None:
    """A buffer of any size can be filled."""
    buffer = fitting_buffer(size)
    buffer[:] = bytes([7]) * size
    assert bytes(buffer) == bytes([7]) * size
