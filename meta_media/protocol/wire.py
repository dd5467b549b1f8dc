"""Requests before they are sent and replies after they came: every word of Meta's protocol, and no I/O."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import platform
import re
import time
from collections.abc import Mapping
from typing import Any, Final, TypeVar
from urllib.parse import urlencode, urljoin

import attrs

from meta_media._version import __version__
from meta_media.errors import (
    ApiError,
    ConfigurationError,
    MediaError,
    Operation,
    RateLimitError,
    ServerError,
    UntrustedUrlError,
)
from meta_media.protocol.error_codes import from_answer
from meta_media.protocol.models import hide_query, structure
from meta_media.protocol.settings import Secret, Settings

__all__ = [
    "MAX_REPLY",
    "Request",
    "decipher",
    "disposition_filename",
    "fetch",
    "graph",
    "message",
    "proven",
    "redirected",
    "refusal",
]

MAX_REPLY: Final = 2**20  # bytes of JSON; real replies are below 2 KB
_DAY: Final = 86_400.0  # seconds; whoever asks us to wait for longer is mistaken
_USER_AGENT: Final = f"meta-media/{__version__} python/{platform.python_version()}"
# A strict subset of RFC 3986, so that nobody after us can read another host out of it: no userinfo, no backslash, no
# white space, nothing that is not ASCII.
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9]+(?:[.-]+[A-Za-z0-9]+)*|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?:[/?][A-Za-z0-9._~:/?\[\]@!$&'()*+,;=%{}|^-]*)?"
)
_PORTS: Final = {"https": "443", "http": "80"}
_MAX_CAPTION: Final = 1024  # characters; Meta's pages "Image messages", "Video messages", "Document messages"
_EXTRAS: Final[dict[str, frozenset[str]]] = {  # what Meta's message objects take beside the id
    "audio": frozenset({"voice"}),
    "document": frozenset({"caption", "filename"}),
    "image": frozenset({"caption"}),
    "sticker": frozenset(),
    "video": frozenset({"caption"}),
}
T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Request:
    """
    One request, complete but for the token.

    Attributes:
        bearer: Whether it goes to a host that may see the token.
        graph: Whether it is one to the Graph API, which wants `appsecret_proof`.
    """

    operation: Operation
    method: str
    url: str = attrs.field(repr=hide_query)
    bearer: bool = True
    graph: bool = False
    headers: Mapping[str, str] = attrs.field(factory=dict)
    media_id: str | None = None


def graph(
    operation: Operation,
    method: str,
    settings: Settings,
    *path: str,
    phone_number_id: str | None = None,
    media_id: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Request:
    """Build a request to the Graph API; the path's parts have been checked (`settings.checked_id`)."""
    query = f"?{urlencode({'phone_number_id': phone_number_id})}" if phone_number_id else ""
    url = "/".join((settings.base_url, settings.api_version, *path)) + query
    return Request(
        operation=operation,
        method=method,
        url=url,
        media_id=media_id,
        graph=True,
        headers=_headers(settings) | dict(headers or {}),
    )


def proven(request: Request, token: str, settings: Settings) -> Request:
    """
    Add the proof that we know the app's secret, where there is one and the request is one to the Graph API.

    Meta's page "Login security": the timed form is valid for five minutes; the classic one has no time.
    """
    if not (request.graph and settings.app_secret and settings.appsecret_proof):
        return request
    proof = {"appsecret_time": str(int(time.time()))} if settings.appsecret_proof == "timed" else {}
    signed = "|".join((token, *proof.values()))
    proof["appsecret_proof"] = hmac.new(settings.app_secret.encode(), signed.encode(), hashlib.sha256).hexdigest()
    return attrs.evolve(request, url=f"{request.url}{'&' if '?' in request.url else '?'}{urlencode(proof)}")


def redirected(request: Request, status: int, location: str, settings: Settings) -> Request:
    """
    Build the request that a redirect asks for, which is judged like any other media URL.

    Raises:
        UntrustedUrlError: It leads to a host that is not trusted.
        ServerError: The request would change something: such a one is not sent to wherever a reply says.
    """
    try:
        url = Secret(urljoin(request.url, location))
    except ValueError:
        url = Secret(location)  # which is no URL, as will be found
    following = fetch(url, settings, media_id=request.media_id)
    if request.method != "GET":
        raise ServerError(f"Meta redirected a request to {request.operation}, which is not followed", status=status)
    return attrs.evolve(following, operation=request.operation, headers=request.headers)


