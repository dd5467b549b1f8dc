"""The access token that calls share."""

from __future__ import annotations

import asyncio

from meta_media.http.auth import Token


async def test_a_callable_is_called_once_for_all_that_wait() -> None:
    """Calls that need a token at the same time wait for one; after an invalidation, one new token is fetched."""
    given = 0

    async def fetch() -> str:
        nonlocal given
        given += 1
        await asyncio.sleep(0)  # the others arrive meanwhile
        return f"token-{given}"

    token = Token(fetch)
    assert await asyncio.gather(*(token.get() for _ in range(5))) == ["token-1"] * 5
    for refused in await asyncio.gather(*(token.get() for _ in range(2))):
        token.invalidate(refused)
    assert await asyncio.gather(*(token.get() for _ in range(5))) == ["token-2"] * 5
    for late in ("token-0", "token-1", str(await token.get())):  # another call was refused, of a token that is replaced
        token.invalidate(late)
    assert await token.get() == "token-2"
