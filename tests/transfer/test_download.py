"""Downloads against the emulator, and against servers whose bytes are not the promised ones."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import attrs
import pytest

from meta_media import DownloadedMedia, InboundMedia, MediaApi, MediaInfo, MediaStream, Progress, Settings
from meta_media.emulator import Emulator, EmulatorSettings
from meta_media.errors import (
    AuthenticationError,
    ConfigurationError,
    DownloadTooLargeError,
    IntegrityError,
    MediaError,
    MediaNotFoundError,
    NetworkError,
    ServerError,
)
from tests.support.servers import Server, Step, cut, endless, info, page, reset, stalled
from tests.transfer.downloads import (
    CONTENT,
    FILES,
    JPEG,
    OLD,
    PHOTO,
    SHA256,
    TOKEN,
    Verb,
    chunked,
    client,
    download,
    every_verb,
    failure,
    known,
    listing,
    received,
    seen,
    targets,
)

# What may be downloaded


async def test_a_media_id(emulator: Emulator, media: MediaApi) -> None:
    """Of an id, the URL is asked first."""
    uploaded = await media.upload(PHOTO)
    assert await media.read(uploaded.id) == PHOTO
    assert seen(emulator) == [f"GET /v25.0/{uploaded.id}", f"GET {FILES}"]


async def test_a_media_info(emulator: Emulator, media: MediaApi) -> None:
    """With a MediaInfo at hand, nothing is asked again."""
    known = await media.get_info((await media.upload(PHOTO)).id)
    assert await media.read(known) == PHOTO
    assert seen(emulator) == [f"GET /v25.0/{known.id}", f"GET {FILES}"]


async def test_an_inbound_media(emulator: Emulator, media: MediaApi) -> None:
    """What a webhook tells of is fetched from the URL in it."""
    inbound = await received(emulator)
    assert await media.read(inbound) == PHOTO
    assert seen(emulator) == [f"GET {FILES}"]


async def test_an_inbound_media_without_url(emulator: Emulator, media: MediaApi) -> None:
    """Older webhooks hold only the id."""
    inbound = attrs.evolve(await received(emulator), url=None)
    assert await media.read(inbound) == PHOTO
    assert seen(emulator) == [f"GET /v25.0/{inbound.id}", f"GET {FILES}"]


async def test_a_url(emulator: Emulator, media: MediaApi, tmp_path: Path) -> None:
    """A URL will do, and then no media id is known."""
    url = (await media.get_info((await media.upload(PHOTO)).id)).url
    saved = await media.download(url, tmp_path / "a.jpg")
    assert saved == DownloadedMedia(
        path=tmp_path / "a.jpg", size=len(PHOTO), sha256=hashlib.sha256(PHOTO).hexdigest(), mime_type=JPEG
    )


async def test_download_says_what_it_saved(media: MediaApi, tmp_path: Path) -> None:
    """The result has path, size, hash, type and id."""
    uploaded = await media.upload(PHOTO)
    saved = await media.download(uploaded.id, tmp_path / "a.jpg")
    assert saved == DownloadedMedia(
        path=tmp_path / "a.jpg",
        size=len(PHOTO),
        sha256=hashlib.sha256(PHOTO).hexdigest(),
        mime_type=JPEG,
        media_id=uploaded.id,
    )
    assert (tmp_path / "a.jpg").read_bytes() == PHOTO


async def test_a_stream_says_what_it_is(emulator: Emulator) -> None:
    """A stream knows its id, type, size, name and info before the first byte, and its hash after the last."""
    async with emulator.api(chunk_size=10_000) as media:
        known = await media.get_info((await media.upload(CONTENT, mime_type=JPEG, validate=False)).id)
        async with media.stream(known) as stream:
            assert isinstance(stream, MediaStream)
            assert (stream.info, stream.media_id, stream.mime_type) == (known, known.id, JPEG)
            assert (stream.size, stream.filename) == (len(CONTENT), f"{known.id}.jpg")
            sizes = [len(chunk) async for chunk in stream]
            assert stream.sha256 == SHA256
    assert sizes == [10_000] * 25 + [6_000]


async def test_a_url_alone_tells_little(server: Server, scripted: MediaApi) -> None:
    """Of a URL, type, size and name are what its host says, or nothing."""
    server.script = [chunked(CONTENT), page(CONTENT), page(CONTENT, content_type="application/pdf")]
    facts = []
    for _ in server.script:
        async with scripted.stream(f"{server.base_url}/x") as stream:
            facts.append((stream.info, stream.media_id, stream.mime_type, stream.size, stream.filename))
    size = len(CONTENT)
    assert facts == [
        (None, None, JPEG, None, "media.jpg"),
        (None, None, "application/octet-stream", size, "media"),
        (None, None, "application/pdf", size, "media.pdf"),
    ]


@pytest.mark.parametrize("what", ["1/../2", "lookaside.fbsbx.com/x", "1\n", "", "1.2", None, 1.5, b"1", True])
@every_verb
async def test_what_is_neither_id_nor_url(
    server: Server, scripted: MediaApi, verb: Verb, folder: Path, what: object
) -> None:
    """What cannot be an id is refused before a connection is made."""
    error = await failure(scripted, what, verb, folder, ConfigurationError)
    assert (error.attempts, server.connections) == (0, 0)


@pytest.mark.parametrize("cls", [MediaInfo, InboundMedia])
async def test_made_up_ids(server: Server, scripted: MediaApi, cls: Any) -> None:
    """The id inside a value somebody made is checked as well."""
    kind = {"kind": "image"} if cls is InboundMedia else {}
    with pytest.raises(ConfigurationError):
        await scripted.read(cls(id="1/../2", url=f"{server.base_url}/x", mime_type=JPEG, **kind))
    assert server.connections == 0


async def test_what_is_sent(server: Server, scripted: MediaApi) -> None:
    """A download carries the token, one User-Agent, and asks for the bytes as they are."""
    server.script = [page(CONTENT)]
    await scripted.read(known(server, url=f"{server.base_url}/x?mid=1&hash=abc"))
    (request,) = server.requests
    assert (request.method, request.target, request.body) == ("GET", "/x?mid=1&hash=abc", b"")
    assert request.header("authorization") == f"Bearer {TOKEN}"
    assert request.header("accept-encoding") == "identity"
    assert (request.header("user-agent") or "").startswith("meta-media/")
    assert request.header("range") is None
    assert request.header("cookie") is None


# URLs that have died


@pytest.mark.parametrize("status", [401, 403, 404, 410])
@pytest.mark.parametrize("origin", ["info", "inbound"])
async def test_an_expired_url_is_renewed_once(status: int, origin: str, tmp_path: Path) -> None:
    """A URL that has died is renewed by its id: one refusal, one question, one download."""
    async with Emulator(settings=EmulatorSettings(expired_url_status=status)) as emulator, emulator.api() as media:
        if origin == "info":
            what: Any = await media.get_info((await media.upload(PHOTO)).id)
        else:
            what = await received(emulator)
        before = len(seen(emulator))
        emulator.clock.advance(302)
        saved = await media.download(what, tmp_path / "a.jpg")
        assert saved.path == tmp_path / "a.jpg"
        assert saved.path.read_bytes() == PHOTO
        assert seen(emulator)[before:] == [f"GET {FILES}", f"GET /v25.0/{what.id}", f"GET {FILES}"]


@pytest.mark.parametrize(
    ("status", "kind"), [(401, AuthenticationError), (403, MediaNotFoundError), (404, MediaNotFoundError)]
)
async def test_an_expired_url_without_id(status: int, kind: type[MediaError]) -> None:
    """A bare URL that has died cannot be renewed."""
    async with Emulator(settings=EmulatorSettings(expired_url_status=status)) as emulator, emulator.api() as media:
        url = (await media.get_info((await media.upload(PHOTO)).id)).url
        before = len(seen(emulator))
        emulator.clock.advance(302)
        with pytest.raises(kind) as caught:
            await media.read(url)
        assert seen(emulator)[before:] == [f"GET {FILES}"]
        assert (caught.value.attempts, caught.value.media_id) == (1, None)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_fresh_url_is_not_renewed(server: Server, scripted: MediaApi, folder: Path, status: int) -> None:
    """A URL that was obtained in this very call is not renewed again."""
    server.script = [info(f"{server.base_url}/new"), page(status=status)]
    with pytest.raises(MediaError) as caught:
        await scripted.download("1", folder)
    assert targets(server) == ["/v25.0/1", "/new"]
    assert caught.value.media_id == "1"
    assert listing(folder) == {"photo.jpg": OLD}


async def test_a_renewed_url_is_not_renewed(server: Server, scripted: MediaApi, folder: Path) -> None:
    """The second refusal is final."""
    server.script = [page(status=404), info(f"{server.base_url}/new"), page(status=404)]
    await failure(scripted, known(server), download, folder, MediaNotFoundError)
    assert targets(server) == ["/old", "/v25.0/1", "/new"]


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_other_refusals_are_not_about_the_url(server: Server, scripted: MediaApi, status: int) -> None:
    """A host that is busy or broken is not asked for another URL."""
    server.script = [page(status=status)]
    with pytest.raises(MediaError):
        await scripted.read(known(server))
    assert targets(server) == ["/old"]


async def test_media_that_is_gone(emulator: Emulator, media: MediaApi, folder: Path) -> None:
    """Media deleted since is not found, after asking for a fresh URL."""
    gone = await media.get_info((await media.upload(PHOTO)).id)
    await media.delete(gone.id)
    error = await failure(media, gone, download, folder, MediaNotFoundError)
    assert (error.code, error.subcode, error.media_id) == (100, 33, gone.id)


@pytest.mark.parametrize(
    ("changes", "promised", "expected", "actual"),
    [({"sha256": "0" * 64}, {}, SHA256, "0" * 64), ({"file_size": 7}, {"sha256": None}, len(CONTENT), 7)],
)
@every_verb
async def test_media_replaced_meanwhile(
    server: Server,
    scripted: MediaApi,
    verb: Verb,
    folder: Path,
    changes: dict[str, Any],
    promised: dict[str, Any],
    expected: object,
    actual: object,
) -> None:
    """A renewed URL must be of the same bytes, and is not even opened if it is not."""
    server.script = [page(status=404), info(f"{server.base_url}/new", **changes)]
    error = await failure(scripted, known(server, **promised), verb, folder, IntegrityError)
    assert (error.expected, error.actual) == (expected, actual)
    assert targets(server) == ["/old", "/v25.0/1"]


async def test_what_was_promised_first_still_holds(server: Server, scripted: MediaApi, folder: Path) -> None:
    """When the second answer says neither hash nor size, those of the first count."""
    other = b"x" * len(CONTENT)
    answer = info(f"{server.base_url}/new")
    server.script = [page(status=404), answer, page(other), page(status=404), answer, page(CONTENT[:-1])]
    wrong_hash = await failure(scripted, known(server), download, folder, IntegrityError)
    wrong_size = await failure(scripted, known(server), download, folder, IntegrityError)
    assert wrong_hash.expected == SHA256
    assert wrong_size.expected == len(CONTENT)


async def test_info_about_another_media(server: Server, scripted: MediaApi, folder: Path) -> None:
    """An answer about another id is not followed."""
    server.script = [info(f"{server.base_url}/new", media_id="2")]
    error = await failure(scripted, "1", download, folder, ServerError)
    assert (error.retryable, error.media_id) == (True, "1")
    assert targets(server) == ["/v25.0/1"]


async def test_a_dead_token_is_not_taken_for_a_dead_url(emulator: Emulator, media: MediaApi, folder: Path) -> None:
    """When the token has died, the question for a new URL says so."""
    known = await media.get_info((await media.upload(PHOTO)).id)
    emulator.expire_token(emulator.access_token)
    error = await failure(media, known, download, folder, AuthenticationError)
    assert (error.code, error.status) == (190, 401)


async def test_a_token_that_was_renewed_is_asked_for_again(emulator: Emulator) -> None:
    """After a download host's 401 a callable is asked for its next token."""
    tokens = ["EAAGdead", emulator.access_token]

    async def token() -> str:
        return tokens.pop(0)

    async with emulator.api() as owner:
        url = (await owner.get_info((await owner.upload(PHOTO)).id)).url
    async with MediaApi(token, settings=Settings(base_url=emulator.base_url)) as media:
        assert await media.read(url) == PHOTO
    assert tokens == []


