"""
The contenders: one small class per library, each written as the library's own documentation shows.

A contender knows four verbs, and does with one call what is asked once; and how to upload many. What may differ within a
library (SHA-256 or not, aiofiles or a blocking write) is told by `Job`. A verb returns seconds where the contender has a clock
of its own, because its process is started for every call.
"""

from __future__ import annotations

import abc
import asyncio
import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

TOKEN = "benchmark-token"
NUMBER = "106540352242922"
PATIENCE = 300.0  # seconds any phase of any transfer may take: a busy machine is slow, not wrong
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
CHUNK = 2**18  # bytes that those who may choose write to disk at a time: the best case for aiohttp and httpx
FORM = {"messaging_product": "whatsapp"}


class WrongBytesError(RuntimeError):
    """What arrived is not what was sent."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """
    What one process is to measure.

    Attributes:
        contender: Module of this package.
        library: What that module is to import, where it can do with several.
        work: The verb.
        base_url: Scheme, host and port.
        media_id: What to download.
        warm_id: Likewise, before the measurement.
        size: Bytes of one transfer.
        sha256: Of what is downloaded.
        source: The file to upload.
        warm_source: Likewise, before the measurement.
        folder: Where downloads go.
        concurrency: Transfers at a time.
        limit: Transfers at most.
        seconds: After which no further one is begun.
        mime_type: Of what is uploaded.
        verify: Whether SHA-256 is computed and compared.
        variant: Of the contender; it knows what it means.
        server_pid: Whose processor time to report beside ours.
    """

    contender: str
    library: str
    work: str
    base_url: str
    media_id: str
    warm_id: str
    size: int
    sha256: str
    source: str
    warm_source: str
    folder: str
    concurrency: int
    limit: int
    seconds: float
    mime_type: str
    verify: bool
    variant: str
    server_pid: int
    version: str = field(default="v25.0")

    @property
    def upload_url(self) -> str:
        """Where media is posted."""
        return f"{self.base_url}/{self.version}/{NUMBER}/media"

    def media_url(self, media_id: str) -> str:
        """Where media is served."""
        return f"{self.base_url}/media/{media_id}.pdf"


class Contender(abc.ABC):
    """One library, opened once and used many times."""

    def __init__(self, job: Job) -> None:
        self.job = job

    @abc.abstractmethod
    async def __aenter__(self) -> Contender: ...

    @abc.abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def upload_bytes(self, content: bytes) -> float | None:
        """Upload from memory."""
        raise NotImplementedError

    @abc.abstractmethod
    async def upload_file(self, path: Path) -> float | None:
        """Upload from disk."""

    async def upload_all(self, sources: Sequence[bytes | Path]) -> None:
        """Upload many, so many at a time: a semaphore and tasks, which is what one writes where a library has no runs."""
        places = asyncio.Semaphore(self.job.concurrency)

        async def one(source: bytes | Path) -> None:
            async with places:
                await (self.upload_bytes(source) if isinstance(source, bytes) else self.upload_file(source))

        async with asyncio.TaskGroup() as group:
            for source in sources:
                group.create_task(one(source))

    @abc.abstractmethod
    async def discard(self, media_id: str, size: int, sha256: str | None) -> float | None:
        """Download and forget the bytes; `sha256` is None where it is not to be looked at."""

    @abc.abstractmethod
    async def save(self, media_id: str, path: Path, sha256: str | None) -> float | None:
        """Download to disk."""


def check(expected: object, actual: object) -> None:
    """Raise unless they are the same."""
    if expected != actual:
        raise WrongBytesError(f"expected {expected}, got {actual}")


def load(job: Job) -> Contender:
    """Make the contender that a job names."""
    contender = importlib.import_module(f"{__name__}.{job.contender}").Contestant(job)
    assert isinstance(contender, Contender)
    return contender
