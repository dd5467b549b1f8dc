"""The access token that a client and its copies share."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Awaitable, Callable, Hashable

import anyio

from meta_media.errors import ConfigurationError
from meta_media.http.loop_bound import LoopBound
from meta_media.protocol.secrets import Secret
from meta_media.protocol.validators import checked_token

__all__ = ["Token"]


class Token:
    """An access token, from text or from an async callable, which is called once for all calls that wait."""

    def __init__(self, source: str | Callable[[], Awaitable[str]] | None) -> None:
        self._source = source if callable(source) else None
        self._token = None if source is None or callable(source) else Secret(checked_token(source))
        self.failed = False  # whether the callable did not return a token when it was last called
        self._lock = LoopBound("MediaApi", lambda _: anyio.Lock())

    @property
    def identity(self) -> Hashable:
        """What tells it from the tokens of other accounts."""
        return self._source or self._token

    @property
    def known(self) -> Secret | None:
        """The token, if it need not be fetched."""
        return self._token

    @property
    def number(self) -> str:
        """What stands for the phone number id of an API key, which belongs to one number. The key cannot be told from it."""
        if self._source is not None or self._token is None:
            raise ConfigurationError("there is no phone number id for an API key of a function: pass phone_number_id")
        return f"key-{hashlib.sha256(self._token.encode()).hexdigest()[:16]}"

    async def get(self) -> Secret:
        """Return the token; `ConfigurationError` if there is none."""
        if self._token is not None:
            return self._token
        async with self._lock.get():
            if self._token is None:
                self.failed = True
                self._token = Secret(checked_token(await self._fetch()))
                self.failed = False
            return self._token

    async def _fetch(self) -> str | None:
        if self._source is None:
            return None
        fetching = self._source()
        if not inspect.isawaitable(fetching):
            raise ConfigurationError("access_token must be a str or an async function: this function is not async")
        return await fetching

    def invalidate(self, refused: str) -> None:
        """Forget a refused token, if a callable gave it and it has not been replaced since."""
        if self._source and self._token is refused:
            self._token = None
