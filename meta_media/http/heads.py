"""
The heads of the requests that are sent here and of the responses that servers send to them.

Both functions take plain heads only, and take them as h11 does in a tenth of its time. For any other head they return None,
and h11 decides: interim responses, HTTP/1.0, chunks, upgrades, folded lines, and all that breaks the rules.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any, Final

from meta_media.protocol.secrets import Secret

__all__ = ["Fields", "Headers", "request_head", "response_head"]

Headers = Iterable[tuple[Any, Any]]  # of a request: names and values, both text or both bytes
Fields = list[tuple[str, str]]  # of a response, decoded as Latin-1; names in lower case

# The quantifiers are possessive, so that the time is linear in the length (RFC 9110, 5.6.2 and 5.5; RFC 9112, 3 and 4)
_NAME: Final = r"[-!#$%&'*+.^_`|~0-9A-Za-z]++"
_TOKEN: Final = re.compile(_NAME)
_SPECIAL: Final = frozenset({"connection", "content-length", "expect", "host", "transfer-encoding", "upgrade"})
_REQUEST: Final = re.compile(rf"{_NAME} [!-~]++ HTTP/1\.1\r\n(?:[!-~]++(?: [!-~]++)++\r\n)++\r\n")
_TEXT: Final = "[\t -~\x80-\xff]*+"
_RESPONSE: Final = re.compile(rf"HTTP/1\.1 [2-5][0-9]{{2}}(?: {_TEXT})?+\r\n(?:{_NAME}:{_TEXT}\r\n)++\r\n")
_LENGTH: Final = re.compile("[0-9]{1,18}")


def request_head(method: str, target: str | bytes, headers: list[tuple[Any, Any]]) -> tuple[memoryview, int] | None:
    """Return the head of a request, in a view that hides the token from tracebacks, and its Content-Length or 0."""
    if isinstance(target, bytes) or isinstance(headers[0][0], bytes):  # from an `httpx.Request`
        return None
    at = _length_at(tuple([name for name, _ in headers]))
    length = "0" if at is None else headers[at][1]
    head = Secret("\r\n".join([f"{method} {target} HTTP/1.1", *map(": ".join, headers), "\r\n"]))
    one_line_each = head.count("\n") == len(headers) + 2
    if at == 0 or not (one_line_each and _REQUEST.fullmatch(head) and _LENGTH.fullmatch(length)):
        return None
    return memoryview(head.encode()), int(length)


@functools.lru_cache
def _length_at(names: tuple[str, ...]) -> int | None:
    """Return where Content-Length stands among the names of a plain head, None if there is none, and 0 for any other head."""
    at = names.index("Content-Length") if "Content-Length" in names else None
    others = {name.lower() for place, name in enumerate(names) if place not in {0, at}}
    plain = names[0] == "Host" and others.isdisjoint(_SPECIAL) and all(map(_TOKEN.fullmatch, names))
    return at if plain else 0


def response_head(data: bytes) -> tuple[int, Fields, int, bool, memoryview] | None:
    """
    Read the head of a final response that has a Content-Length.

    Return its status, its headers, the Content-Length, whether the connection may be used again, and the bytes after it.
    """
    size = data.find(b"\r\n\r\n") + 4
    text = data[:size].decode("latin-1")
    if _RESPONSE.fullmatch(text) is None:
        return None
    fields = []
    for line in text.split("\r\n")[1:-2]:
        name, _, value = line.partition(":")
        fields.append((name.lower(), value.strip("\t ")))
    values = dict(fields)
    length, connection = values.get("content-length", ""), values.get("connection", "").lower()
    if "transfer-encoding" in values or not _LENGTH.fullmatch(length):
        return None
    if len(values) < len(fields):  # some are repeated
        names = [name for name, _ in fields]
        if names.count("content-length") > 1 or names.count("connection") > 1:
            return None
    if connection not in {"", "close", "keep-alive"}:
        return None
    return int(text[9:12]), fields, int(length), connection != "close", memoryview(data)[size:]
