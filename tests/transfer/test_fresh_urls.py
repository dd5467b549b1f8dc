"""The id outranks the URL: what is not the media leads to one lookup of the id, and to its fresh URL."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from meta_media import InboundMedia, MediaApi
from meta_media.errors import ApiError, MediaError, MediaNotFoundError, ServerError
from tests.support.servers import Server, Step, info, json_response, page
from tests.transfer.downloads import CONTENT, JPEG, SHA256, TOKEN, client, known, targets

EXPIRED = page("URL signature expired", 400, content_type="text/plain")
MEDIA = page(CONTENT, content_type=JPEG)

NOT_THE_MEDIA: dict[str, Step] = {
    **{
        f"{status}": page("no", status)
        for status in (400, 401, 402, 403, 404, 405, 406, 409, 410, 414, 418, 422, 451, 499)
    },
    "signature expired": EXPIRED,
    "Graph's envelope, 404": json_response({"error": {"message": "x", "code": 1, "is_transient": False}}, 404),
    "an HTML page": page("<html>Log in</html>", content_type="text/html; charset=utf-8"),
    "a redirect to elsewhere": page(status=302, location="https://example.com/login"),
    "a redirect to plain http": page(status=302, location="http://lookaside.fbsbx.com/x"),
    "a redirect without a target": page(status=302),
    "a redirect to itself": page(status=302, location="/old"),
    "no content": page("", 204),
    "a part that was not asked for": page(CONTENT[:5], 206, content_range=f"bytes 0-4/{len(CONTENT)}"),
}


def of_a_webhook(url: str | None) -> InboundMedia:
    """What a webhook says of `CONTENT`."""
    return InboundMedia(id="1", kind="image", mime_type=JPEG, sha256=SHA256, url=url)


@pytest.mark.parametrize("answer", NOT_THE_MEDIA)
@pytest.mark.parametrize("origin", ["webhook", "info"])
async def test_what_is_not_the_media(server: Server, scripted: MediaApi, answer: str, origin: str) -> None:
    """A URL that leads to anything else is replaced, once and at once, without a retry."""
    hops = 6 if "itself" in answer else 1
    what = of_a_webhook(f"{server.base_url}/old") if origin == "webhook" else known(server)
    server.script = [*[NOT_THE_MEDIA[answer]] * hops, info(f"{server.base_url}/new", CONTENT), MEDIA]
    assert await scripted.read(what) == CONTENT
    assert targets(server) == [*["/old"] * hops, "/v25.0/1", "/new"]


@pytest.mark.parametrize(
    "url", ["", None, "https://example.com/x", "http://lookaside.fbsbx.com/x", "nonsense", "//x/y"]
)
async def test_urls_that_are_not_opened(server: Server, scripted: MediaApi, url: str | None) -> None:
    """An empty URL, or one of a host that is not trusted, is replaced without being opened."""
    server.script = [info(f"{server.base_url}/new", CONTENT), MEDIA]
    assert await scripted.read(of_a_webhook(url)) == CONTENT
    assert targets(server) == ["/v25.0/1", "/new"]
    assert [request.header("authorization") for request in server.requests] == [f"Bearer {TOKEN}"] * 2


@pytest.mark.parametrize("answer", sorted(set(NOT_THE_MEDIA) - {"a redirect to itself"}))
async def test_one_fresh_url(server: Server, scripted: MediaApi, answer: str) -> None:
    """If the fresh URL leads to no media either, that is the error; no third one is asked for."""
    server.script = [NOT_THE_MEDIA[answer], info(f"{server.base_url}/new", CONTENT), NOT_THE_MEDIA[answer]]
    with pytest.raises(MediaError) as caught:
        await scripted.read(known(server))
    assert (targets(server), caught.value.attempts) == (["/old", "/v25.0/1", "/new"], 3)


@pytest.mark.parametrize("status", [404, 410])
async def test_a_url_that_was_looked_up_a_moment_ago(server: Server, scripted: MediaApi, status: int) -> None:
    """A URL that this call has looked up, and that leads to nothing yet, is looked up once more."""
    answer = info(f"{server.base_url}/new", CONTENT)
    server.script = [answer, page(status=status), answer, MEDIA]
    assert await scripted.read("1") == CONTENT
    assert targets(server) == ["/v25.0/1", "/new"] * 2
    server.script, server.requests = [answer, page(status=status), answer, page(status=status)], []
    with pytest.raises(MediaNotFoundError):
        await scripted.read("1")
    assert targets(server) == ["/v25.0/1", "/new"] * 2


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_a_host_that_is_busy(server: Server, status: int) -> None:
    """After a failure of the host, the second attempt waits as any does, and is made with a fresh URL."""
    async with client(server, max_retries=1, backoff=0.001) as media:
        server.script = [page("busy", status), info(f"{server.base_url}/new", CONTENT), MEDIA]
        assert await media.read(known(server)) == CONTENT
        assert targets(server) == ["/old", "/v25.0/1", "/new"]
        server.script, server.requests = (
            [page("busy", status), info(f"{server.base_url}/new"), page("busy", status)],
            [],
        )
        with pytest.raises(ApiError):
            await media.read(known(server))
        assert targets(server) == ["/old", "/v25.0/1", "/new"]


async def test_an_error_that_is_served_as_a_success(server: Server) -> None:
    """Wrong bytes of another type than the media's are not fetched from the same URL again."""
    async with client(server, max_retries=1, backoff=0.001) as media:
        server.script = [
            json_response({"error": {"message": "expired"}}),
            info(f"{server.base_url}/new", CONTENT),
            MEDIA,
        ]
        assert await media.read(of_a_webhook(f"{server.base_url}/old")) == CONTENT
        assert targets(server) == ["/old", "/v25.0/1", "/new"]


