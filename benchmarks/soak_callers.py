"""The tasks of a soak that make one call after the other, and the judgement of each outcome."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import random
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from meta_media import MediaApi, MediaError, MediaInfo

_CALL_TIMEOUT: Final = 90.0  # seconds that no call may take
_CANCELLED: Final = 0.05  # of the calls, once or twice
_MOMENTS: Final = (0.003, 0.03, 0.3)  # seconds within which they are cancelled
_SHELF: Final = 300  # media kept at a time, about
_KEPT: Final = 5.5  # seconds; an idle connection is kept for less
_OLD: Final = b"old"  # what a download to a path replaces
POOL: Final = random.Random(1).randbytes(2**20).hex().encode()


@dataclass
class Media:
    """An uploaded media; one call at a time uses it."""

    call: int
    id: str
    sha256: str
    info: MediaInfo | None = None


class Failure(NamedTuple):
    """A call that ended with an error; `single` if its source or sink allows no second try."""

    call: int
    operation: str
    single: bool
    error: str
    message: str


class Record:
    """A list that is kept in a file: what a soak remembers must not grow."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()

    def add(self, value: object) -> None:
        """Append a value that JSON can express."""
        with self._path.open("a") as file:
            file.write(json.dumps(value) + "\n")

    def read(self) -> list[Any]:
        """Return all values."""
        return [json.loads(line) for line in self._path.read_text().splitlines()]


@dataclass
class Soak:
    """What all tasks share, and the outcomes of their calls."""

    folder: Path
    client: MediaApi
    dice: random.Random
    token: str
    numbers: Any = field(default_factory=itertools.count)
    shelf: list[Media] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    hardships: Counter[str] = field(default_factory=Counter)
    working: int = 0  # calls under way

    def __post_init__(self) -> None:
        self.doubtful = Record(self.folder / "doubtful")  # uploads of which the emulator may hold none, one or several
        self.failures = Record(self.folder / "failures")
        self.go = asyncio.Event()  # not set while no call may begin
        self.go.set()

    async def resting(self, prepare: Callable[[], Awaitable[None]], look: Callable[[], None]) -> None:
        """Take a look when the calls under way are over, idle connections are closed, and the next calls have not begun."""
        self.go.clear()
        while self.working:  # noqa: ASYNC110 - the tasks wait for a moment between calls, too
            await asyncio.sleep(0.05)
        await prepare()
        await asyncio.sleep(_KEPT)
        with contextlib.suppress(MediaError):
            await self.client.get_info("1")  # the next request closes the connections that were idle for too long
        look()
        self.go.set()

    def expect(self, good: bool, otherwise: str) -> None:
        """Record something wrong unless it is good."""
        if not good:
            self.wrong.append(otherwise)

    def stored(self, media_id: str) -> Path:
        """Return where the emulator keeps a media."""
        return self.folder / "data" / "media" / media_id