# Bytes that are not what was promised


@pytest.mark.parametrize("served", [len(CONTENT) - 1, len(CONTENT) + 1, 0])
@every_verb
async def test_a_length_that_was_not_promised(
    server: Server, scripted: MediaApi, verb: Verb, folder: Path, served: int
) -> None:
    """A Content-Length other than Meta's file_size is refused before the first byte."""
    server.script = [stalled(page(length=served), asyncio.Event())]
    error = await failure(scripted, known(server), verb, folder, IntegrityError)
    assert (error.expected, error.actual) == (len(CONTENT), served)


@pytest.mark.parametrize("served", [CONTENT[:-1], CONTENT + b"x", b"", CONTENT * 3])
@every_verb
async def test_a_body_of_another_length(
    server: Server, scripted: MediaApi, verb: Verb, folder: Path, served: bytes
) -> None:
    """Without a Content-Length, what arrives is counted."""
    server.script = [chunked(*([served] if served else []))]
    error = await failure(scripted, known(server, sha256=None), verb, folder, IntegrityError)
    assert error.expected == len(CONTENT)
    assert error.actual == len(served) or len(CONTENT) < error.actual <= len(served)


async def test_no_byte_too_many_is_handed_over(server: Server, scripted: MediaApi) -> None:
    """The chunk that goes beyond the promised size is not given."""
    server.script = [chunked(CONTENT + b"x" * 50_000)]
    async with scripted.stream(known(server)) as opened:
        chunks = aiter(opened)
        got = b"".join([await anext(chunks) for _ in range(len(CONTENT) // 10_000)])
        with pytest.raises(IntegrityError):
            await anext(chunks)
    assert got == CONTENT[: len(got)]


@pytest.mark.parametrize("promised", [{"sha256": None}, {"file_size": None}])
@every_verb
async def test_a_cut_that_looks_like_the_end(
    server: Server, scripted: MediaApi, verb: Verb, folder: Path, promised: dict[str, None]
) -> None:
    """A body that ends with the connection is whole only if its length or hash says so."""
    server.script = [page(CONTENT[:-5000], length=None)]
    await failure(scripted, known(server, **promised), verb, folder, IntegrityError)


async def test_an_end_that_is_one(server: Server, scripted: MediaApi) -> None:
    """A body that ends with the connection may be whole."""
    server.script = [page(CONTENT, length=None)]
    assert await scripted.read(known(server)) == CONTENT


@pytest.mark.parametrize(
    "step",
    [
        cut(page(CONTENT[:-5000], length=len(CONTENT))),
        cut(page(length=len(CONTENT))),
        reset(page(CONTENT[:20_000], length=len(CONTENT))),
        cut(chunked(CONTENT[:20_000], end=b"")),
        cut(b"HTTP/1.1 200 OK\r\ncontent-le"),
        cut(b""),
        reset(),
        cut(b"not HTTP at all\r\n\r\n"),
    ],
)
@every_verb
async def test_a_broken_connection(server: Server, scripted: MediaApi, verb: Verb, folder: Path, step: Step) -> None:
    """A connection that breaks is a NetworkError, and the next download works."""
    server.script = [step, page(CONTENT)]
    error = await failure(scripted, known(server), verb, folder, NetworkError)
    assert (error.retryable, error.maybe_applied, error.attempts) == (True, False, 1)
    assert (error.media_id, error.elapsed > 0) == ("1", True)
    assert await scripted.read(known(server)) == CONTENT


@every_verb
async def test_other_bytes(server: Server, scripted: MediaApi, verb: Verb, folder: Path) -> None:
    """Bytes with another SHA-256 than Meta's are an error, whatever their length."""
    other = CONTENT[:-1] + b"x"
    server.script = [page(other)]
    error = await failure(scripted, known(server), verb, folder, IntegrityError)
    assert (error.expected, error.actual) == (SHA256, hashlib.sha256(other).hexdigest())
    assert error.retryable


async def test_without_a_promise_everything_passes(server: Server, scripted: MediaApi) -> None:
    """Where Meta gave neither hash nor size, there is nothing to compare."""
    server.script = [page(b"anything")]
    assert await scripted.read(known(server, sha256=None, file_size=None)) == b"anything"


async def test_a_hash_from_a_webhook(emulator: Emulator, media: MediaApi, folder: Path) -> None:
    """A webhook's hash, which is base64 there, is checked too."""
    inbound = attrs.evolve(await received(emulator), sha256="0" * 64)
    error = await failure(media, inbound, download, folder, IntegrityError)
    assert error.actual == hashlib.sha256(PHOTO).hexdigest()


@pytest.mark.parametrize("served", ["text/html", "text/html; charset=utf-8", "Text/HTML"])
@every_verb
async def test_a_page_instead_of_media(
    server: Server, scripted: MediaApi, verb: Verb, folder: Path, served: str
) -> None:
    """A login page where media should be is an error before a byte of it is used."""
    server.script = [page("<html>Log in</html>", content_type=served)]
    what = known(server, file_size=None, sha256=None)
    error = await failure(scripted, what, verb, folder, ServerError)
    assert (targets(server), error.status) == (["/old", "/v25.0/1"], 200)
    server.script, server.requests = [info(f"{server.base_url}/new"), *server.script], []
    error = await failure(scripted, "1", verb, folder, ServerError)
    assert (targets(server), error.status, error.retryable) == (["/v25.0/1", "/new"], 200, False)


async def test_a_page_that_is_the_media(server: Server, scripted: MediaApi) -> None:
    """A customer may send a page; and a bare URL promises nothing else."""
    server.script = [page("<html>", content_type="text/html")]
    html = known(server, mime_type="text/html", file_size=6, sha256=None)
    assert await scripted.read(html) == b"<html>"
    assert await scripted.read(html.url) == b"<html>"


@pytest.mark.parametrize("status", [201, 203, 204, 206, 300, 304])
@every_verb
async def test_a_success_of_another_kind(
    server: Server, scripted: MediaApi, verb: Verb, folder: Path, status: int
) -> None:
    """Part of a file, or nothing, is not what was asked for."""
    no_body = status in {204, 304}
    server.script = [
        page(b"" if no_body else CONTENT, status, length="0" if no_body else -1, content_range="bytes 0-9/10")
    ]
    error = await failure(scripted, known(server), verb, folder, ServerError)
    assert error.status == status


@pytest.mark.parametrize("coding", ["gzip", "br", "gzip, gzip", "GZIP"])
@every_verb
async def test_compressed_bytes(server: Server, scripted: MediaApi, verb: Verb, folder: Path, coding: str) -> None:
    """What was declined is refused: compressed bytes could be a bomb, and have another length and hash."""
    server.script = [page(CONTENT, content_encoding=coding)]
    error = await failure(scripted, known(server), verb, folder, ServerError)
    assert "compressed" in str(error)


async def test_identity_is_no_coding(server: Server, scripted: MediaApi) -> None:
    """A server may say that it did as it was asked."""
    server.script = [page(CONTENT, content_encoding="Identity")]
    assert await scripted.read(known(server)) == CONTENT


@every_verb
async def test_an_empty_file(server: Server, scripted: MediaApi, verb: Verb, folder: Path) -> None:
    """Nothing at all is a file too."""
    nothing = hashlib.sha256(b"").hexdigest()
    server.script = [page(b"")]
    result = await verb(scripted, known(server, file_size=0, sha256=nothing), folder)
    saved = DownloadedMedia(path=folder / "photo.jpg", size=0, sha256=nothing, mime_type=JPEG, media_id="1")
    assert result == (saved if verb is download else b"")
    assert listing(folder) == {"photo.jpg": b"" if verb is download else OLD}


# Too much


@every_verb
async def test_more_than_is_allowed(server: Server, verb: Verb, folder: Path) -> None:
    """What is announced to be over the limit is not begun."""
    async with client(server, max_download_size=len(CONTENT) - 1) as media:
        server.script = [stalled(page(length=len(CONTENT)), asyncio.Event())]
        error = await failure(media, known(server), verb, folder, DownloadTooLargeError)
    assert (error.limit, error.actual) == (len(CONTENT) - 1, len(CONTENT))


async def test_exactly_what_is_allowed(server: Server) -> None:
    """The limit itself is allowed."""
    async with client(server, max_download_size=len(CONTENT)) as media:
        server.script = [page(CONTENT), chunked(CONTENT)]
        assert await media.read(known(server)) == CONTENT
        assert await media.read(known(server, file_size=None)) == CONTENT


@every_verb
async def test_an_endless_body(server: Server, verb: Verb, folder: Path) -> None:
    """What never ends is stopped at the limit."""
    async with client(server, max_download_size=200_000) as media:
        server.script = [endless(page(length=None), b"x" * 1000), page(b"fine")]
        boundless = known(server, file_size=None, sha256=None)
        error = await failure(media, boundless, verb, folder, DownloadTooLargeError)
        assert (error.limit, error.actual) == (200_000, 210_000)
        assert await media.read(boundless) == b"fine"


@pytest.mark.parametrize("how", [page(CONTENT), chunked(CONTENT)])
async def test_a_ceiling_for_one_read(server: Server, scripted: MediaApi, how: bytes) -> None:
    """`read` takes a limit of its own, which may also be above the setting."""
    server.script = [how]
    unknown = known(server, file_size=None)
    with pytest.raises(DownloadTooLargeError) as caught:
        await scripted.read(unknown, max_size=len(CONTENT) - 1)
    assert (caught.value.limit, caught.value.retryable) == (len(CONTENT) - 1, False)
    assert await scripted.read(unknown, max_size=len(CONTENT)) == CONTENT
    assert await scripted.with_options(max_download_size=10).read(unknown, max_size=len(CONTENT)) == CONTENT
    with pytest.raises(DownloadTooLargeError):
        await scripted.read(unknown, max_size=0)


# Names


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ('attachment; filename="bill.pdf"', "bill.pdf"),
        ('attachment; filename="../../x.jpg"', "x.jpg"),
        ('attachment; filename="/etc/passwd"', "passwd.jpg"),
        ('attachment; filename="C:\\\\Windows\\\\x.jpg"', "x.jpg"),
        ("attachment; filename*=UTF-8''..%2F..%2Fx.jpg", "x.jpg"),
        ("attachment; filename*=UTF-8''a%0D%0Ab.jpg", "ab.jpg"),
        ("attachment; filename*=UTF-8''na%C3%AFve.jpg", "naïve.jpg"),
        ('attachment; filename="CON.txt"', "_CON.txt"),
        ('attachment; filename=".bashrc"', "bashrc.jpg"),
        ('attachment; filename=".."', "1.jpg"),
        ('attachment; filename="photo.jpg"', "photo (2).jpg"),
        ("attachment", "1.jpg"),
        ("inline; filename=", "1.jpg"),
        ("attachment; filename*=nonsense''%FF", None),
    ],
)
async def test_names_in_a_header(server: Server, scripted: MediaApi, folder: Path, said: str, name: str | None) -> None:
    """Whatever name a server gives, the file lands in the folder, and on no other file."""
    server.script = [page(CONTENT, content_disposition=said)]
    saved = await scripted.download(known(server), folder)
    assert saved.path is not None
    assert saved.path.parent == folder
    assert name in {saved.path.name, None}
    assert listing(folder) == {"photo.jpg": OLD, saved.path.name: CONTENT}


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("../../x.pdf", "x.pdf"),
        ("/etc/cron.d/x", "x.pdf"),
        ("..\\..\\x.pdf", "x.pdf"),
        ("CON.txt", "_CON.txt"),
        ("a\r\nb.pdf", "ab.pdf"),
        ("bill.pdf", "bill.pdf"),
        ("photo.jpg", "photo (2).jpg"),
        ("....", None),
    ],
)
async def test_names_from_a_customer(
    emulator: Emulator, media: MediaApi, folder: Path, given: str, name: str | None
) -> None:
    """Whatever a customer calls a document, it lands in the folder, and on no other file."""
    inbound = attrs.evolve(await received(emulator, b"%PDF-1.7", "application/pdf", filename="x"), filename=given)
    saved = await media.download(inbound, folder)
    assert saved.path == folder / (name or f"{inbound.id}.pdf")
    assert listing(folder) == {"photo.jpg": OLD, saved.path.name: b"%PDF-1.7"}