async def test_a_lookup_that_fails(server: Server, scripted: MediaApi) -> None:
    """Where the id is not known any more, that is the error, and it is looked up once."""
    gone = json_response({"error": {"message": "Unsupported get request", "code": 100, "error_subcode": 33}}, 400)
    server.script = [EXPIRED, gone]
    with pytest.raises(MediaNotFoundError) as caught:
        await scripted.read(known(server))
    assert (targets(server), caught.value.subcode) == (["/old", "/v25.0/1"], 33)
    server.script, server.requests = [EXPIRED, page("", 404)], []
    with pytest.raises(MediaNotFoundError):
        await scripted.read(known(server))
    assert targets(server) == ["/old", "/v25.0/1"]


@pytest.mark.parametrize("answer", ["400", "an HTML page", "a redirect without a target"])
async def test_a_bare_url(server: Server, scripted: MediaApi, answer: str) -> None:
    """Without an id there is nothing to look up; a page of HTML may then be the media."""
    server.script = [NOT_THE_MEDIA[answer]]
    if "HTML" in answer:
        assert await scripted.read(f"{server.base_url}/old") == b"<html>Log in</html>"
    else:
        with pytest.raises(ApiError):
            await scripted.read(f"{server.base_url}/old")
    assert targets(server) == ["/old"]


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize(
    "said",
    [
        {"error": {"message": "(#1) An unknown error occurred", "code": 1}},
        {"error": {"message": "Session has expired", "code": 190}},
        {"title": "Not Found", "detail": "Media not found", "status": 404},
        {},
    ],
    ids=["code 1", "code 190", "a problem document", "nothing"],
)
async def test_what_a_missing_file_raises(server: Server, scripted: MediaApi, status: int, said: Any) -> None:
    """A 404 or 410 of the download host is a MediaNotFoundError, whatever its envelope says, and is not retried."""
    server.script = [json_response(said, status)]
    with pytest.raises(MediaNotFoundError) as caught:
        await scripted.with_options(max_retries=2).read(f"{server.base_url}/old")
    assert (caught.value.status, targets(server)) == (status, ["/old"])


# Parts


def ranged(content: bytes = CONTENT, *, honest: bool = True, size: bool = True) -> Step:
    """Serve a file as a web server does, or as one that knows no ranges."""

    async def step(request: Any, writer: asyncio.StreamWriter) -> None:
        asked = request.header("range") if honest else None
        if asked is None:
            writer.write(page(content, content_type=JPEG) if size else unframed(content))
            return
        first, last = asked.removeprefix("bytes=").split("-")
        start, end = int(first), min(int(last or len(content)) + 1, len(content))
        if start >= len(content):
            writer.write(page("", 416, content_range=f"bytes */{len(content)}"))
        else:
            place = f"bytes {start}-{end - 1}/{len(content)}"
            writer.write(page(content[start:end], 206, content_type=JPEG, content_range=place))

    return step


def unframed(content: bytes) -> bytes:
    """Write a reply that does not announce its length."""
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(content), content)


SIZE = len(CONTENT)
PARTS = [
    (0, 1),
    (0, 10_000),
    (5, 6),
    (1, None),
    (SIZE - 1, None),
    (9_999, 20_001),
    (100, SIZE),
    (100, SIZE + 7),
    (0, SIZE),
]


