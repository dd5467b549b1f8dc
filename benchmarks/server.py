"""
The server of the measurements: lean, so that the client is measured and not the server.

`python -m benchmarks.server FOLDER` listens on free ports of 127.0.0.1 and prints them as JSON: for Graph requests and for
media, plain and with TLS each. It serves `FOLDER/ID.pdf` as the media ID, and answers until it is terminated. Graph requests
go to the tests' `LeanServer`. Media are sent by threads from memory, because asyncio's TLS would be slower than the clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socketserver
import ssl
import sys
import threading
from pathlib import Path
from typing import Any

from tests.support.stepping import LeanServer

_MEDIA: dict[str, memoryview] = {}


def response(body: bytes, status: str = "200 OK") -> bytes:
    """Write a JSON response on a connection that stays open."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Graph:
    """Answers uploads with an id, and requests about an id with its media information."""

    def __init__(self, media_url: str) -> None:
        self._infos = {media_id: response(self._info(media_id, media_url)) for media_id in _MEDIA}
        self._uploaded = response(json.dumps({"id": min(_MEDIA)}).encode())

    @staticmethod
    def _info(media_id: str, media_url: str) -> bytes:
        info = {
            "messaging_product": "whatsapp",
            "url": f"{media_url}/media/{media_id}.pdf",
            "mime_type": "application/pdf",
            "sha256": hashlib.sha256(_MEDIA[media_id]).hexdigest(),
            "file_size": len(_MEDIA[media_id]),
            "id": media_id,
        }
        return json.dumps(info).encode()

    def __call__(self, method: str, target: str) -> bytes:
        """Return the whole response."""
        if method == "POST":
            return self._uploaded
        return self._infos.get(target.partition("?")[0].rpartition("/")[2]) or response(b"{}", "404 Not Found")


class _MediaHandler(socketserver.StreamRequestHandler):
    """Sends media over one connection. It answers Graph requests, too: over http, media come from the port of the Graph API."""

    server: _MediaServer

    def handle(self) -> None:
        """Answer requests one after the other, until the client leaves."""
        with contextlib.suppress(OSError):
            while line := self.rfile.readline():
                method, target, _ = line.decode().split(" ")
                while self.rfile.readline().strip():
                    pass
                if not target.startswith("/media/"):
                    self.request.sendall(self.server.graph(method, target))
                    continue
                content = _MEDIA[target.rpartition("/")[2].partition(".")[0]]
                head = f"HTTP/1.1 200 OK\r\nContent-Type: application/pdf\r\nContent-Length: {len(content)}\r\n\r\n"
                self.request.sendall(head.encode())
                self.request.sendall(content)


class _MediaServer(socketserver.ThreadingTCPServer):
    """A thread for each connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _MediaHandler)
        self._tls = tls
        self.port = int(self.server_address[1])
        self.graph = Graph(f"{'https' if tls else 'http'}://127.0.0.1:{self.port}")
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection; the handshake is left to its thread."""
        connection, address = super().get_request()
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address


async def main(folder: Path) -> None:
    """Listen, print the ports, and answer."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(folder / "server.pem")
    for path in sorted(folder.glob("*.pdf")):  # noqa: ASYNC240 - nothing else runs yet
        _MEDIA[path.stem] = memoryview(path.read_bytes())
    ports: dict[str, dict[str, int]] = {"graph": {}, "media": {}}
    async with contextlib.AsyncExitStack() as stack:
        for scheme, context in (("http", None), ("https", tls)):
            media = _MediaServer(context)
            graph = await stack.enter_async_context(LeanServer(media.graph, context))
            ports["media"][scheme], ports["graph"][scheme] = media.port, graph.port
        print(json.dumps(ports), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