async def test_a_customers_name_outlives_the_url(emulator: Emulator, media: MediaApi, folder: Path) -> None:
    """A webhook's file name is still known after its URL was renewed, and wins over the server's."""
    inbound = await received(emulator, b"%PDF-1.7", "application/pdf", filename="bill.pdf")
    emulator.clock.advance(302)
    assert (await media.download(inbound, folder)).path == folder / "bill.pdf"


# Progress


@pytest.mark.parametrize("awaited", [False, True])
async def test_progress(emulator: Emulator, tmp_path: Path, awaited: bool) -> None:
    """A plain or async callback hears of every chunk."""
    heard: list[Progress] = []

    async def later(progress: Progress) -> None:
        await asyncio.sleep(0)  # to be awaited at all
        heard.append(progress)

    async with emulator.api(chunk_size=100_000) as media:
        uploaded = await media.upload(CONTENT, mime_type="text/plain", validate=False)
        await media.download(uploaded.id, tmp_path / "a", progress=later if awaited else heard.append)
    size = len(CONTENT)
    assert heard == [Progress(transferred=done, total=size) for done in (100_000, 200_000, size)]


async def test_progress_without_a_total(server: Server, tmp_path: Path) -> None:
    """Where nobody says the size, there is no total."""
    heard: list[Progress] = []
    server.script = [chunked(CONTENT)]
    async with client(server, chunk_size=200_000) as media:
        await media.download(f"{server.base_url}/x", tmp_path / "a", progress=heard.append)
    assert heard == [Progress(transferred=200_000), Progress(transferred=len(CONTENT))]


@pytest.mark.parametrize("raised", [LookupError("mine"), OSError(28, "mine"), TimeoutError()])
async def test_progress_that_raises(server: Server, scripted: MediaApi, folder: Path, raised: Exception) -> None:
    """What a callback raises arrives unchanged, and no file is left."""
    server.script = [page(CONTENT)]

    def callback(progress: Progress) -> None:
        if progress.transferred > 50_000:
            raise raised

    with pytest.raises(type(raised)) as caught:
        await scripted.download(known(server), folder / "new", progress=callback)
    assert caught.value is raised
    assert listing(folder) == {"photo.jpg": OLD}
    assert await scripted.read(known(server)) == CONTENT
