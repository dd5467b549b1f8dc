"""
Object stores for tests, each a server of its own on a free port of loopback: S3 (moto) and Azure (azurite).

A module that uses the fixtures has `pytest_plugins = ["tests.support.object_stores"]`. All such modules share the servers. They
also import this module before pytest loads it as a plugin: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import hashlib
import hmac
import http.client
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from obstore.store import AzureStore, LocalStore, MemoryStore, S3Store

from tests.support.system import free_port, unavailable

_START_TIMEOUT = 60.0  # seconds
_PORT_COUNT = 5  # another process may take a free port before the server does
ACCOUNT = "devstoreaccount1"
# The key of azurite's account, which is public: learn.microsoft.com, "Use the Azurite emulator".
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_HTTP: Any = {"allow_http": True}


@contextlib.contextmanager
def _running(command: Sequence[str], port_option: str) -> Iterator[str]:
    """Run a server in a folder of its own until the block ends, and give its address."""
    with tempfile.TemporaryDirectory(prefix="meta-media-store-") as folder:
        for _ in range(_PORT_COUNT):
            port = free_port()
            process = subprocess.Popen(
                (*command, port_option, str(port)),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                if _is_ready(process, port):
                    yield f"http://127.0.0.1:{port}"
                    return
            finally:
                process.terminate()
                process.wait(_START_TIMEOUT)
        raise AssertionError(f"{command[0]} did not start")


def _is_ready(process: subprocess.Popen[bytes], port: int) -> bool:
    until = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        time.sleep(0.05)  # until it listens
    return False


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """The address of an S3 that has the bucket `media`."""
    with _running((sys.executable, "-m", "moto.server", "-H", "127.0.0.1"), "-p") as url:
        urllib.request.urlopen(urllib.request.Request(f"{url}/media", method="PUT")).close()
        yield url


@pytest.fixture(scope="session")
def azure_url() -> Iterator[str]:
    """The address of an Azure account that has the container `media`."""
    program = shutil.which("azurite-blob") or unavailable("there is no azurite-blob (npm install -g azurite)")
    options = ("--silent", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry")
    with _running((program, "--blobHost", "127.0.0.1", *options), "--blobPort") as url:
        _make_container(f"{url}/{ACCOUNT}/media")
        yield f"{url}/{ACCOUNT}"


def _make_container(url: str) -> None:
    """Create Container of Azure's Blob service, with a Shared Key."""
    date, version, path = email.utils.formatdate(usegmt=True), "2021-08-06", url.partition("//")[2].partition("/")[2]
    blank = "\n" * 12
    text = f"PUT{blank}x-ms-date:{date}\nx-ms-version:{version}\n/{ACCOUNT}/{path}\nrestype:container"
    signature = base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), hashlib.sha256)).decode()
    headers = {"x-ms-date": date, "x-ms-version": version, "Authorization": f"SharedKey {ACCOUNT}:{signature}"}
    urllib.request.urlopen(urllib.request.Request(f"{url}?restype=container", method="PUT", headers=headers)).close()


def s3_store(url: str, bucket: str = "media", **more: Any) -> S3Store:
    """Make a store for a bucket of an S3 on this machine."""
    access: Any = {"access_key_id": "AK", "secret_access_key": "SK", "region": "us-east-1"}
    return S3Store(bucket, endpoint=url, client_options=_HTTP, **access, **more)


def azure_store(url: str, **more: Any) -> AzureStore:
    """Make a store for the container of an Azure account on this machine."""
    return AzureStore("media", account_name=ACCOUNT, account_key=KEY, endpoint=url, client_options=_HTTP, **more)


def multipart_uploads(url: str) -> int:
    """Count the multipart uploads that a bucket has, neither completed nor aborted."""
    host = url.partition("//")[2]
    connection = http.client.HTTPConnection(host)
    connection.request("GET", "/media?uploads")
    listed: bytes = connection.getresponse().read()
    connection.close()
    return listed.count(b"<UploadId>")


def keys(store: Any) -> dict[str, int]:
    """List all objects of a store, with their sizes."""
    return {entry["path"]: entry["size"] for batch in store.list() for entry in batch}


@pytest.fixture(params=["memory", "local", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("s3", "azure"))])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """An empty store of each kind."""
    if request.param == "s3":
        return s3_store(request.getfixturevalue("s3_url"), prefix=tmp_path.name)
    if request.param == "azure":
        return azure_store(request.getfixturevalue("azure_url"), prefix=tmp_path.name)
    return MemoryStore() if request.param == "memory" else LocalStore(tmp_path)
