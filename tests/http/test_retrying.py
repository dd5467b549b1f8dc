"""Calls that are tried again, on real sockets: when, how often, with what, and when not."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from meta_media import DeletedMedia, MediaApi, Settings, UploadedMedia
from meta_media.errors import (
    AuthenticationError,
    MediaError,
    MediaNotFoundError,
    NetworkError,
    RateLimitError,
    ServerError,
    TransferTimeoutError,
    UntrustedUrlError,
)
from meta_media.http.limits import Limits
from tests.support.clock import Slept
from tests.support.marks import slow_except
from tests.support.servers import Received, Server, Step, cut, info, json_response, page, reset, silence, wait_until

TOKEN = "EAAGscripted"
NUMBER = "106540352242922"
TEXT = b"some text"
BUSY = page("<html>busy", 503, content_type="text/html")
DONE = json_response({"id": "42"})
GONE = json_response({"error": {"message": "(#100) gone", "code": 100, "error_subcode": 33}}, 400)
Connect = Callable[..., Awaitable[tuple[Server, MediaApi]]]


@pytest.fixture
def slept() -> Slept:
    """What was slept."""
    return Slept()


@pytest.fixture
async def media(server: Server) -> AsyncIterator[MediaApi]:
    """A client that does not wait long between its tries."""
    async with client(server) as api:
        yield api


def client(server: Server, limits: Limits | None = None, token: Any = TOKEN, **settings: Any) -> MediaApi:
    """Make a client for a scripted server."""
    api = MediaApi(token, NUMBER, settings=Settings(base_url=server.base_url, **{"backoff": 0.001} | settings))
    if limits is not None:
        api.shared.limits = limits
    return api


def throttled(status: int = 429, code: int = 130429, **headers: str) -> bytes:
    """Write what a throttled request is answered with."""
    return json_response({"error": {"message": f"(#{code}) Rate limit hit", "code": code}}, status, **headers)


def dead(status: int = 401) -> bytes:
    """Write what Meta says of a token that has died."""
    return json_response({"error": {"message": "Session has expired", "code": 190}}, status)


CALLS: dict[str, Callable[[MediaApi], Awaitable[Any]]] = {
    "upload": lambda media: media.upload(TEXT),
    "get_info": lambda media: media.get_info("1"),
    "delete": lambda media: media.delete("1"),
    "read": lambda media: media.read(f"{media.settings.base_url}/media"),
}
every_call = pytest.mark.parametrize("verb", CALLS)


def good(server: Server, verb: str) -> bytes:
    """Write what a verb wants to hear."""
    answers = {
        "upload": DONE,
        "get_info": info(f"{server.base_url}/media"),
        "delete": json_response({"success": True}),
        "read": page(TEXT),
    }
    return answers[verb]


# When, and how often


@every_call
@pytest.mark.parametrize(
    "fault",
    [BUSY, reset(), cut(b"HTTP/1.1 200"), throttled(400), page("", 408)],
    ids=["busy", "reset", "cut", "throttled", "408"],
)
async def test_passing_faults(server: Server, media: MediaApi, verb: str, fault: Step) -> None:
    """What passes after two tries costs its caller nothing but the time."""
    server.script = [fault, fault, good(server, verb)]
    assert await CALLS[verb](media)
    assert len(server.requests) == 3


@every_call
async def test_lasting_faults(server: Server, media: MediaApi, verb: str) -> None:
    """What lasts is told after three tries, with their number; another setting is another number."""
    server.script = [BUSY]
    for api, tries in ((media, 3), (media.with_options(max_retries=0), 1), (media.with_options(max_retries=4), 5)):
        server.requests.clear()
        with pytest.raises(ServerError) as caught:
            await CALLS[verb](api)
        assert (caught.value.attempts, len(server.requests), caught.value.status) == (tries, tries, 503)


@every_call
async def test_a_lasting_fault_after_a_passing_one(server: Server, media: MediaApi, verb: str) -> None:
    """An answer that will not change ends it, whatever came before."""
    server.script = [BUSY, json_response({"error": {"message": "(#10) no", "code": 10}}, 403), good(server, verb)]
    with pytest.raises(MediaError) as caught:
        await CALLS[verb](media)
    assert (caught.value.attempts, len(server.requests)) == (2, 2)


async def test_tries_within_tries(server: Server, media: MediaApi) -> None:
    """A lookup that a download needs and that fails for good is not begun again by the download."""
    server.script = [BUSY]
    with pytest.raises(ServerError) as caught:
        await media.read("1")
    assert (caught.value.attempts, len(server.requests)) == (3, 3)


async def test_waits(server: Server, slept: Slept) -> None:
    """Between the tries of a broken connection there is a random part of half a second, then of a whole one, up to eight."""
    server.script = [reset()]
    async with client(
        server, Limits(now=slept.now, sleep=slept, jitter=lambda: 1.0), backoff=0.5, max_retries=6
    ) as media:
        with pytest.raises(NetworkError):
            await media.get_info("1")
    assert slept == [0.5, 1, 2, 4, 8, 8]


@pytest.mark.parametrize(
    ("header", "expected"), [("7", 7.5), ("0", 0.5), ("-1", 0.5), ("nan", 0.5), ("soon", 0.5), ("60", 60.5)]
)
async def test_retry_after_of_a_busy_server(server: Server, slept: Slept, header: str, expected: float) -> None:
    """What a busy server asks for is waited for, and a random bit more; absurd wishes are not wishes."""
    server.script = [page("", 503, retry_after=header), DONE]
    async with client(server, Limits(now=slept.now, sleep=slept, jitter=lambda: 1.0), backoff=0.5) as media:
        await media.upload(TEXT)
    assert slept == [expected]


@pytest.mark.parametrize("fault", [page("", 503, retry_after="61"), throttled(retry_after="1000000000")])
async def test_too_long_to_wait(server: Server, slept: Slept, fault: bytes) -> None:
    """Who is asked to wait for more than a minute tells the caller at once."""
    server.script = [fault, DONE]
    async with client(server, Limits(now=slept.now, sleep=slept)) as media:
        with pytest.raises(MediaError) as caught:
            await media.upload(TEXT)
    assert (slept, len(server.requests), caught.value.retryable) == ([], 1, True)
    assert getattr(caught.value, "retry_after", None) in {61.0, 86400.0}


async def test_retry_after_as_a_date(server: Server, slept: Slept) -> None:
    """A date is compared with that of the reply, not with a clock of ours."""
    dates = {"date": "Sun, 22 Nov 2020 10:00:00 GMT", "retry_after": "Sun, 22 Nov 2020 10:00:20 GMT"}
    server.script = [page("", 503, **dates), DONE]
    async with client(server, Limits(now=slept.now, sleep=slept, jitter=lambda: 0.0)) as media:
        await media.upload(TEXT)
    assert slept == [20.0]


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ('{"1":[{"type":"whatsapp","estimated_time_to_regain_access":1}]}', 60.0),
        ('{"1":[{"estimated_time_to_regain_access":0.25}],"2":[{},{"estimated_time_to_regain_access":0.5}]}', 30.0),
        ('{"1":[{"estimated_time_to_regain_access":0}]}', 0.5),
        ('{"1":[{"estimated_time_to_regain_access":"x"},7],"2":7}', 0.5),
        ("[1]", 0.5),
        ("not JSON", 0.5),
    ],
)
async def test_usage_headers(server: Server, slept: Slept, usage: str, expected: float) -> None:
    """Without a Retry-After, a throttled request waits for the minutes of the worst usage that Meta tells of."""
    server.script = [throttled(x_business_use_case_usage=usage), DONE]
    async with client(server, Limits(now=slept.now, sleep=slept, jitter=lambda: 1.0), backoff=0.5) as media:
        await media.upload(TEXT)
    assert slept == pytest.approx([expected])


async def test_usage_headers_of_others(server: Server, slept: Slept) -> None:
    """They do not say how long a broken server stays broken."""
    usage = '{"1":[{"estimated_time_to_regain_access":10}]}'
    server.script = [page("", 503, x_business_use_case_usage=usage), DONE]
    async with client(server, Limits(now=slept.now, sleep=slept, jitter=lambda: 1.0), backoff=0.5) as media:
        await media.upload(TEXT)
    assert slept == [0.5]


async def test_deadline_before_the_next_try(server: Server, slept: Slept) -> None:
    """A wait that would outlive the deadline is not begun; the cause is told."""
    server.script = [page("", 503, retry_after="30"), DONE]
    async with client(server, Limits(now=slept.now, sleep=slept), deadline=20.0) as media:
        with pytest.raises(TransferTimeoutError) as caught:
            await media.upload(TEXT)
    assert (caught.value.phase, slept, len(server.requests)) == ("deadline", [], 1)
    assert (caught.value.attempts, caught.value.maybe_applied) == (1, True)
    assert isinstance(caught.value.__cause__, ServerError)


async def test_waits_count_towards_the_deadline(server: Server) -> None:
    """The time between tries is part of the time that all of them have."""
    server.script = [BUSY]
    async with client(server, Limits(jitter=lambda: 1.0), deadline=0.5, backoff=0.2, max_retries=50) as media:
        with pytest.raises(TransferTimeoutError) as caught:
            await media.get_info("1")
    assert (caught.value.phase, caught.value.attempts) == ("deadline", 2)


async def test_a_kept_connection_that_is_dead(server: Server, slept: Slept) -> None:
    """Where a server hangs up on kept connections, the next try is made at once, on a connection of its own."""
    server.script = [good(server, "get_info")]
    async with client(server, Limits(now=slept.now, sleep=slept)) as media:
        await asyncio.gather(*(media.get_info("1") for _ in range(4)))
        kept = server.connections
        server.script = [reset(), good(server, "get_info")]
        server.requests.clear()
        await media.get_info("1")
    assert (slept, len(server.requests), server.connections) == ([], 2, kept + 1)


async def test_what_is_logged(server: Server, media: MediaApi, caplog: pytest.LogCaptureFixture) -> None:
    """Each further try is told to the logger `meta_media`, with its reason and without the token."""
    server.script = [reset(), BUSY, good(server, "get_info")]
    with caplog.at_level("INFO", logger="meta_media"):
        await media.get_info("1")
    told_of = [record.getMessage() for record in caplog.records if record.name == "meta_media"]
    assert [line.partition(" s: ")[2][:15] for line in told_of] == ["get_info at 127", "no explanation "]
    assert TOKEN not in caplog.text


# The budget


@pytest.mark.slow
async def test_storm() -> None:
    """A server that answers 503 to everything gets the calls, and as many more as the budget has retries."""
    async with Server(BUSY) as server, client(server) as media:
        results = await asyncio.gather(*(media.get_info("1") for _ in range(1000)), return_exceptions=True)
        assert {type(result) for result in results} == {ServerError}
        assert len(server.requests) == 1000 + 100
        server.script = [good(server, "get_info")]
        await asyncio.gather(*(media.get_info("1") for _ in range(10)))
        server.script = [BUSY]
        server.requests.clear()
        await asyncio.gather(*(media.get_info("1") for _ in range(10)), return_exceptions=True)
    assert len(server.requests) == 10 + 2


async def test_retries_that_help_cost_nothing(server: Server, media: MediaApi) -> None:
    """A service that is flaky, and answers the second time, never exhausts the budget."""
    server.script = [BUSY, good(server, "get_info")] * 300
    for _ in range(300):
        await media.get_info("1")
    assert len(server.requests) == 600


async def test_copies_share_the_budget(server: Server, media: MediaApi) -> None:
    """Copies of a client have one budget."""
    server.script = [BUSY]
    twins = [media, media.with_options(phone_number_id="2"), media.with_options(access_token="EAAGother")]
    await asyncio.gather(*(twins[n % 3].get_info("1") for n in range(120)), return_exceptions=True)
    assert len(server.requests) == 120 + 100


# Throttled


@pytest.mark.parametrize(
    ("status", "code"),
    slow_except([(429, 130429)], [(429, 130429), (400, 4), (400, 80007), (400, 80008), (400, 613), (429, 0)]),
)
async def test_throttled_uploads(status: int, code: int) -> None:
    """After one throttled upload of fifty none is sent until Meta wants them again; all get through."""
    told_at: list[float] = []
    sent_at: list[float] = []

    async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        sent_at.append(time.monotonic())
        await wait_until(lambda: len(sent_at) >= 20)
        if not told_at:
            told_at.append(time.monotonic())
            writer.write(throttled(status, code, retry_after="2") if code else page("", 429, retry_after="2"))
            return
        for _turn in range(5):
            await asyncio.sleep(0.02)  # the client hears first that it is throttled
        writer.write(DONE)

    async with Server(answer) as server, client(server, concurrency=20) as media:
        results = await asyncio.gather(*(media.upload(TEXT) for _ in range(50)))
    assert all(isinstance(result, UploadedMedia) for result in results)
    assert len(server.requests) == 51
    assert min(sent_at[20:]) >= told_at[0] + 2


async def test_a_pause_is_for_one_number(server: Server) -> None:
    """While one number pauses, it takes no place of the others."""

    async def judge(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(throttled(retry_after="30") if NUMBER in request.target else DONE)

    server.script = [judge]
    async with client(server, concurrency=2) as media:
        waiting = [asyncio.ensure_future(media.upload(TEXT)) for _ in range(10)]
        await wait_until(lambda: len(server.requests) >= 1)
        other = media.with_options(phone_number_id="2")
        for _ in range(5):
            assert (await other.upload(TEXT)).id == "42"
        assert (await media.upload(TEXT, phone_number_id="3")).id == "42"
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_uploads_per_second(server: Server, slept: Slept) -> None:
    """Uploads keep the pace that was set, per number; nothing else does, and waiting for it is not part of a deadline."""
    server.script = [DONE]
    limits = Limits(now=slept.now, sleep=slept)
    async with client(server, limits, uploads_per_second=2, deadline=0.9) as media:
        for _ in range(4):
            await media.upload(TEXT)
        await media.with_options(phone_number_id="2").upload(TEXT)
        server.script = [json_response({"success": True})]
        await media.delete("1")
    assert slept == pytest.approx([0.5, 0.5, 0.5])


async def test_info_errors_per_hour(server: Server, media: MediaApi) -> None:
    """After so many refused lookups the next ones are refused here, by downloads, too; nothing else is."""
    server.script = [GONE]
    careful = media.with_options(info_errors_per_hour=3)
    for _ in range(3):
        with pytest.raises(MediaNotFoundError):
            await careful.get_info("1")
    for call in (careful.get_info("1"), careful.read("1")):
        with pytest.raises(RateLimitError) as caught:
            await call
        assert (caught.value.attempts, caught.value.retryable) == (0, False)
        assert 3500 < (caught.value.retry_after or 0) <= 3600
    with pytest.raises(MediaNotFoundError):
        await careful.delete("1")
    assert len(server.requests) == 4


# What is sent again


async def test_an_upload_is_sent_again_whole(server: Server, media: MediaApi) -> None:
    """Each try sends the same bytes; where an earlier one may have got through, the result says so."""
    server.script = [BUSY, throttled(), DONE]
    assert (await media.upload(TEXT)).maybe_duplicate
    server.script.append(DONE)
    assert not (await media.upload(TEXT)).maybe_duplicate
    assert len({request.body for request in server.requests[:3]}) == 1
    assert TEXT in server.requests[0].body


@pytest.mark.parametrize("begun", [True, False])
async def test_a_source_that_can_be_read_once(server: Server, begun: bool) -> None:
    """A stream is not sent again once some of it was read; before that, it is."""
    size = 200_000  # bytes: more than is read before the request

    async def stream() -> AsyncIterator[bytes]:
        yield b"t" * size

    if begun:
        server.script = [BUSY, DONE]
        async with client(server) as media:
            with pytest.raises(ServerError) as caught:
                await media.upload(stream(), size=size, mime_type="text/plain")
        assert caught.value.__notes__ == ["the source can be read only once, so it was not sent again"]
        assert len(server.requests) == 1
        return
    tokens = iter(["EAAGfirst"])

    async def token() -> str:
        return next(tokens)

    async with Server(DONE) as second:
        port = second.port
    async with MediaApi(token, NUMBER, settings=Settings(base_url=f"http://127.0.0.1:{port}", backoff=0.001)) as media:
        with pytest.raises(NetworkError) as refused:
            await media.upload(stream(), size=size, mime_type="text/plain")
    assert (refused.value.attempts, refused.value.maybe_applied) == (3, False)


async def test_a_small_source_that_can_be_read_once(server: Server, media: MediaApi) -> None:
    """A small stream is read before the request, and can be sent again."""

    async def stream() -> AsyncIterator[bytes]:
        yield TEXT

    server.script = [BUSY, DONE]
    assert (await media.upload(stream(), size=len(TEXT), mime_type="text/plain")).attempts == 2
    assert [TEXT in request.body for request in server.requests] == [True, True]


async def test_an_ambiguous_try_is_not_forgotten(server: Server, media: MediaApi) -> None:
    """An upload that may have got through and was then refused says that it may have."""
    server.script = [reset(), json_response({"error": {"message": "(#10) no", "code": 10}}, 403)]
    with pytest.raises(MediaError) as caught:
        await media.upload(TEXT)
    assert (caught.value.maybe_applied, caught.value.attempts, caught.value.retryable) == (True, 2, False)


async def test_messages(server: Server, media: MediaApi) -> None:
    """A message is sent again only where it certainly was not."""
    sent = json_response({"messages": [{"id": "wamid.1"}], "contacts": [{"wa_id": "1"}]})
    for fault, tries in ((throttled(), 2), (reset(), 1), (BUSY, 1)):
        server.script = [fault, sent]
        server.requests.clear()
        if tries == 2:
            assert (await media.send("+15550001111", "7", kind="image")).id == "wamid.1"
        else:
            with pytest.raises(MediaError) as caught:
                await media.send("+15550001111", "7", kind="image")
            assert caught.value.maybe_applied
        assert len(server.requests) == tries


@pytest.mark.parametrize("fault", [reset(), BUSY, cut(b"HTTP/1.1 200 OK\r\n")], ids=["reset", "busy", "cut"])
async def test_delete_that_was_heard(server: Server, media: MediaApi, fault: Step) -> None:
    """Media that is gone after a delete whose reply was lost has been deleted; after a clean one it was not there."""
    server.script = [fault, GONE, GONE]
    assert await media.delete("1") == DeletedMedia(success=True)
    with pytest.raises(MediaNotFoundError) as caught:
        await media.delete("1")
    assert not caught.value.maybe_applied
    assert await media.delete("1", missing_ok=True) == DeletedMedia(success=False)


async def test_an_answer_about_something_else(server: Server, media: MediaApi) -> None:
    """An answer about another id is asked for once more, on another connection."""
    other = info(f"{server.base_url}/x", media_id="2")
    server.script = [other, info(f"{server.base_url}/x")]
    assert (await media.get_info("1")).id == "1"
    assert server.connections == 2
    server.script = [other]
    with pytest.raises(ServerError):
        await media.get_info("1")
    assert len(server.requests) == 4


# Tokens


async def test_token_refresh(server: Server) -> None:
    """When Meta says that the token died, its source is asked once for all who were told, and each is tried again once."""
    asked: list[str] = []

    async def ask() -> str:
        asked.append(f"EAAG{len(asked)}")
        await asyncio.sleep(0.05)  # so that everybody is waiting by now
        return asked[-1]

    async def judge(request: Received, writer: asyncio.StreamWriter) -> None:
        await wait_until(lambda: len(server.requests) >= 50)
        writer.write(DONE if request.header("authorization") == "Bearer EAAG1" else dead())

    server.script = [judge]
    async with client(server, token=ask, concurrency=50) as media:
        results = await asyncio.gather(*(media.upload(TEXT) for _ in range(50)))
    assert (len(results), asked) == (50, ["EAAG0", "EAAG1"])
    assert len(server.requests) == 100


@pytest.mark.parametrize("status", [400, 401])
async def test_the_same_token_again(server: Server, status: int) -> None:
    """A source that insists on its token is asked once by all, and nothing is sent again."""
    asked: list[int] = []

    async def ask() -> str:
        asked.append(1)
        return TOKEN

    async def judge(_: Received, writer: asyncio.StreamWriter) -> None:
        await wait_until(lambda: len(server.requests) >= 20)
        writer.write(dead(status))

    server.script = [judge]
    async with client(server, token=ask, concurrency=50) as media:
        results = await asyncio.gather(*(media.upload(TEXT) for _ in range(20)), return_exceptions=True)
    assert {type(result) for result in results} == {AuthenticationError}
    assert (len(asked), len(server.requests)) == (2, 20)


async def test_a_second_dead_token(server: Server) -> None:
    """The call is repeated once, also when the next token is as dead."""
    tokens = iter(["EAAGa", "EAAGb", "EAAGc"])

    async def ask() -> str:
        return next(tokens)

    server.script = [dead()]
    async with client(server, token=ask) as media:
        with pytest.raises(AuthenticationError) as caught:
            await media.get_info("1")
    assert (caught.value.attempts, len(server.requests)) == (2, 2)


async def test_no_token_was_shown(server: Server, tls: ssl.SSLContext) -> None:
    """Where a host that may not see the token wants one, there is no other to be asked for."""
    asked: list[int] = []

    async def ask() -> str:
        asked.append(1)
        return TOKEN

    async with Server(page("", 401), tls=tls) as elsewhere:
        url = f"https://localhost:{elsewhere.port}/media"
        async with client(server, token=ask, media_hosts=(f"localhost:{elsewhere.port}",)) as media:
            with pytest.raises(AuthenticationError):
                await media.read(url)
    assert (len(elsewhere.requests), asked) == (1, [])


# Redirects


async def test_lookups_follow(server: Server, media: MediaApi) -> None:
    """A lookup goes where Meta sends it, with the token only where that may be seen."""
    server.script = [page("", 302, location="/v25.0/elsewhere"), info(f"{server.base_url}/x")]
    assert (await media.get_info("1")).id == "1"
    assert [request.target for request in server.requests] == ["/v25.0/1", "/v25.0/elsewhere"]
    assert all(request.header("authorization") == f"Bearer {TOKEN}" for request in server.requests)


@pytest.mark.parametrize("verb", ["upload", "delete"])
async def test_changes_do_not_follow(server: Server, media: MediaApi, verb: str) -> None:
    """What would change something is never sent to where a reply says."""
    server.script = [page("", 307, location="/v25.0/elsewhere")]
    with pytest.raises(ServerError) as caught:
        await CALLS[verb](media)
    assert (len(server.requests), caught.value.retryable, caught.value.status) == (1, False, 307)
    server.script = [page("", 308, location="https://evil.example/")]
    with pytest.raises(UntrustedUrlError):
        await CALLS[verb](media)
    assert len(server.requests) == 2


async def test_redirect_loop(server: Server, media: MediaApi) -> None:
    """Five redirects are followed, and no more."""
    server.script = [page("", 302, location="/v25.0/1")]
    with pytest.raises(ServerError, match="more than 5 times") as caught:
        await media.get_info("1")
    assert (len(server.requests), caught.value.retryable) == (6, False)


# The app's secret


@pytest.mark.parametrize("form", ["timed", "classic", None])
async def test_appsecret_proof(server: Server, form: Any) -> None:
    """Graph requests prove that they know the app's secret, in the form that was chosen; downloads never do."""
    secret = "s3cr3t-of-the-app"
    before = int(time.time())
    async with client(server, app_secret=secret, appsecret_proof=form) as media:
        server.script = [info(f"{server.base_url}/media?hash=x"), page(TEXT)]
        await media.with_options(base_url=server.base_url).read("1")
        server.script = [DONE]
        await media.upload(TEXT)
        server.script = [good(server, "get_info")]
        await media.get_info("1", phone_number_id="5")
    lookup, download, upload, narrow = (parse_qs(urlsplit(request.target).query) for request in server.requests)
    assert download == {"hash": ["x"]}
    assert narrow.pop("phone_number_id") == ["5"]
    for query in (lookup, upload, narrow):
        at = query.pop("appsecret_time", [])
        assert len(at) == (form == "timed")
        signed = "|".join((TOKEN, *at))
        proof = hmac.new(secret.encode(), signed.encode(), hashlib.sha256).hexdigest()
        assert query == ({} if form is None else {"appsecret_proof": [proof]})
        assert all(before <= int(second) <= time.time() for second in at)


