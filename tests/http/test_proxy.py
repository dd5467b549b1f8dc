"""A firm's proxy: which calls go through it, what it is told, and what it never sees."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
from typing import Self

import pytest

from meta_media import MediaApi, Settings
from meta_media.errors import ConfigurationError, NetworkError, TransferTimeoutError
from meta_media.http.proxy import Proxy
from tests.support.servers import Server, info, json_response, page, silence
from tests.support.stepping import LeanServer, Stepper, descriptors, none_added, settled_at

CONTENT = b"through and through " * 20_000


class Tunnel:
    """A proxy that makes every connection that it is asked for."""

    def __init__(self, answer: bytes = b"", accepts: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> None:
        self.heads: list[str] = []  # of the requests to it
        self.passed = bytearray()  # what clients sent through it
        self.accepts = accepts
        self.answer = answer  # to all requests, in place of a connection
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.current_task())  # type: ignore[arg-type]  # there is one
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            if self.answer:
                writer.write(self.answer)
                return
            host, _, port = head.split(" ")[1].rpartition(":")
            there, back = await asyncio.open_connection(host.strip("[]"), int(port))
            writer.write(self.accepts)
            with contextlib.closing(back):
                await asyncio.gather(self._pass(reader, back, self.passed), self._pass(there, writer, bytearray()))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, noted: bytearray) -> None:
        while data := await reader.read(2**16):
            noted += data
            writer.write(data)
            await writer.drain()
        writer.close()


def graph(server: LeanServer) -> None:
    """Make a server answer as Meta does."""

    def answer(method: str, target: str) -> bytes:
        if method == "POST":
            return json_response({"id": "7"})
        if target.startswith("/media"):
            return page(CONTENT, content_type="text/plain")
        sha256 = hashlib.sha256(CONTENT).hexdigest()
        return info(f"{server.base_url}/media", CONTENT, media_id="7", sha256=sha256, mime_type="text/plain")

    server.answer = answer


@pytest.mark.parametrize("how", ["HTTPS_PROXY", "ALL_PROXY", "setting", "no scheme"])
async def test_everything_goes_through(how: str, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads, look-ups and downloads over https go through the proxy, which sees where to, and no more."""
    async with LeanServer(lambda *_: b"", tls) as server, Tunnel() as proxy:
        graph(server)
        url = proxy.address if how == "no scheme" else f"http://{proxy.address}"
        if how.isupper():
            monkeypatch.setenv(how, url)
        settings = Settings(base_url=server.base_url, proxy=None if how.isupper() else url)
        async with MediaApi("EAAGcanary", "1", settings=settings) as api:
            assert (await api.upload(CONTENT, filename="a.txt")).id == "7"
            assert await api.read("7") == CONTENT
        assert [head.split("\r\n")[:2] for head in proxy.heads] == [
            [f"CONNECT 127.0.0.1:{server.port} HTTP/1.1", f"Host: 127.0.0.1:{server.port}"]
        ]
        assert len(proxy.passed) > len(CONTENT)
        assert "EAAGcanary" not in proxy.heads[0]
        assert b"EAAGcanary" not in proxy.passed


async def test_credentials(tls: ssl.SSLContext) -> None:
    """User and password of the proxy's URL, escaped there, are sent to the proxy alone; and are never shown."""
    async with LeanServer(lambda *_: b"", tls) as server, Tunnel() as proxy:
        graph(server)
        settings = Settings(base_url=server.base_url, proxy=f"http://us%40er:pass%20word@{proxy.address}")
        async with MediaApi("token", "1", settings=settings) as api:
            await api.get_info("7")
        assert "Proxy-Authorization: Basic dXNAZXI6cGFzcyB3b3Jk" in proxy.heads[0]
        assert "pass" not in repr(settings) + repr(Proxy.of(settings.proxy))


