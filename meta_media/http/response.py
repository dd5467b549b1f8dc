"""A response whose headers have arrived and whose body is read on demand."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Final

from meta_media.errors import ServerError
from meta_media.http.exceptions import ExceptionMapper
from meta_media.http.timeouts import TransferTimeouts
from meta_media.protocol.secrets import Secret, SecretBytes

__all__ = ["Response"]

_MIN_TOKEN_LENGTH: Final = 8  # characters; a shorter token is a toy, and may be part of any word
_UNKNOWN_LENGTH: Final = 2**14  # bytes to make room for if there is no Content-Length


class Response:
    """A response whose body has not been read; it is left by `async with`."""

    def __init__(self, cycle: Any, *, timeouts: TransferTimeouts, mapper: ExceptionMapper, token: Secret) -> None:
        self._cycle = cycle  # a `RequestResponseCycle` or an `InjectedResponse`
        self._timeouts = timeouts
        self._mapper = mapper
        self._token = token  # that was sent, or nothing
        self.status: int = cycle.status
        self.request_sent: bool = cycle.request_sent  # the whole of it, when the response arrived
        self.headers: Mapping[str, str] = {
            name.lower().decode("latin-1"): value.decode("latin-1") for name, value in cycle.headers
        }
        length = self.headers.get("content-length", "")
        self.length = int(length) if length.isdecimal() else None  # Content-Length in bytes

    async def __aenter__(self) -> Response:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, ServerError) and self.status < 300:
            self._cycle.do_not_reuse()  # the server's next response might belong to another request
        with contextlib.suppress(Exception):  # what fails now concerns bytes that are not wanted
            await self._cycle.aclose()

    @property
    def filled(self) -> int:
        """The number of bytes that the last `readinto` received, also if it failed."""
        return int(self._cycle.filled)

    async def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer with the next bytes of the body, exactly as sent; return their number: fewer only at its end."""
        if self.headers.get("content-encoding", "identity").lower() != "identity":
            what = "Meta's response is compressed although the request accepts `identity` only"
            raise ServerError(what, status=self.status, maybe_applied=self._mapper.changes)
        with self._mapper, self._timeouts:
            return int(await self._cycle.readinto(buffer))

    async def read(self, limit: int) -> bytes | None:
        """
        Return the whole body, or None if it is longer than `limit` bytes.

        The token is masked in it: Meta quotes a malformed one in its error message, with escaped slashes.
        """
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
        token = str(self._token)
        for quoted in map(Secret, {token, token.replace("/", "\\/")}) if len(token) >= _MIN_TOKEN_LENGTH else ():
            body = body.replace(quoted.encode(), b"***")
        return SecretBytes(body)
