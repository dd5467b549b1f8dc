"""Files, archives, pipes and paths: of the standard library, and of libraries that read them asynchronously."""

from __future__ import annotations

import asyncio
import bz2
import fileinput
import gzip
import importlib.resources
import io
import lzma
import mmap
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Final

import anyio

from tests.libraries.driver import Trial, lib
from tests.libraries.table import NAMELESS, PHOTO, AnyOf, Done, Refused, Table

__all__ = ["TABLE"]

TABLE: Final = Table()
TEXT: Final = Done("note.txt", "text/plain")
TEMPORARY: Final = Done(any_name=True)


def filled(trial: Trial, file: Any) -> Any:
    trial.enter(file)
    file.write(trial.content)
    file.seek(0)
    return file


async def afilled(trial: Trial, manager: Any) -> Any:
    file = await trial.aenter(manager)
    await file.write(trial.content)
    await file.seek(0)
    return file


def packed(trial: Trial, how: str) -> Path:
    target = trial.folder / (f"{trial.path.name}.{how}" if how in {"gz", "bz2", "xz"} else f"n.{how}")
    if how == "zip":
        with zipfile.ZipFile(target, "w") as archive:
            archive.write(trial.path, trial.path.name)
    elif how == "tar.gz":
        with tarfile.open(target, "w:gz") as archive_:
            archive_.add(trial.path, trial.path.name)
    else:
        target.write_bytes(lib({"gz": "gzip", "bz2": "bz2", "xz": "lzma"}[how]).compress(trial.content))
    return target


def popen(trial: Trial) -> Any:
    return trial.enter(subprocess.Popen(["cat", trial.path], stdout=subprocess.PIPE)).stdout


async def pipe(trial: Trial) -> Any:
    reading, writing = os.pipe()

    def fill() -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(trial.content)

    filling = asyncio.create_task(asyncio.to_thread(fill))
    trial.stack.push_async_callback(asyncio.gather, filling)
    return trial.enter(os.fdopen(reading, "rb"))


