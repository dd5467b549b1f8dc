"""Everything that can be set, in one frozen object, with its unit, its default and where the default comes from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import attrs

from meta_media.errors import ConfigurationError
from meta_media.protocol.validators import count, header_text, matched, not_negative, positive, proof, shown, whole

__all__ = ["Settings"]

_BASE_URL = re.compile(r"(https?)://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/?")
_HOST = re.compile(r"\.?[a-z0-9-]+(\.[a-z0-9-]+)*(:[0-9]{1,5})?|\[[0-9a-f:.]+\](:[0-9]{1,5})?")
_VERSION = re.compile(r"v?([0-9]{1,3})(\.[0-9]{1,2})?")
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_DEFAULT_VERSION: Final = "v25.0"  # the version that Meta's own Media guide uses; served until 29 July 2028


def _base_url(value: object) -> str:
    if isinstance(value, str) and "://" not in value:
        value = f"https://{value}"  # Meta's Node SDK documents WA_BASE_URL=graph.facebook.com, a bare host
    sentence = f"base_url must be a scheme, host and port such as https://graph.facebook.com, not {shown(value)}"
    scheme, host, port = matched(_BASE_URL, value, sentence).groups()
    if scheme == "http" and host.lower() not in _LOOPBACK:
        raise ConfigurationError(f"base_url must be https, because {host} is not this machine and would see the token")
    if port and int(port[1:]) > 65535:
        raise ConfigurationError(f"base_url has a port above 65535: {port[1:]}")
    return f"{scheme}://{host.lower()}{port or ''}"


def _api_version(value: object) -> str:
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    match = matched(_VERSION, text, f"api_version must look like v25.0, 25.0 or 25, not {value!r}")
    return f"v{match[1]}{match[2] or '.0'}"


def _host(value: object) -> str:
    host = value.lower() if isinstance(value, str) else value
    sentence = f"a trusted host is a name with an optional port, such as example.com:8443, not {value!r}"
    return matched(_HOST, host, sentence)[0].removesuffix(":443")


def _hosts(value: str | Iterable[str]) -> tuple[str, ...]:
    try:
        return tuple(_host(host) for host in ((value,) if isinstance(value, str) else value))
    except TypeError as error:
        raise ConfigurationError(f"trusted hosts are a list of names, not {value!r}") from error


def _exact_hosts(_: Settings, attribute: attrs.Attribute[tuple[str, ...]], hosts: tuple[str, ...]) -> None:
    for host in hosts:
        if host.startswith("."):
            raise ConfigurationError(f"{attribute.name} takes exact hosts only, not the suffix {host!r}")


def _environment(variable: str, default: str | None) -> Any:
    return attrs.Factory(lambda: os.environ.get(variable) or default)


@attrs.frozen(kw_only=True)
class Settings:
    """
    How a `MediaApi` talks to Meta. What is not passed comes from the environment where a variable is named.

    Attributes:
        base_url: Scheme, host and port of the Graph API; http only to this machine. `WA_BASE_URL`, else
            `https://graph.facebook.com`.
        api_version: Accepts `25`, `"v25"`, `"25.0"`. `CLOUD_API_VERSION`, else `v25.0`, as in Meta's Media guide.
        business_account_id: The WhatsApp Business Account (WABA). `WA_BUSINESS_ACCOUNT_ID`.
        app_secret: Of your Meta app, for `verify_signature`, and for `appsecret_proof`. `WA_APP_SECRET`. Never shown.
        appsecret_proof: How Graph requests prove that they know `app_secret`, if that is set: `"timed"`, by a signature that
            holds for five minutes, as Meta's page "Login security" has it; `"classic"`, without a time; None for not at all.
        token_hosts: Exact hosts, beside that of `base_url`, that may receive the token over https. Default: the host
            of every media URL Meta hands out.
        media_hosts: Hosts that may serve bytes but never see the token; a leading dot admits sub-domains. Default:
            Meta's content delivery networks.
        connect_timeout: Seconds to connect, TLS included. Default 10.
        read_timeout: Seconds without a byte from Meta. Default 30.
        write_timeout: Seconds that one piece of at most `chunk_size` bytes may take to leave. Default 30.
        minimum_rate: Bytes per second below which a transfer is given up, on average over such a wait; 0 for any rate that
            is not idle. Default 1024.
        deadline: Seconds that all requests of a call may take together; not counted are waits for a connection's turn,
            and what the caller does with a stream's chunks. Default: what these waits allow for each request and reply,
            and for their bytes at `minimum_rate`.
        proxy: URL (`http://user:password@host:port`) of a proxy for everything over https. Default: the environment's
            `HTTPS_PROXY`, else `ALL_PROXY`, except for the hosts in `NO_PROXY`. Never shown.
        max_retries: How often a request, or a download's transfer, is tried again at most. Default 2.
        backoff: Seconds that the first retry waits at most; twice that the second, and so on up to 8, of which each waits a
            random part. Default 0.5. What Meta asks for (`Retry-After`) is obeyed up to a minute; if it is more, the error
            is raised at once.
        uploads_per_second: Uploads that one phone number starts per second at most, after as many at once. Default: any;
            360dialog allows 25.
        info_errors_per_hour: Refused lookups of media ids, per phone number and hour, from which on lookups are refused here
            instead (`RateLimitError`, nothing is sent). Default: any; 360dialog blocks those with 20 for half an hour.
        concurrency: Connections at most; further calls wait for one. Default 16.
        chunk_size: Bytes read, sent and written at a time. Default 1 MiB.
        max_download_size: Bytes above which a download is refused. Default 100 MiB, Meta's own ceiling.
        fsync: Whether a download to a path waits for the disk before it appears, so that it also survives a power cut.
            Default false.
        validate: Whether `upload` checks type and size before it sends. Default true.
        user_agent_suffix: Added to the one User-Agent header that is always sent.

    Raises:
        ConfigurationError: A value cannot work.
    """

    base_url: str = attrs.field(default=_environment("WA_BASE_URL", "https://graph.facebook.com"), converter=_base_url)
    api_version: str = attrs.field(default=_environment("CLOUD_API_VERSION", _DEFAULT_VERSION), converter=_api_version)
    business_account_id: str | None = attrs.field(default=_environment("WA_BUSINESS_ACCOUNT_ID", None))
    app_secret: str | None = attrs.field(default=_environment("WA_APP_SECRET", None), repr=False)
    appsecret_proof: Literal["timed", "classic"] | None = attrs.field(default="timed", validator=proof)
    token_hosts: tuple[str, ...] = attrs.field(
        default=("lookaside.fbsbx.com",), converter=_hosts, validator=_exact_hosts
    )
    media_hosts: tuple[str, ...] = attrs.field(default=(".fbcdn.net", ".whatsapp.net"), converter=_hosts)
    connect_timeout: float = attrs.field(default=10.0, validator=positive)
    read_timeout: float = attrs.field(default=30.0, validator=positive)
    write_timeout: float = attrs.field(default=30.0, validator=positive)
    minimum_rate: float = attrs.field(default=1024.0, validator=not_negative)
    deadline: float | None = attrs.field(default=None, validator=attrs.validators.optional(positive))
    proxy: str | None = attrs.field(default=None, repr=False)
    max_retries: int = attrs.field(default=2, validator=whole)
    backoff: float = attrs.field(default=0.5, validator=not_negative)
    uploads_per_second: float | None = attrs.field(default=None, validator=attrs.validators.optional(positive))
    info_errors_per_hour: int | None = attrs.field(default=None, validator=attrs.validators.optional(count))
    concurrency: int = attrs.field(default=16, validator=count)
    chunk_size: int = attrs.field(default=2**20, validator=count)
    max_download_size: int = attrs.field(default=100 * 2**20, validator=count)
    fsync: bool = False
    validate: bool = True
    user_agent_suffix: str = attrs.field(default="", validator=header_text)

    def changed(self, changes: Mapping[str, Any]) -> Settings:
        """Return a copy with some fields changed; an unknown name is a `ConfigurationError`."""
        known = {field.name for field in attrs.fields(Settings)}
        if unknown := sorted(set(changes) - known):
            raise ConfigurationError(f"there is no setting named {', '.join(unknown)}")
        return attrs.evolve(self, **changes)
