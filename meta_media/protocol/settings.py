"""`Settings`: everything that can be configured, with units, defaults and their sources."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import attrs
from attrs.validators import in_, optional

from meta_media.errors import ConfigurationError
from meta_media.protocol import validators
from meta_media.protocol.secrets import Secret, shown
from meta_media.protocol.validators import flag, matched, must_be, not_negative, positive

__all__ = ["Settings"]

_BASE_URL = re.compile(r"(https?)://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/?")
_HOST = re.compile(r"\.?[a-z0-9-]+(\.[a-z0-9-]+)*(:[0-9]{1,5})?|\[[0-9a-f:.]+\](:[0-9]{1,5})?")
_VERSION = re.compile(r"v?([0-9]{1,3})(\.[0-9]{1,2})?")
_KEY: Final = re.compile(r"[!-~]+")  # what a header can carry
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_DEFAULT_VERSION: Final = "v25.0"  # the version that Meta's own Media guide uses; served until 29 July 2028


def _base_url(value: object) -> str:
    if isinstance(value, str) and "://" not in value:
        value = f"https://{value}"  # Meta's Node SDK documents WA_BASE_URL=graph.facebook.com, a bare host
    sentence = f"base_url must be a scheme, host and port, such as https://graph.facebook.com, not {shown(value)}"
    scheme, host, port = matched(_BASE_URL, value, sentence).groups()
    if scheme == "http" and host.lower() not in _LOOPBACK:
        raise ConfigurationError(f"base_url must be https: over http the token would be sent to {host} in plain text")
    if port and int(port[1:]) > 65535:
        raise ConfigurationError(f"base_url must have a port of at most 65535, not {port[1:]}")
    return f"{scheme}://{host.lower()}{port or ''}"


def _api_version(value: object) -> str:
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    match = matched(_VERSION, text, f"api_version must look like v25.0, 25.0 or 25, not {shown(value)}")
    return f"v{match[1]}{match[2] or '.0'}"


def _host(value: object) -> str:
    host = value.lower() if isinstance(value, str) else value
    sentence = f"a trusted host must be a name with an optional port, such as example.com:8443, not {shown(value)}"
    return matched(_HOST, host, sentence)[0].removesuffix(":443")


def _hosts(value: str | Iterable[str]) -> tuple[str, ...]:
    try:
        return tuple(_host(host) for host in ((value,) if isinstance(value, str) else value))
    except TypeError as error:
        raise ConfigurationError(f"trusted hosts must be a list of names, not {shown(value)}") from error


def _exact_hosts(_: Settings, attribute: attrs.Attribute[tuple[str, ...]], hosts: tuple[str, ...]) -> None:
    for host in hosts:
        if host.startswith("."):
            raise ConfigurationError(f"{attribute.name} must be exact hosts, not the suffix {host!r}")


def _secret(value: object) -> Any:
    """Return text or bytes as text that is not shown, without white space around it. The validator refuses the rest."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    return Secret(text.strip()) if isinstance(text, str) else text


