"""Measurements inside a contender's process: time, processor, memory, event loop lateness; and a description of the machine."""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import importlib
import os
import platform
import resource
import shutil
import ssl
import subprocess
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import psutil

T = TypeVar("T")

_BEAT = 0.005  # seconds
_LIBRARIES = (
    "httpx",
    "httpcore",
    "h11",
    "httpx2",
    "aiohttp",
    "pywa",
    "uvloop",
    "anyio",
    "aiofiles",
    "attrs",
    "cattrs",
    "redis",
)


def run_on(loop: str, work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on an event loop of a module: asyncio or uvloop."""
    with asyncio.Runner(loop_factory=importlib.import_module(loop).new_event_loop) as runner:
        return runner.run(work)


class Heart:
    """A task that sleeps 5 ms at a time and records how late it wakes: the delay that every other task sees."""

    def __init__(self) -> None:
        self.lateness: list[float] = []  # ms

    async def __aenter__(self) -> Heart:
        self._task = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _beat(self) -> None:
        while True:
            started = time.perf_counter()
            await asyncio.sleep(_BEAT)
            self.lateness.append((time.perf_counter() - started - _BEAT) * 1000)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of all values does not exceed; zero for no values."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


@dataclass(frozen=True)
class Used:
    """Processor seconds so far: of this process with its children, of the server, and of the whole machine."""

    at: float
    own: float
    server: float
    machine: float

    @staticmethod
    def now(server: psutil.Process) -> Used:
        """Read all counters."""
        spent = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        served, machine = server.cpu_times(), psutil.cpu_times()
        return Used(
            at=time.perf_counter(),
            own=sum(usage.ru_utime + usage.ru_stime for usage in spent),
            server=served.user + served.system,
            machine=sum(machine) - machine.idle - machine.iowait - machine.guest - machine.guest_nice,
        )


def memory_reset() -> int:
    """Reset the kernel's record of peak memory, and return the bytes held now."""
    gc.collect()
    with suppress(OSError):  # some sandboxes forbid it; then the peak covers the process's whole life
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def memory_peak() -> int:
    """Return the most bytes that were held at once since the last reset."""
    return _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def installed(need: str) -> str:
    """Return the version of a distribution, or the path of a program; empty if it is missing."""
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(need)
    return shutil.which(need) or ""


def describe_machine() -> list[str]:
    """Describe date, processor, system, Python and libraries, without names, addresses or paths."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.machine()
    memory = psutil.virtual_memory().total / 1e9
    curl = ""
    if installed("curl"):
        output = subprocess.run(["curl", "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
        curl = ", " + " ".join(output.split()[:2])
    libraries = ", ".join(f"{name} {version}" for name in _LIBRARIES if (version := installed(name)))
    return [
        dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        f"{processor}, {os.cpu_count()} processors, {memory:.1f} GB; {platform.system()} {platform.release()}",
        f"{platform.python_implementation()} {platform.python_version()}, {ssl.OPENSSL_VERSION}; {libraries}{curl}",
    ]
