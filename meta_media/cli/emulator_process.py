"""
The demonstration's emulator, as a process of its own: client and server do not share an interpreter, so the rates are honest.

The child ends when its standard input does, that is with its parent, however that ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio

from meta_media.api import MediaApi
from meta_media.errors import NetworkError
from meta_media.protocol.settings import Settings
from meta_media.transfer.threads import run_in_thread

__all__ = ["emulator_process"]

_PATIENCE: Final = 10.0  # seconds for the child to end by itself
_API_VERSION: Final = "v25.0"  # not the environment's: a demonstration needs none


@asynccontextmanager
async def emulator_process(folder: Path) -> AsyncIterator[MediaApi]:
    """
    Run an emulator for as long as a block lasts, and give its client.

    Args:
        folder: Where it keeps its data.

    Raises:
        NetworkError: It did not start.
    """
    process = await _start(folder)
    try:
        line = await process.stdout.readline() if process.stdout else b""
        if not line:
            raise NetworkError("the emulator did not start")
        told: dict[str, str] = json.loads(line)
        settings = Settings(base_url=told["base_url"], api_version=_API_VERSION)
        async with MediaApi(told["access_token"], told["phone_number_id"], settings=settings) as media:
            yield media
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)


async def _start(folder: Path) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", __name__, str(folder)),  # -P: nothing is imported from the current folder
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # Ctrl-C is for us; on Windows the next line says so
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
    except OSError as error:
        raise NetworkError("the emulator did not start") from error


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.stdin:
        process.stdin.close()
    with anyio.move_on_after(_PATIENCE):
        await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()


async def _serve(folder: str) -> None:
    from meta_media.emulator import Emulator

    async with Emulator(folder) as emulator:
        told: dict[str, Any] = {
            "base_url": emulator.base_url,
            "phone_number_id": emulator.phone_number_id,
            "access_token": emulator.access_token,
        }
        await run_in_thread(sys.stdout.write, json.dumps(told) + "\n")
        await run_in_thread(sys.stdout.flush)
        await run_in_thread(sys.stdin.buffer.read)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
