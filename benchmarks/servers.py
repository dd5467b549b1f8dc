"""The servers that a run is measured against: loopback only, one process each, ended by process id."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .upload_server import MEDIA_ID

HOUSE = Path(__file__).parent.parent
API_VERSION = "v25.0"
_PATIENCE = 30.0  # seconds a server may take to start, and to end

_CERTIFICATE = """
[req]
distinguished_name = name
x509_extensions = extensions
prompt = no
[name]
CN = localhost
[extensions]
basicConstraints = critical,CA:TRUE
keyUsage = critical,digitalSignature,keyCertSign
subjectAltName = DNS:localhost,IP:127.0.0.1
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""

# One process, as the client has one; the kernel sends the file where the connection is plain.
_NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    default_type application/pdf;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{http};
        root {folder}/http;
        location /{version}/ {{ default_type application/json; }}
    }}
    server {{
        listen 127.0.0.1:{https} ssl;
        ssl_certificate {folder}/certificate.pem;
        ssl_certificate_key {folder}/key.pem;
        root {folder}/https;
        location /{version}/ {{ default_type application/json; }}
    }}
}}
"""


@dataclass(frozen=True)
class Media:
    """What can be downloaded: where the bytes lie, and their SHA-256 as the service would tell it."""

    media_id: str
    path: Path
    size: int
    sha256: str


@dataclass(frozen=True)
class Servers:
    """Where the servers are, which they are, and which processes to look at for their share of the work."""

    upload: str
    http: str
    https: str
    certificate: Path
    download_server: str
    upload_pid: int
    download_pid: int


class ServerError(RuntimeError):
    """A server did not start."""


def pdf(path: Path, size: int, media_id: str) -> Media:
    """Write a file of random bytes behind a PDF's head: no client can compress it, and one that looks finds a type."""
    head, tail = b"%PDF-1.7\n", b"\n%%EOF\n"
    content = head + os.urandom(size - len(head) - len(tail)) + tail
    path.write_bytes(content)
    return Media(media_id=media_id, path=path, size=size, sha256=hashlib.sha256(content).hexdigest())


def media_ids() -> Iterator[str]:
    """Give ids as the service does: digits."""
    number = int(MEDIA_ID)
    while True:
        number += 1
        yield str(number)


@contextlib.contextmanager
def running(folder: Path, media: Sequence[Media]) -> Iterator[Servers]:
    """
    Start the upload server and a download server, and end both.

    Args:
        folder: An empty folder of ours for certificate, configuration and what is served.
        media: What the download server serves, at `/media/ID.pdf`, with its description at `/VERSION/ID`.

    Raises:
        ServerError: One did not start.
    """
    certify(folder)
    nginx = shutil.which("nginx", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin")))
    with contextlib.ExitStack() as stack:
        upload, said = stack.enter_context(python_server("benchmarks.upload_server"))
        if nginx:
            ports = {"http": free_port(), "https": free_port()}
            _serve_from(folder, media, ports)
            download = stack.enter_context(_nginx(nginx, folder, ports))
            name = _first_line([nginx, "-v"]).replace("nginx version: ", "")
        else:
            for scheme in ("http", "https"):
                (folder / scheme).mkdir()
            own = python_server("benchmarks.download_server", str(folder), *_names(folder))
            download, ports = stack.enter_context(own)
            _serve_from(folder, media, ports)
            name = "the benchmarks' own (no nginx on PATH)"
        yield Servers(
            upload=f"http://127.0.0.1:{said['port']}",
            http=f"http://127.0.0.1:{ports['http']}",
            https=f"https://127.0.0.1:{ports['https']}",
            certificate=folder / "certificate.pem",
            download_server=name,
            upload_pid=upload.pid,
            download_pid=download.pid,
        )


def certify(folder: Path) -> None:
    """Make a key and a certificate for 127.0.0.1 that signs itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        raise ServerError("openssl is not on PATH, and https needs a certificate")
    certificate, key = _names(folder)
    settings = folder / "certificate.cnf"
    settings.write_text(_CERTIFICATE)
    files = ("-config", str(settings), "-out", certificate, "-keyout", key)
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *files]
    if subprocess.run(command, capture_output=True, timeout=_PATIENCE, check=False).returncode:
        raise ServerError("openssl did not make a certificate")


def _names(folder: Path) -> tuple[str, str]:
    return str(folder / "certificate.pem"), str(folder / "key.pem")


def _serve_from(folder: Path, media: Sequence[Media], ports: dict[str, int]) -> None:
    """Lay out one tree per scheme: the same bytes, described with a URL of that scheme."""
    for scheme, port in ports.items():
        tree = folder / scheme
        for name in ("media", API_VERSION):
            (tree / name).mkdir(parents=True, exist_ok=True)
        for item in media:
            os.link(item.path, tree / "media" / f"{item.media_id}.pdf")
            info = {
                "messaging_product": "whatsapp",
                "url": f"{scheme}://127.0.0.1:{port}/media/{item.media_id}.pdf",
                "mime_type": "application/pdf",
                "sha256": item.sha256,
                "file_size": item.size,
                "id": item.media_id,
            }
            (tree / API_VERSION / item.media_id).write_text(json.dumps(info))


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """End a process of ours when the block does."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def python_server(module: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, int]]]:
    """Start a server of ours, a module, which says its ports when it listens."""
    command = [sys.executable, "-m", module, *arguments]
    with ended(subprocess.Popen(command, cwd=HOUSE, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout is not None
        with process.stdout:
            line = process.stdout.readline()
            if not line:
                raise ServerError(f"{module} did not start")
            yield process, json.loads(line)


@contextlib.contextmanager
def _nginx(program: str, folder: Path, ports: dict[str, int]) -> Iterator[subprocess.Popen[str]]:
    """Start nginx with a configuration of its own, and wait until it listens."""
    settings = folder / "nginx.conf"
    settings.write_text(_NGINX.format(folder=folder, version=API_VERSION, **ports))
    command = [program, "-p", str(folder), "-e", "stderr", "-c", str(settings)]
    with ended(subprocess.Popen(command, text=True)) as process:
        _until(lambda: all(_listens(port) for port in ports.values()), process)
        yield process


def _until(ready: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise ServerError(f"{process.args!r} did not start")
        time.sleep(0.05)


def _listens(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """Return a port that nobody listens on just now."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def _first_line(command: list[str]) -> str:
    said = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    return (said.stdout + said.stderr).strip().partition("\n")[0]
