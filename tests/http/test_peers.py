"""A client that knows nothing of us works against the emulator as it does against Meta."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import fastapi
import httpx
import pytest
from pywa_async.client import WhatsApp
from pywa_async.errors import WhatsAppError

from meta_media.emulator import Emulator


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


@pytest.mark.parametrize(
    "people", [{}, {"sender": "US.1349"}, {"group_id": "Y2Fw"}], ids=["number", "user id", "group"]
)
async def test_pywa_takes_every_webhook(emulator: Emulator, people: dict[str, Any]) -> None:
    """An unmodified pywa verifies and reads what the emulator signs: all kinds, from people with and without a number."""
    app, arrived = fastapi.FastAPI(), anyio.create_memory_object_stream[Any](9)
    secrets: dict[str, Any] = {"token": emulator.access_token, "app_secret": emulator.app_secret, "verify_token": "t"}
    pywa: Any = WhatsApp(phone_id=emulator.phone_number_id, server=app, **secrets)

    async def keep(_: Any, message: Any) -> None:
        await arrived[0].send(message)

    pywa.on_message()(keep)
    transport = httpx.ASGITransport(app)
    async with arrived[0], arrived[1], httpx.AsyncClient(transport=transport, base_url="http://bot") as meta:
        for mime_type in ("image/jpeg", "audio/ogg", "video/mp4", "application/pdf", "image/webp"):
            body, signature = await emulator.receive(b"x", mime_type, **people)
            headers = {"X-Hub-Signature-256": signature, "Content-Type": "application/json"}
            assert (await meta.post("/", content=body, headers=headers)).status_code == 200
            message = await arrived[1].receive()
            assert message.from_user.bsuid == people.get("sender", "US.13739530273066567577")
            assert message.from_user.wa_id == (None if "sender" in people else "15550001111")
            assert message.media is not None
            assert message.media.mime_type == mime_type