async def test_hosts_without_proxy(tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts in NO_PROXY are connected to directly; a proxy that was set by hand is used for all."""
    async with LeanServer(lambda *_: b"", tls) as server, Tunnel() as proxy:
        graph(server)
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
        monkeypatch.setenv("NO_PROXY", "example.com,127.0.0.1")
        async with MediaApi("token", "1", settings=Settings(base_url=server.base_url)) as api:
            await api.get_info("7")
        assert proxy.heads == []
        settings = Settings(base_url=server.base_url, proxy=f"http://{proxy.address}")
        async with MediaApi("token", "1", settings=settings) as api:
            await api.get_info("7")
        assert len(proxy.heads) == 1


@pytest.mark.parametrize(
    ("exceptions", "host", "direct"),
    [
        ("*", "graph.facebook.com", True),
        ("example.com", "example.com", True),
        ("example.com", "graph.example.com", True),
        ("EXAMPLE.com.", "graph.example.com", True),
        ("example.com", "badexample.com", False),
        ("graph.example.com", "example.com", False),
        (".example.com", "graph.example.com", True),
        ("*.example.com", "graph.example.com", True),
        ("example.com:8443", "graph.example.com", True),
        ("example.com:443", "graph.example.com", False),
        ("*:8443", "example.com", True),
        ("other.example other2.example\texample.com", "example.com", True),
        ("other.example , example.com", "example.com", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1:8443", "127.0.0.1", True),
        ("127.0.0.1:443", "127.0.0.1", False),
        ("0.0.1", "127.0.0.1", False),
        ("10.0.0.0/8", "10.2.3.4", True),
        ("10.9.9.9/8", "10.2.3.4", True),
        ("10.0.0.0/8", "11.2.3.4", False),
        ("10.0.0.0/8", "10.example", False),
        ("example.com", "10.2.3.4", False),
        ("::1", "::1", True),
        ("[::1]", "::1", True),
        ("0:0::1", "::1", True),
        ("[::1]:8443", "::1", True),
        ("[::1]:443", "::1", False),
        ("fd00::/8", "fd12::1", True),
        ("fd00::/8", "10.2.3.4", False),
        ("", "example.com", False),
        (". : :8443 [] *. / 99999999999999999999", "example.com", False),
    ],
)
def test_exceptions(exceptions: str, host: str, direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """`NO_PROXY` has domains, addresses and networks, with ports and brackets or without, between commas or spaces."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", exceptions)
    proxy = Proxy.of(None)
    assert proxy is not None
    assert proxy.serves(host, 8443) is not direct
    set_by_hand = Proxy.of("http://proxy.example:3128")
    assert set_by_hand is not None
    assert set_by_hand.serves(host, 8443)


