"""The one boundary to the HTTP stack: each exception of the libraries below becomes one of ours, in words without secrets."""

from __future__ import annotations

import os
from typing import Any, Final

from meta_media.errors import MediaError, NetworkError, TransferTimeoutError
from meta_media.protocol.requests import Request

__all__ = ["ExceptionMapper", "map_exception"]

# httpx and its heirs raise classes of these names. Most specific first; what is not here is a NetworkError all the same.
_TIMEOUTS: Final = {
    "ConnectTimeout": "connect",
    "ReadTimeout": "read",
    "WriteTimeout": "write",
    "PoolTimeout": "pool",
    "TooSlowError": "rate",
    "DeadlineError": "deadline",
    "TimeoutException": "read",
}
_TOO_LONG: Final = {"rate": "it was slower than minimum_rate allows", "deadline": "it was not over by its deadline"}
_FAILURES: Final = {
    "ConnectError": "could not connect",
    "ProxyError": "the proxy refused",
    "UnsupportedProtocol": "the URL has a scheme that cannot be used",
    "InvalidURL": "the URL is not valid",
    "DecodingError": "the reply could not be decoded",
    "StaleConnectionError": "the server had given up the kept connection",
    "RemoteProtocolError": "the server broke off or broke the rules of HTTP",
    "LocalProtocolError": "the request would have broken the rules of HTTP",
    "ReadError": "the connection was lost while waiting for the reply",
    "WriteError": "the connection was lost while sending",
    "CloseError": "the connection could not be closed",
    "SSLError": "the encrypted connection failed",
}
_NOT_SENT: Final = frozenset({"ConnectTimeout", "PoolTimeout", "ConnectError", "ProxyError", "UnsupportedProtocol"})
_HOPELESS: Final = frozenset({"UnsupportedProtocol", "InvalidURL", "LocalProtocolError"})
_NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST"})  # reasons of OpenSSL's


def map_exception(error: Exception, doing: str, *, changes: bool) -> NetworkError:
    """
    Turn an exception of the HTTP stack into ours, in words without addresses or headers.

    Args:
        error: Anything that came out of the stack.
        doing: The start of the sentence.
        changes: Whether the request, had it arrived, would have changed something.
    """
    names = [cls.__name__ for cls in type(error).__mro__]
    applied = changes and not _NOT_SENT.intersection(names)
    for name in names:
        if name in _TIMEOUTS:
            phase = _TIMEOUTS[name]
            told = _TOO_LONG.get(phase, f"no progress in the {phase} phase")
            return TransferTimeoutError(f"{doing}: {told}", phase=phase, maybe_applied=applied)
    why = next((_FAILURES[name] for name in names if name in _FAILURES), f"the connection failed ({names[0]})")
    if "ProxyError" in names and (status := str(error)[:3]).isdecimal():
        why += f" with status {status}"
    reason, lasting = _reason(_system_cause(error), beginning="ConnectError" in names)
    hopeful = not (lasting or _HOPELESS.intersection(names))
    stale = "StaleConnectionError" in names
    return NetworkError(
        f"{doing}: {why}{reason}", stale=stale, lasting=lasting, retryable=hopeful, maybe_applied=applied
    )


def _system_cause(error: BaseException) -> OSError | None:
    seen: BaseException | None = error
    while seen is not None and not (isinstance(seen, OSError) and seen.strerror):
        several = seen.exceptions if isinstance(seen, BaseExceptionGroup) else ()  # one for each address of a host
        seen = seen.__cause__ or seen.__context__ or next(iter(several), None)
    return seen


def _reason(cause: OSError | None, *, beginning: bool) -> tuple[str, bool]:
    """Say what the system said, and whether it would say so again: of a certificate, or of a peer that speaks no TLS."""
    import ssl

    if cause is None:
        return "", False
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f": {cause.verify_message}", True
    if beginning and isinstance(cause, ssl.SSLError) and cause.reason in _NOT_TLS:  # later, it means damaged bytes
        return ": the server does not speak TLS there", True
    number = cause.errno or 0  # name resolution has negative ones, and good words; asyncio's own are about its calls
    return f" ({os.strerror(number) if number > 0 else cause.strerror})", False


class ExceptionMapper:
    """
    Lets nothing of the HTTP stack out of its block; but what the caller's own source or callback raised is the caller's.

    Args:
        request: What the block is about.
        content: What is being sent; `raise_source_error` of it raises what it was that failed.

    Attributes:
        changes: Whether the request, had it arrived, would have changed something.
    """

    def __init__(self, request: Request, content: Any) -> None:
        self._request = request
        self._content = content
        self.changes = request.method != "GET"

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if not isinstance(error, Exception):
            return
        if hasattr(self._content, "raise_source_error"):
            self._content.raise_source_error()
        if isinstance(error, MediaError):  # certificates that cannot be loaded
            return
        doing = f"{self._request.operation} at {self._request.url.split('/')[2]}"
        raise map_exception(error, doing, changes=self.changes) from error
