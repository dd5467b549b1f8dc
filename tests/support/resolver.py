"""The system's resolver of names, replaced in a way that every event loop meets."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable
from typing import Any

import pytest

__all__ = ["replace_resolver"]


def replace_resolver(patch: pytest.MonkeyPatch, getaddrinfo: Callable[..., list[Any]]) -> None:
    """
    Look names up by a function in the place of `socket.getaddrinfo`.

    The event loop calls it on a thread of its default executor, as asyncio's does: uvloop's would ask the system itself.
    It asks for addresses, too, when it connects to them; those are left to it.
    """
    loops = type(asyncio.get_running_loop())
    own = loops.getaddrinfo

    async def looked_up(loop: asyncio.AbstractEventLoop, host: Any, *more: Any, **options: Any) -> list[Any]:
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(host if isinstance(host, str) else "")
            return await own(loop, host, *more, **options)
        return await loop.run_in_executor(None, lambda: getaddrinfo(host, *more, **options))

    patch.setattr(socket, "getaddrinfo", getaddrinfo)
    patch.setattr(loops, "getaddrinfo", looked_up)
