"""The access token that a client and its copies share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio

from meta_media.protocol.secrets import Secret
from meta_media.protocol.validators import checked_token

if TYPE_CHECKING:
    pass

__all__ = ["Token"]


class Token:
    """An access token: a string, or an async callable that gives one and is asked once for all who wait for it."""

    def __init__(self, source: str | Callable[[], Awaitable[str]] | None) -> None:
        self._ask = source if callable(source) else None
        self._known = Secret(checked_token(source)) if isinstance(source, str) else None
        self._asking = anyio.Lock()

    async def get(self) -> Secret:
        """Return the token; `ConfigurationError` if there is none."""
        if self._known is not None:
            return self._known
        async with self._asking:
            if self._known is None:
                self._known = Secret(checked_token(await self._ask() if self._ask else None))
            return self._known

    def invalidate(self, refused: str) -> None:
        """Ask again next time, where there is somebody to ask and nobody has since this very token was given out."""
        if self._ask and self._known is refused:
            self._known = None
