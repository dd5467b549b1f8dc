"""meta_media, through its public face. It always checks types before an upload, and length and SHA-256 of a download."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from meta_media import MediaApi, MediaInfo, Settings

from . import NUMBER, PATIENCE, TOKEN, Contender, Job, check


class Contestant(Contender):
    """As the README shows; the address, the number of connections and the clocks are settings."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._media = MediaApi(
            TOKEN,
            NUMBER,
            settings=Settings(
                base_url=job.base_url,
                api_version=job.version,
                concurrency=job.concurrency,
                connect_timeout=PATIENCE,
                read_timeout=PATIENCE,
                write_timeout=PATIENCE,
            ),
        )
        self._infos: dict[str, MediaInfo] = {}

    async def __aenter__(self) -> Contestant:
        await self._media.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._media.aclose()

    async def upload_bytes(self, content: bytes) -> None:
        """`upload(bytes)`."""
        await self._media.upload(content, filename="photo.jpg", mime_type=self.job.mime_type)

    async def upload_file(self, path: Path) -> None:
        """`upload(path)`."""
        await self._media.upload(path)

    async def upload_all(self, sources: Sequence[bytes | Path]) -> None:
        """`upload_many(sources).report()`."""
        options: dict[str, Any] = {"concurrency": self.job.concurrency, "mime_type": self.job.mime_type}
        if isinstance(sources[0], bytes):
            options["filename"] = "photo.jpg"
        run = self._media.upload_many(sources, **options)
        check(len(sources), (await run.report()).succeeded)

    async def discard(self, media_id: str, size: int, sha256: str | None) -> None:
        """`stream(info)`."""
        received = 0
        async with self._media.stream(await self._info(media_id)) as stream:
            async for chunk in stream:
                received += len(chunk)
        check(size, received)

    async def save(self, media_id: str, path: Path, sha256: str | None) -> None:
        """`download(info, path)`."""
        await self._media.download(await self._info(media_id), path)

    async def _info(self, media_id: str) -> MediaInfo:
        """Ask once: the others are given the URL and the SHA-256, too."""
        if media_id not in self._infos:
            self._infos[media_id] = await self._media.get_info(media_id)
        return self._infos[media_id]
