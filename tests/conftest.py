"""What every test stands on: asyncio, a blocking-call detector, no credentials from outside, a real emulator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from blockbuster import blockbuster_ctx

from meta_media import MediaApi
from meta_media.emulator import Emulator


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio."""
    return "asyncio"


@pytest.fixture(autouse=True)
def blocking_calls_raise() -> Iterator[None]:
    """A call that blocks the event loop anywhere below our package is an error."""
    with blockbuster_ctx("meta_media"):
        yield


@pytest.fixture(autouse=True)
def no_credentials_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests mean the same whatever the environment says."""
    names = ("CLOUD_API_ACCESS_TOKEN", "CLOUD_API_VERSION", "WA_APP_SECRET", "WA_BASE_URL")
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
    for name in (*names, "WA_BUSINESS_ACCOUNT_ID", "WA_PHONE_NUMBER_ID", *proxies, *map(str.lower, proxies)):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """An emulator on a real socket, with an empty folder."""
    async with Emulator() as running:
        yield running


@pytest.fixture
async def media(emulator: Emulator) -> AsyncIterator[MediaApi]:
    """A client for the emulator."""
    async with emulator.api() as api:
        yield api
