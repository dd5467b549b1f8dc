"""A stream as the body of other libraries' requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import httpx

from tests.libraries import frameworks
from tests.libraries.driver import Trial, lib
from tests.libraries.rows.destinations import azure_blob, bucket, from_bucket
from tests.libraries.table import WRITTEN, AnyOf, Raises, Table

__all__ = ["TABLE"]

TABLE: Final = Table()


def sending(name: str, wanted: Any) -> Callable[[Callable[[Trial, Any, str], Awaitable[Any]]], None]:
    def decorate(send: Callable[[Trial, Any, str], Awaitable[Any]]) -> None:
        async def run(trial: Trial) -> None:
            received: list[bytes] = []

            async def handle(request: Any) -> None:
                if request.headers["content-type"].startswith("multipart/"):
                    received.append(await (await request.form(max_part_size=2**30))["file"].read())
                else:
                    received.append(await request.body())

            async with frameworks.starlette(handle) as url, trial.media.stream(await trial.sent()) as stream:
                await trial.attempt(send(trial, stream, url))
            if trial.seen["result"] == "done":
                trial.wrote(received[0] if received else b"")

        TABLE.row(name, wanted)(run)

    return decorate


@sending("httpx: content=", WRITTEN)
async def _(trial: Trial, stream: Any, url: str) -> None:
    async with httpx.AsyncClient() as client:
        await client.post(url, content=stream, headers={"Content-Type": "image/jpeg"})


@sending("httpx: files=, which takes no async file", Raises("."))
async def _(trial: Trial, stream: Any, url: str) -> None:
    async with httpx.AsyncClient() as client:
        await client.post(url, files={"file": stream})


@sending("aiohttp: data=", WRITTEN)
async def _(trial: Trial, stream: Any, url: str) -> None:
    async with lib("aiohttp").ClientSession() as client, client.post(url, data=stream):
        pass


@sending("aiohttp: FormData", WRITTEN)
async def _(trial: Trial, stream: Any, url: str) -> None:
    form = lib("aiohttp").FormData()
    form.add_field("file", stream, filename="photo.jpg", content_type="image/jpeg")
    async with lib("aiohttp").ClientSession() as client, client.post(url, data=form):
        pass


def storing(name: str, wanted: Any) -> Callable[[Callable[[Trial, Any], Awaitable[Any]]], None]:
    def decorate(put: Callable[[Trial, Any], Awaitable[Any]]) -> None:
        async def run(trial: Trial) -> None:
            async with trial.media.stream(await trial.sent()) as stream:
                stored = await trial.attempt(put(trial, stream))
            if trial.seen["result"] == "done":
                trial.wrote(stored)

        TABLE.row(name, wanted)(run)

    return decorate


@storing("aioboto3: upload_fileobj", WRITTEN)
async def _(trial: Trial, stream: Any) -> Any:
    await bucket(trial)
    async with lib("aioboto3").Session().client("s3") as client:
        await client.upload_fileobj(stream, "bucket", "copy.jpg")
    return await asyncio.to_thread(from_bucket, trial)


@storing("aioboto3: put_object", AnyOf((WRITTEN, Raises("."))))
async def _(trial: Trial, stream: Any) -> Any:
    await bucket(trial)
    async with lib("aioboto3").Session().client("s3") as client:
        await client.put_object(Bucket="bucket", Key="copy.jpg", Body=stream)
    return await asyncio.to_thread(from_bucket, trial)


@storing("azure: upload_blob", WRITTEN)
async def _(trial: Trial, stream: Any) -> Any:
    blob = await azure_blob(trial)
    await blob.upload_blob(stream)
    return await (await blob.download_blob()).readall()


@storing("obstore: put_async", WRITTEN)
async def _(_: Trial, stream: Any) -> Any:
    memory = lib("obstore.store").MemoryStore()
    await lib("obstore").put_async(memory, "copy.jpg", stream)
    return await (await lib("obstore").get_async(memory, "copy.jpg")).bytes_async()


async def _websocket(trial: Trial, send: Callable[[Any], Awaitable[None]]) -> bytes:
    received, ended = bytearray(), asyncio.Event()

    async def serve(connection: Any) -> None:
        async for message in connection:
            received.extend(message)
        ended.set()

    server = await trial.aenter(lib("websockets").serve(serve, "127.0.0.1", 0, max_size=2**24))
    async with lib("websockets").connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}") as connection:
        await send(connection)
    await ended.wait()
    return bytes(received)


@storing("websockets: send(chunk)", WRITTEN)
async def _(trial: Trial, stream: Any) -> Any:
    async def send(connection: Any) -> None:
        async for chunk in stream:
            await connection.send(chunk)

    return await _websocket(trial, send)


@storing("websockets: send(stream)", WRITTEN)
async def _(trial: Trial, stream: Any) -> Any:
    return await _websocket(trial, lambda connection: connection.send(stream))
