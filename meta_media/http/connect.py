"""The way to an open connection: look the host up, connect to one of its addresses, and shake hands for TLS."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import aiohappyeyeballs
import httpx

from meta_media.http.stream import NetworkStream
from meta_media.http.timeouts import TransferTimeouts

__all__ = ["Addresses", "connect", "look_up", "secure"]

_ADDRESS_DELAY: Final = 0.25  # seconds before the next address is tried beside the last (RFC 8305, section 5)
Addresses = Sequence[tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]]  # of `socket.getaddrinfo`


async def look_up(host: str, port: int, timeouts: TransferTimeouts) -> Addresses:
    """Return the addresses of a host, for `connect`."""
    async with _connecting(timeouts):
        return await _addresses(host, port)


async def _addresses(host: str, port: int) -> Addresses:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # needs no thread; slow look-ups of other hosts may occupy all of them
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)


async def connect(
    host: str, port: int, tls: ssl.SSLContext | None, timeouts: TransferTimeouts, addresses: Addresses | None = None
) -> NetworkStream:
    """Connect to the first address of a host that accepts (RFC 8305), by default after a look-up; for TLS shake hands."""
    async with _connecting(timeouts):
        addresses = await _addresses(host, port) if addresses is None else addresses
        connected = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=_ADDRESS_DELAY)
        stream = NetworkStream(connected)
        try:
            await asyncio.get_running_loop().create_connection(lambda: stream, sock=connected)
            if tls is not None:
                await stream.start_tls(tls, host)
        except BaseException:
            stream.abort()  # asyncio has made its transport before anything can fail
            raise
    return stream


async def secure(stream: NetworkStream, host: str, tls: ssl.SSLContext, timeouts: TransferTimeouts) -> None:
    """Shake hands with a host through a tunnel."""
    async with _connecting(timeouts):
        await stream.start_tls(tls, host)


@contextlib.asynccontextmanager
async def _connecting(timeouts: TransferTimeouts) -> AsyncIterator[None]:
    timeouts.restart()
    timer = asyncio.timeout(timeouts.wait("connect"))
    try:
        async with timer:
            yield
    except TimeoutError as error:  # the kernel has one of its own
        raise (timeouts.error("connect") if timer.expired() else httpx.ConnectTimeout("no progress")) from error
    except OSError as error:
        raise httpx.ConnectError(str(error)) from error
