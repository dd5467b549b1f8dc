"""The shared `httpx.AsyncClient`: every verb sends the same bytes past it, through it, and through a caller's own."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import respx

from meta_media import MediaApi, Settings
from meta_media.errors import ConfigurationError, FileTooLargeError, MediaError, NetworkError, TransferTimeoutError
from tests.support.servers import Received, Server, info, json_response, page, silence, wait_until

TOKEN = "EAAGcanaryTOKENcanary"
LARGE = b"\xff\xd8\xff\xe0" + b"x" * 700_000
SESSION = "upload:MTph/Y2+t==?sig=AR~SIGNATURE.%7e"  # likewise
SIGNED = "/media/{1}?hash=ATkSIGNATURE|{1}^[2]~%7e"  # httpx would quote the path anew


class Through(MediaApi):
    """A client whose requests all pass `httpx.AsyncClient.send`."""

    through_client = True


class Hooked(MediaApi):
    """A client that has an event hook."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.client.event_hooks["request"].append(_noop)


class Injected(MediaApi):
    """A client over a stock `httpx.AsyncClient`, whose defaults are not sent."""

    def __init__(self, *args: Any, **options: Any) -> None:
        stock = httpx.AsyncClient(headers={"x-own": "1"}, cookies={"own": "1"}, params={"own": "1"})
        super().__init__(*args, http_client=stock, **options)

    async def aclose(self) -> None:
        """Close the stock client, too."""
        await self.client.aclose()


async def _noop(_: httpx.Request) -> None:
    pass


OURS = [MediaApi, Through, Hooked]
WAYS = [*OURS, Injected]
ways = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
our_ways = pytest.mark.parametrize("way", OURS, ids=lambda way: way.__name__)


async def pieces() -> AsyncIterator[bytes]:
    """Yield a file in pieces of uneven size."""
    for start in range(0, len(LARGE), 99_991):
        yield LARGE[start : start + 99_991]


async def stream(api: MediaApi, _: Path) -> None:
    """Stream a download by its URL, which is asked for first."""
    async with api.stream(await api.get_info("7")) as chunks:
        assert b"".join([chunk async for chunk in chunks]) == LARGE


VERBS: dict[str, Callable[[MediaApi, Path], Awaitable[Any]]] = {
    "upload small": lambda api, _: api.upload(b"text"),
    "upload large": lambda api, _: api.upload(LARGE, filename="a.jpg"),
    "upload streamed": lambda api, _: api.upload(pieces(), filename="a.jpg", mime_type="image/jpeg", size=len(LARGE)),
    "upload_handle": lambda api, _: api.upload_handle(LARGE, app_id="9", filename="a.jpg"),
    "get_info": lambda api, _: api.get_info("7", phone_number_id="8"),
    "download": lambda api, folder: api.download("7", folder),
    "stream": stream,
    "read": lambda api, _: api.read("7"),
    "delete": lambda api, _: api.delete("7"),
    "send": lambda api, _: api.send("+15550001111", "7", kind="image", caption="hello"),
}


BY_TWO_CONNECTIONS: dict[str, Callable[[MediaApi, Path], Awaitable[Any]]] = {"move": lambda api, _: api.move("7", "8")}


async def answer(request: Received, writer: asyncio.StreamWriter) -> None:
    """Answer each verb as Meta does."""
    base_url = f"http://{request.header('host')}"
    path = request.target.partition("?")[0]
    if path.startswith("/media"):
        writer.write(page(LARGE, content_type="image/jpeg"))
    elif "/upload" in path:
        writer.write(json_response({"id": SESSION, "h": "4::x"}))
    elif request.method == "GET":
        media_id, sha256 = path.rpartition("/")[2], hashlib.sha256(LARGE).hexdigest()
        writer.write(info(f"{base_url}{SIGNED}", LARGE, media_id=media_id, sha256=sha256))
    elif request.method == "DELETE":
        writer.write(json_response({"success": True}))
    else:
        message = {"messaging_product": "whatsapp", "contacts": [], "messages": [{"id": "wamid.1"}]}
        writer.write(json_response({"id": "42"} if path.endswith("/media") else message))


def normalised(request: Received) -> Received:
    """Replace the multipart boundary, which is random."""
    found = re.search("boundary=([^;]+)", request.header("content-type") or "")
    if found is None:
        return request
    headers = tuple((name, value.replace(found[1], "B")) for name, value in request.headers)
    return attrs.evolve(request, headers=headers, body=request.body.replace(found[1].encode(), b"B"))


def settings(server: Server, **changes: Any) -> Settings:
    """Take a server for the Graph API."""
    proof = {"app_secret": "secret", "appsecret_proof": "classic", "backoff": 0.0}
    return Settings(base_url=server.base_url, **{**proof, **changes})


