"""Redirects, and URLs from strangers: where a download goes, and where it does not."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from meta_media import InboundMedia, MediaApi
from meta_media.errors import ServerError, UntrustedUrlError
from tests.support.servers import Server, info, page
from tests.transfer.downloads import CONTENT, JPEG, TOKEN, Verb, client, download, every_verb, failure, known, targets

# Redirects


@pytest.fixture
async def elsewhere(tls: ssl.SSLContext) -> AsyncIterator[Server]:
    """A content delivery network, over TLS."""
    async with Server(page(CONTENT), tls=tls) as running:
        yield running


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(("setting", "authorization"), [("media_hosts", None), ("token_hosts", f"Bearer {TOKEN}")])
async def test_a_redirect_to_a_trusted_host(
    server: Server, elsewhere: Server, status: int, setting: str, authorization: str | None
) -> None:
    """A redirect is followed with a request made afresh, and the token goes only where it may be seen."""
    trusted: dict[str, Any] = {setting: [f"127.0.0.1:{elsewhere.port}"]}
    server.script = [page(status=status, location=f"{elsewhere.base_url}/there?hash=x", set_cookie="a=b; Path=/")]
    async with client(server, **trusted) as media:
        assert await media.read(known(server)) == CONTENT
    (request,) = elsewhere.requests
    assert request.target == "/there?hash=x"
    assert dict(request.headers) == {
        "host": f"127.0.0.1:{elsewhere.port}",
        "user-agent": server.requests[0].header("user-agent"),
        "accept": "*/*",
        "accept-encoding": "identity",
    } | ({} if authorization is None else {"authorization": authorization})


async def test_a_redirect_back_gets_the_token_back(server: Server, elsewhere: Server) -> None:
    """Each hop is judged by itself."""
    elsewhere.script = [page(status=302, location=f"{server.base_url}/again")]
    server.script = [page(status=302, location=f"{elsewhere.base_url}/there"), page(CONTENT)]
    async with client(server, media_hosts=[f"127.0.0.1:{elsewhere.port}"]) as media:
        assert await media.read(known(server)) == CONTENT
    assert elsewhere.requests[0].header("authorization") is None
    assert [request.header("authorization") for request in server.requests] == [f"Bearer {TOKEN}"] * 2


@pytest.mark.parametrize("location", ["/new?a=b", "new?a=b", "?a=b", "//{host}/new?a=b", "../a/new?a=b"])
async def test_a_relative_redirect(server: Server, scripted: MediaApi, location: str) -> None:
    """A redirect may leave out what stays the same."""
    host = server.base_url.removeprefix("http://")
    server.script = [page(status=302, location=location.format(host=host)), page(CONTENT)]
    assert await scripted.read(known(server, url=f"{server.base_url}/a/old")) == CONTENT
    assert targets(server)[1].endswith("?a=b")
    assert server.requests[1].header("authorization") == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{port}/x",
        "https://127.0.0.1:{port}/x",
        "//127.0.0.1:{port}/x",
        "http://localhost:{port}/x",
        "https://user:pass@lookaside.fbsbx.com/x",
        "http://lookaside.fbsbx.com/x",
        "http://169.254.169.254/latest/meta-data",
        "https://10.0.0.1/x",
        "https://[::1]:{port}/x",
        "https://lookaside.fbsbx.com.example.com/x",
        "https://evil-fbcdn.net/x",
        "file:///etc/hostname",
        "ftp://127.0.0.1:{port}/x",
        "https://[oops",
        "https://lookaside.fbsbx.com:99999999/x",
        "\\\\127.0.0.1:{port}\\x",
    ],
)
@every_verb
async def test_a_redirect_to_anywhere_else(
    server: Server, sink: Server, scripted: MediaApi, verb: Verb, folder: Path, location: str
) -> None:
    """A redirect to a host that is not trusted, or not over https, is refused, and nothing is sent there."""
    server.script = [page(status=302, location=location.format(port=sink.port))]
    await failure(scripted, f"{server.base_url}/old", verb, folder, UntrustedUrlError)
    assert (sink.connections, len(server.requests)) == (0, 1)


async def test_an_untrusted_host_is_named(server: Server, scripted: MediaApi) -> None:
    """The error names the host and the setting that would allow it, and not the signed query."""
    server.script = [page(status=302, location="https://example.com/file?hash=signature")]
    with pytest.raises(UntrustedUrlError, match=r"https://example\.com .*Settings\.media_hosts") as caught:
        await scripted.read(known(server))
    assert caught.value.host == "example.com"
    assert "signature" not in str(caught.value)


async def test_a_redirect_that_goes_round(server: Server, scripted: MediaApi, folder: Path) -> None:
    """After five redirects it is enough."""
    server.script = [page(status=302, location="/old")]
    error = await failure(scripted, f"{server.base_url}/old", download, folder, ServerError)
    assert (error.status, len(server.requests)) == (302, 6)


async def test_five_redirects(server: Server, scripted: MediaApi) -> None:
    """Five redirects are followed."""
    server.script = [*(page(status=302, location=f"/{hop}") for hop in range(5)), page(CONTENT)]
    assert await scripted.read(known(server)) == CONTENT


async def test_a_redirect_to_nowhere(server: Server, scripted: MediaApi, folder: Path) -> None:
    """A redirect without a Location is not a success."""
    server.script = [page(status=302)]
    error = await failure(scripted, f"{server.base_url}/old", download, folder, ServerError)
    assert (error.status, len(server.requests)) == (302, 1)


async def test_an_expired_url_behind_a_redirect(server: Server, scripted: MediaApi) -> None:
    """A refusal at the end of a redirect has the URL renewed as well."""
    server.script = [
        page(status=302, location="/cdn"),
        page("URL signature expired", 403, content_type="text/plain"),
        info(f"{server.base_url}/new", CONTENT),
        page(status=302, location="/cdn"),
        page(CONTENT),
    ]
    assert await scripted.read(known(server)) == CONTENT
    assert targets(server) == ["/old", "/cdn", "/v25.0/1", "/new", "/cdn"]


# URLs from strangers


HOSTILE = [
    "http://127.0.0.1:{sink}/x",
    "https://127.0.0.1:{sink}/x",
    "http://localhost:{port}/x",
    "https://127.0.0.1:{port}/x",
    "http://lookaside.fbsbx.com/x",
    "https://lookaside.fbsbx.com@127.0.0.1:{sink}/x",
    "https://token@lookaside.fbsbx.com/x",
    "https://lookaside.fbsbx.com.127.0.0.1:{sink}/x",
    "https://evillookaside.fbsbx.com/x",
    "https://evilfbcdn.net/x",
    "https://fbcdn.net.example.com/x",
    "https://lookaside.fbsbx.com\\@127.0.0.1:{sink}/x",
    "https://lookaside.fbsbx.com#@127.0.0.1:{sink}/x",
    "https://lookaside.fbsbx.com:8443/x",
    "https:///x",
    "ftp://lookaside.fbsbx.com/x",
    "file:///etc/hostname",
    " https://lookaside.fbsbx.com/x",
    "https://lookaside.fbsbx.com/x\r\nhost: 127.0.0.1",
]


@pytest.mark.parametrize("url", HOSTILE)
async def test_untrusted_urls(server: Server, sink: Server, scripted: MediaApi, folder: Path, url: str) -> None:
    """A URL that is not plainly one of Meta's is refused, and nothing is sent at all."""
    hostile = url.format(sink=sink.port, port=server.port)
    error = await failure(scripted, hostile, download, folder, UntrustedUrlError)
    assert (error.attempts, server.connections, sink.connections) == (0, 0, 0)


@pytest.mark.parametrize("url", HOSTILE)
async def test_untrusted_urls_of_values(server: Server, sink: Server, scripted: MediaApi, url: str) -> None:
    """Inside a value, such a URL is not opened either: the id gets another one."""
    hostile = url.format(sink=sink.port, port=server.port)
    for what in (known(server, url=hostile), InboundMedia(id="1", kind="image", mime_type=JPEG, url=hostile)):
        server.script, server.requests = [info(f"{server.base_url}/new", CONTENT), page(CONTENT)], []
        assert await scripted.read(what) == CONTENT
        assert targets(server) == ["/v25.0/1", "/new"]
    assert sink.connections == 0


async def test_meta_cannot_send_us_anywhere(server: Server, sink: Server, scripted: MediaApi, folder: Path) -> None:
    """The URL in an answer of Meta's is judged like any other."""
    server.script = [info(f"{sink.base_url}/x")]
    await failure(scripted, "1", download, folder, UntrustedUrlError)
    assert sink.connections == 0
