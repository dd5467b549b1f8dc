"""What goes wrong without a server's doing: names, ports, disks, clocks, loops, processes, callbacks."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import anyio

from meta_media import MediaApi, Progress, Settings, clean_stale
from tests.faults.scenes import ELSEWHERE, OLD, OPERATIONS, TOKEN, Scene
from tests.faults.server import FaultServer
from tests.support.servers import until
from tests.support.stepping import Stepper, settled_at

__all__ = ["SETUPS", "awaited", "elsewhere", "named"]

SetUp = Callable[[Scene], contextlib.AbstractAsyncContextManager[None]]
Call = Callable[[Scene], Awaitable[Any]]
Address = tuple[str, int]
SETUPS: Final[dict[str, SetUp]] = {}
_DAY: Final = 86_400.0  # seconds
_PARTIAL: Final = re.compile(r"\.[0-9a-f]{16}\.meta-media\.part")


def named(*names: str) -> Callable[[Callable[..., AsyncIterator[None]]], None]:
    """Register a set-up under each of its names; with several, it is told which one is meant."""

    def register(function: Callable[..., AsyncIterator[None]]) -> None:
        made = contextlib.asynccontextmanager(function)
        for name in names:
            SETUPS[name] = made if len(names) == 1 else _told(made, name)

    return register


def _told(made: Callable[..., contextlib.AbstractAsyncContextManager[None]], name: str) -> SetUp:
    return lambda scene: made(scene, name)


@named("nothing else")
async def _nothing(_: Scene) -> AsyncIterator[None]:
    yield


# Names and addresses


def _resolved(scene: Scene, first: Callable[[], Address], *, always: bool) -> None:
    """Give the server a name, which the system's resolver answers as told: the first time, or always."""
    port = scene.server.port
    scene.server.places["base"] = f"{scene.cell.scheme}://localhost:{port}"
    asked: list[object] = []

    def resolve(host: str | bytes, *_: Any, flags: int = 0, **__: Any) -> list[Any]:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        assert host in {"localhost", b"localhost"}
        asked.append(host)
        address = first() if always or len(asked) == 1 else ("127.0.0.1", port)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address)]

    scene.patch.setattr(socket, "getaddrinfo", resolve)
    scene.proofs.append(lambda: bool(asked))


@named("a name that nobody knows at first", "a name that nobody knows")
async def _unknown_name(scene: Scene, name: str) -> AsyncIterator[None]:
    def unknown() -> Address:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    _resolved(scene, unknown, always=not name.endswith("first"))
    yield


@named("a resolver that hangs at first", "a resolver that hangs")
async def _hanging_name(scene: Scene, name: str) -> AsyncIterator[None]:
    over = threading.Event()

    def hang() -> Address:
        over.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    async def call(_: Scene) -> Any:
        try:
            return await operation(scene)
        finally:
            over.set()  # else the threads would have no time for the calls that follow

    _resolved(scene, hang, always=not name.endswith("first"))
    operation, scene.call = scene.call, call
    yield


@named("all threads of the resolver hang")
async def _busy_resolver(scene: Scene) -> AsyncIterator[None]:
    operation = scene.call

    async def call(_: Scene) -> Any:
        over = threading.Event()
        loop = asyncio.get_running_loop()
        hanging = [loop.run_in_executor(None, over.wait, 60) for _ in range(40)]  # of which 32 at most can be under way
        try:
            return await operation(scene)
        finally:
            over.set()
            await asyncio.wait(hanging)

    scene.call = call
    yield


@named("a port where nobody listens at first", "a port where nobody listens")
async def _closed_port(scene: Scene, name: str) -> AsyncIterator[None]:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = closed.getsockname()
        _resolved(scene, lambda: address, always=not name.endswith("first"))
        yield


@named("an address without a route at first", "an address without a route")
async def _no_route(scene: Scene, name: str) -> AsyncIterator[None]:
    # no system makes a TCP connection to a multicast address: it says at once that there is no way
    _resolved(scene, lambda: ("224.0.0.1", 9), always=not name.endswith("first"))
    yield