@pytest.mark.parametrize("verb", VERBS | BY_TWO_CONNECTIONS)
async def test_same_bytes(verb: str, tmp_path: Path) -> None:
    """Past our client, through it, and through a caller's client, a verb's requests are the same to the byte."""
    arrived = []
    async with Server(answer) as server:
        for way in WAYS:
            server.requests.clear()
            async with way(TOKEN, "1", settings=settings(server)) as api:
                await (VERBS | BY_TWO_CONNECTIONS)[verb](api, tmp_path)
            arrived.append([normalised(request) for request in server.requests])
    assert arrived[0]
    assert arrived[1:] == [arrived[0]] * (len(WAYS) - 1)
    schemes = {request.target: "OAuth" if "/upload:" in request.target else "Bearer" for request in arrived[0]}
    assert all(request.header("authorization") == f"{schemes[request.target]} {TOKEN}" for request in arrived[0])


@pytest.mark.parametrize("given", [False, True], ids=["ours", "injected"])
async def test_hooks_see_every_request(given: bool, tmp_path: Path) -> None:
    """The event hooks of `media.client` see upload, get_info, download, delete and send; hooks may be added at any time."""
    seen: list[tuple[str, str, int]] = []

    async def note(response: httpx.Response) -> None:
        await response.aread()  # as hooks that log a body do
        seen.append((response.request.method, response.request.url.path, len(response.content)))

    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(Server(answer))
        client = await stack.enter_async_context(httpx.AsyncClient()) if given else None
        api = MediaApi(TOKEN, "1", settings=settings(server), http_client=client)
        await stack.enter_async_context(api)
        await api.upload(b"unseen")
        api.client.event_hooks["response"].append(note)
        await api.with_options(max_retries=0).upload(b"text")
        await api.get_info("7")
        assert (await api.download("7", tmp_path)).size == len(LARGE)
        await api.delete("7")
        await api.send("+15550001111", "7", kind="image")
        api.client.event_hooks["response"].clear()
        await api.upload(b"unseen")
    version = "/v25.0"
    assert [(method, path) for method, path, _ in seen] == [
        ("POST", f"{version}/1/media"),
        ("GET", f"{version}/7"),
        ("GET", f"{version}/7"),
        ("GET", "/media/{1}"),
        ("DELETE", f"{version}/7"),
        ("POST", f"{version}/1/messages"),
    ]
    assert seen[3][2] == len(LARGE)
    assert len(server.requests) == len(seen) + 2


# Our transport behaves alike on both ways


@our_ways
async def test_one_connection(way: type[MediaApi], tmp_path: Path) -> None:
    """All verbs one after another use one connection; the rest of the program may use it, too."""
    async with Server(answer) as server, way(TOKEN, "1", settings=settings(server)) as api:
        for verb in VERBS.values():
            await verb(api, tmp_path)
        assert (await api.client.get(f"{server.base_url}/media")).content == LARGE
    assert server.connections == 1
    assert server.requests[-1].header("authorization") is None


@our_ways
async def test_deadline_and_rate(way: type[MediaApi]) -> None:
    """The deadline, the idle time and the minimum rate hold, and name their phase."""

    async def slowly(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)  # a slow server

    phases = []
    for step, limits in (
        (silence, {"deadline": 0.2}),
        (silence, {"read_timeout": 0.2}),
        (slowly, {"read_timeout": 0.3, "minimum_rate": 10**6}),
        (slowly, {"deadline": 0.3, "minimum_rate": 0}),
    ):
        async with Server(step) as server, way(TOKEN, "1", settings=settings(server, max_retries=0, **limits)) as api:
            with pytest.raises(TransferTimeoutError) as caught:
                await api.read(f"{server.base_url}/media")
            phases.append(caught.value.phase)
    assert phases == ["deadline", "read", "rate", "deadline"]


@our_ways
async def test_early_response(way: type[MediaApi]) -> None:
    """A server that refuses an upload before it has read it is heard, and is known not to have applied it."""
    refusal = json_response({"error": {"message": "too large", "code": 131031}}, 500)

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(refusal)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with way(TOKEN, "1", settings=Settings(base_url=base_url, max_retries=0)) as api:
            with pytest.raises(FileTooLargeError) as caught:
                await api.upload(b"\xff\xd8\xff\xe0" + b"x" * 5_000_000, filename="a.jpg")
    assert not caught.value.maybe_applied


@ways
async def test_cancelled(way: type[MediaApi]) -> None:
    """A cancelled call ends at once, costs its connection, and leaves the client as it was."""
    async with Server(silence) as server, way(TOKEN, "1", settings=settings(server, concurrency=1)) as api:
        for number in range(3):
            task = asyncio.ensure_future(api.get_info("7"))
            await wait_until(lambda number=number: len(server.requests) > number)  # type: ignore[misc]
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        server.script[:] = [answer]
        assert (await api.get_info("7")).id == "7"


