"""Cancelled at any await, a call leaves nothing behind; and so do thousands of calls that run out of time."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import random
import ssl
import sys
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from meta_media import MediaApi, Settings
from tests.support.marks import slow_except
from tests.support.servers import Received, Server, info, json_response, page
from tests.support.stepping import LeanServer, Stepper, descriptors, none_added, settled_at
from tests.transfer.disks import left_over

SIZE = 300_000  # bytes: a few chunks, and more than is sent in one piece
CHUNK = 131_072
CONTENT = b"All work and no play. " * (SIZE // 22)
DENSE = 40  # awaits up to which each is swept; beyond, every third
WAYS = [(late, times) for late in (False, True) for times in (1, 2, 3)]  # before what is awaited has come, and after

Call = Callable[[MediaApi, Path], Coroutine[Any, Any, Any]]


async def _streamed(api: MediaApi) -> bytes:
    async with api.stream("7") as stream:
        return b"".join([chunk async for chunk in stream])


CALLS: dict[str, Call] = {
    "upload bytes": lambda api, _: api.upload(CONTENT, filename="a.txt"),
    "upload small": lambda api, _: api.upload(b"text", verify=True),
    "upload path": lambda api, folder: api.upload(folder / "source.txt"),
    "upload_handle": lambda api, _: api.upload_handle(b"%PDF-" + CONTENT, app_id="9"),
    "get_info": lambda api, _: api.get_info("7"),
    "download": lambda api, folder: api.download("7", folder / "copy.txt"),
    "stream": lambda api, _: _streamed(api),
    "read": lambda api, _: api.read("7"),
    "delete": lambda api, _: api.delete("7"),
}


def graph(server: LeanServer) -> None:
    """Make a server answer as Meta does; media 8 ends the connection, so that the next call begins without one."""

    def answer(method: str, target: str) -> bytes:
        if "/upload" in target:
            return json_response({"id": "upload:7?sig=s", "h": "4::7"})
        if method != "GET":
            return json_response({"id": "7", "success": True})
        if target.startswith("/media"):
            return page(CONTENT, content_type="text/plain")
        if target.endswith("/8"):
            last = info(f"{server.base_url}/media", media_id="8", mime_type="text/plain")
            return last.replace(b"content-length", b"connection: close\r\ncontent-length", 1)
        known = b"text" if server.requests[-2:-1] == [("POST", "/v25.0/1/media")] else CONTENT
        sha256 = hashlib.sha256(known).hexdigest()
        return info(f"{server.base_url}/media?hash=s", known, media_id="7", sha256=sha256, mime_type="text/plain")

    server.answer = answer


async def cancelled_at(call: Call, api: MediaApi, folder: Path, stepper: Stepper) -> bool:
    """Cancel once, and look around; False when the call was done before."""
    task = await stepper.run(lambda: call(api, folder))
    if not stepper.reached:
        assert task.result()
        return False
    assert task.cancelled(), f"at await {stepper.count}: {task}"
    await settled_at([], lambda: stepper.alive)
    await settled_at([], lambda: left_over(folder))  # a thread of a slow disk may be left behind
    assert set(os.listdir(folder)) <= {"source.txt", "copy.txt"}  # noqa: PTH208 - thousands of times
    async with asyncio.timeout(20):
        assert (await api.get_info("8")).id == "8"
    return True


async def swept(call: Call, server: LeanServer, folder: Path, given: httpx.AsyncClient | None) -> list[int]:
    """Cancel at each await in turn, in each way; give back how many awaits there were."""
    settings = Settings(base_url=server.base_url, chunk_size=CHUNK, concurrency=1)
    found = []
    for late, times in WAYS if given is None else WAYS[:4]:
        at, going = 0, True
        while going:
            at += 1 if at < DENSE else 3
            async with MediaApi("token", "1", settings=settings, http_client=given) as api:
                going = await cancelled_at(call, api, folder, Stepper(at, times=times, late=late))
        found.append(at - 1)
    return found


@pytest.mark.parametrize(
    ("scheme", "client", "name"),
    slow_except(
        [("http", "ours", "upload path"), ("https", "ours", "stream"), ("http", "httpx", "get_info")],
        itertools.product(["http", "https"], ["ours", "httpx"], CALLS),
    ),
)
async def test_cancelled_at_every_await(
    name: str, client: str, scheme: str, tls: ssl.SSLContext, tmp_path: Path
) -> None:
    """Cancelled at any await, once to three times, a call leaves no task, file or descriptor, and the next one works."""
    (tmp_path / "source.txt").write_bytes(CONTENT)
    async with LeanServer(lambda *_: b"", tls if scheme == "https" else None) as server:
        graph(server)
        async with MediaApi("token", "1", settings=Settings(base_url=server.base_url)) as warm:
            await CALLS[name](warm, tmp_path)
        await settled_at(set(), lambda: server.open)
        before = descriptors()
        async with AsyncExitStack() as stack:
            one = httpx.Limits(max_connections=1)
            given = None if client == "ours" else await stack.enter_async_context(httpx.AsyncClient(limits=one))
            awaits = await swept(CALLS[name], server, tmp_path, given)
        await settled_at(set(), lambda: server.open)
        await none_added(before, descriptors)
    assert min(awaits) >= 6
    sys.stdout.write(f"{name} over {scheme}, {client}: cancelled at each of {awaits} awaits\n")


@pytest.mark.parametrize(
    ("scheme", "count"), slow_except([("http", 500)], [("http", 500), ("https", 2_000), ("http", 20_000)])
)
async def test_calls_that_run_out_of_time(scheme: str, count: int, tls: ssl.SSLContext) -> None:
    """After thousands of calls with random deadlines against a slow server, everything works and nothing is left."""
    jitter = random.Random(7)
    ended = {True: 0, False: 0}
    left = iter(range(count))
    concurrency = 48 if scheme == "http" else 8  # each new connection over TLS takes milliseconds of this process

    async def slow(request: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(jitter.random() / 20)  # so that deadlines fall before, into and after the reply
        writer.write(json_response({"id": "7", "url": "https://lookaside.fbsbx.com/", "mime_type": "text/plain"}))

    async def worker(api: MediaApi) -> None:
        for number in left:
            odds = (ended[False] + 1) / (
                ended[True] + 1
            )  # on a busy machine the deadlines must be longer for both to happen
            try:
                async with asyncio.timeout(jitter.random() / 5 * odds):
                    await (api.get_info("7") if number % 4 else api.upload(CONTENT, filename="a.txt"))
            except TimeoutError:
                ended[False] += 1
            else:
                ended[True] += 1

    tasks, files = asyncio.all_tasks(), descriptors()
    async with (
        Server(slow, tls=tls if scheme == "https" else None) as server,
        MediaApi("token", "1", settings=Settings(base_url=server.base_url, concurrency=concurrency)) as api,
    ):
        await asyncio.gather(*(worker(api) for _ in range(concurrency)))
        async with asyncio.timeout(20):
            await asyncio.gather(*(api.get_info("7") for _ in range(100)))  # every slot is free
    assert sum(ended.values()) == count
    assert min(ended.values()) > count / 40
    sys.stdout.write(f"{scheme}: {ended[True]} of {count} calls done, {ended[False]} out of time\n")
    await none_added(tasks, asyncio.all_tasks)
    await none_added(files, descriptors)
