"""Meta's responses as values and errors."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

from meta_media.errors import ApiError, InvalidMediaError, MediaError, Operation, RateLimitError, ServerError
from meta_media.protocol.convert import structure
from meta_media.protocol.error_codes import meaning_of
from meta_media.protocol.requests import Request
from meta_media.protocol.secrets import hide_query, masked

__all__ = ["MAX_RESPONSE_SIZE", "disposition_filename", "from_json", "message_error", "parse_error", "parse_response"]

MAX_RESPONSE_SIZE: Final = 2**20  # bytes of JSON; real responses are below 2 KB
_DAY: Final = 86_400.0  # seconds; a longer wait is a mistake of the server
_SECONDS: Final = re.compile(r"[0-9]+(?:\.[0-9]*)?(?: *, *[0-9]+(?:\.[0-9]*)?)*")
_CODE: Final = re.compile(r"-?[0-9]{1,9}")
_decode: Final = json.JSONDecoder().decode
_MAX_TEXT_SIZE: Final = 2000  # characters of Meta's text that an error keeps
_MAX_BODY_SIZE: Final = 500  # characters of a text/plain body that an error keeps

T = TypeVar("T")


def parse_response(
    request: Request, cls: type[T], status: int, headers: Mapping[str, str], body: bytes, secret: str = ""
) -> T:
    """
    Convert a response into a model, a class of `models`. The names of the headers are in lower case.

    `secret` is the token that was sent, which is masked in the body: Meta quotes a malformed one in her error message.

    Raises:
        ApiError: Meta refused the request. On an upload, `InvalidMediaError` as well.
        ServerError: The response is not a valid response of Meta's API.
    """
    outcome = _outcome(request, cls, status, headers, body, secret)
    if isinstance(outcome, MediaError):
        raise outcome  # in this frame, because the locals of the others hold the body, whose URL is signed
    return outcome


def _outcome(
    request: Request, cls: type[T], status: int, headers: Mapping[str, str], body: bytes, secret: str
) -> T | MediaError:
    content = _json_object(body, secret)
    if not 200 <= status < 300 or (content is not None and "error" in content):
        return parse_error(request.operation, status, headers, body, request.media_id, secret)
    changes = request.method != "GET"
    what = "is not a JSON object"
    try:
        if content is not None:
            return structure(cls, content)
    except ValueError as error:
        what = f"is not valid: {error}"
    unframed = not {"content-length", "transfer-encoding"} & headers.keys()  # its end cannot be verified
    if content is None and (unframed or (request.operation == "upload" and not body.strip())):
        message = "Meta's response is empty or incomplete"
        return ServerError(message, status=status, retryable=True, maybe_applied=changes)
    return ServerError(f"Meta's response {what}", status=status, retryable=not changes, maybe_applied=changes)


def parse_error(
    operation: Operation,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    media_id: str | None = None,
    secret: str = "",
) -> MediaError:
    """
    Convert an error response into an error.

    The body may be Graph's error object, the problem document of the download host, plain text, or anything else.
    """
    content = _json_object(body, secret) or {}
    error = content.get("error")
    meta = content.get("meta")  # of an error of 360dialog's own
    facts: Mapping[str, Any] = error if isinstance(error, Mapping) else meta if isinstance(meta, Mapping) else content
    text = _plain_text(headers, body, secret)
    answer, kind = _api_error(operation, status, headers, facts, error, text, media_id=media_id)
    return answer if issubclass(kind, ApiError) else kind(str(answer), answer=answer)


def message_error(facts: Mapping[str, Any]) -> ApiError:
    """Convert an entry of a webhook's `errors` into an error. It has no HTTP status."""
    return _api_error("send", None, {}, facts)[0]


def _api_error(
    operation: Operation,
    status: int | None,
    headers: Mapping[str, str],
    facts: Mapping[str, Any],
    *texts: object,
    media_id: str | None = None,
) -> tuple[ApiError, type[ApiError | InvalidMediaError]]:
    """Return an error, and the class that its code stands for, which may be one of the caller's file."""
    data = facts.get("error_data")
    details = [data.get("details") if isinstance(data, Mapping) else data]
    details += [facts.get("error_user_msg"), facts.get("error_user_title")]
    messages = [facts.get("message"), *texts[:1], facts.get("detail"), facts.get("title"), *texts[1:]]
    messages.append(facts.get("developer_message"))
    text = " ".join(text for text in (*messages, *details) if isinstance(text, str))
    code, subcode = _integer(facts.get("code")), _integer(facts.get("error_subcode"))
    meaning = meaning_of(operation, status or 400, code, subcode, text)
    retry_after = _retry_after(headers)
    if retry_after is None and meaning.error is RateLimitError:
        retry_after = _time_to_regain_access(headers)
    kind = meaning.error if issubclass(meaning.error, ApiError) else ApiError
    answer = kind(
        _first_text(messages) or "no explanation in the response",
        advice=meaning.advice.replace("{media}", f"media {media_id}" if media_id else "the media"),
        status=status,
        code=code,
        subcode=subcode,
        details=_first_text(details),
        fbtrace_id=_first_text([facts.get("fbtrace_id"), headers.get("x-fb-trace-id")]),
        retry_after=retry_after,
        scope=meaning.scope,
        retryable=meaning.retryable or facts.get("is_transient") is True,
        maybe_applied=operation not in {"get_info", "download"} and (status or 0) >= 500,
    )
    return answer, meaning.error


