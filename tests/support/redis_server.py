"""
A real Redis for tests, on a free port, in a temporary folder.

A module that uses the fixture has `pytest_plugins = ["tests.support.redis_server"]`. All such modules share one server. They
also import this module before pytest loads it as a plugin: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.support.system import executable, free_port

_START_TIMEOUT = 60.0  # seconds
_PORT_COUNT = 5  # another process may take a free port before the server does
_OPTIONS = ("--save", "", "--daemonize", "no", "--bind", "127.0.0.1", "--databases", "16")


@attrs.frozen(kw_only=True)
class RedisServer:
    """A running server."""

    url: str  # for `RedisStore` and brokers, with the password if there is one
    port: int  # on 127.0.0.1
    password: str | None
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """Kill the server, like a crash."""
        self.process.kill()
        self.process.wait()

    def command(self, *words: str) -> bytes:
        """Send one command over a new connection, and return the raw response: up to 64 KiB, errors included."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=_START_TIMEOUT) as connection:
            if self.password is not None:
                _ask(connection, "AUTH", self.password)
            return _ask(connection, *words)


@contextlib.contextmanager
def running_redis(*, password: str | None = None, port: int = 0, folder: Path | None = None) -> Iterator[RedisServer]:
    """Run a server until the block ends; port 0 chooses a free one. With a folder, its data outlives it there."""
    with tempfile.TemporaryDirectory(prefix="meta-media-redis-") as temporary:
        server = _start(folder or Path(temporary), password, port, "no" if folder is None else "yes")
        try:
            yield server
        finally:
            server.process.terminate()
            try:
                server.process.wait(_START_TIMEOUT)
            except subprocess.TimeoutExpired:
                server.kill()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One server for all tests, which use different prefixes or databases."""
    with running_redis() as server:
        yield server


def _start(folder: Path, password: str | None, port: int, appendonly: str) -> RedisServer:
    log = folder / "log"
    for _ in range(_PORT_COUNT):
        chosen = port or free_port()
        options = (
            *_OPTIONS,
            "--appendonly",
            appendonly,
            "--dir",
            str(folder),
            "--logfile",
            str(log),
            "--port",
            str(chosen),
        )
        wanted = ("--requirepass", password) if password else ()
        process = subprocess.Popen(
            (executable("redis-server"), *options, *wanted),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=folder,
        )
        authority = f":{password}@127.0.0.1" if password else "127.0.0.1"
        url = f"redis://{authority}:{chosen}/0"
        server = RedisServer(url=url, port=chosen, password=password, process=process)
        if _is_ready(server):
            return server
        server.kill()
    raise AssertionError(f"redis-server did not answer: {log.read_text() if log.exists() else 'it wrote no log'}")


def _is_ready(server: RedisServer) -> bool:
    """Wait until this process answers. Return False if it has ended, because its port was taken."""
    until = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < until and server.process.poll() is None:
        with contextlib.suppress(OSError):
            if f"process_id:{server.process.pid}\r\n".encode() in server.command("INFO", "server"):
                return True
        time.sleep(0.02)  # until it listens
    return False


def _ask(connection: socket.socket, *words: str) -> bytes:
    sent = f"*{len(words)}\r\n" + "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
    connection.sendall(sent.encode())
    return connection.recv(65536)
