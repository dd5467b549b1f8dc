"""A switch for each behaviour of Meta's that is neither documented nor recorded, and the emulator's clock."""

from __future__ import annotations

import math
import time
from typing import Any, Final, Literal

import attrs

from meta_media.emulator.arguments import one_of
from meta_media.errors import ConfigurationError

__all__ = ["Clock", "EmulatorSettings"]

_DAY: Final = 24 * 60 * 60


def _switch(*choices: Any) -> Any:
    def check(_: EmulatorSettings, field: attrs.Attribute[Any], value: object) -> None:
        one_of(field.name, value, choices)

    return attrs.field(default=choices[0], validator=check)


def _not_negative(default: int) -> Any:
    def check(_: EmulatorSettings, field: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, int | float) or value < 0:
            raise ConfigurationError(f"{field.name} must be a number of at least 0, not {value!r:.80}")

    return attrs.field(default=default, validator=check)


@attrs.frozen(kw_only=True)
class EmulatorSettings:
    """
    The emulator's behaviour where Meta's is unknown or varies. The defaults follow the best evidence there is.

    Attributes:
        provider: The API that is emulated: `"meta"`'s own, or that of `"360dialog"`, which takes the access token as its key.
        url_lifetime: Seconds until a download URL expires. Meta: five minutes.
        webhook_url_lifetime: Seconds until the URL in a webhook expires. Recorded: 301 seconds after the message.
        media_lifetime: Seconds that uploaded media is kept. Meta: 30 days.
        inbound_lifetime: Seconds that a customer's media is kept. Meta: 7 days.
        app_secret: Key of webhooks' signatures and of `appsecret_proof`. None: one is made and kept in the data folder.
        require_appsecret_proof: Whether Graph requests without a proof fail. A wrong proof always fails.
        judge_media: Whether a message fails, with code 131053, if an upload by `MediaApi` would refuse its file. Meta looks at
            the bytes when they are sent.
        size_limits: The limit of an upload: `"by_type"`, or only the `"service"`'s 100 MB.
        oversize_reply: The error of a file that is too large: the `"graph"` API's JSON with code 100, or the bare HTTP 413
            of a `"proxy"` in front of it.
        megabyte: Bytes of Meta's MB: 1,048,576 or 1,000,000. KB follows.
        missing_file_text: The error message of a form without a file.
        repeated_delete: The second delete of an id: an `"error"`, as elsewhere in the Graph API, or a `"success"`.
        wrong_number: A `phone_number_id` of another number in the query: an `"error"`, or `"ignore"`d.
        expired_url_status: HTTP status for an expired URL: 404 as in Meta's guide, 403 as on its fbcdn hosts, or another.
        missing_user_agent_status: HTTP status for a download without `User-Agent`. None: it is served.
        range_requests: Whether downloads honour `Range` with 206.
        accept_ranges: Whether downloads have the header `Accept-Ranges: bytes`.
        content_disposition: Whether downloads have a `Content-Disposition` with the name of the upload.
        etag: Whether downloads have an `ETag`, and honour it in `If-Range`.
        require_content_length: Whether an upload without `Content-Length` (chunked) fails with 411.
        throttle_status: HTTP status of a throttled request: 400 in Meta's error table, 429 in its OpenAPI file.
        retry_after: Seconds in the `Retry-After` of a throttled request. None leaves the header out.
        file_size_as_string: Whether `file_size` is a string, as documented, or a number, as recorded.
        remembered: How many requests and messages are kept for tests to look at.

    Raises:
        ConfigurationError: A value is invalid.
    """

    provider: Literal["meta", "360dialog"] = _switch("meta", "360dialog")
    url_lifetime: int = _not_negative(300)
    webhook_url_lifetime: int = _not_negative(301)
    media_lifetime: int = _not_negative(30 * _DAY)
    inbound_lifetime: int = _not_negative(7 * _DAY)
    app_secret: str | None = attrs.field(default=None, repr=False)
    require_appsecret_proof: bool = False
    judge_media: bool = True
    size_limits: Literal["by_type", "service"] = _switch("by_type", "service")
    oversize_reply: Literal["graph", "proxy"] = _switch("graph", "proxy")
    megabyte: int = _switch(2**20, 10**6)
    missing_file_text: str = "(#100) The parameter file is required."
    repeated_delete: Literal["error", "success"] = _switch("error", "success")
    wrong_number: Literal["error", "ignore"] = _switch("error", "ignore")
    expired_url_status: int = 404
    missing_user_agent_status: int | None = 400
    range_requests: bool = True
    accept_ranges: bool = True
    content_disposition: bool = False
    etag: bool = False
    require_content_length: bool = False
    throttle_status: int = 400
    retry_after: int | None = None
    file_size_as_string: bool = False
    remembered: int = _not_negative(10_000)

    @property
    def kilobyte(self) -> int:
        """Bytes of a KB, if a MB is `megabyte`."""
        return math.isqrt(self.megabyte)


class Clock:
    """The emulator's time: the real time plus what a test added. It does not affect how long anything takes."""

    def __init__(self) -> None:
        self._offset = 0.0

    def now(self) -> float:
        """Return Unix seconds."""
        return time.time() + self._offset

    def advance(self, seconds: float) -> None:
        """Move the clock; tokens, URLs and media expire accordingly."""
        self._offset += seconds
