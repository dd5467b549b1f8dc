"""curl, as its manual shows: the reference for large transfers. It checks the length and no SHA-256."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from . import FORM, HEADERS, Contender


class Contestant(Contender):
    """One process for each transfer. Its own clock excludes the start of the process; its processor time includes it."""

    async def __aenter__(self) -> Contestant:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def upload_file(self, path: Path) -> float:
        """`curl -F file=@path`."""
        fields = [f"file=@{path};type={self.job.mime_type}", *(f"{key}={value}" for key, value in FORM.items())]
        fields.append(f"type={self.job.mime_type}")
        return await self._curl(self.job.upload_url, os.devnull, *(part for field in fields for part in ("-F", field)))

    async def discard(self, media_id: str, size: int, sha256: str | None) -> float:
        """`curl -o /dev/null`."""
        return await self._curl(self.job.media_url(media_id), os.devnull)

    async def save(self, media_id: str, path: Path, sha256: str | None) -> float:
        """`curl -o path`."""
        return await self._curl(self.job.media_url(media_id), str(path))

    async def _curl(self, url: str, target: str, *options: str) -> float:
        """Run it, and return its own total time."""
        fixed = ["-q", "-sS", "--fail", "--http1.1", "-w", "%{stderr}%{time_total}", "-o", target]
        headers = [part for name, value in HEADERS.items() for part in ("-H", f"{name}: {value}")]
        process = await asyncio.create_subprocess_exec(
            "curl", *fixed, *headers, *options, url, stderr=asyncio.subprocess.PIPE
        )
        _, output = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"curl ended with {process.returncode}: {output.decode(errors='replace').strip()}")
        return float(output)
