"""
The contenders: one small class for each library, written as the library's own documentation shows.

A contender has one method for each kind of work. `Job` says what may differ within a library: SHA-256 or not, aiofiles or a
blocking write. A method returns seconds where the contender has a clock of its own, because each call starts a process.
"""

from __future__ import annotations

import abc
import asyncio
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

TOKEN = "benchmark-token"
NUMBER = "106540352242922"
PHASE_TIMEOUT = 300.0  # seconds that any phase of a transfer may take: a busy machine is slow, not wrong
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
CHUNK_SIZE = 2**18  # bytes written to disk at a time, where it can be chosen: the best case for aiohttp and httpx
FORM = {"messaging_product": "whatsapp"}

Source = bytes | Path


class WrongBytesError(RuntimeError):
    """The received bytes are not those that were sent."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """
    The work of one process.

    Attributes:
        contender: Module of this package.
        library: The module that it imports, where it can use several.
        variant: Passed to the contender.
        verify: Whether SHA-256 is computed and compared.
        work: The contender's method.
        loop: The module whose event loop is used.
        base_url: Scheme, host and port of the server.
        redis: URL of a Redis server, or empty.
        media_id: The media to download.
        warm_id: A small media, downloaded once before the measurement.
        size: Bytes of one transfer.
        sha256: Of the media.
        source: The file to upload.
        warm_source: A small file, uploaded once before the measurement.
        folder: Where downloads, journals and libraries go.
        files: Folder with the files of `upload_all`.
        sources: See `Case`.
        again: See `Case`.
        concurrency: Transfers at a time.
        limit: Transfers at most.
        seconds: No transfer starts after this time.
        mime_type: Of uploads.
        server_pid: The process whose processor time is reported as the server's.
        version: Of the Graph API.
    """

    contender: str
    library: str
    variant: str
    verify: bool
    work: str
    loop: str
    base_url: str
    redis: str
    media_id: str
    warm_id: str
    size: int
    sha256: str
    source: str
    warm_source: str
    folder: str
    files: str
    sources: str
    again: bool
    concurrency: int
    limit: int
    seconds: float
    mime_type: str
    server_pid: int
    version: str

    @property
    def upload_url(self) -> str:
        """Where media is uploaded."""
        return f"{self.base_url}/{self.version}/{NUMBER}/media"

    def info_url(self, media_id: str) -> str:
        """Where the service describes a media."""
        return f"{self.base_url}/{self.version}/{media_id}"

    def media_url(self, media_id: str) -> str:
        """Where media is downloaded."""
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

    async def get_info(self, media_id: str) -> float | None:
        """Ask for the description of a media."""
        raise NotImplementedError

    @abc.abstractmethod
    async def upload_file(self, path: Path) -> float | None:
        """Upload from disk."""

    async def upload_all(self, sources: Sequence[Source]) -> None:
        """Upload many: with a semaphore and tasks, as one does where a library has no runs."""
        slots = asyncio.Semaphore(self.job.concurrency)

        async def one(source: Source) -> None:
            async with slots:
                await (self.upload_bytes(source) if isinstance(source, bytes) else self.upload_file(source))

        async with asyncio.TaskGroup() as group:
            for source in sources:
                group.create_task(one(source))

    @abc.abstractmethod
    async def discard(self, media_id: str, size: int, sha256: str | None) -> float | None:
        """Download and drop the bytes; `sha256` is None where it is not compared."""

    @abc.abstractmethod
    async def save(self, media_id: str, path: Path, sha256: str | None) -> float | None:
        """Download to disk."""


def check(expected: object, actual: object) -> None:
    """Raise unless both are equal."""
    if expected != actual:
        raise WrongBytesError(f"expected {expected}, got {actual}")


def load(job: Job) -> Contender:
    """Make the contender that a job names."""
    contender = importlib.import_module(f"{__name__}.{job.contender}").Contestant(job)
    assert isinstance(contender, Contender)
    return contender