def message(to: str, media_id: str, kind: str, extras: Mapping[str, Any], reply_to: str | None) -> bytes:
    """
    Write a message that sends media by its id.

    Raises:
        ConfigurationError: An extra that this kind of message does not take.
    """
    if kind not in _EXTRAS:
        raise ConfigurationError(f"kind must be one of {', '.join(_EXTRAS)}, not {kind!r}")
    given = {name: value for name, value in extras.items() if value is not None}
    if unfit := sorted(set(given) - _EXTRAS[kind]):
        raise ConfigurationError(f"a message of kind {kind} takes no {' and no '.join(unfit)}")
    if len(given.get("caption", "")) > _MAX_CAPTION:
        raise ConfigurationError(f"a caption has at most {_MAX_CAPTION} characters, not {len(given['caption'])}")
    body: dict[str, Any] = {"messaging_product": "whatsapp", "recipient_type": "individual", "to": to, "type": kind}
    if reply_to is not None:
        body["context"] = {"message_id": reply_to}
    return json.dumps(body | {kind: {"id": media_id, **given}}).encode()


def fetch(url: object, settings: Settings, *, media_id: str | None = None, start: int = 0) -> Request:
    """
    Build the request for a media URL, which is not to be believed: it may come from a webhook or a redirect.

    Args:
        url: With its signature.
        settings: Whom to trust.
        media_id: What it is the URL of, where known.
        start: Which byte to begin with (RFC 9110, section 14.2).

    Raises:
        UntrustedUrlError: Its host is neither in `token_hosts` nor in `media_hosts`, or it is not https.
    """
    match = _URL.fullmatch(url) if isinstance(url, str) else None
    if match is None:
        raise UntrustedUrlError("the media URL is not a plain https URL, so it was not opened")
    scheme, host, port, plain = match["scheme"], match["host"].lower(), match["port"], Secret(match[0])
    del match  # its repr shows some of the URL
    origin = (scheme, host, port or _PORTS[scheme])
    base = _URL.fullmatch(settings.base_url)
    ours = base is not None and origin == (base["scheme"], base["host"].lower(), base["port"] or _PORTS[base["scheme"]])
    address = host if port in {None, "443"} else f"{host}:{port}"
    bearer = ours or (scheme == "https" and address in settings.token_hosts)
    if not bearer and (scheme != "https" or not _admitted(address, settings.media_hosts)):
        shown = f"{scheme}://{host}{f':{port}' if port else ''}"
        cure = (
            "if it should be, add it to Settings.media_hosts (or to token_hosts, if it needs the token)"
            if scheme == "https"
            else "it is not https, and of others only Settings.base_url is trusted"
        )
        raise UntrustedUrlError(
            f"{shown} is not trusted to serve media; {cure}", host=host if port is None else f"{host}:{port}"
        )
    headers = _headers(settings) | ({"Range": f"bytes={start}-"} if start else {})
    return Request(operation="download", method="GET", url=plain, bearer=bearer, headers=headers, media_id=media_id)


def _admitted(address: str, hosts: tuple[str, ...]) -> bool:
    return any(address == host or (host.startswith(".") and address.endswith(host)) for host in hosts)


def _headers(settings: Settings) -> dict[str, str]:
    return {
        "User-Agent": f"{_USER_AGENT} {settings.user_agent_suffix}".rstrip(),
        "Accept": "*/*",
        "Accept-Encoding": "identity",  # lengths and hashes are of the bytes as stored; and no decompression bombs
    }


def decipher(request: Request, cls: type[T], status: int, headers: Mapping[str, str], body: bytes) -> T:
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
        return refusal(request.operation, status, headers, body)
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


def refusal(operation: Operation, status: int, headers: Mapping[str, str], body: bytes) -> MediaError:
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
    refused = from_answer(operation, answer, words=words, transient=facts.get("is_transient") is True)
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
