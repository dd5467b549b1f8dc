"""`MediaResponse` on a real socket: parts, conditions, types, errors, and clients that leave."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import fastapi
import httpx
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.routing import Route

from meta_media import MediaApi
from meta_media.emulator import Emulator
from meta_media.errors import ConfigurationError, IntegrityError, TransferTimeoutError
from meta_media.integrations.starlette import MediaResponse
from tests.integrations.web import serving
from tests.support.servers import Server, Step, cut, json_response, page, reset, silence, stalled, wait_until
from tests.transfer.downloads import CONTENT, PHOTO, SHA256, TOKEN, chunked, client, known, received

SIZE = len(PHOTO)
ETAG = f'"{hashlib.sha256(PHOTO).hexdigest()}"'
HALF = page(CONTENT[:125_000], length=len(CONTENT))


@asynccontextmanager
async def site(make: Callable[[str], Any], **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Serve what `make` returns for the id in the path, and yield a browser."""

    async def give(request: Request) -> Any:
        return make(request.path_params["media_id"])

    app = Starlette(routes=[Route("/{media_id:path}", give)], **options)
    async with serving(app, lifespan="off") as url, httpx.AsyncClient(base_url=url, trust_env=False) as browser:
        yield browser


@pytest.fixture
async def photo(media: MediaApi) -> str:
    """The id of a photo in the emulator."""
    return (await media.upload(PHOTO)).id


@pytest.fixture
async def browser(media: MediaApi) -> AsyncIterator[httpx.AsyncClient]:
    """A browser of the media in the emulator."""
    async with site(lambda media_id: MediaResponse(media, media_id)) as opened:
        yield opened


def downloads(emulator: Emulator) -> int:
    """Count the requests for bytes."""
    return sum("attachments" in request.path for request in emulator.requests)


async def test_the_whole(browser: httpx.AsyncClient, photo: str) -> None:
    """A GET has all bytes, their length, an ETag of their SHA-256, and what keeps them harmless and private."""
    response = await browser.get(photo)
    assert (response.status_code, response.content) == (200, PHOTO)
    del response.headers["date"], response.headers["server"]
    assert dict(response.headers) == {
        "accept-ranges": "bytes",
        "cache-control": "private, no-cache",
        "content-disposition": f'inline; filename="{photo}.jpg"',
        "content-length": str(SIZE),
        "content-security-policy": "sandbox allow-same-origin",
        "content-type": "image/jpeg",
        "etag": ETAG,
        "x-content-type-options": "nosniff",
    }


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-", 0, SIZE),
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("BYTES=10-19", 10, 20),
        ("bytes= 10-19", 10, 20),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        (f"bytes=5-{SIZE}", 5, SIZE),
        (f"bytes=0-{'9' * 18}", 0, SIZE),
        ("bytes=-1", SIZE - 1, SIZE),
        (f"bytes=-{SIZE + 1}", 0, SIZE),
    ],
)
async def test_a_part(browser: httpx.AsyncClient, photo: str, asked: str, start: int, end: int) -> None:
    """One range is answered with 206, and exactly those bytes."""
    response = await browser.get(photo, headers={"Range": asked})
    assert (response.status_code, response.content) == (206, PHOTO[start:end])
    assert response.headers["Content-Range"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert response.headers["Content-Length"] == str(end - start)
    assert response.headers["ETag"] == ETAG


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 5}", f"bytes={'9' * 18}-", "bytes=-0"])
async def test_a_part_behind_the_end(browser: httpx.AsyncClient, emulator: Emulator, photo: str, asked: str) -> None:
    """A range that cannot be met is answered with 416 and the size, and nothing is downloaded."""
    response = await browser.get(photo, headers={"Range": asked})
    assert (response.status_code, response.headers["Content-Range"]) == (416, f"bytes */{SIZE}")
    assert downloads(emulator) == 0


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=0-9,20-29",
        "bytes=9-0",
        "bytes=-",
        "bytes=a-b",
        "bytes 0-9",
        "items=0-9",
        f"bytes=0-{'9' * 19}",
        "bytes=1.5-2",
        "",
    ],
)
async def test_a_range_that_is_ignored(browser: httpx.AsyncClient, photo: str, asked: str) -> None:
    """Several ranges, another unit, and what is no range, get the whole."""
    response = await browser.get(photo, headers={"Range": asked})
    assert (response.status_code, response.content) == (200, PHOTO)
    assert "Content-Range" not in response.headers


