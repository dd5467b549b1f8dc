"""What a business account has beside media: its phone numbers, and the profile of each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from meta_media.emulator.messages import check_product, check_text
from meta_media.emulator.responses import GraphError
from meta_media.emulator.state import State

__all__ = ["number_node", "phone_numbers", "show_profile", "update_profile"]

# Characters at most, and websites at most (Meta's page "Business profiles").
_LIMITS: Final = {"about": 139, "address": 256, "description": 512, "email": 128, "vertical": 32}
_MAX_WEBSITES, _MAX_WEBSITE = 2, 256
_HANDLE: Final = re.compile(r"[0-9]+:.+")  # of the Resumable Upload API; a media id is none


def number_node(number: str) -> dict[str, Any]:
    """Return the fields of a phone number."""
    name = {"verified_name": "Emulated number", "display_phone_number": "+1 555-000-2222"}
    return name | {"quality_rating": "GREEN", "id": number}


def phone_numbers(numbers: Iterable[str]) -> dict[str, Any]:
    """Return the list of an account's numbers."""
    return {"data": [number_node(number) for number in sorted(numbers)]}


def show_profile(state: State, number: str, fields: str | None) -> dict[str, Any]:
    """Return a number's profile; `fields` are the names of some of its fields, with commas between them."""
    profile = {"vertical": "UNDEFINED"} | json.loads(state.settings.get(_key(number), "{}"))
    asked = profile.keys() if fields is None else fields.split(",")
    shown = {name: value for name, value in profile.items() if name in asked}
    return {"data": [shown | {"messaging_product": "whatsapp"}]}


async def update_profile(state: State, number: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Change the fields of a number's profile that are given, and keep it in the data folder."""
    check_product(given.get("messaging_product"))
    changes = {name: given[name] for name in _LIMITS if name in given}
    for name, value in changes.items():
        check_text(name, value, _LIMITS[name])
    if "websites" in given:
        changes["websites"] = _websites(given["websites"])
    if "profile_picture_handle" in given:
        check_text("profile_picture_handle", given["profile_picture_handle"])
        if not _HANDLE.fullmatch(given["profile_picture_handle"]):
            raise GraphError.of(
                "invalid", problem="profile_picture_handle must be a handle of an upload to /{app}/uploads."
            )
    profile = json.loads(state.settings.get(_key(number), "{}"))
    await state.set(_key(number), json.dumps(profile | changes))
    return {"success": True}


def _websites(value: Any) -> list[str]:
    if not isinstance(value, list) or len(value) > _MAX_WEBSITES:
        raise GraphError.of("invalid", problem=f"websites must be an array of at most {_MAX_WEBSITES} elements.")
    for index, website in enumerate(value):
        check_text(f"websites[{index}]", website, _MAX_WEBSITE)
    return value


def _key(number: str) -> str:
    return f"profile {number}"
