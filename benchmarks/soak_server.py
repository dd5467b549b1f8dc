"""
The server of a soak, in a process of its own: the emulator behind TLS.

The TLS side floods a share of the requests with interim responses (RFC 9110, section 15.2), or sends one from time to time, and
in either case no response. Those requests never reach the emulator. At the end, two files have the record of all requests.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import ssl
from pathlib import Path
from typing import Final

from meta_media.emulator import Emulator, EmulatorSettings

from .troubles import FLOODS, plan

_INTERIM: Final = b"HTTP/1.1 103 Early Hints\r\n\r\n"
_PIECE: Final = 2**16  # bytes
_PAUSE: Final = 0.4  # seconds between the interim responses of a trickle


class _Front:
    """Speaks TLS for the emulator, and tells it so."""

    def __init__(self, port: int, rate: float, seed: int) -> None:
        self._port = port
        self._rate = rate
        self._dice = random.Random(seed)
        self.flooded: list[tuple[str, str]] = []  # the call, and the kind of flood

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._port)
        directions = (
            asyncio.create_task(self._requests(reader, inner_writer, writer)),
            asyncio.create_task(self._responses(inner_reader, writer)),
        )
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in directions:
                task.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            inner_writer.close()
            writer.close()

    async def _requests(
        self, reader: asyncio.StreamReader, inner: asyncio.StreamWriter, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if self._dice.random() < self._rate:
                    await self._flood(head, writer)
                length = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
                inner.write(head[:-2] + b"x-forwarded-proto: https\r\n\r\n")
                left = int(length[1]) if length else 0
                while left:
                    if not (piece := await reader.read(min(left, _PIECE))):
                        return
                    left -= len(piece)
                    inner.write(piece)
                    await inner.drain()

    async def _flood(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        call, flood = re.search(rb"call/([0-9]+)", head), self._dice.choice(FLOODS)
        self.flooded.append((call[1].decode() if call else "", flood.name))
        slow = "trickle" in flood.name
        while True:
            writer.write(_INTERIM if slow else _INTERIM * 100)
            await writer.drain()
            await asyncio.sleep(_PAUSE if slow else 0)

    async def _responses(self, inner: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await inner.read(_PIECE):
                writer.write(piece)
                await writer.drain()
        except ConnectionResetError:
            writer.transport.abort()
        except OSError:  # the client has gone
            return


async def _serve(folder: Path, rate: float, seed: int) -> None:
    """Serve until the process is terminated; then write the records."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # broken connections are what faults are for
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "server.pem")
    async with Emulator(folder / "data", settings=EmulatorSettings(remembered=10**7)) as emulator:
        emulator.plan(plan(rate, seed))
        front = _Front(int(emulator.base_url.rpartition(":")[2]), rate / 40, seed)
        listener = await asyncio.start_server(front.converse, "127.0.0.1", 0, ssl=tls)
        url = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        names = ("access_token", "phone_number_id")
        print(json.dumps({"base_url": url} | {name: getattr(emulator, name) for name in names}), flush=True)
        await emulator.serve_forever()
        lines = (json.dumps([it.method, it.path, it.user_agent or ""]) + "\n" for it in emulator.requests)
        (folder / "record").write_text("".join(lines))
        (folder / "flooded").write_text(json.dumps(front.flooded))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("rate", type=float)
    parser.add_argument("seed", type=int)
    options = parser.parse_args()
    asyncio.run(_serve(options.folder, options.rate, options.seed))
