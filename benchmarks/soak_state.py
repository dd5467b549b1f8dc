"""
What a soak does to the state of its client: Redis is killed and stopped, the clock jumps, files are damaged, disks are full.

The clock that jumps is `time.time` of this process. Redis, the emulator and the monotonic clock keep theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from meta_media import MediaApi, MediaLibrary, SQLiteStore
from meta_media.errors import ConfigurationError, StorageError
from meta_media.library import RedisStore, Store

from .soak_callers import POOL, Caller, Soak

_CONTENTS: Final = 60  # that libraries keep
_ITEMS: Final = 8  # of a run with a journal
_AT_ONCE: Final = 100  # questions to a store; it has fewer connections
_AWAY: Final = 2.0  # seconds that Redis is killed or stopped
_AFTERWARDS: Final = 12.0  # seconds; a call that Redis kept waiting ends by then
_JUMPS: Final = tuple(days * 86_400 for days in (0, 1 / 24, -1 / 24, 1, -1, 40, -40, 365, -365))  # seconds


class Redis:
    """A Redis server that is killed or stopped from time to time, and loses its data when it is killed."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "redis.socket"
        self._folder = folder
        self._away_until = 0.0  # seconds of the monotonic clock

    def away(self, _: BaseException) -> bool:
        """Return whether an error may come from its absence."""
        return time.monotonic() < self._away_until + _AFTERWARDS

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run it for as long as the block lasts."""
        options = ("--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "no")
        nowhere = asyncio.subprocess.DEVNULL
        self.socket.unlink(missing_ok=True)
        process = await asyncio.create_subprocess_exec(
            "redis-server", *options, "--dir", str(self._folder), stdout=nowhere, stderr=nowhere
        )
        try:
            while not self.socket.exists():
                assert process.returncode is None, "redis-server ended"
                await asyncio.sleep(0.02)  # polling
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def trouble(self, soak: Soak, every: float, ready: asyncio.Event) -> None:
        """Run it, and take it away about every so many seconds, until cancelled."""
        while True:
            async with self.running() as process:
                ready.set()
                while True:
                    await asyncio.sleep(every * random.uniform(0.5, 1.5))
                    self._away_until = time.monotonic() + _AWAY
                    if random.random() < 0.5:
                        break
                    soak.hardships["Redis stopped"] += 1
                    process.send_signal(signal.SIGSTOP)
                    await asyncio.sleep(_AWAY)
                    process.send_signal(signal.SIGCONT)
            soak.hardships["Redis killed"] += 1
            await asyncio.sleep(_AWAY)


@contextlib.contextmanager
def jumping_clock() -> Iterator[Callable[[float], None]]:
    """Give a function that moves the clock of this process by so many seconds from the right time."""
    real, shift = time.time, [0.0]
    time.time = lambda: real() + shift[0]
    try:
        yield lambda seconds: shift.__setitem__(0, seconds)
    finally:
        time.time = real


async def jump(soak: Soak, move: Callable[[float], None], every: float) -> None:
    """Move the clock from time to time, until cancelled."""
    while True:
        await asyncio.sleep(every * random.uniform(0.5, 1.5))
        soak.hardships["the clock jumped"] += 1
        move(random.choice(_JUMPS))


def _content(number: int) -> bytes:
    start = number * 997 % 2**17
    return b"kept %d\n" % number + POOL[start : start + 100 * 10 ** (number % 4)]


def _flip_bit(path: Path) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)


class Keeper(Caller):
    """A task whose calls keep state: in libraries, in journals, on full disks."""

    def __init__(self, soak: Soak, number: int, redis: Redis, shared: dict[str, Store]) -> None:
        super().__init__(soak, number)
        self._redis, self._shared = redis, shared
        self._state = self._folder.parent.parent / f"state-{number}.sqlite"  # of this task alone

    def _choose(self) -> Callable[[int, MediaApi], Awaitable[None]]:
        kinds = [self._ensure, self._journaled, self._damaged, self._full_disk]
        return self._dice.choices(kinds, [6, 1, 1, 1])[0]

    def _good(self, call: int, media_id: str, content: bytes) -> None:
        stored = self._soak.stored(media_id)
        same = stored.exists() and stored.read_bytes() == content
        self._soak.expect(same, f"call {call}: media {media_id} does not have the bytes of its item")

    async def _ensured(self, call: int, api: MediaApi, store: Store, number: int) -> None:
        self._soak.doubtful.add(call)
        making = MediaLibrary(api, store).ensure(_content(number), filename=f"{call}.txt", mime_type="text/plain")
        error, entry = await self._outcome(call, "ensure", making)
        if error is None:
            self._good(call, entry.id, _content(number))

    async def _ensure(self, call: int, api: MediaApi) -> None:
        name = self._dice.choice(list(self._shared))
        if name == "redis":
            self.excuse = lambda error: isinstance(error, StorageError) and self._redis.away(error)
        await self._ensured(call, api, self._shared[name], self._dice.randrange(_CONTENTS))

    def _clear(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self._state.with_name(self._state.name + suffix).unlink(missing_ok=True)

    def _damage(self, what: str) -> None:
        """Damage the file of the state, every other time. An error that names the file is right from now on."""
        if self._dice.random() < 0.5 and self._state.exists():
            self._soak.hardships[f"{what} damaged"] += 1
            _flip_bit(self._state)
            self.excuse = lambda error: (
                isinstance(error, StorageError | ConfigurationError) and str(self._state) in str(error)
            )

    async def _damaged(self, call: int, api: MediaApi) -> None:
        await asyncio.to_thread(self._clear)
        for _ in range(2):
            async with SQLiteStore(self._state) as store:
                for number in range(3):
                    await self._ensured(call, api, store, number)
            await asyncio.to_thread(self._damage, "a store")

    async def _journaled(self, call: int, api: MediaApi) -> None:
        await asyncio.to_thread(self._clear)
        self._soak.doubtful.add(call)
        numbers = self._dice.sample(range(_CONTENTS), _ITEMS)
        items = [(_content(it), {"filename": f"{call}.txt", "mime_type": "text/plain"}) for it in numbers]

        async def run() -> list[Any]:
            async with api.upload_many(items, journal=self._state, concurrency=3) as running:
                return [outcome async for outcome in running]

        for _ in range(2):
            _, outcomes = await self._outcome(call, "upload_many", run())
            for outcome in outcomes or ():
                if outcome.error is not None:
                    self.judge_error(call, "upload_many", outcome.error)
                else:
                    self._good(call, outcome.value.id, _content(numbers[outcome.index]))
            await asyncio.to_thread(self._damage, "a journal")

    async def _full_disk(self, call: int, api: MediaApi) -> None:
        if not self._soak.shelf:
            return
        media = self._taken()
        self._soak.hardships["a disk was full"] += 1
        self.single, self.excuse = True, lambda error: getattr(error, "errno", None) == errno.ENOSPC
        with open("/dev/full", "wb", buffering=0) as full:  # noqa: ASYNC230, PTH123 - a device, which never blocks
            error, _ = await self._outcome(call, "download", api.download(media.id, full))
        self._soak.expect(error is not None, f"call {call}: a download to a full disk succeeded")
        self._soak.shelf.append(media)


@asynccontextmanager
async def stores(folder: Path, redis: Redis) -> AsyncIterator[dict[str, Store]]:
    """Open the stores that all keepers share."""
    async with SQLiteStore(folder / "shared.sqlite") as sqlite, RedisStore(f"unix://{redis.socket}") as shared:
        yield {"sqlite": sqlite, "redis": shared}


async def connected(store: Store) -> None:
    """
    Make a store open all connections that it may have to Redis, once Redis is there.

    Otherwise their number depends on how often Redis was away.
    """
    while True:
        asked = [store.get("nothing") for _ in range(_AT_ONCE)]
        if not any(isinstance(it, Exception) for it in await asyncio.gather(*asked, return_exceptions=True)):
            return
        await asyncio.sleep(0.1)
