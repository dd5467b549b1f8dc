"""
The heads of the requests that are sent here and of the responses that servers send to them.

Both functions take plain heads only, and take them as h11 does in a tenth of its time. For any other head they return None,
and h11 decides: interim responses, HTTP/1.0, chunks, upgrades, folded lines, and all that breaks the rules.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from meta_media.protocol.requests import Request, common_headers, credential
from meta_media.protocol.secrets import Secret
from meta_media.protocol.settings import Settings

__all__ = ["Fields", "Headers", "RequestHeaders", "SharedHeaders", "request_head", "response_head"]

Headers = Iterable[tuple[Any, Any]]  # of a request: names and values, both text or both bytes
Fields = list[tuple[str, str]]  # of a response, decoded as Latin-1; names in lower case

# The quantifiers are possessive, so that the time is linear in the length (RFC 9110, 5.6.2 and 5.5; RFC 9112, 3 and 4)
_NAME: Final = r"[-!#$%&'*+.^_`|~0-9A-Za-z]++"
_TOKEN: Final = re.compile(_NAME)
_SPECIAL: Final = frozenset({"connection", "content-length", "expect", "host", "transfer-encoding", "upgrade"})
_REQUEST: Final = re.compile(rf"{_NAME} [!-~]++ HTTP/1\.1\r\n(?:[!-~]++(?: [!-~]++)++\r\n)*+")
_TEXT: Final = "[\t -~\x80-\xff]*+"
_RESPONSE: Final = re.compile(rf"HTTP/1\.1 [2-5][0-9]{{2}}(?: {_TEXT})?+\r\n(?:{_NAME}:{_TEXT}\r\n)++\r\n")
_FIELD: Final = re.compile(rf"({_NAME}):({_TEXT})\r\n")
_LENGTH: Final = re.compile("[0-9]{1,18}")


class SharedHeaders:
    """
    The headers that all requests to one host have with one token and one settings object.

    Attributes:
        token: The token that they have; empty for none.
        text: All of them as they are sent; None if they are not plain.
    """

    def __init__(self, request: Request, settings: Settings, token: Secret) -> None:
        self.token = token
        self.items = [("Host", urlsplit(request.url).netloc), *common_headers(settings).items()]
        if request.bearer:
            self.items.append(credential(request, token, settings))
        plain = _plain("GET / HTTP/1.1\r\n", self.items, host=True)
        self.text = None if plain is None else plain[0]


class RequestHeaders:
    """The headers of a request: those that it shares with others, and its own. It iterates over all."""

    def __init__(self, shared: SharedHeaders, own: Mapping[str, str]) -> None:
        self.shared = shared
        self.own = own

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return itertools.chain(self.shared.items, self.own.items())


def request_head(method: str, target: str | bytes, headers: Headers) -> tuple[memoryview, int] | None:
    """Return the head of a request, in a view that hides the token from tracebacks, and its Content-Length or 0."""
    own: list[tuple[Any, Any]]
    shared: str | None = ""
    if isinstance(headers, RequestHeaders):
        shared, own = headers.shared.text, [*headers.own.items()]
    else:
        own = [*headers]
    if shared is None or isinstance(target, bytes) or (own and isinstance(own[0][0], bytes)):  # of an `httpx.Request`
        return None
    start = Secret(f"{method} {target} HTTP/1.1\r\n")
    plain = _plain(start, own, host=not shared)
    return plain and (memoryview("".join((start, shared, plain[0], "\r\n")).encode()), plain[1])


def _plain(start: str, headers: list[tuple[Any, Any]], *, host: bool) -> tuple[Secret, int] | None:
    """Return headers as they are sent after a start line, and their Content-Length or 0; None if a part of that is not plain."""
    at = _length_at(tuple([name for name, _ in headers]), host)
    if at is None:
        return None
    text = Secret("".join([f"{name}: {value}\r\n" for name, value in headers]))
    length = headers[at][1] if at < len(headers) else "0"
    is_plain = text.count("\n") == len(headers) and _REQUEST.fullmatch(start + text) and _LENGTH.fullmatch(length)
    return (text, int(length)) if is_plain else None


@functools.lru_cache
def _length_at(names: tuple[str, ...], host: bool) -> int | None:
    """Return the place of Content-Length among names, their number if there is none, or None if they are not plain."""
    at = names.index("Content-Length") if "Content-Length" in names else len(names)
    others = names[host:at] + names[at + 1 :]
    are_plain = all(map(_TOKEN.fullmatch, others)) and _SPECIAL.isdisjoint(map(str.lower, others))
    return at if are_plain and names[:host] == ("Host",)[:host] else None


def response_head(data: bytes) -> tuple[int, Fields, int, bool, memoryview] | None:
    """
    Read the head of a final response that has a Content-Length.

    Return its status, its headers, the Content-Length, whether the connection may be used again, and the bytes after it.
    """
    size = data.find(b"\r\n\r\n") + 4
    text = data[:size].decode("latin-1")
    if _RESPONSE.fullmatch(text) is None:
        return None
    lines = _FIELD.findall(text, text.index("\n") + 1)  # one after the other, because the whole is plain
    fields = [(name.lower(), value.strip("\t ")) for name, value in lines]
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
