"""
`python -m benchmarks.soak`: a client that works for a long time while requests fail and callers give up.

Tasks upload, look up, download and delete media at an emulator in a process of its own, which does something wrong to a share of
the requests. Some calls are cancelled at a random moment. Each outcome is judged: a success by the bytes that the emulator holds
or that lie in the target folder, an error by the faults that the call met and by whether `maybe_applied` was true, a cancellation
by what it leaves. The exit status is 1 if an outcome was wrong, if descriptors or tasks are left, or if memory grows.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import itertools
import json
import os
import random
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil

from meta_media import MediaApi, MediaError, MediaInfo, Settings
from meta_media.emulator import Emulator, EmulatorSettings

from .processes import python
from .troubles import Trouble, met_by_call, plan

_WAIT_TIMEOUT: Final = 2.0  # seconds of each wait; only a stall takes as long
_CALL_TIMEOUT: Final = 90.0  # seconds that no call may take
_CANCELLED: Final = 0.05  # of the calls, once or twice
_MOMENTS: Final = (0.003, 0.03, 0.3)  # seconds within which they are cancelled
_SHELF: Final = 300  # media kept at a time, about
_LONG: Final = 5.0  # minutes from which on growth is judged; in less time it is noise
_STEEPEST: Final = 1.0  # MiB of memory a minute, over the second half
_TOO_BUSY: Final = 0.002  # of the calls may time out without a fault, which is the machine's doing
_OLD: Final = b"old"  # what a download to a path replaces
_POOL: Final = random.Random(1).randbytes(2**20).hex().encode()
_NEVER: Final = frozenset({"CorruptedMediaError", "UnsupportedMediaTypeError", "FileTooLargeError", "StorageError"})


async def _serve(folder: Path, rate: float, seed: int) -> None:
    """Run the emulator until the process is terminated; then write the record of all requests."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # broken connections are what faults are for
    async with Emulator(folder / "data", settings=EmulatorSettings(remembered=10**7)) as emulator:
        emulator.plan(plan(rate, seed))
        names = ("base_url", "access_token", "phone_number_id")
        print(json.dumps({name: getattr(emulator, name) for name in names}), flush=True)
        await emulator.serve_forever()
        lines = (json.dumps([it.method, it.path, it.user_agent or ""]) + "\n" for it in emulator.requests)
        (folder / "record").write_text("".join(lines))


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


@dataclass
class Soak:
    """What all tasks share, and the outcomes of their calls."""

    folder: Path
    client: MediaApi
    dice: random.Random
    numbers: Any = field(default_factory=itertools.count)
    shelf: list[Media] = field(default_factory=list)
    doubtful: set[int] = field(default_factory=set)  # uploads of which the emulator may hold none, one or several
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

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

    async def work(self, until: float) -> None:
        """Make calls until a moment of the monotonic clock."""
        while time.monotonic() < until:
            await asyncio.sleep(self._dice.expovariate(20))
            full = len(self._soak.shelf) / _SHELF
            kinds = [self._upload, self._get_info, self._download, self._delete]
            kind = self._dice.choices(kinds, [2 - min(full, 1.5), 1, 2, full])[0] if full > 0.1 else self._upload
            self.single = False
            call = next(self._soak.numbers)
            try:
                await kind(call, self._soak.client.with_options(user_agent_suffix=f"call/{call}"))
            except Exception:  # noqa: BLE001 - a mistake of the client or of this program; either way it is shown
                self._soak.wrong.append(f"call {call}: {traceback.format_exc()}")

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
        soak.expect(not cancelled or task.cancelled(), f"call {call}: a cancellation ended with {error!r}")
        soak.outcomes[f"{operation}: {'ok' if error is None else type(error).__name__}"] += 1
        if error is not None and not task.cancelled():
            self._judge_error(call, operation, error)
        return error, None if error else task.result()

    def _judge_error(self, call: int, operation: str, error: BaseException) -> None:
        soak, shown = self._soak, "".join(traceback.format_exception(error)) + repr(error)
        soak.expect(isinstance(error, MediaError), f"call {call}: an error that is not a MediaError: {shown}")
        secret = soak.client.access_token if hasattr(soak.client, "access_token") else "EAAG"
        soak.expect(str(secret) not in shown and "hash=" not in shown, f"call {call}: an error shows a secret")
        soak.failures.append(Failure(call, operation, self.single, type(error).__name__, str(error)))

    async def _upload(self, call: int, api: MediaApi) -> None:
        soak, way = self._soak, self._dice.choice(["bytes", "path", "iterator", "declared iterator"])
        start = self._dice.randrange(2**17)
        content = b"%d\n" % call + _POOL[start : start + self._dice.choice([100, 10_000, 300_000, 10**6])]
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


