"""
A lean server for uploads, so that the client is what is measured.

`python -m benchmarks.upload_server` listens on a free port of 127.0.0.1, prints the port, and answers until it is
terminated. It looks for the end of the headers, counts the body's bytes into a buffer that is used again and again, and
answers with a media id. A body must say its length, as it must to Meta.
"""

from __future__ import annotations

import asyncio
import json
import sys

MEDIA_ID = "1045500012345678"
_BUFFER = 2**20  # bytes received at a time at most
_MAX_HEAD = 2**16  # bytes of request line and headers


def reply(status: str, body: bytes) -> bytes:
    """Write a whole reply of JSON, on a connection that stays open."""
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Connection: keep-alive\r\n\r\n"
    ).encode() + body


_UPLOADED = reply("200 OK", json.dumps({"id": MEDIA_ID}).encode())
_NO_LENGTH = reply("411 Length Required", b"{}")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def header(head: bytes, name: bytes) -> bytes | None:
    """Find a header in a request's head, which ends before the blank line."""
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip()
    return None


class Upload(asyncio.BufferedProtocol):
    """One connection: head, body, reply, and again."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(_BUFFER))
        self._head = bytearray()
        self._left = 0  # bytes of the current body still to come

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        """Offer the same buffer again: what was in it has been counted."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Count what belongs to the body; the rest is a head."""
        counted = min(nbytes, self._left)
        if counted:
            self._left -= counted
            if self._left == 0:
                self._transport.write(_UPLOADED)
        if counted < nbytes:
            self._head += self._buffer[counted:nbytes]
            self._begin()

    def _begin(self) -> None:
        """Read heads for as long as there are whole ones; a body that came along is counted at once."""
        while (end := self._head.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._head[:end])
            del self._head[: end + 4]
            length = header(head, b"content-length")
            if length is None or not length.isdigit():
                self._transport.write(_NO_LENGTH)
                self._transport.close()
                return
            if header(head, b"expect") is not None:
                self._transport.write(_CONTINUE)
            counted = min(int(length), len(self._head))
            del self._head[:counted]
            self._left = int(length) - counted
            if self._left:
                return
            self._transport.write(_UPLOADED)
        if len(self._head) > _MAX_HEAD:
            self._transport.close()


async def main() -> None:
    """Listen, say where, and answer."""
    server = await asyncio.get_running_loop().create_server(Upload, "127.0.0.1", 0, backlog=1024)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(0)
