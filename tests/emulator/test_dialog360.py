"""A number that 360dialog hosts: every verb, against the emulator in that mode."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from meta_media import MediaApi, MediaLibrary, MemoryStore, Settings, inbound_media, samples
from meta_media.emulator import Emulator, EmulatorSettings, Fault
from meta_media.errors import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    MediaNotFoundError,
    PermissionDeniedError,
    RateLimitError,
    UntrustedUrlError,
)
from tests.support.servers import Server, info, json_response, page

PHOTO = next(path for path in samples.paths() if path.name == "photo.jpg").read_bytes()
MODE = EmulatorSettings(provider="360dialog")


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """An emulator of 360dialog."""
    async with Emulator(settings=MODE) as running:
        yield running


def wire(emulator: Emulator) -> list[str]:
    """List the requests as they were sent."""
    return [f"{request.method} {request.path}" for request in emulator.requests]


async def test_every_verb(emulator: Emulator, media: MediaApi, tmp_path: Path) -> None:
    """Paths have neither version nor number, and media URLs of Meta's host are fetched from 360dialog's."""
    uploaded = await media.upload(PHOTO, filename="photo.jpg", verify=True)
    found = await media.get_info(uploaded)
    assert found.url.startswith("https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid=")
    assert (await media.download(found, tmp_path / "photo.jpg")).size == len(PHOTO)
    assert await media.read(found.url) == PHOTO
    assert await media.stream(uploaded, start=3, end=9).read() == PHOTO[3:9]
    sent = await media.send("15550001111", uploaded)
    assert emulator.messages[-1]["message_id"] == sent.id
    assert (await media.delete(uploaded)).success
    one, path = f"/{uploaded.id}", "GET /whatsapp_business/attachments/"
    begin = ["POST /media", f"GET {one}", f"GET {one}", path, path, f"GET {one}", path]
    assert wire(emulator) == [*begin, "POST /messages", f"DELETE {one}"]
    assert not any(request.authorization and "phone_number_id" in request.query for request in emulator.requests)


async def test_many_and_the_library(emulator: Emulator, media: MediaApi, tmp_path: Path) -> None:
    """Runs, journals and libraries need no number: that of a key is known by the key."""
    files = [f"text {number}".encode() for number in range(3)]
    for _ in range(2):
        journal = tmp_path / "run.sqlite"
        async with media.upload_many([(file, {"filename": "a.txt"}) for file in files], journal=journal) as run:
            ids = {outcome.result().id async for outcome in run}
        assert len(ids) == 3
    library = MediaLibrary(media, MemoryStore())
    first, second = [await library.ensure(PHOTO) for _ in range(2)]
    assert (first.id == second.id, second.reused) == (True, True)
    other = media.with_options(access_token="another-key-of-a-tenant")
    assert other.number_or(None) != media.number_or(None)
    assert (await media.download_many(ids, tmp_path / "all").report()).succeeded == 3
    assert (await media.send_many(["15550001111"], first).report()).succeeded == 1
    assert (await media.delete_many(ids).report()).succeeded == 3


async def test_inbound_media(emulator: Emulator, media: MediaApi) -> None:
    """A webhook has Meta's URL, too, which is fetched from 360dialog's host."""
    body, _ = await emulator.receive(PHOTO, "image/jpeg")
    (inbound,) = inbound_media(json.loads(body))
    assert inbound.url is not None
    assert inbound.url.startswith("https://lookaside.fbsbx.com/")
    assert await media.read(inbound) == PHOTO
    assert wire(emulator) == ["GET /whatsapp_business/attachments/"]


async def test_the_key_is_sent_alone(server: Server) -> None:
    """Each request has the key in its header, and no Authorization, proof or query."""
    server.script = [
        json_response({"id": "1"}),
        info("https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid=1&hash=s", PHOTO),
        page(PHOTO, content_type="image/jpeg"),
    ]
    settings = Settings.for_360dialog(api_key="canary", base_url=server.base_url, app_secret="of Meta's webhooks")
    async with MediaApi(settings=settings) as media:
        uploaded = await media.upload(PHOTO)
        assert await media.read(uploaded) == PHOTO
    for request in server.requests:
        assert request.header("d360-api-key") == "canary"
        assert request.header("authorization") is None
    attachments = "/whatsapp_business/attachments/?mid=1&hash=s"
    assert [request.target for request in server.requests] == ["/media", "/1", attachments]
    assert "canary" not in repr(settings)


@pytest.mark.parametrize(
    "url",
    [
        "http://lookaside.fbsbx.com/a",
        "https://lookaside.fbsbx.com.evil.example/a",
        "https://lookaside.fbsbx.com@evil.example/",
        "https://lookaside.fbsbx.com:444/a",
        "https://lookaside.fbsbx.com:443/a",
    ],
)
async def test_the_key_goes_nowhere_else(url: str, emulator: Emulator, media: MediaApi) -> None:
    """Only URLs that begin with Meta's very host are fetched from the base URL."""
    with pytest.raises(UntrustedUrlError):
        await media.read(url)
    assert emulator.requests == []


