"""A store in Redis, for many machines. It needs redis-py, which the extra `[redis]` installs."""

from __future__ import annotations

import contextlib
import functools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import anyio
import attrs

from meta_media.errors import ConfigurationError, StorageError
from meta_media.http.loop_bound import LoopBound
from meta_media.library.entry import LibraryEntry, UnreadableEntryError, readable_entries, stored_entry
from meta_media.library.store import MESSAGE_LIFETIME, AsyncCloseable, Store
from meta_media.protocol.convert import stored_converter
from meta_media.protocol.secrets import Secret
from meta_media.transfer.threads import run_in_thread

__all__ = ["RedisStore"]

_REDIS_TIMEOUT: Final = 10.0  # seconds to connect, and for a command
_PAGE_SIZE: Final = 500  # keys
_DAY: Final = 86_400_000  # milliseconds
_MAX_CONNECTIONS: Final = 32  # above its own limit of 100, redis-py fails instead of waiting

_TOKEN_DIGITS: Final = 12

# Each script gets the keys of `_keys`, and times in milliseconds. Redis runs it without any other command in between.
# A claim is its number and its length. The number ends with a random token: Redis may lose its data, and count from 1 again.
_HOLDER: Final = "local holder, lasts = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) ?(%d*)$');"
_CLAIM: Final = f"""{_HOLDER}
if holder and string.sub(holder, -{_TOKEN_DIGITS}) == ARGV[2] then return holder end -- its reply was lost
local left = redis.call('PTTL', KEYS[1]) -- more than its length if the clock of Redis was put back
if holder and left >= 0 and left <= (tonumber(lasts) or {_DAY}) then return '0' end
local count = string.match(redis.call('GET', KEYS[3]) or '', '^(%d+){"%d" * _TOKEN_DIGITS}$')
if not count or #count > {_TOKEN_DIGITS} then count = 0 end -- it is lost or damaged
local number = (count + 1) .. ARGV[2]
redis.call('SET', KEYS[3], number, 'PX', {_DAY} + ARGV[1])
redis.call('SET', KEYS[1], number .. ' ' .. ARGV[1], 'PX', ARGV[1])
return number
"""
_PUT: Final = f"""{_HOLDER}
local current = holder or redis.call('GET', KEYS[3]) -- neither if Redis has lost its data since
if current ~= ARGV[1] and (current or redis.call('EXISTS', KEYS[2]) == 1) then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'PXAT', ARGV[3])
redis.call('DEL', KEYS[1])
return 1
"""
_IF_CLAIMED: Final = f"{_HOLDER} if holder ~= ARGV[1] then return 0 end;"
_RENEW: Final = f"{_IF_CLAIMED} redis.call('SET', KEYS[1], holder .. ' ' .. ARGV[2], 'PX', ARGV[2]); return 1"
_RELEASE: Final = f"{_IF_CLAIMED} return redis.call('DEL', KEYS[1])"
_IF_STORED: Final = """
local decoded, stored = pcall(cjson.decode, redis.call('GET', KEYS[2]) or '')
if not decoded or type(stored) ~= 'table' or stored['id'] ~= ARGV[1] then return 0 end
"""
_TOUCH: Final = f"{_IF_STORED} redis.call('SET', KEYS[2], ARGV[2], 'KEEPTTL'); return 1"
_REMOVE: Final = f"{_IF_STORED} return redis.call('DEL', KEYS[2])"


@attrs.define
class _Connections:
    """The client of one event loop, and how many commands it runs at a time."""

    client: Any = None
    limiter: anyio.Semaphore = attrs.field(factory=lambda: anyio.Semaphore(_MAX_CONNECTIONS))