async def test_silence(server: Server, media: MediaApi) -> None:
    """A server that says nothing is asked again."""
    server.script = [silence, good(server, "get_info")]
    assert (await media.with_options(read_timeout=0.3).get_info("1")).id == "1"


# What an error tells of its call


async def test_how_long_it_took(server: Server, media: MediaApi) -> None:
    """An error tells the seconds from the call to itself, all tries and the waits between them included."""
    server.script = [BUSY]
    started = time.monotonic()
    with pytest.raises(ServerError) as caught:
        await media.get_info("1")
    assert 0 < caught.value.elapsed <= time.monotonic() - started


@pytest.mark.parametrize("verb", ["get_info", "upload"])
async def test_a_reply_that_is_too_long(server: Server, media: MediaApi, verb: str) -> None:
    """An answer of more than a megabyte is none: a question is asked again, a change may have been made."""
    server.script = [page(b" " * (2**20 + 1), content_type="application/json"), good(server, verb)]
    if verb == "get_info":
        assert (await media.get_info("1")).id == "1"
        return
    with pytest.raises(ServerError, match="longer than 1048576 bytes") as caught:
        await CALLS[verb](media)
    assert (caught.value.attempts, caught.value.maybe_applied, caught.value.retryable) == (1, True, False)
    assert caught.value.status == 200


