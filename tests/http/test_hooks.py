"""Event hooks and mocks of the caller: what they raise is the caller's, and no request is sent again for it."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

import httpcore
import httpx
import pytest
import respx

from meta_media import MediaApi, Settings
from meta_media.errors import ConfigurationError, NetworkError
from meta_media.http.stream import NetworkStream
from tests.support.servers import Server, json_response, page

UPLOADED = json_response({"id": "1"})


class OwnError(Exception):
    """Raised by a hook."""


async def raising(_: Any) -> None:
    """Fail as a hook with a bug does."""
    raise OwnError


def not_async(_: Any) -> None:
    """A plain function, where httpx awaits an async one."""


async def in_asyncio(_: Any) -> None:
    """Fail in a module that the HTTP stack uses as well."""
    asyncio.Queue[int]().get_nowait()


async def no_file(_: Any) -> None:
    """Fail as a hook that writes to a folder that is missing: an error of the system, but not of a connection."""
    raise FileNotFoundError(errno.ENOENT, "No such file or directory")


async def in_httpx(_: Any) -> None:
    """Fail in httpx itself, which raises nothing like it by itself."""
    httpx.Response(400, request=httpx.Request("GET", "http://other.example/")).raise_for_status()


HOOKS = [
    (raising, OwnError),
    (not_async, TypeError),
    (in_asyncio, asyncio.QueueEmpty),
    (no_file, FileNotFoundError),
    (in_httpx, httpx.HTTPStatusError),
]


@pytest.mark.parametrize("injected", [False, True])
@pytest.mark.parametrize(("kind", "requests"), [("request", 0), ("response", 1)])
@pytest.mark.parametrize(("hook", "error"), HOOKS)
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


async def test_a_hook_that_raises_for_a_status() -> None:
    """The hook of httpx's own guide, `response.raise_for_status()`, ends the call with what it raises, and no retry."""

    async def raise_for_status(response: httpx.Response) -> None:
        response.raise_for_status()

    async with Server(page("", 503)) as server:
        async with MediaApi("token", "1", settings=Settings(base_url=server.base_url)) as media:
            media.client.event_hooks["response"].append(raise_for_status)
            with pytest.raises(httpx.HTTPStatusError, match="503"):
                await media.get_info("7")
        assert len(server.requests) == 1


class Broken(httpcore.AsyncNetworkBackend):
    """A network that fails with exceptions which are none of httpcore's."""

    async def connect_tcp(self, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        """Connect to nothing."""
        return BrokenStream()


class BrokenStream(httpcore.AsyncNetworkStream):
    """Fails when it is read from, or after the headers of a response."""

    sent = b""

    async def read(self, *_: Any, **__: Any) -> bytes:
        """Fail, for downloads after the response's headers."""
        if b"GET /media" in self.sent:
            self.sent = b""
            return b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"
        raise RuntimeError

    async def write(self, buffer: bytes, *_: Any, **__: Any) -> None:
        """Send nothing."""
        self.sent += buffer

    async def aclose(self) -> None:
        """Do nothing."""

    def get_extra_info(self, _: str) -> Any:
        """Tell nothing."""


@pytest.mark.parametrize(
    "call", [lambda media: media.get_info("7"), lambda media: media.read("http://127.0.0.1/media")]
)
async def test_a_transport_that_fails_with_anything(call: Any) -> None:
    """What a transport reports as failed is a failure of the network, of whatever class it is, also in a body."""
    transport = httpx.AsyncHTTPTransport()
    transport._pool = httpcore.AsyncConnectionPool(network_backend=Broken())
    async with httpx.AsyncClient(transport=transport) as client:
        settings = Settings(base_url="http://127.0.0.1", backoff=0)
        async with MediaApi("token", "1", settings=settings, http_client=client) as media:
            with pytest.raises(NetworkError, match=r"the connection failed \(RuntimeError\)$") as caught:
                await call(media)
    assert (caught.value.attempts, caught.value.retryable) == (3, True)


async def test_our_transport_that_fails_under_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same of our transport, where it is used through a client."""

    def fail(*_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(NetworkStream, "send", fail)  # as uvloop's transports fail when they are closed
    monkeypatch.setattr(MediaApi, "through_client", True)
    async with Server(UPLOADED) as server, MediaApi("token", "1", settings=Settings(base_url=server.base_url)) as media:
        with pytest.raises(NetworkError, match=r"the connection failed \(RuntimeError\)$"):
            await media.with_options(max_retries=0).get_info("7")
        with pytest.raises(RuntimeError):
            await media.client.get(server.base_url)


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
