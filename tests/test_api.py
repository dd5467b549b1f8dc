"""Every public verb: what it sends, what it gives, what it refuses, and what its errors carry."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiofiles
import attrs
import httpx
import httpx2
import pytest

from meta_media import (
    DeletedMedia,
    MediaApi,
    MediaInfo,
    MediaLibrary,
    MemoryStore,
    Progress,
    SentMessage,
    Settings,
    Source,
    UploadedMedia,
    inbound_media,
    samples,
    verify_signature,
)
from meta_media.emulator import Emulator, EmulatorSettings
from meta_media.errors import (
    AccountRestrictedError,
    AuthenticationError,
    ConfigurationError,
    CorruptedMediaError,
    FileTooLargeError,
    IntegrityError,
    InvalidMediaError,
    InvalidRequestError,
    MediaError,
    MediaNotFoundError,
    NetworkError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    StorageError,
    TransferTimeoutError,
    UnsupportedMediaTypeError,
    UploadRejectedError,
)
from tests.support.servers import (
    Server,
    Step,
    cut,
    info,
    json_response,
    open_files,
    page,
    reset,
    silence,
    stalled,
    wait_until,
)
from tests.support.stepping import none_added

SAMPLES = {path.name: path for path in samples.paths()}
PHOTO = SAMPLES["photo.jpg"].read_bytes()
BIG = b"All work and no play makes Jack a dull boy.\n" * 25_000  # 1.1 MB, many chunks
TOKEN = "EAAGscripted"
NUMBER = "106540352242922"
OTHER = "206540352242922"
TO = "+15550001111"
SECRET = "canary0secret"

Call = Callable[[MediaApi, str], Awaitable[Any]]
VERBS: dict[str, Call] = {
    "upload": lambda media, _: media.upload(PHOTO),
    "get_info": lambda media, media_id: media.get_info(media_id),
    "download": lambda media, media_id: media.read(media_id),
    "delete": lambda media, media_id: media.delete(media_id),
    "send": lambda media, media_id: media.send(TO, media_id, kind="image"),
}
every_verb = pytest.mark.parametrize("verb", VERBS)


@pytest.fixture
async def scripted(server: Server) -> AsyncIterator[MediaApi]:
    """A client for `server`."""
    async with client(server) as api:
        yield api


@pytest.fixture
async def photo(media: MediaApi) -> str:
    """A photo that Meta has."""
    return (await media.upload(PHOTO)).id


def client(server: Server, **settings: Any) -> MediaApi:
    """Make a client for a scripted server."""
    return MediaApi(TOKEN, NUMBER, settings=Settings(base_url=server.base_url, **{"max_retries": 0} | settings))


def refusing(code: int, message: str = "No.", *, status: int = 400, **more: Any) -> bytes:
    """Write an error in Graph's envelope."""
    error = {"message": message, "type": "OAuthException", "code": code, "fbtrace_id": "Atrace"}
    return json_response({"error": error | more}, status)


async def failure(kind: type[MediaError], call: Awaitable[Any]) -> Any:
    """Return the error of a call, of exactly this class."""
    with pytest.raises(kind) as caught:
        await call
    assert type(caught.value) is kind
    return caught.value


def fields(body: bytes) -> dict[str, str]:
    """Read the fields of a form that are not files."""
    pairs = re.findall(rb'form-data; name="(\w+)"\r\n\r\n([^\r]*)\r\n--', body)
    return {name.decode(): value.decode() for name, value in pairs}


# The happy way


async def test_upload(media: MediaApi) -> None:
    """An upload gives the id and what was sent; the media is there."""
    uploaded = await media.upload(SAMPLES["photo.jpg"])
    assert uploaded == UploadedMedia(id=uploaded.id, mime_type="image/jpeg", file_size=len(PHOTO))
    assert await media.read(uploaded.id) == PHOTO


async def test_get_info(media: MediaApi, photo: str) -> None:
    """Info has URL, type, hash, size, and when the URL dies."""
    known = await media.get_info(photo)
    assert (known.id, known.mime_type, known.file_size) == (photo, "image/jpeg", len(PHOTO))
    assert known.url_expires_at is not None
    assert timedelta(minutes=4) < known.url_expires_at - datetime.now(UTC) <= timedelta(minutes=5)
    assert "hash=" not in repr(known)


async def test_delete(media: MediaApi, photo: str) -> None:
    """What was deleted is gone."""
    assert await media.delete(photo) == DeletedMedia(success=True)
    await failure(MediaNotFoundError, media.get_info(photo))


async def test_send(emulator: Emulator, media: MediaApi, photo: str) -> None:
    """A message that Meta took has an id, and the recipient's WhatsApp id."""
    sent = await media.send(TO, photo, caption="look")
    (message,) = emulator.messages
    assert sent == SentMessage(id=message["message_id"], wa_id="15550001111", input=TO)
    assert message["image"] == {"id": photo, "caption": "look"}


async def tour(media: MediaApi, folder: Path) -> None:
    """Do everything once."""
    uploaded = await media.upload(SAMPLES["photo.jpg"], verify=True)
    known = await media.get_info(uploaded.id)
    assert known.sha256 == uploaded.sha256
    assert await media.read(known) == PHOTO
    assert (await media.download(known.id, folder)).sha256 == known.sha256
    async with media.stream(known) as stream:
        again = await media.upload(stream, filename="again.jpg", size=stream.size)
    await media.send(TO, again.id)
    async with media.uploaded(PHOTO) as short_lived:
        assert await media.read(short_lived.id) == PHOTO
    for gone in (uploaded.id, again.id):
        assert await media.delete(gone) == DeletedMedia(success=True)
    await failure(MediaNotFoundError, media.get_info(uploaded.id))


async def test_the_tour(media: MediaApi, tmp_path: Path) -> None:
    """All verbs work with a client of our own."""
    await tour(media, tmp_path)


@pytest.mark.parametrize("flavour", [httpx, httpx2], ids=["httpx", "httpx2"])
async def test_a_client_of_the_callers(emulator: Emulator, flavour: Any, tmp_path: Path) -> None:
    """All verbs work with the caller's client, which is neither closed nor changed."""
    async with flavour.AsyncClient(headers={"x-mine": "1"}, cookies={"a": "b"}, timeout=7, trust_env=False) as theirs:
        before = (dict(theirs.headers), dict(theirs.cookies), theirs.timeout, theirs.follow_redirects, theirs.auth)
        settings = Settings(base_url=emulator.base_url)
        async with MediaApi(
            emulator.access_token, emulator.phone_number_id, settings=settings, http_client=theirs
        ) as api:
            await tour(api, tmp_path)
        assert before == (
            dict(theirs.headers),
            dict(theirs.cookies),
            theirs.timeout,
            theirs.follow_redirects,
            theirs.auth,
        )
        assert not theirs.is_closed
        assert (await theirs.get(emulator.base_url)).status_code == 400
    await failure(ConfigurationError, api.get_info("1"))


