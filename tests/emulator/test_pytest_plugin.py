"""The pytest plugin, as another project's tests use it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

THEIRS = """
import asyncio
import json

import httpx
import pytest

from meta_media import inbound_media
from meta_media.emulator import Fault
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


def test_of_a_failure(media_emulator):
    media_emulator.fail("get_info", Fault(status=503), times=2)
    with httpx.Client(base_url=media_emulator.base_url, trust_env=False) as client:
        client.headers["authorization"] = f"Bearer {media_emulator.access_token}"
        answers = [client.get(f"/v25.0/{media_emulator.phone_number_id}").status_code for _ in range(3)]
    assert answers == [503, 503, 200]
    assert media_emulator.faults == []


@pytest.fixture
def anyio_backend():
    return "asyncio"
"""


def test_fixtures_serve_any_project(tmp_path: Path) -> None:
    """Both fixtures work with anyio and without any async plugin, let the service fail, and leave nothing open behind them."""
    (tmp_path / "test_theirs.py").write_text(THEIRS)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "-p", "no:randomly"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    assert (done.returncode, done.stdout.splitlines()[-1].split(" in ")[0]) == (0, "3 passed"), done.stdout
