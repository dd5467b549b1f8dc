"""A shell for each test, one emulator for all tests of a module, and a server that never finishes a transfer."""

from __future__ import annotations

import json
import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.shell import PATIENCE, Shell


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An emulator in a process of its own, as the environment variables that lead to it."""
    folder = tmp_path_factory.mktemp("served")
    with Shell(folder=folder).serving("--data", folder / "data") as variables:
        yield variables


@pytest.fixture
def shell(served: dict[str, str], bare: Shell, tmp_path: Path) -> Shell:
    """An empty folder, the emulator's variables, and a library of its own."""
    variables = {**bare.environment, **served, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    return Shell(folder=bare.folder, environment=variables)


@pytest.fixture
def bare(tmp_path: Path) -> Shell:
    """An empty folder, and an environment without credentials."""
    folder = tmp_path / "here"
    folder.mkdir()
    return Shell(folder=folder)


class SlowServer(socketserver.ThreadingTCPServer):
    """A server that sends half of a file and then nothing, and reads half of a form and then nothing."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet when a client has left: standard error may be another test's by then."""


class SlowHandler(socketserver.StreamRequestHandler):
    """Answers a look-up with a URL on the same server."""

    def handle(self) -> None:
        """Serve one connection."""
        while line := self.rfile.readline():
            while self.rfile.readline().strip():
                pass
            if line.startswith(b"POST"):
                self.rfile.read(1_000_000)
                time.sleep(2 * PATIENCE)
            if b"/file" in line:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: 8000000\r\n\r\n")
                self.wfile.write(bytes(4_000_000))
                time.sleep(2 * PATIENCE)
            port = self.request.getsockname()[1]
            info = {"id": "77", "url": f"http://127.0.0.1:{port}/file?hash=secret", "mime_type": "image/jpeg"}
            body = json.dumps(info | {"messaging_product": "whatsapp"}).encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            self.wfile.write(head.encode() + body)


@pytest.fixture
def slow() -> Iterator[str]:
    """The base URL of a server that never finishes a transfer."""
    with SlowServer(("127.0.0.1", 0), SlowHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
