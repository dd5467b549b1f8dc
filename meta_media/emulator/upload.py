"""
`POST /{version}/{phone_number_id}/media`: a streamed form, read no further than needed.

Meta decides by the Content-Type of the part named `file`, not by the field `type` and not by the bytes, which it looks at only
when the media is sent. So a type that is not accepted fails at the part's headers, and a file that is too large at the first
byte beyond its limit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from meta_media.emulator.messages import check_product
from meta_media.emulator.responses import ACCEPTED_TYPES, GraphError
from meta_media.emulator.settings import EmulatorSettings
from meta_media.emulator.state import IncomingFile, State, StoredMedia

__all__ = ["FilePart", "FormReader", "is_animated_webp", "receive_upload"]

_HEAD_SIZE: Final = 32  # bytes, in which an animated WebP can be seen
_MAX_FIELD_SIZE: Final = 64 * 1024
_MAX_FIELD_COUNT: Final = 64
_MAX_HEADERS_SIZE: Final = 64 * 1024  # bytes of all headers of a part
# python-multipart's own limits are 8 headers and 4 KiB each: clients with longer names would be told of a missing field.
_HEADER_LIMITS: Final = {"max_header_count": 64, "max_header_size": _MAX_HEADERS_SIZE}
_MAX_PREAMBLE_SIZE: Final = 64 * 1024
_TTL: Final = range(60, 43_200 + 1)  # minutes; Meta's page "No storage"
_MINUTES: Final = re.compile(r"[0-9]{1,9}")
_UNPRINTABLE: Final = re.compile(r"[^ -~]")
_KEPT_USE_CASE: Final = "call_voicemail_announcement"  # its files never expire; Meta's page "Calling settings"


class FilePart:
    """The part named `file`: its headers, and its size so far against the limit of its type (Meta's Media guide)."""

    def __init__(self, mime_type: str, filename: str, settings: EmulatorSettings) -> None:
        essence = mime_type.partition(";")[0].strip().lower()
        if essence not in ACCEPTED_TYPES:
            raise GraphError.of("refused_type", types=", ".join(ACCEPTED_TYPES), mime_type=mime_type)
        self.mime_type = mime_type
        self.filename = filename
        self._kind = ACCEPTED_TYPES[essence]
        self._settings = settings
        self._head = b""
        self._size = 0

    def add(self, piece: memoryview) -> None:
        """Count a piece; a `GraphError` if the file is too large."""
        if len(self._head) < _HEAD_SIZE:
            self._head += piece[:_HEAD_SIZE]
        self._size += len(piece)
        if self._size > self._limit():
            raise GraphError.of("too_large")

    def _limit(self) -> int:
        mega, kilo = self._settings.megabyte, self._settings.kilobyte
        if self._settings.size_limits == "service":
            return 100 * mega
        if self._kind == "sticker":
            return (500 if is_animated_webp(self._head) else 100) * kilo
        return {"audio": 16, "document": 100, "image": 5, "video": 16}[self._kind] * mega


class FormReader:
    """The form of an upload, fed with the body's pieces."""

    def __init__(self, boundary: bytes, settings: EmulatorSettings) -> None:
        self.fields: dict[str, str] = {}  # beside the file
        self.file: FilePart | None = None  # once its headers have arrived
        self.file_ended = False
        self._settings = settings
        self._pieces: list[memoryview] = []
        self._headers: dict[bytes, bytes] = {}
        self._headers_size = 0
        self._header_name = self._header_value = b""
        self._field: tuple[str, bytes] | None = None
        self._in_file = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
            },
            **_HEADER_LIMITS,
        )
        # RFC 2046, section 5.1.1: a delimiter begins a line, and blanks may follow it.
        self._first_delimiter = re.compile(rb"(?:\A|\r\n)(--%b)(?:[ \t]*(?=\r\n)|(?=--))" % re.escape(boundary))
        self._preamble: bytes | None = b""  # None once the first delimiter has arrived

    def feed(self, data: bytes) -> list[memoryview]:
        """Read a piece of the body, and return the file's bytes in it; a `FormParserError` if it is not of a form."""
        self._parser.write(data if self._preamble is None else self._after_preamble(data))
        pieces, self._pieces = self._pieces, []
        return pieces

    def _after_preamble(self, data: bytes) -> bytes:
        """Return the body from its first delimiter on, without the blanks behind it: the parser takes neither of both."""
        self._preamble = (self._preamble or b"") + data
        found = self._first_delimiter.search(self._preamble)
        if (found.start() if found else len(self._preamble)) > _MAX_PREAMBLE_SIZE:
            raise FormParserError("the preamble is too long")
        if found is None:
            return b""
        rest, self._preamble = found[1] + self._preamble[found.end() :], None
        return rest

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]
        self._count_header(end - start)

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]
        self._count_header(end - start)

    def _count_header(self, size: int) -> None:
        self._headers_size += size
        if self._headers_size > _MAX_HEADERS_SIZE:
            raise FormParserError("the headers of a part are too long")

    def _on_header_end(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        headers, self._headers, self._headers_size = self._headers, {}, 0
        _, options = parse_options_header(headers.get(b"content-disposition"))
        name = options.get(b"name", b"").decode(errors="replace")
        self._in_file = name == "file" and b"filename" in options and self.file is None
        if self._in_file:
            declared = headers.get(b"content-type", b"application/octet-stream").decode("latin-1")
            mime_type = _UNPRINTABLE.sub("", declared).strip()
            self.file = FilePart(mime_type, options[b"filename"].decode(errors="replace"), self._settings)
        self._field = (name, b"") if not self._in_file and len(self.fields) < _MAX_FIELD_COUNT else None

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file and self.file is not None:
            piece = memoryview(data)[start:end]
            self.file.add(piece)
            self._pieces.append(piece)
        elif self._field is not None:
            name, value = self._field
            self._field = (name, (value + data[start:end])[:_MAX_FIELD_SIZE])

    def _on_part_end(self) -> None:
        if self._in_file:
            self.file_ended = True
        elif self._field is not None:
            name, value = self._field
            self.fields[name] = value.decode(errors="replace")


async def receive_upload(
    request: Request,
    number_of: Callable[[Request, Mapping[str, str]], str],
    state: State,
    settings: EmulatorSettings,
    now: float,
) -> StoredMedia:
    """
    Read an upload, and keep its file; a `GraphError` if Meta would not accept it.

    The parameters stand in the query or in the form; `number_of` returns the number that a request with them may upload to.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"") if kind == b"multipart/form-data" else b""
    readable = 0 < len(boundary) <= 70  # RFC 2046, section 5.1.1: 1 to 70 characters
    form = FormReader(boundary if readable else b"no boundary", settings)
    async with IncomingFile(state) as incoming:
        try:
            async for data in request.stream():
                await incoming.write(form.feed(data))
        except FormParserError:
            # A form that cannot be read has no fields. Recorded for a boundary that was missing or wrong.
            form.file_ended = False
        given = dict(request.query_params) | form.fields
        number, lifetime = number_of(request, given), _lifetime(given, settings)
        if form.file is None or not form.file_ended:
            raise GraphError(settings.missing_file_text)
        expires_at = None if lifetime is None else now + lifetime
        return await incoming.keep(number, form.file.mime_type, form.file.filename, expires_at)


def is_animated_webp(head: bytes) -> bool:
    """Return the animation flag of the extended header (Google's WebP container specification)."""
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and bool(head[20:21] and head[20] & 0x02)


def _lifetime(given: Mapping[str, str], settings: EmulatorSettings) -> float | None:
    check_product(given)
    minutes = given.get("ttl_minutes")
    if minutes is not None:
        if not _MINUTES.fullmatch(minutes) or int(minutes) not in _TTL:
            raise GraphError.of("invalid", problem=f"ttl_minutes must be a number from {_TTL[0]} to {_TTL[-1]}")
        return int(minutes) * 60
    return None if given.get("use_case") == _KEPT_USE_CASE else settings.media_lifetime
