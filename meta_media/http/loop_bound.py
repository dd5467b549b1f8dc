"""State that belongs to one event loop at a time, such as locks and connections; and waits that no cancellation cuts short."""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import anyio

from meta_media.errors import ConfigurationError

__all__ = ["LoopBound", "outwait", "running_loop"]

T = TypeVar("T")
_locks: Final[dict[int, threading.Lock]] = {}  # by process: after a fork, the parent's may be locked for ever


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop that runs here; `ConfigurationError` if it is trio's, or if there is none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        what = (
            "meta_media needs a running asyncio event loop: use asyncio.run, or anyio.run without trio as its backend"
        )
        raise ConfigurationError(what) from None


async def outwait(future: asyncio.Future[Any], seconds: float = math.inf) -> asyncio.CancelledError | None:
    """Wait for a future whatever is cancelled meanwhile. Return the first cancellation of asyncio's."""
    cancelled, until = None, time.monotonic() + seconds
    with anyio.CancelScope(shield=True):  # holds back anyio's cancellations
        while not future.done() and (left := until - time.monotonic()) > 0:
            try:
                await asyncio.wait((future,), timeout=None if left == math.inf else left)
            except asyncio.CancelledError as error:
                cancelled = cancelled or error
    return cancelled


class LoopBound(Generic[T]):
    """
    State of an object that only one event loop at a time can use.

    A task that waits for a lock is never woken from another loop. A second running loop is therefore refused. A loop that
    follows another one, or that runs in a child process, gets state of its own.
    """

    def __init__(self, owner: str, make: Callable[[T | None], T]) -> None:
        self._owner = owner  # the class that error messages name
        self._make = make  # from the state of the loop before, if there was one
        self._process = 0
        self._home: asyncio.AbstractEventLoop | None = None
        self._states: dict[asyncio.AbstractEventLoop, T] = {}

    def get(self) -> T:
        """Return the state for the running event loop; `ConfigurationError` if another loop uses the object now."""
        loop = running_loop()
        if self._home is not loop or self._process != os.getpid():
            with _locks.setdefault(os.getpid(), threading.Lock()):
                self._move(loop)
        return self._states[loop]

    def _move(self, loop: asyncio.AbstractEventLoop) -> None:
        before, process = self._home, os.getpid()
        if process == self._process:
            if before is not loop and before is not None and before.is_running():
                raise ConfigurationError(f"this {self._owner} is in use by another event loop: make one for each")
            kept = {known: state for known, state in self._states.items() if not known.is_closed()}
        else:
            kept = {}
        if loop not in kept:
            kept[loop] = self._make(None if before is None else self._states[before])
        self._states, self._home, self._process = kept, loop, process
