"""Downloads that break off: taken up where they stood, begun again where that is not to be had, and right in the end."""

from __future__ import annotations

import asyncio
import hashlib
import io
import pickle
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from meta_media import InboundMedia, MediaApi, MediaInfo, Progress, Settings
from meta_media.errors import IntegrityError, MediaError, MediaNotFoundError, NetworkError, ServerError
from meta_media.transfer.resume import MediaLocation
from tests.support.servers import Received, Server, Step, cut, info, json_response, page, reset

TOKEN = "EAAGscripted"
CONTENT = bytes(range(256)) * 1000
SIZE = len(CONTENT)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
JPEG = "image/jpeg"
HALF = 100_003  # in the middle of a chunk


@pytest.fixture
async def media(server: Server) -> AsyncIterator[MediaApi]:
    """A client that does not wait long between its tries."""
    settings = Settings(base_url=server.base_url, backoff=0.001, chunk_size=10_000)
    async with MediaApi(TOKEN, settings=settings) as api:
        yield api


def known(server: Server, **changes: Any) -> MediaInfo:
    """Make what Meta said of `CONTENT`."""
    facts: dict[str, Any] = {
        "id": "1",
        "url": f"{server.base_url}/a",
        "mime_type": JPEG,
        "sha256": SHA256,
        "file_size": SIZE,
    }
    return MediaInfo(**(facts | changes))


def renewed(server: Server, **changes: Any) -> bytes:
    """Write Meta's answer with another URL."""
    return info(f"{server.base_url}/b", CONTENT, **({"sha256": SHA256} | changes))


def part(start: int, content: bytes = CONTENT, **changes: Any) -> bytes:
    """Write the rest of a file."""
    said = f"bytes {start}-{len(content) - 1}/{len(content)}"
    return page(content[start:], 206, **({"content_type": JPEG, "content_range": said} | changes))


def half(broken: bool = True, **more: Any) -> Step:
    """Break off in the middle, by a reset or by hanging up."""
    said = page(CONTENT[:HALF], length=SIZE, content_type=JPEG, **more)
    return cut(said) if broken else reset(said)


async def streamed(media: MediaApi, what: MediaInfo) -> bytes:
    """Stream to the end."""
    async with media.stream(what) as stream:
        return b"".join([chunk async for chunk in stream])