@pytest.mark.parametrize(
    ("condition", "status"), [(ETAG, 206), (f"W/{ETAG}", 200), ('"other"', 200), ("Sun, 29 Nov 2026 07:00:00 GMT", 200)]
)
async def test_if_range(browser: httpx.AsyncClient, photo: str, condition: str, status: int) -> None:
    """A part is sent only if the client has the rest of the same bytes; a weak tag or a date does not prove it."""
    response = await browser.get(photo, headers={"Range": "bytes=10-19", "If-Range": condition})
    assert (response.status_code, response.content) == (status, PHOTO[10:20] if status == 206 else PHOTO)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("condition", [ETAG, f"W/{ETAG}", f'"other", {ETAG}', "*"])
async def test_not_modified(
    browser: httpx.AsyncClient, emulator: Emulator, photo: str, condition: str, method: str
) -> None:
    """A client that has the bytes gets 304, and nothing is downloaded; a `Range` beside it changes nothing."""
    headers = {"If-None-Match": condition, "Range": "bytes=0-9"}
    response = await browser.request(method, photo, headers=headers)
    assert (response.status_code, response.content, response.headers["ETag"]) == (304, b"", ETAG)
    assert response.headers["Cache-Control"] == "private, no-cache"
    assert downloads(emulator) == 0


async def test_modified(browser: httpx.AsyncClient, photo: str) -> None:
    """A client that has other bytes gets these."""
    response = await browser.get(photo, headers={"If-None-Match": '"other"'})
    assert (response.status_code, response.content) == (200, PHOTO)


async def test_head(browser: httpx.AsyncClient, emulator: Emulator, photo: str) -> None:
    """HEAD has the headers of GET, whose `Range` means nothing to it, and nothing is downloaded."""
    head = await browser.head(photo, headers={"Range": "bytes=0-9"})
    assert (head.status_code, head.content, downloads(emulator)) == (200, b"", 0)
    got = await browser.get(photo)
    for response in (head, got):
        del response.headers["date"]
    assert head.headers == got.headers


async def test_head_of_a_part_behind_the_end(browser: httpx.AsyncClient, photo: str) -> None:
    """A `Range` is defined for GET alone, so that HEAD has none that cannot be met."""
    assert (await browser.head(photo, headers={"Range": f"bytes={SIZE}-"})).status_code == 200