@named("a host that does not accept at first", "a host that does not accept")
async def _deaf_host(scene: Scene, name: str) -> AsyncIterator[None]:
    with contextlib.ExitStack() as stack:
        deaf = stack.enter_context(socket.socket())
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(4):  # more than its queue takes; whoever comes now is not answered
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        address = deaf.getsockname()
        _resolved(scene, lambda: address, always=not name.endswith("first"))
        yield


@named("another host that is trusted with media")
async def _trusted_host(scene: Scene) -> AsyncIterator[None]:
    other = await scene.stack.enter_async_context(FaultServer(scene.server.graph, scene.server.tls))
    scene.server.places["other"] = other.base_url
    scene.settings["media_hosts"] = (f"127.0.0.1:{other.port}",)

    def served() -> None:
        assert len(other.requests) <= 1
        assert all("authorization" not in request.headers for request in other.requests)

    scene.checks.append(served)
    yield


@named("another host that is not trusted")
async def _foreign_host(scene: Scene) -> AsyncIterator[None]:
    sink = await scene.stack.enter_async_context(FaultServer(scene.server.graph, scene.server.tls))
    own = scene.server.places
    own["sink"] = sink.base_url
    own["with_user"] = scene.server.base_url.replace("://", "://lookaside.fbsbx.com@")

    def untouched() -> None:
        assert sink.connections == 0

    scene.checks.append(untouched)
    yield


# Places and tokens


@named("the only place is taken for a while")
async def _taken(scene: Scene) -> AsyncIterator[None]:
    operation, server = scene.call, scene.server

    async def call(_: Scene) -> Any:
        server.held = asyncio.Event()
        held = OPERATIONS["read" if scene.cell.operation == "download" else "get_info"]
        tasks = [asyncio.ensure_future(held(scene))]
        try:
            await until(lambda: len(server.requests) == 1)
            tasks.append(asyncio.ensure_future(operation(scene)))
            for _turn in range(20):
                await asyncio.sleep(0)  # turns of the loop, in which it would begin if it could
            assert len(server.requests) == 1
            server.requests.clear()
            server.held.set()
            return await tasks[1]
        finally:
            server.held.set()
            for task in tasks[1:]:
                task.cancel()
            await asyncio.wait(tasks)

    scene.call = call
    yield


@named("a token that is always the same", "a new token each time")
async def _asked_token(scene: Scene, name: str) -> AsyncIterator[None]:
    given: list[str] = []

    async def ask() -> str:
        given.append(TOKEN if name.endswith("same") else f"{TOKEN}{len(given)}")
        return given[-1]

    scene.token = ask
    yield


# Time


async def _aged(scene: Scene, age: float) -> Any:
    """Download by information that Meta gave so many seconds ago, by the clock that nobody sets."""
    scene.what = await scene.api.get_info("7")
    scene.server.requests.clear()
    now = time.monotonic
    scene.patch.setattr(time, "monotonic", lambda: now() + age)
    return await OPERATIONS[scene.cell.operation](scene)


@named("information that is five minutes old")
async def _old(scene: Scene) -> AsyncIterator[None]:
    scene.call = lambda _: _aged(scene, 300)
    yield


@named("information that is three minutes old")
async def _younger(scene: Scene) -> AsyncIterator[None]:
    scene.call = lambda _: _aged(scene, 180)
    yield


@named("a clock that jumps a day ahead", "a clock that jumps a day back")
async def _jumping_clock(scene: Scene, name: str) -> AsyncIterator[None]:
    now, jump = time.time, [0.0]
    scene.patch.setattr(time, "time", lambda: now() + jump[0])
    scene.server.struck.append(lambda: jump.__setitem__(0, _DAY if name.endswith("ahead") else -_DAY))
    yield


# Files


def _limited(scene: Scene, enter: Callable[[], object], leave: Callable[[], object]) -> Call:
    """Make the call under a limit of the whole process, once the client has loaded whatever it loads."""
    operation = scene.call

    async def call(_: Scene) -> Any:
        await scene.api.get_info("8")
        scene.server.requests.clear()
        enter()
        try:
            return await operation(scene)
        finally:
            leave()

    return call


@named("files may not grow")
async def _small_files(scene: Scene) -> AsyncIterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    scene.call = _limited(
        scene,
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1])),
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before),
    )
    yield


