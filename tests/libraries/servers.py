"""Servers that rows need: each listens on a free loopback port, and ends by its process id or with its task."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from tests.libraries.driver import Missing, lib

__all__ = ["azurite", "free_port", "listening", "moto", "postgres", "process", "redis", "running", "website"]

_ATTEMPTS: Final = 600  # to connect to a server that starts, each 0.05 s
_POSTGRES: Final = sorted(Path("/usr/lib/postgresql").glob("*/bin"))  # Debian's


def free_port() -> int:
    """Return a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


async def listening(port: int) -> None:
    """Wait until a server listens."""
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.sleep(0.05)  # until it listens
    raise Missing("a server did not start")


@asynccontextmanager
async def process(command: Sequence[str | Path], port: int, **options: Any) -> AsyncIterator[None]:
    """Run a server until the block ends."""
    options["start_new_session"] = True  # its own group of processes, to end all of them
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen([str(word) for word in command], **{**quiet, **options})  # noqa: ASYNC220  it starts at once
    try:
        await listening(port)
        yield
    finally:
        server.send_signal(signal.SIGINT)  # PostgreSQL would wait for its clients after SIGTERM
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(server.wait, 3)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        await asyncio.to_thread(server.wait)


@asynccontextmanager
async def moto() -> AsyncIterator[str]:
    """An S3 that moto plays: its URL. The environment has credentials for it."""
    server = lib("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    await asyncio.to_thread(server.start)
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ |= {"AWS_ENDPOINT_URL": url, "AWS_EC2_METADATA_DISABLED": "true"}
    await asyncio.to_thread(lambda: lib("boto3").client("s3").create_bucket(Bucket="bucket"))
    try:
        yield url
    finally:
        await asyncio.to_thread(server.stop)


@asynccontextmanager
async def azurite() -> AsyncIterator[str]:
    """Microsoft's emulator of Azure Blob Storage: a connection string. npm has installed it (`AZURITE`)."""
    script = os.environ.get("AZURITE", ".") + "/node_modules/azurite/dist/src/blob/main.js"
    if not await asyncio.to_thread(os.path.exists, script):
        raise Missing("azurite is not installed: it needs node and npm")
    port = free_port()
    options = ("--blobPort", str(port), "--inMemoryPersistence", "--skipApiVersionCheck", "--silent")
    async with process(("node", script, *options), port):
        key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # published
        account = f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={key}"
        yield f"{account};BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1"


@asynccontextmanager
async def postgres() -> AsyncIterator[str]:
    """A PostgreSQL with an empty database: its URL."""
    if not _POSTGRES:
        raise Missing("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    user = {} if os.getuid() else {"user": "nobody", "group": "nogroup"}  # it refuses to run as root
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        if user:
            os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
        make = [str(_POSTGRES[-1] / "initdb"), "-D", f"{folder}/data", "-U", "postgres", "-A", "trust", "--no-sync"]
        options: Any = {"cwd": folder, **user}
        await asyncio.to_thread(lambda: subprocess.run(make, check=True, stdout=subprocess.DEVNULL, **options))
        command = (_POSTGRES[-1] / "postgres", "-D", f"{folder}/data", "-p", str(port), "-k", folder, "-F")
        async with process(command, port, **options):
            await asyncio.sleep(0.5)  # it accepts connections a moment before it takes commands
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"


@asynccontextmanager
async def redis() -> AsyncIterator[str]:
    """A Redis: its URL."""
    executable = shutil.which("redis-server")
    if executable is None:
        raise Missing("redis-server is not installed (Debian: apt-get install redis-server)")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        async with process((executable, "--port", str(port), "--save", "", "--dir", folder), port):
            yield f"redis://127.0.0.1:{port}/0"


@asynccontextmanager
async def running(app: Any) -> AsyncIterator[str]:
    """Run an application of aiohttp. The URL is yielded."""
    web = lib("aiohttp.web")
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def website(data: bytes) -> AsyncIterator[str]:
    """A site that has a photo, in the ways in which sites give one: its URL, with a slash."""
    web = lib("aiohttp.web")

    def photo(**headers: str) -> Any:
        async def view(_: Any) -> Any:
            body = gzip.compress(data) if "Content_Encoding" in headers else data
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return web.Response(body=body, headers={"Content-Type": "image/jpeg", **named})

        return view

    async def missing(_: Any) -> Any:
        return web.Response(text="not found", status=404)

    async def moved(_: Any) -> Any:
        raise web.HTTPFound("/photo.jpg")

    async def cut(request: Any) -> Any:
        response = web.StreamResponse(headers={"Content-Length": str(len(data))})
        await response.prepare(request)
        await response.write(data[: len(data) // 2])
        request.transport.close()
        return response

    app = web.Application()
    app.router.add_get("/photo.jpg", photo())
    app.router.add_get("/gzip/photo.jpg", photo(Content_Encoding="gzip"))
    app.router.add_get("/named", photo(Content_Disposition='attachment; filename="photo.jpg"'))
    app.router.add_get("/bucket/{key}", photo())  # Google's storage, as its client reads an object
    app.router.add_get("/storage/v1/b/bucket/o/{key}", photo())
    for path, view in (("/missing.jpg", missing), ("/moved", moved), ("/cut.jpg", cut)):
        app.router.add_get(path, view)
    async with running(app) as url:
        yield url
