"""
The socket: uvicorn in the caller's event loop, quiet, without signal handlers, and gone at once when told to stop.

A request's `Connection` is in its ASGI scope, for those who have something to say that uvicorn would not.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any, Final

import anyio.to_thread
import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

__all__ = ["Connection", "Server"]

_LOGGER: Final = logging.getLogger("meta_media.emulator")
_KEEP_ALIVE: Final = 60  # seconds; longer than clients keep an idle connection, so that they never find it closed
_MAX_HEAD: Final = 2**16  # bytes of a request's head; uvicorn's own limit
_ACCEPTING: Final = 3  # turns of the event loop in which asyncio hands over a connection that it has accepted


class _Http(h11.Connection):
    """HTTP's state, which can move on without a word."""

    hushed = False

    def send_with_data_passthrough(self, event: h11.Event) -> list[bytes] | None:
        """Say an event."""
        said = super().send_with_data_passthrough(event)
        return [] if self.hushed and said is not None else said


class Connection(H11Protocol):
    """
    One connection, which is `scope["state"]["connection"]` of its requests.

    Leaves uvicorn's global loggers alone: its access log would show signed URLs to whoever listens at the root.

    Attributes:
        lost: Set when the connection is gone, whoever ended it.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state | {"connection": self}, _loop)
        self.access_log = False
        self.logger = _LOGGER
        self.lost = asyncio.Event()
        self._http = self.conn = _Http(h11.SERVER, _MAX_HEAD)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell those who wait."""
        super().connection_lost(exc)
        self.lost.set()

    async def idle(self, seconds: float) -> None:
        """Let time pass, as long as there is a connection."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.lost.wait()

    @contextlib.contextmanager
    def hushed(self) -> Iterator[None]:
        """Let uvicorn talk without a word of it being sent."""
        self._http.hushed = True
        try:
            yield
        finally:
            self._http.hushed = False

    def read_at_most(self, size: int | None) -> None:
        """Ask the system for no more bytes at once; where the event loop cannot, it reads in pieces of its own size."""
        with contextlib.suppress(TypeError):  # "vars() argument must have __dict__": not asyncio's own transport
            known = vars(self.transport)
            if size is None:
                known.pop("max_size", None)
            else:
                known["max_size"] = size


class Server:
    """Serves an application on one socket."""

    def __init__(self, app: ASGIApp) -> None:
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            date_header=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE,
        )
        config.load()
        self._uvicorn = uvicorn.Server(config)
        self._uvicorn.lifespan = config.lifespan_class(config)

    async def start(self, host: str, port: int) -> str:
        """
        Listen, and return the base URL.

        Raises:
            OSError: The address cannot be had.
        """
        listener = await anyio.to_thread.run_sync(_listen, host, port)
        await self._uvicorn.startup(sockets=[listener])
        address, port = listener.getsockname()[:2]
        if ipaddress.ip_address(address).is_unspecified:  # listening everywhere is no address to connect to
            address = "::1" if ":" in address else "127.0.0.1"
        return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"

    async def stop(self) -> None:
        """Close the socket, break every connection, and wait for the requests to notice."""
        for server in self._uvicorn.servers:
            server.close()
        for _ in range(_ACCEPTING):
            await asyncio.sleep(0)
        for connection in list(self._uvicorn.server_state.connections):
            connection.transport.abort()
        if tasks := set(self._uvicorn.server_state.tasks):
            await asyncio.wait(tasks)
        for server in self._uvicorn.servers:
            await server.wait_closed()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off only where the protocol is named: without it, each small reply takes 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # A port is free again at once after a restart; outside POSIX the option would let two servers share it instead.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(os.name == "posix"))
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener
