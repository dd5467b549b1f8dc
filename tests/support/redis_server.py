"""
A real Redis, for tests that need one: on a free port of this machine, with nothing kept, in a folder of its own.

A module that uses the fixtures says `pytest_plugins = ["tests.support.redis_server"]`: all such modules then share one server.
They import from here as well, before pytest comes to it as a plugin: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

__all__ = ["RedisServer", "redis_executable", "redis_server", "running_redis"]

_PATIENCE = 60.0  # seconds until it must have answered, on a machine that is busy
_TRIES = 5  # ports, each of which somebody may take before the server does
_OPTIONS = ("--save", "", "--appendonly", "no", "--daemonize", "no", "--bind", "127.0.0.1", "--databases", "16")


@attrs.frozen(kw_only=True)
class RedisServer:
    """
    A server that answers.

    Attributes:
        url: What `RedisStore` and brokers are given; the password is in it, if there is one.
        port: Where it listens, on 127.0.0.1.
        password: What it wants to hear; None for nothing.
        process: To look at, or to kill.
    """

    url: str
    port: int
    password: str | None
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.process.kill()
        self.process.wait()

    def command(self, *words: str) -> bytes:
        """Send one command over a connection of its own, and return the raw reply: up to 64 KiB, errors included."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=_PATIENCE) as connection:
            if self.password is not None:
                _ask(connection, "AUTH", self.password)
            return _ask(connection, *words)


def redis_executable() -> str:
    """Find `redis-server`; without one the test is skipped, but not where CI is set: there it fails."""
    found = shutil.which("redis-server")
    if found is None:
        why = "there is no redis-server on the PATH (Debian: apt-get install redis-server)"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return found


@contextlib.contextmanager
def running_redis(*, password: str | None = None, port: int = 0) -> Iterator[RedisServer]:
    """
    Run a server for as long as a block lasts.

    Args:
        password: What it is to want.
        port: Where to listen; 0 for a free port.
    """
    executable = redis_executable()
    with tempfile.TemporaryDirectory(prefix="meta-media-redis-") as folder:
        server = _started(executable, Path(folder), password, port)
        try:
            yield server
        finally:
            server.process.terminate()
            try:
                server.process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                server.kill()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One server for all tests, which keep out of each other's way by prefixes or databases of their own."""
    with running_redis() as server:
        yield server


def _started(executable: str, folder: Path, password: str | None, port: int) -> RedisServer:
    log = folder / "log"
    for _ in range(_TRIES):
        chosen = port or _free_port()
        options = (*_OPTIONS, "--dir", str(folder), "--logfile", str(log), "--port", str(chosen))
        wanted = ("--requirepass", password) if password else ()
        process = subprocess.Popen(
            (executable, *options, *wanted), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=folder
        )
        authority = f":{password}@127.0.0.1" if password else "127.0.0.1"
        url = f"redis://{authority}:{chosen}/0"
        server = RedisServer(url=url, port=chosen, password=password, process=process)
        if _answers(server):
            return server
        server.kill()
    raise AssertionError(f"redis-server did not answer: {log.read_text() if log.exists() else 'it wrote no log'}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def _answers(server: RedisServer) -> bool:
    """Wait until this very process answers; False if it has ended, as when its port was taken by another one."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until and server.process.poll() is None:
        with contextlib.suppress(OSError):
            if f"process_id:{server.process.pid}\r\n".encode() in server.command("INFO", "server"):
                return True
        time.sleep(0.02)  # nobody tells when it listens
    return False


def _ask(connection: socket.socket, *words: str) -> bytes:
    sent = f"*{len(words)}\r\n" + "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
    connection.sendall(sent.encode())
    return connection.recv(65536)
