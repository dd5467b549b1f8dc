"""A web application on a real socket, for tests."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from tests.support.servers import wait_until

__all__ = ["serving"]


@asynccontextmanager
async def serving(app: Any, *, lifespan: Any = "auto") -> AsyncIterator[str]:
    """Serve an application by uvicorn until the block ends, and yield its base URL. What it raises is only logged."""
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan=lifespan, ws="none")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server._serve(sockets=[listener]))  # without its handlers of signals
        await wait_until(lambda: server.started or task.done())
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task
