"""Set-ups of what goes wrong at the caller: callbacks, threads, cancellations, event loops, processes."""

from __future__ import annotations

import asyncio
import errno
import gc
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import anyio

from meta_media import MediaApi, Progress, Settings, clean_stale
from tests.faults.many import check_many_files
from tests.faults.scenes import ELSEWHERE, OLD, TOKEN, Scene
from tests.faults.setups import SETUPS, Operation, calling, named
from tests.support.servers import wait_until
from tests.support.stepping import Stepper, settled_at
from tests.transfer.disks import left_over

__all__ = ["SETUPS", "Operation", "awaited", "calling", "elsewhere", "kill_when", "named"]

_PARTIAL: Final = re.compile(r"\.[0-9a-f]{16}\.meta-media\.part")


@named("a callback that raises")
def _raising(scene: Scene) -> None:
    def half_way(progress: Progress) -> None:
        if progress.transferred > 1_000_000 or scene.cell.verb == "download":
            raise ZeroDivisionError("mine")

    scene.progress = half_way


@named("a callback that takes its time")
def _slow_callback(scene: Scene) -> None:
    async def progress(_: object) -> None:
        await asyncio.sleep(0.2)  # longer, in all, than any wait for the peer may take

    scene.progress = progress


class _SlowFile:
    """A file on a disk that does not answer."""

    def __init__(self, over: threading.Event, waiting: list[object]) -> None:
        self._over = over
        self._waiting = waiting

    def read(self, _: int) -> bytes:
        return b""

    def tell(self) -> int:
        self._waiting.append(self)
        self._over.wait(60)
        raise OSError(errno.EIO, "gone")


@calling("all threads for files wait for a slow disk", "all threads for files wait for a slow disk for a while")
async def _slow_disk(scene: Scene, operation: Operation, name: str) -> Any:
    over, waiting = threading.Event(), list[object]()
    settings = Settings(base_url=scene.server.base_url, concurrency=32)
    async with MediaApi(TOKEN, "1", settings=settings) as others:
        await others.get_info("8")
        scene.server.requests.clear()
        uploads = [asyncio.ensure_future(others.upload(_SlowFile(over, waiting))) for _ in range(32)]
        try:
            await wait_until(lambda: len(waiting) >= 16)
            if name.endswith("while"):
                asyncio.get_running_loop().call_later(0.3, over.set)
            return await operation()
        finally:
            over.set()
            await asyncio.gather(*uploads, return_exceptions=True)  # those files are empty


# Cancelled, killed, forked, and other loops


@calling("cancelled at every fifth await, once and twice", "cancelled at every tenth await, once and twice")
async def _cancelled(scene: Scene, operation: Operation, name: str) -> Any:
    step = 5 if "fifth" in name else 10
    for times in (1, 2):
        at, reached = times if scene.cell.items else 1, True
        while reached:
            stepper = Stepper(at, times=times)
            task = await stepper.run(lambda: awaited(operation))
            reached = stepper.reached
            assert task.cancelled() is reached
            await settled_at([], lambda: left_over(scene.folder))  # a thread of a slow disk may be left behind
            if scene.cell.items:
                assert stepper.alive == [], "work went on after the run had ended"
                check_many_files(scene, None)
            else:
                await settled_at([], lambda: stepper.alive)  # noqa: B023 - awaited here
                assert {entry.name for entry in scene.folder.iterdir()} == {scene.target.name}
            assert (await scene.api.get_info("8")).id == "8"
            scene.restart()
            at += step
        assert at > (30 if scene.cell.items else 10)
    return await operation()


async def elsewhere(work: Callable[[], Awaitable[Any]]) -> Any:
    """Await something in another thread's event loop."""

    def run() -> Any:
        with asyncio.Runner() as runner:
            return runner.run(awaited(work))

    return await anyio.to_thread.run_sync(run)


async def awaited(work: Callable[[], Awaitable[Any]]) -> Any:
    """Await something for at most 20 s."""
    async with asyncio.timeout(20):
        return await work()


