"""The upload's form body as bytes before and after the file (RFC 7578), so that the file itself can be streamed."""

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
        content_type: For the request's header, boundary included.
        head: All bytes before the file's own.
        tail: All bytes after them.
    """

    content_type: str
    head: bytes
    tail: bytes

    def length(self, file_size: int) -> int:
        """Return the exact Content-Length around a file of so many bytes."""
        return len(self.head) + file_size + len(self.tail)


def encode(fields: Mapping[str, str], *, filename: str, mime_type: str) -> Form:
    """
    Frame a file, with the fields first, as Meta's own curl example does.

    Meta decides by the file part's own Content-Type, whatever the field `type` says.

    Args:
        fields: Names are ours; values are sent as they are, in UTF-8.
        filename: As `filenames.safe_filename` leaves it: RFC 7578 section 4.2 wants plain UTF-8, and none of the
            characters that parsers disagree on is left in it.
        mime_type: As `media_types.normalise` leaves it.
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