def listing(folder: Path) -> list[str]:
    """Name what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def asked(server: Server) -> list[tuple[str, str | None]]:
    """List what was asked for, and from where."""
    return [(request.target, request.header("range")) for request in server.requests]


async def test_the_rest(server: Server, media: MediaApi) -> None:
    """What broke off goes on at the very byte."""
    server.script = [half(), part(HALF)]
    assert await media.read(known(server)) == CONTENT
    assert asked(server) == [("/a", None), ("/a", f"bytes={HALF}-")]


async def test_a_stream_goes_on(server: Server, media: MediaApi) -> None:
    """Who iterates over a stream does not notice; each byte comes once."""
    server.script = [half(), part(HALF)]
    async with media.stream(known(server)) as stream:
        chunks = [chunk async for chunk in stream]
    assert b"".join(chunks) == CONTENT
    assert {len(chunk) for chunk in chunks[:-1]} == {10_000}
    assert stream.sha256 == SHA256


async def test_handles_get_each_byte_once(server: Server, media: MediaApi) -> None:
    """A handle, whose bytes cannot be taken back, gets each of them once, and progress never goes back."""
    server.script = [half(), part(HALF)]
    told_of: list[Progress] = []
    handle = io.BytesIO()
    saved = await media.download(known(server), handle, progress=told_of.append)
    assert (handle.getvalue(), saved.size) == (CONTENT, SIZE)
    assert [step.transferred for step in told_of] == sorted({step.transferred for step in told_of})


async def test_again_and_again(server: Server, media: MediaApi) -> None:
    """Every try counts from where the one before it ended, however little it brought; then it is told."""
    server.script = [half(), cut(part(HALF)[: -(SIZE - HALF) + 7]), part(HALF + 7)]
    assert await media.read(known(server)) == CONTENT
    assert [start for _, start in asked(server)] == [None, f"bytes={HALF}-", f"bytes={HALF + 7}-"]
    server.script = [half()]
    with pytest.raises(NetworkError) as caught:
        await media.read(known(server))
    assert (caught.value.attempts, caught.value.media_id) == (3, "1")


async def test_a_server_without_ranges(server: Server, media: MediaApi) -> None:
    """Where a server sends all of it again, what is there already is passed over, and what follows is hashed after it."""
    server.script = [half(), page(CONTENT, content_type=JPEG)]
    async with media.stream(known(server)) as stream:
        assert b"".join([chunk async for chunk in stream]) == CONTENT
    assert (stream.sha256, len(server.requests)) == (SHA256, 2)


@pytest.mark.parametrize("status", [400, 416])
async def test_a_server_that_refuses_ranges(server: Server, media: MediaApi, status: int) -> None:
    """Where a server does not even answer, it is asked for all of it."""
    server.script = [half(), page("", status), page(CONTENT, content_type=JPEG)]
    assert await media.read(known(server)) == CONTENT
    assert [start for _, start in asked(server)] == [None, f"bytes={HALF}-", None]


@pytest.mark.parametrize(
    "said",
    [
        "",
        f"bytes {HALF + 1}-{SIZE - 1}/{SIZE}",
        f"bytes {HALF - 1}-{SIZE - 1}/{SIZE}",
        f"bytes {HALF}-{SIZE - 2}/{SIZE}",
        f"bytes {HALF}-{SIZE - 1}/{SIZE + 1}",
        f"bytes {HALF}-{SIZE}/{SIZE + 1}",
        f"bytes {HALF}-{SIZE - 1}/*",
        f"bytes */{SIZE}",
        f"items {HALF}-{SIZE - 1}/{SIZE}",
        f"bytes {HALF}-{SIZE - 1}/{SIZE}, bytes 0-1/{SIZE}",
    ],
)
async def test_another_part_than_was_asked_for(server: Server, media: MediaApi, said: str) -> None:
    """A part that is not exactly the rest is not used: all of it is asked for."""
    server.script = [half(), part(HALF, content_range=said), page(CONTENT, content_type=JPEG)]
    assert await media.read(known(server)) == CONTENT
    assert [start for _, start in asked(server)] == [None, f"bytes={HALF}-", None]


async def test_a_part_of_another_length(server: Server, media: MediaApi) -> None:
    """A part whose length is not what its range says is not used either."""
    said = f"bytes {HALF}-{SIZE - 1}/{SIZE}"
    wrong = page(CONTENT[HALF + 1 :], 206, content_type=JPEG, content_range=said)
    server.script = [half(), wrong, page(CONTENT, content_type=JPEG)]
    assert await media.read(known(server)) == CONTENT


async def test_a_part_nobody_asked_for(server: Server, media: MediaApi) -> None:
    """A part where all was asked for is not the media."""
    server.script = [part(0)]
    with pytest.raises(ServerError) as caught:
        await media.read(known(server))
    assert caught.value.status == 206


async def test_other_bytes_after_the_break(server: Server, media: MediaApi, tmp_path: Path) -> None:
    """Where the rest belongs to another file, the SHA-256 tells, and all of it is fetched afresh, once."""
    other = bytes(SIZE)
    server.script = [half(), part(HALF, other), page(CONTENT, content_type=JPEG)]
    saved = await media.download(known(server), tmp_path / "file")
    assert (saved.path and saved.path.read_bytes(), saved.sha256, saved.size) == (CONTENT, SHA256, SIZE)
    server.script, server.requests = [half(), part(HALF, other)], []
    with pytest.raises(IntegrityError):
        await streamed(media, known(server))


@pytest.mark.parametrize("kind", ["path", "read"])
async def test_one_fresh_try(server: Server, media: MediaApi, tmp_path: Path, kind: str) -> None:
    """Wrong bytes are fetched afresh once; if they are wrong again it is told, and nothing remains."""
    wrong = page(bytes(SIZE), content_type=JPEG)

    async def fetched() -> bytes:
        if kind == "read":
            return await media.read(known(server))
        return (await media.download(known(server), tmp_path / "file")).path.read_bytes()  # type: ignore[union-attr]  # it is one

    server.script = [wrong, page(CONTENT, content_type=JPEG)]
    assert await fetched() == CONTENT
    server.requests.clear()
    server.script = [wrong]
    with pytest.raises(IntegrityError) as caught:
        await fetched()
    assert (len(server.requests), caught.value.attempts) == (2, 2)
    assert listing(tmp_path) == (["file"] if kind == "path" else [])


async def test_longer_bytes_before_the_right_ones(server: Server, media: MediaApi, tmp_path: Path) -> None:
    """Of a first try that was longer nothing remains in the file."""
    longer = b"HTTP/1.1 200 OK\r\ncontent-type: image/jpeg\r\n\r\n" + CONTENT + b"more"
    server.script = [cut(longer), page(CONTENT, content_type=JPEG)]
    assert (await media.download(known(server), tmp_path / "file")).size == SIZE
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("wrap", [io.BytesIO, lambda: anyio.wrap_file(io.BytesIO())], ids=["plain", "async"])
async def test_no_fresh_try_for_handles(server: Server, media: MediaApi, wrap: Callable[[], Any]) -> None:
    """What a handle has been given cannot be taken back, so that wrong bytes are told at once."""
    server.script = [page(bytes(SIZE), content_type=JPEG)]
    with pytest.raises(IntegrityError):
        await media.download(known(server), wrap())
    assert len(server.requests) == 1


async def test_without_a_hash(server: Server, media: MediaApi, tmp_path: Path) -> None:
    """Where nothing proves that two parts belong together, all is fetched again; a stream cannot, and tells."""
    server.script = [half(), page(CONTENT, content_type=JPEG)]
    what = known(server, sha256=None)
    assert (await media.download(what, tmp_path / "file")).sha256 == SHA256
    assert [start for _, start in asked(server)] == [None, None]
    server.script = [half()]
    with pytest.raises(NetworkError):
        await streamed(media, what)
    assert len(server.requests) == 3


async def test_all_came_but_the_end(server: Server, media: MediaApi) -> None:
    """When all promised bytes have come, a connection that breaks then has broken nothing."""
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (SIZE, CONTENT)
    server.script = [cut(chunked)]
    assert await media.read(known(server)) == CONTENT
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_a_url_that_dies_in_the_middle(server: Server, media: MediaApi, status: int) -> None:
    """Where the URL has died by the time a download goes on, a new one of the same bytes goes on."""
    server.script = [half(), page("", status), renewed(server), part(HALF)]
    assert await media.read(known(server)) == CONTENT
    assert asked(server)[1:] == [("/a", f"bytes={HALF}-"), ("/v25.0/1", None), ("/b", f"bytes={HALF}-")]


@pytest.mark.parametrize("changed", [{"sha256": "0" * 64}, {"file_size": SIZE - 1}])
async def test_media_that_changed_meanwhile(server: Server, media: MediaApi, changed: dict[str, Any]) -> None:
    """A new URL of other bytes does not go on with the old ones, nor is anything tried again."""
    server.script = [half(), page("", 404), renewed(server, **changed)]
    with pytest.raises(IntegrityError, match="has other bytes than before") as caught:
        await media.read(known(server))
    assert (len(server.requests), caught.value.retryable) == (3, False)


async def test_a_url_that_dies_twice(server: Server, media: MediaApi) -> None:
    """A URL that is dead on arrival is the end."""
    server.script = [page("", 404), renewed(server), page("", 404)]
    with pytest.raises(MediaNotFoundError):
        await media.read(known(server))
    assert len(server.requests) == 3


async def test_an_old_url_is_not_tried(server: Server, media: MediaApi) -> None:
    """A URL older than four minutes, by a clock that nobody sets, is renewed before it is tried."""
    what = known(server)
    server.script = [page(CONTENT, content_type=JPEG)]
    object.__setattr__(what, "received_at", what.received_at - 239)
    assert await media.read(what) == CONTENT
    server.script = [renewed(server), page(CONTENT, content_type=JPEG)]
    server.requests.clear()
    object.__setattr__(what, "received_at", what.received_at - 2)
    assert await media.read(what) == CONTENT
    assert [target for target, _ in asked(server)] == ["/v25.0/1", "/b"]


def test_age_is_not_that_of_another_machine() -> None:
    """A time that this machine's clock has not reached yet says nothing, so that the URL counts as old."""
    what = MediaInfo(id="1", url="https://x/", mime_type=JPEG)
    assert not MediaLocation.of(what).expired
    object.__setattr__(what, "received_at", what.received_at + 1000)
    assert MediaLocation.of(what).expired


