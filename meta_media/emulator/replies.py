"""
Everything the emulator refuses, and in which words.

Texts marked *recorded* were seen in real replies and *documented* ones are Meta's own; the others follow the pattern of
their neighbours, because nobody published the real one.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from starlette.responses import Response

__all__ = ["ACCEPTED_TYPES", "GraphError", "GraphResponse", "PlainError", "graph_json", "problem"]

# The types in the order of the recorded refusal text, with their kind. `audio/opus` is in no table of Meta's, yet in the text.
ACCEPTED_TYPES: Final[Mapping[str, str]] = {
    "audio/aac": "audio",
    "audio/mp4": "audio",
    "audio/mpeg": "audio",
    "audio/amr": "audio",
    "audio/ogg": "audio",
    "audio/opus": "audio",
    "application/vnd.ms-powerpoint": "document",
    "application/msword": "document",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "document",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "document",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "document",
    "application/pdf": "document",
    "text/plain": "document",
    "application/vnd.ms-excel": "document",
    "image/jpeg": "image",
    "image/png": "image",
    "image/webp": "sticker",
    "video/mp4": "video",
    "video/3gpp": "video",
}

_PACIFIC: Final = timezone(timedelta(hours=-8), "PST")  # Meta tells the time in California
_OBJECT_GONE: Final = (
    "Unsupported {verb} request. Object with ID '{id}' does not exist, cannot be loaded due to missing permissions, or"
    " does not support this operation. Please read the Graph API documentation at"
    " https://developers.facebook.com/docs/graph-api"
)
# The titles of Meta's table of error codes, and the details where a reply was documented.
_THROTTLES: Final[Mapping[int, tuple[str, ...]]] = {
    4: ("API Too Many Calls",),
    613: ("Calls to this api have exceeded the rate limit.",),
    80007: ("Rate limit issues",),
    80008: ("There have been too many calls to this WhatsApp Business account.",),
    130429: ("Rate limit hit", "Cloud API message throughput has been reached."),
    131056: ("(Business Account, Consumer Account) pair rate limit hit",),
}


class PlainError(Exception):
    """
    A refusal that is not in the Graph API's envelope.

    Attributes:
        response: What to answer.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(f"HTTP {response.status_code}")
        self.response = response


