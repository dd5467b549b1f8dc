"""What the copies of a `MediaApi` share: connections, the places in front of them, their pace, and the token."""

from __future__ import annotations

import functools
import importlib
import os
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from meta_media.errors import ConfigurationError, Operation
from meta_media.http.limits import Limits
from meta_media.protocol.convert import converter

if TYPE_CHECKING:
    import ssl

    import httpx

__all__ = ["Connections"]


class Connections:
    """
    The connections that a `MediaApi` and all its `with_options` copies share.

    Graph and the download hosts each have their own places, so that a task which holds a download open while it uploads
    cannot wait for itself.
    """

    def __init__(
        self, client: httpx.AsyncClient | None, concurrency: int, proxy: str | None, limits: Limits | None = None
    ) -> None:
        self.limits = limits or Limits()
        self._given = client
        self._proxy = proxy
        self._wire: Any = None
        self._opening = anyio.Lock()
        self._loader = anyio.CapacityLimiter(1)  # the default one is shared with everybody else
        self._places = {kind: anyio.Semaphore(concurrency, fast_acquire=True) for kind in (True, False)}
        self.closed = False

    def place(self, operation: Operation) -> anyio.Semaphore:
        """Return the queue in which a call waits for its turn."""
        return self._places[operation == "download"]

    async def wire(self) -> Any:
        """Return what sends: the caller's client, or ours, which is made at first need."""
        return self._wire or await self._open()

    async def _open(self) -> Any:
        async with self._opening:
            if self.closed:
                raise ConfigurationError("this MediaApi is closed")
            if self._wire is None:
                self._wire = await anyio.to_thread.run_sync(_opened, self._given, self._proxy, limiter=self._loader)
            return self._wire

    async def aclose(self) -> None:
        """Close what we opened, once; the caller's client is theirs."""
        self.closed = True
        async with self._opening:  # whoever opens it just now must not leave it behind
            wire, self._wire = self._wire, None
        if wire is not None and self._given is None:
            await wire.aclose()


def _opened(given: httpx.AsyncClient | None, proxy: str | None) -> Any:
    """Do on a thread what takes a tenth of a second: import aiofiles, cattrs and httpx, load the certificates."""
    importlib.import_module("aiofiles.tempfile")
    converter()
    if given is not None:
        from meta_media.http.injected import InjectedClient

        return InjectedClient(given)
    from meta_media.http.proxy import Proxy
    from meta_media.http.transport import Transport

    named = {name: os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")}
    try:
        return Transport(_tls(*named.values()), Proxy.of(proxy))
    except OSError as error:  # of which SSLError is one
        culprits = " or ".join(name for name, value in named.items() if value) or "the system's CA certificates"
        raise ConfigurationError(f"{culprits} cannot be used: {error.strerror or type(error).__name__}") from error


@functools.cache
def _tls(*_: str | None) -> ssl.SSLContext:
    """Load the certificates once for each value of the environment variables that name them."""
    import httpx

    return httpx.create_ssl_context()
