"""Cancels a call at a chosen await; and a server that is lean enough for thousands of such calls."""

from __future__ import annotations

import asyncio
import functools
import os
import ssl
import types
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Self, cast

from tests.support.servers import Listener

_BUFFER_SIZE = 2**20  # bytes received at a time
_stepper: ContextVar[Stepper | None] = ContextVar("stepper", default=None)


class Stepper:
    """
    Runs a call as a task, counts its awaits and those of the tasks that it creates, and cancels it at one of them.

    The await `at` is counted from 1; 0 for none. The task is cancelled `times` times, on successive turns of the loop. With
    `late`, it is cancelled after the awaited future is done, just before the task resumes.
    """

    def __init__(self, at: int = 0, *, times: int = 1, late: bool = False) -> None:
        self.count = 0  # awaits so far
        self._at = at
        self._times = times
        self._late = late
        self._main: asyncio.Task[Any] | None = None
        self.tasks: list[asyncio.Task[Any]] = []  # the call's own, and those that it created

    @property
    def alive(self) -> list[asyncio.Task[Any]]:
        """The tasks of the call that have not ended."""
        return [task for task in self.tasks if not task.done()]

    @property
    def reached(self) -> bool:
        """Whether the call reached the await to cancel at."""
        return 0 < self._at <= self.count

    async def run(self, call: Callable[[], Coroutine[Any, Any, Any]]) -> asyncio.Task[Any]:
        """Run the call, and return its task once it is done."""
        loop = asyncio.get_running_loop()
        before = loop.get_task_factory()
        loop.set_task_factory(_counted_task)
        entered = _stepper.set(self)
        try:
            self._main = loop.create_task(call())
        finally:
            _stepper.reset(entered)
        try:
            await asyncio.wait((self._main,))
        finally:
            loop.set_task_factory(before)
        return self._main

    def awaited(self, what: Any) -> None:
        """Count an await, and cancel if it is the chosen one."""
        self.count += 1
        if self.count != self._at:
            return
        if not self._late:
            self._cancel(self._times)
        elif what is None:
            asyncio.get_running_loop().call_soon(self._cancel, self._times)
        else:
            what.add_done_callback(lambda _: self._cancel(self._times))

    def _cancel(self, times: int) -> None:
        assert self._main is not None
        self._main.cancel()
        if times > 1:
            asyncio.get_running_loop().call_soon(self._cancel, times - 1)


def _counted_task(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
    stepper = _stepper.get()
    if stepper is None:
        return asyncio.Task(work, loop=loop, **options)
    task = asyncio.Task(_awaiting(work, stepper), loop=loop, **options)
    stepper.tasks.append(task)
    return task


async def _awaiting(work: Coroutine[Any, Any, Any], stepper: Stepper) -> Any:
    return await _trampoline(work, stepper)


@types.coroutine
def _trampoline(work: Coroutine[Any, Any, Any], stepper: Stepper) -> Generator[Any, Any, Any]:
    failure: BaseException | None = None
    try:
        while True:
            awaited = work.send(None) if failure is None else work.throw(failure)
            failure = None
            stepper.awaited(awaited)
            try:
                yield awaited
            except BaseException as error:  # noqa: BLE001 - it is passed on
                failure = error
    except StopIteration as end:
        return end.value


def descriptors() -> set[tuple[str, str]]:
    """List the open descriptors of this process: each number and its target."""
    held = set()
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - thousands of times
        with suppress(FileNotFoundError):  # the one of this list itself
            held.add((number, os.readlink(f"/proc/self/fd/{number}")))  # noqa: PTH115 - as above
    return {one for one in held if one[1] != os.devnull}  # a loop of uvloop that accepts connections keeps one


async def settled_at(expected: Any, measure: Callable[[], Any]) -> None:
    """Wait until a measure has a value: the peer notices a closed connection a few turns later."""
    await _settled(lambda: measure() == expected, measure)


async def none_added(before: set[Any], measure: Callable[[], set[Any]]) -> None:
    """Wait until a measure has no more than before; items that an earlier test left may disappear."""
    await _settled(lambda: measure() <= before, lambda: measure() - before)


async def _settled(settled: Callable[[], bool], measure: Callable[[], Any]) -> None:
    try:
        async with asyncio.timeout(20):
            while not settled():  # noqa: ASYNC110 - no event announces it
                await asyncio.sleep(0)  # a turn of the loop
    except TimeoutError as error:
        raise AssertionError(f"still {measure()}") from error


Answer = Callable[[str, str], bytes]


class LeanServer(Listener):
    """Responds to each request at once with the result of `answer(method, target)`; `connection: close` closes."""

    def __init__(self, answer: Answer, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        super().__init__(tls, host)
        self.open: set[_LeanConnection] = set()
        self.connections = 0  # so far
        self.requests: list[tuple[str, str]] = []  # method and target of those that were received completely
        self.served_by: list[int] = []  # the number, from 1, of the connection of each request
        self.answer = answer
        self.buffer = memoryview(bytearray(_BUFFER_SIZE))

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        make = functools.partial(_LeanConnection, self)
        self._server = await loop.create_server(make, self._host, 0, ssl=self.tls, backlog=1024)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for connection in tuple(self.open):
            connection.transport.abort()
        await settled_at(set(), lambda: self.open)


class _LeanConnection(asyncio.BufferedProtocol):
    """One connection. Bodies are counted in a buffer that all connections share, and not kept."""

    transport: asyncio.Transport

    def __init__(self, server: LeanServer) -> None:
        self._server = server
        self._head = bytearray()
        self._left = 0  # bytes of the current body still to come
        self._request = ("", "")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are of no class of asyncio's
        self._server.connections += 1
        self._number = self._server.connections
        self._server.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.open.discard(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._server.buffer

    def buffer_updated(self, nbytes: int) -> None:
        taken = min(nbytes, self._left)
        self._left -= taken
        if taken and not self._left:
            self._respond()
        if taken < nbytes:
            self._head += self._server.buffer[taken:nbytes]
            self._read_heads()

    def _read_heads(self) -> None:
        while (end := self._head.find(b"\r\n\r\n")) >= 0 and not self.transport.is_closing():
            head = bytes(self._head[:end]).lower()
            method, target, _ = self._head[:end].split(b"\r\n", 1)[0].decode().split(" ")
            self._request = (method, target)
            length = _length(head)
            if b"\r\nexpect: 100-continue" in head:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            taken = min(length, len(self._head) - end - 4)
            del self._head[: end + 4 + taken]
            self._left = length - taken
            if self._left:
                return
            self._respond()

    def _respond(self) -> None:
        self._server.requests.append(self._request)
        self._server.served_by.append(self._number)
        response = self._server.answer(*self._request)
        self.transport.write(response)
        if b"connection: close" in response.partition(b"\r\n\r\n")[0]:
            self.transport.close()


def _length(head: bytes) -> int:
    start = head.find(b"\r\ncontent-length:")
    return int(head[start + 17 :].split(b"\r\n", 1)[0]) if start >= 0 else 0
