"""pywa's async client, as https://pywa.readthedocs.io/ shows it. It checks neither length nor SHA-256, and writes on the event loop."""

from __future__ import annotations

from pathlib import Path

import httpx
from pywa_async.client import WhatsApp

from . import NUMBER, PHASE_TIMEOUT, TOKEN, Contender, Job, check


class Contestant(Contender):
    """One `WhatsApp` over an httpx client of its own; only the address and the timeouts are set."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._session = httpx.AsyncClient(timeout=PHASE_TIMEOUT)
        self._client = WhatsApp(phone_id=NUMBER, token=TOKEN, session=self._session)
        self._session.base_url = httpx.URL(f"{job.base_url}/{job.version}")  # it takes no other address than Meta's

    async def __aenter__(self) -> Contestant:
        await self._session.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.aclose()

    async def upload_bytes(self, content: bytes) -> None:
        """`upload_media(bytes)`."""
        await self._client.upload_media(content, mime_type=self.job.mime_type, filename="photo.jpg")

    async def upload_file(self, path: Path) -> None:
        """`upload_media(path)`."""
        await self._client.upload_media(path, mime_type=self.job.mime_type, filename=path.name)

    async def get_info(self, media_id: str) -> None:
        """`get_media_url(id)`."""
        check(media_id, (await self._client.get_media_url(media_id)).id)

    async def discard(self, media_id: str, size: int, sha256: str | None) -> None:
        """`stream_media(url=)`."""
        received = 0
        async for chunk in self._client.stream_media(self.job.media_url(media_id)):
            received += len(chunk)
        check(size, received)

    async def save(self, media_id: str, path: Path, sha256: str | None) -> None:
        """`download_media(url=, path=, filename=)`."""
        await self._client.download_media(url=self.job.media_url(media_id), path=path.parent, filename=path.name)