@pytest.mark.parametrize(
    ("claimed", "sent", "disposition"),
    [
        ("image/jpeg", "image/jpeg", "inline"),
        ("IMAGE/JPG; q=1", "image/jpeg", "inline"),
        ("audio/ogg; codecs=opus", "audio/ogg", "inline"),
        ("video/mp4", "video/mp4", "inline"),
        ("application/pdf", "application/pdf", "inline"),
        ("text/plain; charset=utf-8", "text/plain", "attachment"),
        ("text/html", "application/octet-stream", "attachment"),
        ("Text/HTML; charset=utf-8", "application/octet-stream", "attachment"),
        ("application/xhtml+xml", "application/octet-stream", "attachment"),
        ("image/svg+xml", "application/octet-stream", "attachment"),
        ("text/xml", "application/octet-stream", "attachment"),
        ("text/javascript", "application/octet-stream", "attachment"),
        ("image/x-made-up", "application/octet-stream", "attachment"),
        ("", "application/octet-stream", "attachment"),
        ("image/jpeg\r\nSet-Cookie: a=b", "application/octet-stream", "attachment"),
    ],
)
async def test_types(server: Server, claimed: str, sent: str, disposition: str) -> None:
    """Only what runs no script is shown; the type that a stranger named is sent only where it is a known, harmless one."""
    server.script = [page(CONTENT)]
    info = known(server, mime_type=claimed)
    async with client(server) as media, site(lambda _: MediaResponse(media, info)) as browser:
        response = await browser.get("1")
    assert (response.status_code, response.content) == (200, CONTENT)
    assert response.headers["Content-Type"] == sent
    assert response.headers["Content-Disposition"].split(";")[0] == disposition
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    same_origin = " allow-same-origin" if disposition == "inline" else ""
    assert response.headers["Content-Security-Policy"] == f"sandbox{same_origin}"
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("plan.txt", 'filename="plan.txt"'),
        ("my plan.txt", "filename*=utf-8''my%20plan.txt"),
        ("../../Grüße\r\n.txt", "filename*=utf-8''Gr%C3%BC%C3%9Fe.txt"),
        ('a"; filename="b.html', "filename*=utf-8''a__%20filename%3D_b.html.txt"),
        ("page.html", 'filename="page.html.txt"'),
    ],
)
async def test_names(emulator: Emulator, media: MediaApi, given: str, named: str) -> None:
    """The sender's name is made safe, and follows the type; a name of the caller's comes before it."""
    inbound = await received(emulator, b"words", "text/plain", kind="document", filename=given)
    async with site(lambda own: MediaResponse(media, inbound, filename=own or None)) as browser:
        response = await browser.get("")
        assert response.headers["Content-Disposition"] == f"attachment; {named}"
        response = await browser.get("mine.txt")
        assert response.headers["Content-Disposition"] == 'attachment; filename="mine.txt"'


async def test_the_callers_headers(media: MediaApi, photo: str) -> None:
    """Headers and cookies of the caller's are sent, and replace ours of the same name, but not those about the bytes."""
    ran: list[str] = []

    def make(media_id: str) -> MediaResponse:
        headers = {"Cache-Control": "private, max-age=60", "X-More": "1", "Content-Length": "5"}
        background = BackgroundTask(ran.append, "background")
        response = MediaResponse(media, media_id, headers=headers, background=background)
        response.set_cookie("seen", "yes")
        return response

    async with site(make) as browser:
        response = await browser.get(photo)
    assert response.content == PHOTO
    found = [response.headers[name] for name in ("Cache-Control", "X-More", "Content-Length")]
    assert found == ["private, max-age=60", "1", str(SIZE)]
    assert response.cookies["seen"] == "yes"
    assert ran == ["background"]


async def test_fastapi(media: MediaApi, photo: str) -> None:
    """A route of FastAPI returns it as it is, below middlewares, and an error becomes FastAPI's JSON."""
    app = fastapi.FastAPI(middleware=[Middleware(GZipMiddleware), Middleware(BaseHTTPMiddleware, dispatch=pass_on)])

    @app.api_route("/{media_id}", methods=["GET", "HEAD"])
    async def give(media_id: str) -> MediaResponse:
        return MediaResponse(media, media_id)

    async with serving(app) as url, httpx.AsyncClient(base_url=url, trust_env=False) as browser:
        assert (await browser.get(photo)).content == PHOTO
        part = await browser.get(photo, headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, PHOTO[10:20])
        assert (await browser.head(photo)).headers["Content-Length"] == str(SIZE)
        missing = await browser.get("1")
        assert (missing.status_code, missing.json()) == (404, {"detail": "Not Found"})


async def pass_on(request: Request, call_next: Any) -> Any:
    """A middleware that does nothing."""
    return await call_next(request)


# Wrong bytes