class RedisStore(AsyncCloseable, Store):
    """
    A store in Redis 6.2 or later, for any number of machines.

    Claims run out by the clock of Redis. Redis deletes an entry when it expires, by the clock of the machine that uploaded.
    The clocks of all machines must therefore agree to an hour. An entry that is damaged counts as missing.

    The first call opens the connection, and raises a `ConfigurationError` if redis-py is not installed or the URL is not one
    of Redis. If the connection is lost, a command is repeated once over a new one. `remove` is not, because a repetition
    would meet what the first try did. A `StorageError` is `retryable` if Redis was away, was loading or did not answer.

    Args:
        url: Such as `redis://user:password@host:6379/0`, or `rediss://` for TLS.
        prefix: The beginning of all keys.
    """

    def __init__(self, url: str, *, prefix: str = "meta_media") -> None:
        self._url = Secret(url)
        self._prefix = prefix
        self._bound = LoopBound("RedisStore", lambda _: _Connections())

    def __repr__(self) -> str:
        return f"RedisStore(prefix={self._prefix!r})"

    async def get(self, key: str) -> LibraryEntry | None:
        text = await self._ask(lambda redis: redis.get(self._keys(key)[1]))
        return None if text is None else stored_entry(self, text, key)

    async def find(self, media_id: str) -> LibraryEntry | None:
        """Return the entry with a media id, or None."""
        key = await self._ask(lambda redis: redis.get(self._id_key(media_id)))
        with contextlib.suppress(UnreadableEntryError):
            entry = None if key is None else await self.get(key)
            return entry if entry is not None and entry.id == media_id else None
        return None

    async def claim(self, key: str, seconds: float) -> int | None:
        token = f"{secrets.randbelow(10**_TOKEN_DIGITS):0{_TOKEN_DIGITS}}"
        return await self._run(_CLAIM, key, round(seconds * 1000), token) or None

    async def renew(self, key: str, claim: int, seconds: float) -> bool:
        return await self._run(_RENEW, key, claim, round(seconds * 1000)) > 0

    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        expiry = round(entry.expires_at.timestamp() * 1000)
        await self._ask(lambda redis: redis.set(self._id_key(entry.id), entry.key, pxat=expiry))
        return await self._run(_PUT, entry.key, claim, entry, expiry) > 0

    async def release(self, key: str, claim: int) -> None:
        await self._run(_RELEASE, key, claim)

    async def touch(self, entry: LibraryEntry) -> None:
        await self._run(_TOUCH, entry.key, entry.id, entry)

    async def remove(self, entry: LibraryEntry) -> bool:
        return await self._run(_REMOVE, entry.key, entry.id, repeatable=False) > 0

    async def entries(self) -> AsyncIterator[LibraryEntry]:
        cursor: int | None = None
        while cursor != 0:
            cursor, page = await self._ask(functools.partial(_read_page, cursor or 0, f"{self._prefix}:entry:*"))
            start = len(f"{self._prefix}:entry:{{")
            for entry in readable_entries(self, ((text, name[start:-1]) for name, text in page)):
                yield entry

    async def put_message(self, message_id: str, entry: LibraryEntry) -> None:
        """See `MessageStore`."""
        name, text, milliseconds = self._message_key(message_id), entry.to_json(), round(MESSAGE_LIFETIME * 1000)
        await self._ask(lambda redis: redis.set(name, text, px=milliseconds))

    async def get_message(self, message_id: str) -> LibraryEntry | None:
        """See `MessageStore`."""
        text = await self._ask(lambda redis: redis.get(self._message_key(message_id)))
        return None if text is None else LibraryEntry.from_json(text)

    async def aclose(self) -> None:
        """Close the connections. The next call opens new ones."""
        connections = self._bound.get()
        client, connections.client = connections.client, None
        if client is not None:
            await client.aclose()

    def _keys(self, key: str) -> tuple[str, str, str]:
        """Return the keys of the claim, the entry and the last claim number. A cluster keeps keys with one `{…}` together."""
        return f"{self._prefix}:claim:{{{key}}}", f"{self._prefix}:entry:{{{key}}}", f"{self._prefix}:count:{{{key}}}"

    def _id_key(self, media_id: str) -> str:
        """Return the key that has the key of the entry with this media id."""
        return f"{self._prefix}:id:{media_id}"

    def _message_key(self, message_id: str) -> str:
        return f"{self._prefix}:message:{message_id}"

    async def _run(self, script: str, key: str, *values: str | float | LibraryEntry, repeatable: bool = True) -> int:
        def run(redis: Any) -> Any:
            arguments = (value.to_json() if isinstance(value, LibraryEntry) else value for value in values)
            return redis.eval(script, 3, *self._keys(key), *arguments)

        return int(await self._ask(run, repeatable=repeatable))

    async def _ask(self, work: Callable[[Any], Awaitable[Any]], *, repeatable: bool = True) -> Any:
        connections = self._bound.get()
        client = connections.client
        if client is None:
            made = await run_in_thread(_new_client, self._url)
            client = connections.client = connections.client or made  # another task may have been faster
        import redis  # `_new_client` has imported it, on a thread

        failure, lost = "", False
        async with connections.limiter:
            for _ in range(2 if repeatable else 1):  # redis-py opens a new connection in place of a lost one
                try:
                    with anyio.fail_after(_REDIS_TIMEOUT):
                        return await work(client)
                except (redis.RedisError, OSError) as error:
                    why = str(error) or f"no answer in {_REDIS_TIMEOUT:g} seconds"
                    failure, lost = f"Redis failed: {why}", _is_lost(error)
                    slow = isinstance(error, TimeoutError | redis.TimeoutError)
                if slow or not lost:
                    break
        # Without a context: the frames of redis-py have the password in their locals.
        raise StorageError(failure, retryable=lost)