@named("a destination that is full")
async def _full_handle(scene: Scene) -> AsyncIterator[None]:
    scene.handle = scene.stack.enter_context(os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb", buffering=0))
    yield


@named("a disk that is full at the end")
async def _full_disk(scene: Scene) -> AsyncIterator[None]:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    scene.patch.setattr(os, "fsync", full)
    yield


@named("a folder that may not be entered")
async def _forbidden(scene: Scene) -> AsyncIterator[None]:
    scene.folder.parent.chmod(0o700)
    user = os.geteuid()
    hidden = scene.folder.parent if user == 0 else None

    def enter() -> None:
        if user == 0:  # whom no mode keeps out
            os.seteuid(65534)
        else:
            scene.folder.parent.chmod(0)

    def leave() -> None:
        if hidden is None:
            scene.folder.parent.chmod(0o700)
        else:
            os.seteuid(user)

    scene.call = _limited(scene, enter, leave)
    yield


@named("a folder that is not there")
async def _no_folder(scene: Scene) -> AsyncIterator[None]:
    scene.target = scene.folder / "none" / "photo.jpg"
    scene.source = scene.folder / "none" / "source.txt"
    scene.others.add("photo.jpg")
    yield


@named("a name that is too long")
async def _long_name(scene: Scene) -> AsyncIterator[None]:
    scene.target = scene.folder / ("x" * 300)
    scene.source = scene.folder / ("x" * 300)
    scene.others.add("photo.jpg")
    yield


@named("a folder that nobody can write to")
async def _read_only(scene: Scene) -> AsyncIterator[None]:
    scene.target = Path("/proc/photo.jpg")
    scene.others.add("photo.jpg")
    yield


@named("a target that may not be replaced")
async def _kept(scene: Scene) -> AsyncIterator[None]:
    scene.overwrite = False
    yield


@named("a target that appears meanwhile and may not be replaced")
async def _appearing(scene: Scene) -> AsyncIterator[None]:
    scene.overwrite = False
    scene.target = scene.folder / "new.jpg"
    scene.others.add("photo.jpg")
    scene.server.struck.append(lambda: scene.target.write_bytes(OLD))
    yield


@named("a symlink at the target")
async def _symlink(scene: Scene) -> AsyncIterator[None]:
    victim = scene.folder.parent / "victim"
    victim.write_bytes(OLD)
    scene.target.unlink()
    scene.target.symlink_to(victim)

    def unharmed() -> None:
        assert victim.read_bytes() == OLD

    scene.checks.append(unharmed)
    yield


@named("a FIFO at the target")
async def _fifo(scene: Scene) -> AsyncIterator[None]:
    scene.target.unlink()
    os.mkfifo(scene.target)

    def there() -> None:
        assert scene.target.is_fifo()

    scene.checks.append(there)
    yield


@named("a source that becomes shorter while it is sent", "a source that becomes longer while it is sent")
async def _changing(scene: Scene, name: str) -> AsyncIterator[None]:
    size = 100_000 if "shorter" in name else scene.cell.size + 1

    def change(progress: Progress) -> None:
        if progress.transferred > scene.cell.size // 2:
            os.truncate(scene.source, size)

    scene.progress = change

    def nothing_stored() -> None:
        assert scene.sent not in scene.server.graph.stored

    scene.checks.append(nothing_stored)
    yield


# The caller's own


@named("a callback that raises")
async def _raising(scene: Scene) -> AsyncIterator[None]:
    def half_way(progress: Progress) -> None:
        if progress.transferred > 1_000_000 or scene.cell.verb == "download":
            raise ZeroDivisionError("mine")

    scene.progress = half_way
    yield


@named("a callback that takes its time")
async def _slow_callback(scene: Scene) -> AsyncIterator[None]:
    async def progress(_: object) -> None:
        await asyncio.sleep(0.2)  # longer, in all, than any wait for the peer may take

    scene.progress = progress
    yield


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


@named("all threads for files wait for a slow disk", "all threads for files wait for a slow disk for a while")
async def _slow_disk(scene: Scene, name: str) -> AsyncIterator[None]:
    operation = scene.call
    over, waiting = threading.Event(), list[object]()

    async def call(_: Scene) -> Any:
        settings = Settings(base_url=scene.server.base_url, concurrency=32)
        async with MediaApi(TOKEN, "1", settings=settings) as others:
            await others.get_info("8")
            scene.server.requests.clear()
            uploads = [asyncio.ensure_future(others.upload(_SlowFile(over, waiting))) for _ in range(32)]
            try:
                await until(lambda: len(waiting) >= 16)
                if name.endswith("while"):
                    asyncio.get_running_loop().call_later(0.3, over.set)
                return await operation(scene)
            finally:
                over.set()
                await asyncio.gather(*uploads, return_exceptions=True)  # there was nothing in those files

    scene.call = call
    yield


# Cancelled, killed, forked, and other loops


@named("cancelled at every fifth await, once and twice")
async def _cancelled(scene: Scene) -> AsyncIterator[None]:
    operation = scene.call

    async def tried(at: int, times: int) -> bool:
        stepper = Stepper(at, times=times)
        task = await stepper.run(lambda: awaited(lambda: operation(scene)))
        assert task.cancelled() is stepper.reached
        await settled_at([], lambda: stepper.alive)
        assert {entry.name for entry in scene.folder.iterdir()} == {scene.target.name}
        assert (await scene.api.get_info("8")).id == "8"
        scene.restart()
        return stepper.reached

    async def call(_: Scene) -> Any:
        for times in (1, 2):
            at = 1
            while await tried(at, times):
                at += 5
            assert at > 5
        return await operation(scene)

    scene.call = call
    yield


async def elsewhere(work: Callable[[], Awaitable[Any]]) -> Any:
    """Await something in another thread's event loop."""

    def run() -> Any:
        with asyncio.Runner() as runner:
            return runner.run(awaited(work))

    return await anyio.to_thread.run_sync(run)


async def awaited(work: Callable[[], Awaitable[Any]]) -> Any:
    """Await something, but not for ever."""
    async with asyncio.timeout(20):
        return await work()


@named("a loop that ends in the middle")
async def _ending_loop(scene: Scene) -> AsyncIterator[None]:
    operation = scene.call
    struck = threading.Event()
    scene.server.struck.append(struck.set)

    async def left_behind() -> asyncio.Future[Any]:
        task = asyncio.ensure_future(operation(scene))
        await until(struck.is_set)
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


@named("a client that is closed")
async def _closed(scene: Scene) -> AsyncIterator[None]:
    operation = scene.call

    async def call(_: Scene) -> Any:
        await scene.api.aclose()
        return await operation(scene)

    scene.call, scene.open_after = call, False
    yield


@named("a client that is closed twice at the end")
async def _closed_twice(scene: Scene) -> AsyncIterator[None]:
    operation = scene.call

    async def call(_: Scene) -> Any:
        value = await operation(scene)
        await scene.api.aclose()
        await scene.api.aclose()
        return value

    scene.call, scene.open_after = call, False
    yield


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


@named("a process that was forked after it had connected")
async def _forked(scene: Scene) -> AsyncIterator[None]:
    async def call(_: Scene) -> Any:
        await anyio.run_process(_child(scene, "forks"), stderr=None)
        return ELSEWHERE

    scene.call = call
    yield


@named("killed in the middle, and run again")
async def _killed(scene: Scene) -> AsyncIterator[None]:
    operation = scene.call

    def leftovers() -> list[Path]:
        return [entry for entry in scene.folder.iterdir() if entry != scene.target]

    async def call(_: Scene) -> Any:
        downloads = scene.cell.operation == "download"
        process = await asyncio.create_subprocess_exec(*_child(scene), stdin=subprocess.DEVNULL)
        await until(lambda: not scene.server.faults and (not downloads or bool(leftovers())))
        process.send_signal(signal.SIGKILL)
        assert await process.wait() == -signal.SIGKILL
        assert scene.target.read_bytes() == OLD
        left = leftovers()
        assert len(left) == downloads
        assert all(_PARTIAL.fullmatch(path.name) for path in left)
        assert await clean_stale(scene.folder, older_than=timedelta(0)) == left
        return await operation(scene)

    scene.call = call
    yield
