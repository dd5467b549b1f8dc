"""Failures of every kind, over every client: no log, traceback, note, pickle or repr has a token, a proof or a signature."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import pickle
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import h2.config
import h2.connection
import h2.events
import httpx
import httpx2
import pytest
from anyio.from_thread import start_blocking_portal

from meta_media import MediaApi, MediaInfo, Settings, Source
from meta_media.errors import ConfigurationError, MediaError
from meta_media.protocol.responses import parse_error
from tests.support.servers import Received, Server, Step, cut, json_response, page, reset, silence
from tests.support.telemetry import instrumented

TOKEN = "EAAGcanary0token"
APP_SECRET = "canary0app0secret"
SIGNATURE = "SIGNATURE"
Failure = tuple[Step, Callable[[MediaApi, str], Awaitable[object]]]


def info(url: str) -> MediaInfo:
    """What a media's URL is, with a checksum that does not fit."""
    return MediaInfo(id="7", url=url, mime_type="image/png", sha256="0" * 64)


async def hurried(media: MediaApi, _: str) -> object:
    """Give a call less time than it takes."""
    async with asyncio.timeout(0.05):
        return await media.get_info("7")


ERROR = {"message": f"Malformed access token {TOKEN}", "code": 190}
FAILURES: dict[str, Failure] = {
    "token refused": (json_response({"error": ERROR}, 401), lambda media, _: media.get_info("7")),
    "upload refused": (json_response({"error": ERROR}, 400), lambda media, _: media.upload(b"text")),
    "unknown": (page("", 404), lambda media, url: media.read(url)),
    "wrong bytes": (page("other"), lambda media, url: media.read(info(url))),
    "a page": (page("<p>", content_type="text/html"), lambda media, url: media.read(info(url))),
    "redirected to a stranger": (
        page("", 302, location=f"https://evil.example/?hash={SIGNATURE}&{TOKEN}"),
        lambda media, url: media.read(url),
    ),
    "redirected for ever": (page("", 302, location=f"/again?hash={SIGNATURE}"), lambda media, url: media.read(url)),
    "reset": (reset(), lambda media, url: media.read(url)),
    "reset an upload": (reset(), lambda media, _: media.upload(b"text")),
    "cut": (cut(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"), lambda media, url: media.read(url)),
    "an echo in a header": (
        json_response({"error": {"message": "no"}}, 401, x_fb_trace_id=f"a{TOKEN}"),
        lambda media, _: media.get_info("7"),
    ),
    "an escaped echo": (
        page(json.dumps({"error": ERROR | {"error_data": {"details": TOKEN}}}).replace("EAA", "\\u0045AA"), 401),
        lambda media, _: media.upload(b"text"),
    ),
    "an echo of a wrong type": (json_response({"id": [TOKEN], TOKEN: 1}), lambda media, _: media.get_info("7")),
    "an echo as the id": (json_response({"id": TOKEN}), lambda media, _: media.upload(b"text")),
    "an echo in a URL": (
        json_response({"id": "7", "url": f"https://{TOKEN}.example/", "mime_type": "image/png"}),
        lambda media, _: media.read("7"),
    ),
    "an echo in a redirect": (page("", 302, location=f"https://{TOKEN}.example/"), lambda media, url: media.read(url)),
    "an echo of no HTTP": (cut(f"{TOKEN}\r\n\r\n".encode()), lambda media, url: media.get_info("7")),
    "an echo in a bad header": (
        cut(f"HTTP/1.1 200 OK\r\n{TOKEN}\r\n\r\n".encode()),
        lambda media, url: media.read(url),
    ),
    "garbage": (cut(b"garbage\r\n\r\n"), lambda media, url: media.get_info("7")),
    "read timeout": (silence, lambda media, _: media.with_options(read_timeout=0.05).get_info("7")),
    "deadline": (silence, lambda media, url: media.with_options(deadline=0.05).read(url)),
    "a timeout of the caller": (silence, hurried),
}


class H2Server:
    """Speaks HTTP/2 without TLS, and sends the HTTP/1.1 responses of a script in its frames; bytes only, else it hangs up."""

    def __init__(self) -> None:
        self.script: list[Step] = [page()]
        self.requests: list[Received] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def base_url(self) -> str:
        """Scheme, host and port."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> H2Server:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.ensure_future(self._converse(reader, writer)))

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        with contextlib.suppress(OSError), contextlib.closing(writer):
            while data := await reader.read(2**16):
                for event in connection.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        self._note(event)
                    if isinstance(event, h2.events.StreamEnded) and self.script[0] is not silence:
                        if not isinstance(self.script[0], bytes):
                            writer.transport.abort()
                            return
                        self._respond(connection, event.stream_id, self.script[0])
                writer.write(connection.data_to_send())
                await writer.drain()

    def _note(self, event: h2.events.RequestReceived) -> None:
        headers = {bytes(name).decode(): bytes(value).decode() for name, value in event.headers}
        request = Received(method=headers[":method"], target=headers[":path"], headers=(), body=b"")
        self.requests.append(request)

    def _respond(self, connection: h2.connection.H2Connection, stream: int, response: bytes) -> None:
        head, _, body = response.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = [(":status", first.split(" ")[1]), *(tuple(line.split(": ", 1)) for line in lines)]
        connection.send_headers(stream, [(name, value) for name, value in headers if name != "connection"])
        connection.send_data(stream, body, end_stream=True)


@contextlib.asynccontextmanager
async def over(flavour: str) -> AsyncIterator[tuple[Any, MediaApi]]:
    """Make a server, and a client for it over a flavour of HTTP client."""
    clients: dict[str, Any] = {
        "ours": contextlib.nullcontext,
        "hooked": contextlib.nullcontext,
        "httpx": httpx.AsyncClient,
        "httpx2": httpx2.AsyncClient,
        "http2": lambda: httpx.AsyncClient(http1=False, http2=True),
    }
    async with contextlib.AsyncExitStack() as stack:
        if flavour == "http2":  # in a thread of its own, so that its log is not taken for the client's
            portal = stack.enter_context(start_blocking_portal())
            server: Any = stack.enter_context(portal.wrap_async_context_manager(H2Server()))
        else:
            server = await stack.enter_async_context(Server(page()))
        client = await stack.enter_async_context(clients[flavour]())
        settings = Settings(base_url=server.base_url, max_retries=0, app_secret=APP_SECRET)
        async with MediaApi(TOKEN, "1", settings=settings, http_client=client) as media:
            if flavour == "hooked":
                media.client.event_hooks["request"].append(hook)
            yield server, media


async def hook(_: object) -> None:
    """Do nothing."""


def links(error: BaseException) -> Iterator[BaseException]:
    """List an error with its causes and contexts."""
    waiting: list[BaseException | None] = [error]
    while waiting:
        if (link := waiting.pop()) is not None:
            yield link
            waiting += [link.__cause__, None if link.__cause__ is link.__context__ else link.__context__]


def told(error: BaseException) -> Iterator[str]:
    """Write all that a log, a pickle, a debugger or an error reporter would show, but for the frames of this test."""
    yield repr(pickle.dumps(error))
    yield "".join(traceback.format_exception(error))
    for link in links(error):
        yield f"{link} {link!r} {vars(link)} {getattr(link, '__notes__', [])}"
        for frame in traceback.TracebackException.from_exception(link, capture_locals=True).stack:
            if frame.filename != __file__:
                yield f"{frame.filename}:{frame.name}: {frame.locals}"


def check(shown: str, requests: list[Received]) -> None:
    """See that nothing secret is shown, nor any part of a query that was sent."""
    queries = [parse_qs(urlsplit(request.target).query) for request in requests]
    secrets = {value for query in queries for name in ("appsecret_proof", "hash") for value in query.get(name, [])}
    for secret in secrets | {TOKEN, APP_SECRET, SIGNATURE}:
        assert secret not in shown, f"…{shown.partition(secret)[0][-300:]}"


@pytest.mark.parametrize("flavour", ["ours", "hooked", "httpx", "httpx2", "http2"])
async def test_nothing_secret_is_shown(
    flavour: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No failure shows a secret: not in its error, in a log, in a span or in a metric."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http/dup")
    with instrumented() as telemetry:
        async with over(flavour) as (server, media):
            url = f"{server.base_url}/media?hash={SIGNATURE}"
            for name, (step, call) in FAILURES.items():
                server.script[:] = [step] * (len(server.requests) + 1)
                with pytest.raises((MediaError, TimeoutError)) as caught:
                    await call(media, url)
                check(f"{name}: " + "\n".join(told(caught.value)), server.requests)
            records = [record for record in caplog.records if record.threadName == "MainThread"]
            logged = "\n".join(f"{record.getMessage()} {vars(record)}" for record in records)
            check(logged, server.requests)
            check(f"{media!r} {vars(media)} {vars(media.shared)} {media.settings!r}", server.requests)
            check(telemetry.shown(), server.requests)
    assert len(telemetry.calls) == len(FAILURES)
    assert len(telemetry.requests()) >= len(server.requests)  # which has not seen those that were cut short
    loggers = {record.name for record in records}
    expected = {
        "httpx": {"httpx", "httpcore.http11"},
        "httpx2": {"httpx2", "httpcore2.http11"},
        "http2": {"httpx", "httpcore.http2", "hpack.hpack"},
    }
    assert expected.get(flavour, set()) <= loggers  # else nothing was proved


async def broken_off() -> AsyncIterator[bytes]:
    """Yield some text, and fail."""
    yield b"text"
    raise ValueError("no more")


def refuse(*_: object) -> None:
    """Fail as a progress callback may."""
    raise ValueError("no progress")


@pytest.mark.parametrize("flavour", ["ours", "hooked", "httpx", "httpx2"])
async def test_what_the_caller_s_code_raises(flavour: str) -> None:
    """An error of a source or a progress callback has no frame of the request, whose local variables are the signed headers."""
    async with over(flavour) as (server, media):
        cases: list[tuple[Any, Any]] = [(broken_off(), {"size": 400_000}), (b"text" * 50_000, {"progress": refuse})]
        for source, options in cases:
            with pytest.raises(ValueError, match=r"no (more|progress)") as caught:
                await media.upload(source, mime_type="text/plain", **options)
            assert list(links(caught.value)) == [caught.value]
            check("\n".join(told(caught.value)), server.requests)


@pytest.mark.parametrize(
    "call",
    [
        lambda media: media.get_info(f"https://lookaside.fbsbx.com/7?hash={SIGNATURE}"),
        lambda media: media.delete(f"https://lookaside.fbsbx.com/7?hash={SIGNATURE}"),
        lambda media: media.upload(b"text", phone_number_id=TOKEN * 9),
        lambda media: media.send("+15550001111", TOKEN * 9, kind="image"),
        lambda media: media.upload(TOKEN * 9),
        lambda media: media.upload(Path(TOKEN * 9)),
        lambda media: media.upload(Source.path(f"https://bucket.example/a.jpg?X-Amz-Signature={SIGNATURE}")),
        lambda media: media.upload(b"text", mime_type=TOKEN * 9),
        lambda media: media.upload(b"", filename=f"a.jpg?X-Amz-Signature=a/{SIGNATURE}"),
        lambda media: media.upload(b"", filename=TOKEN * 9),
    ],
)
async def test_a_secret_in_a_wrong_place(call: Callable[[MediaApi], Awaitable[object]]) -> None:
    """A signed URL or a token, passed where an id, a path or a name is wanted, is neither shown nor kept by the error."""
    async with MediaApi(TOKEN, "1") as media:
        with pytest.raises(MediaError) as caught:
            await call(media)
    assert caught.value.attempts == 0
    trace = "".join(traceback.format_exception(caught.value))
    check(f"{trace} {vars(caught.value)} {pickle.dumps(caught.value)!r}", [])


async def test_secrets_among_the_items() -> None:
    """An item that is a token or a signed URL, as text or as a path, is not shown by its outcome."""
    items = [TOKEN * 9, Path(TOKEN * 9), f"https://a.example/b.jpg?hash={SIGNATURE}", (f"a?hash={SIGNATURE}", {})]
    async with MediaApi(TOKEN, "1") as media:
        report = await media.upload_many(items).report()
    assert report.failed == len(items)
    check(repr(report), [])


@pytest.mark.parametrize(
    "disposition", [f'attachment; filename="{TOKEN}.png"', f"x; filename*=utf-8''%45{TOKEN[1:]}.png"]
)
async def test_echoes_in_results(disposition: str, tmp_path: Path) -> None:
    """An echo of the token in a success, as a value, a key, a type or a name, is masked as well."""
    async with Server(page()) as server:
        settings = Settings(base_url=server.base_url)
        async with MediaApi(TOKEN, "1", settings=settings) as media:
            facts = {
                "id": "7",
                "url": f"{server.base_url}/{TOKEN}",
                "mime_type": f"image/{TOKEN}",
                TOKEN: [{"a": TOKEN}],
            }
            server.script = [page(json.dumps(facts).replace("EAA", "\\u0045AA"))]
            found = await media.get_info("7")
            assert found.extra == {"***": [{"a": "***"}]}
            check(f"{found!r} {found.url} {found.extra}", [])
            server.script = [page(), page("text", content_type=f"image/{TOKEN}", content_disposition=disposition)]
            saved = await media.download(f"{server.base_url}/media", tmp_path)
            check(repr(saved), [])


def test_an_echo_that_is_cut() -> None:
    """A text that is shortened is masked before that, so that no part of a token is left."""
    error = parse_error("delete", 400, {"content-type": "text/plain"}, b"." * 495 + TOKEN.encode(), secret=TOKEN)
    assert str(error).startswith("." * 495 + "***")
    assert "EAA" not in str(error)
    error = parse_error("delete", 400, {}, json.dumps({"error": "." * 1995 + TOKEN}).encode(), secret=TOKEN)
    assert "EAA" not in str(error)


async def test_queries_stay_in_the_logs_of_others(caplog: pytest.LogCaptureFixture) -> None:
    """What the rest of the program sends is logged as ever."""
    caplog.set_level(logging.INFO)
    async with Server(page()) as server, httpx2.AsyncClient() as client:
        media = MediaApi(TOKEN, "1", settings=Settings(base_url=server.base_url), http_client=cast("Any", client))
        with pytest.raises(MediaError):
            await media.get_info("1")
        await client.get(f"{server.base_url}/other?query=kept")
    assert "/other?query=kept" in caplog.text


async def test_queries_over_our_own_client(caplog: pytest.LogCaptureFixture) -> None:
    """A media URL that the caller fetches over `media.client` is logged without its signature; other clients log as ever."""
    caplog.set_level(logging.INFO)
    async with Server(page("text")) as server, httpx.AsyncClient() as other, MediaApi(TOKEN, "1") as media:
        assert (await media.client.get(f"{server.base_url}/media?hash={SIGNATURE}")).text == "text"
        async with media.client.stream("GET", f"{server.base_url}/media?hash={SIGNATURE}") as response:
            await other.get(f"{server.base_url}/other?query=kept")
            assert await response.aread() == b"text"
    assert caplog.text.count("/media?…") == 2
    assert SIGNATURE not in caplog.text
    assert "/other?query=kept" in caplog.text


ALIASED = """
import httpx2
httpx2.alias_httpx()
import asyncio, logging, sys
from meta_media import MediaApi, Settings
from meta_media.errors import MediaError
import httpx

logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)

async def main():
    async with httpx.AsyncClient() as client:
        for given in (None, client):
            settings = Settings(base_url=sys.argv[1], max_retries=0, app_secret="secret")
            async with MediaApi("EAAGcanary0token", "1", settings=settings, http_client=given) as media:
                for work in (media.get_info("7"), media.read(sys.argv[1] + "/media?hash=SIGNATURE")):
                    try:
                        await work
                    except MediaError as error:
                        print(error)

asyncio.run(main())
print(httpx.__name__)
"""


async def test_logs_after_alias_httpx() -> None:
    """Where httpx is httpx2 for the whole program, its logs are covered, too."""
    import sys

    async with Server(page("", 404)) as server:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            ALIASED,
            server.base_url,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        shown = (await child.communicate())[0].decode()
    assert child.returncode == 0, shown
    assert "httpx2" in shown and "/media?…" in shown  # noqa: PT018 - one condition: something was logged
    check(shown, server.requests)


# Pickles


@pytest.mark.parametrize("used", [False, True])
async def test_a_client_is_not_pickled(used: bool) -> None:
    """A client, of which nothing has been used either, is not pickled: its token would be in the pickle."""
    media = MediaApi(TOKEN, "1", settings=Settings(base_url="http://127.0.0.1:1"))
    if used:
        assert not media.client.is_closed
    for value in (media, media.with_options(max_retries=0), {"nested": [media]}, media.token):
        with pytest.raises(ConfigurationError, match=r"is not pickled.* in each process$"):
            pickle.dumps(value)
    await media.aclose()


def test_settings_are_pickled_without_secrets_only() -> None:
    """Settings are pickled, unless they hold a secret."""
    plain = Settings(read_timeout=3)
    assert pickle.loads(pickle.dumps(plain)) == plain
    for secret in ({"app_secret": APP_SECRET}, {"proxy": "http://user:password@proxy"}):
        with pytest.raises(ConfigurationError, match=r"secret is not pickled"):
            pickle.dumps(Settings(**secret))  # type: ignore[arg-type]
