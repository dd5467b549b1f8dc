"""What the copies of a `MediaApi` share: connections, the places in front of them, and the token."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import anyio

from .errors import ConfigurationError, Operation
from .files import in_thread
from .models import converter
from .settings import checked_token

if TYPE_CHECKING:
    import ssl

    import httpx

_Wires = tuple[Any, Any]  # for http, which stays on this machine, and for https

__all__ = ["Connections", "Secret", "Token"]


class Secret(str):
    """Text that is itself when used, and nothing when shown: tracebacks with local variables end in logs."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class Token:
    """An access token: a string, or an async callable that gives one and is asked once for all who wait for it."""

    def __init__(self, source: str | Callable[[], Awaitable[str]] | None) -> None:
        self._ask = source if callable(source) else None
        self._known = Secret(checked_token(source)) if isinstance(source, str) else None
        self._asking = anyio.Lock()

    async def get(self) -> str:
        """Return the token; `ConfigurationError` if there is none."""
        if self._known is not None:
            return self._known
        async with self._asking:
            if self._known is None:
                self._known = Secret(checked_token(await self._ask() if self._ask else None))
            return self._known

    def forget(self, refused: str) -> None:
        """Ask again next time, where there is somebody to ask and nobody has since this token was given out."""
        if self._ask and self._known == refused:
            self._known = None


class Connections:
    """
    The connections that a `MediaApi` and all its `with_options` copies share.

    Graph and the download hosts each have their own places, so that a task which holds a download open while it uploads
    cannot wait for itself.
    """

    def __init__(self, client: httpx.AsyncClient | None, concurrency: int) -> None:
        self._given = client
        self._wires: _Wires | None = None
        self._opening = anyio.Lock()
        self._concurrency = concurrency
        self._places = {kind: anyio.Semaphore(concurrency, fast_acquire=True) for kind in (True, False)}
        self.closed = False

    def place(self, operation: Operation) -> anyio.Semaphore:
        """Return the queue in which a call waits for its turn."""
        return self._places[operation == "download"]

    async def wire(self, url: str) -> Any:
        """Return what sends to a URL: the caller's client, or ours, which is made at first need."""
        wires = self._wires or await self._open()
        return wires[url.startswith("https:")]

    async def _open(self) -> _Wires:
        async with self._opening:
            if self.closed:
                raise ConfigurationError("this MediaApi is closed")
            if self._wires is None:
                self._wires = await in_thread(_opened, self._given, self._concurrency)
            return self._wires

    async def aclose(self) -> None:
        """Close what we opened, once; the caller's client is theirs."""
        self.closed = True
        async with self._opening:  # whoever opens it just now must not leave it behind
            wires, self._wires = self._wires, None
        if wires is not None and self._given is None:
            for wire in set(wires):
                await wire.aclose()


def _opened(given: httpx.AsyncClient | None, concurrency: int) -> _Wires:
    """Do on a thread what takes a tenth of a second: import aiofiles, cattrs and httpx, load the certificates."""
    importlib.import_module("aiofiles.tempfile")
    converter()
    from .guard import GuardedClient

    if given is None:
        return _new_wires(concurrency)
    wire = GuardedClient(given)
    return wire, wire


def _new_wires(concurrency: int) -> _Wires:
    """Make what sends: our transport; but https through a proxy is httpx's business. Proxies never see plain http."""
    import urllib.request

    import httpx

    from .guard import GuardedClient
    from .transport import Transport

    try:
        if {"https", "all"}.isdisjoint(urllib.request.getproxies()):
            wire = Transport(_tls(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")))
            return wire, wire
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=2 * concurrency)
        return Transport(), GuardedClient(httpx.AsyncClient(limits=limits, follow_redirects=False))
    except Exception as error:
        raise ConfigurationError(
            "the HTTP client could not be made; look at HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE and"
            f" SSL_CERT_DIR in the environment ({type(error).__name__})"
        ) from error


@functools.cache
def _tls(*_: str | None) -> ssl.SSLContext:
    """Load the certificates once for each value of the environment variables that name them."""
    import httpx

    return httpx.create_ssl_context()