@pytest.mark.parametrize(
    "answer",
    [cut(page("{", 404, length=100)), page(b"zipped", 404, content_encoding="gzip")],
    ids=["cut", "compressed"],
)
async def test_a_refusal_without_its_explanation(server: Server, media: MediaApi, answer: Step) -> None:
    """A refusal whose body cannot be read is judged by its status, and as final as any."""
    server.script = [answer]
    with pytest.raises(MediaNotFoundError) as caught:
        await media.get_info("1")
    assert (caught.value.attempts, caught.value.status, caught.value.media_id) == (1, 404, "1")


@pytest.mark.parametrize("verb", ["get_info", "upload"])
async def test_a_compressed_reply(server: Server, media: MediaApi, verb: str) -> None:
    """An answer that is compressed, which was declined, is not read; to a change it may have been a yes."""
    server.script = [page(b"zipped", content_encoding="gzip")]
    with pytest.raises(ServerError, match="compressed") as caught:
        await CALLS[verb](media)
    assert (caught.value.status, caught.value.maybe_applied) == (200, verb == "upload")


async def test_a_retry_keeps_the_pace(server: Server, slept: Slept) -> None:
    """An upload that is sent again takes its turn like any other."""
    server.script = [BUSY, DONE]
    async with client(
        server, Limits(now=slept.now, sleep=slept, jitter=lambda: 0.0), backoff=0, uploads_per_second=1
    ) as media:
        await media.upload(TEXT)
    assert slept == pytest.approx([1.0])


