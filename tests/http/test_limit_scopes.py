"""What each of Meta's limits holds back: a pair of numbers, a number, an account or the whole app, and nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from meta_media import MediaApi, Settings
from meta_media.errors import AccountRestrictedError, RateLimitError
from meta_media.http.limits import Limits
from tests.support.clock import Slept
from tests.support.servers import Server, json_response

SENT = json_response({"messages": [{"id": "wamid.1"}]})
UPLOADED = json_response({"id": "1"})
TO, OTHER = "+15550001111", "+15550002222"


def refused(code: int, **headers: str) -> bytes:
    """Write Meta's refusal."""
    return json_response({"error": {"message": f"(#{code}) limit", "code": code}}, 400, **headers)


def send(media: MediaApi, to: str = TO, number: str | None = None) -> Awaitable[Any]:
    """Send a message."""
    return media.send(to, "1", kind="image", phone_number_id=number)


# A later call, and the codes that hold it back after a message from number 1 to `TO`
LATER: dict[str, tuple[Callable[[MediaApi], Awaitable[Any]], set[int]]] = {
    "the same recipient": (lambda media: send(media, TO.replace("+", "")), {131056, 130429, 80007, 80008, 4}),
    "the same, by a copy": (lambda media: send(media.with_options(max_retries=1)), {131056, 130429, 80007, 80008, 4}),
    "another recipient": (lambda media: send(media, OTHER), {130429, 80007, 80008, 4}),
    "an upload": (lambda media: media.upload(b"hello", filename="a.txt"), {130429, 80007, 80008, 4}),
    "the recipient, another number": (lambda media: send(media, number="2"), {80007, 80008, 4}),
    "an upload, another number": (
        lambda media: media.with_options(phone_number_id="2").upload(b"a"),
        {80007, 80008, 4},
    ),
    "another token": (lambda media: send(media.with_options(access_token="other", phone_number_id="2")), {4}),
    "another account": (lambda media: send(media.with_options(business_account_id="9", phone_number_id="2")), {4}),
    "the number, another token": (lambda media: media.with_options(access_token="other").get_info("1"), {130429, 4}),
}


@pytest.mark.parametrize("code", [131056, 130429, 80007, 80008, 4])
@pytest.mark.parametrize("later", LATER)
async def test_what_a_limit_holds_back(later: str, code: int) -> None:
    """A later call waits for as long as Meta asks if the limit is about it, too; else it goes at once."""
    slept = Slept()
    call, held_by = LATER[later]
    answer = json_response(
        {"id": "1", "url": "https://lookaside.fbsbx.com/1", "mime_type": "image/png", "messages": [{"id": "wamid.1"}]}
    )
    async with Server(refused(code, retry_after="7"), answer) as server:
        settings = Settings(base_url=server.base_url, max_retries=0)
        async with MediaApi("token", "1", settings=settings) as media:
            media.shared.limits = Limits(now=slept.now, sleep=slept)
            with pytest.raises(RateLimitError):
                await send(media)
            await call(media)
    assert (sum(slept) > 6) is (code in held_by)


async def test_an_account_by_its_id() -> None:
    """Copies with the same business account wait together, although their tokens are different ones."""
    slept = Slept()
    async with Server(refused(80007, retry_after="7"), UPLOADED) as server:
        settings = Settings(base_url=server.base_url, max_retries=0, business_account_id="9")
        async with MediaApi("token", "1", settings=settings) as media:
            media.shared.limits = Limits(now=slept.now, sleep=slept)
            with pytest.raises(RateLimitError):
                await media.upload(b"a")
            await media.with_options(access_token="other", phone_number_id="2").upload(b"a")
    assert sum(slept) == pytest.approx(7)


async def test_tenants_without_a_number() -> None:
    """Two tenants whose calls name no number do not hold each other up."""
    slept = Slept()
    info = json_response({"id": "1", "url": "https://lookaside.fbsbx.com/1", "mime_type": "image/png"})
    async with Server(refused(130429, retry_after="7"), info) as server:
        settings = Settings(base_url=server.base_url, max_retries=0)
        async with MediaApi("token", settings=settings) as media:
            media.shared.limits = Limits(now=slept.now, sleep=slept)
            with pytest.raises(RateLimitError):
                await media.get_info("1")
            await media.with_options(access_token="other").get_info("1")
            assert not slept
            await media.get_info("1")
    assert sum(slept) == pytest.approx(7)


async def test_back_off_of_a_pair() -> None:
    """Meta's back-off of a pair of numbers is 4^X seconds; a message that went through ends it."""
    slept = Slept()
    async with Server(*[refused(131056)] * 3, SENT, refused(131056), SENT) as server:
        settings = Settings(base_url=server.base_url, max_retries=3)
        async with MediaApi("token", "1", settings=settings) as media:
            media.shared.limits = Limits(now=slept.now, sleep=slept, jitter=lambda: 0.5)
            await send(media)
            await send(media)
    assert slept == pytest.approx([1, 4, 16, 1])


@pytest.mark.parametrize(
    ("code", "kind", "scope"), [(131056, RateLimitError, "recipient"), (130497, AccountRestrictedError, "recipient")]
)
async def test_a_recipient_ends_no_run(code: int, kind: type[Exception], scope: str) -> None:
    """An error that is about one recipient is not one that all items of a run would meet."""
    from meta_media.bulk.ending import is_fatal

    async with (
        Server(refused(code, retry_after="600")) as server,
        MediaApi("token", "1", settings=Settings(base_url=server.base_url)) as media,
    ):
        with pytest.raises(kind) as caught:
            await send(media)
    assert (caught.value.scope, is_fatal(caught.value)) == (scope, False)  # type: ignore[attr-defined]


@pytest.mark.parametrize("number", [1, "1"])
async def test_a_number_as_int(number: Any) -> None:
    """An id is the same number as text and as int."""
    slept = Slept()
    async with (
        Server(refused(130429, retry_after="7"), UPLOADED) as server,
        MediaApi("token", settings=Settings(base_url=server.base_url, max_retries=0)) as media,
    ):
        media.shared.limits = Limits(now=slept.now, sleep=slept)
        with pytest.raises(RateLimitError):
            await media.upload(b"a", phone_number_id="1")
        await media.upload(b"a", phone_number_id=number)
    assert sum(slept) == pytest.approx(7)
