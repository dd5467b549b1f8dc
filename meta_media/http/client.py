"""Whom a `MediaApi` talks to, over which connections, and until when."""

from __future__ import annotations

import copy
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Self

from meta_media.errors import ConfigurationError
from meta_media.http.auth import Token
from meta_media.http.call import Http
from meta_media.http.connections import Connections
from meta_media.protocol.settings import Settings
from meta_media.protocol.validators import checked_id

if TYPE_CHECKING:
    import httpx

__all__ = ["Client"]


class Client:
    """Token, number, settings and connections; and copies that share the connections. `MediaApi` says what is what."""

    def __init__(
        self,
        access_token: str | Callable[[], Awaitable[str]] | None = None,
        phone_number_id: str | None = None,
        *,
        settings: Settings | None = None,
        http_client: httpx.AsyncClient | None = None,
    ) -> None:
        settings = settings or Settings()
        token = Token(access_token or os.environ.get("CLOUD_API_ACCESS_TOKEN") or None)
        number = phone_number_id or os.environ.get("WA_PHONE_NUMBER_ID") or None
        number = checked_id(number, "phone_number_id") if number else None
        self._http = Http(settings, token, Connections(http_client, settings.concurrency, settings.proxy), number)
        self._owner = True

    def __repr__(self) -> str:
        return f"{type(self).__name__}(phone_number_id={self._http.number!r}, base_url={self.settings.base_url!r})"

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._http.settings

    @property
    def http(self) -> Http:
        """What makes its calls, for what is built on it."""
        return self._http

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
            **changes: Fields of `Settings`, except `concurrency` and `proxy`, which belong to the connections.
        """
        if shared := {"concurrency", "proxy"}.intersection(changes):
            raise ConfigurationError(f"{min(shared)} belongs to the connections, which a copy shares")
        twin = copy.copy(self)
        token = self._http.token if access_token is None else Token(access_token)
        number = self._http.number if phone_number_id is None else self._http.number_or(phone_number_id)
        http = Http(self.settings.changed(changes), token, self._http.connections, number)
        twin.__dict__.update(_http=http, _owner=False)
        return twin

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections we opened. Once is enough, twice does no harm; later calls are `ConfigurationError`s."""
        if self._owner:
            await self._http.connections.aclose()