class Caller:
    """A task that makes one call after the other."""

    def __init__(self, soak: Soak, number: int) -> None:
        self._soak, self._dice = soak, soak.dice
        self._folder = soak.folder / "targets" / str(number)
        self._folder.mkdir(parents=True)
        (self._folder / "old").write_bytes(_OLD)
        self.single = False
        self.excuse: Callable[[BaseException], bool] = lambda _: (
            False
        )  # whether an error has a cause that no request met

    async def work(self, until: float) -> None:
        """Make calls until a moment of the monotonic clock."""
        while time.monotonic() < until and not self._soak.wrong:
            await asyncio.sleep(self._dice.expovariate(20))
            await self._soak.go.wait()
            kind = self._choose()
            self.single, self.excuse = False, lambda _: False
            call = next(self._soak.numbers)
            self._soak.working += 1
            try:
                await kind(call, self._soak.client.with_options(user_agent_suffix=f"call/{call}"))
            except Exception:  # noqa: BLE001 - a mistake of the client or of this program; either way it is shown
                self._soak.wrong.append(f"call {call}: {traceback.format_exc()}")
            finally:
                self._soak.working -= 1

    def _choose(self) -> Callable[[int, MediaApi], Awaitable[None]]:
        full = len(self._soak.shelf) / _SHELF
        kinds = [self._upload, self._get_info, self._download, self._delete]
        return self._dice.choices(kinds, [2 - min(full, 1.5), 1, 2, full])[0] if full > 0.1 else self._upload

    def _taken(self) -> Media:
        shelf = self._soak.shelf
        return shelf.pop(self._dice.randrange(len(shelf)))

    async def _outcome(self, call: int, operation: str, making: Awaitable[Any]) -> tuple[BaseException | None, Any]:
        """Let a call end by itself or by being cancelled, once or twice; record its outcome."""
        soak, task = self._soak, asyncio.ensure_future(making)
        impatient = self._dice.random() < _CANCELLED
        moment = self._dice.choice(_MOMENTS) * self._dice.random()
        await asyncio.wait({task}, timeout=moment if impatient else _CALL_TIMEOUT)
        if cancelled := not task.done():
            soak.expect(impatient, f"call {call}: not over after {_CALL_TIMEOUT} seconds")
            task.cancel()
            await asyncio.sleep(0)
            if self._dice.random() < 0.5:
                task.cancel()
            await asyncio.wait({task})
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        soak.expect(not cancelled or task.cancelled(), f"call {call}: a cancelled {operation} ended with {error!r}")
        soak.outcomes[f"{operation}: {'ok' if error is None else type(error).__name__}"] += 1
        if error is not None and not task.cancelled():
            self.judge_error(call, operation, error)
        return error, None if error else task.result()

    def judge_error(self, call: int, operation: str, error: BaseException) -> None:
        """Record an error, and whatever is wrong with it."""
        soak, shown = self._soak, "".join(traceback.format_exception(error)) + repr(error)
        soak.expect(isinstance(error, MediaError), f"call {call}: an error that is not a MediaError: {shown}")
        soak.expect(soak.token not in shown and "hash=" not in shown, f"call {call}: an error shows a secret")
        if not self.excuse(error):
            soak.failures.add(Failure(call, operation, self.single, type(error).__name__, str(error)))

    async def _upload(self, call: int, api: MediaApi) -> None:
        soak, way = self._soak, self._dice.choice(["bytes", "path", "iterator", "declared iterator"])
        start = self._dice.randrange(2**17)
        content = b"%d\n" % call + POOL[start : start + self._dice.choice([100, 10_000, 300_000, 10**6])]
        source: Any = {"bytes": content, "path": self._folder.parent / f"{self._folder.name}.txt"}.get(way)
        options: dict[str, Any] = {"filename": f"{call}.txt", "mime_type": "text/plain"}
        if way == "path":
            await asyncio.to_thread(source.write_bytes, content)
        elif source is None:
            source, self.single = _pieces(content), way.startswith("declared")
            options |= {"size": len(content)} if self.single else {}
        error, uploaded = await self._outcome(call, "upload", api.upload(source, **options))
        if error is not None:
            if getattr(error, "maybe_applied", True):
                soak.doubtful.add(call)
            return
        stored = await asyncio.to_thread(soak.stored(uploaded.id).read_bytes)
        soak.expect(stored == content and uploaded.file_size == len(content), f"call {call}: other bytes are stored")
        soak.shelf.append(Media(call, uploaded.id, hashlib.sha256(content).hexdigest()))
        if uploaded.maybe_duplicate:
            soak.doubtful.add(call)

    async def _get_info(self, call: int, api: MediaApi) -> None:
        media = self._taken()
        error, info = await self._outcome(call, "get_info", api.get_info(media.id))
        if error is None:
            media.info = info
            self._soak.expect((info.id, info.sha256) == (media.id, media.sha256), f"call {call}: wrong info {info}")
        self._soak.shelf.append(media)

    async def _download(self, call: int, api: MediaApi) -> None:
        soak, media, way = self._soak, self._taken(), self._dice.choice(["path", "folder", "read", "stream"])
        what: Any = self._dice.choice([media.info, media.id]) or media.id
        self.single = way == "stream"
        target = {"path": self._folder / "old", "folder": self._folder}.get(way)
        making = api.download(what, target) if target else api.read(what) if way == "read" else _streamed(api, what)
        error, value = await self._outcome(call, "download", making)
        if error is None:
            content = value if isinstance(value, bytes) else await asyncio.to_thread(value.path.read_bytes)
            soak.expect(hashlib.sha256(content).hexdigest() == media.sha256, f"call {call}: downloaded other bytes")
        for path in sorted(self._folder.iterdir()):
            content = path.read_bytes()
            whole = not isinstance(error, MediaError) and hashlib.sha256(content).hexdigest() == media.sha256
            good = (path.name == "old" and content == _OLD) or (whole and (path.name == "old") == (way == "path"))
            soak.expect(good, f"call {call}: a download to a {way}, ended by {error!r}, left {path.name!r}")
            if path.name != "old":
                path.unlink()
        (self._folder / "old").write_bytes(_OLD)
        soak.shelf.append(media)

    async def _delete(self, call: int, api: MediaApi) -> None:
        soak, media = self._soak, self._taken()
        error, _ = await self._outcome(call, "delete", api.delete(media.id))
        there = soak.stored(media.id).exists()
        if error is None:
            soak.expect(not there, f"call {call}: a deleted media is still there")
        elif getattr(error, "maybe_applied", True):
            soak.doubtful.add(media.call)
        else:
            soak.expect(there, f"call {call}: not applied, it says, but the media is gone")
            soak.shelf.append(media)


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 2**16):
        yield content[start : start + 2**16]
        await asyncio.sleep(0)


async def _streamed(api: MediaApi, what: Any) -> bytes:
    async with api.stream(what) as stream:
        return b"".join([chunk async for chunk in stream])
