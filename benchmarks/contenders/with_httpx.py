"""httpx and httpx2, stock: https://www.python-httpx.org/async/ and, for multipart, /quickstart/#sending-multipart-file-uploads."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import Any

import aiofiles

from . import CHUNK_SIZE, FORM, HEADERS, PHASE_TIMEOUT, Contender, Job, check


class Contestant(Contender):
    """One `AsyncClient` with its default limits; only the timeouts are set."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        library: Any = importlib.import_module(job.library)
        self._client: Any = library.AsyncClient(timeout=PHASE_TIMEOUT, headers=HEADERS)

    async def __aenter__(self) -> Contestant:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def upload_bytes(self, content: bytes) -> None:
        """`client.post(files=, data=)`."""
        await self._post("photo.jpg", content)

    async def upload_file(self, path: Path) -> None:
        """The same with an open file. httpx reads it on the event loop and takes no other kind."""
        with path.open("rb") as file:
            await self._post(path.name, file)

    async def _post(self, name: str, content: Any) -> None:
        files = {"file": (name, content, self.job.mime_type)}
        data = FORM | {"type": self.job.mime_type}
        response = await self._client.post(self.job.upload_url, files=files, data=data)
        response.raise_for_status()
        assert response.json()["id"]

    async def get_info(self, media_id: str) -> None:
        """`client.get(url).json()`."""
        response = await self._client.get(self.job.info_url(media_id))
        check(media_id, response.raise_for_status().json()["id"])

    async def discard(self, media_id: str, size: int, sha256: str | None) -> None:
        """`client.stream("GET")` and `aiter_bytes()`."""
        received, digest = 0, hashlib.sha256()
        async with self._client.stream("GET", self.job.media_url(media_id)) as response:
            response.raise_for_status()
            async for chunk in response.aiter_bytes():
                received += len(chunk)
                if sha256:
                    digest.update(chunk)
        check(size, received)
        check(sha256, digest.hexdigest() if sha256 else None)

    async def save(self, media_id: str, path: Path, sha256: str | None) -> None:
        """The same with aiofiles, in larger pieces: by default httpx yields 16 KiB over https, each a change of threads."""
        digest = hashlib.sha256()
        async with self._client.stream("GET", self.job.media_url(media_id)) as response:
            response.raise_for_status()
            async with aiofiles.open(path, "wb") as file:
                async for chunk in response.aiter_bytes(CHUNK_SIZE):
                    if sha256:
                        digest.update(chunk)
                    await file.write(chunk)
        check(sha256, digest.hexdigest() if sha256 else None)
