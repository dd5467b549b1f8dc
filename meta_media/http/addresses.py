"""
A race between the addresses of a host (RFC 8305, "Happy Eyeballs").

asyncio has this too, but a cancellation at the wrong moment makes it forget an open socket.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any, Final

__all__ = ["first_connected"]

_HEAD_START: Final = 0.25  # seconds before the next address is tried beside the last, as RFC 8305 recommends


async def first_connected(host: str, port: int) -> socket.socket:
    """Return a socket that is connected to one of a host's addresses; `OSError` of the last one if none can be reached."""
    loop = asyncio.get_running_loop()
    try:
        ipaddress.ip_address(host)
    except ValueError:
        addresses = list(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    else:  # needs no thread, of which others may hold all while they wait for a name
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    attempts: list[asyncio.Task[socket.socket]] = []
    try:
        while addresses or not all(attempt.done() for attempt in attempts):
            if addresses:
                family, kind, proto, _, address = addresses.pop(0)
                attempts.append(loop.create_task(_connected(family, kind, proto, address)))
            busy = [attempt for attempt in attempts if not attempt.done()]
            patience = _HEAD_START if addresses else None
            await asyncio.wait(busy, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if winner := _winner(attempts):
                return winner
        return attempts[-1].result()  # which raises why not
    finally:
        for attempt in attempts:
            attempt.add_done_callback(_close_unused)
            attempt.cancel()


async def _connected(family: int, kind: int, proto: int, address: Any) -> socket.socket:
    candidate = socket.socket(family, kind, proto)
    try:
        candidate.setblocking(False)
        await asyncio.get_running_loop().sock_connect(candidate, address)
    except BaseException:
        candidate.close()
        raise
    return candidate


def _winner(attempts: list[asyncio.Task[socket.socket]]) -> socket.socket | None:
    for attempt in attempts:
        if attempt.done() and not attempt.cancelled() and attempt.exception() is None:
            attempts.remove(attempt)
            return attempt.result()
    return None


def _close_unused(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