def test_the_environment_is_of_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Meta's token, number and base URL of the environment are not used for 360dialog."""
    monkeypatch.setenv("CLOUD_API_ACCESS_TOKEN", "EAAG-of-Meta")
    monkeypatch.setenv("WA_PHONE_NUMBER_ID", "1")
    monkeypatch.setenv("WA_BASE_URL", "http://127.0.0.1:4004")
    media = MediaApi(settings=Settings.for_360dialog(api_key=" key "))
    assert media.token.identity == "key"
    assert media.number is None
    assert media.settings.base_url == "https://waba-v2.360dialog.io"
    other = media.with_options(api_key="other")
    assert (other.token.identity, media.token.identity) == ("other", "key")


@pytest.mark.parametrize("key", ["", None, "a b", 1, "schlüssel"])
def test_wrong_keys(key: Any) -> None:
    """A key that no header can carry is refused, and not shown."""
    with pytest.raises(ConfigurationError, match=r"^api_key must be the key of 360dialog") as caught:
        Settings.for_360dialog(api_key=key)
    assert "schl" not in str(caught.value)


async def test_a_key_of_a_function(emulator: Emulator) -> None:
    """Where the key comes from a function, its number must be passed, because it is not known beforehand."""

    async def key() -> str:
        return emulator.access_token

    media = emulator.api().with_options(access_token=key)
    with pytest.raises(ConfigurationError, match="pass phone_number_id"):
        await media.upload(PHOTO)
    assert (await media.upload(PHOTO, phone_number_id="1")).file_size == len(PHOTO)


async def test_handles_are_not_served(emulator: Emulator, media: MediaApi) -> None:
    """It is said before any request."""
    with pytest.raises(ConfigurationError, match="360dialog serves no upload_handle"):
        await media.upload_handle(PHOTO)
    assert emulator.requests == []


async def test_wrong_keys_and_unknown_media(emulator: Emulator, media: MediaApi) -> None:
    """Its own errors and Meta's become the same classes."""
    with pytest.raises(AuthenticationError, match="Invalid api_key"):
        await media.with_options(access_token="another").upload(PHOTO)
    with pytest.raises(MediaNotFoundError):
        await media.get_info("1")
    with pytest.raises(AuthenticationError):
        await media.with_options(access_token="another").read(
            "https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid=1"
        )


async def test_the_emulator_is_strict(emulator: Emulator) -> None:
    """A Bearer token is no key, and Meta's own paths are not served."""
    async with httpx.AsyncClient(base_url=emulator.base_url) as client:
        token, key = {"Authorization": f"Bearer {emulator.access_token}"}, {"D360-API-KEY": emulator.access_token}
        assert (await client.post("/media", headers=token)).status_code == 401
        assert (await client.post(f"/v25.0/{emulator.phone_number_id}/media", headers=key)).status_code == 404
        assert (await client.post(f"/{emulator.phone_number_id}/media", headers=key)).status_code == 404
        assert (await client.get("/nothing", headers=key)).status_code == 401
        assert (await client.post("/media", headers=key)).status_code == 400
    assert wire(emulator)[0] == "POST /media"
    assert len(emulator.requests) == 5


