"""
A lean server for downloads, where there is no nginx: `python -m benchmarks.download_server FOLDER CERTIFICATE KEY`.

It serves the folder's trees `http` and `https` on free ports of 127.0.0.1, prints the ports, and goes on until it is
terminated. Plain http uses the kernel's sendfile. There is no range, no caching, no listing.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from functools import partial
from pathlib import Path
from typing import BinaryIO

_WRITE = 2**18  # bytes encrypted at a time


def find(folder: Path, target: str) -> tuple[BinaryIO, int] | None:
    """Open what a request names, if it is a file of the folder, and tell its size."""
    path = (folder / target.partition("?")[0].lstrip("/")).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        return None
    return path.open("rb"), path.stat().st_size


async def answer(folder: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection until its client leaves."""
    try:
        while True:
            method, target, _ = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)
            tree = folder / ("http" if writer.get_extra_info("sslcontext") is None else "https")
            found = find(tree, target.decode()) if method == b"GET" else None
            if found is None:
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
                continue
            kind = b"application/pdf" if target.endswith(b".pdf") else b"application/json"
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (kind, found[1]))
            with found[0] as file:
                await send(file, writer)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def send(file: BinaryIO, writer: asyncio.StreamWriter) -> None:
    """Send a file: through the kernel where the connection is plain, else a piece at a time."""
    await writer.drain()
    if writer.get_extra_info("sslcontext") is None:
        await asyncio.get_running_loop().sendfile(writer.transport, file)
        return
    while piece := file.read(_WRITE):  # the page cache holds it
        writer.write(piece)
        await writer.drain()


async def main(folder: Path, certificate: str, key: str) -> None:
    """Listen twice, say where, and answer."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    plain = await asyncio.start_server(partial(answer, folder), "127.0.0.1", 0)
    secure = await asyncio.start_server(partial(answer, folder), "127.0.0.1", 0, ssl=context)
    ports = {"http": plain.sockets[0].getsockname()[1], "https": secure.sockets[0].getsockname()[1]}
    print(json.dumps(ports), flush=True)
    async with plain, secure:
        await asyncio.gather(plain.serve_forever(), secure.serve_forever())


if __name__ == "__main__":
    try:
        asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
    except KeyboardInterrupt:
        sys.exit(0)
