"""A reply on its way in: its head is there, its body is read as it is wanted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from meta_media.errors import ApiError, MediaError, ServerError
from meta_media.http.exceptions import ExceptionMapper
from meta_media.http.timeouts import TransferTimeouts
from meta_media.protocol.secrets import Secret, SecretBytes

__all__ = ["Response"]

_SHORTEST_TOKEN: Final = 8  # characters; shorter ones are toys, which may be part of anything
_UNKNOWN: Final = 2**14  # bytes to make room for where a reply does not say how many it has


class Response:
    """
    A reply whose body has not been read; it is left by `async with`.

    Args:
        answer: Of the transport or the guard.
        clock: For every wait.
        failures: What turns the HTTP stack's exceptions into ours.
        token: What was sent, if anything.
        learn: Told of an answer that was an error.

    Attributes:
        status: HTTP status.
        asked: Whether all of the request had been sent by then.
        headers: With names in lower case.
        length: What it says of its body's length, in bytes.
    """

    def __init__(
        self,
        answer: Any,
        *,
        timeouts: TransferTimeouts,
        failures: ExceptionMapper,
        token: Secret,
        learn: Callable[[ApiError], None],
    ) -> None:
        self._answer = answer
        self._clock = timeouts
        self._failures = failures
        self._token = token
        self._learn = learn
        self.status: int = answer.status
        self.request_sent: bool = answer.request_sent
        self.headers: Mapping[str, str] = {
            name.lower().decode("latin-1"): value.decode("latin-1") for name, value in answer.headers
        }
        length = self.headers.get("content-length", "")
        self.length = int(length) if length.isdecimal() else None

    async def __aenter__(self) -> Response:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, ApiError):
            self._learn(error)
        if isinstance(error, ServerError) and self.status < 300:
            self._answer.do_not_reuse()  # who knows what its next reply would belong to
        with contextlib.suppress(MediaError), self._failures:
            await self._answer.aclose()  # all of the reply that anybody wanted has been read

    @property
    def filled(self) -> int:
        """How many bytes the last `readinto` brought, also when it failed."""
        return int(self._answer.filled)

    async def readinto(self, wanted: memoryview) -> int:
        """Fill a buffer with the next bytes of the body, exactly as sent; return how many: fewer only at its end."""
        if self.headers.get("content-encoding", "identity").lower() != "identity":
            what = "Meta's reply is compressed although that was declined"
            raise ServerError(what, status=self.status, maybe_applied=self._failures.changes)
        with self._failures, self._clock:
            return int(await self._answer.readinto(wanted))

    async def read(self, limit: int) -> bytes | None:
        """
        Return the whole body, or None when it is longer than `limit`.

        The token is not in it: Meta quotes one that is malformed in its error message, with slashes escaped.
        """
        body = bytearray()
        while True:
            expected = _UNKNOWN if self.length is None else self.length
            piece = memoryview(bytearray(min(expected, limit - len(body)) + 1))  # one more, so that the end is seen
            count = await self.readinto(piece)
            body += piece[:count]
            if len(body) > limit:
                return None
            if count < len(piece):
                break
        shown = str(self._token)
        for quoted in map(Secret, {shown, shown.replace("/", "\\/")}) if len(shown) >= _SHORTEST_TOKEN else ():
            body = body.replace(quoted.encode(), b"***")
        return SecretBytes(body)