@pytest.mark.parametrize("flavour", [httpx, httpx2], ids=["httpx", "httpx2"])
async def test_nothing_of_the_callers_client_is_sent(server: Server, flavour: Any) -> None:
    """Headers, cookies, parameters and credentials of the caller's client stay with it, and redirects are not followed."""
    server.script = [page(status=302, location="/elsewhere"), json_response({"success": True})]
    mine = {"x-mine": "1", "authorization": "Basic eDp5", "user-agent": "mine", "accept-encoding": "gzip"}
    async with flavour.AsyncClient(
        headers=mine,
        cookies={"a": "b"},
        params={"q": "1"},
        auth=("user", "password"),
        follow_redirects=True,
        base_url="http://127.0.0.1:9",
        trust_env=False,
    ) as theirs:
        api = MediaApi(TOKEN, NUMBER, settings=Settings(base_url=server.base_url), http_client=theirs)
        await failure(ServerError, api.delete("1"))
        await api.delete("1")
    for request in server.requests:
        assert request.target == "/v25.0/1"
        assert request.header("authorization") == f"Bearer {TOKEN}"
        assert (request.header("user-agent") or "").startswith("meta-media/")
        assert [request.header(name) for name in ("x-mine", "cookie", "accept-encoding")] == [None, None, "identity"]


# What errors carry


@pytest.mark.parametrize("verb", ["get_info", "download", "delete"])
async def test_an_unknown_id(emulator: Emulator, media: MediaApi, verb: str) -> None:
    """What Meta does not know is a MediaNotFoundError with everything Meta said."""
    error = await failure(MediaNotFoundError, VERBS[verb](media, "1045500012345678"))
    assert (error.operation, error.media_id, error.attempts) == (verb, "1045500012345678", 1)
    assert (error.status, error.code, error.subcode) == (400, 100, 33)
    assert error.fbtrace_id.startswith("A")
    assert (error.retryable, error.maybe_applied) == (False, False)
    assert 0 < error.elapsed < 60
    assert len(emulator.requests) == 1


async def test_sending_an_unknown_id(media: MediaApi) -> None:
    """To send media that Meta does not know is a MediaNotFoundError too, though Meta words it otherwise."""
    cases: list[tuple[Any, int | None]] = [("image", None), (None, 33)]
    for kind, subcode in cases:
        error = await failure(MediaNotFoundError, media.send(TO, "1045500012345678", kind=kind))
        assert (error.operation, error.media_id, error.code) == ("send", "1045500012345678", 100)
        assert error.subcode == subcode


async def test_media_that_expired(emulator: Emulator, media: MediaApi, photo: str) -> None:
    """After thirty days an upload is not found."""
    emulator.clock.advance(30 * 24 * 60 * 60 + 1)
    await failure(MediaNotFoundError, media.get_info(photo))


@every_verb
async def test_a_dead_token(emulator: Emulator, media: MediaApi, photo: str, verb: str) -> None:
    """A token that has died is an AuthenticationError from every verb."""
    emulator.expire_token(emulator.access_token)
    error = await failure(AuthenticationError, VERBS[verb](media, photo))
    assert (error.operation, error.status, error.code, error.subcode) == (verb, 401, 190, 463)
    assert (error.attempts, error.media_id) == (1, None if verb == "upload" else photo)
    assert emulator.access_token not in str(error)


@every_verb
async def test_a_token_of_nobody(media: MediaApi, photo: str, verb: str) -> None:
    """A token that Meta cannot read is an AuthenticationError."""
    error = await failure(AuthenticationError, VERBS[verb](media.with_options(access_token="EAAGnobody"), photo))
    assert (error.status, error.code, error.subcode) == (401, 190, None)


@every_verb
@pytest.mark.parametrize("code", [10, 200])
async def test_a_missing_permission(emulator: Emulator, media: MediaApi, photo: str, verb: str, code: int) -> None:
    """A token without permission is a PermissionDeniedError from every verb."""
    emulator.forbid(emulator.access_token, code=code)
    error = await failure(PermissionDeniedError, VERBS[verb](media, photo))
    assert (error.operation, error.status, error.code) == (verb, 403, code)


async def test_a_foreign_number(emulator: Emulator, media: MediaApi, photo: str) -> None:
    """Another business's number and media are not there for this token."""
    emulator.add_account(OTHER, "EAAGother")
    foreign = media.with_options(access_token="EAAGother", phone_number_id=OTHER)
    assert (await failure(InvalidRequestError, media.upload(PHOTO, phone_number_id=OTHER))).subcode == 33
    await failure(InvalidRequestError, media.send(TO, photo, phone_number_id=OTHER))
    for verb in ("get_info", "download", "delete", "send"):
        await failure(MediaNotFoundError, VERBS[verb](foreign, photo))
    assert await media.read(photo) == PHOTO


async def test_throttled() -> None:
    """A limit of Meta's is a RateLimitError that says how long to wait."""
    settings = EmulatorSettings(retry_after=7, throttle_status=429)
    async with Emulator(settings=settings) as emulator, emulator.api(max_retries=0) as media:
        emulator.throttle(1)
        error = await failure(RateLimitError, media.get_info("1"))
    assert (error.code, error.status, error.retry_after, error.retryable) == (130429, 429, 7.0, True)


@every_verb
async def test_a_broken_connection(server: Server, scripted: MediaApi, verb: str) -> None:
    """Where the reply is lost, an error tells whether Meta may have done what was asked."""
    server.script = [reset()]
    error = await failure(NetworkError, VERBS[verb](scripted, "1"))
    assert (error.operation, error.attempts, error.retryable) == (verb, 1, True)
    assert error.maybe_applied == (verb in {"upload", "delete", "send"})


@every_verb
async def test_nobody_listens(verb: str) -> None:
    """Where nothing was sent, nothing was done."""
    async with Server() as gone:
        base_url = gone.base_url
    async with MediaApi(TOKEN, NUMBER, settings=Settings(base_url=base_url)) as media:
        error = await failure(NetworkError, VERBS[verb](media, "1"))
    assert (error.retryable, error.maybe_applied) == (True, False)


@every_verb
async def test_a_silent_server(server: Server, scripted: MediaApi, verb: str) -> None:
    """A server that says nothing is a TransferTimeoutError."""
    server.script = [silence]
    hasty = scripted.with_options(read_timeout=0.05)
    error = await failure(TransferTimeoutError, VERBS[verb](hasty, "1"))
    assert (error.phase, error.retryable, error.operation) == ("read", True, verb)


@every_verb
@pytest.mark.parametrize(
    "reply",
    [
        page("<html>", content_type="text/html"),
        page(),
        json_response([]),
        json_response({"id": 5}),
        page(b"x" * (2**20 + 1)),
    ],
)
async def test_a_reply_that_is_none(server: Server, scripted: MediaApi, verb: str, reply: bytes) -> None:
    """A success that is not what Meta replies is a ServerError."""
    server.script = [reply]
    error = await failure(ServerError, VERBS[verb](scripted, "1"))
    assert (error.operation, error.status, error.attempts) == (verb, 200, 1)


@pytest.mark.parametrize(
    ("code", "kind"), [(131031, FileTooLargeError), (131042, UnsupportedMediaTypeError), (131051, CorruptedMediaError)]
)
async def test_verdicts_on_a_file(server: Server, scripted: MediaApi, code: int, kind: type[InvalidMediaError]) -> None:
    """On an upload, three codes are Meta's verdict on the file, and the answer is attached."""
    server.script = [refusing(code, "Media upload failed", status=422)]
    error = await failure(kind, scripted.upload(PHOTO))
    assert (error.answer.code, error.answer.status, error.answer.fbtrace_id) == (code, 422, "Atrace")
    assert (error.operation, error.attempts) == ("upload", 1)


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (131031, "Account has been locked", AccountRestrictedError),
        (131042, "Business eligibility payment issue", AccountRestrictedError),
        (131051, "Unsupported message type", InvalidRequestError),
    ],
)
async def test_verdicts_on_an_account(
    server: Server, scripted: MediaApi, code: int, text: str, kind: type[MediaError]
) -> None:
    """The same codes in the words of Meta's own table mean what that says."""
    server.script = [refusing(code, f"(#{code}) {text}")]
    assert (await failure(kind, scripted.upload(PHOTO))).code == code


# What is refused before anything is sent


@pytest.mark.parametrize(
    "bad",
    ["", "1/../2", "../2", "1.2", "https://example.com/1", "1\n", "1?x=1", "1%2F2", "1" * 129, None, 1.5, b"1", True],
)
@pytest.mark.parametrize("verb", ["get_info", "delete", "send"])
async def test_ids_that_cannot_be(emulator: Emulator, media: MediaApi, verb: str, bad: Any) -> None:
    """What is no id never becomes part of a path."""
    error = await failure(ConfigurationError, VERBS[verb](media, bad))
    assert (error.operation, error.attempts) == (verb, 0)
    assert emulator.requests == []


@pytest.mark.parametrize("bad", ["", "1/../2", "1.2", "http://x", "1\n", 1.5])
async def test_numbers_that_cannot_be(emulator: Emulator, media: MediaApi, bad: Any) -> None:
    """What is no phone number id is refused, wherever it is given."""
    calls: list[Awaitable[Any]] = [
        media.upload(PHOTO, phone_number_id=bad),
        media.get_info("1", phone_number_id=bad),
        media.delete("1", phone_number_id=bad),
        media.send(TO, "1", phone_number_id=bad),
    ]
    for call in calls:
        assert (await failure(ConfigurationError, call)).attempts == 0
    with pytest.raises(ConfigurationError):
        media.with_options(phone_number_id=bad)
    if bad:
        with pytest.raises(ConfigurationError):
            MediaApi(TOKEN, bad)
    assert emulator.requests == []


async def test_letters_and_numbers_as_ids(server: Server, scripted: MediaApi) -> None:
    """Ids of other emulators have letters; and an id may come as a number out of JSON."""
    server.script = [info("https://lookaside.fbsbx.com/x", media_id="wa-1_B"), json_response({"success": True})]
    number: Any = 17
    assert (await scripted.get_info("wa-1_B")).id == "wa-1_B"
    await scripted.delete(number)
    assert [request.target for request in server.requests] == ["/v25.0/wa-1_B", "/v25.0/17"]


@every_verb
async def test_no_token(emulator: Emulator, verb: str) -> None:
    """A missing token is told of when it is first needed, with the variable's name."""
    async with MediaApi(None, NUMBER, settings=Settings(base_url=emulator.base_url)) as media:
        error = await failure(ConfigurationError, VERBS[verb](media, "1"))
    assert "CLOUD_API_ACCESS_TOKEN" in str(error)
    assert (error.attempts, emulator.requests) == (0, [])


@pytest.mark.parametrize("verb", ["upload", "send"])
async def test_no_number(emulator: Emulator, verb: str) -> None:
    """A missing number is told of when it is first needed, with the variable's name."""
    async with MediaApi(emulator.access_token, settings=Settings(base_url=emulator.base_url)) as media:
        error = await failure(ConfigurationError, VERBS[verb](media, "1"))
    assert "WA_PHONE_NUMBER_ID" in str(error)
    assert emulator.requests == []


async def test_no_number_needed(emulator: Emulator, photo: str) -> None:
    """To look up, download and delete, a token is enough."""
    async with MediaApi(emulator.access_token, settings=Settings(base_url=emulator.base_url)) as media:
        assert (await media.get_info(photo)).id == photo
        assert await media.read(photo) == PHOTO
        assert await media.delete(photo) == DeletedMedia(success=True)


@pytest.mark.parametrize("bad", [f"{SECRET} x", f"{SECRET}\x00", f"{SECRET}é", f"{SECRET}\nhost: evil", "  "])
def test_bad_tokens(bad: str) -> None:
    """A token that cannot be one is refused at once, and not shown."""
    media = MediaApi(TOKEN)
    for make in (MediaApi, lambda token: media.with_options(access_token=token)):
        with pytest.raises(ConfigurationError) as caught:
            make(bad)
        assert SECRET not in str(caught.value)


async def test_a_token_with_a_line_break(emulator: Emulator, photo: str) -> None:
    """White space around a token is forgiven: it comes from files."""
    async with MediaApi(f" {emulator.access_token}\n", settings=Settings(base_url=emulator.base_url)) as media:
        assert await media.read(photo) == PHOTO


# Tokens that are asked for


async def test_a_token_is_asked_for_once(emulator: Emulator) -> None:
    """All who wait get the same token, and so do copies."""
    asked = 0

    async def token() -> str:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.01)  # as a key store would
        return emulator.access_token

    settings = Settings(base_url=emulator.base_url)
    async with MediaApi(token, emulator.phone_number_id, settings=settings) as media:
        assert asked == 0
        await asyncio.gather(*(media.upload(PHOTO) for _ in range(10)))
        await media.with_options(read_timeout=5).upload(PHOTO)
    assert asked == 1


async def test_a_token_is_asked_for_again(emulator: Emulator) -> None:
    """After Meta has refused it, it is asked for again: once, however many were refused."""
    tokens = ["EAAGnew", emulator.access_token]

    async def token() -> str:
        return tokens.pop()

    settings = Settings(base_url=emulator.base_url)
    async with MediaApi(token, emulator.phone_number_id, settings=settings) as media:
        await media.upload(PHOTO)
        emulator.expire_token(emulator.access_token)
        emulator.add_account(emulator.phone_number_id, "EAAGnew")
        results = await asyncio.gather(*(media.upload(PHOTO) for _ in range(5)))
        assert all(isinstance(result, UploadedMedia) for result in results)
    assert tokens == []


async def test_a_late_refusal_forgets_no_new_token(server: Server) -> None:
    """A refusal of the old token, which comes late, does not cost the new one."""
    tokens = ["third", "second", "first"]
    go_on = asyncio.Event()

    async def token() -> str:
        return tokens.pop()

    server.script = [
        stalled(b"", go_on, refusing(190, status=401)),
        refusing(190, status=401),
        json_response({"success": True}),
    ]
    async with MediaApi(token, settings=Settings(base_url=server.base_url)) as media:
        late = asyncio.create_task(media.delete("1"))
        await wait_until(lambda: len(server.requests) == 1)
        await media.delete("2")
        go_on.set()
        await late
    sent = [request.header("authorization") for request in server.requests]
    assert sent == ["Bearer first", "Bearer first", "Bearer second", "Bearer second"]


async def test_a_token_callable_that_fails(emulator: Emulator) -> None:
    """What the caller's callable raises arrives unchanged; what it gives is checked."""
    answers: list[Any] = ["", None, f"{SECRET} x", LookupError("mine")]

    async def token() -> str:
        answer = answers.pop()
        if isinstance(answer, Exception):
            raise answer
        return str(answer) if answer else answer

    async with MediaApi(token, settings=Settings(base_url=emulator.base_url)) as media:
        with pytest.raises(LookupError, match="mine"):
            await media.get_info("1")
        for _ in range(3):
            assert SECRET not in str(await failure(ConfigurationError, media.get_info("1")))
    assert emulator.requests == []


# Upload's keywords


async def test_verify(media: MediaApi) -> None:
    """With `verify`, Meta's hash is compared, and given back."""
    uploaded = await media.upload(PHOTO, verify=True)
    assert uploaded.sha256 == (await media.get_info(uploaded.id)).sha256
    assert uploaded.sha256 is not None


@pytest.mark.parametrize("stored", ["0" * 64, None])
async def test_verify_finds_a_difference(server: Server, scripted: MediaApi, stored: str | None) -> None:
    """Other bytes than were sent, or no word of them, is an IntegrityError that names the media left behind."""
    answer: dict[str, Any] = {} if stored is None else {"sha256": stored}
    server.script = [json_response({"id": "7"}), info("https://lookaside.fbsbx.com/x", media_id="7", **answer)]
    error = await failure(IntegrityError, scripted.upload(PHOTO, verify=True))
    assert (error.operation, error.media_id, error.maybe_applied) == ("upload", "7", True)
    assert error.actual == stored
    assert [request.method for request in server.requests] == ["POST", "GET"]


@pytest.mark.parametrize(
    ("step", "kind"),
    [(refusing(2, status=503), ServerError), (cut(b""), NetworkError), (json_response({}), ServerError)],
)
async def test_verify_cannot_ask(server: Server, scripted: MediaApi, step: Step, kind: type[MediaError]) -> None:
    """When Meta cannot be asked, the error still tells that the upload is there, and its id."""
    server.script = [json_response({"id": "7"}), step]
    error = await failure(kind, scripted.upload(PHOTO, verify=True))
    assert (error.operation, error.media_id, error.maybe_applied) == ("upload", "7", True)


async def test_ttl_and_use_case(server: Server, scripted: MediaApi) -> None:
    """Both are fields of the form, the lifetime in whole minutes."""
    server.script = [json_response({"id": "7"})]
    await scripted.upload(
        SAMPLES["note.ogg"], ttl=timedelta(hours=2, seconds=59), use_case="call_voicemail_announcement"
    )
    await scripted.upload(PHOTO)
    assert [fields(request.body) for request in server.requests] == [
        {
            "messaging_product": "whatsapp",
            "type": "audio/ogg",
            "ttl_minutes": "120",
            "use_case": "call_voicemail_announcement",
        },
        {"messaging_product": "whatsapp", "type": "image/jpeg"},
    ]


@pytest.mark.parametrize("ttl", [timedelta(hours=1), timedelta(days=30)])
async def test_ttl_at_its_limits(media: MediaApi, ttl: timedelta) -> None:
    """An hour and thirty days are allowed."""
    assert (await media.upload(PHOTO, ttl=ttl)).id


@pytest.mark.parametrize(
    "option",
    [
        {"ttl": timedelta(minutes=59)},
        {"ttl": timedelta(days=30, seconds=1)},
        {"ttl": 7200},
        {"use_case": "two words"},
        {"use_case": ""},
        {"use_case": 'x"\r\n'},
        {"use_case": 5},
        {"size": -1},
        {"size": "12"},
        {"size": True},
    ],
    ids=repr,
)
async def test_options_that_cannot_be(emulator: Emulator, media: MediaApi, option: dict[str, Any]) -> None:
    """What Meta would not take is refused before anything is sent."""
    error = await failure(ConfigurationError, media.upload(PHOTO, **option))
    assert next(iter(option)) in str(error)
    assert emulator.requests == []


async def test_validate(emulator: Emulator, media: MediaApi) -> None:
    """A type that WhatsApp does not take is refused here, and, where that is switched off, by Meta."""
    html = b"<html></html>"
    error = await failure(UnsupportedMediaTypeError, media.upload(html, mime_type="text/html"))
    assert (error.operation, error.attempts, emulator.requests) == ("upload", 0, [])
    for relaxed, validate in ((media, False), (media.with_options(validate=False), True)):
        error = await failure(UploadRejectedError, relaxed.upload(html, mime_type="text/html", validate=validate))
        assert error.attempts == 1


# `uploaded`


async def test_uploaded(media: MediaApi) -> None:
    """The media lives as long as the block."""
    async with media.uploaded(PHOTO, filename="a.jpg") as uploaded:
        assert await media.read(uploaded.id) == PHOTO
    await failure(MediaNotFoundError, media.get_info(uploaded.id))


async def test_uploaded_is_deleted_after_an_error(media: MediaApi) -> None:
    """An error in the block arrives as it was, and the media is gone."""
    ids = []

    async def fail() -> None:
        async with media.uploaded(PHOTO) as uploaded:
            ids.append(uploaded.id)
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine") as caught:
        await fail()
    assert not hasattr(caught.value, "__notes__")
    await failure(MediaNotFoundError, media.get_info(ids[0]))


async def test_uploaded_is_deleted_after_a_cancellation(media: MediaApi) -> None:
    """A cancelled block deletes its media, and stays cancelled."""
    ids: list[str] = []

    async def linger() -> None:
        async with media.uploaded(PHOTO) as uploaded:
            ids.append(uploaded.id)
            await asyncio.Event().wait()

    task = asyncio.create_task(linger())
    await wait_until(lambda: bool(ids))
    await cancelled(task)
    await failure(MediaNotFoundError, media.get_info(ids[0]))


async def test_uploaded_cannot_be_deleted_after_an_error(server: Server, scripted: MediaApi) -> None:
    """When deleting fails as well, the error of the block arrives with a note."""
    server.script = [json_response({"id": "7"}), refusing(2, "Busy", status=503)]

    async def fail() -> None:
        async with scripted.uploaded(PHOTO):
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine") as caught:
        await fail()
    assert caught.value.__notes__ == ["media 7 was not deleted: Busy (HTTP 503, code 2, fbtrace_id Atrace)"]


async def test_uploaded_cannot_be_deleted(server: Server, scripted: MediaApi) -> None:
    """When the block went well, the failure to delete is the error."""
    server.script = [json_response({"id": "7"}), refusing(2, status=503)]

    async def work() -> None:
        async with scripted.uploaded(PHOTO):
            pass

    error = await failure(ServerError, work())
    assert (error.operation, error.media_id) == ("delete", "7")


async def test_uploaded_and_deleted_in_the_block(media: MediaApi) -> None:
    """Whoever deletes it earlier does no harm."""
    async with media.uploaded(PHOTO) as uploaded:
        await media.delete(uploaded.id)


async def test_uploaded_on_another_number(emulator: Emulator, media: MediaApi) -> None:
    """The number it was uploaded on is also the one it is deleted on."""
    emulator.add_account(OTHER, emulator.access_token)
    async with media.uploaded(PHOTO, phone_number_id=OTHER) as uploaded:
        pass
    numbers = [request.query.get("phone_number_id") for request in emulator.requests]
    assert [(request.method, request.path) for request in emulator.requests] == [
        ("POST", f"/v25.0/{OTHER}/media"),
        ("DELETE", f"/v25.0/{uploaded.id}"),
    ]
    assert numbers == [None, OTHER]


async def test_uploaded_never_was(emulator: Emulator, media: MediaApi) -> None:
    """When the upload fails there is nothing to delete."""

    async def work() -> None:
        async with media.uploaded("no such file"):
            pytest.fail("the block ran")

    assert (await failure(StorageError, work())).operation == "upload"
    assert emulator.requests == []


# Delete


async def test_missing_ok(media: MediaApi, photo: str) -> None:
    """What is gone already may be no error."""
    assert await media.delete(photo, missing_ok=True) == DeletedMedia(success=True)
    assert await media.delete(photo, missing_ok=True) == DeletedMedia(success=False)
    await failure(MediaNotFoundError, media.delete(photo))


async def test_missing_ok_is_about_missing_media_only(emulator: Emulator, media: MediaApi, photo: str) -> None:
    """A dead token stays an error."""
    emulator.expire_token(emulator.access_token)
    await failure(AuthenticationError, media.delete(photo, missing_ok=True))


@pytest.mark.parametrize("missing_ok", [False, True])
async def test_deleted_without_success(server: Server, scripted: MediaApi, missing_ok: bool) -> None:
    """A success that says it was none is an error."""
    server.script = [json_response({"success": False})]
    error = await failure(ServerError, scripted.delete("7", missing_ok=missing_ok))
    assert (error.operation, error.media_id, error.maybe_applied) == ("delete", "7", True)


# Send


@pytest.mark.parametrize(
    ("kind", "sample", "extras"),
    [
        ("image", "photo.jpg", {"caption": "look"}),
        ("video", "clip.mp4", {"caption": "look"}),
        ("audio", "note.ogg", {"voice": True}),
        ("document", "report.pdf", {"caption": "look", "filename": "bill.pdf"}),
        ("sticker", "sticker.webp", {}),
    ],
)
@pytest.mark.parametrize("with_extras", [False, True])
async def test_kinds(
    emulator: Emulator, media: MediaApi, kind: Any, sample: str, extras: dict[str, Any], with_extras: bool
) -> None:
    """Every kind can be sent, bare and with all it takes, and is known by the upload."""
    uploaded = await media.upload(SAMPLES[sample])
    given = extras if with_extras else {}
    sent = [
        await media.send(TO, uploaded.id, kind=kind, **given),
        await media.send(TO, uploaded.id, **given),
        await media.send(TO, uploaded, **given),
    ]
    named = {"filename": "report.pdf"} if kind == "document" else {}
    objects = [{"id": uploaded.id, **more} for more in (given, given, named | given)]
    for message, one, about in zip(emulator.messages, sent, objects, strict=True):
        assert message == {
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            "to": TO,
            "type": kind,
            kind: about,
            "message_id": one.id,
            "phone_number_id": emulator.phone_number_id,
        }
    asked = [request.method for request in emulator.requests]
    assert asked == ["POST", "POST", "GET", "POST", "POST"]  # Meta is asked for the type of a bare id only


async def test_everything_with_an_id(emulator: Emulator, media: MediaApi) -> None:
    """Whatever has a media id is as good as the id: to look up, download, send and delete."""
    uploaded = await media.upload(SAMPLES["report.pdf"])
    content = SAMPLES["report.pdf"].read_bytes()
    (inbound,) = inbound_media((await emulator.receive(content, "application/pdf", filename="Fatura 05.pdf"))[0])
    async with MediaLibrary(media, MemoryStore()) as library:
        entry = await library.ensure(SAMPLES["report.pdf"])
    for what in (uploaded, await media.get_info(uploaded), inbound, entry):
        assert (await media.get_info(what)).id == what.id
        assert await media.read(what) == content
        assert (await media.send(TO, what)).input == TO
        assert emulator.messages[-1]["type"] == "document"
    names = [message["document"].get("filename") for message in emulator.messages]
    assert names == ["report.pdf", None, "Fatura 05.pdf", "report.pdf"]
    await media.delete(inbound)
    error = await failure(MediaNotFoundError, media.delete(inbound))
    assert error.media_id == inbound.id


async def test_a_person_without_a_number(emulator: Emulator, media: MediaApi) -> None:
    """From the webhook to the reply, with nothing but a user id; and in a group."""
    cases: list[tuple[dict[str, Any], dict[str, str]]] = [
        ({"sender": "US.13491208655302741918"}, {"recipient": "US.13491208655302741918"}),
        ({"sender": "US.13491208655302741918", "group_id": "Y2FwaV9n"}, {"to": "Y2FwaV9n"}),
    ]
    for more, expected in cases:
        body, signature = await emulator.receive(PHOTO, "image/jpeg", **more)
        assert verify_signature(emulator.app_secret, body, signature)
        (inbound,) = inbound_media(body)
        assert (inbound.sender, inbound.user_id, inbound.username) == (None, more["sender"], "@customer")
        assert await media.read(inbound) == PHOTO
        assert inbound.reply_address is not None
        sent = await media.send(inbound.reply_address, await media.upload(PHOTO), reply_to=inbound.message_id)
        message = emulator.messages[-1]
        assert {name: message[name] for name in ("to", "recipient") if name in message} == expected
        assert message["recipient_type"] == ("group" if "group_id" in more else "individual")
        assert (sent.wa_id, sent.user_id) == (None, expected.get("recipient"))


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        (None, "report.pdf"),
        ("Bill: May?", "Bill: May?.pdf"),
        ("bill.2026", "bill.2026.pdf"),
        ("bill.pdf", "bill.pdf"),
        ("bill.csv", "bill.pdf"),
        ("bill.docx", "bill.pdf"),
    ],
)
async def test_names_of_documents(emulator: Emulator, media: MediaApi, filename: str | None, expected: str) -> None:
    """A document is shown under the name of the upload, or another one, which has an extension for its icon."""
    uploaded = await media.upload(SAMPLES["report.pdf"])
    cases: list[tuple[Any, Any]] = [
        (uploaded, None),
        (uploaded.id, None),
        (attrs.evolve(uploaded, mime_type=None), "document"),
    ]
    for what, kind in cases:
        await media.send(TO, what, filename=filename, kind=kind)
    shown = [message["document"].get("filename") for message in emulator.messages]
    assert shown == [expected, None if filename is None else expected, filename or expected]


async def test_sends_with_further_keys(emulator: Emulator, media: MediaApi, photo: str) -> None:
    """Further keys of the envelope arrive."""
    await media.send(TO, photo, extra={"biz_opaque_callback_data": "order 7"})
    assert emulator.messages[-1]["biz_opaque_callback_data"] == "order 7"


async def test_types_that_cannot_be_uploaded(emulator: Emulator, media: MediaApi) -> None:
    """Received media of other types goes as a document; without a type, Meta is asked."""
    (inbound,) = inbound_media((await emulator.receive(b"{}", "application/json"))[0])
    for what in (inbound.id, UploadedMedia(id=inbound.id), UploadedMedia(id=inbound.id, mime_type="no type")):
        await media.send(TO, what)
        assert emulator.messages[-1]["type"] == "document"
    error = await failure(ConfigurationError, media.send(TO, attrs.evolve(inbound, kind="hologram")))
    assert (error.media_id, str(error)) == (
        inbound.id,
        "kind must be one of audio, document, image, sticker, video, not 'hologram'",
    )


async def test_a_message_on_the_wire(server: Server, scripted: MediaApi) -> None:
    """A message is JSON in Meta's words; the number is freed of what people write between digits."""
    reply = {"contacts": [{"wa_id": "1555"}], "messages": [{"id": "wamid.x", "message_status": "accepted"}]}
    server.script = [json_response(reply)]
    sent = await scripted.send("+1 (555) 000-11.11", "7", kind="image", reply_to="wamid.before", caption="für dich")
    assert sent == SentMessage(id="wamid.x", wa_id="1555", status="accepted")
    (request,) = server.requests
    assert (request.method, request.target) == ("POST", f"/v25.0/{NUMBER}/messages")
    assert request.header("content-type") == "application/json"
    assert request.header("authorization") == f"Bearer {TOKEN}"
    assert json.loads(request.body) == {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": TO,
        "type": "image",
        "context": {"message_id": "wamid.before"},
        "image": {"id": "7", "caption": "für dich"},
    }


@pytest.mark.parametrize(
    ("to", "extras"),
    [
        (TO, {"kind": "text"}),
        (TO, {"kind": "Image"}),
        (TO, {"kind": "audio", "caption": "look"}),
        (TO, {"kind": "sticker", "caption": "look"}),
        (TO, {"kind": "image", "filename": "a.jpg"}),
        (TO, {"kind": "video", "filename": "a.mp4"}),
        (TO, {"kind": "image", "voice": True}),
        (TO, {"kind": "document", "voice": False}),
        (TO, {"caption": "x" * 1025}),
        ("", {}),
        ("1234", {}),
        ("somebody", {}),
        ("+1555\n0001111", {}),
        (15550001111, {}),
        ("0171 1234567", {}),
        ("0015550001111", {}),
        (None, {}),
        (TO, {"caption": 5}),
        (TO, {"filename": 5}),
        (TO, {"voice": "yes"}),
        (TO, {"reply_to": 5}),
        (TO, {"extra": [1]}),
        (TO, {"extra": {"to": TO}, "kind": "image"}),
    ],
)
async def test_messages_that_cannot_be(emulator: Emulator, media: MediaApi, to: Any, extras: dict[str, Any]) -> None:
    """What such a message does not take is refused before anything is sent."""
    error = await failure(ConfigurationError, media.send(to, "1", **extras))
    assert (error.operation, error.media_id, error.attempts) == ("send", "1", 0)
    assert emulator.requests == []


async def test_the_longest_caption(media: MediaApi, photo: str) -> None:
    """1024 characters are allowed."""
    assert (await media.send(TO, photo, caption="ü" * 1024)).id


# Another number, another copy


async def test_another_number_per_call(emulator: Emulator, media: MediaApi) -> None:
    """Every verb that knows of numbers takes one per call."""
    emulator.add_account(OTHER, emulator.access_token)
    uploaded = await media.upload(PHOTO, phone_number_id=OTHER)
    await failure(MediaNotFoundError, media.get_info(uploaded.id, phone_number_id=emulator.phone_number_id))
    await media.get_info(uploaded.id, phone_number_id=OTHER)
    await media.send(TO, uploaded, phone_number_id=OTHER)
    await failure(MediaNotFoundError, media.delete(uploaded.id, phone_number_id=emulator.phone_number_id))
    await media.delete(uploaded.id, phone_number_id=OTHER)
    asked = [(request.path.rpartition("/")[2], request.query.get("phone_number_id")) for request in emulator.requests]
    own = emulator.phone_number_id
    assert asked == [
        ("media", None),
        (uploaded.id, own),
        (uploaded.id, OTHER),
        ("messages", None),
        (uploaded.id, own),
        (uploaded.id, OTHER),
    ]
    assert emulator.messages[0]["phone_number_id"] == OTHER


async def test_copies_share_connections(server: Server, scripted: MediaApi) -> None:
    """A copy has its own number, token and settings, and the original's connections."""
    server.script = [json_response({"id": "7"})]
    twin = scripted.with_options(access_token="EAAGtwin", phone_number_id=OTHER, api_version=26, read_timeout=5)
    await scripted.upload(PHOTO)
    await twin.upload(PHOTO)
    await scripted.upload(PHOTO)
    sent = [(request.target, request.header("authorization")) for request in server.requests]
    own = (f"/v25.0/{NUMBER}/media", f"Bearer {TOKEN}")
    assert sent == [own, (f"/v26.0/{OTHER}/media", "Bearer EAAGtwin"), own]
    assert server.connections == 1
    assert twin.settings == attrs.evolve(scripted.settings, api_version="v26.0", read_timeout=5)
    assert repr(twin) == f"MediaApi(phone_number_id='{OTHER}', base_url='{server.base_url}')"


async def test_a_copy_keeps_the_rest(server: Server, scripted: MediaApi) -> None:
    """What is not changed stays."""
    server.script = [json_response({"id": "7"})]
    await scripted.with_options().upload(PHOTO)
    (request,) = server.requests
    assert (request.target, request.header("authorization")) == (f"/v25.0/{NUMBER}/media", f"Bearer {TOKEN}")


@pytest.mark.parametrize("change", [{"concurrency": 3}, {"colour": "red"}, {"chunk_size": 0}, {"access_token": " "}])
def test_changes_that_cannot_be(change: dict[str, Any]) -> None:
    """A copy cannot have places of its own, unknown settings, or bad ones."""
    with pytest.raises(ConfigurationError):
        MediaApi(TOKEN).with_options(**change)


async def test_copies_share_places(server: Server) -> None:
    """A copy's calls wait in the original's queue."""
    go_on = asyncio.Event()
    server.script = [stalled(b"", go_on, json_response({"success": True}))]
    async with client(server, concurrency=1) as media:
        copies = [media, media.with_options(phone_number_id=OTHER), media.with_options(access_token="EAAGtwin")]
        tasks = [asyncio.create_task(copy.delete("1")) for copy in copies]
        await wait_until(lambda: len(server.requests) == 1)
        go_on.set()
        await asyncio.gather(*tasks)
    assert (server.most_at_once, server.connections) == (1, 1)


# Closing


@every_verb
async def test_after_closing(emulator: Emulator, verb: str) -> None:
    """Every verb of a closed client, and of its copies, says so."""
    media = emulator.api()
    twin = media.with_options(read_timeout=5)
    await media.upload(PHOTO)
    await media.aclose()
    await media.aclose()
    for closed in (media, twin, media.with_options()):
        assert "closed" in str(await failure(ConfigurationError, VERBS[verb](closed, "1")))
    assert len(emulator.requests) == 1


async def test_a_copy_closes_nothing(emulator: Emulator, media: MediaApi) -> None:
    """Closing a copy leaves the original, and the copy itself, at work."""
    twin = media.with_options(read_timeout=5)
    async with twin:
        await twin.upload(PHOTO)
    await twin.aclose()
    assert (await media.upload(PHOTO)).id != (await twin.upload(PHOTO)).id


async def test_opened_twice(emulator: Emulator) -> None:
    """A client is opened once; the second block finds it closed."""
    media = emulator.api()
    async with media:
        await media.upload(PHOTO)
    async with media:
        await failure(ConfigurationError, media.upload(PHOTO))


async def test_closed_before_use(emulator: Emulator) -> None:
    """A client that was never used can be closed too."""
    media = emulator.api()
    await media.aclose()
    await failure(ConfigurationError, media.upload(PHOTO))


async def test_closed_while_opening(emulator: Emulator) -> None:
    """A client closed while its first call gets ready leaves nothing open, and the call says what happened."""
    for steps in range(10):
        media = emulator.api()
        task = asyncio.create_task(media.get_info("1"))
        for _ in range(steps):
            await asyncio.sleep(0)  # one step of the loop
        await media.aclose()
        with pytest.raises((ConfigurationError, NetworkError, MediaNotFoundError)):
            await task


async def test_closed_in_the_middle(server: Server) -> None:
    """A call that is under way when its client is closed ends with an error of ours."""
    server.script = [silence]
    media = client(server)
    task = asyncio.create_task(media.get_info("1"))
    await wait_until(lambda: len(server.requests) == 1)
    await media.aclose()
    await failure(NetworkError, task)


# Configuration


def test_repr_keeps_secrets() -> None:
    """Neither client nor settings show token or app secret."""
    media = MediaApi(SECRET, NUMBER, settings=Settings(app_secret=SECRET))
    assert repr(media) == f"MediaApi(phone_number_id='{NUMBER}', base_url='https://graph.facebook.com')"
    assert SECRET not in repr(media.settings)
    assert SECRET not in repr(vars(media)) + repr(vars(media.token)) + repr(vars(media.shared))


async def test_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not passed comes from Meta's own variables; what is passed wins."""
    monkeypatch.setenv("CLOUD_API_ACCESS_TOKEN", "EAAGenvironment")
    monkeypatch.setenv("WA_PHONE_NUMBER_ID", OTHER)
    monkeypatch.setenv("WA_BASE_URL", server.base_url)
    monkeypatch.setenv("CLOUD_API_VERSION", "24")
    monkeypatch.setenv("WA_APP_SECRET", SECRET)
    monkeypatch.setenv("WA_BUSINESS_ACCOUNT_ID", "5")
    server.script = [json_response({"id": "7"})]
    async with MediaApi() as media, MediaApi(TOKEN, NUMBER, settings=Settings(api_version=25)) as passed:
        await media.upload(PHOTO)
        await passed.upload(PHOTO)
        assert (media.settings.app_secret, media.settings.business_account_id) == (SECRET, "5")
    sent = [(request.target.partition("?")[0], request.header("authorization")) for request in server.requests]
    assert sent == [(f"/v24.0/{OTHER}/media", "Bearer EAAGenvironment"), (f"/v25.0/{NUMBER}/media", f"Bearer {TOKEN}")]


async def test_empty_variables(monkeypatch: pytest.MonkeyPatch, emulator: Emulator) -> None:
    """An empty variable is one that is not set."""
    for name in ("CLOUD_API_ACCESS_TOKEN", "WA_PHONE_NUMBER_ID", "CLOUD_API_VERSION", "WA_BASE_URL"):
        monkeypatch.setenv(name, "")
    assert MediaApi().settings == Settings()
    async with MediaApi(settings=Settings(base_url=emulator.base_url)) as media:
        assert "CLOUD_API_ACCESS_TOKEN" in str(await failure(ConfigurationError, media.get_info("1")))


