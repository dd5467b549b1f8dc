"""aiohttp: https://docs.aiohttp.org/en/stable/client_quickstart.html, "POST a Multipart-Encoded File" and "Streaming Response Content"."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import aiofiles
import aiohttp

from . import CHUNK_SIZE, FORM, HEADERS, PHASE_TIMEOUT, Contender, Job, check

_BOUNDARY = "7d5f0a9c3b1e4826"


class Contestant(Contender):
    """
    One `ClientSession`; only the timeout is set.

    Variants: `prepared` sends a multipart body that was built beforehand. `aiofiles` writes through aiofiles, where the
    documentation's example writes on the event loop.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._prepared: dict[int, bytes] = {}

    async def __aenter__(self) -> Contestant:
        self._session = aiohttp.ClientSession(headers=HEADERS, timeout=aiohttp.ClientTimeout(total=PHASE_TIMEOUT))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def upload_bytes(self, content: bytes) -> None:
        """`FormData`, or a body that was built beforehand."""
        if self.job.variant == "prepared":
            body = self._prepared.get(id(content)) or self._prepared.setdefault(id(content), self._body(content))
            await self._post(body, {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"})
        else:
            await self._post(self._form("photo.jpg", content), {})

    async def upload_file(self, path: Path) -> None:
        """`FormData` with an open file, which aiohttp reads on a thread."""
        with path.open("rb") as file:
            await self._post(self._form(path.name, file), {})

    def _form(self, name: str, content: Any) -> aiohttp.FormData:
        form = aiohttp.FormData()
        for key, value in (FORM | {"type": self.job.mime_type}).items():
            form.add_field(key, value)
        form.add_field("file", content, filename=name, content_type=self.job.mime_type)
        return form

    def _body(self, content: bytes) -> bytes:
        fields = "".join(
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
            for key, value in (FORM | {"type": self.job.mime_type}).items()
        )
        head = (
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="photo.jpg"\r\n'
            f"Content-Type: {self.job.mime_type}\r\n\r\n"
        )
        return (fields + head).encode() + content + f"\r\n--{_BOUNDARY}--\r\n".encode()

    async def _post(self, data: Any, headers: dict[str, str]) -> None:
        async with self._session.post(self.job.upload_url, data=data, headers=headers) as response:
            response.raise_for_status()
            assert (await response.json())["id"]

    async def get_info(self, media_id: str) -> None:
        """`session.get(url)` and `response.json()`."""
        async with self._session.get(self.job.info_url(media_id)) as response:
            response.raise_for_status()
            check(media_id, (await response.json())["id"])

    async def discard(self, media_id: str, size: int, sha256: str | None) -> None:
        """`response.content.iter_chunked()`."""
        received, digest = 0, hashlib.sha256()
        async with self._session.get(self.job.media_url(media_id)) as response:
            response.raise_for_status()
            async for chunk in response.content.iter_chunked(CHUNK_SIZE):
                received += len(chunk)
                if sha256:
                    digest.update(chunk)
        check(size, received)
        check(sha256, digest.hexdigest() if sha256 else None)

    async def save(self, media_id: str, path: Path, sha256: str | None) -> None:
        """The same, written on the event loop or through aiofiles."""
        digest = hashlib.sha256()
        async with self._session.get(self.job.media_url(media_id)) as response:
            response.raise_for_status()
            chunks = response.content.iter_chunked(CHUNK_SIZE)
            if self.job.variant == "aiofiles":
                async with aiofiles.open(path, "wb") as file:
                    async for chunk in chunks:
                        if sha256:
                            digest.update(chunk)
                        await file.write(chunk)
            else:
                with path.open("wb") as blocking:
                    async for chunk in chunks:
                        if sha256:
                            digest.update(chunk)
                        blocking.write(chunk)
        check(sha256, digest.hexdigest() if sha256 else None)