async def test_uploads_keep_the_pace(emulator: Emulator, media: MediaApi) -> None:
    """The client sends at most 24 a second, below the 25 that are allowed; a client that does not is refused by 360dialog, and comes again."""
    hasty = media.with_options(uploads_per_second=None, max_retries=0)
    report = await hasty.upload_many([(b"%d" % number, {"filename": "a.txt"}) for number in range(100)]).report()
    refusals = [str(outcome.error) for outcome in report.failures if type(outcome.error) is RateLimitError]
    assert len(refusals) == report.failed > 0
    assert "You have exceeded the endpoint rate limit" in refusals[0]
    assert media.settings.uploads_per_second == 24


async def test_failed_lookups_are_stopped(emulator: Emulator, media: MediaApi) -> None:
    """After 20 errors in an hour no more lookup is sent. One that is sent anyway ends in a block of half an hour."""
    patient = media.with_options(info_errors_per_hour=None)
    known = await media.upload(PHOTO)
    for number in range(1, 21):
        with pytest.raises(MediaNotFoundError):
            await media.get_info(str(number))
    with pytest.raises(RateLimitError, match="20 lookups were refused within an hour") as caught:
        await media.get_info(known)
    assert 3500 < (caught.value.retry_after or 0) <= 3600
    assert (await patient.get_info(known)).id == known.id
    with pytest.raises(MediaNotFoundError):
        await patient.get_info("21")
    with pytest.raises(PermissionDeniedError, match="The endpoint is blocked"):
        await patient.get_info(known)
    emulator.clock.advance(1801)
    assert (await patient.get_info(known)).id == known.id


async def test_errors_are_forgotten_after_an_hour(emulator: Emulator, media: MediaApi) -> None:
    """Only those of the last hour count for the block."""
    patient = media.with_options(info_errors_per_hour=None)
    for number in range(1, 42):
        with pytest.raises(MediaNotFoundError):
            await patient.get_info(str(number))
        emulator.clock.advance(181)


async def test_faults_are_met(emulator: Emulator, media: MediaApi) -> None:
    """The emulator's faults know the paths of this mode."""
    emulator.fail("upload", Fault.error(2, 503))
    uploaded = await media.with_options(backoff=0.0).upload(PHOTO)
    assert uploaded.attempts == 2


TEXTS = {
    "Could not send message due to lack of payment. Messaging can resume once overdue invoices are settled.": "AccountRestrictedError",
    "Your WhatsApp for Business API has been disabled": "AccountRestrictedError",
    "You have exceeded the endpoint rate limit.": "RateLimitError",
    "anything": "InvalidRequestError",
}


@pytest.mark.parametrize("text", TEXTS)
async def test_own_errors(text: str, server: Server) -> None:
    """The documented texts decide, because all of them have status 400."""
    server.script = [json_response({"meta": {"success": False, "developer_message": text}}, 400)]
    async with MediaApi(settings=Settings.for_360dialog(api_key="k", base_url=server.base_url, max_retries=0)) as media:
        with pytest.raises(ApiError, match=text[:20]) as caught:
            await media.send("15550001111", "1", kind="image")
    assert type(caught.value).__name__ == TEXTS[text]


async def test_an_injected_client(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Over httpx's own transport, an echo of the key is in no log, as little as one of a token."""
    caplog.set_level(logging.DEBUG)
    server.script = [page(json.dumps({"id": "1"}), content_type="application/json", x_echo="canary-of-a-key")]
    settings = Settings.for_360dialog(api_key="canary-of-a-key", base_url=server.base_url)
    async with httpx.AsyncClient() as client, MediaApi(settings=settings, http_client=client) as media:
        assert (await media.upload(PHOTO)).id == "1"
    assert "x-echo" in caplog.text
    assert "canary-of-a-key" not in caplog.text


async def test_emulators_of_meta_take_no_key() -> None:
    """Without the mode, the header means nothing."""
    async with Emulator() as emulator, httpx.AsyncClient(base_url=emulator.base_url) as client:
        response = await client.post("/media", headers={"D360-API-KEY": emulator.access_token})
        assert response.status_code == 400
