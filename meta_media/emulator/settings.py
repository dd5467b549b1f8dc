"""What can be set: a switch for each thing that Meta does not document and nobody recorded, and the clock."""

from __future__ import annotations

import math
import time
from typing import Final, Literal

import attrs

__all__ = ["Clock", "EmulatorSettings"]

_DAY: Final = 24 * 60 * 60


@attrs.frozen(kw_only=True)
class EmulatorSettings:
    """
    How the emulator behaves where Meta's behaviour is unknown or varies. The defaults follow the best evidence there is.

    Attributes:
        url_lifetime: Seconds until a download URL expires. Meta: five minutes.
        webhook_url_lifetime: The same for the URL inside a webhook. Recorded: 301 seconds after the message.
        media_lifetime: Seconds that uploaded media is kept. Meta: 30 days.
        inbound_lifetime: Seconds that media of a webhook is kept. Meta: 7 days.
        app_secret: Signs webhooks and checks `appsecret_proof`. None: one is made and kept in the data folder.
        require_appsecret_proof: Whether Graph requests without a proof are refused; a wrong proof always is.
        size_limits: Whether an upload is measured by the limit of its type or only by the service's 100 MB.
        oversize_reply: Meta's JSON with code 100, or the bare HTTP 413 of a proxy in front of it.
        megabyte: What Meta means by MB: 1,048,576 or 1,000,000 bytes. KB follows.
        missing_file_text: The message when a form has no file.
        repeated_delete: Whether deleting what is gone is an error, as elsewhere in the Graph API, or a success.
        wrong_number: Whether asking with the `phone_number_id` of another number is an error or is ignored.
        expired_url_status: The reply to an expired URL: 404 as Meta's guide says, 403 as its fbcdn hosts do, or another.
        missing_user_agent_status: The reply to a download without `User-Agent`; None lets it pass.
        range_requests: Whether downloads answer a `Range` with 206.
        accept_ranges: Whether downloads say `Accept-Ranges: bytes`.
        content_disposition: Whether downloads carry the name the file was uploaded with.
        etag: Whether downloads carry an `ETag`, and honour it in `If-Range`.
        require_content_length: Whether an upload of undeclared length (chunked) is refused with 411.
        throttle_status: The HTTP status of a throttled request: 400 in Meta's error table, 429 in its OpenAPI file.
        retry_after: Seconds in the `Retry-After` of a throttled request; None leaves the header out.
        file_size_as_string: Whether `file_size` is a string, as documented, or a number, as recorded.
        remembered: How many requests and messages are kept for tests to look at.
    """

    url_lifetime: int = attrs.field(default=300, validator=attrs.validators.ge(0))
    webhook_url_lifetime: int = attrs.field(default=301, validator=attrs.validators.ge(0))
    media_lifetime: int = attrs.field(default=30 * _DAY, validator=attrs.validators.ge(0))
    inbound_lifetime: int = attrs.field(default=7 * _DAY, validator=attrs.validators.ge(0))
    app_secret: str | None = attrs.field(default=None, repr=False)
    require_appsecret_proof: bool = False
    size_limits: Literal["by_type", "service"] = attrs.field(
        default="by_type", validator=attrs.validators.in_(("by_type", "service"))
    )
    oversize_reply: Literal["graph", "proxy"] = attrs.field(
        default="graph", validator=attrs.validators.in_(("graph", "proxy"))
    )
    megabyte: int = attrs.field(default=2**20, validator=attrs.validators.in_((2**20, 10**6)))
    missing_file_text: str = "(#100) The parameter file is required."
    repeated_delete: Literal["error", "success"] = attrs.field(
        default="error", validator=attrs.validators.in_(("error", "success"))
    )
    wrong_number: Literal["error", "ignore"] = attrs.field(
        default="error", validator=attrs.validators.in_(("error", "ignore"))
    )
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
    remembered: int = attrs.field(default=10_000, validator=attrs.validators.ge(0))

    @property
    def kilobyte(self) -> int:
        """What KB means when MB means `megabyte`."""
        return math.isqrt(self.megabyte)


class Clock:
    """The emulator's own time: the real one plus what a test added. It never affects how long anything takes."""

    def __init__(self) -> None:
        self._offset = 0.0

    def now(self) -> float:
        """Unix seconds."""
        return time.time() + self._offset

    def advance(self, seconds: float) -> None:
        """Move on; tokens, URLs and media expire accordingly."""
        self._offset += seconds
