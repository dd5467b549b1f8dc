"""
What a soak does, call by call, and how each outcome is judged.

A media is used by one call at a time. What the emulator holds is looked up in its folder, past any network.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass, field
from itertools import count, cycle
from pathlib import Path
from typing import Any

from meta_media import MediaApi, MediaError, MediaInfo, UploadedMedia

from .chaos import NUMBER, POOR, TOKENS

_PAUSE = 0.1  # seconds between two calls of a task, on average
_IMPATIENT = 0.05  # of the calls
_MOMENTS = (0.003, 0.03, 0.5)  # seconds within which they are cancelled
_FOR_EVER = 90.0  # seconds, which no call may take: waits and tries add up to much less
_SIZES = ((60, 2**12), (30, 2**17), (9, 2**20), (1, 2**22))  # how many in a hundred have up to so many bytes
_POOR = 0.002  # of the calls are those of numbers that may not upload any more
_SHELF = 400  # media kept at a time, about
_OLD = b"old"  # what a download to a path replaces
_POOL = random.Random(1).randbytes(3 * 2**20).hex().encode()


class WrongError(Exception):
    """An outcome that should not have been."""


@dataclass
class Media:
    """What was uploaded: by which call, under which id; and what was told of it last."""

    call: int
    id: str
    size: int
    sha256: str
    info: MediaInfo | None = None


@dataclass(frozen=True)
class Failure:
    """A call that failed as it may, if there was a reason: `error` and `told` are the name and the sentence of its error."""

    call: int
    ways: tuple[str, ...]
    once: bool
    error: str
    told: str


@dataclass
class Soak:
    """What all tasks share, and what became of their calls."""

    folder: Path
    client: MediaApi
    chance: random.Random
    numbers: Iterator[int] = field(default_factory=count)
    poor: Iterator[str] = field(default_factory=lambda: cycle(POOR))
    shelf: list[Media] = field(default_factory=list)
    doubtful: set[int] = field(default_factory=set)  # uploads that the emulator may hold more or less often than once
    outcomes: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    failed: list[Failure] = field(default_factory=list)
    wrong: list[tuple[int | None, str]] = field(default_factory=list)  # in which call

    def stored(self, media_id: str) -> Path:
        """Tell where the emulator keeps a media."""
        return self.folder / "emulator" / "media" / media_id

    def complain(self, what: str, call: int | None = None) -> None:
        """Note what should not have been."""
        self.wrong.append((call, what))


class Work:
    """
    One call; of its kinds this one asks about a media.

    Attributes:
        operation: As errors name it.
        way: Of doing it, where there are several.
        once: Whether its source can be read only once.
        what: To download: an id, or what was told of it some time ago.
    """

    operation = "get_info"
    way = "get_info"
    once = False
    what: MediaInfo | str | None = None

    def __init__(self, soak: Soak, folder: Path, call: int) -> None:
        self.soak, self.folder, self.call = soak, folder, call
        if self.operation != "upload":  # nobody else uses it meanwhile
            position = soak.chance.randrange(len(soak.shelf))
            soak.shelf[position], soak.shelf[-1] = soak.shelf[-1], soak.shelf[position]
            self.media = soak.shelf.pop()

    @property
    def ways(self) -> tuple[str, ...]:
        """Name what matters to whether an error is excused."""
        return (self.way, "fresh" if isinstance(self.what, str) else "known")

    async def prepare(self) -> None:
        """Do what is not part of the call."""

    async def make(self, api: MediaApi) -> Any:
        """Make the call."""
        return await api.get_info(self.media.id)

    async def check(self, info: Any) -> None:
        """Check what it gave."""
        self.media.info = info
        _equal("info", (info.id, info.file_size, info.sha256), (self.media.id, self.media.size, self.media.sha256))

    async def ended(self, error: BaseException | None) -> None:
        """Check what it left, and put back what may be used again; without an error it succeeded."""
        self.soak.shelf.append(self.media)


class Upload(Work):
    """An upload of something that the emulator can then be seen to hold."""

    operation = "upload"

    def __init__(self, soak: Soak, folder: Path, call: int) -> None:
        super().__init__(soak, folder, call)
        self.way = soak.chance.choice(["bytes", "path", "handle", "iterator", "iterator, size declared"])
        self.once = "declared" in self.way
        most = soak.chance.choices([size for _, size in _SIZES], [share for share, _ in _SIZES])[0]
        size = soak.chance.randint(1, most)
        start = soak.chance.randrange(len(_POOL) - size)
        self._source = folder / "source"
        self.content = _POOL[start : start + size]

    async def prepare(self) -> None:
        """Write the file to be sent."""
        if self.way in {"path", "handle"}:
            await asyncio.to_thread(self._source.write_bytes, self.content)

    async def make(self, api: MediaApi) -> UploadedMedia:
        """Upload."""
        options: dict[str, Any] = {"filename": f"{self.call}.txt", "mime_type": "text/plain"}
        if self.once:
            options["size"] = len(self.content)
        if self.way == "bytes":
            return await api.upload(self.content, **options)
        if self.way.startswith("iterator"):
            return await api.upload(self._pieces(), **options)
        if self.way == "path":
            return await api.upload(self._source, **options)
        with self._source.open("rb") as handle:
            try:
                return await api.upload(handle, **options)
            finally:
                _equal("the handle's position", handle.tell(), 0)

    async def _pieces(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.content), 2**16):
            yield self.content[start : start + 2**16]
            await asyncio.sleep(0)

    async def check(self, uploaded: UploadedMedia) -> None:
        """Compare with what the emulator holds."""
        sha256 = hashlib.sha256(self.content).hexdigest()
        _equal("file_size", uploaded.file_size, len(self.content))
        _equal("what the emulator holds", await _sha256(self.soak.stored(uploaded.id)), sha256)
        self.soak.shelf.append(Media(self.call, uploaded.id, len(self.content), sha256))
        if uploaded.maybe_duplicate:
            self.soak.doubtful.add(self.call)

    async def ended(self, error: BaseException | None) -> None:
        """Note an upload that may have been one."""
        if error is not None and getattr(error, "maybe_applied", True):
            self.soak.doubtful.add(self.call)


class Download(Work):
    """A download to where an old file is, into a folder, into memory, or chunk by chunk."""

    operation = "download"

    def __init__(self, soak: Soak, folder: Path, call: int) -> None:
        super().__init__(soak, folder, call)
        self.way = soak.chance.choice(["path", "folder", "read", "stream"])
        self.what: MediaInfo | str = soak.chance.choice([self.media.info, None]) or self.media.id
        self.target = folder / "target" / "old" if self.way == "path" else folder / "target"

    async def make(self, api: MediaApi) -> bytes | str | Path:
        """Download; give the bytes, their SHA-256 or their path."""
        if self.way == "read":
            return await api.read(self.what)
        if self.way == "stream":
            digest = hashlib.sha256()
            async with api.stream(self.what) as stream:
                async for chunk in stream:
                    digest.update(chunk)
            return digest.hexdigest()
        done = await api.download(self.what, self.target)
        _equal("size and SHA-256", (done.size, done.sha256), (self.media.size, self.media.sha256))
        return done.path or Path()

    async def check(self, result: Any) -> None:
        """Compare with what was uploaded."""
        if isinstance(result, bytes):
            result = hashlib.sha256(result).hexdigest()
        _equal("SHA-256", await _sha256(result) if isinstance(result, Path) else result, self.media.sha256)

    async def ended(self, error: BaseException | None) -> None:
        """See that the target folder has what it had, and the media if it came; never anything else."""
        await super().ended(error)
        for path in _listed(self.folder / "target"):
            content = await _sha256(path)
            good = {hashlib.sha256(_OLD).hexdigest()} if path.name == "old" else set()
            if self.way in {"path", "folder"} and (path.name == "old") == (self.way == "path"):
                good |= set() if isinstance(error, MediaError) else {self.media.sha256}
            if path.name != "old":
                path.unlink()
            elif content != hashlib.sha256(_OLD).hexdigest():
                await asyncio.to_thread(path.write_bytes, _OLD)
            _expect(
                content in good,
                f"a download to a {self.way}, ended by {error!r}, left this as {path.name!r}: {content}",
            )


class Delete(Work):
    """The end of a media."""

    operation = way = "delete"

    async def make(self, api: MediaApi) -> Any:
        """Delete."""
        return await api.delete(self.media.id)

    async def check(self, deleted: Any) -> None:
        """See that the emulator does not hold it any more."""
        _expect(deleted.success and not self.soak.stored(self.media.id).exists(), "what was deleted is still there")

    async def ended(self, error: BaseException | None) -> None:
        """Keep what certainly was not deleted, and see that it was not."""
        if error is not None and getattr(error, "maybe_applied", True):
            self.soak.doubtful.add(self.media.call)
        elif error is not None:
            _expect(self.soak.stored(self.media.id).exists(), f"a delete that was not applied was applied: {error!r}")
            self.soak.shelf.append(self.media)


def _expect(good: bool, otherwise: str) -> None:
    if not good:
        raise WrongError(otherwise)


def _equal(what: str, found: object, expected: object) -> None:
    _expect(found == expected, f"{what}: {found!r:.100} instead of {expected!r:.100}")


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


async def _sha256(path: Path) -> str:
    return await asyncio.to_thread(lambda: hashlib.sha256(path.read_bytes()).hexdigest())


class Caller:
    """One of the tasks."""

    def __init__(self, soak: Soak, number: int) -> None:
        self._soak = soak
        self._chance = soak.chance
        self._folder = soak.folder / "targets" / str(number)
        (self._folder / "target").mkdir(parents=True)
        (self._folder / "target" / "old").write_bytes(_OLD)

    async def work(self, until: float) -> None:
        """Make one call after the other."""
        while time.monotonic() < until:
            await asyncio.sleep(self._chance.expovariate(1 / _PAUSE))
            kinds: list[type[Work]] = [Upload, Work, Download, Download, Delete]
            full = len(self._soak.shelf) / _SHELF
            kind = self._chance.choices(kinds, [2 - min(full, 1.5), 1, 1, 1, full])[0] if full > 0.05 else Upload
            await self._one(kind(self._soak, self._folder, next(self._soak.numbers)))

    async def _one(self, work: Work) -> None:
        soak, outcome = self._soak, "as it should be"
        number = next(self._soak.poor) if self._chance.random() < _POOR else NUMBER
        calling = soak.client.with_options(user_agent_suffix=f"call/{work.call}", phone_number_id=number)
        try:
            await work.prepare()
            error, result = await self._outcome(work.make(calling))
            if error is None:
                await work.check(result)
            elif not isinstance(error, asyncio.CancelledError):
                self._judge(work, error)
                outcome = type(error).__name__
            else:
                outcome = "cancelled"
            await work.ended(error)
        except WrongError as wrong:
            outcome = "WRONG"
            soak.complain(f"{work.operation} ({work.way}): {wrong}", work.call)
        soak.outcomes[work.operation][outcome] += 1

    async def _outcome(self, making: Awaitable[Any]) -> tuple[BaseException | None, Any]:
        """Let a call end by itself, by a deadline, or by being cancelled twice."""
        moment = self._chance.choice(_MOMENTS) * self._chance.random()
        dice = self._chance.random()
        limit = asyncio.timeout(moment if dice < _IMPATIENT / 2 else None)

        async def limited() -> Any:
            async with limit:
                return await making

        task = asyncio.ensure_future(limited())
        twice = _IMPATIENT / 2 <= dice < _IMPATIENT
        await asyncio.wait({task}, timeout=moment if twice else _FOR_EVER)
        cancelled = not task.done() and task.cancel()
        if cancelled:
            await asyncio.sleep(self._chance.choice([0, 0.003]) * self._chance.random())
            task.cancel()
            await asyncio.wait({task})
        error = None if task.cancelled() else task.exception()
        _expect(twice or not cancelled, f"it was not over after {_FOR_EVER} seconds")
        if limit.expired() or cancelled:
            _expect(task.cancelled() or isinstance(error, TimeoutError), f"cancelled, it ended with {error!r}")
            return asyncio.CancelledError(), None
        return error, None if error else task.result()

    def _judge(self, work: Work, error: BaseException) -> None:
        told = "".join(traceback.format_exception(error)) + repr(error)
        _expect(isinstance(error, MediaError), f"an error that is not ours: {told}")
        assert isinstance(error, MediaError)
        _equal("operation", error.operation, work.operation)
        _expect(error.attempts > 0 and error.elapsed > 0, f"{error.attempts} attempts in {error.elapsed} s: {error!r}")
        _expect(not any(token in told for token in TOKENS) and "hash=" not in told, "an error shows a secret")
        self._soak.failed.append(Failure(work.call, work.ways, work.once, type(error).__name__, str(error)))
