"""What a business account has beside media: its phone numbers, and the profile of each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from meta_media.emulator.messages import check_object, check_product
from meta_media.emulator.responses import GraphError
from meta_media.emulator.resumable import ResumableUpload
from meta_media.emulator.state import State

__all__ = ["number_node", "show_profile", "update_profile"]

# Text with its greatest length in characters, or another type (Meta's page "Business profiles").
_FIELDS: Final[Mapping[str, int | type]] = {
    "about": 139,
    "address": 256,
    "description": 512,
    "email": 128,
    "vertical": 32,
    "websites": list,
    "profile_picture_handle": 4096,
}


def number_node(number: str) -> dict[str, Any]:
    """Return the fields of a phone number."""
    name = {"verified_name": "Emulated number", "display_phone_number": "+1 555-000-2222"}
    return name | {"quality_rating": "GREEN", "id": number}


def show_profile(state: State, number: str, fields: str | None) -> dict[str, Any]:
    """Return a number's profile; `fields` are the names of some of its fields, with commas between them."""
    profile = {"vertical": "UNDEFINED"} | json.loads(state.settings.get(_key(number), "{}"))
    asked = profile.keys() if fields is None else fields.split(",")
    shown = {name: value for name, value in profile.items() if name in asked}
    return {"data": [shown | {"messaging_product": "whatsapp"}]}


async def update_profile(
    state: State, number: str, given: Mapping[str, Any], uploads: Iterable[ResumableUpload]
) -> dict[str, Any]:
    """Change the fields of a number's profile that are given. A picture needs a handle of an uploaded image, and is not kept."""
    check_product(given)
    changes = {name: given[name] for name in _FIELDS if name in given}
    check_object("", changes, keys=_FIELDS)
    handle = changes.pop("profile_picture_handle", None)
    pictures = {upload.handle for upload in uploads if upload.mime_type.startswith("image/")}
    if handle is not None and handle not in pictures:
        raise GraphError.of("invalid", problem="profile_picture_handle must be the handle of an uploaded image.")
    profile = json.loads(state.settings.get(_key(number), "{}"))
    await state.set(_key(number), json.dumps(profile | changes))
    return {"success": True}


def _key(number: str) -> str:
    return f"profile {number}"
