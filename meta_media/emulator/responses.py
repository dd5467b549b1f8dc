"""
The emulator's responses: JSON envelopes, and every error with its text.

*Recorded* texts were seen in real responses, *documented* ones stand in Meta's documentation. For the others no real text
was published; they follow the pattern of their neighbours.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from starlette.responses import Response

__all__ = [
    "ACCEPTED_TYPES",
    "BUSINESS_ACCOUNT_ID",
    "GraphError",
    "GraphResponse",
    "PlainError",
    "graph_json",
    "problem",
]

BUSINESS_ACCOUNT_ID: Final = "1020304050607"
# In the order of the recorded error text, by kind. `audio/opus` is in that text, but in no table of Meta's.
_TYPES: Final = {
    "audio": ("audio/aac", "audio/mp4", "audio/mpeg", "audio/amr", "audio/ogg", "audio/opus"),
    "document": (
        "application/vnd.ms-powerpoint",
        "application/msword",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        *("application/pdf", "text/plain", "application/vnd.ms-excel"),
    ),
    "image": ("image/jpeg", "image/png"),
    "sticker": ("image/webp",),
    "video": ("video/mp4", "video/3gpp"),
}
ACCEPTED_TYPES: Final[Mapping[str, str]] = {mime_type: kind for kind, types in _TYPES.items() for mime_type in types}
_PACIFIC: Final = timezone(timedelta(hours=-8), "PST")  # Meta's dates are in Pacific time
# Errors by name: the message, and the fields of `GraphError` that differ from its defaults.
_ERRORS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    # As quoted in public; no raw response was published.
    "too_large": (
        "(#100) Invalid parameter",
        {"error_user_title": "File Too Large", "error_user_msg": "The file you uploaded is too large"},
    ),
    # Unknown, expired, deleted or of another account: Meta does not say which. Recorded for other objects.
    "gone": (
        (
            "Unsupported {verb} request. Object with ID '{id}' does not exist, cannot be loaded due to missing permissions, or"
            " does not support this operation. Please read the Graph API documentation at"
            " https://developers.facebook.com/docs/graph-api"
        ),
        {"kind": "GraphMethodException", "error_subcode": 33},
    ),
    # Recorded.
    "unknown_path": ("Unknown path components: {path}", {"code": 2500}),
    "no_user": (  # on /me without a token
        "An active access token must be used to query information about the current user.",
        {"code": 2500},
    ),
    "unknown_token": ("Invalid OAuth access token - Cannot parse access token", {"code": 190, "status": 401}),
    "expired_token": (
        "Error validating access token: Session has expired on {expired}. The current time is {now}.",
        {"code": 190, "status": 401, "error_subcode": 463},
    ),
    "missing_proof": (
        "API calls from the server require an appsecret_proof argument",
        {"kind": "GraphMethodException"},
    ),
    "wrong_proof": ("Invalid appsecret_proof provided in the API argument", {"kind": "GraphMethodException"}),
    "required": ("(#100) The parameter {parameter} is required.", {}),
    "unknown_attachment": (
        "(#100) Param {place}['id'] is not a valid whatsapp business account media attachment ID",
        {},
    ),
    "unexpected": ('(#100) Unexpected key "{key}" on param "{place}".', {}),
    "refused_type": (
        "(#100) Param file must be a file with one of the following types: {types}. Received file of type '{mime_type}'.",
        {},
    ),
    # Documented.
    "no_token": ("An access token is required to request this resource", {"code": 104, "status": 401}),
    "broken": ("An unknown error occurred", {"code": 1, "status": 500, "is_transient": True}),  # "try again"
    # The Graph API's usual pattern for a parameter of the wrong kind.
    "invalid": ("(#100) Param {problem}", {}),
}
# The titles of Meta's table of error codes, and the details where a response is documented.
_THROTTLES: Final[Mapping[int, tuple[str, ...]]] = {
    4: ("API Too Many Calls",),
    613: ("Calls to this api have exceeded the rate limit.",),
    80007: ("Rate limit issues",),
    80008: ("There have been too many calls to this WhatsApp Business account.",),
    130429: ("Rate limit hit", "Cloud API message throughput has been reached."),
    131056: ("(Business Account, Consumer Account) pair rate limit hit",),
}


class PlainError(Exception):
    """An error that is not in the Graph API's envelope, but a whole response."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"HTTP {response.status_code}")
        self.response = response


