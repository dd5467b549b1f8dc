"""The keywords that verbs for many items pass on to the single verbs, as type checkers know them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TypedDict

from meta_media.protocol.media_types import Kind

__all__ = ["EnsureKeywords", "SendKeywords", "UploadKeywords"]


class EnsureKeywords(TypedDict, total=False):
    """The keywords of `MediaApi.upload` that a verb for many sources passes on, as far as a library has them, too."""

    filename: str | None
    mime_type: str | None
    size: int | None
    validate: bool
    verify: bool
    ttl: timedelta | None
    phone_number_id: str | None
    repackage: bool


class UploadKeywords(EnsureKeywords, total=False):
    """The keywords of `MediaApi.upload` that `upload_many` passes on."""

    use_case: str | None


class SendKeywords(TypedDict, total=False):
    """The keywords of `MediaApi.send` that `send_many` passes on."""

    kind: Kind | None
    caption: str | None
    filename: str | None
    voice: bool | None
    reply_to: str | None
    extra: Mapping[str, Any] | None
    phone_number_id: str | None
