"""The form of an upload, read back by four independent parsers."""

from __future__ import annotations

import asyncio
import contextlib
import email
import io
import re
from collections.abc import Callable

import aiohttp
import attrs
import pytest
from aiohttp.base_protocol import BaseProtocol
from hypothesis import example, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict
from python_multipart.multipart import MultipartParser, parse_options_header
from werkzeug.formparser import FormDataParser
from werkzeug.http import parse_options_header as werkzeug_options

from meta_media.protocol.filenames import safe_filename
from meta_media.protocol.multipart import Form, encode

FIELDS = {"messaging_product": "whatsapp", "type": "image/jpeg"}


@attrs.frozen
class Part:
    """One part of a form, as a parser reads it."""

    name: str | None
    content: bytes
    filename: str | None = None
    content_type: str | None = None


def by_python_multipart(content_type: str, body: bytes) -> list[Part]:
    """Read a form with python-multipart, which Starlette and FastAPI use."""
    parts: list[Part] = []
    headers: list[list[bytes]] = []
    content = bytearray()

    def part_end() -> None:
        known = {name.lower(): value for name, value in headers}
        _, options = parse_options_header(known[b"content-disposition"])
        filename, own_type = options.get(b"filename"), known.get(b"content-type")
        parts.append(
            Part(
                options[b"name"].decode(),
                bytes(content),
                None if filename is None else filename.decode(),
                None if own_type is None else own_type.decode(),
            )
        )
        headers.clear()
        content.clear()

    def header_name(data: bytes, start: int, end: int) -> None:
        headers.append([data[start:end], b""])

    def header_value(data: bytes, start: int, end: int) -> None:
        headers[-1][1] += data[start:end]

    def part_data(data: bytes, start: int, end: int) -> None:
        content.extend(data[start:end])

    _, options = parse_options_header(content_type)
    parser = MultipartParser(
        options[b"boundary"],
        {
            "on_header_field": header_name,
            "on_header_value": header_value,
            "on_part_data": part_data,
            "on_part_end": part_end,
        },
    )
    parser.write(body)
    parser.finalize()
    return parts


def by_email(content_type: str, body: bytes) -> list[Part]:
    """Read a form with the standard library's parser of MIME; latin-1 carries the bytes through its text."""
    message = email.message_from_string(f"Content-Type: {content_type}\r\n\r\n{body.decode('latin-1')}")
    parts = []
    for part in message.walk():
        if part is message:
            continue
        name, filename = (part.get_param(key, None, "content-disposition") for key in ("name", "filename"))
        payload = part.get_payload()
        assert isinstance(name, str)
        assert isinstance(payload, str)
        parts.append(
            Part(
                name,
                payload.encode("latin-1"),
                filename.encode("latin-1").decode() if isinstance(filename, str) else None,
                part["content-type"],
            )
        )
    return parts


def by_werkzeug(content_type: str, body: bytes) -> list[Part]:
    """Read a form with Werkzeug, which Flask uses."""
    mime_type, options = werkzeug_options(content_type)
    parser = FormDataParser(silent=False)
    _, fields, files = parser.parse(io.BytesIO(body), mime_type, len(body), options)
    parts = [Part(name, value.encode()) for name, value in fields.items(multi=True)]
    for name, file in files.items(multi=True):
        with contextlib.closing(file):
            parts.append(Part(name, file.read(), file.filename, file.content_type))
    return parts


def by_aiohttp(content_type: str, body: bytes) -> list[Part]:
    """Read a form with aiohttp."""

    async def read() -> list[Part]:
        loop = asyncio.get_running_loop()
        stream = aiohttp.StreamReader(BaseProtocol(loop), 2**16, loop=loop)
        stream.feed_data(body)
        stream.feed_eof()
        parts = []
        async for part in aiohttp.MultipartReader(CIMultiDict({"Content-Type": content_type}), stream):
            assert isinstance(part, aiohttp.BodyPartReader)
            own_type = part.headers.get("Content-Type")
            parts.append(Part(part.name, bytes(await part.read()), part.filename, own_type))
        return parts

    return asyncio.run(read())


