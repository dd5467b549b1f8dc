"""Requests before they are sent and replies after they came: every word of Meta's protocol, and no I/O."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from meta_media.errors import (
    ApiError,
    MediaError,
    Operation,
    RateLimitError,
    ServerError,
)
from meta_media.protocol.convert import structure
from meta_media.protocol.error_codes import error_from_response
from meta_media.protocol.requests import Request
from meta_media.protocol.secrets import hide_query

__all__ = ["MAX_REPLY", "disposition_filename", "parse_error", "parse_response"]

MAX_REPLY: Final = 2**20  # bytes of JSON; real replies are below 2 KB
_DAY: Final = 86_400.0  # seconds; whoever asks us to wait for longer is mistaken
T = TypeVar("T")


def parse_response(request: Request, cls: type[T], status: int, headers: Mapping[str, str], body: bytes) -> T:
    """
    Turn a reply into the value it carries.

    Args:
        request: What was asked.
        cls: One of `models`.
        status: Of the reply.
        headers: Of the reply, with names in lower case.
        body: All of it.

    Raises:
        ApiError: Meta said no; on an upload also `InvalidMediaError`.
        ServerError: The reply is not what Meta's API replies.
    """
    outcome = _outcome(request, cls, status, headers, body)
    if isinstance(outcome, MediaError):
        raise outcome  # here, where no variable shows what the reply said: its URL is signed
    return outcome


def _outcome(request: Request, cls: type[T], status: int, headers: Mapping[str, str], body: bytes) -> T | MediaError:
    reply = _json_object(body)
    if not 200 <= status < 300 or (reply is not None and "error" in reply):
        return parse_error(request.operation, status, headers, body)
    unframed = not {"content-length", "transfer-encoding"} & headers.keys()  # so nobody saw where it should have ended
    if reply is None and (unframed or (request.operation == "upload" and not body.strip())):
        what = "Meta's reply is empty, or broke off"
        return ServerError(what, status=status, retryable=True, maybe_applied=request.method != "GET")
    if reply is None:
        return _unexpected(request, status, "is not a JSON object")
    try:
        return structure(cls, reply)
    except ValueError as error:
        return _unexpected(request, status, f"does not fit: {error}")


def _unexpected(request: Request, status: int, what: str) -> ServerError:
    changes = request.method != "GET"
    return ServerError(f"Meta's reply {what}", status=status, retryable=not changes, maybe_applied=changes)


def parse_error(operation: Operation, status: int, headers: Mapping[str, str], body: bytes) -> MediaError:
    """
    Turn a reply that is not a success into the error it stands for.

    Understands Graph's envelope, the problem document of the download host, and replies that are neither.
    """
    reply = _json_object(body) or {}
    error = reply.get("error")
    facts: Mapping[str, Any] = error if isinstance(error, Mapping) else reply
    data = facts.get("error_data")
    details = data.get("details") if isinstance(data, Mapping) else data
    said = [facts.get("message"), error, facts.get("detail"), facts.get("title"), _plain_text(headers, body)]
    shown = [details, facts.get("error_user_msg"), facts.get("error_user_title")]
    answer = ApiError(
        _first_text(*said) or f"Meta answered with status {status} and no explanation",
        status=status,
        code=_integer(facts.get("code")),
        subcode=_integer(facts.get("error_subcode")),
        details=_first_text(*shown),
        fbtrace_id=_first_text(facts.get("fbtrace_id"), headers.get("x-fb-trace-id")),
        retry_after=_retry_after(headers),
        maybe_applied=operation in {"upload", "send", "delete"} and status >= 500,
    )
    words = " ".join(text for text in (*said, *shown) if isinstance(text, str))
    refused = error_from_response(operation, answer, words=words, transient=facts.get("is_transient") is True)
    if isinstance(refused, RateLimitError) and refused.retry_after is None:
        refused.retry_after = _regain(headers)
    return refused


def _json_object(body: bytes) -> Mapping[str, Any] | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):  # RecursionError: thousands of nested brackets
        return None
    return value if isinstance(value, dict) else None


def _plain_text(headers: Mapping[str, str], body: bytes) -> str | None:
    is_text = headers.get("content-type", "").lower().startswith("text/plain")
    return body[:500].decode(errors="replace") if is_text else None


def _first_text(*candidates: object) -> str | None:
    for text in candidates:
        if isinstance(text, str) and text.strip():
            return re.sub(r"(?i)https?://[^\s\"'<>]+", lambda url: hide_query(url[0]), text.strip())[:2000]
    return None


def _integer(value: object) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,9}", value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Read RFC 9110 section 10.2.3: seconds, or a date, which is compared with the reply's own Date."""
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        seconds = _seconds_between(headers.get("date", ""), value)
    return min(seconds, _DAY) if 0 <= seconds < math.inf else None


def _regain(headers: Mapping[str, str]) -> float | None:
    """Read Meta's page "Rate limits": of several usages the worst, whose time to regain access is in minutes."""
    usages = _json_object(headers.get("x-business-use-case-usage", "").encode()) or {}
    entries = [entry for usage in usages.values() if isinstance(usage, list) for entry in usage]
    waits = [entry.get("estimated_time_to_regain_access") for entry in entries if isinstance(entry, dict)]
    minutes = max((wait for wait in waits if isinstance(wait, int | float) and wait > 0), default=None)
    return None if minutes is None else min(minutes * 60.0, _DAY)


def _seconds_between(start: str, end: str) -> float:
    from email.utils import parsedate_to_datetime

    try:
        return (parsedate_to_datetime(end) - parsedate_to_datetime(start)).total_seconds()
    except (OverflowError, TypeError, ValueError):  # not dates, years beyond 9999, or only one of them with a zone
        return math.nan


def disposition_filename(headers: Mapping[str, str]) -> str | None:
    """Read the file name out of a Content-Disposition header; `filename*` wins (RFC 6266, 4.3). Not safe as a path."""
    import email.message
    from email.utils import collapse_rfc2231_value

    message = email.message.Message()
    message["content-disposition"] = headers.get("content-disposition", "")
    try:
        parameters = message.get_params([], "content-disposition")
        names = [collapse_rfc2231_value(value) for name, value in parameters if name.lower() == "filename"]
    except (TypeError, ValueError):  # a charset that is none, or segments that the email package cannot sort
        return None
    return names[-1] if names else None
