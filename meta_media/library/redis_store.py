"""Entries of many machines, in Redis: needs redis-py, which the extra `[redis]` brings."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import anyio

from meta_media.errors import ConfigurationError, StorageError
from meta_media.library.entry import LibraryEntry
from meta_media.protocol.secrets import Secret
from meta_media.transfer.threads import run_in_thread

__all__ = ["RedisStore"]

_PATIENCE: Final = 10.0  # seconds for an answer
_SCANNED: Final = 500  # keys asked for at a time
_CONNECTIONS: Final = 32  # at most; redis-py fails above a hundred, instead of waiting

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
        self._turns = anyio.Semaphore(_CONNECTIONS)

    def __repr__(self) -> str:
        return f"RedisStore(prefix={self._prefix!r})"

    async def get(self, key: str) -> LibraryEntry | None:
        """See `Store`."""
        return _entry(await self._asked(lambda redis: redis.get(self._keys(key)[1])))

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
            cursor, texts = await self._asked(functools.partial(_page, cursor or 0, f"{self._prefix}:entry:*"))
            for entry in map(_entry, texts):
                if entry is not None:
                    yield entry

    async def aclose(self) -> None:
        """See `Store`."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _opened(self) -> Any:
        client = await run_in_thread(_client, self._url)
        if self._client is None:  # else another task was faster
            self._client = client
        return self._client

    async def _asked(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        """Ask Redis; what redis-py raises is a `StorageError`, and holds no password."""
        client = self._client or await self._opened()
        async with self._turns:
            try:
                return await work(client)
            except (_redis_error(), OSError) as error:
                failure = f"Redis failed: {error}"
        raise StorageError(failure)  # without a context: redis-py's frames have the password in their locals

    def _keys(self, key: str) -> tuple[str, str, str]:
        """Name the claim, the entry and the count of claims; the braces keep them together in a cluster."""
        return f"{self._prefix}:claim:{{{key}}}", f"{self._prefix}:entry:{{{key}}}", f"{self._prefix}:count:{{{key}}}"

    async def _run(self, script: str, key: str, *values: str | int) -> int:
        return int(await self._asked(lambda redis: redis.eval(script, 3, *self._keys(key), *values)))


def _client(url: str) -> Any:
    """Make a client, on a thread: redis-py is slow to import, and looks its own version up on the disk."""
    try:
        import redis.asyncio
    except ModuleNotFoundError as error:
        raise ConfigurationError('RedisStore needs a package: pip install "meta-media[redis]"') from error
    options: dict[str, Any] = {"socket_timeout": _PATIENCE, "socket_connect_timeout": _PATIENCE}
    with contextlib.suppress(ModuleNotFoundError):  # of an older redis-py, which looks it up once
        from redis.driver_info import DriverInfo

        options["driver_info"] = DriverInfo()
    with contextlib.suppress(ValueError):
        return redis.asyncio.from_url(url, decode_responses=True, **options)
    raise ConfigurationError("that is no URL of a Redis: redis://host:6379/0 is one")


def _redis_error() -> type[Exception]:
    import redis

    return redis.RedisError


async def _page(cursor: int, pattern: str, redis: Any) -> tuple[int, list[str | None]]:
    cursor, keys = await redis.scan(cursor, match=pattern, count=_SCANNED)
    return cursor, await redis.mget(keys) if keys else []


def _entry(text: str | None) -> LibraryEntry | None:
    return None if text is None else LibraryEntry.from_json(json.loads(text))


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
