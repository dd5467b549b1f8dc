"""A client that knows nothing of us works against the emulator as it does against Meta."""

from __future__ import annotations

from pathlib import Path

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