@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=0-"}], ids=["whole", "all by Range"])
@pytest.mark.parametrize("script", [page(CONTENT[:-1] + b"x"), cut(HALF)], ids=["other bytes", "cut"])
@pytest.mark.parametrize("middleware", [(), (BaseHTTPMiddleware,)], ids=["plain", "below a middleware"])
async def test_wrong_bytes_are_never_complete(
    server: Server, script: Step, headers: dict[str, str], middleware: Any
) -> None:
    """Where length or SHA-256 turn out wrong, the connection is cut before the last byte."""
    server.script = [script]
    arrived = bytearray()
    layers = [Middleware(kind, dispatch=pass_on) for kind in middleware]
    async with (
        client(server) as media,
        site(lambda _: MediaResponse(media, known(server)), middleware=layers) as browser,
        browser.stream("GET", "1", headers=headers) as response,
    ):
        assert response.headers["Content-Length"] == str(len(CONTENT))
        with pytest.raises(httpx.RemoteProtocolError):  # noqa: PT012 - the chunks before the error count
            async for chunk in response.aiter_raw():
                arrived += chunk
    assert len(arrived) < len(CONTENT)


async def test_the_error_of_wrong_bytes(server: Server) -> None:
    """The server's log has the error itself."""
    server.script = [page(CONTENT[:-1] + b"x")]
    async with client(server) as media:
        with pytest.raises(IntegrityError):
            await respond(MediaResponse(media, known(server)), [], asyncio.Event())


async def test_media_without_a_size(server: Server) -> None:
    """Where Meta's info has no size, the download's own length is sent, and a `Range` is ignored."""
    server.script = [page(CONTENT)]
    info = known(server, file_size=None)
    async with client(server) as media, site(lambda _: MediaResponse(media, info)) as browser:
        response = await browser.get("1", headers={"Range": "bytes=0-9"})
        head = await browser.head("1")
    assert (response.status_code, response.content) == (200, CONTENT)
    assert response.headers["Content-Length"] == str(len(CONTENT))
    assert (head.status_code, "Content-Length" in head.headers) == (200, False)
    assert "Accept-Ranges" not in head.headers


async def test_media_of_unknown_length(server: Server) -> None:
    """Where nothing names a length, a client could not see that a body broke off: it is refused."""
    server.script = [chunked(CONTENT)]
    info = known(server, file_size=None)
    async with client(server) as media, site(lambda _: MediaResponse(media, info)) as browser:
        assert (await browser.get("1")).status_code == 502


# Errors before the first byte


def graph_error(code: int, status: int, **headers: str) -> bytes:
    """Write an error of Meta's API."""
    error = {"message": "canary", "type": "OAuthException", "code": code, "error_subcode": 33}
    return json_response({"error": error}, status, **headers)


@pytest.mark.parametrize(
    ("step", "status", "retry_after"),
    [
        (graph_error(100, 404), 404, None),
        (graph_error(130429, 429), 503, "30"),
        (graph_error(2, 503, retry_after="7"), 503, "7"),
        (graph_error(190, 401), 502, None),
        (graph_error(10, 403), 502, None),
        (page("<html>canary</html>", 500), 502, None),
        (reset(), 502, None),
        (silence, 504, None),
    ],
    ids=["unknown", "limited", "busy", "token", "permission", "broken", "reset", "silent"],
)
async def test_errors_before_the_first_byte(
    server: Server, caplog: pytest.LogCaptureFixture, step: Step, status: int, retry_after: str | None
) -> None:
    """Each error has its status, and its text stays in the log: the visitor gets the phrase of the status alone."""
    server.script = [step]
    caplog.set_level(logging.INFO, "meta_media")
    async with client(server, read_timeout=0.3) as media, site(lambda name: MediaResponse(media, name)) as browser:
        response = await browser.get("77")
    assert (response.status_code, response.headers.get("Retry-After")) == (status, retry_after)
    assert response.text == httpx.codes.get_reason_phrase(status)
    [record] = [record for record in caplog.records if "media 77: HTTP" in record.getMessage()]
    assert (record.levelname, TOKEN in caplog.text) == ("INFO" if status == 404 else "WARNING", False)


