"""
For the tests of any project: a pytest plugin with an emulator and a client for it, and a check of stores.

Both fixtures are plain ones and work in tests for anyio, pytest-asyncio and pytest without either; the emulator runs in a
thread of its own. Installed with `meta-media[testing]`; pytest finds it by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from meta_media.library import check_store

if TYPE_CHECKING:
    from meta_media import MediaApi
    from meta_media.emulator import Emulator

__all__ = ["check_store", "media_api", "media_emulator"]


@pytest.fixture
def media_emulator() -> Iterator[Emulator]:
    """An emulator on a free port of this machine, with an empty folder that is removed afterwards."""
    from anyio.from_thread import start_blocking_portal

    from meta_media.emulator import Emulator

    with start_blocking_portal() as portal, portal.wrap_async_context_manager(Emulator()) as emulator:
        yield emulator


@pytest.fixture
def media_api(media_emulator: Emulator) -> MediaApi:
    """A client for `media_emulator`. It keeps no connection between calls, so nobody needs to close it."""
    import httpx

    from meta_media import MediaApi, Settings

    return MediaApi(
        media_emulator.access_token,
        media_emulator.phone_number_id,
        settings=Settings(base_url=media_emulator.base_url),
        http_client=httpx.AsyncClient(limits=httpx.Limits(max_keepalive_connections=0), trust_env=False),
    )
