"""`Source.url`: a file of the public internet is sent while it is fetched."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import random
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from meta_media import MediaApi, MediaLibrary, MemoryStore, Source, samples
from meta_media.emulator import Emulator, Fault
from meta_media.errors import (
    ConfigurationError,
    CorruptedMediaError,
    DownloadError,
    DownloadTooLargeError,
    FileTooLargeError,
    MediaError,
    NetworkError,
    TransferTimeoutError,
    UnsupportedMediaTypeError,
    UntrustedUrlError,
)
from tests.support.boxes import mp4, sound, video
from tests.support.internet import PUBLIC, Internet, internet
from tests.support.servers import Received, Server, cut, endless, page, silence
from tests.support.stepping import Stepper, descriptors, none_added, settled_at
from tests.transfer.uploads import LONG, TEXT

PHOTO = next(path for path in samples.paths() if path.name == "photo.jpg").read_bytes()
NAME = "files.example"
URL = f"https://{NAME}/photos/photo%20one.jpg?X-Signature=canary"


@pytest.fixture
async def world(tmp_path: Path, emulator: Emulator) -> AsyncIterator[Internet]:
    """A public internet, and the emulator."""
    async with internet(tmp_path, int(emulator.base_url.rpartition(":")[2])) as made:
        yield made


@pytest.fixture
async def media(emulator: Emulator) -> AsyncIterator[MediaApi]:
    """A client for the emulator, which hardly waits before a retry."""
    async with emulator.api(backoff=0.001) as api:
        yield api


async def test_a_file_is_uploaded_from_its_url(world: Internet, media: MediaApi, emulator: Emulator) -> None:
    """Bytes, name and type are those of the response; one connection is made, to the address that was judged."""
    server = await world.serve(NAME, page(PHOTO, content_type="image/jpeg"))
    uploaded = await media.upload(Source.url(URL))
    assert await media.read(uploaded.id) == PHOTO
    assert (uploaded.filename, uploaded.mime_type, uploaded.file_size) == ("photo one.jpg", "image/jpeg", len(PHOTO))
    (request,) = server.requests
    assert request.target == "/photos/photo%20one.jpg?X-Signature=canary"
    assert request.header("host") == NAME
    assert request.header("accept-encoding") == "identity"
    assert request.header("authorization") is None
    assert request.header("cookie") is None
    assert emulator.access_token not in str(request)
    assert (world.looked_up, world.connected) == ([NAME], [(PUBLIC, 443)])


async def stored(media: MediaApi, source: Source, **options: Any) -> bytes:
    """Upload, and return what Meta has then."""
    uploaded = await media.upload(source, **options)
    return await media.read(uploaded.id)


NAMED: dict[str, tuple[str, dict[str, Any], str]] = {
    "path": ("/a/report.txt?name=other.txt", {}, "report.txt"),
    "disposition": ("/download?id=1", {"content_disposition": 'attachment; filename="a.txt"'}, "a.txt"),
    "encoded": ("/x.txt", {"content_disposition": "attachment; filename*=UTF-8''%C3%A4.txt"}, "ä.txt"),
    "encoded path": ("/a/%E4%B8%AD%2F..%2Fb.txt", {}, "b.txt"),
    "folder": ("/a/", {}, "a.txt"),
    "root": ("/?name=other.txt", {}, "media.txt"),
    "program": ("/get.php?f=1", {}, "get.php.txt"),
}


@pytest.mark.parametrize("case", NAMED)
async def test_names_are_of_the_response_or_the_path(case: str, world: Internet, media: MediaApi) -> None:
    """Content-Disposition outranks the last part of the path, and the query is never part of a name."""
    target, headers, expected = NAMED[case]
    await world.serve(NAME, page(TEXT, content_type="text/plain", **headers))
    assert (await media.upload(Source.url(f"https://{NAME}{target}"))).filename == expected


@pytest.mark.parametrize("served", ["image/jpeg", "application/octet-stream", None])
async def test_the_type_is_of_the_bytes(served: str | None, world: Internet, media: MediaApi) -> None:
    """The response's type is a hint, and the signature outranks it."""
    await world.serve(NAME, page(PHOTO, content_type=served) if served else page(PHOTO))
    uploaded = await media.upload(Source.url(f"https://{NAME}/x"))
    assert (uploaded.mime_type, uploaded.filename) == ("image/jpeg", "x.jpg")


