"""
A server that takes its time, so that its clients run out of theirs: `python -m benchmarks.slow_server [CERTIFICATE KEY]`.

It listens on a free port of 127.0.0.1, with TLS if it is given a certificate, prints the port, and answers until it is
terminated: `GET /VERSION/ID` as Meta tells about a media id, `POST /VERSION/NUMBER/media` with an id. Every answer takes a
random time, and a part of them pauses between head and body. So that a client can see whether it was given somebody else's
answer, what is told is about the id that was asked for, and an upload's id is the number that its content names.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import re
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .servers import HOUSE, ServerError, certify
from .upload_server import header, reply

LONGEST = 0.020  # seconds that an answer may take
_SPLIT = 0.25  # of the answers pause between head and body
_SEED = 25
_ASKED = re.compile(rb"GET /v[0-9.]+/([0-9]+)[ ?]")
_POSTED = re.compile(rb"POST /v[0-9.]+/[0-9]+/media ")
_NAMED = re.compile(rb"call ([0-9]+)\n")
_CLEARED = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_DIR", "WA_BASE_URL", "CLOUD_API_VERSION"}

_chance = random.Random(_SEED)


def content(media_id: str) -> bytes:
    """Return what is uploaded to be given this id."""
    return f"call {media_id}\n".encode()


def answer(head: bytes, body: bytes) -> bytes:
    """Write the reply to a request."""
    if asked := _ASKED.match(head):
        return reply("200 OK", json.dumps(_info(asked[1].decode())).encode())
    if _POSTED.match(head) and (named := _NAMED.search(body)):
        return reply("200 OK", json.dumps({"id": named[1].decode()}).encode())
    return reply("400 Bad Request", b"{}")


def _info(media_id: str) -> dict[str, object]:
    stored = content(media_id)
    return {
        "messaging_product": "whatsapp",
        "url": f"https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid={media_id}",
        "mime_type": "text/plain",
        "sha256": hashlib.sha256(stored).hexdigest(),
        "file_size": len(stored),
        "id": media_id,
    }


class Slow(asyncio.Protocol):
    """One connection: a request, a while, its reply, and again, until the client leaves."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Collect a request."""
        self._received += data
        if self._timer is None:
            self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what was still to be said."""
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self) -> None:
        """Answer the request that has come, if it has come whole."""
        end = self._received.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        head = bytes(self._received[:end])
        total = end + int(header(head[:-4], b"content-length") or 0)
        if len(self._received) < total:
            return
        said = answer(head, bytes(self._received[end:total]))
        del self._received[:total]
        whole = _chance.uniform(0, LONGEST)
        if _chance.random() < _SPLIT:
            before = _chance.uniform(0, whole)
            cut = said.index(b"\r\n\r\n") + 4
            self._later(before, said[:cut], said[cut:], whole - before)
        else:
            self._later(whole, said)

    def _later(self, delay: float, said: bytes, rest: bytes = b"", pause: float = 0.0) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay, self._say, said, rest, pause)

    def _say(self, said: bytes, rest: bytes, pause: float) -> None:
        self._transport.write(said)
        if rest:
            self._later(pause, rest)
        else:
            self._timer = None
            self._begin()


@contextlib.contextmanager
def running(*, tls: bool) -> Iterator[tuple[str, dict[str, str]]]:
    """Start a server in a process of its own; give its URL, and an environment that trusts it; end it."""
    environment = {name: value for name, value in os.environ.items() if name.upper() not in _CLEARED}
    with tempfile.TemporaryDirectory(prefix="storm-") as folder:
        command = [sys.executable, "-m", "benchmarks.slow_server"]
        if tls:
            certify(Path(folder))
            environment["SSL_CERT_FILE"] = str(Path(folder, "certificate.pem"))
            command += [environment["SSL_CERT_FILE"], str(Path(folder, "key.pem"))]
        with subprocess.Popen(command, cwd=HOUSE, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                if not line:
                    raise ServerError("the slow server did not start")
                yield f"http{'s' if tls else ''}://127.0.0.1:{json.loads(line)['port']}", environment
            finally:
                process.terminate()


async def main(files: list[str]) -> None:
    """Listen, say where, and answer."""
    context = None
    if files:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*files)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)  # handshakes that a client gave up are what this server is for
    server = await loop.create_server(Slow, "127.0.0.1", 0, ssl=context, backlog=1024)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(0)
