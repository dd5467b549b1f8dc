"""
Every error this library raises, as a tree whose branches say who can act.

    MediaError
    ├─ ConfigurationError            you: token, number, ids, settings, arguments, a closed client
    ├─ InvalidMediaError             you: the file
    │  ├─ FileTooLargeError          over the limit of its kind
    │  ├─ UnsupportedMediaTypeError  not a type (or a variant of one) that WhatsApp accepts
    │  └─ CorruptedMediaError        empty, changed while it was sent, or not what it claims to be
    ├─ ApiError                      Meta said no
    │  ├─ AuthenticationError        the token is missing, dead or unreadable
    │  ├─ PermissionDeniedError      the token may not do this
    │  ├─ MediaNotFoundError         unknown, expired, deleted or somebody else's
    │  ├─ InvalidRequestError        Meta could not make sense of the request
    │  ├─ UploadRejectedError        Meta does not take this file
    │  ├─ RateLimitError             too much, too fast
    │  ├─ AccountRestrictedError     locked, unpaid or blocked by policy
    │  └─ ServerError                Meta is broken or busy, or its reply is not what it should be
    ├─ NetworkError                  the way to Meta: connect, TLS, reset
    │  └─ TransferTimeoutError       connect, idle or write
    ├─ DownloadError                 the bytes that came
    │  ├─ IntegrityError             not the bytes Meta promised
    │  ├─ UntrustedUrlError          not a host that may see the token or serve media
    │  └─ DownloadTooLargeError      more than you allowed
    └─ StorageError                  the local disk, or whatever you read from and write to

All are plain exceptions: one sentence when printed, data as attributes, and safe to pickle, copy and annotate.
"""

from __future__ import annotations

from typing import Literal

__all__ = [
    "AccountRestrictedError",
    "ApiError",
    "AuthenticationError",
    "ConfigurationError",
    "CorruptedMediaError",
    "DownloadError",
    "DownloadTooLargeError",
    "FileTooLargeError",
    "IntegrityError",
    "InvalidMediaError",
    "InvalidRequestError",
    "MediaError",
    "MediaNotFoundError",
    "NetworkError",
    "PermissionDeniedError",
    "RateLimitError",
    "ServerError",
    "StorageError",
    "TransferTimeoutError",
    "UnsupportedMediaTypeError",
    "UntrustedUrlError",
    "UploadRejectedError",
]

Operation = Literal["upload", "get_info", "download", "delete", "send"]


