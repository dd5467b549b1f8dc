"""What is measured inside a contender's process: time, processor, memory, and how late the event loop runs."""

from __future__ import annotations

import asyncio
import gc
import resource
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

BEAT = 0.005  # seconds
_STATUS = Path("/proc/self/status")


class Heart:
    """A task that sleeps 5 ms at a time and notes how late it wakes: what every other task on the loop would feel."""

    def __init__(self) -> None:
        self.lateness: list[float] = []  # ms

    async def __aenter__(self) -> Heart:
        self._task = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _beat(self) -> None:
        while True:
            started = time.perf_counter()
            await asyncio.sleep(BEAT)
            self.lateness.append((time.perf_counter() - started - BEAT) * 1000)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of all values does not exceed; zero of none."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


@dataclass(frozen=True)
class Used:
    """Processor seconds so far: of this process and its children, of the server, and of the whole machine."""

    at: float
    own: float
    server: float
    machine: float

    @staticmethod
    def now(server: psutil.Process) -> Used:
        """Read all clocks."""
        whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        spent = [resource.getrusage(who) for who in whose]
        served, machine = server.cpu_times(), psutil.cpu_times()
        return Used(
            at=time.perf_counter(),
            own=sum(usage.ru_utime + usage.ru_stime for usage in spent),
            server=served.user + served.system,
            machine=sum(machine) - machine.idle - machine.iowait - machine.guest - machine.guest_nice,
        )


def memory_reset() -> int:
    """Let the kernel forget the peak so far and return the bytes held now."""
    gc.collect()
    with suppress(OSError):  # some sandboxes forbid it; the peak is then the process's whole life's
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def memory_peak() -> int:
    """Return the most bytes that were held at once."""
    return _status("VmHWM")


def _status(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0
