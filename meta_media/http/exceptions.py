"""The one boundary to the HTTP stack: its exceptions become `NetworkError`s, in words without addresses or secrets."""

from __future__ import annotations

import functools
import os
import re
import ssl
import sys
import traceback
from typing import Any, Final

import attrs

from meta_media.errors import MediaError, NetworkError, TransferTimeoutError
from meta_media.protocol.requests import Request
from meta_media.protocol.secrets import Secret, masked

__all__ = ["ExceptionMapper", "TransportFailure", "has_rule", "map_exception"]

_NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST"})  # reasons of OpenSSL's
_UNKNOWN_CA: Final = frozenset({18, 19, 20, 21})  # OpenSSL's codes: self-signed, or an issuer that is not known
_INVALID_CERTIFICATE: Final = frozenset({9, 10, 62, 64})  # not yet valid, expired, of another name, of another address
_PROXY_IS_BUSY: Final = frozenset({"408", "429"})  # else a refusal is final: wrong passwords lock an account in the end


class TransportFailure(Exception):  # noqa: N818 - a wrapper, which never leaves this room
    """A failure of an injected client's transport that is none of httpx's exceptions, and is its cause."""


@attrs.frozen
class _Rule:
    """What an exception class means."""

    sentence: str  # without its beginning
    phase: str | None = None  # of a timeout
    sent: bool = True  # whether the request may have been sent
    fatal: bool = False  # whether every attempt would fail like this one


@functools.cache
def _rules() -> dict[str, _Rule]:
    """
    Return the rules by name of class.

    The names are those of httpx's classes. An injected client may be httpx2's, whose classes have the same names, and an
    exception of httpcore's may come out of either as it is. The most specific class of an exception decides.
    """
    import httpx

    from meta_media.http.timeouts import DeadlineError, TooSlowError
    from meta_media.http.transport import StaleConnectionError

    rules = {
        httpx.ConnectTimeout: _Rule("no progress in the connect phase", phase="connect", sent=False),
        httpx.ReadTimeout: _Rule("no progress in the read phase", phase="read"),
        httpx.WriteTimeout: _Rule("no progress in the write phase", phase="write"),
        httpx.PoolTimeout: _Rule("no progress in the pool phase", phase="pool", sent=False),
        httpx.TimeoutException: _Rule("no progress in the read phase", phase="read"),
        TooSlowError: _Rule("it was slower than minimum_rate allows", phase="rate"),
        DeadlineError: _Rule("", phase="deadline"),  # its own sentence has the seconds
        httpx.ConnectError: _Rule("could not connect", sent=False),
        httpx.ProxyError: _Rule("the proxy refused", sent=False),
        httpx.UnsupportedProtocol: _Rule("the URL has a scheme that cannot be used", sent=False, fatal=True),
        httpx.InvalidURL: _Rule("the URL is not valid", fatal=True),
        httpx.DecodingError: _Rule("the response could not be decoded"),
        StaleConnectionError: _Rule("the server had closed the idle connection"),
        httpx.RemoteProtocolError: _Rule("the server broke off or broke the rules of HTTP"),
        httpx.LocalProtocolError: _Rule("the request would have broken the rules of HTTP", fatal=True),
        httpx.ReadError: _Rule("the connection was lost while waiting for the response"),
        httpx.WriteError: _Rule("the connection was lost while sending"),
        httpx.CloseError: _Rule("the connection could not be closed"),
        ssl.SSLError: _Rule("the encrypted connection failed"),
        ConnectionError: _Rule("the connection was lost"),
        TransportFailure: _Rule(""),
    }
    return {kind.__name__: rule for kind, rule in rules.items()}