@named("a loop that ends in the middle")
async def _ending_loop(scene: Scene) -> AsyncIterator[None]:
    operation = scene.call
    struck = threading.Event()
    scene.server.struck.append(struck.set)

    async def left_behind() -> asyncio.Future[Any]:
        task = asyncio.ensure_future(operation(scene))
        await wait_until(struck.is_set)
        return task

    async def call(_: Scene) -> Any:
        task = await elsewhere(left_behind)
        assert task.cancelled()
        raise asyncio.CancelledError

    scene.call = call
    try:
        yield
    finally:
        if scene.cell.items:  # connections that waited for their next item died with their loop
            await _collected(scene)


async def _collected(scene: Scene) -> None:
    """Let Python close what died with its loop: asyncio warns of such connections, now, and not in another test."""
    async with asyncio.timeout(20):
        while scene.server.open:
            gc.collect()
            await asyncio.sleep(0)


@named("a client that was used in another loop")
async def _two_loops(scene: Scene) -> AsyncIterator[None]:
    operation = scene.call

    async def call(_: Scene) -> Any:
        await elsewhere(lambda: scene.api.get_info("8"))
        await elsewhere(lambda: scene.api.read(scene.known("8")))
        scene.server.requests.clear()
        scene.server.connections = 0
        scene.server.deaf += 2  # what died with its loop ends when Python gets round to it
        return await operation(scene)

    scene.call = call
    try:
        yield
    finally:
        await _collected(scene)


@calling("a client that is closed", "a client that is closed twice at the end")
async def _closed(scene: Scene, operation: Operation, name: str) -> Any:
    scene.open_after = False
    if name.endswith("closed"):
        await scene.api.aclose()
    value = await operation()
    await scene.api.aclose()
    await scene.api.aclose()
    return value


_CHILD: Final = """
import asyncio, os, sys
from meta_media import MediaApi, MediaInfo, Settings

operation, source, target, url, forks = sys.argv[1:]
base_url = "/".join(url.split("/")[:3])
calls = {
    "upload": lambda api: api.upload(source),
    "get_info": lambda api: api.get_info("7"),
    "download": lambda api: api.download(MediaInfo(id="7", url=url, mime_type="image/jpeg"), target),
    "delete": lambda api: api.delete("7"),
}

async def use(call):
    async with asyncio.timeout(60):
        value = await call(api)
    assert getattr(value, "id", "7") in {"7", "8"}

api = MediaApi("EAAGcanaryTOKENcanary", "1", settings=Settings(base_url=base_url, chunk_size=4096, max_retries=0))
with asyncio.Runner() as runner:
    if forks == "forks":
        runner.run(use(lambda api: api.get_info("8")))
        child = os.fork()
        if not child:
            runner.run(use(calls[operation]))
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    else:
        runner.run(use(calls[operation]))
    runner.run(api.aclose())
"""


def _child(scene: Scene, forks: str = "") -> list[str]:
    told = [scene.cell.operation, str(scene.source), str(scene.target), scene.known().url, forks]
    return [sys.executable, "-c", _CHILD, *told]


@calling("a process that was forked after it had connected")
async def _forked(scene: Scene, _: Operation) -> Any:
    await anyio.run_process(_child(scene, "forks"), stderr=None)
    return ELSEWHERE


@calling("killed in the middle, and run again")
async def _killed(scene: Scene, operation: Operation) -> Any:
    def leftovers() -> list[Path]:
        return [entry for entry in scene.folder.iterdir() if entry != scene.target]

    downloads = scene.cell.operation == "download"
    await kill_when(_child(scene), lambda: not scene.server.faults and (not downloads or bool(leftovers())))
    assert scene.target.read_bytes() == OLD
    left = leftovers()
    assert len(left) == downloads
    assert all(_PARTIAL.fullmatch(path.name) for path in left)
    assert await clean_stale(scene.folder, older_than=timedelta(0)) == left
    return await operation()


async def kill_when(command: list[str], condition: Callable[[], bool]) -> None:
    """Run a process, and kill it when the condition holds."""
    process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.DEVNULL)
    await wait_until(condition)
    process.send_signal(signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL
