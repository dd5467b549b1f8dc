"""The form of an upload (RFC 7578), as the bytes before and after the file, so that the file can be streamed."""

from __future__ import annotations

import os
from collections.abc import Mapping

import attrs

__all__ = ["Form", "encode"]


@attrs.frozen(kw_only=True)
class Form:
    """
    A multipart/form-data body around one file.

    Attributes:
        content_type: Value of the request's Content-Type, with the boundary.
        head: Bytes before the file.
        tail: Bytes after the file.
    """

    content_type: str
    head: bytes
    tail: bytes

    def length(self, file_size: int) -> int:
        """Return the Content-Length for a file of `file_size` bytes."""
        return len(self.head) + file_size + len(self.tail)


def encode(fields: Mapping[str, str], *, filename: str, mime_type: str) -> Form:
    """
    Build the form of one file. The fields come first, as in Meta's own curl example.

    Meta takes the type from the Content-Type of the file part and ignores the field `type`.

    Args:
        fields: Names and values, sent unescaped in UTF-8.
        filename: Result of `filenames.safe_filename`. RFC 7578, 4.2 asks for plain UTF-8; the characters on which parsers
            disagree have been removed.
        mime_type: Result of `media_types.normalise`.
    """
    boundary = f"meta-media-{os.urandom(16).hex()}"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n'
        f"Content-Type: {mime_type}\r\n\r\n"
    )
    return Form(
        content_type=f"multipart/form-data; boundary={boundary}",
        head="".join(parts).encode(),
        tail=f"\r\n--{boundary}--\r\n".encode(),
    )
