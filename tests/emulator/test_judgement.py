"""Files are looked at when they are sent: what WhatsApp does not play fails by the statuses of the message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from meta_media import MediaApi, parse_webhook, samples
from meta_media.emulator import Emulator, EmulatorSettings
from meta_media.errors import InvalidMediaError, UploadRejectedError

MEDIA = Path(__file__).parents[1] / "media"
SAMPLES = {path.name: path.read_bytes() for path in samples.paths()}
SMALL_STICKER = SAMPLES["animated.webp"].replace(b"\xff\1\0\xff\1\0", b"\x95\1\0\x7a\1\0", 1)


def outcome(emulator: Emulator) -> str | UploadRejectedError:
    """Return the last status of the last message, or its error."""
    status = parse_webhook(emulator.statuses[-1][0]).statuses[0]
    [error] = status.errors or (status.status,)
    assert isinstance(error, str | UploadRejectedError)
    return error


async def sent(media: MediaApi, data: bytes, mime_type: str, **arguments: Any) -> None:
    """Upload bytes without a look at them, and send them."""
    uploaded = await media.upload(data, mime_type=mime_type, validate=False)
    await media.send("+15550003333", uploaded, **arguments)


@pytest.mark.parametrize(
    ("data", "mime_type"),
    [
        ((MEDIA / "cmyk.jpg").read_bytes(), "image/jpeg"),
        ((MEDIA / "moving.gif").read_bytes(), "image/png"),
        ((MEDIA / "stereo.ogg").read_bytes(), "audio/ogg; codecs=opus"),
        (SMALL_STICKER, "image/webp"),
        (b"a page", "application/pdf"),
    ],
)
async def test_what_an_upload_refuses_fails(emulator: Emulator, media: MediaApi, data: bytes, mime_type: str) -> None:
    """The message is accepted; its one status has code 131053, and says what an upload would."""
    with pytest.raises(InvalidMediaError) as caught:
        await media.upload(data, mime_type=mime_type)
    await sent(media, data, mime_type)
    assert len(emulator.statuses) == 1
    error = outcome(emulator)
    assert isinstance(error, UploadRejectedError)
    assert (error.code, str(caught.value).removeprefix("the file") in str(error.details)) == (131053, True)
    await sent(media, SAMPLES["photo.jpg"], "image/jpeg")
    assert outcome(emulator) == "read"


@pytest.mark.parametrize("path", samples.paths(), ids=lambda path: path.name)
async def test_the_samples_are_delivered(emulator: Emulator, media: MediaApi, path: Path) -> None:
    """What an upload accepts is delivered."""
    await media.send("+15550003333", await media.upload(path))
    assert outcome(emulator) == "read"


async def test_documents_are_passed_on(emulator: Emulator, media: MediaApi) -> None:
    """A picture that is sent as a document is not shown, and not looked at; a document is."""
    await sent(media, (MEDIA / "cmyk.jpg").read_bytes(), "image/jpeg", kind="document")
    assert outcome(emulator) == "read"
    await sent(media, b"a page", "application/pdf")
    assert outcome(emulator) != "read"


async def test_a_planned_failure_comes_first(emulator: Emulator, media: MediaApi) -> None:
    """What a test has planned is what happens, also to a bad file."""
    emulator.fail_delivery(131053, details="as planned")
    for details in ("as planned", "a CMYK JPEG", "always"):
        if details == "always":
            emulator.fail_delivery(131053, details=details, times=None)
        await sent(media, (MEDIA / "cmyk.jpg").read_bytes(), "image/jpeg")
        error = outcome(emulator)
        assert isinstance(error, UploadRejectedError)
        assert details in str(error.details)


async def test_the_limit_of_an_upload_is_the_upload_s() -> None:
    """A file that was accepted does not fail for its size."""
    async with Emulator(settings=EmulatorSettings(size_limits="service")) as emulator, emulator.api() as media:
        await sent(media, SAMPLES["sticker.webp"] + bytes(200_000), "image/webp")
        assert outcome(emulator) == "read"


async def test_it_can_be_switched_off() -> None:
    """Tests may send bytes of any kind."""
    async with Emulator(settings=EmulatorSettings(judge_media=False)) as emulator, emulator.api() as media:
        await sent(media, b"no photo", "image/jpeg")
        assert outcome(emulator) == "read"


async def test_the_environment_plays_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulator judges as ever where the environment is another program's, and wrong."""
    for variable in ("WA_BASE_URL", "CLOUD_API_VERSION", "WA_BUSINESS_ACCOUNT_ID", "WA_APP_ID", "WA_APP_SECRET"):
        monkeypatch.setenv(variable, "?")
    async with Emulator() as emulator, emulator.api(api_version="v25.0", business_account_id=None) as media:
        await sent(media, b"no photo", "image/jpeg")
        assert outcome(emulator) != "read"
