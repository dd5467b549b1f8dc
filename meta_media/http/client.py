"""The base of `MediaApi`: token, phone number, settings, the one HTTP client that its copies share, and the calls over it."""

from __future__ import annotations

import importlib
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, Self
from weakref import WeakSet, ref

import anyio
import anyio.to_thread

from meta_media.errors import ConfigurationError, MediaError, Operation
from meta_media.http.auth import Token
from meta_media.http.call import Call
from meta_media.http.heads import SharedHeaders
from meta_media.http.limits import Limits
from meta_media.http.log import LOGGER
from meta_media.http.loop_bound import LoopBound
from meta_media.http.memory import Memory, Share
from meta_media.http.observer import Observer
from meta_media.protocol.convert import converter
from meta_media.protocol.requests import Request
from meta_media.protocol.secrets import Secret
from meta_media.protocol.settings import Settings
from meta_media.protocol.validators import checked_id, is_token

if TYPE_CHECKING:
    import httpx

__all__ = ["Client", "DeletedIds", "Shared"]

_DELETED_COUNT: Final = 100_000  # ids, 150 bytes for each


class Client:
    """
    Token, phone number, settings and HTTP client. `MediaApi` documents the constructor.

    Attributes:
        settings: The settings in force.
        token: The access token.
        number: The phone number id of calls that do not pass one.
        shared: The HTTP client and the limits, which copies share.
        is_copy: Whether `with_options` made it. Closing a copy does nothing.
        through_client: Whether every request passes `media.client`, also where our transport would send the same bytes in
            less time. Tools that replace a method of `httpx.AsyncClient`, such as `respx.mock(using="httpx")`, see requests
            only then. Set it on the class.
        observer: What sees all calls, such as `integrations.otel`, which sets it on the class.
    """

    through_client: ClassVar[bool] = False
    observer: ClassVar[Observer | None] = None

    def __init__(
        self,
        access_token: str | Callable[[], Awaitable[str]] | None = None,
        phone_number_id: str | None = None,
        *,
        settings: Settings | None = None,
        http_client: httpx.AsyncClient | None = None,
    ) -> None:
        if settings is not None and not isinstance(settings, Settings):
            raise ConfigurationError(
                f"settings must be a Settings, not {type(settings).__name__}: Settings(read_timeout=3)"
            )
        if http_client is not None and not _is_async_client(http_client):
            kind = f"the class {http_client.__name__}" if isinstance(http_client, type) else type(http_client).__name__
            raise ConfigurationError(f"http_client must be an httpx.AsyncClient, not {kind}")
        self.settings = settings or Settings()
        key, environ = self.settings.api_key, os.environ if self.settings.api_key is None else {}  # which is Meta's
        number = environ.get("WA_PHONE_NUMBER_ID") or None if phone_number_id is None else phone_number_id
        if is_token(number):
            raise ConfigurationError("phone_number_id is an access token: the token comes first, then the id")
        default = key or environ.get("CLOUD_API_ACCESS_TOKEN") or None
        self.token = Token(default if access_token is None else access_token)
        self.number = None if number is None else checked_id(number, "phone_number_id")
        self.shared = Shared(http_client, self.settings)
        self.is_copy = False
        self._graph_headers: SharedHeaders | None = None  # of the last request to the Graph API

    def __repr__(self) -> str:
        return f"{type(self).__name__}(phone_number_id={self.number!r}, base_url={self.settings.base_url!r})"

    @property
    def client(self) -> httpx.AsyncClient:
        """
        The `httpx.AsyncClient` that this object and its `with_options` copies send over.

        It is the caller's `http_client`, or one of our own, which is made at the first access. Its event hooks see every
        request. Anything else may be fetched over its connections, too: `await media.client.get(url)`; over our own, httpx
        logs the URL without its query. None of its default headers, cookies and parameters are sent to Meta. `aclose`
        closes it if it is our own.

        Raises:
            ConfigurationError: This object is closed.
        """
        return self.shared.client

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called on this object, or on the one that it is a copy of."""
        return self.shared.closed

    def call(self, operation: Operation, phone_number_id: str | None, media_id: object = None) -> Call:
        """Make a call, to be entered by `async with`. It keeps the limits of a number, by default the client's."""
        return Call(self, operation, phone_number_id or self.number, media_id)

    def shared_headers(self, request: Request, token: Secret) -> SharedHeaders:
        """Return the headers that a request shares with others. Those of the Graph API are written once for each token."""
        made, usual = self._graph_headers, request.graph and request.auth_scheme == "Bearer"
        if made is None or made.token is not token or not usual:
            made = SharedHeaders(request, self.settings, token)
            self._graph_headers = made if usual else self._graph_headers
        return made

    def number_or(self, phone_number_id: str | None) -> str:
        """Return a call's phone number id, or else the client's; `ConfigurationError` if there is none."""
        if phone_number_id is not None:
            return checked_id(phone_number_id, "phone_number_id")
        if self.number is None and self.settings.api_key is not None:
            return self.token.number
        if self.number is None:
            raise ConfigurationError("there is no phone number id: pass phone_number_id or set WA_PHONE_NUMBER_ID")
        return self.number

    def with_options(
        self,
        *,
        access_token: str | Callable[[], Awaitable[str]] | None = None,
        phone_number_id: str | None = None,
        **changes: Any,
    ) -> Self:
        """
        Return a copy for another token, number or setting. It lives as long as the original, whose connections it uses.

        Args:
            access_token: As for the constructor; default the original's.
            phone_number_id: Likewise.
            **changes: Fields of `Settings`, except `concurrency`, `memory` and `proxy`, which belong to the connections.
        """
        if shared := {"concurrency", "http_client", "memory", "proxy"}.intersection(changes):
            raise ConfigurationError(
                f"{min(shared)} belongs to the connections, which a copy shares: make a new MediaApi"
            )
        if "settings" in changes:
            raise ConfigurationError("with_options takes the settings themselves: with_options(read_timeout=3)")
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin.settings = self.settings.changed(changes)
        access_token = changes.get("api_key") if access_token is None else access_token
        if access_token is not None:
            twin.token = Token(access_token)
        if phone_number_id is not None:
            twin.number = self.number_or(phone_number_id)
        twin.is_copy, twin._graph_headers = True, None
        return twin

    def __reduce__(self) -> NoReturn:
        raise ConfigurationError(
            f"a {type(self).__name__} is not pickled, because of its token: make one in each process"
        )

    async def __aenter__(self) -> Self:
        self.shared.limiter("upload")  # raises outside of asyncio, and in a second event loop
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections we opened. Closing twice does no harm; later calls raise `ConfigurationError`."""
        if not self.is_copy:
            await self.shared.aclose()


class DeletedIds:
    """
    The last 100,000 media ids that a client and its copies have deleted or tried to delete.

    Its `keepers` are open journals and libraries. An id is struck out of them before its media is deleted, so that no call
    returns a dead id.
    """

    def __init__(self) -> None:
        self.keepers: WeakSet[Any] = WeakSet()  # with an async method `strike_out(media_id)`
        self._ids: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, media_id: object) -> bool:
        return media_id in self._ids

    async def add(self, media_id: str) -> None:
        """Note an id that is about to be deleted. A keeper that fails does not stop the delete, and is logged."""
        self._ids[media_id] = None
        if len(self._ids) > _DELETED_COUNT:
            self._ids.popitem(last=False)
        for reference in [ref(keeper) for keeper in self.keepers]:  # else overlapping deletes would keep all alive
            try:
                if (keeper := reference()) is not None and keeper in self.keepers:  # it may have been closed meanwhile
                    await keeper.strike_out(media_id)
            except MediaError as error:
                LOGGER.warning(
                    "media %s is deleted, but another process may still be given its id: %s", media_id, error
                )


class Shared:
    """
    The HTTP client and the limits that a `MediaApi` and all its `with_options` copies share.

    The Graph API and the download hosts have a concurrency limiter each. With one for both, an upload that reads from an
    open download could wait for itself. The caller's client is never closed here. Our own is made at first need.
    """

    def __init__(self, given: httpx.AsyncClient | None, settings: Settings) -> None:
        self.limits = Limits()
        self.deleted = DeletedIds()
        self.closed = False
        self._client: Any = given
        self._sender: Any = None  # sends through `_client`
        self._transport: Any = None  # of our own client; None for the caller's
        self._proxy = settings.proxy
        self._loaded = False
        self._threads = LoopBound("MediaApi", lambda _: anyio.CapacityLimiter(1))  # the default one is everyone's
        self._memory = LoopBound("MediaApi", lambda _: Memory(settings.memory))
        self._bound = LoopBound(  # of the Graph API, and of downloads
            "MediaApi", lambda _: [anyio.Semaphore(settings.concurrency, fast_acquire=True) for _ in range(2)]
        )

    @property
    def client(self) -> httpx.AsyncClient:
        """See `Client.client`."""
        client: httpx.AsyncClient | None = self._client
        if client is None and not self.closed:
            from meta_media.http.injected import OwnClient
            from meta_media.http.proxy import Proxy
            from meta_media.http.transport import Transport

            self._transport = Transport(proxy=Proxy.of(self._proxy))
            client = self._client = OwnClient(transport=self._transport)
        if client is None or self.closed:
            raise ConfigurationError("this MediaApi is closed: make a new one")
        if getattr(client, "is_closed", False):
            raise ConfigurationError(
                "the httpx.AsyncClient of this MediaApi is closed: make a new MediaApi with an open one"
            )
        return client

    def limiter(self, operation: Operation) -> anyio.Semaphore:
        """Return the concurrency limiter of an operation; `ConfigurationError` if another event loop uses this object."""
        return self._bound.get()[operation == "download"]

    def share(self, chunk_size: int) -> Share:
        """Return the share of the memory of a transfer that is about to begin."""
        return Share(self._memory.get(), chunk_size)

    @property
    def ready(self) -> bool:
        """Whether nothing is left to `load`; `ConfigurationError` if the client is closed."""
        return self._loaded and self.client is not None

    async def load(self) -> None:
        """Import on a thread, once, what takes a tenth of a second, and check that the client is open."""
        await anyio.to_thread.run_sync(_import_libraries, limiter=self._threads.get())
        self._loaded = True
        self.client  # noqa: B018 - raises if it is closed

    def sender(self, *, through_client: bool) -> Any:
        """Return our own transport where its client would do nothing but take time; else what sends through the client."""
        client = self.client
        if self._transport is not None and not through_client and not any(client.event_hooks.values()):
            return self._transport
        if self._sender is None:
            from meta_media.http.injected import InjectedClient

            self._sender = InjectedClient(client)
        return self._sender

    async def aclose(self) -> None:
        """Close our own client, once; the caller's stays open."""
        if not self.closed and self._transport is not None:
            self._bound.get()  # raises in a second event loop, before anything is closed
            await self._client.aclose()
        self.closed = True


def _is_async_client(value: object) -> bool:
    """Return whether a value has the methods of `httpx.AsyncClient` that are used, as httpx2's class has them."""
    return not isinstance(value, type) and all(hasattr(value, name) for name in ("aclose", "build_request", "send"))


def _import_libraries() -> None:
    for name in ("aiofiles.tempfile", "meta_media.http.transport", "meta_media.http.injected"):
        importlib.import_module(name)
    converter()
