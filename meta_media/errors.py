"""
The errors of this library: one tree, whose branches say who can act.

    MediaError
    ├─ ConfigurationError            your code: token, id, setting, argument, closed client
    │  └─ InvalidWebhookError        the payload is not one of Meta's webhooks
    ├─ InvalidMediaError             your file
    │  ├─ FileTooLargeError          larger than WhatsApp accepts for its kind
    │  ├─ UnsupportedMediaTypeError  of a type, or a variant of one, that WhatsApp does not accept
    │  └─ CorruptedMediaError        empty, not of the declared type, or changed during the upload
    ├─ ApiError                      Meta refused the request
    │  ├─ AuthenticationError        the token is missing, expired or invalid
    │  ├─ PermissionDeniedError      the token lacks a permission
    │  ├─ MediaNotFoundError         the media is unknown, expired, deleted or not yours
    │  ├─ InvalidRequestError        Meta does not understand the request
    │  ├─ UploadRejectedError        Meta does not accept the file
    │  ├─ RateLimitError             too many requests
    │  ├─ AccountRestrictedError     the account is locked, unpaid or blocked by policy
    │  └─ ServerError                Meta failed, was busy, or sent an invalid response
    ├─ NetworkError                  the connection to Meta failed: DNS, TCP, TLS, proxy
    │  └─ TransferTimeoutError       a timeout, the minimum rate or the deadline was missed
    ├─ DownloadError                 the bytes of a transfer
    │  ├─ IntegrityError             not the size or SHA-256 that Meta announced
    │  ├─ UntrustedUrlError          on a host that is not trusted, or not public
    │  └─ DownloadTooLargeError      more than your limit
    └─ StorageError                  a local file, folder, handle or database

Each error is a plain exception: `str()` is one sentence, the facts are attributes, and pickle, copy and `add_note` work.
The `**flags` of a constructor are `retryable` and `maybe_applied`.
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
    "InvalidWebhookError",
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

Operation = Literal["upload", "upload_handle", "get_info", "download", "delete", "send"]
Scope = Literal["recipient", "number", "account", "app"]


class MediaError(Exception):
    """
    The base class of all errors of this library.

    Attributes:
        message: The sentence, without the facts that `str()` may add.
        operation: The verb that failed, such as `"upload"`; None for an error outside of a verb.
        media_id: The id of the media, where known.
        attempts: Requests sent by this call; 0 for an error before the first one.
        elapsed: Seconds from the start of the call to the error.
        retryable: Whether the same call may succeed later.
        maybe_applied: Whether Meta may have done the work although the response is missing.
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
    """A token, id, setting or argument is invalid, or the client is closed. Raised before a request is sent."""


class InvalidWebhookError(ConfigurationError):
    """The payload is not one of Meta's webhooks: not JSON, or another object. Respond with status 400."""


class InvalidMediaError(MediaError):
    """
    WhatsApp does not accept this file.

    Attributes:
        kind: `"audio"`, `"document"`, `"image"`, `"sticker"` or `"video"`, where known.
        limit: The accepted maximum in bytes, or a phrase that names what is accepted.
        actual: The value found, in the unit of `limit`.
        answer: Meta's error response; None where the file was refused before the upload.
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
        self.kind, self.limit, self.actual, self.answer = kind, limit, actual, answer


class FileTooLargeError(InvalidMediaError):
    """The file is larger than WhatsApp accepts for its kind."""


class UnsupportedMediaTypeError(InvalidMediaError):
    """WhatsApp does not accept the file's type, or this variant of it: Vorbis in Ogg, stereo Opus, 16-bit images."""


class CorruptedMediaError(InvalidMediaError):
    """The file is empty, is not of the declared type, or changed during the upload."""


