"""Workers that are set up as in the guide, and have nothing to do: they end when they are told to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from meta_media.emulator import Emulator
from meta_media.library import taskiq
from meta_media.library.taskiq.outages import on_shutdown
from tests.library.fleet import process
from tests.library.worker import make_worker
from tests.support.redis_server import running_redis
from tests.support.servers import wait_until

GUIDE: Final = (Path(taskiq.__file__).parent / "README.md").read_text("utf-8")
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows wakes the event loop for each signal")


def guide_block(language: str, word: str) -> str:
    """Return the guide's block that has a word."""
    return next(str(text) for text in re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL) if word in text)


@pytest.mark.slow
async def test_the_guides_workers_end_when_idle(tmp_path: Path) -> None:
    """Four times the guide's command is eight processes. On SIGTERM they end, long before `idle_timeout`."""
    command = shlex.split(guide_block("bash", "taskiq worker"))
    with running_redis() as server:
        module = guide_block("python notest", "RedisStreamBroker(").replace("redis://redis.internal:6379/0", server.url)
        assert server.url in module
        (tmp_path / "tasks.py").write_text(module)
        paths = os.pathsep.join((str(tmp_path), str(Path(taskiq.__file__).parents[3])))
        environment = {
            **os.environ,
            "PYTHONPATH": paths,
            "CLOUD_API_ACCESS_TOKEN": "a-token",
            "WA_PHONE_NUMBER_ID": "1",
        }
        async with contextlib.AsyncExitStack() as stack:
            workers = [
                await stack.enter_async_context(process("-m", *command, log=tmp_path / str(n), environment=environment))
                for n in range(4)
            ]
            await wait_until(lambda: server.command("CLIENT", "LIST").count(b"cmd=xreadgroup") == 8)
            began = asyncio.get_running_loop().time()
            for worker in workers:
                worker.send_signal(signal.SIGTERM)
            assert [await worker.wait() for worker in workers] == [0] * 4
            took = asyncio.get_running_loop().time() - began
            sys.stdout.write(f"\n8 idle workers ended {took:.1f} s after SIGTERM\n")


@pytest.fixture
def handler() -> Iterator[Callable[..., None]]:
    """A handler of SIGTERM, as taskiq installs one. It does nothing."""

    def ignore(*_: object) -> None:
        """Do nothing."""

    before = signal.signal(signal.SIGTERM, ignore)
    yield ignore
    signal.signal(signal.SIGTERM, before)


async def test_a_signal_ends_the_waits(handler: Callable[..., None], emulator: Emulator, path: Path) -> None:
    """A signal wakes the loop, and ends what waits for the result backend. taskiq's handler stays."""
    made = make_worker(emulator.api)
    made.broker.is_worker_process = True
    await made.broker.startup()
    made.backend.outages["get_progress"] = float("inf")
    waiting = asyncio.create_task(made.tasks.upload.kiq(path))
    await wait_until(lambda: made.backend.failed > 1)
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert signal.getsignal(signal.SIGTERM) is handler
    await made.broker.shutdown()
    assert signal.getsignal(signal.SIGTERM) is handler


async def test_an_idle_loop_wakes(handler: Callable[..., None]) -> None:
    """An event that a handler sets is seen at once, though nothing else happens on the loop."""
    event, stopped = asyncio.Event(), asyncio.Event()
    signal.signal(signal.SIGTERM, lambda *_: event.set())
    undo = on_shutdown(stopped.set)
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()  # the loop is then idle
    await event.wait()
    await stopped.wait()
    undo()
