"""A client that knows nothing of us works against the emulator as it does against Meta."""

from __future__ import annotations

import contextlib
import importlib
import queue
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio.to_thread
import fastapi
import httpx
import pytest
from pywa_async.client import WhatsApp
from pywa_async.errors import WhatsAppError

from meta_media import MediaApi, Recipient, inbound_media, samples
from meta_media.emulator import Emulator

NOTE = next(path for path in samples.paths() if path.name == "note.ogg")


async def test_pywa_tours_the_four_endpoints(emulator: Emulator, tmp_path: Path) -> None:
    """An unmodified pywa uploads, gets the URL, downloads and deletes."""
    content = bytes(range(256)) * 1000
    async with httpx.AsyncClient() as session:
        pywa = WhatsApp(phone_id=emulator.phone_number_id, token=emulator.access_token, session=session)
        session.base_url = httpx.URL(f"{emulator.base_url}/v26.0")  # it sets Meta's own, and offers no other way
        uploaded = await pywa.upload_media(content, mime_type="application/pdf", filename="report.pdf")
        found = await pywa.get_media_url(uploaded.id)
        saved = await pywa.download_media(url=found.url, path=tmp_path)
        deleted = await pywa.delete_media(uploaded.id, phone_id=emulator.phone_number_id)
        assert saved.read_bytes() == content
        assert found.mime_type == "application/pdf"
        assert found.file_size == len(content)
        assert bool(deleted) is True
        with pytest.raises(WhatsAppError):
            await pywa.get_media_url(uploaded.id)


KINDS = {
    "image/jpeg": "image",
    "audio/ogg; codecs=opus": "voice",
    "video/mp4": "video",
    "application/pdf": "document",
    "image/webp": "sticker",
}


@contextlib.asynccontextmanager
async def bot(module: str, emulator: Emulator) -> AsyncIterator[tuple[httpx.AsyncClient, Callable[[], Awaitable[Any]]]]:
    """Run an unmodified pywa behind FastAPI. Give a client that posts to it, and a function that waits for the next update."""
    app, arrived = fastapi.FastAPI(), queue.SimpleQueue[Any]()
    secrets: dict[str, Any] = {"token": emulator.access_token, "app_secret": emulator.app_secret, "verify_token": "t"}
    pywa: Any = importlib.import_module(module).WhatsApp(phone_id=emulator.phone_number_id, server=app, **secrets)

    def keep(_: Any, update: Any) -> None:
        arrived.put(update)

    async def keep_async(_: Any, update: Any) -> None:
        arrived.put(update)

    for kind in (
        "message",
        "edited_message",
        "outgoing_message",
        "flow_completion",
        "message_status",
        "group_message_statuses",
    ):
        getattr(pywa, f"on_{kind}")()(keep_async if module == "pywa_async" else keep)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://bot") as meta:
        yield meta, lambda: anyio.to_thread.run_sync(arrived.get, True, 30)


async def post(meta: httpx.AsyncClient, body: bytes, signature: str) -> None:
    """Post a webhook as Meta does."""
    headers = {"X-Hub-Signature-256": signature, "Content-Type": "application/json"}
    assert (await meta.post("/", content=body, headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "people", [{}, {"sender": "US.1349"}, {"group_id": "Y2Fw"}], ids=["number", "user id", "group"]
)
@pytest.mark.parametrize("module", ["pywa", "pywa_async"])
async def test_pywa_takes_every_webhook(emulator: Emulator, module: str, people: dict[str, Any]) -> None:
    """It verifies and reads what the emulator signs: all kinds, from people with and without a number."""
    async with bot(module, emulator) as (meta, update):
        for mime_type, kind in KINDS.items():
            await post(meta, *await emulator.receive(b"x", mime_type, **people))
            message = await update()
            assert message.from_user.bsuid == people.get("sender", "US.13739530273066567577")
            assert message.from_user.wa_id == (None if "sender" in people else "15550001111")
            assert message.media is not None
            assert getattr(message, kind) is message.media
            assert message.media.mime_type == mime_type


@pytest.mark.parametrize("module", ["pywa", "pywa_async"])
async def test_pywa_takes_every_carrier_that_it_knows(emulator: Emulator, module: str) -> None:
    """Edits, echoes, files of a Flow, and what Meta could not pass on; each file's id is the emulator's."""
    async with bot(module, emulator) as (meta, update):

        async def received(**given: Any) -> tuple[str | None, Any]:
            body, signature = await emulator.receive(b"x", "image/jpeg", **given)
            await post(meta, body, signature)
            return next((media.id for media in inbound_media(body)), None), await update()

        media_id, edited = await received(carrier="edit", caption="new")
        assert (edited.message.image.id, edited.message.caption) == (media_id, "new")
        media_id, echoed = await received(carrier="echo")
        assert (echoed.image.id, echoed.to_user.wa_id) == (media_id, "15550001111")
        media_id, completed = await received(carrier="flow")
        assert completed.response["photo_picker"][0]["id"] == media_id
        for code in (131051, 131052, 131060):
            media_id, failed = await received(failure=code)
            assert (media_id, failed.type, failed.error.code) == (None, "unsupported", code)


@pytest.mark.parametrize("module", ["pywa", "pywa_async"])
async def test_pywa_takes_the_statuses(emulator: Emulator, media: MediaApi, module: str) -> None:
    """
    It reads the ladder of a voice message, to people with and without a number, and to a group.

    `failed` is not among them: by Meta's page it has no `contacts`, which pywa 4.5.0 asks of every status.
    """
    note = await media.upload(NOTE)
    for to in ("15550001111", "US.1349", Recipient.group("Y2Fw")):
        await media.send(to, note, voice=True)
    async with bot(module, emulator) as (meta, update):
        ladder: list[str] = []
        for body, signature in emulator.statuses:
            await post(meta, body, signature)
            reached = await update()
            ladder.extend(one.status.value for one in getattr(reached, "statuses", [reached]))
    assert ladder == ["sent", "delivered", "read", "played"] * 3