def _text(_: Settings, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(f"{attribute.name} must be a str, not {type(value).__name__}")


def _key(_: Settings, attribute: attrs.Attribute[Any], value: object) -> None:
    matched(_KEY, value, f"{attribute.name} must be the key of 360dialog, a str without white space: copy it again")


def _environment(variable: str, default: str | None) -> Any:
    return attrs.Factory(lambda: os.environ.get(variable) or default)


@attrs.frozen(kw_only=True)
class Settings:
    """
    How a `MediaApi` talks to Meta. A field that names an environment variable takes its default from there.

    Attributes:
        base_url: Scheme, host and port of the Graph API. http is allowed for this machine only. Default: `WA_BASE_URL`, or
            `https://graph.facebook.com`.
        api_version: Version of the Graph API: `25`, `"v25"` or `"25.0"`. Default: `CLOUD_API_VERSION`, or `v25.0`, the
            version in Meta's Media guide.
        business_account_id: Id of the WhatsApp Business Account (WABA). Copies with the same id pause together when Meta
            limits the account; without one, those with the same token do. Default: `WA_BUSINESS_ACCOUNT_ID`, or None.
        app_id: Id of your Meta app, for `upload_handle`. Default: `WA_APP_ID`, or None.
        app_secret: Secret of your Meta app, for `verify_signature` and `appsecret_proof`, as text or bytes; never shown nor
            pickled. Default: `WA_APP_SECRET`, or None.
        appsecret_proof: How Graph requests prove that they know `app_secret`, where that is set. `"timed"` is a signature
            that is valid for five minutes (Meta's page "Login security"), `"classic"` one without a time, None no proof.
            Default: `"timed"`.
        api_key: API key of 360dialog, see `for_360dialog`; never shown nor pickled. Default: None, requests go to Meta.
        token_hosts: Exact hosts that receive the token over https; the host of `base_url` always does. Default:
            `lookaside.fbsbx.com`, the host of Meta's media URLs.
        media_hosts: Hosts that serve bytes and never receive the token; a leading dot includes all subdomains. Default:
            `.fbcdn.net` and `.whatsapp.net`, Meta's content delivery networks.
        connect_timeout: Seconds to connect, TLS included. Default: 10.
        read_timeout: Seconds without a byte of a body from Meta, and for a response's headers in all. Default: 30.
        write_timeout: Seconds to send one piece of at most `chunk_size` bytes. Default: 30.
        minimum_rate: Bytes per second. A transfer is given up when it is slower, on average over one timeout; 0 allows any
            rate. Default: 1024.
        deadline: Seconds for all requests of a call together. Waits for a connection slot and for the reader of a stream do
            not count. It is also the limit of each single wait for a file or handle; without it, that is 60 for work on a
            path, and none for a handle, which may be a pipe. Default: for each request and each response the three timeouts,
            and for media its size at `minimum_rate`; what one of them leaves of its time is not given to the next.
        proxy: URL of an HTTP proxy for all https requests, `http://user:password@host:port`; never shown nor pickled.
            Default: the variable `HTTPS_PROXY` or `ALL_PROXY`, except for the hosts in `NO_PROXY`.
        max_retries: Retries of a request, or of a download's transfer. Default: 2.
        backoff: Longest wait before the first retry, in seconds. It doubles for each further retry, up to 8; each wait is a
            random part of it. A `Retry-After` of up to a minute is added; a longer one raises the error at once. Default: 0.5.
        uploads_per_second: Uploads per second and phone number, evenly spaced. Default: None, no limit.
            360dialog allows 25.
        info_errors_per_hour: Failed lookups of media ids per hour and phone number. At this number, `get_info` raises
            `RateLimitError` without a request. Default: None, no limit. 360dialog blocks a number for half an hour at 20.
        concurrency: Connections to the Graph API, and as many again to the download hosts; further calls wait. Their transfers
            share `memory`. Default: 16.
        chunk_size: Bytes that are read, sent or written at a time, at most; half of it while more than 8 transfers are under
            way. Default: 1 MiB.
        memory: Bytes that all transfers of a `MediaApi` and its copies hold together. A transfer holds up to four chunks,
            and up to 160 KiB beside them. So a chunk has at most `memory / transfers / 4 - 40 KiB`, but never less than
            16 KiB. By default this is 512 KiB for 9 to 118 transfers under way, and 25 KiB for 1,000. Sources that are in
            memory already, and what `read` returns, are not counted. Default: 256 MiB.
        max_download_size: Bytes; a larger download is refused. Default: 100 MiB, Meta's own maximum.
        fsync: Whether a download to a path is flushed before its file appears, to survive a power cut. Default: False.
        validate: Whether `upload` checks type and size before it sends. Default: True.
        str_paths: Whether a `str` is taken for a path, as a source and as a destination. False refuses it, so that text from
            the network never names a file: pass `pathlib.Path`. Default: True.
        user_agent_suffix: Text appended to the User-Agent header. Default: empty.

    Raises:
        ConfigurationError: A value is invalid.
    """

    base_url: str = attrs.field(default=_environment("WA_BASE_URL", "https://graph.facebook.com"), converter=_base_url)
    api_version: str = attrs.field(default=_environment("CLOUD_API_VERSION", _DEFAULT_VERSION), converter=_api_version)
    business_account_id: str | None = attrs.field(
        default=_environment("WA_BUSINESS_ACCOUNT_ID", None), validator=optional(validators.identifier)
    )
    app_id: str | None = attrs.field(default=_environment("WA_APP_ID", None), validator=optional(validators.identifier))
    app_secret: str | None = attrs.field(
        default=_environment("WA_APP_SECRET", None), converter=_secret, validator=_text, repr=False
    )
    appsecret_proof: Literal["timed", "classic"] | None = attrs.field(
        default="timed", validator=must_be('"timed", "classic" or None', in_(("timed", "classic", None)))
    )
    api_key: str | None = attrs.field(default=None, converter=_secret, validator=optional(_key), repr=False)
    token_hosts: tuple[str, ...] = attrs.field(
        default=("lookaside.fbsbx.com",), converter=_hosts, validator=_exact_hosts
    )
    media_hosts: tuple[str, ...] = attrs.field(default=(".fbcdn.net", ".whatsapp.net"), converter=_hosts)
    connect_timeout: float = attrs.field(default=10.0, validator=positive)
    read_timeout: float = attrs.field(default=30.0, validator=positive)
    write_timeout: float = attrs.field(default=30.0, validator=positive)
    minimum_rate: float = attrs.field(default=1024.0, validator=not_negative)
    deadline: float | None = attrs.field(default=None, validator=optional(positive))
    proxy: str | None = attrs.field(default=None, converter=_secret, validator=_text, repr=False)
    max_retries: int = attrs.field(default=2, validator=validators.whole)
    backoff: float = attrs.field(default=0.5, validator=not_negative)
    uploads_per_second: float | None = attrs.field(default=None, validator=optional(positive))
    info_errors_per_hour: int | None = attrs.field(default=None, validator=optional(validators.count))
    concurrency: int = attrs.field(default=16, validator=validators.count)
    chunk_size: int = attrs.field(default=2**20, validator=validators.count)
    memory: int = attrs.field(default=256 * 2**20, validator=validators.count)
    max_download_size: int = attrs.field(default=100 * 2**20, validator=validators.count)
    fsync: bool = attrs.field(default=False, validator=flag)
    validate: bool = attrs.field(default=True, validator=flag)
    str_paths: bool = attrs.field(default=True, validator=flag)
    user_agent_suffix: str = attrs.field(default="", validator=validators.header_text)

    @classmethod
    def for_360dialog(cls, *, api_key: str, **changes: Any) -> Settings:
        """
        Return the settings for a number that 360dialog hosts: `MediaApi(settings=Settings.for_360dialog(api_key=…))`.

        The key takes the place of the access token and of the phone number id. It is sent as `D360-API-KEY`, to `base_url`
        alone. Paths have neither version nor number, and media URLs of Meta's host are fetched from `base_url`. Uploads keep
        to 24 a second, of the 25 that are allowed, and lookups stop after 20 errors in an hour. `upload_handle` is not
        served. Source: 360dialog's page "Upload, retrieve or delete media".

        Args:
            api_key: The number's API key.
            **changes: Other fields, such as `base_url="https://waba-sandbox.360dialog.io"`.

        Raises:
            ConfigurationError: A value is invalid.
        """
        fields: dict[str, Any] = {
            "base_url": "https://waba-v2.360dialog.io",
            "token_hosts": (),
            "appsecret_proof": None,  # which Meta checks with the token that 360dialog has
            "uploads_per_second": 24,  # of 25: one request may be late, and the next not
            "info_errors_per_hour": 20,
        }
        return cls(api_key=api_key or "", **fields | changes)

    def changed(self, changes: Mapping[str, Any]) -> Settings:
        """Return a copy with some fields changed. An unknown name raises `ConfigurationError`."""
        known = {field.name for field in attrs.fields(Settings)}
        if unknown := sorted(set(changes) - known):
            raise ConfigurationError(f"there is no setting named {', '.join(unknown)[:80]}: see help(Settings)")
        return attrs.evolve(self, **changes)
