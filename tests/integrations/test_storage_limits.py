"""A large file, a cancellation at any moment and a kill: memory stays flat, and nothing is left in a store or on the disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from obstore.store import LocalStore, S3Store

from meta_media import ObjectDestination
from meta_media.emulator import Emulator
from tests.support.object_stores import azure_store, keys, multipart_uploads, s3_store
from tests.support.servers import open_files

pytest_plugins = ["tests.support.object_stores"]

SIZE = 100 * 2**20
ALLOWED = 48 * 2**10  # KiB over idle
BODY = b"%PDF-1.7\n" + random.Random(16).randbytes(8 * 2**20) + b"\n%%EOF\n"


SLOW = pytest.mark.slow


@pytest.fixture
def store(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> Any:
    """A store of a kind that takes a while to write."""
    if kind == "s3":
        return s3_store(request.getfixturevalue("s3_url"), prefix=tmp_path.name)
    if kind == "azure":
        return azure_store(request.getfixturevalue("azure_url"), prefix=tmp_path.name)
    return LocalStore(tmp_path)


@pytest.mark.parametrize(
    ("kind", "count"), [("local", 10), pytest.param("s3", 50, marks=SLOW), pytest.param("azure", 10, marks=SLOW)]
)
async def test_cancelled_at_any_moment(store: Any, request: pytest.FixtureRequest, count: int) -> None:
    """Cancelled at any moment, a download leaves nothing in the store, then and later, and no file open."""
    seed = random.SystemRandom().randrange(2**32)
    sys.stdout.write(f"the seed is {seed}\n")
    dice, cancelled, before = random.Random(seed), 0, set(open_files("/tmp"))
    async with Emulator() as emulator, emulator.api() as media:
        media_id = (await media.upload(BODY)).id
        for _ in range(2):  # the first one imports what it needs
            began = time.monotonic()
            await media.download(media_id, ObjectDestination(store, "first.pdf"))
            lasts = time.monotonic() - began
            await store.delete_async("first.pdf")
        for number in range(count):
            task = asyncio.ensure_future(media.download(media_id, ObjectDestination(store, f"{number}.pdf")))
            await asyncio.wait((task,), timeout=dice.uniform(0, lasts))
            task.cancel()
            await asyncio.wait((task,))
            if task.cancelled():
                cancelled += 1
                assert keys(store) == {}, "it is undone before the cancellation leaves"
            else:
                assert task.result().size == len(BODY)
                await store.delete_async(f"{number}.pdf")
    await asyncio.sleep(0.5)  # what was still under way would appear now
    assert keys(store) == {}
    assert set(open_files("/tmp")) <= before
    assert cancelled > count // 5
    if isinstance(store, S3Store):
        assert multipart_uploads(request.getfixturevalue("s3_url")) == 0
    if isinstance(store, LocalStore):
        assert await asyncio.to_thread(os.listdir, str(store.prefix)) == []


# Downloads to a bucket, and says when it begins.
DOWNLOADER = """
import asyncio, sys
from meta_media import MediaApi, ObjectDestination, Settings
from tests.support.object_stores import s3_store

url, token, number, media_id, bucket, key = sys.argv[1:]

async def main():
    async with MediaApi(token, number, settings=Settings(base_url=url)) as media:
        await media.get_info(media_id)
        print("begins", flush=True)
        await media.download(media_id, ObjectDestination(s3_store(bucket), key))
        print("ended", flush=True)

asyncio.run(main())
"""


@pytest.mark.slow
async def test_killed_at_any_moment(emulator: Emulator, s3_url: str, tmp_path: Path) -> None:
    """A killed download leaves nothing or the whole object, no multipart upload, and no temporary file."""
    dice, seen, temporary = random.Random(), set(), tmp_path / "temporary"
    temporary.mkdir()
    store = s3_store(s3_url)
    async with emulator.api() as media:
        media_id = (await media.upload(BODY)).id
    access = (emulator.base_url, emulator.access_token, emulator.phone_number_id, media_id, s3_url)
    for number in range(6):
        key = f"killed/{tmp_path.name}/{number}.pdf"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", DOWNLOADER, *access, key),
            stdout=subprocess.PIPE,
            env=os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"begins\n"
        await asyncio.sleep(dice.uniform(0, 0.25))  # the moment is anywhere in it
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        assert await process.wait() in {0, -signal.SIGKILL}
        seen.add(keys(store).get(key))
    sys.stdout.write(f"{seen}\n")
    await asyncio.sleep(0.5)  # what was still under way would appear now
    assert {size for key, size in keys(store).items() if key.startswith(f"killed/{tmp_path.name}")} <= {len(BODY)}
    assert seen <= {None, len(BODY)}
    assert multipart_uploads(s3_url) == 0
    assert list(temporary.iterdir()) == []


# Moves a file from S3 to WhatsApp, to Azure and to the disk. Prints how many KiB the process grew at most, over its size before.
MOVER = """
import asyncio, gc, sys
from pathlib import Path

from meta_media import MediaApi, ObjectDestination, Settings, Source
from tests.support.object_stores import azure_store, s3_store

url, token, number, s3, azure, folder = sys.argv[1:]

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))

async def move(media, name):
    uploaded = await media.upload(Source.object(s3_store(s3), name))
    saved = await media.download(uploaded, ObjectDestination(azure_store(azure), name))
    again = await media.upload(Source.object(azure_store(azure), saved.key))
    return saved, await media.download(again, Path(folder) / name)

async def main():
    async with MediaApi(token, number, settings=Settings(base_url=url)) as media:
        await move(media, "small.txt")
        gc.collect()
        idle = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        saved, copy = await move(media, "big.txt")
        print(status("VmHWM") - idle)
        print(saved.size, saved.sha256 == copy.sha256)

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux, to reset a process's peak size")
async def test_memory_stays_flat(s3_url: str, azure_url: str, tmp_path: Path) -> None:
    """100 MB from S3 to WhatsApp, to Azure and to the disk cost less than 48 MiB over idle."""
    store = s3_store(s3_url)
    line = b"All work and no play makes a dull document of a hundred megabytes.\n" * 1000
    big = (line * (SIZE // len(line) + 1))[:SIZE]
    await store.put_async("big.txt", big)
    await store.put_async("small.txt", line)
    del big
    async with Emulator() as emulator:
        access = (emulator.base_url, emulator.access_token, emulator.phone_number_id, s3_url, azure_url, str(tmp_path))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", MOVER, *access),
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        printed = (await process.communicate())[0].decode().split()
    await store.delete_async("big.txt")
    assert process.returncode == 0
    sys.stdout.write(f"{int(printed[0]) / 1024:.1f} MiB over idle\n")
    assert printed[1:] == [str(SIZE), "True"]
    assert int(printed[0]) < ALLOWED
    assert multipart_uploads(s3_url) == 0
