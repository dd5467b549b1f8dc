"""Fixtures of the library's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from taskiq.serializers import JSONSerializer

from meta_media import MediaApi, MediaLibrary
from meta_media.emulator import Emulator
from tests.library.helpers import HookedStore
from tests.library.worker import Backend, Worker, make_worker


@pytest.fixture
def store() -> HookedStore:
    """An empty store."""
    return HookedStore()


@pytest.fixture
def library(media: MediaApi, store: HookedStore) -> MediaLibrary:
    """A library for the emulator."""
    return MediaLibrary(media, store)


@pytest.fixture
async def worker(emulator: Emulator, request: pytest.FixtureRequest) -> AsyncIterator[Worker]:
    """A running worker for the emulator. An indirect parameter is the serializer of its result backend."""
    made = make_worker(emulator.api, backend=Backend(getattr(request, "param", JSONSerializer)()))
    await made.broker.startup()
    yield made
    await made.broker.shutdown()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file to upload."""
    file = tmp_path / "note.txt"
    file.write_bytes(b"to all of you")
    return file