class GraphError(Exception):
    """
    A refusal in the Graph API's envelope.

    Attributes:
        status: HTTP status.
        error: The object under the key `error`, without its `fbtrace_id`.
        headers: Headers beyond the usual ones.
    """

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
    def gone(cls, verb: str, object_id: str) -> GraphError:
        """Unknown, expired, deleted or somebody else's: Meta does not tell which. Recorded, for other objects."""
        text = _OBJECT_GONE.format(verb=verb, id=object_id)
        return cls(text, kind="GraphMethodException", error_subcode=33)

    @classmethod
    def unknown_path(cls, path: str) -> GraphError:
        """Recorded."""
        return cls(f"Unknown path components: {path}", code=2500)

    @classmethod
    def no_token(cls) -> GraphError:
        """Documented, in Meta's OpenAPI file."""
        return cls("An access token is required to request this resource", code=104, status=401)

    @classmethod
    def no_user(cls) -> GraphError:
        """Recorded, on `/me` without a token."""
        return cls("An active access token must be used to query information about the current user.", code=2500)

    @classmethod
    def unknown_token(cls) -> GraphError:
        """Recorded."""
        return cls("Invalid OAuth access token - Cannot parse access token", code=190, status=401)

    @classmethod
    def expired_token(cls, expired_at: float, now: float) -> GraphError:
        """Recorded."""
        text = f"Session has expired on {_date(expired_at)}. The current time is {_date(now)}."
        return cls(f"Error validating access token: {text}", code=190, status=401, error_subcode=463)

    @classmethod
    def forbidden(cls, code: int) -> GraphError:
        """Code 10 recorded on other products of Meta's; 200 documented."""
        if code == 10:
            return cls("(#10) Application does not have permission for this action", code=10, status=403)
        return cls("This operation requires additional permissions", code=code, status=403)

    @classmethod
    def missing_proof(cls) -> GraphError:
        """Recorded."""
        text = "API calls from the server require an appsecret_proof argument"
        return cls(text, kind="GraphMethodException")

    @classmethod
    def wrong_proof(cls) -> GraphError:
        """Recorded."""
        return cls("Invalid appsecret_proof provided in the API argument", kind="GraphMethodException")

    @classmethod
    def throttled(
        cls, status: int, retry_after: float | str | None, *, code: int = 130429, usage_minutes: int | None = None
    ) -> GraphError:
        """Documented, except for `Retry-After`, of which there is no sample."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        if usage_minutes is not None:
            # Percentages and minutes (Graph API, "Rate limits"), by the id of a business account.
            usage = {"type": "whatsapp", "call_count": 100, "total_cputime": 100, "total_time": 100}
            usage |= {"estimated_time_to_regain_access": usage_minutes}
            headers["X-Business-Use-Case-Usage"] = json.dumps({"1020304050607": [usage]}, separators=(",", ":"))
        text, *details = _THROTTLES.get(code, ("Too many calls",))
        error = cls(f"(#{code}) {text}", code=code, status=status, headers=headers)
        if details:
            error.error["error_data"] = {"messaging_product": "whatsapp", "details": details[0]}
        return error

    @classmethod
    def required(cls, parameter: str) -> GraphError:
        """Recorded for `messaging_product`."""
        return cls(f"(#100) The parameter {parameter} is required.")

    @classmethod
    def invalid(cls, problem: str) -> GraphError:
        """A parameter of the wrong kind, in the Graph API's usual pattern."""
        return cls(f"(#100) Param {problem}")

    @classmethod
    def refused_type(cls, mime_type: str) -> GraphError:
        """Recorded in 2025."""
        accepted = ", ".join(ACCEPTED_TYPES)
        text = f"file must be a file with one of the following types: {accepted}. Received file of type '{mime_type}'."
        return cls.invalid(text)

    @classmethod
    def too_large(cls) -> GraphError:
        """As people quote it; no raw reply was published."""
        title, explanation = "File Too Large", "The file you uploaded is too large"
        return cls("(#100) Invalid parameter", error_user_title=title, error_user_msg=explanation)

    @classmethod
    def unknown_attachment(cls, kind: str) -> GraphError:
        """Recorded."""
        return cls.invalid(f"{kind}['id'] is not a valid whatsapp business account media attachment ID")

    @classmethod
    def message(cls, code: int, title: str, details: str) -> GraphError:
        """One of the documented errors about messages, with the reason in `error_data`."""
        data = {"messaging_product": "whatsapp", "details": details}
        return cls(f"(#{code}) {title}", code=code, error_data=data)

    @classmethod
    def broken(cls) -> GraphError:
        """The emulator failed. Documented as code 1 with the advice to try again."""
        return cls("An unknown error occurred", code=1, status=500, is_transient=True)


class GraphResponse(Response):
    """A JSON reply of the Graph API, a refusal or not, with its headers."""

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
    """Write JSON as Meta does: ASCII only, and with every slash escaped."""
    return json.dumps(value, separators=(",", ":")).replace("/", "\\/").encode()


def problem(status: int, title: str) -> Response:
    """The problem document with which the download host refuses. Recorded for 401."""
    body = json.dumps({"title": title, "detail": title, "status": status}, separators=(",", ":"))
    return Response(body, status, {"x-fb-trace-id": _trace_id()}, "application/json")


def _trace_id() -> str:
    return "A" + secrets.token_urlsafe(16)


def _date(unix_seconds: float) -> str:
    return datetime.fromtimestamp(unix_seconds, _PACIFIC).strftime("%A, %d-%b-%y %H:%M:%S %Z")