async def test_a_download_that_fails_at_once(server: Server) -> None:
    """The bytes are opened before the headers are sent, so that a media that is gone is a 404."""
    server.script = [page(status=404)]
    async with client(server) as media, site(lambda _: MediaResponse(media, known(server, id="1"))) as browser:
        assert (await browser.get("1")).status_code == 404


@pytest.mark.parametrize("asked", ["abc.def", "%2e%2e", "1/2", "https://graph.facebook.com/x", "", "EAAG" + "x" * 60])
async def test_what_is_no_id(server: Server, asked: str) -> None:
    """What a visitor typed in the place of an id is not found, and nothing is sent to Meta."""
    async with client(server) as media, site(lambda name: MediaResponse(media, name)) as browser:
        assert (await browser.get(f"/{asked}")).status_code == 404
    assert server.requests == []


@pytest.mark.parametrize("what", [None, 1.5, object()])
async def test_what_is_no_media(media: MediaApi, what: Any) -> None:
    """A mistake of the program is no 404."""
    with pytest.raises(ConfigurationError, match="media id"):
        await respond(MediaResponse(media, what), [], asyncio.Event())


async def test_a_closed_client(emulator: Emulator) -> None:
    """What only the program's author can mend is raised."""
    media = emulator.api()
    await media.aclose()
    with pytest.raises(ConfigurationError, match="closed"):
        await respond(MediaResponse(media, "1"), [], asyncio.Event())


# Clients that leave


async def respond(
    response: MediaResponse, sent: list[Any], leave: asyncio.Event, *, raises: bool = False, stuck: bool = False
) -> None:
    """Run a response as a server does, for a client that leaves at the event; `raises`: as one that only raises then."""
    unread = [{"type": "http.request", "body": b""}]

    async def receive() -> dict[str, Any]:
        if unread:
            return unread.pop()
        await (asyncio.Event() if raises else leave).wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if raises and leave.is_set():
            raise OSError("the client is gone")
        sent.append(message)
        if stuck and message["type"] == "http.response.body":
            await asyncio.Event().wait()

    await response({"type": "http", "method": "GET", "headers": []}, receive, send)


@pytest.fixture
async def single(server: Server) -> AsyncIterator[MediaApi]:
    """A client with one connection for downloads."""
    async with client(server, concurrency=1) as media:
        yield media


async def is_free(server: Server, media: MediaApi) -> bool:
    """Whether the one connection for downloads was given back."""
    server.script, server.requests = [page(CONTENT)], []
    async with asyncio.timeout(60):
        return await media.read(known(server)) == CONTENT


@pytest.mark.parametrize("middleware", [(), (BaseHTTPMiddleware,)], ids=["plain", "below a middleware"])
@pytest.mark.parametrize("step", [HALF, b"", "lookup"], ids=["in the bytes", "before the bytes", "before the lookup"])
async def test_a_client_that_leaves(
    server: Server, single: MediaApi, caplog: pytest.LogCaptureFixture, step: bytes | str, middleware: Any
) -> None:
    """The download ends while it waits for Meta, its connection is given back, and no error is logged."""
    server.script = [stalled(step, asyncio.Event())] if isinstance(step, bytes) else [silence]
    what = "1" if step == "lookup" else known(server)
    layers = [Middleware(kind, dispatch=pass_on) for kind in middleware]
    async with site(lambda _: MediaResponse(single, what), middleware=layers) as browser:
        asking = asyncio.ensure_future(browser.get("1"))
        await wait_until(lambda: len(server.requests) == 1)
        asking.cancel()
        await asyncio.wait([asking])
        assert await is_free(server, single)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    await wait_until(lambda: not [task for task in asyncio.all_tasks() if "starlette/response.py" in repr(task)])


