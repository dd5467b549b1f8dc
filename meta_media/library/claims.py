"""
Claims of a library: while one process uploads the content of a key, the others wait.

A claim runs out by itself, so that the claim of a killed process can be taken over soon. It is renewed during a long upload.
No claim has the number of another: a process that lost its claim cannot overwrite the entry of its successor.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import attrs

from meta_media.errors import ConfigurationError
from meta_media.library.memory_store import MemoryStore
from meta_media.library.store import Store
from meta_media.transfer.threads import await_completion

__all__ = ["CLAIM_SECONDS", "Claims", "checked_claim_seconds"]

CLAIM_SECONDS: Final = 30.0  # after which the claim of a killed process can be taken over
_RELEASE_TIMEOUT: Final = 5.0  # seconds


def checked_claim_seconds(value: Any) -> float:
    """Return the length of claims; `ConfigurationError` if it cannot be one."""
    if isinstance(value, int | float) and 0.01 <= value <= 86_400:
        return value
    raise ConfigurationError(f"claim_seconds must be a number of seconds from 0.01 to 86400, not {value!r:.40}")


@attrs.frozen
class Claims:
    """Makes, renews and ends the claims of one library. A claim lasts for `seconds` unless it is renewed."""

    _store: Store
    _seconds: float

    async def acquire(self, key: str) -> int | None:
        """Claim a key, unless another claim holds it. If the caller is cancelled meanwhile, the new claim is released."""
        claim = self._store.claim(key, self._seconds)
        if type(self._store) is MemoryStore:  # it never waits, so that no cancellation cuts it short
            return await claim
        return await await_completion(claim, undo=lambda number: self.release(key, number))

    async def release(self, key: str, claim: int | None) -> None:
        """End a claim. If the store fails or is slow, the claim runs out by itself."""
        if claim is not None:
            with anyio.move_on_after(_RELEASE_TIMEOUT, shield=True), contextlib.suppress(Exception):  # it runs out
                await self._store.release(key, claim)

    @asynccontextmanager
    async def renewed(self, key: str, claim: int) -> AsyncIterator[None]:
        """Renew a claim until the block ends."""
        renewals: list[asyncio.Task[None]] = []  # none, unless the block takes long

        def begin() -> None:
            renewals.append(asyncio.create_task(self._renew(key, claim)))

        timer = asyncio.get_running_loop().call_later(self._seconds / 3, begin)
        try:
            yield
        finally:
            timer.cancel()
            for renewal in renewals:
                renewal.cancel()
                await await_completion(asyncio.wait((renewal,)))

    async def _renew(self, key: str, claim: int) -> None:
        while True:
            with contextlib.suppress(Exception):  # the store may work again before the claim has run out
                await self._store.renew(key, claim, self._seconds)
            await asyncio.sleep(self._seconds / 3)
