"""Where people want a download to go."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import mmap
import sqlite3
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import anyio
import httpx

from tests.libraries import frameworks, servers
from tests.libraries.driver import Trial, lib
from tests.libraries.rows.misc import logged
from tests.libraries.table import WRITTEN, AnyOf, Refused, Table

__all__ = ["TABLE"]

TABLE: Final = Table()
NO_WRITE: Final = Refused("write", "ConfigurationError")
TEXT_MODE: Final = Refused("'wb'", "ConfigurationError")
destination = TABLE.destination


def opened(trial: Trial, path: str) -> Any:
    return trial.enter(lib("fsspec").open(path, "wb"))


def closed(make: Callable[[Trial], Any], read: Callable[[Trial], Any]) -> tuple[Any, Any]:
    async def finish(trial: Trial, made: Any) -> Any:
        closing = made.close()
        if hasattr(closing, "__await__"):
            await closing
        content = await asyncio.to_thread(read, trial)
        return await content if hasattr(content, "__await__") else content

    return make, finish


def target(trial: Trial) -> Path:
    return trial.folder / "copy.jpg"


def on_disk(make: Callable[[Trial], Any]) -> tuple[Any, Any]:
    return closed(make, lambda t: target(t).read_bytes())


def in_memory(trial: Trial) -> bytes:
    return bytes(lib("fsspec").filesystem("memory").cat("/copy.jpg"))


def appended(trial: Trial) -> Any:
    return lib("fsspec").filesystem("file").open(str(target(trial)), "ab")


def unpacked(trial: Trial) -> bytes:
    with zipfile.ZipFile(trial.folder / "copy.zip") as archive:
        return archive.read("copy.jpg")


def member(trial: Trial) -> Any:
    archive = trial.enter(zipfile.ZipFile(trial.folder / "copy.zip", "w"))
    handle = archive.open("copy.jpg", "w")
    close = handle.close

    def close_both() -> None:
        close()
        archive.close()

    handle.close = close_both
    return handle


async def storage(trial: Trial) -> Any:
    frameworks.django_settings()
    return lib("django.core.files.storage").FileSystemStorage(location=trial.folder).open("copy.jpg", "wb")


async def bucket(trial: Trial) -> Any:
    await trial.server(servers.moto)
    return lib("boto3").client("s3")


def from_bucket(_: Trial) -> bytes:
    client = lib("boto3").client("s3")
    found = client.get_object(Bucket="bucket", Key="copy.jpg")["Body"].read()
    client.delete_object(Bucket="bucket", Key="copy.jpg")
    return bytes(found)


async def s3fs(trial: Trial) -> Any:
    url = await trial.server(servers.moto)
    system = lib("s3fs").S3FileSystem(endpoint_url=url, skip_instance_cache=True)
    return await asyncio.to_thread(system.open, "bucket/copy.jpg", "wb")


async def smart_open(trial: Trial) -> Any:
    options = {"transport_params": {"client": await bucket(trial)}}
    return await asyncio.to_thread(lib("smart_open").open, "s3://bucket/copy.jpg", "wb", **options)


def obstore(trial: Trial) -> Any:
    return lib("obstore").open_writer_async(lib("obstore.store").LocalStore(str(trial.folder)), "copy.jpg")


destination("aiofile async_open", WRITTEN, *on_disk(lambda t: t.aenter(lib("aiofile").async_open(target(t), "wb"))))
destination(
    "aiofile AIOFile, which has no position",
    Refused("async_open|position|offset", "ConfigurationError"),
    *on_disk(lambda t: t.aenter(lib("aiofile").AIOFile(target(t), "wb"))),
)
destination("anyio file", WRITTEN, *on_disk(lambda t: anyio.open_file(target(t), "wb")))
destination("anyio Path", WRITTEN, lambda t: anyio.Path(target(t)), lambda t, _: target(t).read_bytes())
destination("fsspec: memory", WRITTEN, *closed(lambda t: opened(t, "memory://copy.jpg"), in_memory))
destination("fsspec: local", WRITTEN, *on_disk(lambda t: opened(t, f"file://{target(t)}")))
destination("fsspec: append", WRITTEN, *on_disk(appended))
destination("s3fs", WRITTEN, *closed(s3fs, from_bucket))
destination("smart_open", WRITTEN, *closed(smart_open, from_bucket))
destination("Django: storage", WRITTEN, *on_disk(storage))
destination("zip member", WRITTEN, *closed(member, unpacked))
destination("gzip", WRITTEN, *closed(lambda t: gzip.open(target(t), "wb"), lambda t: gzip.decompress(target(t).read_bytes())))
destination("BytesIO", WRITTEN, lambda _: io.BytesIO(), lambda _, made: made.getvalue())
destination("SpooledTemporaryFile", WRITTEN, lambda t: t.enter(tempfile.SpooledTemporaryFile(2**20)), lambda _, made: made.seek(0) or made.read())
destination("mmap", WRITTEN, lambda t: t.enter(mmap.mmap(-1, len(t.content))), lambda _, made: made[:])
destination("obstore: writer", WRITTEN, *on_disk(obstore))
destination("StringIO", TEXT_MODE, lambda _: io.StringIO(), lambda _, made: made.getvalue().encode())
destination("text file", TEXT_MODE, lambda t: t.enter(target(t).open("w", encoding="utf-8")), lambda t, _: target(t).read_bytes())
destination("asyncio.Queue", NO_WRITE, lambda _: asyncio.Queue(), lambda *_: b"")
destination(
    "fsspec: OpenFile that was not entered",
    AnyOf((WRITTEN, Refused("OpenFile", "ConfigurationError"))),
    lambda _: lib("fsspec").open("memory://copy.jpg", "wb"),
    lambda t, _: in_memory(t),
)
destination(
    "UPath: memory",
    AnyOf((WRITTEN, Refused("UPath|MemoryPath", "ConfigurationError"))),
    lambda _: lib("upath").UPath("memory://copy.jpg"),
    lambda t, _: in_memory(t),
)
destination("anyio FileWriteStream", NO_WRITE, lambda t: lib("anyio.streams.file").FileWriteStream.from_path(target(t)), lambda *_: b"")
destination("httpx.Response", Refused("Response", "ConfigurationError"), lambda _: httpx.Response(200), lambda *_: b"")


@TABLE.row("fsspec: transaction", WRITTEN)
async def _(trial: Trial) -> None:
    system = lib("fsspec").filesystem("file")
    with system.transaction, system.open(str(target(trial)), "wb") as handle:
        await trial.download(handle)
    trial.wrote(target(trial).read_bytes())


def blob_row(name: str, wanted: Any, **options: Any) -> None:
    async def run(trial: Trial) -> None:
        with contextlib.closing(sqlite3.connect(":memory:", **options)) as database:
            database.execute("CREATE TABLE photos (photo BLOB)")
            database.execute("INSERT INTO photos VALUES (zeroblob(?))", [len(trial.content)])
            with database.blobopen("photos", "photo", 1) as blob:
                await trial.download(blob)
            trial.wrote(database.execute("SELECT photo FROM photos").fetchone()[0])

    TABLE.row(name, wanted)(run)


blob_row("sqlite3: Blob", AnyOf((WRITTEN, Refused("thread", "StorageError"), Refused("thread", "ConfigurationError"))))
blob_row("sqlite3: Blob, check_same_thread=False", WRITTEN, check_same_thread=False)


@TABLE.row("psycopg2: lobject", WRITTEN)
async def _(trial: Trial) -> None:
    connection = await asyncio.to_thread(lib("psycopg2").connect, await trial.server(servers.postgres))
    with contextlib.closing(connection):
        written = connection.lobject(0, "wb")
        await trial.download(written)
        trial.wrote(connection.lobject(written.oid, "rb").read())


@TABLE.row("Popen.stdin", WRITTEN)
async def _(trial: Trial) -> None:
    with target(trial).open("wb") as copy, subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=copy) as process:
        assert process.stdin is not None
        await trial.download(process.stdin)
        await asyncio.to_thread(process.communicate)
    trial.wrote(target(trial).read_bytes())


@TABLE.row("asyncio process.stdin, a StreamWriter", WRITTEN)
async def _(trial: Trial) -> None:
    with target(trial).open("wb") as copy:
        process = await asyncio.create_subprocess_exec("cat", stdin=subprocess.PIPE, stdout=copy)
        assert process.stdin is not None
        await trial.download(process.stdin)
        process.stdin.close()
        await process.wait()
    trial.wrote(target(trial).read_bytes())


@TABLE.row("anyio process.stdin", NO_WRITE)
async def _(trial: Trial) -> None:
    async with await anyio.open_process(["cat"], stdout=subprocess.DEVNULL) as process:
        await trial.download(process.stdin)
        assert process.stdin is not None
        await process.stdin.aclose()


async def listening(trial: Trial, received: bytearray, *, read: bool = True) -> int:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while read and (chunk := await reader.read(65536)):
            received.extend(chunk)
        if not read:
            writer.transport.abort()
        writer.close()

    server = await trial.aenter(await asyncio.start_server(serve, "127.0.0.1", 0))
    return int(server.sockets[0].getsockname()[1])


@TABLE.row("asyncio.StreamWriter of a socket", WRITTEN)
async def _(trial: Trial) -> None:
    received = bytearray()
    _, writer = await asyncio.open_connection("127.0.0.1", await listening(trial, received))
    await trial.download(writer)
    writer.close()
    await writer.wait_closed()
    await _until(lambda: len(received) >= len(trial.content))
    trial.wrote(received)


@TABLE.row("asyncio.StreamWriter whose peer has gone", Refused(".", "StorageError"), sizes=("large",))
async def _(trial: Trial) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", await listening(trial, bytearray(), read=False))
    await trial.download(writer)
    writer.close()


@TABLE.row("tornado: IOStream", WRITTEN)
async def _(trial: Trial) -> None:
    received = bytearray()
    port = await listening(trial, received)
    stream = await lib("tornado.tcpclient").TCPClient().connect("127.0.0.1", port)
    await trial.download(stream)
    stream.close()
    await _until(lambda: len(received) >= len(trial.content))
    trial.wrote(received)


async def _until(holds: Callable[[], bool]) -> None:
    for _ in range(200):
        if holds():
            return
        await asyncio.sleep(0.01)  # until the other end has read


@TABLE.row("aiohttp: StreamResponse", WRITTEN)
async def _(trial: Trial) -> None:
    async def handle(request: Any) -> Any:
        response = lib("aiohttp.web").StreamResponse()
        await response.prepare(request)
        await trial.download(response)
        await response.write_eof()
        return response

    async with frameworks.aiohttp(handle) as url, httpx.AsyncClient() as client:
        trial.wrote((await client.get(url)).content)


@TABLE.row("websockets: connection", NO_WRITE)
async def _(trial: Trial) -> None:
    async def serve(connection: Any) -> None:
        await connection.wait_closed()

    async with lib("websockets").serve(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with lib("websockets").connect(f"ws://127.0.0.1:{port}") as connection:
            await trial.download(connection)


async def azure_blob(trial: Trial) -> Any:
    service = lib("azure.storage.blob.aio").BlobServiceClient
    client = await trial.aenter(service.from_connection_string(await trial.server(servers.azurite)))
    container = client.get_container_client("bucket")
    if not await container.exists():
        await container.create_container()
    return client.get_blob_client("bucket", f"{id(trial)}.jpg")


@TABLE.row("azure: BlobClient", NO_WRITE)
async def _(trial: Trial) -> None:
    await trial.download(await azure_blob(trial))


@TABLE.row("cloudpathlib: S3Path", AnyOf((WRITTEN, Refused("S3Path", "ConfigurationError"))))
async def _(trial: Trial) -> None:
    await bucket(trial)
    client = lib("cloudpathlib").S3Client(local_cache_dir=trial.folder / "cache")
    await trial.download(lib("cloudpathlib").S3Path("s3://bucket/copy.jpg", client=client))
    if trial.seen["result"] == "done":
        trial.wrote(await asyncio.to_thread(from_bucket, trial))


@TABLE.row("s3path: S3Path", AnyOf((WRITTEN, Refused("S3Path", "ConfigurationError"))))
async def _(trial: Trial) -> None:
    await bucket(trial)
    await trial.download(lib("s3path").S3Path("/bucket/copy.jpg"))
    if trial.seen["result"] == "done":
        trial.wrote(await asyncio.to_thread(from_bucket, trial))


class Wrapped(io.BytesIO):
    """A handle whose async `write` is behind a decorator."""

    @logged
    async def write(self, chunk: Any) -> int:
        """Write."""
        return super().write(chunk)


destination("async write() behind a decorator", WRITTEN, lambda _: Wrapped(), lambda _, made: made.getvalue())