@pytest.mark.parametrize("raises", [False, True], ids=["ASGI 2.3", "ASGI 2.4"])
async def test_a_client_that_left_while_it_was_sent_to(server: Server, single: MediaApi, raises: bool) -> None:
    """A server that raises for a client that is gone ends the download as well."""
    go_on, leave, sent = asyncio.Event(), asyncio.Event(), list[Any]()
    server.script = [stalled(HALF, go_on, CONTENT[125_000:])]
    answering = asyncio.ensure_future(respond(MediaResponse(single, known(server)), sent, leave, raises=raises))
    await wait_until(lambda: len(sent) == 2)
    leave.set()
    go_on.set()
    await answering
    assert await is_free(server, single)
    assert [message for message in sent if not message.get("more_body", True)] == []


async def test_a_client_that_left_before_the_response(server: Server, single: MediaApi) -> None:
    """For the server's log, the response to a client that has left is 499."""
    server.script = [silence]
    leave, sent = asyncio.Event(), list[Any]()

    async def receive() -> dict[str, Any]:
        await leave.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "headers": []}
    answering = asyncio.ensure_future(MediaResponse(single, "1")(scope, receive, send))
    await wait_until(lambda: len(server.requests) == 1)
    leave.set()
    await answering
    assert [message.get("status") for message in sent] == [499, None]


async def test_a_client_that_takes_nothing(server: Server, single: MediaApi) -> None:
    """A client that keeps the connection and takes no bytes loses it, so that others have the download's slot."""

    class Impatient(MediaResponse):
        send_timeout = 0.05

    server.script = [page(CONTENT)]
    sent: list[Any] = []
    with pytest.raises(TransferTimeoutError, match="took nothing"):
        await respond(Impatient(single, known(server)), sent, asyncio.Event(), stuck=True)
    assert [message.get("more_body") for message in sent] == [None, True]
    assert await is_free(server, single)


async def test_a_cancelled_response(server: Server, single: MediaApi) -> None:
    """A server that is shut down cancels the response: the download ends, and the cancellation is passed on."""
    server.script = [stalled(HALF, asyncio.Event())]
    sent: list[Any] = []
    answering = asyncio.ensure_future(respond(MediaResponse(single, known(server)), sent, asyncio.Event()))
    await wait_until(lambda: len(sent) == 2)
    answering.cancel()
    await asyncio.wait([answering])
    assert answering.cancelled()
    assert await is_free(server, single)


def test_without_starlette(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Starlette, the import fails and names what to install."""
    room = "meta_media.integrations.starlette"
    for name in [name for name in sys.modules if name.startswith(room)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette.background", None)
    with pytest.raises(ModuleNotFoundError) as missing:
        importlib.import_module(room)
    assert str(missing.value) == f"{room} needs a package: pip install '.[starlette]' in a checkout"


async def test_an_info_saves_the_lookup(server: Server) -> None:
    """A `MediaInfo` is taken as it is: its bytes are the only request."""
    server.script = [page(CONTENT)]
    async with client(server) as media, site(lambda _: MediaResponse(media, known(server))) as browser:
        response = await browser.get("1")
    assert (response.headers["ETag"], len(server.requests)) == (f'"{SHA256}"', 1)


async def test_media_without_a_hash(server: Server) -> None:
    """Where Meta gives no SHA-256 there is no ETag, and no condition is met."""
    server.script = [page(CONTENT)]
    info = known(server, sha256=None)
    async with client(server) as media, site(lambda _: MediaResponse(media, info)) as browser:
        response = await browser.get("1", headers={"If-None-Match": "*"})
        assert (response.status_code, "ETag" in response.headers) == (200, False)
        response = await browser.get("1", headers={"Range": "bytes=0-9", "If-Range": '"x"'})
        assert response.status_code == 200