def _is_lost(error: Exception) -> bool:
    """Return whether Redis may answer the next call: it was away, restarted, was busy or did not answer in time."""
    from redis import exceptions

    refused = exceptions.AuthenticationError | exceptions.AuthorizationError
    down = exceptions.ReadOnlyError | exceptions.ClusterDownError | exceptions.TryAgainError
    lost = OSError | exceptions.ConnectionError | exceptions.TimeoutError | down
    busy = str(error).startswith(("BUSY ", "NOREPLICAS "))
    return busy or (isinstance(error, lost) and not isinstance(error, refused))


def _new_client(url: str) -> Any:
    """Make a client, on a thread: cattrs and redis-py are slow to import, and redis-py looks up its version on the disk."""
    stored_converter()
    try:
        import redis.asyncio
    except ModuleNotFoundError as error:
        raise ConfigurationError("RedisStore needs a package: pip install '.[redis]' in a checkout") from error
    # With a socket_timeout, redis-py sends by `asyncio.wait_for`, which swallows a cancellation on Python 3.11.
    options: dict[str, Any] = {"socket_timeout": None, "socket_connect_timeout": _REDIS_TIMEOUT}
    with contextlib.suppress(ModuleNotFoundError):  # an older redis-py does not look up its version for each connection
        from redis.driver_info import DriverInfo

        options["driver_info"] = DriverInfo()
    with contextlib.suppress(ModuleNotFoundError):  # with them, redis-py 8 uses connections that Redis has closed
        import redis.asyncio.maint_notifications
        from redis.maint_notifications import MaintNotificationsConfig

        options["maint_notifications_config"] = MaintNotificationsConfig(enabled=False)
    with contextlib.suppress(ValueError):
        return redis.asyncio.from_url(url, decode_responses=True, encoding_errors="replace", **options)
    raise ConfigurationError('the URL of a RedisStore must be like "redis://host:6379/0"')


async def _read_page(cursor: int, pattern: str, redis: Any) -> tuple[int, list[tuple[str, str]]]:
    """Return the next cursor, and names and values. A value of None has expired, or is not a string and not ours."""
    cursor, names = await redis.scan(cursor, match=pattern, count=_PAGE_SIZE)
    values = await redis.mget(names) if names else []
    return cursor, [(name, value) for name, value in zip(names, values, strict=True) if value is not None]