def _judge_failures(soak: Soak, met: dict[str, list[Trouble]]) -> None:
    """Record the errors that no fault explains."""
    late = 0
    for failure in soak.failures:
        troubles = met.get(str(failure.call), [])
        enough = failure.single or len(troubles) > 1
        stale = (
            failure.single and failure.error == "NetworkError"
        )  # of a kept connection that another call's fault closed
        explained = stale or any(it.error == failure.error and (it.at_once or enough) for it in troubles)
        if failure.error == "TransferTimeoutError" and not explained:
            late += 1
        elif failure.error in _NEVER or not (explained or (enough and troubles)):
            names = [trouble.name for trouble in troubles] or "no fault"
            soak.wrong.append(f"call {failure.call}, {failure.operation}, which met {names}: {failure.message}")
    soak.expect(
        late <= len(soak.failures) * 0.1 + _TOO_BUSY * soak.outcomes.total(), f"{late} timed out without a fault"
    )


def _judge_emulator(soak: Soak) -> None:
    """Compare what the emulator holds in the end with what the outcomes say."""
    with sqlite3.connect(next((soak.folder / "data").glob("*.sqlite*"))) as database:
        rows = database.execute("SELECT id, filename, sha256 FROM media").fetchall()
    database.close()
    shelf = {media.id: media for media in soak.shelf}
    for media_id, filename, sha256 in rows:
        call, media = int(filename.removesuffix(".txt")), shelf.pop(media_id, None)
        soak.expect(media is not None or call in soak.doubtful, f"call {call}: the emulator holds an unreported upload")
        soak.expect(media is None or media.sha256 == sha256, f"call {call}: the emulator holds other bytes")
    for media in shelf.values():
        soak.wrong.append(f"call {media.call}: the emulator does not hold the upload")


async def _soaked(folder: Path, server: dict[str, str], options: argparse.Namespace) -> Soak:
    """Work for as long as asked; judge what is left in this process."""
    timeouts = dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), _WAIT_TIMEOUT)
    settings = Settings(base_url=server["base_url"], backoff=0.2, minimum_rate=0, **timeouts)  # type: ignore[arg-type]
    process, looks = psutil.Process(), list[tuple[float, float]]()
    async with MediaApi(server["access_token"], server["phone_number_id"], settings=settings) as client:
        soak = Soak(folder, client, random.Random(options.seed))
        asyncio.get_running_loop().set_exception_handler(lambda _, it: soak.wrong.append(f"the event loop: {it}"))
        before = process.num_fds(), len(asyncio.all_tasks())
        until = time.monotonic() + options.minutes * 60
        callers = [asyncio.create_task(Caller(soak, it).work(until)) for it in range(options.tasks)]
        while (await asyncio.wait(callers, timeout=2))[1]:
            looks.append((time.monotonic() / 60, process.memory_info().rss / 2**20))
    gc.collect()  # a task whose error was never retrieved complains now
    await asyncio.sleep(0.5)  # closing takes a few turns of the loop
    after = process.num_fds(), len(asyncio.all_tasks())
    soak.expect(after <= before, f"descriptors and tasks: {before} before, {after} afterwards")
    half = looks[len(looks) // 2 :]
    slope = statistics.linear_regression(*zip(*half, strict=True)).slope if len(half) > 2 else 0.0
    soak.expect(options.minutes < _LONG or slope <= _STEEPEST, f"memory grew by {slope:.2f} MiB a minute")
    print(f"memory {looks[-1][1]:.0f} MiB, {slope:+.2f} MiB a minute in the second half" if looks else "too short")
    return soak


def _report(soak: Soak, requests: int, met: dict[str, list[Trouble]], options: argparse.Namespace) -> None:
    calls = soak.outcomes.total()
    print(
        f"{options.minutes:g} minutes, {options.tasks} tasks, seed {options.seed}: {calls:,} calls, {requests:,} requests"
    )
    _print_table(soak.outcomes.items())
    _print_table(Counter(trouble.name for troubles in met.values() for trouble in troubles).most_common())
    for line in soak.wrong[:20]:
        print(f"WRONG: {line}")
    sys.exit(f"{len(soak.wrong)} things were wrong" if soak.wrong else None)


def _print_table(rows: Iterable[tuple[str, int]]) -> None:
    print("\n| | |\n|---|---:|")
    for name, count in sorted(rows):
        print(f"| {name} | {count:,} |")


def main() -> None:
    """Read the command line; serve as the emulator's process, or soak and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--tasks", type=int, default=32, help="that make calls (default 32)")
    parser.add_argument("--faults", type=float, default=2, metavar="PERCENT", help="of the requests (default 2)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="chooses calls and faults")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    rate = options.faults / 100
    if options.serve:
        asyncio.run(_serve(options.serve, rate, options.seed))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # so that the emulator ends, too
    warnings.simplefilter("error", ResourceWarning)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "WA_APP_SECRET", "CLOUD_API_VERSION"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        arguments = ["--serve", name, "--faults", str(options.faults), "--seed", str(options.seed)]
        with python("benchmarks.soak", *arguments) as (_, server):
            soak = asyncio.run(_soaked(Path(name), server, options))
        requests, met = met_by_call(Path(name), rate, options.seed)
        _judge_failures(soak, met)
        _judge_emulator(soak)
        _report(soak, requests, met, options)


if __name__ == "__main__":
    main()
