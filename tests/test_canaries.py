"""Faults of stock httpx that we work around. One that is cured fails here, and its work-around can go."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from types import FrameType
from typing import Any

import httpx
import pytest

from meta_media.http.transport import Transport
from tests.support.servers import hasty, json_response, page
from tests.support.stepping import LeanServer, Stepper

Make = Callable[..., httpx.AsyncClient]
SIZE = 30 * 10**6


def stock(**options: Any) -> httpx.AsyncClient:
    """Make what everybody uses."""
    return httpx.AsyncClient(**options)


def ours(**_: Any) -> httpx.AsyncClient:
    """Make a client over our transport."""
    return httpx.AsyncClient(transport=Transport())


async def leaks_places(make: Make) -> bool:
    """Whether requests cancelled at some await leave a client of five connections without any."""
    async with LeanServer(lambda *_: page("text")) as server:

        async def deadly(at: int) -> bool | None:
            client = make(limits=httpx.Limits(max_connections=5), timeout=httpx.Timeout(5, pool=0.2))
            stepper = Stepper(at)
            for _ in range(5):
                stepper = Stepper(at, times=2)
                await stepper.run(lambda: client.get(server.base_url))
            try:
                await client.get(server.base_url)
            except httpx.PoolTimeout:
                return True
            finally:
                await client.aclose()
            return False if stepper.reached else None

        at = 0
        while True:
            at += 1
            dead = await deadly(at)
            if dead or dead is None:
                return bool(dead)


async def _body() -> AsyncIterator[bytes]:
    for _ in range(SIZE // 10**5):
        yield b"x" * 10**5


async def loses_early_replies(make: Make) -> bool:
    """Whether the reply of a server that refuses a body before it has read it is lost."""
    refusal = json_response({"error": {"message": "too large", "code": 100}}, 413)
    async with hasty(refusal) as url, make() as client:
        for _ in range(10):
            try:
                response = await client.post(url, content=_body(), headers={"content-length": str(SIZE)})
            except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
                return True
            assert response.status_code == 413
    return False


BOOKKEEPING = {"is_idle", "is_available", "is_closed", "has_expired", "can_handle_request"}


async def looks_at_all_connections(make: Make) -> bool:
    """Whether the work of finding a connection for a request grows with the number of connections."""
    looks = []
    for tasks in (10, 80):
        async with LeanServer(lambda *_: page("text")) as server, make() as client:
            count = 0

            def called(frame: FrameType, event: str, _: object) -> None:
                nonlocal count
                count += event == "call" and frame.f_code.co_name in BOOKKEEPING

            before = sys.getprofile()
            sys.setprofile(called)
            try:
                await asyncio.gather(*(client.get(server.base_url) for _ in range(tasks)))
            finally:
                sys.setprofile(before)
            looks.append(count / tasks)
    return looks[1] > 2 * looks[0]


CANARIES = [leaks_places, loses_early_replies, looks_at_all_connections]


@pytest.mark.parametrize("canary", CANARIES, ids=lambda canary: canary.__name__)
async def test_stock_httpx_still(canary: Callable[[Make], Any]) -> None:
    """Stock httpx has the fault that we work around."""
    assert await canary(stock) is True


@pytest.mark.parametrize("canary", CANARIES, ids=lambda canary: canary.__name__)
async def test_our_transport_never(canary: Callable[[Make], Any]) -> None:
    """Our transport does not have it."""
    assert await canary(ours) is False
