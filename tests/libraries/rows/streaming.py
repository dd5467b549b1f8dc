"""A stream in web frameworks' streaming responses; and readers of it that are cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final
from urllib.parse import urlsplit

import h11
import psutil

from meta_media.emulator import Fault
from tests.libraries import frameworks
from tests.libraries.driver import Trial, described, lib
from tests.libraries.frameworks import Framework
from tests.libraries.table import NeverShort, Seen, Table, Written

__all__ = ["TABLE"]

TABLE: Final = Table()
_CANCELLATIONS: Final = 200


async def fetch(url: str) -> Seen:
    host, port = urlsplit(url).hostname, urlsplit(url).port
    reader, writer = await asyncio.open_connection(host, port)
    connection, status, body = h11.Connection(h11.CLIENT), 0, bytearray()
    request = h11.Request(method="GET", target="/", headers=[("Host", "host"), ("Connection", "close")])
    writer.write(connection.send(request) + connection.send(h11.EndOfMessage()))
    complete = False
    try:
        while not complete:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                complete = isinstance(event, h11.EndOfMessage)
    except (h11.RemoteProtocolError, OSError):  # the connection broke
        complete = False
    finally:
        writer.close()
    return {"result": "response", "status": status, "complete": complete, **described(bytes(body))}


def _aiohttp(chunks: Any) -> Any:
    return lib("aiohttp.web").Response(body=chunks)


def _blacksheep(chunks: Any) -> Any:
    async def provider() -> AsyncIterator[bytes]:
        async for chunk in chunks:
            yield chunk

    contents = lib("blacksheep.contents")
    return lib("blacksheep").Response(200, content=contents.StreamedContent(b"image/jpeg", provider))


def _sanic(chunks: Any) -> Any:
    async def write(response: Any) -> None:
        async for chunk in chunks:
            await response.write(chunk)

    return lib("sanic.response").ResponseStream(write, content_type="image/jpeg")


RESPONSES: Final[dict[str, tuple[Framework, Callable[[Any], Any]]]] = {
    "Starlette": (frameworks.starlette, lambda chunks: lib("starlette.responses").StreamingResponse(chunks)),
    "FastAPI": (frameworks.fastapi, lambda chunks: lib("fastapi.responses").StreamingResponse(chunks)),
    "Litestar": (frameworks.litestar, lambda chunks: lib("litestar.response").Stream(chunks)),
    "Quart": (frameworks.quart, lambda chunks: lib("quart").Response(chunks)),
    "Django": (frameworks.django, lambda chunks: lib("django.http").StreamingHttpResponse(chunks)),
    "aiohttp": (frameworks.aiohttp, _aiohttp),
    "Falcon": (frameworks.falcon, lambda chunks: chunks),
    "BlackSheep": (frameworks.blacksheep, _blacksheep),
    "Sanic": (frameworks.sanic, _sanic),
}


def add(name: str, framework: Framework, response: Callable[[Any], Any]) -> None:
    async def stream_after(media: Any, sent: str) -> Any:
        async with media.stream(sent) as stream:
            return response(stream)

    async def iterator_after(media: Any, sent: str) -> Any:
        async with media.stream(sent) as stream:
            return response(aiter(stream))

    async def begun_after(media: Any, sent: str) -> Any:
        async with media.stream(sent) as stream:
            chunks = aiter(stream)
            await anext(chunks)
        return response(chunks)

    async def as_it_is(media: Any, sent: str) -> Any:
        return response(media.stream(sent))

    variants = {
        "a stream after its block": (stream_after, NeverShort()),
        "its iterator after the block": (iterator_after, NeverShort()),
        "its begun iterator after the block": (begun_after, NeverShort()),
        "a stream without a block": (as_it_is, NeverShort(whole=True)),
    }
    for variant, (handle, wanted) in variants.items():
        _add(f"{name}: {variant}", wanted, framework, handle)


def _add(name: str, wanted: NeverShort, framework: Framework, handle: Callable[[Any, str], Any]) -> None:
    async def run(trial: Trial) -> None:
        sent = await trial.sent()
        async with framework(lambda _: handle(trial.media, sent)) as url:
            trial.seen = await fetch(url)

    TABLE.row(name, wanted)(run)


for framework_name, (framework_, response_) in RESPONSES.items():
    add(framework_name, framework_, response_)


@TABLE.row(f"obstore: put_async(store, key, stream), cancelled {_CANCELLATIONS} times", Written(), sizes=("large",))
async def _(trial: Trial) -> None:
    sent, store = await trial.sent(), lib("obstore.store").MemoryStore()
    complaints: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(str(context)))
    trial.stack.callback(loop.set_exception_handler, None)
    tasks, connections = asyncio.all_tasks(), _connections(trial)
    async with trial.emulator.api(max_retries=0) as media:

        async def copy(key: str) -> None:
            async with media.stream(sent) as stream:
                await lib("obstore").put_async(store, key, stream)

        trial.emulator.fail("download", Fault(rate=20_000_000), times=None)  # so that none is over before it is cancelled
        ends: list[Any] = []
        for number in range(_CANCELLATIONS):
            task = asyncio.create_task(copy(str(number)))
            await asyncio.sleep(number % 40 * 0.002)  # cancelled at another point each time
            task.cancel()
            ends += await asyncio.gather(task, return_exceptions=True)
        trial.emulator.clear_faults()
        assert [type(end).__name__ for end in ends] == ["CancelledError"] * _CANCELLATIONS, set(map(repr, ends))
        # Every slot is free: as many downloads at a time as there are slots.
        contents = await asyncio.gather(*(media.read(sent) for _ in range(media.settings.concurrency)))
    await asyncio.sleep(0.1)  # what was left to run would run now
    left = {task for task in asyncio.all_tasks() - tasks if "meta_media/emulator" not in str(task)}
    assert not left, left
    assert not complaints, complaints[:3]
    assert _connections(trial) <= connections, "connections are left open"
    trial.seen = {"result": "done"}
    trial.wrote(contents[-1])


def _connections(trial: Trial) -> int:
    port = urlsplit(trial.emulator.base_url).port
    return sum(one.raddr[1:] == (port,) for one in psutil.Process().net_connections("tcp"))