class GraphError(Exception):
    """An error in the Graph API's envelope: its HTTP status, its object `error`, and its headers beside the usual ones."""

    def __init__(
        self,
        message: str,
        *,
        code: int = 100,
        status: int = 400,
        kind: str = "OAuthException",
        headers: Mapping[str, str] | None = None,
        **more: object,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error: dict[str, Any] = {"message": message, "type": kind, "code": code, **more}
        self.headers = dict(headers or {})

    @classmethod
    def of(cls, name: str, **texts: object) -> GraphError:
        """Make an error of the table above; `texts` are the values that its message has places for."""
        message, fields = _ERRORS[name]
        return cls(message.format(**texts), **fields)

    @classmethod
    def forbidden(cls, code: int) -> GraphError:
        """Make the error of a token without permissions."""
        # The first is recorded on other products of Meta's, the second is documented with code 200.
        texts = {10: "(#10) Application does not have permission for this action"}
        return cls(texts.get(code, "This operation requires additional permissions"), code=code, status=403)

    @classmethod
    def expired(cls, expired_at: float, now: float) -> GraphError:
        """Make the error of an expired token."""
        dates = (datetime.fromtimestamp(seconds, _PACIFIC) for seconds in (expired_at, now))
        expired, current = (date.strftime("%A, %d-%b-%y %H:%M:%S %Z") for date in dates)
        return cls.of("expired_token", expired=expired, now=current)

    @classmethod
    def throttled(
        cls, status: int, retry_after: float | str | None, *, code: int = 130429, usage_minutes: int | None = None
    ) -> GraphError:
        """Make a throttled request's error. It is documented, except for `Retry-After`: there is no sample of one."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        if usage_minutes is not None:
            # Percentages and minutes (Graph API, "Rate limits"), by the id of a business account.
            usage = {"type": "whatsapp", "call_count": 100, "total_cputime": 100, "total_time": 100}
            usage |= {"estimated_time_to_regain_access": usage_minutes}
            headers["X-Business-Use-Case-Usage"] = json.dumps({BUSINESS_ACCOUNT_ID: [usage]}, separators=(",", ":"))
        text, *details = _THROTTLES.get(code, ("Too many calls",))
        error = cls(f"(#{code}) {text}", code=code, status=status, headers=headers)
        if details:
            error.error["error_data"] = {"messaging_product": "whatsapp", "details": details[0]}
        return error

    @classmethod
    def message(cls, code: int, title: str, details: str) -> GraphError:
        """Make a documented error about messages, with the reason in `error_data`."""
        data = {"messaging_product": "whatsapp", "details": details}
        return cls(f"(#{code}) {title}", code=code, error_data=data)


class GraphResponse(Response):
    """A JSON response of the Graph API, error or not, with its headers."""

    media_type = "application/json; charset=UTF-8"

    def __init__(self, content: Mapping[str, Any] | GraphError, version: str | None = None) -> None:
        trace = _trace_id()
        headers = {
            "x-fb-trace-id": trace,
            "x-fb-request-id": trace,
            "x-fb-rev": "1030000000",
            "x-fb-debug": secrets.token_urlsafe(32),
            "cache-control": "private, no-cache, no-store, must-revalidate",
        }
        if version:
            headers["facebook-api-version"] = version
        if isinstance(content, GraphError):
            body: Mapping[str, Any] = {"error": content.error | {"fbtrace_id": trace}}
            super().__init__(graph_json(body), content.status, headers | content.headers)
        else:
            super().__init__(graph_json(content), 200, headers)


def graph_json(value: object) -> bytes:
    """Encode JSON as Meta does: ASCII only, and with every slash escaped."""
    return json.dumps(value, separators=(",", ":")).replace("/", "\\/").encode()


def problem(status: int, title: str) -> Response:
    """Return the problem document that the download host sends as an error. Recorded for 401."""
    body = json.dumps({"title": title, "detail": title, "status": status}, separators=(",", ":"))
    return Response(body, status, {"x-fb-trace-id": _trace_id()}, "application/json")


def _trace_id() -> str:
    return "A" + secrets.token_urlsafe(16)
