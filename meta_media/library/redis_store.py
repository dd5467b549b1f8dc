"""A store in Redis, for many machines. It needs redis-py, which the extra `[redis]` installs."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import anyio

from meta_media.errors import ConfigurationError, StorageError
from meta_media.library.entry import LibraryEntry
from meta_media.library.store import AsyncCloseable, Store
from meta_media.protocol.convert import stored_converter
from meta_media.protocol.secrets import Secret
from meta_media.transfer.threads import run_in_thread

__all__ = ["RedisStore"]

_REDIS_TIMEOUT: Final = 10.0  # seconds, to connect and for each answer
_PAGE_SIZE: Final = 500  # keys
_MAX_CONNECTIONS: Final = 32  # above its own limit of 100, redis-py fails instead of waiting

# Each script gets the keys of `_keys`, and times in milliseconds. Redis runs it without any other command in between.
_CLAIM: Final = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local number = redis.call('INCR', KEYS[3])
redis.call('PEXPIRE', KEYS[3], 86400000 + ARGV[1])
redis.call('SET', KEYS[1], number, 'PX', ARGV[1])
return number
"""
_PUT: Final = """
local holder = redis.call('GET', KEYS[1])
local latest = redis.call('GET', KEYS[3])
if (holder or latest) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'PXAT', ARGV[3])
redis.call('DEL', KEYS[1])
return 1
"""
_IF_CLAIMED: Final = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end;"
_RENEW: Final = f"{_IF_CLAIMED} return redis.call('PEXPIRE', KEYS[1], ARGV[2])"
_RELEASE: Final = f"{_IF_CLAIMED} return redis.call('DEL', KEYS[1])"
_IF_STORED: Final = """
local stored = redis.call('GET', KEYS[2])
if not stored or cjson.decode(stored)['id'] ~= ARGV[1] then return 0 end
"""
_TOUCH: Final = f"{_IF_STORED} redis.call('SET', KEYS[2], ARGV[2], 'KEEPTTL'); return 1"
_REMOVE: Final = f"{_IF_STORED} return redis.call('DEL', KEYS[2])"


class RedisStore(AsyncCloseable, Store):
    """
    A store in Redis 6.2 or later, for any number of machines.

    Claims run out by the clock of Redis. Redis deletes an entry when it expires. The first call opens the connection, and
    raises a `ConfigurationError` if redis-py is not installed or the URL is not one of Redis.

    Args:
        url: Such as `redis://user:password@host:6379/0`, or `rediss://` for TLS.
        prefix: The beginning of all keys.
    """

    def __init__(self, url: str, *, prefix: str = "meta_media") -> None:
        self._url = Secret(url)
        self._prefix = prefix
        self._client: Any = None
        self._connections = anyio.Semaphore(_MAX_CONNECTIONS)

    def __repr__(self) -> str:
        return f"RedisStore(prefix={self._prefix!r})"

    async def get(self, key: str) -> LibraryEntry | None:
        text = await self._ask(lambda redis: redis.get(self._keys(key)[1]))
        return None if text is None else LibraryEntry.from_json(text)

    async def claim(self, key: str, seconds: float) -> int | None:
        return await self._run(_CLAIM, key, round(seconds * 1000)) or None

    async def renew(self, key: str, claim: int, seconds: float) -> bool:
        return await self._run(_RENEW, key, claim, round(seconds * 1000)) > 0

    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        expiry = round(entry.expires_at.timestamp() * 1000)
        return await self._run(_PUT, entry.key, claim, entry, expiry) > 0

    async def release(self, key: str, claim: int) -> None:
        await self._run(_RELEASE, key, claim)

    async def touch(self, entry: LibraryEntry) -> None:
        await self._run(_TOUCH, entry.key, entry.id, entry)

    async def remove(self, entry: LibraryEntry) -> bool:
        return await self._run(_REMOVE, entry.key, entry.id) > 0

    async def entries(self) -> AsyncIterator[LibraryEntry]:
        cursor: int | None = None
        while cursor != 0:
            cursor, texts = await self._ask(functools.partial(_read_page, cursor or 0, f"{self._prefix}:entry:*"))
            for text in texts:
                if text is not None:  # else it has expired, or is not a string and not ours
                    yield LibraryEntry.from_json(text)

    async def aclose(self) -> None:
        """Close the connections. The next call opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _keys(self, key: str) -> tuple[str, str, str]:
        """Return the keys of the claim, the entry and the last claim number. A cluster keeps keys with one `{…}` together."""
        return f"{self._prefix}:claim:{{{key}}}", f"{self._prefix}:entry:{{{key}}}", f"{self._prefix}:count:{{{key}}}"

    async def _run(self, script: str, key: str, *values: str | float | LibraryEntry) -> int:
        def run(redis: Any) -> Any:
            arguments = (value.to_json() if isinstance(value, LibraryEntry) else value for value in values)
            return redis.eval(script, 3, *self._keys(key), *arguments)

        return int(await self._ask(run))

    async def _ask(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        client = self._client
        if client is None:
            made = await run_in_thread(_new_client, self._url)
            client = self._client = self._client or made  # another task may have been faster
        import redis  # `_new_client` has imported it, on a thread

        async with self._connections:
            try:
                return await work(client)
            except (redis.RedisError, OSError) as error:
                failure = f"Redis failed: {error}"
        raise StorageError(failure)  # without a context: the frames of redis-py have the password in their locals


def _new_client(url: str) -> Any:
    """Make a client, on a thread: cattrs and redis-py are slow to import, and redis-py looks up its version on the disk."""
    stored_converter()
    try:
        import redis.asyncio
    except ModuleNotFoundError as error:
        raise ConfigurationError('RedisStore needs a package: pip install "meta-media[redis]"') from error
    options: dict[str, Any] = {"socket_timeout": _REDIS_TIMEOUT, "socket_connect_timeout": _REDIS_TIMEOUT}
    with contextlib.suppress(ModuleNotFoundError):  # an older redis-py does not look up its version for each connection
        from redis.driver_info import DriverInfo

        options["driver_info"] = DriverInfo()
    with contextlib.suppress(ValueError):
        return redis.asyncio.from_url(url, decode_responses=True, **options)
    raise ConfigurationError('the URL of a RedisStore must be like "redis://host:6379/0"')


async def _read_page(cursor: int, pattern: str, redis: Any) -> tuple[int, list[str | None]]:
    cursor, keys = await redis.scan(cursor, match=pattern, count=_PAGE_SIZE)
    return cursor, await redis.mget(keys) if keys else []