def from_json(text: bytes | bytearray | str, secret: str = "") -> Any:
    """Decode JSON; None if it is none. An exception would have the whole text, as its context too."""
    try:
        if not isinstance(text, str):
            encoding = "utf-8" if text.startswith(b'{"') else json.detect_encoding(text)
            text = text.decode(encoding, "surrogatepass")
        value = _decode(text)
        return masked(value, secret) if secret in text or "\\" in text else value  # mostly, one look at all is enough
    except (ValueError, RecursionError):  # RecursionError: thousands of nested brackets
        return None


def _json_object(body: bytes, secret: str) -> Mapping[str, Any] | None:
    value = from_json(body, secret)
    return value if isinstance(value, dict) else None


def _plain_text(headers: Mapping[str, str], body: bytes, secret: str) -> str | None:
    is_text = headers.get("content-type", "").lower().startswith("text/plain")
    return masked(body.decode(errors="replace"), secret)[:_MAX_BODY_SIZE] if is_text else None


def _first_text(candidates: Iterable[object]) -> str | None:
    """Return the first text that is not blank, shortened, its URLs and upload sessions without their query."""
    text = next((text.strip() for text in candidates if isinstance(text, str) and text.strip()), None)
    if text is None:
        return None
    return re.sub(r"(?i)(?:https?://|upload:)[^\s\"'<>]+", lambda url: hide_query(url[0]), text)[:_MAX_TEXT_SIZE]


def _integer(value: object) -> int | None:
    """Return a code, which has at most nine digits."""
    if isinstance(value, str) and _CODE.fullmatch(value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**9 else None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """
    Read `Retry-After` (RFC 9110, 10.2.3): seconds, or a date, which is compared with the response's own Date.

    Of several numbers the longest counts. More than a day is a day.
    """
    value = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(value):
        seconds = max(map(float, value.split(",")))
    else:
        seconds = _seconds_between(headers.get("date", ""), value)
    return min(seconds, _DAY) if seconds >= 0 else None


def _time_to_regain_access(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that Meta's usage headers ask for (page "Rate limits"). They have minutes per use case."""
    usages = from_json(f"[{headers.get('x-business-use-case-usage', '')}]") or []
    lists = [
        cases for usage in usages if isinstance(usage, dict) for cases in usage.values() if isinstance(cases, list)
    ]
    cases = [case for cases in lists for case in cases if isinstance(case, dict)]
    waits = [case.get("estimated_time_to_regain_access") for case in cases]
    minutes = max((wait for wait in waits if isinstance(wait, int | float) and wait > 0), default=None)
    return None if minutes is None else min(minutes, _DAY / 60) * 60.0  # in this order, because an int may be huge


def _seconds_between(start: str, end: str) -> float:
    from email.utils import parsedate_to_datetime

    try:
        return (parsedate_to_datetime(end) - parsedate_to_datetime(start)).total_seconds()
    except (OverflowError, TypeError, ValueError):  # not dates, years beyond 9999, or only one has a time zone
        return math.nan


def disposition_filename(headers: Mapping[str, str]) -> str | None:
    """
    Return the file name of Content-Disposition; `filename*` wins (RFC 6266, 4.3). It is not safe as a path.

    None if there are several of one form, as in a repeated header.
    """
    import email.message
    from email.utils import collapse_rfc2231_value

    message = email.message.Message()
    message["content-disposition"] = headers.get("content-disposition", "")
    try:
        parameters = message.get_params([], "content-disposition")
        values = [value for name, value in parameters if name.lower() == "filename"]
        names = [collapse_rfc2231_value(value) for value in values]
    except (TypeError, ValueError):  # an invalid charset, or segments that the email package cannot sort
        return None
    ambiguous = sum(isinstance(value, str) for value in values) > 1
    return (names[-1] or None) if names and not ambiguous else None
