"""Fixtures of the tests of downloads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meta_media import (
    MediaApi,
)
from tests.support.servers import (
    Server,
    page,
)
from tests.transfer.downloads import (
    CONTENT,
    OLD,
    client,
)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server that is Graph and the download host, and waits for its script."""
    async with Server() as running:
        yield running


@pytest.fixture
async def sink() -> AsyncIterator[Server]:
    """Another server, which nobody should talk to."""
    async with Server(page(CONTENT)) as running:
        yield running


@pytest.fixture
async def scripted(server: Server) -> AsyncIterator[MediaApi]:
    """A client for `server`, in small chunks."""
    async with client(server) as api:
        yield api


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one file in it."""
    path = tmp_path / "folder"
    path.mkdir()
    (path / "photo.jpg").write_bytes(OLD)
    return path