@ways
async def test_signed_urls_are_not_logged(
    way: type[MediaApi], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """No way lets a token, a signature or a proof into the log of the HTTP stack, or into a repr."""
    caplog.set_level(logging.DEBUG)
    async with Server(answer) as server, way(TOKEN, "1", settings=settings(server)) as api:
        for verb in VERBS.values():
            await verb(api, tmp_path)
        shown = caplog.text + repr(api) + repr(vars(api)) + repr(api.client) + repr(vars(api.shared))
    proof = server.requests[0].target.partition("appsecret_proof=")[2]
    assert proof
    for secret in (TOKEN, "SIGNATURE", proof):
        assert secret not in shown


# Whose client it is


async def test_client_is_shared_and_ours_is_closed() -> None:
    """Copies have the same client; `aclose` closes ours; after that everything is a ConfigurationError."""
    async with Server(answer) as server:
        api = MediaApi(TOKEN, "1", settings=settings(server))
        assert api.with_options(max_retries=0).client is api.client
        assert isinstance(api.client, httpx.AsyncClient)
        client = api.client
        await api.aclose()
    assert client.is_closed
    assert api.closed
    with pytest.raises(ConfigurationError, match="this MediaApi is closed"):
        api.client  # noqa: B018 - a property
    with pytest.raises(ConfigurationError, match="this MediaApi is closed"):
        await api.get_info("7")


@pytest.mark.parametrize("given", [False, True], ids=["ours", "injected"])
async def test_client_that_its_user_closed(given: bool) -> None:
    """A client that was closed directly is a ConfigurationError as well, before anything is sent."""
    api = MediaApi(TOKEN, "1", http_client=httpx.AsyncClient() if given else None)
    await api.client.aclose()
    with pytest.raises(ConfigurationError, match="closed"):
        await api.get_info("7")


async def test_injected_client_stays_open() -> None:
    """A caller's client is not closed, but no longer given out."""
    async with httpx.AsyncClient() as client:
        api = MediaApi(TOKEN, "1", http_client=client)
        assert api.client is client
        await api.aclose()
        assert not client.is_closed
        with pytest.raises(ConfigurationError):
            api.client  # noqa: B018 - a property


def test_certificates_are_not_loaded_at_construction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making the client reads no certificates: that takes 20 ms, and happens on a thread at the first https connection."""
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file")
    assert not MediaApi(TOKEN, "1").client.is_closed


# respx stands in for the network


@respx.mock(using="httpx")
async def test_respx_sees_our_own_client(respx_mock: respx.MockRouter) -> None:
    """With `through_client`, `respx.mock(using="httpx")` answers a default client; nothing reaches Meta."""
    route = respx_mock.post("https://graph.facebook.com/v25.0/1/media").respond(json={"id": "42"})
    async with Through(TOKEN, "1") as api:
        assert (await api.upload(b"text")).id == "42"
    assert route.calls.last.request.headers["authorization"] == f"Bearer {TOKEN}"
    assert b"text" in route.calls.last.request.content


@respx.mock
async def test_respx_sees_an_injected_client(respx_mock: respx.MockRouter) -> None:
    """In respx's default mode it answers an injected stock client: every verb, and its errors."""
    graph = respx_mock.route(host="graph.facebook.com", path__startswith="/v25.0")
    media = respx_mock.get(host="lookaside.fbsbx.com").respond(content=b"bytes", content_type="text/plain")
    url = "https://lookaside.fbsbx.com/media?hash=s"
    known = {"messaging_product": "whatsapp", "id": "7", "url": url, "mime_type": "text/plain"}
    graph.side_effect = [
        httpx.Response(200, json={"id": "7"}),
        httpx.Response(200, json=known),
        httpx.ConnectError("no route"),
        httpx.Response(200, json={"success": True}),
        httpx.Response(400, json={"error": {"message": "no", "code": 100}}),
    ]
    async with (
        httpx.AsyncClient() as client,
        MediaApi(TOKEN, "1", settings=Settings(backoff=0), http_client=client) as api,
    ):
        assert (await api.upload(b"text")).id == "7"
        assert await api.read("7") == b"bytes"
        assert (await api.delete("7")).attempts == 2
        with pytest.raises(MediaError, match="no"):
            await api.get_info("7")
    assert (graph.call_count, media.call_count) == (5, 1)


@respx.mock
async def test_network_errors_of_an_injected_client(respx_mock: respx.MockRouter) -> None:
    """What a stock client raises is a NetworkError, after the retries."""
    route = respx_mock.get(host="graph.facebook.com").mock(side_effect=httpx.ReadError)
    async with (
        httpx.AsyncClient() as client,
        MediaApi(TOKEN, "1", settings=Settings(backoff=0), http_client=client) as api,
    ):
        with pytest.raises(NetworkError) as caught:
            await api.get_info("7")
    assert (route.call_count, caught.value.attempts) == (3, 3)