Parser = Callable[[str, bytes], list[Part]]
PARSERS: list[Parser] = [by_python_multipart, by_email, by_werkzeug, by_aiohttp]
HOSTILE = st.lists(
    st.sampled_from(
        [
            *('"', "\\", "/", "'", ";", "=", ",", "%22", "%0D%0A", "%", "\r", "\n", "\r\n", "\x00", "\t", " "),
            *("\xa0", "\x85"),
            *("\u2028", "\u202e", "\ud800", "é", "漢", "😀", "a", "name=", "filename=", "filename*=UTF-8''x"),
            *("utf-8''",),
            *("=?utf-8?q?a?=", "&quot;", "--", "\r\n\r\n", "\r\nX-Evil: 1", "\r\n--meta-media-", ".jpg", "x" * 200),
        ]
    ),
    max_size=8,
).map("".join)
NAMES = st.text(st.characters(exclude_categories=())) | HOSTILE
CONTENTS = st.binary() | st.lists(
    st.sampled_from([b"\r\n", b"\r", b"\n", b"--", b"\r\n--", b"--meta-media-", b"\x00", b"\xff", b"x"]), max_size=12
).map(b"".join)


def form_for(filename: str) -> Form:
    """Frame a photo under a name as `upload` does."""
    return encode(FIELDS, filename=safe_filename(filename, "media.jpg"), mime_type="image/jpeg")


@pytest.mark.parametrize("parse", PARSERS)
@settings(max_examples=100, deadline=None)
@given(filename=NAMES, content=CONTENTS)
@example(filename='";;\\"; name="type', content=b"")
@example(filename="a%22; filename=b", content=b"\r\n")
@example(filename="\xa0a\xa0", content=b"\r\n--")
def test_parsers_read_what_was_written(parse: Parser, filename: str, content: bytes) -> None:
    """For any name and bytes, every parser finds the same fields, name, type and content."""
    form = form_for(filename)
    parts = parse(form.content_type, form.head + content + form.tail)
    assert parts == [
        Part("messaging_product", b"whatsapp"),
        Part("type", b"image/jpeg"),
        Part("file", content, safe_filename(filename, "media.jpg"), "image/jpeg"),
    ]


@pytest.mark.parametrize("parse", PARSERS)
@settings(max_examples=100, deadline=None)
@given(value=st.text(st.characters(exclude_categories=("Cs", "Cc"))))
def test_fields_are_sent_as_they_are(parse: Parser, value: str) -> None:
    """A field is sent in UTF-8, and the order of the fields is kept."""
    form = encode({"first": value, "second": "2"}, filename="a.txt", mime_type="text/plain")
    parts = parse(form.content_type, form.head + b"x" + form.tail)
    assert parts == [Part("first", value.encode()), Part("second", b"2"), Part("file", b"x", "a.txt", "text/plain")]


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize(
    "mime_type", ["audio/ogg; codecs=opus", 'text/plain; charset="utf-8"', "application/vnd.ms-excel"]
)
def test_type_is_on_the_file_part(parse: Parser, mime_type: str) -> None:
    """The file part has its own Content-Type with its parameters, by which Meta decides."""
    form = encode({}, filename="a", mime_type=mime_type)
    assert parse(form.content_type, form.head + form.tail) == [Part("file", b"", "a", mime_type)]


@given(NAMES, st.integers(min_value=0, max_value=100 * 2**20))
def test_length_is_exact(filename: str, size: int) -> None:
    """The Content-Length counts every byte, for a file of any size."""
    form = form_for(filename)
    assert form.length(size) == len(form.head) + size + len(form.tail)


def test_body_byte_by_byte() -> None:
    """The form follows RFC 7578: CRLF everywhere, the fields first, and nothing else."""
    form = encode(FIELDS, filename="é.jpg", mime_type="image/jpeg")
    boundary = re.fullmatch(r"multipart/form-data; boundary=(meta-media-[0-9a-f]{32})", form.content_type)
    assert boundary is not None
    assert form.head.replace(boundary[1].encode(), b"B").split(b"\r\n") == [
        b"--B",
        b'Content-Disposition: form-data; name="messaging_product"',
        b"",
        b"whatsapp",
        b"--B",
        b'Content-Disposition: form-data; name="type"',
        b"",
        b"image/jpeg",
        b"--B",
        b'Content-Disposition: form-data; name="file"; filename="\xc3\xa9.jpg"',
        b"Content-Type: image/jpeg",
        b"",
        b"",
    ]
    assert form.tail.replace(boundary[1].encode(), b"B") == b"\r\n--B--\r\n"


def test_boundaries_cannot_be_guessed() -> None:
    """Every form has its own random boundary, so that no file can contain it."""
    assert len({form_for("a").content_type for _ in range(100)}) == 100
