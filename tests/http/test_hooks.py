"""Event hooks and mocks of the caller: what they raise is the caller's, and no request is sent again for it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import respx

from meta_media import MediaApi, Settings
from meta_media.errors import ConfigurationError
from tests.support.servers import Server, json_response

UPLOADED = json_response({"id": "1"})


class OwnError(Exception):
    """Raised by a hook."""


async def raising(_: Any) -> None:
    """Fail as a hook with a bug does."""
    raise OwnError


def not_async(_: Any) -> None:
    """A plain function, where httpx awaits an async one."""


@pytest.mark.parametrize("injected", [False, True])
@pytest.mark.parametrize(("kind", "requests"), [("request", 0), ("response", 1)])
@pytest.mark.parametrize(("hook", "error"), [(raising, OwnError), (not_async, TypeError)])
async def test_a_hook_that_fails(injected: bool, kind: str, requests: int, hook: Any, error: type[Exception]) -> None:
    """An error of a hook reaches the caller unchanged, after one request at most."""
    async with Server() as server, httpx.AsyncClient() as own:
        server.script = [UPLOADED] * 3
        given = own if injected else None
        async with MediaApi("token", "1", settings=Settings(base_url=server.base_url), http_client=given) as media:
            media.client.event_hooks[kind].append(hook)
            with pytest.raises(error):
                await media.upload(b"hello")
        assert len(server.requests) == requests


async def test_a_mock_without_a_route(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a mock says of a request that it does not know reaches the test as it is."""
    monkeypatch.setattr(MediaApi, "through_client", True)
    with respx.mock(using="httpx"):
        async with MediaApi("token", "1") as media:
            with pytest.raises(AssertionError, match="not mocked"):
                await media.get_info("7")


@pytest.mark.parametrize("passed", [{"access_token": ""}, {"phone_number_id": ""}])
async def test_an_empty_credential_is_not_replaced(passed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty token or number that was passed is refused: the environment's would be those of another account."""
    monkeypatch.setenv("CLOUD_API_ACCESS_TOKEN", "token")
    monkeypatch.setenv("WA_PHONE_NUMBER_ID", "1")
    with pytest.raises(ConfigurationError):
        MediaApi(**passed)
