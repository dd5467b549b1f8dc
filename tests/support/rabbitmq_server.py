"""A real RabbitMQ for tests, on a free port, in a temporary folder: a node of its own, beside that of the system."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.system import executable, free_port

_START_TIMEOUT = 60.0  # seconds; it takes 5 on an idle machine
_GREETING = b"AMQP\x00\x00\x09\x01"  # of AMQP 0-9-1


@contextlib.contextmanager
def running_rabbitmq() -> Iterator[str]:
    """Run a server until the block ends. Yield its URL."""
    # Debian's /usr/sbin/rabbitmq-server switches to the user and the folder of the system's service.
    script = executable("rabbitmq-server", "/usr/lib/rabbitmq/bin")
    with tempfile.TemporaryDirectory(prefix="meta-media-rabbitmq-", ignore_cleanup_errors=True) as folder:
        port = free_port()
        with (Path(folder) / "output").open("wb") as output:
            process = subprocess.Popen(
                [script],
                cwd=folder,
                env=_environment(folder, port),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # the server is a child of a shell script
            )
        try:
            if not _is_ready(process, port):
                pytest.fail(f"RabbitMQ did not start: {(Path(folder) / 'output').read_text()[-2000:]}")
            yield f"amqp://guest:guest@127.0.0.1:{port}/"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _environment(folder: str, port: int) -> dict[str, str]:
    node = f"meta-media-{uuid.uuid4().hex}@localhost"
    return {
        **os.environ,
        "HOME": folder,  # for the cookie
        "RABBITMQ_NODENAME": node,
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_MNESIA_BASE": f"{folder}/data",
        "RABBITMQ_LOG_BASE": f"{folder}/log",
        "RABBITMQ_CONFIG_FILE": f"{folder}/none",
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
        # The node has a name before RabbitMQ looks, which then needs no epmd: a daemon that would outlive the server.
        # With a port for epmd, RabbitMQ does not ask it for one. Nothing listens there.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-sname {node} -start_epmd false -dist_listen false -erl_epmd_port 1",
    }


def _is_ready(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the server answers, or has ended."""
    until = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(_GREETING)
            if connection.recv(1) == b"\x01":  # a method frame
                return True
        time.sleep(0.05)  # until it listens
    return False