@pytest.mark.parametrize(
    ("variable", "value"),
    [("HTTPS_PROXY", "gopher://proxy"), ("ALL_PROXY", f"nonsense://user:{SECRET}@proxy"), ("SSL_CERT_FILE", "no/such")],
)
async def test_an_environment_that_cannot_work(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """What httpx cannot make of the environment is a ConfigurationError that names the variables and not the values."""
    monkeypatch.setenv(variable, value)
    async with MediaApi(TOKEN) as media:
        error = await failure(ConfigurationError, media.get_info("1"))
    assert variable in str(error)
    assert SECRET not in str(error)


async def test_logs_keep_secrets(emulator: Emulator, media: MediaApi, caplog: pytest.LogCaptureFixture) -> None:
    """What is logged below us shows neither token nor signed query; what others log with httpx is as it was."""
    caplog.set_level(logging.DEBUG)
    await media.read((await media.upload(PHOTO)).id)
    async with httpx.AsyncClient(trust_env=False) as theirs:
        settings = Settings(base_url=emulator.base_url)
        over_theirs = MediaApi(emulator.access_token, emulator.phone_number_id, settings=settings, http_client=theirs)
        await over_theirs.read((await over_theirs.upload(PHOTO)).id)
        await theirs.get(f"{emulator.base_url}/v25.0/x", params={"mine": "shown"})
    assert emulator.access_token not in caplog.text
    assert "hash=" not in caplog.text
    assert "attachments/?…" in caplog.text
    assert "mine=shown" in caplog.text


# Many at once, and cancellation


async def test_waiting_calls_hold_nothing(server: Server, tmp_path: Path) -> None:
    """Two hundred uploads of files wait without opening theirs."""
    paths = [tmp_path / f"{index}.txt" for index in range(200)]
    for path in paths:
        path.write_text("hello " * 12_000)  # more than is read and closed at once
    before = set(open_files(tmp_path))
    go_on = asyncio.Event()
    server.script = [stalled(b"", go_on, json_response({"id": "7"}))]
    async with client(server, concurrency=2) as media:
        tasks = [asyncio.create_task(media.upload(path)) for path in paths]
        await wait_until(lambda: len(server.requests) == 2)
        held = set(open_files(tmp_path))
        go_on.set()
        await asyncio.gather(*tasks)
    assert len(held - before) == 2
    assert (len(server.requests), server.most_at_once, server.connections) == (200, 2, 2)
    await none_added(before, lambda: set(open_files(tmp_path)))


async def cancelled(task: asyncio.Future[Any]) -> None:
    """Cancel a task, and see that it is."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def slowly(data: bytes) -> AsyncIterator[bytes]:
    """Give bytes piece by piece, as a network would."""
    for start in range(0, len(data), 50_000):
        yield data[start : start + 50_000]
        await asyncio.sleep(0)  # one step of the loop


@contextlib.asynccontextmanager
async def sources(path: Path) -> AsyncIterator[dict[str, Any]]:
    """Make one source of every sort, of the same bytes."""
    async with aiofiles.open(path, "wb") as handle:
        await handle.write(BIG)
    async with aiofiles.open(path, "rb") as handle:
        with path.open("rb") as file:
            yield {
                "path": path,
                "bytes": BIG,
                "handle": handle,
                "file": file,
                "stream": slowly(BIG),
                "declared": Source.stream(slowly(BIG), size=len(BIG)),
            }


@pytest.mark.parametrize("sort", ["path", "bytes", "handle", "file", "stream", "declared"])
@pytest.mark.parametrize("after", [1, 5, 11])
async def test_cancelled_at_some_chunk(emulator: Emulator, tmp_path: Path, sort: str, after: int) -> None:
    """An upload cancelled at any chunk leaves no file open, and a client that works."""
    before = set(open_files(tmp_path))
    heard: list[Progress] = []

    def callback(progress: Progress) -> None:
        heard.append(progress)
        if len(heard) == after:
            task.cancel()

    async with emulator.api(chunk_size=100_000, concurrency=1) as media, sources(tmp_path / "a.txt") as every:
        opened = set(open_files(tmp_path))
        task = asyncio.create_task(media.upload(every[sort], filename="a.txt", progress=callback))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert after <= len(heard) <= after + 2  # a few small chunks leave together
        await none_added(opened, lambda: set(open_files(tmp_path)))
        assert await media.read((await media.upload(PHOTO)).id) == PHOTO
    await none_added(before, lambda: set(open_files(tmp_path)))


@every_verb
async def test_cancelled_while_waiting(server: Server, verb: str) -> None:
    """A call that waits for a silent server can be cancelled, and the client works afterwards."""
    server.script = [silence, json_response({"success": True})]
    async with client(server, concurrency=1) as media:
        task = asyncio.ensure_future(VERBS[verb](media, "1"))
        await wait_until(lambda: len(server.requests) == 1)
        await cancelled(task)
        assert await media.delete("2") == DeletedMedia(success=True)


async def test_cancelled_while_verifying(server: Server) -> None:
    """An upload that waits for its verification can be cancelled."""
    server.script = [json_response({"id": "7"}), silence, json_response({"success": True})]
    async with client(server, concurrency=1) as media:
        task = asyncio.create_task(media.upload(PHOTO, verify=True))
        await wait_until(lambda: len(server.requests) == 2)
        await cancelled(task)
        assert await media.delete("7") == DeletedMedia(success=True)


async def test_cancelled_in_the_queue(server: Server) -> None:
    """A call that waits for its turn can be cancelled, and the queue moves on."""
    go_on = asyncio.Event()
    server.script = [stalled(b"", go_on, json_response({"success": True})), json_response({"success": True})]
    async with client(server, concurrency=1) as media:
        first, second, third = (asyncio.create_task(media.delete(str(number))) for number in range(3))
        await wait_until(lambda: len(server.requests) == 1)
        await cancelled(second)
        go_on.set()
        assert [await first, await third] == [DeletedMedia(success=True)] * 2
    assert [request.target for request in server.requests] == ["/v25.0/0", "/v25.0/2"]


@pytest.mark.parametrize("sort", ["path", "bytes", "handle", "file", "stream", "declared"])
async def test_cancelled_anywhere(emulator: Emulator, tmp_path: Path, sort: str) -> None:
    """Cancelled after any number of steps, an upload leaves no file open, or has been done."""
    before = set(open_files(tmp_path))
    async with emulator.api(chunk_size=300_000, concurrency=1) as media:
        for steps in range(0, 60, 2):
            async with sources(tmp_path / "a.txt") as every:
                task = asyncio.create_task(media.upload(every[sort], filename="a.txt"))
                for _ in range(steps):
                    await asyncio.sleep(0)  # one step of the loop
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled() or task.exception() is None
            await none_added(before, lambda: set(open_files(tmp_path)))
        assert await media.read((await media.upload(PHOTO)).id) == PHOTO


async def test_a_timeout_of_the_callers(server: Server, scripted: MediaApi) -> None:
    """The caller's own timeout arrives as such."""
    server.script = [silence]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as limit:
            await scripted.upload(PHOTO, progress=lambda _: limit.reschedule(0))  # connected by now, and never answered
    server.script = [json_response({"success": True})]
    assert await scripted.delete("1") == DeletedMedia(success=True)


def test_media_info_can_be_made_by_hand() -> None:
    """What was kept in a database can be made into a value again."""
    known = MediaInfo(id="1", url="https://lookaside.fbsbx.com/?ext=1795342300", mime_type="image/jpeg")
    assert known.url_expires_at == datetime.fromtimestamp(1795342300, UTC)