def map_exception(error: Exception, doing: str, *, changes: bool) -> NetworkError:
    """Turn an exception of the HTTP stack into ours, for a request that `changes` something. `doing` begins its message."""
    names = [kind.__name__ for kind in type(error).__mro__]
    rule = next((_rules()[name] for name in names if name in _rules()), _Rule(""))
    applied = changes and rule.sent
    if rule.phase is not None:
        return TransferTimeoutError(f"{doing}: {rule.sentence or error}", phase=rule.phase, maybe_applied=applied)
    failed = type(error.__cause__ if isinstance(error, TransportFailure) else error).__name__
    sentence = f"{doing}: {rule.sentence or f'the connection failed ({failed})'}"
    reason, lasting = _reason(_system_cause(error), connecting="ConnectError" in names)
    if "ProxyError" in names and (status := str(error)[:3]).isdecimal():
        sentence += f" with status {status}" + (": check its user and password" if status == "407" else "")
        lasting = "300" <= status < "500" and status not in _PROXY_IS_BUSY
    facts = {"stale": "StaleConnectionError" in names, "lasting": lasting}
    return NetworkError(sentence + reason, retryable=not (lasting or rule.fatal), maybe_applied=applied, **facts)


def has_rule(error: Exception) -> bool:
    """Return whether an exception is one of the HTTP stack's classes."""
    return any(kind.__name__ in _rules() for kind in type(error).__mro__)


def _system_cause(error: BaseException) -> OSError | None:
    cause: BaseException | None = error
    while cause is not None and not (isinstance(cause, OSError) and cause.strerror):
        several = cause.exceptions if isinstance(cause, BaseExceptionGroup) else ()  # one for each address of a host
        cause = cause.__cause__ or cause.__context__ or next(iter(several), None)
    return cause


def _reason(cause: OSError | None, *, connecting: bool) -> tuple[str, bool]:
    """Return the system's words, and whether the failure will last: a certificate, or a server that speaks no TLS."""
    if cause is None:
        return "", False
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f": {cause.verify_message}{_way_out(cause.verify_code)}", True
    if connecting and isinstance(cause, ssl.SSLError) and cause.reason in _NOT_TLS:  # later, it means damaged bytes
        return ": the server does not speak TLS there", True
    if isinstance(cause, ssl.SSLError):  # its `errno` is one of OpenSSL's
        words = (cause.reason or re.sub(r"^\[.*?\] | \(_ssl.*", "", cause.strerror or "")).replace("_", " ").lower()
        return f" (TLS: {words})", False
    number = cause.errno or 0  # negative in name resolution, which has good words; asyncio's are about its own calls
    return f" ({os.strerror(number) if number > 0 else cause.strerror})", False


def _way_out(code: int) -> str:
    """Return what to do about a certificate that OpenSSL refuses. Python 3.13 refuses some that others accept."""
    if code in _INVALID_CERTIFICATE:
        return ""
    variable = "set SSL_CERT_FILE to its CA, or " if code in _UNKNOWN_CA else ""
    return f"; if you trust it, {variable}pass http_client=httpx.AsyncClient(verify=…) with an ssl.SSLContext that accepts it"


class ExceptionMapper:
    """
    Maps every exception of the HTTP stack that leaves its block. Ours pass unchanged.

    So do those of the caller's source, event hooks and mocks: no request is sent again because a hook failed.

    The body's `raise_source_error`, if it has one, raises what the caller's source raised.

    Attributes:
        changes: Whether the request would have changed something.
        hooked: Whether code of the caller may run in the block. It raised then what has no rule.
        secret: The token that is sent, or nothing. An echo of it is masked: h11 quotes what it cannot read.
    """

    def __init__(self, request: Request, content: Any, *, hooked: bool, secret: Secret) -> None:
        self._request = request
        self._content = content
        self.hooked = hooked
        self.secret = secret
        self.changes = request.method != "GET"

    def __enter__(self) -> None:
        self._handled = sys.exception()  # the caller's, which becomes the context of what is raised in the block

    def __exit__(self, kind: object, error: BaseException | None, frames: object) -> None:
        if not isinstance(error, Exception):
            return
        if hasattr(self._content, "raise_source_error"):
            self._content.raise_source_error()
        if isinstance(error, MediaError) or (self.hooked and not has_rule(error)):
            return
        self._hide_secrets(error)
        doing = f"{self._request.operation} at {self._request.url.split('/')[2]}"
        raise map_exception(error, doing, changes=self.changes) from error

    def _hide_secrets(self, error: BaseException | None) -> None:
        """Mask the token, and drop the local variables of frames that have ended: other libraries keep signed URLs in them."""
        while error is not None and error is not self._handled:
            traceback.clear_frames(error.__traceback__)
            error.args = tuple(masked(list(error.args), self.secret))
            error = error.__cause__ or error.__context__
