"""Starts and ends the processes of a measurement: the server, Redis, and a worker for each contender."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import trustme

from .measure import installed

HOUSE = Path(__file__).parent.parent
API_VERSION = "v25.0"
_START_TIMEOUT = 30.0  # seconds to start, and to end
_CLEARED = frozenset(
    [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "CURL_CA_BUNDLE",
        "PYTHONPATH",
        "CLOUD_API_ACCESS_TOKEN",
        "CLOUD_API_VERSION",
        "WA_APP_SECRET",
        "WA_BASE_URL",
        "WA_PHONE_NUMBER_ID",
    ]
)


class ProcessError(RuntimeError):
    """A process did not start, or failed."""


@contextlib.contextmanager
def build_of(name: str | None) -> Iterator[str]:
    """
    Yield a temporary folder that has the `meta_media` of another build, and nothing else of it.

    Args:
        name: A commit of this repository, or a folder with the package; an empty string is yielded for None.

    Raises:
        ProcessError: It is neither.
    """
    if name is None:
        yield ""
        return
    with tempfile.TemporaryDirectory(prefix="build-") as folder:
        if Path(name, "meta_media", "__init__.py").is_file():
            Path(folder, "meta_media").symlink_to(Path(name, "meta_media").resolve())
        else:
            command = ["git", "archive", "--end-of-options", name, "meta_media"]
            archive = subprocess.run(command, cwd=HOUSE, capture_output=True, check=False)
            if archive.returncode:
                raise ProcessError(f"--against {name} is neither a commit nor a folder with a meta_media package")
            with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
                files.extractall(folder, filter="data")
        yield folder


def environment(build: str = "", **more: str) -> dict[str, str]:
    """
    Return this process's environment without proxies, certificates and credentials.

    Args:
        build: A folder whose `meta_media` is imported instead of this checkout's.
        more: Further variables.
    """
    kept = {name: value for name, value in os.environ.items() if name.upper() not in _CLEARED}
    return kept | {"PYTHONPATH": os.pathsep.join([*filter(None, [build]), str(HOUSE)])} | more


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a process for as long as the block lasts; its standard output can be read."""
    with subprocess.Popen(command, cwd=HOUSE, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_START_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def python(module: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Run a module of this package that prints a line of JSON when it is ready; yield the process and the JSON."""
    with running([sys.executable, "-P", "-m", module, *arguments]) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise ProcessError(f"{module} did not start")
        yield process, json.loads(line)


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Run a Redis server without persistence; yield its URL, or an empty string if Redis is not installed."""
    if not installed("redis") or not installed("redis-server"):
        yield ""
        return
    socket = folder / "redis.socket"
    options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no", "--dir", str(folder)]
    with running(["redis-server", *options, "--logfile", os.devnull]):
        deadline = time.monotonic() + _START_TIMEOUT
        while not socket.exists():
            if time.monotonic() > deadline:
                raise ProcessError("redis-server did not start")
            time.sleep(0.05)
        yield f"unix://{socket}"


def certify(folder: Path) -> None:
    """Write `authority.pem`, and `server.pem` with key and certificate for 127.0.0.1."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))


def ask_child(module: str, order: object, env: Mapping[str, str], timeout: float) -> dict[str, Any]:
    """
    Run a module that reads JSON from standard input and prints JSON.

    Raises:
        ProcessError: It failed or took longer than `timeout` seconds; with the last line of its standard error.
    """
    command = [sys.executable, "-P", "-m", module]
    text = json.dumps(order)
    try:
        ended = subprocess.run(
            command, input=text, cwd=HOUSE, env=env, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise ProcessError(f"not done after {timeout:.0f} s") from None
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or [""])[-1][:300]
        raise ProcessError(f"exit status {ended.returncode}: {last.replace(str(HOUSE), '…').replace(sys.prefix, '…')}")
    return dict(json.loads(ended.stdout))
