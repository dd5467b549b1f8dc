"""Set-ups of what goes wrong outside the server: names, addresses, slots, clocks, files."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import inspect
import os
import resource
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from meta_media import Progress
from tests.faults.scenes import OLD, OPERATIONS, TOKEN, Scene
from tests.faults.server import FaultServer
from tests.support.resolver import replace_resolver
from tests.support.servers import wait_until

SetUp = Callable[[Scene], contextlib.AbstractAsyncContextManager[None]]
Operation = Callable[[], Awaitable[Any]]
Address = tuple[str, int]
SETUPS: Final[dict[str, SetUp]] = {}
_DAY: Final = 86_400.0  # seconds


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

    replace_resolver(scene.patch, resolve)
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
    scene.checks.append(lambda: len(other.requests) <= 1)
    scene.checks.append(lambda: all("authorization" not in request.headers for request in other.requests))
    yield


@named("another host that is not trusted")
async def _foreign_host(scene: Scene) -> AsyncIterator[None]:
    sink = await scene.stack.enter_async_context(FaultServer(scene.server.graph, scene.server.tls))
    with_user = scene.server.base_url.replace("://", "://lookaside.fbsbx.com@")
    scene.server.places |= {"sink": sink.base_url, "with_user": with_user}
    scene.checks.append(lambda: sink.connections == 0)
    yield


# Places and tokens


@calling("the only place is taken for a while")
async def _taken(scene: Scene, operation: Operation) -> Any:
    server = scene.server
    server.held = asyncio.Event()
    held = OPERATIONS["read" if scene.cell.operation == "download" else "get_info"]
    tasks = [asyncio.ensure_future(held(scene))]
    try:
        await wait_until(lambda: len(server.requests) == 1)
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


@named(*(f"a clock that jumps a day {where}{when}" for where in ("ahead", "back") for when in ("", " a moment later")))
def _jumping_clock(scene: Scene, name: str) -> None:
    now, jump = time.time, [0.0]
    scene.patch.setattr(time, "time", lambda: now() + jump[0])

    def strike() -> None:
        far = _DAY if "ahead" in name else -_DAY
        if name.endswith("later"):  # while a pause of one second is kept, or a reply trickles in
            asyncio.get_running_loop().call_later(0.1, jump.__setitem__, 0, far)
        else:
            jump[0] = far

    scene.server.struck.append(strike)


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


@named("a target that may not be replaced", "a target that appears meanwhile and may not be replaced")
def _kept(scene: Scene, name: str) -> None:
    scene.overwrite = False
    if "appears" in name:
        scene.target = scene.folder / "new.jpg"
        scene.others.add("photo.jpg")
        scene.server.struck.append(lambda: scene.target.write_bytes(OLD))


@named("a symlink at the target")
def _symlink(scene: Scene) -> None:
    victim = scene.folder.parent / "victim"
    victim.write_bytes(OLD)
    scene.target.unlink()
    scene.target.symlink_to(victim)
    scene.checks.append(lambda: victim.read_bytes() == OLD)


@named("a FIFO at the target")
def _fifo(scene: Scene) -> None:
    scene.target.unlink()
    os.mkfifo(scene.target)
    scene.checks.append(scene.target.is_fifo)


@named("a pipe without a writer at the source")
def _silent_pipe(scene: Scene) -> None:
    scene.source.unlink()
    os.mkfifo(scene.source)


@named("a target that does not respond")
async def _stuck_target(scene: Scene) -> AsyncIterator[None]:
    go, opened, stuck = threading.Event(), os.open, list[object]()

    def wait(path: Any, *arguments: Any, **options: Any) -> int:
        if threading.current_thread().name.startswith("meta_media"):
            stuck.append(path)
            go.wait()
        return opened(path, *arguments, **options)

    scene.patch.setattr(os, "open", wait)
    scene.proofs.append(lambda: bool(stuck))
    try:
        yield
    finally:
        go.set()


@named("a source that becomes shorter while it is sent", "a source that becomes longer while it is sent")
def _changing(scene: Scene, name: str) -> None:
    size = 100_000 if "shorter" in name else scene.cell.size + 1

    def change(progress: Progress) -> None:
        if progress.transferred > scene.cell.size // 2:
            os.truncate(scene.source, size)

    scene.progress = change
    scene.checks.append(lambda: scene.sent not in scene.server.graph.stored)
