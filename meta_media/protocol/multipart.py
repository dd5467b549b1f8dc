"""The form of an upload (RFC 7578), as the bytes before and after the file, so that the file can be streamed."""

from __future__ import annotations

import os
from collections.abc import Mapping

import attrs

__all__ = ["Form", "encode"]


@attrs.define  # never changed; a frozen one takes twice the time to make
class Form:
    """A multipart/form-data body around one file."""

    content_type: str  # header of the request, with the boundary
    head: bytes  # before the file
    tail: bytes  # after the file

    def length(self, file_size: int) -> int:
        """Return the Content-Length for a file of `file_size` bytes."""
        return len(self.head) + file_size + len(self.tail)


def encode(fields: Mapping[str, str], *, filename: str, mime_type: str) -> Form:
    """
    Build the form of one file. The fields come first, as in Meta's own curl example.

    Meta takes the type from the Content-Type of the file part and ignores the field `type`. RFC 7578, 4.2 asks for plain
    UTF-8 without escapes, so `filename` must come from `filenames.safe_filename`, `mime_type` from `media_types.normalise`.
    """
    boundary = f"meta-media-{os.urandom(16).hex()}"
    start = f"--{boundary}\r\nContent-Disposition: form-data; name="
    head = "".join([f'{start}"{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()])
    head += f'{start}"file"; filename="{filename}"\r\nContent-Type: {mime_type}\r\n\r\n'
    tail = f"\r\n--{boundary}--\r\n"
    return Form(f"multipart/form-data; boundary={boundary}", head.encode(), tail.encode())
