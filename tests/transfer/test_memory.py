"""A 100 MB file costs neither the client nor the emulator more than a few chunks of memory, whatever it comes from."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.skipif(
        not Path("/proc/self/clear_refs").exists(), reason="needs Linux, to reset a process's peak size"
    ),
    pytest.mark.timeout(300),
]

SIZE = 100 * 2**20
ALLOWED = 24 * 2**10  # KiB over idle

EMULATOR = """
import anyio
from meta_media.emulator import Emulator

async def main():
    async with Emulator() as emulator:
        print(emulator.base_url, emulator.access_token, emulator.phone_number_id, flush=True)
        await emulator.serve_forever()

anyio.run(main)
"""

# Prints how many KiB the client and the emulator grew at most, over their size before the transfer.
CLIENT = """
import gc, sys
from pathlib import Path
from tempfile import SpooledTemporaryFile

import aiofiles, anyio
from starlette.datastructures import UploadFile

from meta_media import MediaApi, Settings

case, path, url, token, number, emulator = sys.argv[1:]

def status(pid, field):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))

def reset(pid):
    Path(f"/proc/{pid}/clear_refs").write_text("5")

async def pieces():
    async with aiofiles.open(path, "rb") as file:
        while piece := await file.read(50_000):
            yield piece

async def transfer(media):
    if case == "path":
        return await media.upload(path)
    if case == "handle":
        async with aiofiles.open(path, "rb") as file:
            return await media.upload(file, filename="a.txt")
    if case == "iterator":
        return await media.upload(pieces(), filename="a.txt")
    if case == "download":
        info = await media.get_info(uploaded.id)
        saved = await media.download(info, path + ".copy")
        assert saved.sha256 == info.sha256 and saved.size == Path(path).stat().st_size
        return uploaded
    if case == "move":
        return await media.move(uploaded, number)
    return await media.upload(upload_file)

async def main():
    global uploaded, upload_file
    async with MediaApi(token, number, settings=Settings(base_url=url)) as media:
        warm = await media.upload(b"warm up")
        assert await media.read(warm.id) == b"warm up"
        if case in ("download", "move"):
            uploaded = await media.upload(path)
        if case == "UploadFile":
            spool = SpooledTemporaryFile(max_size=2**20)
            with open(path, "rb") as file:
                while piece := file.read(2**20):
                    spool.write(piece)
            spool.seek(0)
            upload_file = UploadFile(spool, filename="a.txt", size=Path(path).stat().st_size)
        gc.collect()
        idle = {pid: status(pid, "VmRSS") for pid in ("self", emulator)}
        for pid in idle:
            reset(pid)
        done = await transfer(media)
        assert (await media.get_info(done.id)).file_size == Path(path).stat().st_size
        print(*(status(pid, "VmHWM") - size for pid, size in idle.items()))
        if case == "UploadFile":
            spool.close()

anyio.run(main)
"""


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text file of 100 MB, the most that WhatsApp takes."""
    path = tmp_path_factory.mktemp("big") / "big.txt"
    line = b"All work and no play makes a dull document of a hundred megabytes.\n" * 1000
    with path.open("wb") as file:
        while file.tell() < SIZE:
            file.write(line[: SIZE - file.tell()])
    return path


@pytest.fixture(scope="module")
def server() -> Iterator[list[str]]:
    """An emulator in a process of its own: its address, token, number and process id."""
    with subprocess.Popen([sys.executable, "-c", EMULATOR], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield [*process.stdout.readline().split(), str(process.pid)]
        finally:
            process.terminate()


_SLOW = [pytest.param(case, marks=pytest.mark.slow) for case in ("path", "handle", "iterator", "UploadFile", "move")]


@pytest.mark.parametrize("case", [*_SLOW, "download"])
def test_memory_stays_flat(case: str, big: Path, server: list[str]) -> None:
    """Client and emulator each grow by less than 24 MiB."""
    command = [sys.executable, "-c", CLIENT, case, str(big), *server]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=240).stdout
    client, emulator = map(int, printed.split())
    sys.stdout.write(f"{case}: client {client / 1024:.1f} MiB, emulator {emulator / 1024:.1f} MiB over idle\n")
    assert client < ALLOWED
    assert emulator < ALLOWED


# Prints how many KiB the client grew at most while 64 transfers were under way, and a little later.
CROWD = """
import asyncio, gc, sys
from pathlib import Path

from meta_media import MediaApi, Settings

case, path, url, token, number, emulator = sys.argv[1:]
COUNT, MEMORY = 64, 48 * 2**20

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))

def pieces():
    with open(path, "rb") as file:
        while piece := file.read(50_000):
            yield piece

async def main():
    async with MediaApi(token, number, settings=Settings(base_url=url, concurrency=COUNT, memory=MEMORY)) as media:
        uploaded = await media.upload(path)

        async def one(number):
            if case == "upload":
                await media.upload(path)
            elif case == "iterator":
                await media.upload(pieces(), filename="a.txt")
            elif case == "download":
                await media.download(uploaded.id, f"{path}.{case}.{number}")
            else:
                async with media.stream(uploaded.id) as stream:
                    async for chunk in stream:
                        pass

        await one(0)
        gc.collect()
        idle = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        await asyncio.gather(*map(one, range(COUNT)))
        peak = status("VmHWM") - idle
        gc.collect()
        print(peak, status("VmRSS") - idle)

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("case", ["upload", "iterator", "download", "stream"])
def test_a_crowd_stays_within_its_memory(case: str, big: Path, server: list[str], tmp_path: Path) -> None:
    """64 transfers at a time, which may hold 48 MiB together, hold no more; without the limit, they would hold 190 MiB."""
    path = tmp_path / "text.txt"
    with big.open("rb") as file:
        path.write_bytes(file.read(4 * 2**20))
    command = [sys.executable, "-c", CROWD, case, str(path), *server]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=240).stdout
    peak, later = (int(number) / 1024 for number in printed.split())
    sys.stdout.write(f"{case}: {peak:.1f} MiB over idle at most, {later:.1f} MiB later\n")
    heaps = 40 if case == "iterator" else 16  # malloc's, one for each thread: what a thread reads, another one frees
    assert peak < 48 + heaps
    assert later < 20 + heaps
