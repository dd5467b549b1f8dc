"""
The emulator, in a process of its own: with media to begin with, with faults, and with a record of all that was asked of it.

`python -m benchmarks.many.serving FOLDER` reads an order from standard input, and says on standard output where it listens. When
it is told to end, it writes its record: a line for each request in the order in which they came, with method, path, and the length
that was announced.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from meta_media.emulator import Emulator, EmulatorSettings

from ..servers import HOUSE, ServerError
from .kinds import plan

_PATIENCE = 120.0  # seconds to write the record down
_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class Order:
    """
    What the emulator is to be.

    Attributes:
        media: How many there are to begin with, whose ids are then in the folder's file `ids`, one a line.
        remembered: Requests, of which the oldest would be forgotten if there were more.
        faults: How likely each kind of fault is to happen to a request.
    """

    media: int = 0
    remembered: int
    faults: float = 0.0


class Asked(NamedTuple):
    """A request that came."""

    method: str
    path: str
    length: int | None


@dataclass(frozen=True)
class Served:
    """An emulator that runs, or has run."""

    folder: Path
    base_url: str
    access_token: str
    phone_number_id: str

    @property
    def ids(self) -> Path:
        """The ids of the media that were there to begin with, one a line."""
        return self.folder / "ids"

    @property
    def database(self) -> Path:
        """What the emulator knows of its media, to be read when it has ended."""
        return self.folder / "data" / "emulator.sqlite3"

    def stored(self, media_id: str) -> Path:
        """Return where the bytes of a media are."""
        return self.folder / "data" / "media" / media_id

    def record(self) -> Iterator[Asked]:
        """Read what was asked, once the emulator has ended."""
        with (self.folder / "record").open() as lines:
            for line in lines:
                method, path, length = line.split()
                yield Asked(method, path, None if length == "-" else int(length))


@contextlib.contextmanager
def serving(folder: Path, order: Order) -> Iterator[Served]:
    """Run an emulator for as long as the block lasts; its record is there afterwards."""
    command = [sys.executable, "-m", "benchmarks.many.serving", str(folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=HOUSE, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(asdict(order)) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                raise ServerError("the emulator did not start")
            yield Served(folder, **json.loads(line))
        finally:
            process.terminate()
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


async def _filled(emulator: Emulator, ids: Path, count: int) -> None:
    """Let a customer send so many media: the quickest way in that the emulator has."""
    numbers = iter(range(count))
    with ids.open("w") as file:

        async def lane() -> None:
            for number in numbers:
                body, _ = await emulator.receive(b"%d" % number, "text/plain")
                message = json.loads(body)["entry"][0]["changes"][0]["value"]["messages"][0]
                file.write(message[message["type"]]["id"] + "\n")

        await asyncio.gather(*(lane() for _ in range(_AT_ONCE)))


async def main(folder: Path, order: Order) -> None:
    """Prepare, serve until told to end, and write the record."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # broken connections are what faults are for
    settings = EmulatorSettings(remembered=order.remembered)
    async with Emulator(folder / "data", settings=settings) as emulator:
        await _filled(emulator, folder / "ids", order.media)
        emulator.plan(plan(order.faults))
        said = {name: getattr(emulator, name) for name in ("base_url", "access_token", "phone_number_id")}
        print(json.dumps(said), flush=True)
        await emulator.serve_forever()
        lines = (f"{it.method} {it.path} {it.content_length or '-'}\n" for it in emulator.requests)
        (folder / "record").write_text("".join(lines))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Order(**json.loads(sys.stdin.readline()))))
