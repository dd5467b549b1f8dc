"""A fleet for tests: an emulator, workers started by taskiq's command line, and a client that queues work."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import runpy
import signal
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from tests.support.redis_server import RedisServer

SCRIPTS: Final = Path(__file__).parents[1] / "scripts"
TASK_COUNT: Final = 4  # that a worker runs at the same time
IDLE_TIMEOUT: Final = 4_000  # milliseconds until an unacknowledged task is delivered to another worker
RESULT_TIMEOUT: Final = 90.0  # seconds


@attrs.frozen(kw_only=True)
class Fleet:
    """An emulator in a process of its own, and the addresses that workers and their client need."""

    folder: Path  # the emulator's data
    environment: Mapping[str, str]  # of the workers
    client: Mapping[str, Any]  # the names of `fleet_tasks`, to queue work
    url: str  # of Redis
    name: str  # the prefix of all names in Redis

    @property
    def tasks(self) -> Any:
        """The tasks."""
        return self.client["tasks"]

    def stored(self) -> list[Path]:
        """The emulator's files of media, named by their ids."""
        return [file for file in (self.folder / "media").iterdir() if file.name.isdecimal()]

    def uploads(self) -> Counter[str]:
        """The number of copies that the emulator has of each content, by SHA-256."""
        return Counter(hashlib.sha256(file.read_bytes()).hexdigest() for file in self.stored())


@contextlib.asynccontextmanager
async def process(
    *command: str, log: Path, environment: Mapping[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program in a process group of its own, and kill the group at the end."""
    with log.open("wb") as errors:
        running = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            cwd=SCRIPTS,
            env=environment,
            stdout=asyncio.subprocess.PIPE if "fleet_emulator.py" in command else errors,
            stderr=errors,
            start_new_session=True,
        )
    try:
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        await running.wait()


@contextlib.asynccontextmanager
async def fleet(
    tmp_path: Path,
    server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    *,
    idle: int = IDLE_TIMEOUT,
    answer: float = 0.03,
    rabbitmq: str | None = None,
) -> AsyncIterator[Fleet]:
    """Run an emulator, and a client that queues tasks, by RabbitMQ if it has a URL."""
    name, folder = f"fleet-{uuid.uuid4().hex}", tmp_path / "emulator"
    paths = os.pathsep.join(filter(None, (*sys.path, os.environ.get("PYTHONPATH"))))
    own = {"FLEET_REDIS": server.url, "FLEET_NAME": name, "FLEET_IDLE": str(idle)}
    own |= {"FLEET_RABBITMQ": rabbitmq} if rabbitmq else {}
    for variable, value in own.items():
        monkeypatch.setenv(variable, value)
    environment = {**os.environ, "PYTHONPATH": paths}
    async with process(
        "fleet_emulator.py", str(folder), str(answer), log=tmp_path / "e", environment=environment
    ) as run:
        assert run.stdout
        base_url, token, number = (await run.stdout.readline()).decode().split()
        credentials = {"WA_BASE_URL": base_url, "CLOUD_API_ACCESS_TOKEN": token, "WA_PHONE_NUMBER_ID": number}
        client = runpy.run_path(str(SCRIPTS / "fleet_tasks.py"))
        await client["broker"].startup()
        try:
            yield Fleet(
                folder=folder, environment={**environment, **credentials}, client=client, url=server.url, name=name
            )
        finally:
            await client["broker"].shutdown()


def worker(fleet: Fleet, log: Path, *more: str) -> contextlib.AbstractAsyncContextManager[asyncio.subprocess.Process]:
    """Start a worker with one process, as users do."""
    command = ("-m", "taskiq", "worker", "fleet_tasks:broker", "--workers", "1", "--max-async-tasks", str(TASK_COUNT))
    return process(*command, *more, log=log, environment=fleet.environment)


def files(folder: Path, count: int) -> dict[str, Path]:
    """Make files with different contents, by SHA-256."""
    made = {}
    for number in range(count):
        path = folder / f"{number}.txt"
        path.write_text(f"this is file number {number}\n" * 50)
        made[hashlib.sha256(path.read_bytes()).hexdigest()] = path
    return made
