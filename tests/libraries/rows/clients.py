"""Responses of HTTP clients, and what other connections deliver."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from typing import Any, Final

from tests.libraries import servers
from tests.libraries.driver import Trial, lib
from tests.libraries.table import NAMELESS, PHOTO, AnyOf, Refused, Table

__all__ = ["TABLE"]

TABLE: Final = Table()
IS_ERROR: Final = Refused("404")
GZIP: Final = Refused("gzip")
CUT: Final = Refused(".", "MediaError")
READ_ALREADY: Final = Refused("already|closed|read|consumed|empty|at its end")
source = TABLE.source


async def url(trial: Trial, path: str) -> str:
    return str(await trial.aenter(servers.website(trial.content))) + path


def _httpx(name: str) -> None:
    async def streamed(trial: Trial, path: str = "photo.jpg", **options: Any) -> Any:
        client = await trial.aenter(lib(name).AsyncClient(**options))
        return await trial.aenter(client.stream("GET", await url(trial, path)))

    async def read(trial: Trial) -> Any:
        client = await trial.aenter(lib(name).AsyncClient())
        return await client.get(await url(trial, "photo.jpg"))

    async def closed(trial: Trial) -> Any:
        async with lib(name).AsyncClient() as client, client.stream("GET", await url(trial, "photo.jpg")) as response:
            return response

    async def consumed(trial: Trial) -> Any:
        response = await streamed(trial)
        async for _ in response.aiter_bytes():
            pass
        return response

    async def sync(trial: Trial) -> Any:
        address = await url(trial, "photo.jpg")
        client = trial.enter(lib(name).Client())
        request = client.build_request("GET", address)
        return await asyncio.to_thread(client.send, request, stream=True)

    async def raw(trial: Trial) -> Any:
        return (await streamed(trial, "gzip/photo.jpg")).aiter_raw()

    source(f"{name}: streamed", PHOTO, streamed)
    source(f"{name}: read", PHOTO, read)
    source(f"{name}: gzip", PHOTO, lambda t: streamed(t, "gzip/photo.jpg"))
    source(f"{name}: redirected", PHOTO, lambda t: streamed(t, "moved", follow_redirects=True))
    source(f"{name}: redirect that was not followed", Refused("302"), lambda t: streamed(t, "moved"))
    source(f"{name}: Content-Disposition", PHOTO, lambda t: streamed(t, "named"))
    source(f"{name}: 404", IS_ERROR, lambda t: streamed(t, "missing.jpg"))
    source(f"{name}: cut in the middle", CUT, lambda t: streamed(t, "cut.jpg"))
    source(f"{name}: aiter_raw() of gzip", GZIP, raw)
    source(f"{name}: after its block", READ_ALREADY, closed)
    source(f"{name}: consumed", READ_ALREADY, consumed)
    source(f"{name}: of a sync client", AnyOf((PHOTO, Refused("sync|async"))), sync)


_httpx("httpx")
_httpx("httpx2")


def _requests(name: str) -> None:
    async def get(trial: Trial, path: str = "photo.jpg", *, stream: bool = True) -> Any:
        session = trial.enter(lib(name).Session())
        response = await asyncio.to_thread(session.get, await url(trial, path), stream=stream)
        trial.stack.callback(response.close)
        return response

    async def raw(trial: Trial, path: str, *, stream: bool = True) -> Any:
        return (await get(trial, path, stream=stream)).raw

    async def chunks(trial: Trial) -> Any:
        return (await get(trial)).iter_content(65536)

    async def consumed(trial: Trial) -> Any:
        response = await get(trial)
        await asyncio.to_thread(lambda: list(response.iter_content(65536)))
        return response

    source(f"{name}: streamed", PHOTO, get)
    source(f"{name}: not streamed", PHOTO, lambda t: get(t, stream=False))
    source(f"{name}: gzip", PHOTO, lambda t: get(t, "gzip/photo.jpg"))
    source(f"{name}: Content-Disposition", PHOTO, lambda t: get(t, "named"))
    source(f"{name}: 404", IS_ERROR, lambda t: get(t, "missing.jpg"))
    source(f"{name}: cut in the middle", CUT, lambda t: get(t, "cut.jpg"))
    source(f"{name}: consumed", READ_ALREADY, consumed)
    source(f"{name}: iter_content()", NAMELESS, chunks)
    source(f"{name}: .raw", AnyOf((PHOTO, NAMELESS)), lambda t: raw(t, "photo.jpg"))
    source(f"{name}: .raw of gzip", AnyOf((PHOTO, NAMELESS, GZIP)), lambda t: raw(t, "gzip/photo.jpg"))
    source(f"{name}: .raw of a response that was not streamed", READ_ALREADY, lambda t: raw(t, "photo.jpg", stream=False))


_requests("requests")
_requests("niquests")


async def niquests(trial: Trial, path: str) -> Any:
    session = await trial.aenter(lib("niquests").AsyncSession())
    return await session.get(await url(trial, path), stream=True)


async def urllib3(trial: Trial, path: str, **options: Any) -> Any:
    pool = trial.enter(lib("urllib3").PoolManager())
    response = await asyncio.to_thread(pool.request, "GET", await url(trial, path), **options)
    trial.stack.callback(response.close)
    return response


async def urlopen(trial: Trial, path: str) -> Any:
    try:
        return trial.enter(await asyncio.to_thread(urllib.request.urlopen, await url(trial, path)))
    except urllib.error.HTTPError as error:
        return trial.enter(error)


async def aiohttp(trial: Trial, path: str) -> Any:
    session = await trial.aenter(lib("aiohttp").ClientSession())
    return await trial.aenter(session.get(await url(trial, path)))


async def aiohttp_content(trial: Trial, method: str = "", *arguments: Any) -> Any:
    content = (await aiohttp(trial, "photo.jpg")).content
    return getattr(content, method)(*arguments) if method else content


source("niquests: AsyncResponse", PHOTO, lambda t: niquests(t, "photo.jpg"))
source("niquests: AsyncResponse, cut in the middle", CUT, lambda t: niquests(t, "cut.jpg"))
source("niquests: AsyncResponse, 404", IS_ERROR, lambda t: niquests(t, "missing.jpg"))
source("urllib3: preload_content=False", PHOTO, lambda t: urllib3(t, "photo.jpg", preload_content=False))
source("urllib3: preload_content=False, gzip", AnyOf((PHOTO, GZIP)), lambda t: urllib3(t, "gzip/photo.jpg", preload_content=False))
source("urllib3: preload_content=False, 404", IS_ERROR, lambda t: urllib3(t, "missing.jpg", preload_content=False))
source("urllib3: preload_content=False, cut in the middle", CUT, lambda t: urllib3(t, "cut.jpg", preload_content=False))
source("urllib3: preloaded", AnyOf((PHOTO, READ_ALREADY)), lambda t: urllib3(t, "photo.jpg"))
source("urlopen", PHOTO, lambda t: urlopen(t, "photo.jpg"))
source("urlopen: cut in the middle", CUT, lambda t: urlopen(t, "cut.jpg"))
source("urlopen: 404", IS_ERROR, lambda t: urlopen(t, "missing.jpg"))
source("aiohttp: ClientResponse", PHOTO, lambda t: aiohttp(t, "photo.jpg"))
source("aiohttp: ClientResponse, gzip", PHOTO, lambda t: aiohttp(t, "gzip/photo.jpg"))
source("aiohttp: ClientResponse, 404", IS_ERROR, lambda t: aiohttp(t, "missing.jpg"))
source("aiohttp: ClientResponse, cut in the middle", CUT, lambda t: aiohttp(t, "cut.jpg"))
source("aiohttp: response.content", NAMELESS, aiohttp_content)
source("aiohttp: iter_chunked()", NAMELESS, lambda t: aiohttp_content(t, "iter_chunked", 65536))
source("aiohttp: iter_any()", NAMELESS, lambda t: aiohttp_content(t, "iter_any"))
source("aiohttp: iter_chunks(), which yields tuples", Refused("tuple"), lambda t: aiohttp_content(t, "iter_chunks"))


async def websocket(trial: Trial) -> Any:
    async def send(connection: Any) -> None:
        pieces = [trial.content[start : start + 65536] for start in range(0, len(trial.content), 65536)]
        if connection.request.path == "/fragments":
            await connection.send(pieces)
        elif connection.request.path == "/text":
            await connection.send(str(trial.path))
        else:
            for piece in pieces:
                await connection.send(piece)

    server = await trial.aenter(lib("websockets").serve(send, "127.0.0.1", 0))
    return lambda path: trial.aenter(lib("websockets").connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}{path}", max_size=None))


async def fragments(trial: Trial) -> Any:
    return (await (await websocket(trial))("/fragments")).recv_streaming()


async def message(trial: Trial, path: str = "/fragments") -> Any:
    return await (await (await websocket(trial))(path)).recv()


async def connected(trial: Trial) -> Any:
    return await (await websocket(trial))("/")


source("websockets: connection", NAMELESS, connected)
source("websockets: recv_streaming()", NAMELESS, fragments)
source("websockets: message", NAMELESS, message)


@TABLE.row("websockets: text message that names a file, str_paths=False", Refused("path"))
async def _(trial: Trial) -> None:
    settings = {"base_url": trial.emulator.base_url, "str_paths": False}
    client = lib("meta_media").MediaApi(trial.emulator.access_token, trial.emulator.phone_number_id, settings=lib("meta_media").Settings(**settings))
    async with client as media:
        await trial.upload(await message(trial, "/text"), media)


async def grpc(trial: Trial, deserializer: Any = None) -> Any:
    module = lib("grpc")

    async def pieces(_: bytes, __: Any) -> AsyncIterator[bytes]:
        for start in range(0, len(trial.content), 65536):
            yield trial.content[start : start + 65536]

    server = lib("grpc.aio").server()
    method = module.unary_stream_rpc_method_handler(pieces)
    server.add_generic_rpc_handlers([module.method_handlers_generic_handler("files", {"Get": method})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    trial.stack.push_async_callback(server.stop, None)
    channel = await trial.aenter(lib("grpc.aio").insecure_channel(f"127.0.0.1:{port}"))
    return channel.unary_stream("/files/Get", response_deserializer=deserializer)(b"")


class Piece:
    """A message that holds bytes, as protobuf makes them."""

    def __init__(self, chunk: bytes) -> None:
        self.chunk = chunk


source("grpc.aio: call of bytes", NAMELESS, grpc)
source("grpc.aio: call of messages", Refused("Piece"), lambda t: grpc(t, Piece))
