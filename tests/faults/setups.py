"""What goes wrong without a server's doing: names, ports, disks, clocks, loops, processes, callbacks."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import gc
import inspect
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

__all__ = ["SETUPS", "Operation", "awaited", "calling", "elsewhere", "kill_when", "named"]

SetUp = Callable[[Scene], contextlib.AbstractAsyncContextManager[None]]
Operation = Callable[[], Awaitable[Any]]
Address = tuple[str, int]
SETUPS: Final[dict[str, SetUp]] = {}
_DAY: Final = 86_400.0  # seconds
_PARTIAL: Final = re.compile(r"\.[0-9a-f]{16}\.meta-media\.part")


def named(*names: str) -> Callable[[Callable[..., Any]], None]:
    """Register a set-up under each of its names: a function or an async generator. With several names, it is passed the name."""

    def register(function: Callable[..., Any]) -> None:
        for name in names:
            SETUPS[name] = functools.partial(_prepared, function, (name,) if len(names) > 1 else ())

    return register


@contextlib.asynccontextmanager
async def _prepared(function: Callable[..., Any], name: tuple[str, ...], scene: Scene) -> AsyncIterator[None]:
    prepared = function(scene, *name)
    if not inspect.isasyncgen(prepared):
        yield
        return
    async with contextlib.aclosing(prepared):
        await anext(prepared)
        yield
        await anext(prepared, None)


def calling(*names: str) -> Callable[[Callable[..., Awaitable[Any]]], None]:
    """Register a set-up that makes the call itself: it is passed scene, operation, and with several names the name."""

    def register(function: Callable[..., Awaitable[Any]]) -> None:
        def prepare(scene: Scene, *name: str) -> None:
            operation = scene.call
            scene.call = lambda _: function(scene, functools.partial(operation, scene), *name)

        named(*names)(prepare)

    return register


named("nothing else")(lambda _: None)


# Names and addresses


def _resolved(scene: Scene, first: Callable[[], Address], name: str) -> None:
    """Give the server a host name, and let the system's resolver return `first`: always, or `at first` only."""
    port = scene.server.port
    scene.server.places["base"] = f"{scene.cell.scheme}://localhost:{port}"
    asked: list[object] = []

    def resolve(host: str | bytes, *_: Any, flags: int = 0, **__: Any) -> list[Any]:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        assert host in {"localhost", b"localhost"}
        asked.append(host)
        address = first() if len(asked) == 1 or not name.endswith("first") else ("127.0.0.1", port)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address)]

    scene.patch.setattr(socket, "getaddrinfo", resolve)
    scene.proofs.append(lambda: bool(asked))


def _unknown() -> Address:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


# no system makes a TCP connection to a multicast address: it says at once that there is no route
_ADDRESSES: Final = {"a name that nobody knows": _unknown, "an address without a route": lambda: ("224.0.0.1", 9)}


@named(*_ADDRESSES, *(f"{name} at first" for name in _ADDRESSES))
def _no_address(scene: Scene, name: str) -> None:
    _resolved(scene, _ADDRESSES[name.removesuffix(" at first")], name)


@named("a resolver that hangs at first", "a resolver that hangs")
def _hanging_name(scene: Scene, name: str) -> None:
    over = threading.Event()

    def hang() -> Address:
        over.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    async def call(_: Scene) -> Any:
        try:
            return await operation(scene)
        finally:
            over.set()  # else the threads would have no time for the calls that follow

    _resolved(scene, hang, name)
    operation, scene.call = scene.call, call


@calling("all threads of the resolver hang")
async def _busy_resolver(scene: Scene, operation: Operation) -> Any:
    over = threading.Event()
    loop = asyncio.get_running_loop()
    hanging = [loop.run_in_executor(None, over.wait, 60) for _ in range(40)]  # of which 32 at most can be under way
    try:
        return await operation()
    finally:
        over.set()
        await asyncio.wait(hanging)


@named("a port where nobody listens at first", "a port where nobody listens")
async def _closed_port(scene: Scene, name: str) -> AsyncIterator[None]:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = closed.getsockname()
        _resolved(scene, lambda: address, name)
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
        _resolved(scene, lambda: address, name)
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


@calling("the only place is taken for a while")
async def _taken(scene: Scene, operation: Operation) -> Any:
    server = scene.server
    server.held = asyncio.Event()
    held = OPERATIONS["read" if scene.cell.operation == "download" else "get_info"]
    tasks = [asyncio.ensure_future(held(scene))]
    try:
        await until(lambda: len(server.requests) == 1)
        tasks.append(asyncio.ensure_future(operation()))
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


@named("a token that is always the same", "a new token each time")
def _asked_token(scene: Scene, name: str) -> None:
    given: list[str] = []

    async def ask() -> str:
        given.append(TOKEN if name.endswith("same") else f"{TOKEN}{len(given)}")
        return given[-1]

    scene.token = ask


# Time