@pytest.mark.parametrize(
    ("environment", "host"),
    [
        ({"HTTPS_PROXY": "http://a:1", "https_proxy": "http://b:1"}, "b"),
        ({"HTTPS_PROXY": "http://a:1", "https_proxy": ""}, None),
        ({"HTTPS_PROXY": "", "ALL_PROXY": "http://c:1"}, "c"),
        ({"HTTPS_PROXY": "http://a:1", "ALL_PROXY": "http://c:1"}, "a"),
        ({"https_proxy": "HTTP://[::1]:3128/path"}, "::1"),
        ({"https_proxy": "b:1", "HTTP_PROXY": "http://a:1"}, "b"),
        ({"HTTP_PROXY": "http://a:1"}, None),
        ({"NO_PROXY": "*"}, None),
    ],
    ids=str,
)
def test_variables(environment: dict[str, str], host: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower case wins over upper case, also with an empty value, which means no proxy, as in Python's own urllib and httpx."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    proxy = Proxy.of(None)
    assert (proxy and proxy.host) == host


@pytest.mark.parametrize(
    ("login", "credentials"),
    [
        ("", ""),
        (":@", ""),
        ("user@", "user:"),
        ("user:@", "user:"),
        ("user:ends%3A@", "user:ends:"),
        ("user:%3A@", "user::"),
        (":password@", ":password"),
    ],
)
def test_logins(login: str, credentials: str) -> None:
    """A user without a password, and a password that ends in a colon, are sent as they are (RFC 7617)."""
    proxy = Proxy.of(f"http://{login}proxy.example:3128")
    assert proxy is not None
    assert proxy.credentials == credentials


@pytest.mark.parametrize(("status", "attempts"), [(407, 1), (403, 1), (302, 1), (502, 3), (408, 3), (429, 3)])
async def test_proxy_that_refuses(status: int, attempts: int, tls: ssl.SSLContext) -> None:
    """
    A proxy that will not connect is a NetworkError with its status; nothing was sent, and nothing stays open.

    A refusal is not tried again: wrong passwords lock an account in the end.
    """
    async with LeanServer(lambda *_: b"", tls) as server, Tunnel(page("no", status)) as proxy:
        settings = Settings(base_url=server.base_url, proxy=f"http://{proxy.address}", backoff=0)
        async with MediaApi("token", "1", settings=settings) as api:
            before = descriptors()
            with pytest.raises(NetworkError, match=rf"the proxy refused with status {status}") as caught:
                await api.upload(b"text")
            assert (caught.value.maybe_applied, caught.value.attempts) == (False, attempts)
            assert caught.value.lasting is not caught.value.retryable is (attempts > 1)
            await none_added(before, descriptors)
        assert server.connections == 0


@pytest.mark.parametrize("status", [401, 403, 407, 302])
async def test_a_refusal_ends_a_run(status: int, tls: ssl.SSLContext) -> None:
    """A run of many items ends with the refusals of those in progress: the rest is not tried, and no login repeated."""
    async with LeanServer(lambda *_: b"", tls) as server, Tunnel(page("no", status)) as proxy:
        settings = Settings(base_url=server.base_url, proxy=f"http://user:wrong@{proxy.address}")
        async with MediaApi("token", "1", settings=settings) as api:
            report = await api.upload_many([b"text"] * 200, concurrency=4).report()
    assert (report.succeeded, report.failed + report.not_tried) == (0, 200)
    assert report.failed == len(proxy.heads) <= 4


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 200 OK\n\n",
        b"HTTP/1.1 201 Created\r\nContent-Length: 99\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nVia: \xc3\xa9\r\n\r\n",
    ],
)
async def test_ways_to_accept(answer: bytes, tls: ssl.SSLContext) -> None:
    """Any success of CONNECT opens the tunnel, whatever its headers say: it has no body (RFC 9110, 9.3.6)."""
    async with LeanServer(lambda *_: b"", tls) as server, Tunnel(accepts=answer) as proxy:
        graph(server)
        settings = Settings(base_url=server.base_url, proxy=f"http://{proxy.address}", max_retries=0)
        async with MediaApi("token", "1", settings=settings) as api:
            assert await api.read("7") == CONTENT


async def test_proxy_that_is_not_there(tls: ssl.SSLContext) -> None:
    """A proxy that nobody runs is a NetworkError; one that never answers is a TransferTimeoutError."""
    async with MediaApi("token", "1", settings=Settings(proxy="http://127.0.0.1:9")) as api:
        with pytest.raises(NetworkError, match="refused"):
            await api.get_info("7")
    async with Server(silence) as silent:
        settings = Settings(proxy=silent.base_url, read_timeout=0.2)
        async with MediaApi("token", "1", settings=settings) as api:
            with pytest.raises(TransferTimeoutError):
                await api.get_info("7")


@pytest.mark.parametrize(
    "url", ["socks5://user:geheim@host:1080", "https://user:geheim@host", "http://", "http://[", "http://geheim:port"]
)
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "ALL_PROXY", "Settings.proxy"])
async def test_proxy_that_cannot_be(name: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that cannot be used is a ConfigurationError which names the culprit, and not its value."""
    if name.isupper():
        monkeypatch.setenv(name, url)
    async with MediaApi("token", "1", settings=Settings(proxy=None if name.isupper() else url)) as api:
        with pytest.raises(ConfigurationError, match=f"^{name} must be an http:// URL") as caught:
            await api.get_info("7")
    assert "geheim" not in str(caught.value)


async def test_cancelled_at_every_await(tls: ssl.SSLContext) -> None:
    """Cancelled at any await on its way through a proxy, a call leaves nothing open."""
    async with LeanServer(lambda *_: b"", tls) as server, Tunnel() as proxy:
        graph(server)
        settings = Settings(base_url=server.base_url, proxy=f"http://{proxy.address}")
        async with MediaApi("token", "1", settings=settings) as warm:
            await warm.get_info("7")
        await settled_at(set(), lambda: server.open)
        at, going = 0, True
        while going:
            at += 1
            async with MediaApi("token", "1", settings=settings) as api:
                stepper = Stepper(at, times=2)
                task = await stepper.run(lambda api=api: api.get_info("7"))  # type: ignore[misc]  # a default argument
                going = stepper.reached
                assert task.cancelled() == going
            await settled_at(set(), lambda: server.open)
        assert at > 8
