"""meta_media by its public names. It checks the type of each upload, and length and SHA-256 of each download."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from meta_media import MediaApi, MediaInfo, MediaLibrary, MemoryStore, RedisStore, Settings, SQLiteStore

from . import NUMBER, PHASE_TIMEOUT, TOKEN, Contender, Job, Source, check

_STORES: dict[str, Any] = {
    "memory": lambda job: MemoryStore(),
    "sqlite": lambda job: SQLiteStore(Path(job.folder, "library.sqlite")),
    "redis": lambda job: RedisStore(job.redis),
}


class Contestant(Contender):
    """As the README shows. Address, timeouts and the number of connections are settings; variants name a journal or a store."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._media = MediaApi(
            TOKEN,
            NUMBER,
            settings=Settings(
                base_url=job.base_url,
                api_version=job.version,
                concurrency=job.concurrency,
                connect_timeout=PHASE_TIMEOUT,
                read_timeout=PHASE_TIMEOUT,
                write_timeout=PHASE_TIMEOUT,
            ),
        )
        self._infos: dict[str, MediaInfo] = {}
        self._store = _STORES[job.variant](job) if job.variant in _STORES else None
        self._library = MediaLibrary(self._media, self._store) if self._store else None

    async def __aenter__(self) -> Contestant:
        await self._media.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._media.aclose()
        if self._store:
            await self._store.aclose()

    async def upload_bytes(self, content: bytes) -> None:
        """`upload(bytes)`."""
        await self._media.upload(content, filename="photo.jpg", mime_type=self.job.mime_type)

    async def upload_file(self, path: Path) -> None:
        """`upload(path)`."""
        await self._media.upload(path)

    async def upload_all(self, sources: Iterable[Source]) -> None:
        """`upload_many(sources).report()`, or `ensure_many` of a library."""
        options: dict[str, Any] = {"concurrency": self.job.concurrency, "mime_type": self.job.mime_type}
        if self._library:
            report = await self._library.ensure_many(sources, **options).report()
        else:
            journal = Path(self.job.folder, "journal.sqlite") if self.job.variant == "journal" else None
            report = await self._media.upload_many(sources, journal=journal, **options).report()
        check((True, None), (report.ok, report.ended_by))

    async def get_info(self, media_id: str) -> None:
        """`get_info(id)`."""
        check(media_id, (await self._media.get_info(media_id)).id)

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
        """Ask once: the other contenders are given URL and SHA-256, too."""
        if media_id not in self._infos:
            self._infos[media_id] = await self._media.get_info(media_id)
        return self._infos[media_id]