def test_what_is_copied_stays_known() -> None:
    """A MediaInfo that was pickled is equal to itself; when it came does not matter to anybody who compares."""
    what = MediaInfo(id="1", url="https://x/", mime_type=JPEG)
    assert pickle.loads(pickle.dumps(what)) == what == attrs.evolve(what)
    assert "received_at" not in repr(what)


async def test_a_page_after_the_break(server: Server, media: MediaApi, tmp_path: Path) -> None:
    """Of a login page where the rest should be no byte is used: the id gets a fresh URL."""
    server.script = [half(), page("<html>", content_type="text/html"), renewed(server), part(HALF)]
    assert (await media.download(known(server), tmp_path / "file")).size == SIZE
    assert [target for target, _ in asked(server)] == ["/a", "/a", "/v25.0/1", "/b"]
    server.script, server.requests = [half(), page("<html>", content_type="text/html")], []
    with pytest.raises(ServerError):
        await media.read(known(server))


async def test_a_shorter_file_after_the_break(server: Server, media: MediaApi) -> None:
    """A server that has fewer bytes than are there already has other ones."""
    short = b"HTTP/1.1 200 OK\r\ncontent-type: image/jpeg\r\n\r\n" + CONTENT[:1000]
    server.script = [half(), cut(short)]
    with pytest.raises(IntegrityError):
        await media.read(known(server))