class MediaError(Exception):
    """
    The root of everything this library raises.

    Attributes:
        operation: The verb that failed, such as `"upload"`; None when the error was raised outside one.
        media_id: The media it was about, where known.
        attempts: Requests sent for this call; 0 when it failed before the first.
        elapsed: Seconds from the call to the error.
        retryable: Whether the same call may succeed later.
        maybe_applied: Whether Meta may have done what was asked although the reply was lost.
    """

    operation: Operation | None = None
    media_id: str | None = None
    attempts: int = 0
    elapsed: float = 0.0

    def __init__(self, message: str = "", *, retryable: bool = False, maybe_applied: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.retryable = retryable
        self.maybe_applied = maybe_applied


class ConfigurationError(MediaError):
    """A token, number, id, setting or argument that cannot work, or a client that is closed. No request was sent."""


class InvalidMediaError(MediaError):
    """
    The file is not one WhatsApp takes.

    Attributes:
        kind: `"audio"`, `"document"`, `"image"`, `"sticker"` or `"video"`, where known.
        limit: What is allowed: bytes for sizes, otherwise a phrase.
        actual: What was found, in the unit of `limit`.
        answer: Meta's own answer, when it was Meta who noticed.
    """

    def __init__(
        self,
        message: str = "",
        *,
        kind: str | None = None,
        limit: int | str | None = None,
        actual: int | str | None = None,
        answer: ApiError | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.limit = limit
        self.actual = actual
        self.answer = answer


class FileTooLargeError(InvalidMediaError):
    """The file is larger than WhatsApp allows for its kind."""


class UnsupportedMediaTypeError(InvalidMediaError):
    """The type, or this variant of it (Vorbis in Ogg, stereo Opus, 16-bit images), is not accepted."""


class CorruptedMediaError(InvalidMediaError):
    """The file is empty, is not what it claims to be, or changed while it was being sent."""


class ApiError(MediaError):
    """
    Meta answered, and the answer was no.

    Attributes:
        status: HTTP status of the reply.
        code: Meta's error code, which decides the class; None when the reply had none.
        subcode: Meta's error subcode.
        message: Meta's own words.
        details: `error_data.details`, or what Meta shows to end users.
        fbtrace_id: What Meta's support asks for.
        retry_after: Seconds to wait, when Meta said so.
    """

    def __init__(
        self,
        message: str = "",
        *,
        status: int | None = None,
        code: int | None = None,
        subcode: int | None = None,
        details: str | None = None,
        fbtrace_id: str | None = None,
        retry_after: float | None = None,
        retryable: bool = False,
        maybe_applied: bool = False,
    ) -> None:
        super().__init__(message, retryable=retryable, maybe_applied=maybe_applied)
        self.status = status
        self.code = code
        self.subcode = subcode
        self.details = details
        self.fbtrace_id = fbtrace_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        facts = {"HTTP": self.status, "code": self.code, "subcode": self.subcode, "fbtrace_id": self.fbtrace_id}
        known = ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)
        details = f": {self.details}" if self.details and self.details not in self.message else ""
        return f"{self.message}{details}" + (f" ({known})" if known else "")


class AuthenticationError(ApiError):
    """The access token is missing, expired, revoked or unreadable."""


class PermissionDeniedError(ApiError):
    """The token is alive but lacks the permission."""


class MediaNotFoundError(ApiError):
    """Unknown, expired or deleted media, or media this token may not see: Meta does not tell which."""


class InvalidRequestError(ApiError):
    """Meta could not make sense of the request."""


class UploadRejectedError(ApiError):
    """Meta refused the file itself."""


class RateLimitError(ApiError):
    """A quota or throughput limit of Meta's was hit."""


class AccountRestrictedError(ApiError):
    """The business account is locked, unpaid or blocked by policy."""


class ServerError(ApiError):
    """Meta is broken or busy, or replied with something that is not what its API replies."""


class NetworkError(MediaError):
    """
    The request did not get through, or its reply did not: DNS, connect, TLS, reset.

    Attributes:
        stale: Whether a kept connection turned out to be one that the server had given up.
        lasting: Whether the server would be met like this again: nobody trusts its certificate, or it speaks no TLS.
    """

    stale: bool = False
    lasting: bool = False


class TransferTimeoutError(NetworkError):
    """
    It took longer than a setting allows.

    Attributes:
        phase: What ran out: the wait to `"connect"`, to `"read"` or to `"write"` anything; the `"rate"`; the `"deadline"`.
            Or `"pool"`, of an injected client.
    """

    def __init__(
        self, message: str = "", *, phase: str | None = None, retryable: bool = True, maybe_applied: bool = False
    ) -> None:
        super().__init__(message, retryable=retryable, maybe_applied=maybe_applied)
        self.phase = phase


class DownloadError(MediaError):
    """The bytes could not be had, or should not be."""


class IntegrityError(DownloadError):
    """
    The bytes are not the ones Meta promised.

    Attributes:
        expected: The promised size or SHA-256.
        actual: What arrived.
    """

    def __init__(
        self,
        message: str = "",
        *,
        expected: int | str | None = None,
        actual: int | str | None = None,
        retryable: bool = True,
        maybe_applied: bool = False,
    ) -> None:
        super().__init__(message, retryable=retryable, maybe_applied=maybe_applied)
        self.expected = expected
        self.actual = actual


class UntrustedUrlError(DownloadError):
    """
    The URL leads to a host that is not trusted with the token or to serve media.

    Attributes:
        host: The host that was refused, with its port.
    """

    def __init__(self, message: str = "", *, host: str | None = None) -> None:
        super().__init__(message)
        self.host = host


class DownloadTooLargeError(DownloadError):
    """
    More bytes than the limit allows.

    Attributes:
        limit: Bytes allowed.
        actual: Bytes announced, or seen so far.
    """

    def __init__(self, message: str = "", *, limit: int | None = None, actual: int | None = None) -> None:
        super().__init__(message)
        self.limit = limit
        self.actual = actual


class StorageError(MediaError):
    """
    A file, folder, handle or disk refused: missing, forbidden, full, gone.

    Attributes:
        errno: The operating system's number, where there is one.
    """

    def __init__(self, message: str = "", *, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno
