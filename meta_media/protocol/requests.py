"""Requests before they are sent: paths, headers, trusted hosts, redirects, messages."""

from __future__ import annotations

import hashlib
import hmac
import json
import platform
import re
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode, urljoin

import attrs

from meta_media._version import __version__
from meta_media.errors import (
    ConfigurationError,
    Operation,
    ServerError,
    UntrustedUrlError,
)
from meta_media.protocol.secrets import Secret, hide_query
from meta_media.protocol.settings import Settings

__all__ = ["Request", "graph_request", "media_request", "message_body", "redirected_request", "with_proof"]


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


def graph_request(
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


def with_proof(request: Request, token: str, settings: Settings) -> Request:
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


def redirected_request(request: Request, status: int, location: str, settings: Settings) -> Request:
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
    following = media_request(url, settings, media_id=request.media_id)
    if request.method != "GET":
        raise ServerError(f"Meta redirected a request to {request.operation}, which is not followed", status=status)
    return attrs.evolve(following, operation=request.operation, headers=request.headers)


def message_body(to: str, media_id: str, kind: str, extras: Mapping[str, Any], reply_to: str | None) -> bytes:
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


def media_request(url: object, settings: Settings, *, media_id: str | None = None, start: int = 0) -> Request:
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
