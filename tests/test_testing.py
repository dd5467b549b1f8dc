"""The pytest plugin, as another project's tests use it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

THEIRS = """
import asyncio
import json

import pytest

from meta_media import inbound_media
from meta_media.errors import MediaNotFoundError


@pytest.mark.anyio
async def test_with_anyio(media_api, media_emulator):
    uploaded = await media_api.upload(b"hello")
    media_emulator.clock.advance(31 * 24 * 60 * 60)
    with pytest.raises(MediaNotFoundError):
        await media_api.get_info(uploaded.id)


def test_without_a_plugin(media_api, media_emulator):
    async def tour():
        body, _ = await media_emulator.receive(b"hello", "text/plain")
        [inbound] = inbound_media(json.loads(body))
        assert await media_api.read(inbound) == b"hello"

    asyncio.run(tour())


@pytest.fixture
def anyio_backend():
    return "asyncio"
"""


def test_fixtures_serve_any_project(tmp_path: Path) -> None:
    """Both fixtures work with anyio and without any async plugin, and leave nothing open behind them."""
    (tmp_path / "test_theirs.py").write_text(THEIRS)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "-p", "no:randomly"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    assert (done.returncode, done.stdout.splitlines()[-1].split(" in ")[0]) == (0, "2 passed"), done.stdout