class ApiError(MediaError):
    """
    Meta refused the request. `str()` starts with `advice` and ends with the status, codes and trace id.

    Attributes:
        message: Meta's own text.
        advice: What to check or do first; empty where Meta's text says it.
        status: HTTP status of the response.
        code: Meta's error code, which decides the class; None when the response has none.
        subcode: Meta's error subcode.
        details: `error_data.details`, or the text that Meta intends for end users.
        fbtrace_id: Trace id, which Meta's support asks for.
        retry_after: Seconds to wait before the next attempt, where Meta gives them.
        scope: What a limit or a restriction is about: `"recipient"` (messages from one number to one recipient), `"number"`,
            `"account"` (all its numbers) or `"app"` (all its accounts); None for any other error.
    """

    def __init__(
        self,
        message: str = "",
        *,
        advice: str = "",
        status: int | None = None,
        code: int | None = None,
        subcode: int | None = None,
        details: str | None = None,
        fbtrace_id: str | None = None,
        retry_after: float | None = None,
        scope: Scope | None = None,
        **flags: bool,
    ) -> None:
        super().__init__(message, **flags)
        self.advice, self.details, self.scope = advice, details, scope
        self.status, self.code, self.subcode = status, code, subcode
        self.fbtrace_id, self.retry_after = fbtrace_id, retry_after

    def __str__(self) -> str:
        advice = f"{self.advice}. Meta: " if self.advice else ""
        facts = {"HTTP": self.status, "code": self.code, "subcode": self.subcode, "fbtrace_id": self.fbtrace_id}
        known = ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)
        details = f": {self.details}" if self.details and self.details not in self.message else ""
        return f"{advice}{self.message}{details}" + (f" ({known})" if known else "")


class AuthenticationError(ApiError):
    """The access token is missing, expired, revoked or invalid."""


class PermissionDeniedError(ApiError):
    """The access token is valid but lacks a permission."""


class MediaNotFoundError(ApiError):
    """The media is unknown, expired or deleted, or this token may not see it. Meta does not distinguish these cases."""


class InvalidRequestError(ApiError):
    """Meta does not understand the request."""


class UploadRejectedError(ApiError):
    """Meta does not accept the file."""


class RateLimitError(ApiError):
    """A quota or throughput limit of Meta is reached."""


class AccountRestrictedError(ApiError):
    """The business account is locked, unpaid or blocked by policy."""


class ServerError(ApiError):
    """Meta failed or was busy, or the response is not a valid response of its API."""


class NetworkError(MediaError):
    """
    The request or its response did not get through: DNS, connect, TLS, reset.

    Attributes:
        stale: Whether the server had closed a kept connection before the request.
        lasting: Whether a new attempt would fail alike: an untrusted certificate, or a server without TLS.
    """

    def __init__(self, message: str = "", *, stale: bool = False, lasting: bool = False, **flags: bool) -> None:
        super().__init__(message, **flags)
        self.stale, self.lasting = stale, lasting


class TransferTimeoutError(NetworkError):
    """
    The transfer took longer than a setting allows.

    Attributes:
        phase: The limit that was missed: `"connect"`, `"read"`, `"write"` (the timeouts), `"rate"` (`minimum_rate`),
            `"deadline"`, or `"pool"` (an injected client's wait for a connection).
    """

    def __init__(
        self, message: str = "", *, phase: str | None = None, retryable: bool = True, maybe_applied: bool = False
    ) -> None:
        super().__init__(message, retryable=retryable, maybe_applied=maybe_applied)
        self.phase = phase


class DownloadError(MediaError):
    """The bytes are wrong or missing, or must not be fetched."""


class IntegrityError(DownloadError):
    """
    The bytes do not have the size or SHA-256 that Meta announced.

    Attributes:
        expected: The announced size in bytes, or SHA-256.
        actual: The size or SHA-256 of the bytes received.
    """

    def __init__(
        self, message: str = "", *, expected: int | str | None = None, actual: int | str | None = None, **flags: bool
    ) -> None:
        super().__init__(message, **{"retryable": True, **flags})
        self.expected, self.actual = expected, actual


class UntrustedUrlError(DownloadError):
    """
    The URL's host is not trusted to receive the token or to serve media, or is not a public one. No request was sent to it.

    Attributes:
        host: The refused host, with its port if the URL has one.
    """

    def __init__(self, message: str = "", *, host: str | None = None) -> None:
        super().__init__(message)
        self.host = host


class DownloadTooLargeError(DownloadError):
    """
    The media is larger than the limit.

    Attributes:
        limit: Maximum in bytes.
        actual: Bytes announced, or received so far.
    """

    def __init__(self, message: str = "", *, limit: int | None = None, actual: int | None = None) -> None:
        super().__init__(message)
        self.limit, self.actual = limit, actual


class StorageError(MediaError):
    """
    A file, folder, handle, database, disk or bucket failed: missing, forbidden, full.

    Attributes:
        errno: The operating system's error number, where there is one.
    """

    def __init__(self, message: str = "", *, errno: int | None = None, **flags: bool) -> None:
        super().__init__(message, **flags)
        self.errno = errno
