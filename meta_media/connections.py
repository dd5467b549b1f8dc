"""What the copies of a `MediaApi` share: connections, the places in front of them, and the token."""

from __future__ import annotations

import contextlib
import importlib
import logging
import re
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import anyio

from .errors import ConfigurationError, Operation
from .files import in_thread
from .models import converter
from .settings import checked_token

if TYPE_CHECKING:
    import httpx

__all__ = ["Connections", "Secret", "Token", "queries_hidden"]

_sending: ContextVar[bool] = ContextVar("meta_media_sending", default=False)


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
        self._client = client
        self._owned = client is None
        self._opening = anyio.Lock()
        self._concurrency = concurrency
        self._places = {True: anyio.Semaphore(concurrency), False: anyio.Semaphore(concurrency)}
        self._ready = False
        self.closed = False

    def place(self, operation: Operation) -> anyio.Semaphore:
        """Return the queue in which a call waits for its turn."""
        return self._places[operation == "download"]

    async def client(self) -> Any:
        """Return the caller's client, or ours, which is made at first need."""
        async with self._opening:
            if self.closed:
                raise ConfigurationError("this MediaApi is closed")
            if not self._ready:
                self._client = await in_thread(_prepared, self._client, self._concurrency)
                self._ready = True
            return self._client

    async def aclose(self) -> None:
        """Close what we opened, once; the caller's client is theirs."""
        self.closed = True
        async with self._opening:  # whoever opens it just now must not leave it behind
            client, self._client = self._client, None
        if self._owned and client is not None:
            await client.aclose()


def _prepared(client: httpx.AsyncClient | None, concurrency: int) -> httpx.AsyncClient:
    """Do on a thread what takes a tenth of a second: import aiofiles, cattrs and httpx, load the certificates."""
    importlib.import_module("aiofiles.tempfile")
    converter()
    return client or _new_client(concurrency)


def _new_client(concurrency: int) -> httpx.AsyncClient:
    import httpx

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=2 * concurrency)
    try:
        # Plain http only ever goes to this machine, where no proxy belongs.
        return httpx.AsyncClient(limits=limits, follow_redirects=False, mounts={"http://": None})
    except Exception as error:
        raise ConfigurationError(
            "the HTTP client could not be made; look at HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE and"
            f" SSL_CERT_DIR in the environment ({type(error).__name__})"
        ) from error


class _HiddenQueries(logging.Filter):
    """httpx logs every URL in full, at INFO, and httpcore every redirect's, at DEBUG; a download's is signed."""

    def filter(self, record: logging.LogRecord) -> bool:
        if _sending.get():
            record.msg, record.args = re.sub(r"\?[^\s'\"]+", "?…", record.getMessage()), ()
        return True


for _name in ("httpx", "httpcore.http11"):
    logging.getLogger(_name).addFilter(_HiddenQueries())


@contextlib.contextmanager
def queries_hidden() -> Iterator[None]:
    """Keep the queries of what is sent inside the block out of the logs; other users of httpx are not affected."""
    outside = _sending.set(True)
    try:
        yield
    finally:
        _sending.reset(outside)