async def reader(trial: Trial) -> Any:
    async def serve(_: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(trial.content)
        await writer.drain()
        writer.close()

    server = await trial.aenter(await asyncio.start_server(serve, "127.0.0.1", 0))
    stream, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    trial.stack.callback(writer.close)
    return stream


async def output(trial: Trial) -> Any:
    process = await asyncio.create_subprocess_exec("cat", trial.path, stdout=subprocess.PIPE)
    trial.stack.push_async_callback(process.wait)
    return process.stdout


def resource(trial: Trial) -> Any:
    with zipfile.ZipFile(trial.folder / "package.zip", "w") as archive:
        archive.writestr(f"package_{trial.folder.name}/__init__.py", "")
        archive.write(trial.path, f"package_{trial.folder.name}/photo.jpg")
    sys.path.insert(0, str(trial.folder / "package.zip"))
    trial.stack.callback(sys.path.remove, sys.path[0])
    return importlib.resources.files(f"package_{trial.folder.name}") / "photo.jpg"


source = TABLE.source
source("zip member", PHOTO, lambda t: t.enter(t.enter(zipfile.ZipFile(packed(t, "zip"))).open("photo.jpg")))
source("zipfile.Path", PHOTO, lambda t: zipfile.Path(packed(t, "zip"), "photo.jpg"))
source("Traversable in a zip", PHOTO, resource)
source("Traversable in a folder", PHOTO, lambda _: importlib.resources.files("meta_media.samples") / "photo.jpg", sizes=("small",))
source("GzipFile", PHOTO, lambda t: t.enter(gzip.GzipFile(packed(t, "gz"))))
source("gzip.open of a text", TEXT, lambda t: t.enter(gzip.open(packed(t, "gz"))), kind="text")
source("BZ2File", AnyOf((PHOTO, NAMELESS)), lambda t: t.enter(bz2.BZ2File(packed(t, "bz2"))))
source("LZMAFile", AnyOf((PHOTO, NAMELESS)), lambda t: t.enter(lzma.LZMAFile(packed(t, "xz"))))
source("tar member", AnyOf((PHOTO, NAMELESS)), lambda t: t.enter(tarfile.open(packed(t, "tar.gz"))).extractfile("photo.jpg"))
source(
    "tar member, a text",
    AnyOf((TEXT, Done(None, "text/plain"))),
    lambda t: t.enter(tarfile.open(packed(t, "tar.gz"))).extractfile("note.txt"),
    kind="text",
)
source("smart_open of a .gz, a text", TEXT, lambda t: t.enter(lib("smart_open").open(str(packed(t, "gz")), "rb")), kind="text")
source("fsspec compression=, a text", TEXT, lambda t: t.enter(lib("fsspec").open(f"file://{packed(t, 'gz')}", "rb", compression="gzip")), kind="text")
source("mmap", NAMELESS, lambda t: t.enter(mmap.mmap(t.enter(t.path.open("rb")).fileno(), 0, access=mmap.ACCESS_READ)))
source("FileIO", AnyOf((PHOTO, NAMELESS)), lambda t: t.enter(io.FileIO(t.path)))
source("BufferedRandom", PHOTO, lambda t: t.enter(t.path.open("r+b")))
source("SpooledTemporaryFile", NAMELESS, lambda t: filled(t, tempfile.SpooledTemporaryFile(2**20)))
source("NamedTemporaryFile", TEMPORARY, lambda t: filled(t, tempfile.NamedTemporaryFile()))
source("TemporaryFile", NAMELESS, lambda t: filled(t, tempfile.TemporaryFile()))
source("BytesIO", NAMELESS, lambda t: io.BytesIO(t.content))
source("Popen.stdout", NAMELESS, popen)
source("pipe", NAMELESS, pipe)
source("fileinput", AnyOf((PHOTO, NAMELESS)), lambda t: t.enter(fileinput.FileInput([t.path], mode="rb")))
source("text mode", Refused("'rb'"), lambda t: t.enter(t.path.open(encoding="latin-1")))
source("aiofile async_open", AnyOf((PHOTO, NAMELESS)), lambda t: t.aenter(lib("aiofile").async_open(t.path, "rb")))
source("aiofile Reader", NAMELESS, lambda t: aiofile_reader(t))
source("aiofile AIOFile, which has no position", Refused(r"async_open|position|offset"), lambda t: t.aenter(lib("aiofile").AIOFile(t.path, "rb")))
source("aiopath AsyncPath", PHOTO, lambda t: lib("aiopath").AsyncPath(t.path))
source("aiopath file", PHOTO, lambda t: t.aenter(lib("aiopath").AsyncPath(t.path).open("rb")))
source("anyio Path", PHOTO, lambda t: anyio.Path(t.path))
source("anyio file", PHOTO, lambda t: anyio.open_file(t.path, "rb"))
source("anyio FileReadStream", NAMELESS, lambda t: lib("anyio.streams.file").FileReadStream.from_path(t.path))
source("anyio TemporaryFile", NAMELESS, lambda t: afilled(t, anyio.TemporaryFile()))
source("anyio NamedTemporaryFile", TEMPORARY, lambda t: afilled(t, anyio.NamedTemporaryFile()))
source("anyio SpooledTemporaryFile", NAMELESS, lambda t: afilled(t, anyio.SpooledTemporaryFile(max_size=2**20)))
source("aiofiles NamedTemporaryFile", TEMPORARY, lambda t: afilled(t, lib("aiofiles.tempfile").NamedTemporaryFile()))
source("aiofiles SpooledTemporaryFile", NAMELESS, lambda t: afilled(t, lib("aiofiles.tempfile").SpooledTemporaryFile(2**20)))
source("asyncio process.stdout", NAMELESS, output)
source("asyncio.StreamReader", NAMELESS, reader)
source("anyio process.stdout", NAMELESS, lambda t: anyio_output(t))


async def aiofile_reader(trial: Trial) -> Any:
    return lib("aiofile").Reader(await trial.aenter(lib("aiofile").AIOFile(trial.path, "rb")))


async def anyio_output(trial: Trial) -> Any:
    return (await trial.aenter(await anyio.open_process(["cat", str(trial.path)]))).stdout
