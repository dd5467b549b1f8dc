"""Headers that a response repeats: joined or refused, over our own transport and over an injected client; never the last one."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from meta_media import MediaApi, MediaInfo, Settings
from meta_media.errors import MediaError, NetworkError, RateLimitError, ServerError
from tests.support.servers import Server, json_response, page

CONTENT = b"the bytes of the media"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(params=["ours", "httpx"])
async def media(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Server, MediaApi]]:
    """A server, and a client for it."""
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(Server(page()))
        client = None if request.param == "ours" else await stack.enter_async_context(httpx.AsyncClient())
        settings = Settings(base_url=server.base_url, max_retries=0)
        api = await stack.enter_async_context(MediaApi("token-of-tests", "1", settings=settings, http_client=client))
        yield server, api


def known(server: Server, **more: Any) -> MediaInfo:
    """What is known of the media."""
    facts: dict[str, Any] = {"id": "7", "mime_type": "image/jpeg", "sha256": SHA256, **more}
    return MediaInfo(url=f"{server.base_url}/media", **facts)


@pytest.mark.parametrize(
    "codings", [("gzip", "identity"), ("identity", "gzip"), ("identity", "br", "identity"), ("x",)]
)
async def test_content_encoding(media: tuple[Server, MediaApi], codings: tuple[str, ...]) -> None:
    """Bytes that are compressed by any of several Content-Encodings are refused, where no checksum would show it, too."""
    server, api = media
    server.script = [page(CONTENT, content_encoding=codings)]
    with pytest.raises(ServerError, match="compressed"):
        await api.read(f"{server.base_url}/media")


async def test_content_encoding_of_json(media: tuple[Server, MediaApi]) -> None:
    """A response of the Graph API that is compressed is refused."""
    server, api = media
    server.script = [page('{"id": "7"}', content_encoding=("gzip", "identity"))]
    with pytest.raises(ServerError, match="compressed"):
        await api.get_info("7")


@pytest.mark.parametrize("codings", [("identity",), ("Identity", "Identity"), ("",), ()])
async def test_no_content_encoding(media: tuple[Server, MediaApi], codings: tuple[str, ...]) -> None:
    """`identity`, also twice, and an empty header mean that nothing is compressed."""
    server, api = media
    server.script = [page(CONTENT, content_encoding=codings)]
    assert await api.read(f"{server.base_url}/media") == CONTENT


@pytest.mark.parametrize("lengths", [("22", "5"), ("5", "22")])
async def test_content_length(media: tuple[Server, MediaApi], lengths: tuple[str, str]) -> None:
    """Two lengths are a broken response (RFC 9112, 6.3); the same one twice is one."""
    server, api = media
    server.script = [page(CONTENT, length=None, content_length=lengths)]
    with pytest.raises(NetworkError):
        await api.read(f"{server.base_url}/media")
    server.script = [page(CONTENT, length=None, content_length=("22", "22"))]
    assert await api.read(f"{server.base_url}/media") == CONTENT


async def test_length_beside_chunks(media: tuple[Server, MediaApi]) -> None:
    """Chunks override a Content-Length (RFC 9112, 6.3), and the connection is not used again: it may be an attack."""
    server, api = media
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n"
    server.script = [head + b"16\r\n" + CONTENT + b"\r\n0\r\n\r\n"]
    assert [await api.read(f"{server.base_url}/media") for _ in range(2)] == [CONTENT] * 2
    if api.client._transport.__module__.startswith("meta_media"):
        assert server.connections == 2


@pytest.mark.parametrize(
    ("waits", "expected"), [(("5", "120"), 120.0), (("120", "5"), 120.0), (("7", "7"), 7.0), (("5", "soon"), None)]
)
async def test_retry_after(media: tuple[Server, MediaApi], waits: tuple[str, str], expected: float | None) -> None:
    """Of several waits the longest counts."""
    server, api = media
    server.script = [page(b"", 429, retry_after=waits)]
    with pytest.raises(RateLimitError) as caught:
        await api.get_info("7")
    assert caught.value.retry_after == expected


@pytest.mark.parametrize("minutes", [(2, 7), (7, 2)])
async def test_usage(media: tuple[Server, MediaApi], minutes: tuple[int, int]) -> None:
    """Of several usage headers the longest wait counts."""
    server, api = media
    usages = tuple(json.dumps({str(n): [{"estimated_time_to_regain_access": n}]}) for n in minutes)
    server.script = [page(b"", 429, x_business_use_case_usage=usages)]
    with pytest.raises(RateLimitError) as caught:
        await api.get_info("7")
    assert caught.value.retry_after == 420.0


@pytest.mark.parametrize("types", [("image/jpeg", "text/plain"), ("text/plain", "image/jpeg")])
async def test_content_type(media: tuple[Server, MediaApi], types: tuple[str, str], tmp_path: Path) -> None:
    """Two types are none."""
    server, api = media
    server.script = [page(CONTENT, content_type=types)]
    saved = await api.download(f"{server.base_url}/media", tmp_path / "file")
    assert saved.mime_type == "application/octet-stream"


@pytest.mark.parametrize("types", [("image/jpeg", "text/html"), ("text/html; charset=utf-8", "image/jpeg")])
async def test_a_page_among_the_types(media: tuple[Server, MediaApi], types: tuple[str, str]) -> None:
    """A response that is a page by one of its types is no media: the id is looked up for a fresh URL."""
    server, api = media
    server.script = [page(CONTENT, content_type=types), json_response({"error": {"message": "no"}}, 400)]
    with pytest.raises(MediaError, match=r"^no "):
        await api.read(known(server, sha256=None))
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("dispositions", "name"),
    [
        (('attachment; filename="a.jpg"', 'attachment; filename="b.jpg"'), "7.jpg"),
        (("attachment; filename=a.jpg", "attachment; filename=a.jpg"), "a.jpg"),
    ],
)
async def test_content_disposition(
    media: tuple[Server, MediaApi], dispositions: tuple[str, str], name: str, tmp_path: Path
) -> None:
    """Two names are none."""
    server, api = media
    server.script = [page(CONTENT, content_disposition=dispositions)]
    saved = await api.download(known(server), tmp_path)
    assert saved.path == tmp_path / name


@pytest.mark.parametrize("ranges", [("bytes 4-21/22", "bytes 0-17/22"), ("bytes 0-17/22", "bytes 4-21/22")])
async def test_content_range(media: tuple[Server, MediaApi], ranges: tuple[str, str]) -> None:
    """A part with two ranges is not used: the whole is asked for instead."""
    server, api = media
    server.script = [page(b"x" * 18, 206, content_range=ranges), page(CONTENT)]
    async with api.with_options(max_retries=1, backoff=0.001).stream(known(server, file_size=22), start=4) as stream:
        assert await stream.read() == CONTENT[4:]
    assert [request.header("range") for request in server.requests] == ["bytes=4-", None]


async def test_location(media: tuple[Server, MediaApi]) -> None:
    """Two targets are refused; the same one twice is one."""
    server, api = media
    server.script = [page(b"", 302, location=("/a", "/b"))]
    with pytest.raises(MediaError, match="not a plain https URL"):
        await api.read(f"{server.base_url}/media")
    assert len(server.requests) == 1
    server.script = [page(), page(b"", 302, location=("/a", "/a")), page(CONTENT)]
    assert await api.read(f"{server.base_url}/media") == CONTENT