@calling("information that is five minutes old", "information that is three minutes old")
async def _aged(scene: Scene, operation: Operation, name: str) -> Any:
    """Download by information of that age, by the monotonic clock."""
    scene.what = await scene.api.get_info("7")
    scene.server.requests.clear()
    now, age = time.monotonic, 300 if "five" in name else 180
    scene.patch.setattr(time, "monotonic", lambda: now() + age)
    return await operation()


@named("a clock that jumps a day ahead", "a clock that jumps a day back")
def _jumping_clock(scene: Scene, name: str) -> None:
    now, jump = time.time, [0.0]
    scene.patch.setattr(time, "time", lambda: now() + jump[0])
    scene.server.struck.append(lambda: jump.__setitem__(0, _DAY if name.endswith("ahead") else -_DAY))


# Files


async def _limited(scene: Scene, operation: Operation, enter: Callable[[], object], leave: Callable[[], object]) -> Any:
    """Make the call under a limit of the whole process, once the client has loaded its modules."""
    await scene.api.get_info("8")
    scene.server.requests.clear()
    enter()
    try:
        return await operation()
    finally:
        leave()


@calling("files may not grow")
async def _small_files(scene: Scene, operation: Operation) -> Any:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE)
    return await _limited(scene, operation, lambda: limit((10_000, before[1])), lambda: limit(before))


@named("a destination that is full")
def _full_handle(scene: Scene) -> None:
    scene.handle = scene.stack.enter_context(os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb", buffering=0))


@named("a disk that is full at the end")
def _full_disk(scene: Scene) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    scene.patch.setattr(os, "fsync", full)


@calling("a folder that may not be entered")
async def _forbidden(scene: Scene, operation: Operation) -> Any:
    folder, user = scene.folder.parent, os.geteuid()
    folder.chmod(0o700)
    if user == 0:  # no mode keeps root out
        return await _limited(scene, operation, lambda: os.seteuid(65534), lambda: os.seteuid(user))
    return await _limited(scene, operation, lambda: folder.chmod(0), lambda: folder.chmod(0o700))


@named("a folder that is not there", "a name that is too long")
def _no_place(scene: Scene, name: str) -> None:
    names = ("none/photo.jpg", "none/source.txt") if name.startswith("a folder") else ("x" * 300, "x" * 300)
    scene.target, scene.source = (scene.folder / it for it in names)
    scene.others.add("photo.jpg")


@named("a folder that nobody can write to")
def _read_only(scene: Scene) -> None:
    scene.target = Path("/proc/photo.jpg")
    scene.others.add("photo.jpg")


@named("a target that may not be replaced")
def _kept(scene: Scene) -> None:
    scene.overwrite = False


@named("a target that appears meanwhile and may not be replaced")
def _appearing(scene: Scene) -> None:
    scene.overwrite = False
    scene.target = scene.folder / "new.jpg"
    scene.others.add("photo.jpg")
    scene.server.struck.append(lambda: scene.target.write_bytes(OLD))


@named("a symlink at the target")
def _symlink(scene: Scene) -> None:
    victim = scene.folder.parent / "victim"
    victim.write_bytes(OLD)
    scene.target.unlink()
    scene.target.symlink_to(victim)

    def unharmed() -> None:
        assert victim.read_bytes() == OLD

    scene.checks.append(unharmed)


@named("a FIFO at the target")
def _fifo(scene: Scene) -> None:
    scene.target.unlink()
    os.mkfifo(scene.target)

    def there() -> None:
        assert scene.target.is_fifo()

    scene.checks.append(there)


@named("a source that becomes shorter while it is sent", "a source that becomes longer while it is sent")
def _changing(scene: Scene, name: str) -> None:
    size = 100_000 if "shorter" in name else scene.cell.size + 1

    def change(progress: Progress) -> None:
        if progress.transferred > scene.cell.size // 2:
            os.truncate(scene.source, size)

    scene.progress = change

    def nothing_stored() -> None:
        assert scene.sent not in scene.server.graph.stored

    scene.checks.append(nothing_stored)


# The caller's own


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
            await until(lambda: len(waiting) >= 16)
            if name.endswith("while"):
                asyncio.get_running_loop().call_later(0.3, over.set)
            return await operation()
        finally:
            over.set()
            await asyncio.gather(*uploads, return_exceptions=True)  # those files are empty


# Cancelled, killed, forked, and other loops


@calling("cancelled at every fifth await, once and twice")
async def _cancelled(scene: Scene, operation: Operation) -> Any:
    for times in (1, 2):
        at, reached = 1, True
        while reached:
            stepper = Stepper(at, times=times)
            task = await stepper.run(lambda: awaited(operation))
            reached = stepper.reached
            assert task.cancelled() is reached
            await settled_at([], lambda: stepper.alive)  # noqa: B023 - awaited here
            assert {entry.name for entry in scene.folder.iterdir()} == {scene.target.name}
            assert (await scene.api.get_info("8")).id == "8"
            scene.restart()
            at += 5
        assert at > 10
    return await operation()


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
    await until(condition)
    process.send_signal(signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL
