"""Requests to Meta: URLs, headers, the hosts that may receive the token, and the body of a message."""

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
from attrs.validators import optional

from meta_media._version import __version__
from meta_media.errors import ConfigurationError, Operation, ServerError, UntrustedUrlError
from meta_media.protocol.media_types import stated_type
from meta_media.protocol.recipient import Recipient
from meta_media.protocol.secrets import Secret, hide_query, shown
from meta_media.protocol.settings import Settings
from meta_media.protocol.validators import flag, mapping, text

__all__ = [
    "MediaMessage",
    "Request",
    "common_headers",
    "credential",
    "graph_request",
    "media_request",
    "redirected_request",
    "with_proof",
]

_USER_AGENT: Final = f"meta-media/{__version__} python/{platform.python_version()}"

# A strict subset of RFC 3986 in which all parsers find the same host: no userinfo, backslash, white space or non-ASCII.
_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9]+(?:[.-]+[A-Za-z0-9]+)*|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?:[/?][A-Za-z0-9._~:/?\[\]@!$&'()*+,;=%{}|^-]*)?"
)
_PORTS: Final = {"https": "443", "http": "80"}
_META_MEDIA: Final = "https://lookaside.fbsbx.com/"  # how media URLs begin

_MAX_CAPTION_LENGTH: Final = 1024  # characters; Meta's pages "Image messages", "Video messages", "Document messages"
_VOICE_TYPE: Final = "audio/ogg"  # Meta's page "Audio messages"
_FIELDS: Final[dict[str, frozenset[str]]] = {  # of Meta's message objects, beside the id
    "audio": frozenset({"voice"}),
    "document": frozenset({"caption", "filename"}),
    "image": frozenset({"caption"}),
    "sticker": frozenset(),
    "video": frozenset({"caption"}),
}


@attrs.define(kw_only=True)  # never changed; a frozen one takes twice the time to make
class Request:
    """A request without its body and token."""

    operation: Operation  # the public verb that it is part of
    method: str
    url: str = attrs.field(repr=hide_query)
    bearer: bool = True  # whether its host may receive the token
    auth_scheme: str = "Bearer"  # of its Authorization header
    graph: bool = False  # whether it goes to the Graph API, which takes `appsecret_proof`
    headers: Mapping[str, str] = attrs.field(factory=dict)  # beside Host, `common_headers` and Authorization
    media_id: str | None = None


def graph_request(
    operation: Operation,
    method: str,
    settings: Settings,
    *path: str,
    media_id: str | None = None,
    headers: Mapping[str, str] | None = None,
    **query: str | None,
) -> Request:
    """
    Build a request to the Graph API. Parameters of the query that are None or empty are left out.

    The parts of `path` must have passed `validators.checked_id`, or be the id of an `UploadSession`, which has a query.
    """
    if settings.api_key is not None:
        return _provider_request(operation, method, settings, path[-1], headers or {}, media_id)
    url = "/".join((settings.base_url, settings.api_version, *path))
    if given := {name: value for name, value in query.items() if value}:
        url = f"{url}?{urlencode(given)}"
    return Request(operation=operation, method=method, url=url, graph=True, headers=headers or {}, media_id=media_id)


def _provider_request(
    operation: Operation, method: str, settings: Settings, last: str, headers: Mapping[str, str], media_id: str | None
) -> Request:
    """Build a request to 360dialog, which knows the number by the key: paths have their last part alone."""
    if operation == "upload_handle":
        raise ConfigurationError(
            "360dialog serves no upload_handle: call it on a MediaApi with an access token of Meta's"
        )
    url = f"{settings.base_url}/{last}"
    return Request(operation=operation, method=method, url=url, graph=True, headers=headers, media_id=media_id)


def credential(request: Request, token: str, settings: Settings) -> tuple[str, Secret]:
    """Return the header that has the token."""
    if settings.api_key is not None:
        return "D360-API-KEY", Secret(token)
    return "Authorization", Secret(f"{request.auth_scheme} {token}")


def with_proof(request: Request, token: str, settings: Settings) -> Request:
    """
    Add `appsecret_proof` to a request to the Graph API, if there is an app secret.

    Meta's page "Login security" defines the timed form, which is valid for five minutes. The classic form has no time.
    """
    if not (request.graph and settings.app_secret and settings.appsecret_proof):
        return request
    proof = {"appsecret_time": str(int(time.time()))} if settings.appsecret_proof == "timed" else {}
    signed = "|".join((token, *proof.values()))
    proof["appsecret_proof"] = hmac.new(settings.app_secret.encode(), signed.encode(), hashlib.sha256).hexdigest()
    return attrs.evolve(request, url=f"{request.url}{'&' if '?' in request.url else '?'}{urlencode(proof)}")


def redirected_request(request: Request, status: int, location: str, settings: Settings) -> Request:
    """
    Build the request to a redirect's target, under the rules of `media_request`.

    A request that is not a GET raises `ServerError`: it could change something at a place that the response chooses.
    """
    try:
        url = Secret(urljoin(request.url, location))
    except ValueError:
        url = Secret(location)  # not a URL, so `media_request` refuses it
    target = media_request(url, settings, media_id=request.media_id)
    if request.method != "GET":
        raise ServerError(f"Meta redirected a request to {request.operation}, which is not followed", status=status)
    return attrs.evolve(target, operation=request.operation, headers=request.headers)


def _at_most(instance: object, attribute: attrs.Attribute[Any], value: str) -> None:
    if len(value) > _MAX_CAPTION_LENGTH:
        sentence = f"a caption must have at most {_MAX_CAPTION_LENGTH} characters, not {len(value)}"
        raise ConfigurationError(sentence)


@attrs.frozen(kw_only=True)
class MediaMessage:
    """A message with media. Its arguments are checked at once, except for what depends on the kind."""

    to: Recipient
    media_id: str
    caption: str | None = attrs.field(default=None, validator=optional([text, _at_most]))
    filename: str | None = attrs.field(default=None, validator=optional(text))
    voice: bool | None = attrs.field(default=None, validator=optional(flag))
    reply_to: str | None = attrs.field(default=None, validator=optional(text))
    extra: Mapping[str, Any] | None = attrs.field(default=None, validator=optional(mapping))

    def body(self, kind: str, mime_type: str | None = None) -> bytes:
        """Write the JSON of `POST /messages` for media of a type, if that is known. Fields that are None are left out."""
        if kind not in tuple(_FIELDS):  # a tuple, because any value may be looked for in one
            raise ConfigurationError(f"kind must be one of {', '.join(_FIELDS)}, not {shown(kind)}")
        given = {name: getattr(self, name) for name in ("caption", "filename", "voice")}
        given = {name: value for name, value in given.items() if value is not None}
        if unfit := sorted(given.keys() - _FIELDS[kind]):
            kinds = " or ".join(f'"{other}"' for other, names in _FIELDS.items() if unfit[0] in names)
            raise ConfigurationError(f'{unfit[0]} is for kind={kinds} only, not for "{kind}"')
        if self.voice and (stated := stated_type(mime_type)) not in {None, _VOICE_TYPE}:
            raise ConfigurationError(
                f"voice is for Opus in Ogg only, not for {stated}: leave it out, or convert the file"
            )
        own: dict[str, Any] = {
            "messaging_product": "whatsapp",
            "recipient_type": "group" if self.to.kind == "group" else "individual",
            "recipient" if self.to.kind == "user" else "to": self.to.id,
            "type": kind,
            kind: {"id": self.media_id, **given},
        }
        if self.reply_to is not None:
            own["context"] = {"message_id": self.reply_to}
        extra = dict(self.extra or {})
        if replaced := sorted(extra.keys() & (own.keys() | {"to", "recipient"})):  # of two addresses, Meta takes `to`
            raise ConfigurationError(f"extra must not have {replaced[0]!r}, which send itself writes: leave it out")
        try:
            return json.dumps(own | extra, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigurationError(f"extra must have JSON values only: {error}") from error


def media_request(
    url: object, settings: Settings, *, media_id: str | None = None, start: int = 0, end: int | None = None
) -> Request:
    """
    Build the request for the bytes of a media URL, from the offset `start` to the exclusive `end` (RFC 9110, 14.2).

    The URL is not trusted: it may come from a webhook or a redirect. One that is not https, or whose host is neither in
    `token_hosts` nor in `media_hosts`, raises `UntrustedUrlError`.
    """
    if settings.api_key is not None and isinstance(url, str) and url.startswith(_META_MEDIA):
        url = Secret(settings.base_url + url[len(_META_MEDIA) - 1 :])  # the same path and query, to 360dialog's host
    match = _URL.fullmatch(url) if isinstance(url, str) else None
    if match is None:
        raise UntrustedUrlError("the media URL is not a plain https URL, so it was not opened")
    base = _URL.fullmatch(settings.base_url)
    is_base = base is not None and _origin(base) == _origin(match)
    scheme, host, port, plain = match["scheme"], match["host"].lower(), match["port"], Secret(match[0])
    del match  # its repr, which a traceback may show, has the first characters of the URL
    address = host if port in {None, "443"} else f"{host}:{port}"
    bearer = is_base or (scheme == "https" and address in settings.token_hosts)
    if not bearer and (scheme != "https" or not _is_listed(address, settings.media_hosts)):
        place = host if port is None else f"{host}:{port}"
        cure = (
            "if it should be, add it to Settings.media_hosts (or to token_hosts, if it needs the token)"
            if scheme == "https"
            else "it is not https, which only Settings.base_url on this machine may lack"
        )
        raise UntrustedUrlError(f"{scheme}://{place} is not trusted to serve media: {cure}", host=place)
    asked = f"bytes={start}-{'' if end is None else end - 1}"
    headers = {} if asked == "bytes=0-" else {"Range": asked}
    return Request(operation="download", method="GET", url=plain, bearer=bearer, headers=headers, media_id=media_id)


def _origin(url: re.Match[str]) -> tuple[str, str, str]:
    return url["scheme"], url["host"].lower(), url["port"] or _PORTS[url["scheme"]]


def _is_listed(address: str, hosts: tuple[str, ...]) -> bool:
    return any(address == host or (host.startswith(".") and address.endswith(host)) for host in hosts)


def common_headers(settings: Settings) -> dict[str, str]:
    """Return the headers that every request has."""
    suffix = settings.user_agent_suffix
    return {
        "User-Agent": f"{_USER_AGENT} {suffix}".rstrip() if suffix else _USER_AGENT,
        "Accept": "*/*",
        "Accept-Encoding": "identity",  # sizes and hashes are of the stored bytes; and no decompression bombs
    }