async def test_refusals_do_not_open_the_gate(server: Server, slept: Slept) -> None:
    """After a pause, answers that are refusals let no more requests be under way at a time than before; good ones do."""
    limits = Limits(now=slept.now, sleep=slept)
    throttle = limits.throttle(NUMBER)
    throttle.shut(throttle.enter(), 0.0, first=0.5)
    states = []
    async with client(server, limits) as media:
        for answer in (GONE, json_response({"success": True})):
            server.script = [answer]
            await media.delete("1", missing_ok=True)
            ticket = throttle.enter()
            states.append(throttle.open)
            throttle.leave(ticket, succeeded=False)
    assert states == [False, True]


async def test_too_many_redirects_have_a_status(server: Server, media: MediaApi) -> None:
    """The error about redirects that do not end tells the status of the last of them."""
    server.script = [*[page("", 302, location="/v25.0/1")] * 5, page("", 307, location="/v25.0/1")]
    with pytest.raises(ServerError) as caught:
        await media.get_info("1")
    assert (caught.value.status, caught.value.attempts) == (307, 6)


async def test_a_server_that_speaks_no_tls() -> None:
    """Whom a server answers in plain text, where TLS was meant, is told so at once: it would be the same again."""
    met: list[int] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.append(len(await reader.read(1)))
        writer.write(page("no", 400))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as plain:
        address = f"https://127.0.0.1:{plain.sockets[0].getsockname()[1]}"
        async with MediaApi(TOKEN, NUMBER, settings=Settings(base_url=address, backoff=0.001)) as media:
            with pytest.raises(NetworkError, match="the server does not speak TLS there") as caught:
                await media.upload(TEXT)
    assert (len(met), caught.value.attempts, caught.value.retryable) == (1, 1, False)


@pytest.mark.parametrize("length", [-1, None])
async def test_a_long_reply(server: Server, media: MediaApi, length: int | None) -> None:
    """An answer of many kilobytes is read to its end, whether or not it says how long it is."""
    said = {"id": "1", "url": f"{server.base_url}/x", "mime_type": "image/jpeg", "more": "x" * 100_000, "last": "y"}
    server.script = [page(json.dumps(said), length=length, content_type="application/json")]
    assert (await media.get_info("1")).extra["last"] == "y"
