"""
A service and a network that cannot be trusted, for `benchmarks.soak`, which starts this in a process of its own.

The emulator is told to give wrong answers; a proxy before it breaks what passes, beneath HTTP where that is possible. What
the proxy does next is drawn from a deck that is shuffled when it is used up. A request says in its User-Agent which call it
belongs to, and the journal has a line for each trouble that it met: so it can be told whether a call had a reason to fail.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import ssl
import subprocess
import sys
from collections import Counter, OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import attrs

from meta_media.emulator import Emulator, EmulatorSettings, Fault

from .servers import HOUSE, ServerError
from .troubles import CIRCLE, SILENCE, TROUBLES, Exchange, Trouble, page, reset

NUMBER = "106540352242922"
POOR = [str(int(NUMBER) + number) for number in range(1, 1001)]  # numbers that have used up what they may send
TOKENS = [f"EAAGsoakToken{number:04}" for number in range(8)]  # all alive: a dead one is a trouble like others
_PARTS = 0.5  # of the requests for a part of a media meet what is made for them: they are few
_LISTENING = 10.0  # seconds between two moments at which nobody does, on average
_DEAF = 0.02  # seconds that such a moment takes
_POOR = frozenset(POOR)
_AT_CONNECT = ("connection reset", "connection never read")
_SAID = {"handshake garbled": b"\x16\x03\x03\x00\x10" + b"?" * 16, "no TLS spoken": page("400 Bad Request")}


class Proxy:
    """Stands between a client and the emulator, and tells the emulator what to answer."""

    def __init__(
        self, emulator: Emulator, rate: float, seed: int, journal: IO[str], tls: ssl.SSLContext | None
    ) -> None:
        self.emulator = int(emulator.base_url.rpartition(":")[2])
        self.chance = random.Random(seed)
        self.tls = tls
        self.requests: Counter[str] = Counter()
        self._rate = rate
        self._journal = journal
        self._decks: dict[str, list[Trouble]] = {}
        self._recent: OrderedDict[tuple[str, bytes], None] = OrderedDict()

    async def run(self, emulator: Emulator) -> None:
        """Say where to connect, and listen, but for a moment now and then; never ends."""
        sink = await asyncio.start_server(self._leaked, "127.0.0.1", 0)
        self._teach(emulator, sink.sockets[0].getsockname()[1])
        port = 0
        while True:
            server = await asyncio.start_server(self._connected, "127.0.0.1", port, backlog=1024)
            if not port:
                port = server.sockets[0].getsockname()[1]
                print(json.dumps({"port": port}), flush=True)
            await asyncio.sleep(self.chance.uniform(0.5, 1.5) * _LISTENING)
            if self._rate:
                server.close()
                self.note("-", "-", "connection refused")
                await asyncio.sleep(_DEAF)

    def note(self, call: str, kind: str, trouble: str) -> None:
        """Write a line of the journal."""
        self._journal.write(f"{call}\t{kind}\t{trouble}\n")

    def _teach(self, emulator: Emulator, sink: int) -> None:
        for kind in ("upload", "get_info", "delete", "download"):
            possible = [trouble for trouble in TROUBLES if kind in trouble.kinds.split()]
            for trouble in possible:
                if isinstance(trouble.cause, Fault) and self._rate:
                    headers = {name: text.format(sink=sink) for name, text in trouble.cause.headers.items()}
                    told = attrs.evolve(trouble.cause, headers=headers | {"soak": trouble.name})
                    share, seed = self._rate / len(possible), self.chance.randrange(2**32)
                    emulator.fail(kind, told, times=None, probability=share, seed=seed)

    def _drawn(self, *kinds: str, rate: float | None = None) -> Trouble | None:
        """Draw what happens to a request, if anything does: all that can are equally likely."""
        possible = [trouble for trouble in TROUBLES if set(kinds) & set(trouble.kinds.split())]
        ours = [trouble for trouble in possible if not isinstance(trouble.cause, Fault)]
        if self.chance.random() >= (self._rate if rate is None else rate) * len(ours) / len(possible):
            return None
        deck = self._decks.setdefault(kinds[0], [])
        deck[:] = deck or self.chance.sample(ours, len(ours))
        return deck.pop()

    async def _leaked(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.note("-", "-", "LEAK")
        writer.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError), contextlib.closing(writer):
            if self.chance.random() < self._rate:
                await self._spoiled(self.chance.choice([*_AT_CONNECT, *(_SAID if self.tls else ())]), writer)
                return
            if self.tls is not None:  # at once: the client's first words must not be read here
                await writer.start_tls(self.tls)
            while await self._answered(reader, writer):
                pass

    async def _spoiled(self, trouble: str, writer: asyncio.StreamWriter) -> None:
        self.note("-", "-", trouble)
        if trouble in _SAID:
            writer.write(_SAID[trouble])
        await asyncio.sleep({"connection reset": 0, "connection never read": SILENCE}.get(trouble, 0.1))
        reset(writer)

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        exchange = Exchange(self, reader, writer, await reader.readuntil(b"\r\n\r\n"))
        self._count(exchange)
        if exchange.line.endswith(CIRCLE.encode()):
            return await exchange.say(page("302 Found", f"location: {CIRCLE}"))
        if exchange.part and self._rate:
            trouble = self._drawn("part", rate=_PARTS)
        elif exchange.line.split(b"/")[-2].decode() in _POOR and self._rate:
            trouble = self._drawn("poor", rate=1)
        else:
            trouble = self._drawn(exchange.kind, *(["tls"] if self.tls else []))
        if trouble is None or isinstance(trouble.cause, Fault):
            return await exchange.say((await exchange.forwarded()).whole)
        self.note(exchange.call, exchange.kind, trouble.name)
        return await trouble.cause(exchange)

    def _count(self, exchange: Exchange) -> None:
        """Count a request, and whether its call has made the like of it before."""
        like = exchange.call, exchange.line
        self.requests[exchange.kind] += 1
        self.requests["repeated"] += like in self._recent
        self._recent[like] = None
        if len(self._recent) > 2000:
            self._recent.popitem(last=False)


@contextlib.contextmanager
def running(folder: Path, rate: float, seed: int, tls: list[str]) -> Iterator[tuple[int, Counter[str]]]:
    """Start all this in a process of its own; give its port, and the requests that it counted, once the block has ended."""
    command = [sys.executable, "-m", "benchmarks.chaos", str(folder), str(rate), str(seed), *tls]
    requests: Counter[str] = Counter()
    with subprocess.Popen(command, cwd=HOUSE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise ServerError("the proxy did not start")
            yield json.loads(line)["port"], requests
        finally:
            process.terminate()
            requests.update(json.loads(process.communicate(timeout=60)[0] or "{}"))


async def main(options: argparse.Namespace) -> None:
    """Serve until told to end; then say how many requests there were."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if options.tls else None
    if tls is not None:
        tls.load_cert_chain(*options.tls)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # broken connections are what this is for
    settings = EmulatorSettings(remembered=0)
    async with Emulator(
        options.folder / "emulator", accounts=dict.fromkeys([NUMBER, *POOR], TOKENS), settings=settings
    ) as emulator:
        with (options.folder / "journal").open("w", buffering=1) as journal:
            proxy = Proxy(emulator, options.rate, options.seed, journal, tls)
            serving = asyncio.create_task(proxy.run(emulator))
            await emulator.serve_forever()
            serving.cancel()
    print(json.dumps(proxy.requests))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("rate", type=float, help="of the requests meet a trouble")
    parser.add_argument("seed", type=int)
    parser.add_argument("tls", nargs="*", metavar="FILE", help="certificate and key")
    asyncio.run(main(parser.parse_args()))
