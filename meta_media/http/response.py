"""A response whose headers have arrived and whose body is read on demand."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any, Final

from meta_media.errors import ApiError, ServerError
from meta_media.http.exceptions import ExceptionMapper
from meta_media.http.heads import Fields
from meta_media.http.observer import ObservedRequest
from meta_media.http.timeouts import TransferTimeouts
from meta_media.protocol.responses import disposition_filename
from meta_media.protocol.secrets import SecretBytes, masked

__all__ = ["Response"]

_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_UNWANTED: Final = contextlib.suppress(Exception)  # what fails at the end concerns bytes that are not wanted
_UNKNOWN_LENGTH: Final = 2**14  # bytes to make room for if there is no Content-Length


class Response:
    """
    A response whose body has not been read; it is left by `async with`.

    Attributes:
        headers: By their names in lower case. An echo of the token is masked in them.
    """

    _received = 0  # bytes of the body that were read

    def __init__(
        self,
        cycle: Any,
        *,
        timeouts: TransferTimeouts,
        mapper: ExceptionMapper,
        refused: Callable[[ApiError], None],
        seen: ObservedRequest | None = None,
    ) -> None:
        self._cycle = cycle  # a `RequestResponseCycle` or an `InjectedResponse`
        self._timeouts = timeouts
        self._mapper = mapper
        self._refused = refused  # is told the error that it stands for
        self._seen = seen
        self.secret = mapper.secret
        self.status: int = cycle.status
        self.request_sent: bool = cycle.request_sent  # the whole of it, when the response arrived
        self.headers = _joined(cycle.headers)
        if self.secret in "\n".join(self.headers.values()):  # a glance at all is cheaper than one at each
            self.headers = masked(self.headers, self.secret)
        length = self.headers.get("content-length", "")
        known = _LENGTH.fullmatch(length) and "transfer-encoding" not in self.headers  # which overrides it
        self.length = int(length) if known else None  # Content-Length in bytes

    async def __aenter__(self) -> Response:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, ApiError):
            if isinstance(error, ServerError) and self.status < 300:
                self._cycle.do_not_reuse()  # the server's next response might belong to another request
            self._refused(error)
        if self._seen is not None:
            self._end(error, self._seen)
        with _UNWANTED:
            await self._cycle.aclose()

    def _end(self, error: BaseException | None, seen: ObservedRequest) -> None:
        seen.end(error, self.status, self._received, self.headers.get("x-fb-trace-id"))

    @property
    def cut(self) -> bool:
        """Whether the body that was read may not be all that was sent, although it ended without an error."""
        return bool(self._cycle.cut)

    @property
    def mime_type(self) -> str | None:
        """Content-Type, with its parameters; None if there is none, or several."""
        value = self.headers.get("content-type", "")
        return None if "," in value else value or None

    @property
    def filename(self) -> str | None:
        """The file name of Content-Disposition, decoded, which is not safe as a path."""
        name: str | None = masked(disposition_filename(self.headers), self.secret)
        return name

    @property
    def filled(self) -> int:
        """The number of bytes that the last `readinto` received, also if it failed."""
        return int(self._cycle.filled)

    async def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer with the next bytes of the body, exactly as sent; return their number: fewer only at its end."""
        self._check_coding()
        try:
            with self._mapper, self._timeouts:
                count = int(await self._cycle.readinto(buffer))
        except BaseException as error:
            self._received += self.filled
            if self._seen is not None:
                self._end(error, self._seen)
            raise
        self._received += count
        return count

    async def read(self, limit: int) -> bytes | None:
        """Return the whole body, or None if it is longer than `limit` bytes."""
        self._check_coding()
        if (whole := self._cycle.arrived()) is not None:
            self._received = len(whole)
            return SecretBytes(whole) if len(whole) <= limit else None
        body = bytearray()
        while True:
            expected = _UNKNOWN_LENGTH if self.length is None else self.length
            piece = memoryview(bytearray(min(expected, limit - len(body)) + 1))  # one more, so that the end is seen
            count = await self.readinto(piece)
            body += piece[:count]
            if len(body) > limit:
                return None
            if count < len(piece):
                break
        return SecretBytes(body)

    def _check_coding(self) -> None:
        if self.headers.get("content-encoding", "").lower() not in {"", "identity"}:
            what = "Meta's response is compressed although the request accepts `identity` only"
            raise ServerError(what, status=self.status, maybe_applied=self._mapper.changes)


def _joined(headers: Fields) -> dict[str, str]:
    """Join the values of headers that are repeated, unless they are the same (RFC 9110, 5.3): no single one is the right one."""
    joined = dict(headers)
    if len(joined) == len(headers):
        return joined
    values: dict[str, dict[str, None]] = {}
    for name, value in headers:
        values.setdefault(name, {})[value] = None
    return {name: ", ".join(each) for name, each in values.items()}