@pytest.mark.parametrize(("start", "end"), PARTS)
@pytest.mark.parametrize("origin", ["info", "webhook", "url"])
@pytest.mark.parametrize("honest", [True, False], ids=["ranges", "no ranges"])
async def test_parts(
    server: Server, scripted: MediaApi, start: int, end: int | None, origin: str, honest: bool
) -> None:
    """A part is exactly the bytes from start to end, whether the server knows ranges or sends everything."""
    url = f"{server.base_url}/old"
    server.script = [ranged(honest=honest)]
    what: Any = {"info": known(server), "webhook": of_a_webhook(url), "url": url}[origin]
    async with scripted.stream(what, start=start, end=end) as stream:
        assert stream.size == len(CONTENT[start:end])
        assert b"".join([chunk async for chunk in stream]) == CONTENT[start:end]
    whole = (start, end) == (0, SIZE)
    assert stream.verified is (whole and origin != "url")
    asked = server.requests[0].header("range")
    assert asked == (None if whole and origin == "info" else f"bytes={start}-{'' if end is None else end - 1}")
    assert len(server.requests) == 1


async def test_a_part_of_a_file_of_unknown_size(server: Server, scripted: MediaApi) -> None:
    """Where nothing says the size, the part ends where it was to end, or with the file."""
    server.script = [ranged(honest=False, size=False)]
    for end in (50, SIZE + 1):
        async with scripted.stream(f"{server.base_url}/old", start=3, end=end) as stream:
            assert (stream.size, await stream.read()) == (None, CONTENT[3:end])


@pytest.mark.parametrize(
    ("start", "end"), [(-1, None), (0, 0), (5, 5), (9, 3), (True, None), (1.5, None), (0, "9"), (None, 1)]
)
async def test_what_is_no_part(server: Server, scripted: MediaApi, start: Any, end: Any) -> None:
    """Offsets that are no whole numbers, and parts without a byte, are refused before any request."""
    with pytest.raises(MediaError, match=r"^(start|end) "):
        await scripted.stream(known(server), start=start, end=end).read()
    assert server.connections == 0


@pytest.mark.parametrize("honest", [True, False], ids=["ranges", "no ranges"])
async def test_a_start_beyond_the_end(server: Server, scripted: MediaApi, honest: bool) -> None:
    """A part that begins behind the end is refused: before any request where the size is known."""
    server.script = [ranged(honest=honest)]
    for what, requests in ((known(server), 0), (f"{server.base_url}/old", 1)):
        with pytest.raises(MediaError, match=f"start must be below the media's {SIZE} bytes, not {SIZE}"):
            await scripted.stream(what, start=SIZE).read()
        assert len(server.requests) == requests


@pytest.mark.parametrize("honest", [True, False], ids=["ranges", "no ranges"])
async def test_a_part_that_breaks_off(server: Server, honest: bool) -> None:
    """A part is resumed at its next byte, by a range or from the start."""

    async def broken(request: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(page(CONTENT[1000:61_000], 206, length=200_000, content_range=f"bytes 1000-200999/{SIZE}"))
        writer.close()

    server.script = [broken, ranged(honest=honest)]
    async with client(server, max_retries=1, backoff=0.001) as media:
        async with media.stream(known(server), start=1_000, end=201_000) as stream:
            assert await stream.read() == CONTENT[1_000:201_000]
        assert [request.header("range") for request in server.requests] == ["bytes=1000-200999", "bytes=61000-200999"]


async def test_a_part_that_ends_too_early(server: Server, scripted: MediaApi) -> None:
    """The length of a part is verified."""
    place = f"bytes 10-99/{SIZE}"
    head = f"HTTP/1.1 206 Part\r\nconnection: close\r\ncontent-range: {place}\r\n\r\n".encode()
    server.script = [head + CONTENT[10:50]]
    with pytest.raises(MediaError, match="40 bytes, not the promised 90"):
        await scripted.stream(known(server, sha256=None), start=10, end=100).read()


async def test_a_part_by_a_fresh_url(server: Server, scripted: MediaApi) -> None:
    """A part is asked for again at the fresh URL."""
    server.script = [page("", 403), info(f"{server.base_url}/new", CONTENT), ranged()]
    assert await scripted.stream(known(server), start=5, end=9).read() == CONTENT[5:9]
    assert [(request.target, request.header("range")) for request in server.requests] == [
        ("/old", "bytes=5-8"),
        ("/v25.0/1", None),
        ("/new", "bytes=5-8"),
    ]


async def test_a_server_that_refuses_a_part(server: Server) -> None:
    """A server that answers a range with an error is asked for everything."""
    async with client(server, max_retries=1, backoff=0.001) as media:
        server.script = [page("", 400), MEDIA]
        assert await media.stream(known(server), start=5, end=9).read() == CONTENT[5:9]
        server.script, server.requests = [page("", 400)], []
        with pytest.raises(ServerError, match="serves no parts"):
            await media.with_options(max_retries=0).stream(known(server), start=5, end=9).read()
