"""Fixtures of the tests of downloads, sources and disks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from meta_media import MediaApi
from tests.support.servers import Server, open_files, page
from tests.support.stepping import LeanServer
from tests.transfer.disks import answer
from tests.transfer.downloads import CONTENT, OLD, client
from tests.transfer.uploads import TEXT


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


@pytest.fixture
def nothing_stays_open(tmp_path: Path) -> Iterator[None]:
    """Whatever a test does, no file stays open and no temporary file stays."""
    before = set(open_files(tmp_path))
    yield
    assert set(open_files(tmp_path)) <= before  # what an earlier test left may have been closed


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A text file."""
    path = tmp_path / "note.txt"
    path.write_bytes(TEXT)
    return path


@pytest.fixture
async def warehouse() -> AsyncIterator[LeanServer]:
    """A server that has files of every size."""
    async with LeanServer(answer) as server:
        yield server
