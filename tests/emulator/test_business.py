"""Business numbers: their list and their profiles."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pywa_async.client import WhatsApp

from meta_media.emulator import Emulator

PROFILE: dict[str, Any] = {
    "about": "x" * 139,
    "address": "x" * 256,
    "description": "x" * 512,
    "email": "x" * 128,
    "vertical": "RETAIL",
    "websites": ["https://a", "x" * 256],
}


def client(emulator: Emulator) -> httpx.AsyncClient:
    """Make a plain client."""
    headers = {"authorization": f"Bearer {emulator.access_token}"}
    return httpx.AsyncClient(base_url=emulator.base_url + "/v25.0", headers=headers, trust_env=False)


@pytest.fixture
async def http(emulator: Emulator) -> AsyncIterator[httpx.AsyncClient]:
    """A plain client that sends the default token."""
    async with client(emulator) as connected:
        yield connected


async def test_a_profile_is_changed_in_part_and_kept(tmp_path: Path) -> None:
    """What is given is changed, the rest stays, and a restart keeps all; each number has a profile of its own."""
    async with Emulator(tmp_path / "data") as emulator, client(emulator) as http:
        emulator.add_account("222", emulator.access_token)
        path = f"/{emulator.phone_number_id}/whatsapp_business_profile"
        empty = {"data": [{"vertical": "UNDEFINED", "messaging_product": "whatsapp"}]}
        assert (await http.get(path)).json() == empty
        for change in (PROFILE, {"about": "new", "email": None}):
            changed = await http.post(path, json={"messaging_product": "whatsapp"} | change)
            assert changed.json() == {"success": True}
        assert (await http.get("/222/whatsapp_business_profile")).json() == empty
    async with Emulator(tmp_path / "data") as emulator, client(emulator) as http:
        expected = PROFILE | {"about": "new", "messaging_product": "whatsapp"}
        assert (await http.get(path)).json() == {"data": [expected]}
        some = (await http.get(path, params={"fields": "about,websites,profile_picture_url"})).json()
        shown = {"about": "new", "websites": PROFILE["websites"], "messaging_product": "whatsapp"}
        assert some == {"data": [shown]}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"messaging_product": None}, "The parameter messaging_product is required."),
        ({"about": "x" * 140}, "Param about must be at most 139 characters long."),
        ({"address": ["x"]}, "Param address must be a string."),
        ({"websites": "https://a"}, "Param websites must be an array."),
        ({"profile_picture_handle": {}}, "Param profile_picture_handle must be a string."),
        (
            {"profile_picture_handle": "1045500012345678"},
            "Param profile_picture_handle must be the handle of an uploaded image.",
        ),
    ],
)
async def test_a_profile_that_is_refused(
    emulator: Emulator, http: httpx.AsyncClient, change: dict[str, Any], text: str
) -> None:
    """What does not fit a profile is refused with the reason, and nothing is changed."""
    path = f"/{emulator.phone_number_id}/whatsapp_business_profile"
    refused = await http.post(path, json={"messaging_product": "whatsapp", "email": "a@b"} | change)
    assert (refused.status_code, refused.json()["error"]["message"]) == (400, f"(#100) {text}")
    assert "email" not in (await http.get(path)).json()["data"][0]


async def test_a_profile_picture(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """The handle of an uploaded image becomes the picture, and that of a document does not."""
    for mime_type, content, status in (("image/png", b"1234", 200), ("application/pdf", b"1234", 400)):
        about = {"file_length": 4, "file_type": mime_type}
        session = (await http.post("/app/uploads", json=about)).json()["id"]
        unfinished = (await http.post(f"/{session}", content=content[:2])).json()
        assert "h" not in unfinished
        handle = (await http.post(f"/{session}", content=content[2:], headers={"file_offset": "2"})).json()["h"]
        change = {"messaging_product": "whatsapp", "profile_picture_handle": handle}
        changed = await http.post(f"/{emulator.phone_number_id}/whatsapp_business_profile", json=change)
        assert changed.status_code == status


async def test_numbers_of_an_account(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """The list has the token's numbers; another account does not exist, and its profile neither."""
    emulator.add_account("222", emulator.access_token)
    emulator.add_account("333", "another")
    listed = (await http.get(f"/{emulator.business_account_id}/phone_numbers")).json()["data"]
    assert [node["id"] for node in listed] == sorted(["222", emulator.phone_number_id])
    assert (await http.get("/222")).json() in listed
    for path in ("/123/phone_numbers", "/333/whatsapp_business_profile"):
        refused = await http.get(path)
        assert (refused.status_code, refused.json()["error"]["error_subcode"]) == (400, 33)
    unsigned = await http.get("/123/phone_numbers", headers={"authorization": ""})
    assert unsigned.status_code == 401


async def test_pywa_reads_profiles_and_numbers(emulator: Emulator) -> None:
    """An unmodified pywa changes a profile and reads it, lists the numbers, sends text, and marks as read."""
    async with httpx.AsyncClient() as session:
        pywa = WhatsApp(phone_id=emulator.phone_number_id, token=emulator.access_token, session=session)
        session.base_url = httpx.URL(f"{emulator.base_url}/v26.0")  # it sets Meta's own, and offers no other way
        assert bool(await pywa.update_business_profile(about="hello", websites=["https://a"]))
        profile = await pywa.get_business_profile()
        assert (profile.about, profile.websites, profile.email) == ("hello", ("https://a",), None)
        numbers = await pywa.get_business_phone_numbers(waba_id=emulator.business_account_id)
        assert [number.id for number in numbers] == [emulator.phone_number_id]
        sent = await pywa.send_message("15550001111", "hi")
        assert bool(await pywa.mark_message_as_read(sent.id))
        assert bool(await pywa.indicate_typing(sent.id))
        assert [message["text"]["body"] for message in emulator.messages] == ["hi"]
