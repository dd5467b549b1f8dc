"""
A pytest plugin: an emulator, a client for it, and an environment in which an application's own `MediaApi()` finds it.

pytest loads it by itself, through `meta_media.testing`. The fixtures are plain ones: they work in tests for pytest-asyncio,
for anyio and without either, because the emulator runs in a thread of its own.

Under pytest every request passes `media.client.send`, where `respx.mock(using="httpx")` can answer it, so that a test does
not reach Meta by accident.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from anyio.from_thread import start_blocking_portal

from meta_media import MediaApi, Settings

if TYPE_CHECKING:
    from meta_media.emulator import Emulator

__all__ = ["media_api", "media_emulator", "media_environment", "pytest_configure"]


def pytest_configure(config: pytest.Config) -> None:
    """Send every request through `media.client.send` until pytest ends."""
    config.add_cleanup(functools.partial(setattr, MediaApi, "through_client", MediaApi.through_client))
    MediaApi.through_client = True


@pytest.fixture
def media_emulator() -> Iterator[Emulator]:
    """Run an emulator on a free port of this machine, with an empty folder that is removed afterwards."""
    try:
        from meta_media.emulator import Emulator
    except ImportError as error:
        pytest.fail(str(error), pytrace=False)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(Emulator()) as emulator:
        yield emulator


@pytest.fixture
def media_api(media_emulator: Emulator) -> MediaApi:
    """Make a client for `media_emulator`. It keeps no connection between calls, so it need not be closed."""
    import httpx

    return MediaApi(
        media_emulator.access_token,
        media_emulator.phone_number_id,
        settings=Settings(base_url=media_emulator.base_url, app_secret=media_emulator.app_secret),
        http_client=httpx.AsyncClient(limits=httpx.Limits(max_keepalive_connections=0), trust_env=False),
    )


@pytest.fixture
def media_environment(media_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """Set the environment variables of `MediaApi` to `media_emulator`, and return the emulator."""
    variables = {
        "CLOUD_API_ACCESS_TOKEN": media_emulator.access_token,
        "WA_APP_ID": media_emulator.app_id,
        "WA_APP_SECRET": media_emulator.app_secret,
        "WA_BASE_URL": media_emulator.base_url,
        "WA_BUSINESS_ACCOUNT_ID": media_emulator.business_account_id,
        "WA_PHONE_NUMBER_ID": media_emulator.phone_number_id,
        "WEBHOOK_VERIFICATION_TOKEN": media_emulator.verify_token,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return media_emulator