@pytest.mark.slow
async def test_broken_everywhere(server: Server) -> None:
    """Wherever it breaks off, and however it goes on, the bytes are the right ones."""
    content = CONTENT[:300]
    digest = hashlib.sha256(content).hexdigest()
    settings = Settings(base_url=server.base_url, backoff=0, chunk_size=64)
    broken_at = [0]
    honest = [True]

    async def serve(request: Received, writer: asyncio.StreamWriter) -> None:
        start = int((request.header("range") or "bytes=0-")[6:-1]) if honest[0] else 0
        if start or broken_at[0] < 0:
            writer.write(part(start, content) if start else page(content, content_type=JPEG))
        else:
            writer.write(page(content[: broken_at[0]], length=len(content), content_type=JPEG))
            writer.close()
            broken_at[0] = -1

    server.script = [serve]
    async with MediaApi(TOKEN, settings=settings) as media:
        for honest[0] in (True, False):
            for offset in range(300):
                broken_at[0] = offset
                what = known(server, sha256=digest, file_size=len(content))
                assert await media.read(what) == content, offset
    assert len(server.requests) == 2 * 2 * 300


async def test_a_lookup_that_fails_on_the_way(server: Server, media: MediaApi) -> None:
    """What goes wrong while a URL is renewed is told as it is."""
    server.script = [half(), page("", 404), json_response({"error": {"message": "(#10) no", "code": 10}}, 403)]
    with pytest.raises(MediaError) as caught:
        await media.read(known(server))
    assert (caught.value.attempts, getattr(caught.value, "code", None)) == (3, 10)


def unframed(content: bytes) -> Step:
    """Answer without saying how long the answer is, so that only its connection's end ends it."""
    return cut(b"HTTP/1.1 200 OK\r\ncontent-type: image/jpeg\r\nconnection: close\r\n\r\n" + content)


async def test_an_end_that_came_too_early(server: Server, media: MediaApi) -> None:
    """Where a reply ends before all that was promised has come, it goes on, too, though nothing broke off."""
    server.script = [unframed(CONTENT[:HALF]), part(HALF)]
    assert await media.read(known(server)) == CONTENT
    assert asked(server) == [("/a", None), ("/a", f"bytes={HALF}-")]
    server.script, server.requests = [unframed(CONTENT[:HALF])], []
    with pytest.raises(IntegrityError) as caught:
        await streamed(media, known(server, sha256=None))
    assert (caught.value.expected, caught.value.actual) == (SIZE, HALF)


