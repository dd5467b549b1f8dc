"""Entries of many machines, in Redis: needs redis-py, which the extra `[redis]` brings."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

from ..entries import LibraryEntry
from ..errors import ConfigurationError, StorageError
from ..settings import Secret

__all__ = ["RedisStore"]

_PATIENCE: Final = 10.0  # seconds for an answer
_SCANNED: Final = 500  # keys asked for at a time

# Each script gets the keys of a claim and of its entry, and is run by Redis without anything in between.
_RENEW: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_PUT: Final = """
local holder = redis.call('GET', KEYS[1])
local latest = redis.call('GET', KEYS[3])
if (holder or latest) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'PXAT', ARGV[3])
redis.call('DEL', KEYS[1])
return 1
"""
_RELEASE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""
_CLAIM: Final = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local number = redis.call('INCR', KEYS[3])
redis.call('PEXPIRE', KEYS[3], 86400000 + ARGV[1])
redis.call('SET', KEYS[1], number, 'PX', ARGV[1])
return number
"""
_TOUCH: Final = """
local kept = redis.call('GET', KEYS[2])
if not kept or cjson.decode(kept)['id'] ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'KEEPTTL')
return 1
"""
_REMOVE: Final = """
local kept = redis.call('GET', KEYS[2])
if not kept or cjson.decode(kept)['id'] ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[2])
"""


class RedisStore:
    """
    A store in Redis 6.2 or later, for any number of machines.

    Claims run out by Redis' own clock, and entries leave it when they expire.

    Args:
        url: Such as `redis://user:password@host:6379/0`; `rediss://` for TLS.
        prefix: What all keys begin with.

    Raises:
        ConfigurationError: redis-py is not installed, or the URL is none.
    """

    def __init__(self, url: str, *, prefix: str = "meta_media") -> None:
        self._url = Secret(url)
        self._prefix = prefix
        self._client: Any = None

    def __repr__(self) -> str:
        return f"RedisStore(prefix={self._prefix!r})"

    async def get(self, key: str) -> LibraryEntry | None:
        """See `Store`."""
        with _storage_errors():
            return _entry(await self._redis().get(self._keys(key)[1]))

    async def claim(self, key: str, seconds: float) -> int | None:
        """See `Store`."""
        return await self._run(_CLAIM, key, _milliseconds(seconds)) or None

    async def renew(self, key: str, claim: int, seconds: float) -> bool:
        """See `Store`."""
        return bool(await self._run(_RENEW, key, claim, _milliseconds(seconds)))

    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        """See `Store`."""
        expiry = _milliseconds(entry.expires_at.timestamp())
        return bool(await self._run(_PUT, entry.key, claim, json.dumps(entry.as_json()), expiry))

    async def release(self, key: str, claim: int) -> None:
        """See `Store`."""
        await self._run(_RELEASE, key, claim)

    async def touch(self, entry: LibraryEntry) -> None:
        """See `Store`."""
        await self._run(_TOUCH, entry.key, entry.id, json.dumps(entry.as_json()))

    async def remove(self, entry: LibraryEntry) -> bool:
        """See `Store`."""
        return bool(await self._run(_REMOVE, entry.key, entry.id))

    async def entries(self) -> AsyncIterator[LibraryEntry]:
        """See `Store`."""
        cursor: int | None = None
        while cursor != 0:
            with _storage_errors():
                cursor, keys = await self._redis().scan(cursor or 0, match=f"{self._prefix}:entry:*", count=_SCANNED)
                texts = await self._redis().mget(keys) if keys else ()
            for entry in map(_entry, texts):
                if entry is not None:
                    yield entry

    async def aclose(self) -> None:
        """See `Store`."""
        client, self._client = self._client, None
        if client is not None:
            with _storage_errors():
                await client.aclose()

    def _redis(self) -> Any:
        if self._client is None:
            import redis.asyncio

            try:
                self._client = redis.asyncio.from_url(
                    self._url, decode_responses=True, socket_timeout=_PATIENCE, socket_connect_timeout=_PATIENCE
                )
            except ValueError:
                raise ConfigurationError("that is no URL of a Redis: redis://host:6379/0 is one") from None
        return self._client

    def _keys(self, key: str) -> tuple[str, str, str]:
        """Name the claim, the entry and the count of claims; the braces keep them together in a cluster."""
        return f"{self._prefix}:claim:{{{key}}}", f"{self._prefix}:entry:{{{key}}}", f"{self._prefix}:count:{{{key}}}"

    async def _run(self, script: str, key: str, *values: str | int) -> int:
        with _storage_errors():
            return int(await self._redis().eval(script, 3, *self._keys(key), *values))


def _entry(text: str | None) -> LibraryEntry | None:
    return None if text is None else LibraryEntry.from_json(json.loads(text))


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


@contextlib.contextmanager
def _storage_errors() -> Iterator[None]:
    """Turn what redis-py raises into a `StorageError`; its words may hold an address, but no password."""
    try:
        import redis
    except ModuleNotFoundError as error:
        raise ConfigurationError('RedisStore needs a package: pip install "meta-media[redis]"') from error
    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise StorageError(f"Redis failed: {error}") from error