async def test_a_file_of_known_size_is_sent_as_it_comes(world: Internet, media: MediaApi, emulator: Emulator) -> None:
    """The request to Meta begins while the file is still fetched, and nothing is stored."""
    begun = asyncio.Event()

    async def half(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(page(LONG[: len(LONG) // 2], length=len(LONG), content_type="text/plain"))
        await begun.wait()
        writer.write(LONG[len(LONG) // 2 :])

    await world.serve(NAME, half)
    content = await stored(media, Source.url(f"https://{NAME}/a.txt"), progress=lambda _: begun.set())
    assert content == LONG


@pytest.mark.parametrize("framed", ["chunked", "closed"])
async def test_a_file_of_unknown_size_is_spooled(framed: str, world: Internet, media: MediaApi) -> None:
    """A response without a length is stored first, because Meta needs one."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"
    chunked = head + b"transfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(LONG), LONG)
    await world.serve(NAME, chunked if framed == "chunked" else page(LONG, length=None), port=80, tls=False)
    assert await stored(media, Source.url(f"http://{NAME}/a.txt")) == LONG


STATUSES = {
    401: "Authorization",
    403: "may have expired",
    404: "check the URL",
    410: "was removed",
    418: "leads to the file",
}


@pytest.mark.parametrize("status", [*STATUSES, 204, 206, 304, 302])
async def test_other_statuses_are_typed(status: int, world: Internet, media: MediaApi, emulator: Emulator) -> None:
    """What is not the file is one `DownloadError`, which names the host and says what to do, and not the query."""
    server = await world.serve(NAME, page("canary", status))
    with pytest.raises(DownloadError, match=f"^files.example responded with HTTP {status} where") as caught:
        await media.upload(Source.url(URL))
    assert type(caught.value) is DownloadError
    assert STATUSES.get(status, "leads to the file") in str(caught.value)
    assert "canary" not in str(caught.value)
    assert (caught.value.operation, caught.value.attempts, caught.value.retryable) == ("download", 1, False)
    assert (len(server.requests), emulator.requests) == (1, [])


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_a_busy_server_is_asked_again(
    status: int, world: Internet, media: MediaApi, caplog: pytest.LogCaptureFixture
) -> None:
    """It is retried as often as the settings say, and no more often because an upload waits for it. Each retry is logged."""
    caplog.set_level(logging.INFO, "meta_media")
    server = await world.serve(NAME, page("busy", status), page(PHOTO))
    assert await stored(media, Source.url(URL)) == PHOTO
    server.script = [page("busy", status)]
    with pytest.raises(DownloadError, match="try again later") as caught:
        await media.upload(Source.url(URL))
    assert (caught.value.attempts, caught.value.retryable, len(server.requests)) == (3, True, 5)
    retries = [record.getMessage() for record in caplog.records if "fetching again" in record.getMessage()]
    assert len(retries) == 3
    assert all(line.startswith(f"{NAME}: ") and "canary" not in line for line in retries)


async def test_connections_are_tried_again(world: Internet, media: MediaApi, caplog: pytest.LogCaptureFixture) -> None:
    """A connection that fails before the response is retried, and becomes a `NetworkError`. The log has the host only."""
    server = await world.serve(NAME, cut(b""), page(PHOTO))
    assert await stored(media, Source.url(URL)) == PHOTO
    server.script = [cut(b"")]
    caplog.set_level(logging.DEBUG, "meta_media")
    with pytest.raises(NetworkError, match=f"^download at {NAME}: ") as caught:
        await media.upload(Source.url(URL))
    assert (caught.value.operation, caught.value.attempts, caught.value.maybe_applied) == ("download", 3, False)
    seen = [text for record in caplog.records if NAME in (text := record.getMessage()) and record.levelname == "DEBUG"]
    assert len(seen) == 3
    assert not any("canary" in line or "photo" in line for line in seen)


async def test_unknown_hosts_are_network_errors(world: Internet, media: MediaApi) -> None:
    """A name without an address is no public one either: nothing was sent."""
    with pytest.raises(
        NetworkError, match=r"nowhere\.example: could not connect \(Name or service not known\)"
    ) as caught:
        await media.with_options(max_retries=0).upload(Source.url("https://nowhere.example/"))
    assert (caught.value.attempts, world.connected) == (0, [])


def head(start: int, size: int, **headers: str) -> bytes:
    """Write the head of a response with `LONG` from an offset."""
    status = 206 if start else 200
    if start:
        headers["content_range"] = f"bytes {start}-{size - 1}/{size}"
    return page(b"", status, length=size - start, content_type="text/plain", **headers)


HALF = len(LONG) // 2 + 1234


async def test_a_broken_transfer_goes_on_by_range(world: Internet, media: MediaApi) -> None:
    """A server with a strong ETag is asked for the rest, of the same file (If-Range)."""
    tag = '"v1"'
    server = await world.serve(
        NAME, cut(head(0, len(LONG), etag=tag) + LONG[:HALF]), head(HALF, len(LONG), etag=tag) + LONG[HALF:]
    )
    assert await stored(media, Source.url(f"https://{NAME}/a.txt")) == LONG
    first, second = server.requests
    assert (first.header("range"), first.header("if-range")) == (None, None)
    assert (second.header("range"), second.header("if-range")) == (f"bytes={HALF}-", tag)


async def test_a_part_may_be_cut_and_short(world: Internet, media: MediaApi) -> None:
    """A part that breaks off at its first byte, or ends before the end of the file, is followed by another one."""
    tag, middle = '"v1"', HALF + 5000
    short = page(LONG[HALF:middle], 206, content_range=f"bytes {HALF}-{middle - 1}/*", etag=tag)
    server = await world.serve(
        NAME,
        cut(head(0, len(LONG), etag=tag) + LONG[:HALF]),
        cut(head(HALF, len(LONG), etag=tag)),
        short,
        head(middle, len(LONG), etag=tag) + LONG[middle:],
    )
    assert await stored(media.with_options(max_retries=3), Source.url(f"https://{NAME}/a.txt")) == LONG
    asked = [request.header("range") for request in server.requests]
    assert asked == [None, f"bytes={HALF}-", f"bytes={HALF}-", f"bytes={middle}-"]


async def test_a_compressed_part_is_refused(world: Internet, media: MediaApi) -> None:
    """The rest of a file is no other coding of it."""
    tag = '"v1"'
    rest = head(HALF, len(LONG), etag=tag, content_encoding="br") + LONG[HALF:]
    await world.serve(NAME, cut(head(0, len(LONG), etag=tag) + LONG[:HALF]), rest)
    with pytest.raises(DownloadError, match="compressed the file"):
        await media.upload(Source.url(f"https://{NAME}/a.txt"))


async def test_what_the_end_decides_is_seen(world: Internet, media: MediaApi) -> None:
    """A file whose type its end decides is stored first, and judged like any file."""
    for audio, refused in ((b"ac-3", True), (b"mp4a", False)):
        clip = mp4(video(), sound(audio), media=200_000, last=True)
        await world.serve(NAME, page(clip, content_type="video/mp4"))
        if not refused:
            assert await stored(media, Source.url(f"https://{NAME}/a.mp4")) == clip
            continue
        with pytest.raises(UnsupportedMediaTypeError, match="video with"):
            await media.upload(Source.url(f"https://{NAME}/a.mp4"))


async def test_certificates_that_cannot_be_loaded(
    world: Internet, media: MediaApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is an error of the configuration, before anything is sent."""
    (tmp_path / "none.pem").write_text("no certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(ConfigurationError, match=r"^SSL_CERT_FILE .*cannot be used"):
        await media.upload(Source.url(URL))
    assert world.looked_up == []


REST = {
    "no ETag": ({}, None),
    "weak ETag": ({"etag": 'W/"v1"'}, None),
    "no ranges": ({"etag": '"v1"'}, f"bytes={HALF}-"),
}


@pytest.mark.parametrize("case", REST)
@pytest.mark.parametrize("spooled", [False, True])
async def test_a_broken_transfer_begins_anew(case: str, spooled: bool, world: Internet, media: MediaApi) -> None:
    """Elsewhere the file is fetched again, and goes on behind bytes that are the same as before."""
    headers, asked = REST[case]
    whole = head(0, len(LONG), **headers) + LONG
    if spooled:  # the server gives no length, and breaks off in the middle of a chunk
        line = head(0, len(LONG), **headers).replace(b"content-length: %d" % len(LONG), b"transfer-encoding: chunked")
        whole = line + b"%x\r\n%s\r\n0\r\n\r\n" % (len(LONG), LONG)
    server = await world.serve(NAME, cut(whole[: HALF + 200]), whole)
    assert await stored(media, Source.url(f"https://{NAME}/a.txt")) == LONG
    rest = server.requests[1].header("range")
    assert (rest is None) is (asked is None)


@pytest.mark.parametrize(
    "wrong",
    [
        page("no", 416),
        page("no", 412),
        page(LONG[:10], 206, content_range=f"bytes 0-9/{len(LONG)}"),
        page(LONG[HALF:], 206, content_range=f"bytes {HALF}-{len(LONG) - 1}/{len(LONG) + 1}"),
        page(LONG[HALF:], 206),
    ],
)
async def test_a_server_without_parts_is_asked_for_all(wrong: bytes, world: Internet, media: MediaApi) -> None:
    """A part that is not the one that was asked for is not used: the whole file is fetched again."""
    tag = {"etag": '"v1"'}
    server = await world.serve(
        NAME, cut(head(0, len(LONG), **tag) + LONG[:HALF]), wrong, head(0, len(LONG), **tag) + LONG
    )
    assert await stored(media, Source.url(f"https://{NAME}/a.txt")) == LONG
    assert [request.header("range") for request in server.requests] == [None, f"bytes={HALF}-", None]


CHANGED = {
    "length": head(0, len(LONG) + 1) + LONG + b"x",
    "bytes": head(0, len(LONG)) + b"X" + LONG[1:],
    "end": head(0, len(LONG)).replace(b"content-length: %d" % len(LONG), b"connection: close"),
}


@pytest.mark.parametrize("case", CHANGED)
async def test_a_file_that_changed_is_refused(case: str, world: Internet, media: MediaApi, emulator: Emulator) -> None:
    """Two parts of different files are never joined."""
    await world.serve(NAME, cut(head(0, len(LONG)) + LONG[:HALF]), cut(CHANGED[case]))
    with pytest.raises(CorruptedMediaError, match=r"the file at files\.example changed while it was fetched"):
        await media.upload(Source.url(f"https://{NAME}/a.txt"))
    assert not [stored for stored in emulator.requests if stored.method == "GET"]


async def test_a_failed_upload_fetches_the_file_again(world: Internet, media: MediaApi, emulator: Emulator) -> None:
    """Where Meta fails, the source is begun anew."""
    server = await world.serve(NAME, head(0, len(LONG)) + LONG)
    emulator.fail("upload", Fault.error(2, 503), times=2)
    assert await stored(media, Source.url(f"https://{NAME}/a.txt")) == LONG
    assert len(server.requests) == 3


async def test_another_first_part_is_refused(world: Internet, media: MediaApi, emulator: Emulator) -> None:
    """The type was decided by the first bytes: a second attempt sends no file that begins in another way."""
    await world.serve(NAME, head(0, len(LONG)) + LONG, head(0, len(LONG)) + b"X" + LONG[1:])
    emulator.fail("upload", Fault.error(2, 503))
    with pytest.raises(CorruptedMediaError, match="the source changed while it was sent"):
        await media.upload(Source.url(f"https://{NAME}/a.txt"))


async def test_a_compressed_file_is_refused(world: Internet, media: MediaApi) -> None:
    """The request accepts `identity` only, and nothing is unpacked."""
    await world.serve(NAME, page(PHOTO, content_encoding="gzip"))
    with pytest.raises(DownloadError, match=r"files\.example compressed the file, although .*, and pass the response$"):
        await media.upload(Source.url(URL))
    await world.serve(NAME, page(PHOTO, content_encoding="identity"))
    assert await stored(media, Source.url(URL)) == PHOTO


CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n"
PIECE = b"10000\r\n" + bytes(65536).replace(b"\0", b"a") + b"\r\n"


@pytest.mark.parametrize("known", [False, True])
async def test_max_size(known: bool, world: Internet, media: MediaApi, emulator: Emulator) -> None:
    """The fetch ends before anything is sent to Meta, by the Content-Length or after so many bytes."""
    whole = head(0, len(TEXT)) + TEXT if known else endless(CHUNKED, PIECE)
    server = await world.serve(NAME, whole)
    with pytest.raises(DownloadTooLargeError, match=r"more than max_size, which is 100000$") as caught:
        await media.upload(Source.url(f"https://{NAME}/a.txt", max_size=100_000))
    assert (caught.value.limit, caught.value.actual) == (100_000, len(TEXT) if known else 131_072)
    assert (len(server.requests), emulator.requests) == (1, [])
    if known:
        assert await stored(media, Source.url(f"https://{NAME}/a.txt", max_size=len(TEXT))) == TEXT


async def test_a_server_that_never_ends(world: Internet, media: MediaApi, emulator: Emulator) -> None:
    """Without a `max_size`, WhatsApp's own limit for the type ends the fetch."""
    jpeg = endless(CHUNKED.replace(b"text/plain", b"image/jpeg"), b"10000\r\n" + PHOTO[:4] + bytes(65532) + b"\r\n")
    await world.serve(NAME, jpeg)
    with pytest.raises(FileTooLargeError, match="accepts at most 5,242,880"):
        await media.upload(Source.url(URL))
    assert emulator.requests == []


async def test_a_declared_size_beyond_all_limits(world: Internet, media: MediaApi, emulator: Emulator) -> None:
    """It is refused by its Content-Length."""
    await world.serve(NAME, page(PHOTO, content_type="image/jpeg", length=10**18))
    with pytest.raises((FileTooLargeError, NetworkError)):
        await media.with_options(max_retries=0, read_timeout=0.2).upload(Source.url(URL))
    assert emulator.requests == []


SLOW: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no response": (silence, {"read_timeout": 0.2}, "read"),
    "no more bytes": (page(PHOTO[:100], length=len(PHOTO)), {"read_timeout": 0.2}, "read"),
    "a trickle": (endless(CHUNKED, b"1\r\na\r\n", 0.01), {"read_timeout": 0.2, "minimum_rate": 100_000}, "rate"),
    "deadline": (endless(CHUNKED, b"1\r\na\r\n", 0.01), {"deadline": 0.3, "minimum_rate": 0}, "deadline"),
}


@pytest.mark.parametrize("case", SLOW)
async def test_a_slow_server(case: str, world: Internet, media: MediaApi, emulator: Emulator) -> None:
    """Timeouts, minimum rate and deadline are those of the settings."""
    step, settings, phase = SLOW[case]
    await world.serve(NAME, step)
    with pytest.raises(TransferTimeoutError, match=f"^download at {NAME}: ") as caught:
        await media.with_options(max_retries=0, **settings).upload(Source.url(URL))
    assert (caught.value.phase, caught.value.operation, emulator.requests) == (phase, "download", [])


async def test_a_retry_that_the_deadline_forbids(world: Internet, media: MediaApi) -> None:
    """No wait is longer than the time that is left."""
    server = await world.serve(NAME, page("busy", 503))
    random.seed(2)  # the first wait is 0.95 of the longest
    with pytest.raises(DownloadError, match="HTTP 503"):
        await media.with_options(deadline=6.0, backoff=8.0).upload(Source.url(URL))
    assert len(server.requests) == 1


async def test_every_user_of_sources_takes_one(world: Internet, media: MediaApi, tmp_path: Path) -> None:
    """A library, a run, a handle and `repackage` fetch with the client's settings, too."""
    server = await world.serve(NAME, page("busy", 503), page(PHOTO, content_type="image/jpeg"))
    source = Source.url(f"https://{NAME}/a.jpg")
    entry = await MediaLibrary(media, MemoryStore()).ensure(source)
    assert entry.sha256 == hashlib.sha256(PHOTO).hexdigest()
    async with media.upload_many([source, source], journal=tmp_path / "run.sqlite") as run:
        outcomes = [outcome.result() async for outcome in run]
    assert [uploaded.filename for uploaded in outcomes] == ["a.jpg"] * 2
    assert (await media.upload_handle(source)).file_size == len(PHOTO)
    assert (await media.upload(source, repackage=True)).file_size == len(PHOTO)
    assert len(server.requests) == 6


class Recording:
    """An object of a user's, with the URL of a file."""

    def __media_source__(self) -> Source:
        """Return its file."""
        return Source.url(f"https://{NAME}/a.jpg")


async def test_an_object_may_have_a_url(world: Internet, media: MediaApi) -> None:
    """`__media_source__` may return one."""
    await world.serve(NAME, page(PHOTO))
    assert (await media.upload(Recording())).file_size == len(PHOTO)


async def test_one_bad_url_disturbs_no_other(world: Internet, media: MediaApi) -> None:
    """A stranger's URL is judged when it is opened: the iteration over a run's sources goes on."""
    await world.serve(NAME, page(PHOTO))
    urls = ["https://127.0.0.1/", f"https://{NAME}/a.jpg", "no URL", f"https://{NAME}/b.jpg"]
    report = await media.upload_many(Source.url(url) for url in urls).report()
    assert (report.succeeded, report.failed) == (2, 2)
    assert {type(outcome.error) for outcome in report.failures} == {UntrustedUrlError}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"url": b"https://a.example"}, "url must be a str, not bytes"),
        ({"url": URL, "max_size": 0}, "max_size must be a whole number above zero"),
        ({"url": URL, "headers": [("a", "b")]}, "headers must be a mapping"),
        ({"url": URL, "headers": {"Range": "bytes=0-"}}, "headers must not have Range"),
    ],
)
def test_arguments_are_checked_at_once(options: dict[str, Any], problem: str) -> None:
    """What is wrong in the caller's own code is raised where it stands."""
    with pytest.raises(ConfigurationError, match=problem):
        Source.url(**options)


def test_nothing_is_shown() -> None:
    """A source shows neither the URL, which may be signed, nor the headers."""
    source = Source.url(URL + "&canary", headers={"Authorization": "canary"})
    assert "canary" not in repr(source)


async def test_no_secret_is_in_a_traceback(world: Internet, media: MediaApi) -> None:
    """Signature, headers and token are in no message, no note and no local variable that a report shows."""
    signed = Source.url(URL, headers={"Authorization": "Bearer canary-of-a-key"})
    for step in (page("canary", 404), cut(b""), cut(page(PHOTO, length=len(LONG)))):
        await world.serve(NAME, step)
        with pytest.raises(MediaError) as caught:
            await media.with_options(max_retries=0).upload(signed)
        shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        own = [frame for frame in shown.stack if "meta_media" in frame.filename]
        text = str(caught.value) + "".join(str(frame.locals) for frame in own)
        assert "canary" not in text
        assert str(media.token.identity) not in text


async def test_a_proxy_is_told_the_address_that_was_judged(
    world: Internet, media: MediaApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would look the name up anew: it is told the address, and TLS is with the name. IPv4 is told where there is one."""
    told = []

    async def tunnel(request: Received, writer: asyncio.StreamWriter) -> None:
        told.append((request.method, request.target, request.header("host")))
        there, back = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        reader: asyncio.StreamReader = writer._protocol._stream_reader  # type: ignore[attr-defined]  # of the server
        await asyncio.gather(passed(reader, back), passed(there, writer))

    async def passed(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(2**16):
            sink.write(data)
        sink.close()

    server = await world.serve(NAME, page(PHOTO, content_type="image/jpeg"))
    world.names[NAME] = [["2606:4700::1111", PUBLIC]]
    async with Server(tunnel) as proxy:
        world.own_ports.add(proxy.port)
        monkeypatch.setenv("HTTPS_PROXY", proxy.base_url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,other.example")
        assert await stored(media, Source.url(URL)) == PHOTO
        assert told == [("CONNECT", f"{PUBLIC}:443", f"{PUBLIC}:443")]
        assert world.connected == []
        await world.serve("other.example", page(PHOTO), address="1.1.1.1")
        await media.upload(Source.url("https://other.example/"))
        assert world.connected == [("1.1.1.1", 443)]
        world.names[NAME] = [["10.0.0.1"]]
        with pytest.raises(UntrustedUrlError):
            await media.upload(Source.url(URL))
        proxy.script, world.names[NAME] = [page("no", 403)], [[PUBLIC]]
        with pytest.raises(NetworkError, match="the proxy refused with status 403"):
            await media.upload(Source.url(URL))
        assert len(told) == 1


async def test_a_source_needs_no_client(world: Internet) -> None:
    """Opened by itself, it has the default settings."""
    await world.serve(NAME, page(PHOTO, content_type="image/jpeg"))
    async with Source.url(URL).open() as body:
        assert (body.size, body.name, body.mime_type) == (len(PHOTO), "photo one.jpg", "image/jpeg")
        for _ in range(2):
            assert b"".join([bytes(chunk) async for chunk in body.chunks(lambda: 1000)]) == PHOTO


async def test_tls_that_is_cut_is_no_end(world: Internet, media: MediaApi) -> None:
    """Where only the end of the connection ends the file, TLS must end in order: else bytes may be missing."""

    async def hung_up(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(page(TEXT, length=None, content_type="text/plain"))
        await writer.drain()
        writer.transport.abort()

    await world.serve(NAME, hung_up)
    with pytest.raises(NetworkError):
        await media.with_options(max_retries=0).upload(Source.url(f"https://{NAME}/a.txt"))


async def fetched(name: str) -> bytes:
    """Read a file by itself, which is resumed once."""
    async with Source.url(f"https://{name}/a.txt").open() as body:
        return b"".join([bytes(chunk) async for chunk in body.chunks(lambda: 2**16)])


@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.slow)])
async def test_a_cancelled_fetch_leaves_nothing(step: int, world: Internet) -> None:
    """Cancelled at any await, it leaves no connection, no task and no file."""
    tag, part = '"v1"', LONG[: 2**18]
    whole, rest = head(0, len(part), etag=tag) + part, page(status=302, location=f"https://{NAME}/b")
    await world.serve("first.example", rest)
    server = await world.serve(NAME, b"", address="1.1.1.1")
    begun = cut(whole[: 2**17])

    async def fetch() -> bytes:
        server.script = [begun] * (len(server.requests) + 1) + [whole]
        return await fetched("first.example")

    calm = Stepper()
    assert (await calm.run(fetch)).result() == part
    for at in range(1, calm.count, step):
        before, stepper = descriptors(), Stepper(at)
        task = await stepper.run(fetch)
        if stepper.reached:
            assert task.cancelled(), at
        await settled_at([], functools.partial(getattr, stepper, "alive"))
        await none_added(before, descriptors)