async def test_what_is_told_of_wrong_bytes(server: Server, media: MediaApi) -> None:
    """An error about bytes that do not fit says what was promised and what came, wherever that came to light."""
    server.script = [page(CONTENT[:-1], content_type=JPEG)]
    with pytest.raises(IntegrityError) as longer:
        await streamed(media, known(server, sha256=None))
    assert (longer.value.expected, longer.value.actual) == (SIZE, SIZE - 1)
    server.script, server.requests = [page("", 404), renewed(server, sha256="0" * 64)], []
    with pytest.raises(IntegrityError) as changed:
        await media.read(known(server))
    assert (changed.value.expected, changed.value.actual) == (SHA256, "0" * 64)
    server.script, server.requests = [half(), unframed(CONTENT[:1000])], []
    with pytest.raises(IntegrityError, match="before byte 100003") as shorter:
        await media.read(known(server))
    assert shorter.value.expected == SIZE
    server.script, server.requests = [page(bytes(SIZE), content_type=JPEG)], []
    with pytest.raises(IntegrityError) as other:
        await streamed(media, known(server))
    assert (other.value.expected, other.value.actual) == (SHA256, hashlib.sha256(bytes(SIZE)).hexdigest())


async def test_what_is_known_stays_known(server: Server, media: MediaApi, tmp_path: Path) -> None:
    """What a webhook told of a file still holds when Meta's answer about its new URL leaves it out."""
    what = InboundMedia(
        id="1", kind="document", mime_type=JPEG, sha256=SHA256, url=f"{server.base_url}/a", filename="my.jpg"
    )
    server.script = [page("", 404), info(f"{server.base_url}/b", media_id="1"), page(bytes(SIZE), content_type=JPEG)]
    with pytest.raises(IntegrityError, match="SHA-256"):
        await media.read(what)
    server.script, server.requests = [page("", 404), renewed(server), page(CONTENT, content_type=JPEG)], []
    assert (await media.download(what, tmp_path)).path == tmp_path / "my.jpg"
    server.script, server.requests = [page(CONTENT, content_type="application/octet-stream")], []
    assert (await media.download(what, tmp_path)).mime_type == JPEG


def test_a_target_is_shown_without_its_signature() -> None:
    """What is known of a download can be shown; its URL is, but for the query that is as good as a key."""
    shown = repr(MediaLocation.of("https://lookaside.fbsbx.com/media?hash=s3cr3t"))
    assert "lookaside.fbsbx.com" in shown
    assert "s3cr3t" not in shown


@pytest.mark.parametrize("knows", ["whoever asks", "Meta"])
async def test_the_size_that_either_knows(server: Server, media: MediaApi, knows: str) -> None:
    """A size counts whether it was known before the URL was renewed or is told then."""
    what = known(server, file_size=None if knows == "Meta" else SIZE)
    answer = renewed(server) if knows == "Meta" else info(f"{server.base_url}/b", sha256=SHA256)
    server.script = [page("", 404), answer, unframed(CONTENT[:HALF]), part(HALF)]
    assert await media.read(what) == CONTENT
    assert asked(server)[2:] == [("/b", None), ("/b", f"bytes={HALF}-")]


async def test_a_part_of_no_length(server: Server, media: MediaApi) -> None:
    """A part that does not say how long it is may be the rest: its range says so."""
    said = b"HTTP/1.1 206 Partial\r\nconnection: close\r\ncontent-range: bytes %d-%d/%d\r\n\r\n" % (
        HALF,
        SIZE - 1,
        SIZE,
    )
    server.script = [half(), cut(said + CONTENT[HALF:])]
    assert await media.read(known(server)) == CONTENT
    assert len(server.requests) == 2


@pytest.mark.parametrize("kind", ["path", "read"])
async def test_one_count_of_retries(server: Server, media: MediaApi, tmp_path: Path, kind: str) -> None:
    """A transfer that was taken up again and then begun afresh has as many retries in all as any other."""
    server.script = [half(), part(HALF, bytes(SIZE)), page(CONTENT, content_type=JPEG)]
    strict = media.with_options(max_retries=1)
    with pytest.raises(IntegrityError) as caught:
        await (strict.read(known(server)) if kind == "read" else strict.download(known(server), tmp_path / "file"))
    assert (caught.value.attempts, len(server.requests), listing(tmp_path)) == (2, 2, [])


async def test_a_handle_that_takes_one_byte_at_a_time(server: Server, media: MediaApi) -> None:
    """A handle that takes a single byte of what it is given gets the rest, byte by byte."""

    class Narrow:
        def __init__(self) -> None:
            self.taken = bytearray()

        def write(self, data: bytes) -> int:
            self.taken += data[:1]
            return 1

    server.script = [page(CONTENT[:300], content_type=JPEG)]
    narrow = Narrow()
    await media.download(f"{server.base_url}/a", narrow)
    assert narrow.taken == CONTENT[:300]
