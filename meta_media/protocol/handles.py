"""Meta's page "Resumable Upload API": what its responses hold, and the value that `upload_handle` returns."""

from __future__ import annotations

import re
from typing import Final

import attrs
from attrs.validators import min_len

from meta_media.protocol.secrets import Secret

__all__ = ["FileHandle", "UploadHandle", "UploadSession"]

# Base64 and, as recorded, a signature in a query. No dot stands before that, so that it cannot lead to another path.
_SESSION: Final = re.compile(r"upload:[\w+/=:~%-]+(?:\?[\w+/=:~%.&-]+)?", re.ASCII)


def _is_session(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    if _SESSION.fullmatch(value) is None:
        raise ValueError("expected the id of an upload session")  # which is not shown, because of its signature


@attrs.frozen(kw_only=True)
class UploadSession:
    """An upload that can be resumed. Its id goes into a URL as it is."""

    id: str = attrs.field(converter=Secret, validator=_is_session)
    file_offset: int | None = None  # bytes that Meta has; None in the response that begins it


@attrs.frozen(kw_only=True)
class FileHandle:
    """The response to the last byte."""

    h: str = attrs.field(validator=min_len(1))


@attrs.frozen(kw_only=True)
class UploadHandle:
    """
    The result of `upload_handle`. It is no media id.

    Attributes:
        handle: What Meta calls a file handle, such as `4::aW1hZ2UvcG5n:ARZ…`: the value of a template's `header_handle`
            or of a business profile's `profile_picture_handle`.
        mime_type: MIME type that was sent.
        file_size: Bytes of the file.
        filename: Name that was sent.
        attempts: Requests sent.
    """

    handle: str
    mime_type: str
    file_size: int
    filename: str = attrs.field(eq=False)
    attempts: int = attrs.field(default=1, eq=False)
