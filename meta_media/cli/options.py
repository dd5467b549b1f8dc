"""The options that commands share, and the client they make."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import attrs
from cyclopts import Group, Parameter

from ..api import MediaApi
from ..errors import ConfigurationError
from ..settings import Settings
from ..sources import Source
from .bars import Bars
from .output import Output

__all__ = ["STANDARD", "Connection", "FileNames", "Report", "source_of"]

_CONNECTION = Group("Connection", sort_key=8)
_OUTPUT = Group("Output", sort_key=9)
STANDARD = Path("-")

# A hyphen is standard input or output. `app` sees to it that a mistyped option is not taken for a file.
FileNames = Annotated[list[Path], Parameter(name="FILE", negative=(), allow_leading_hyphen=True)]


@Parameter(name="*", group=_CONNECTION)
@dataclass(frozen=True, kw_only=True)
class Connection:
    """Whom to talk to. The access token is read from CLOUD_API_ACCESS_TOKEN only: others can see a command line."""

    phone_number_id: str | None = None
    """The business number's id. Default: WA_PHONE_NUMBER_ID."""
    base_url: str | None = None
    """Scheme, host and port. Default: WA_BASE_URL, else https://graph.facebook.com."""
    api_version: str | None = None
    """Of the Graph API, such as v25.0. Default: CLOUD_API_VERSION, else the SDK's own."""

    def client(self, *, needs_number: bool = False) -> MediaApi:
        """
        Make the client.

        Raises:
            ConfigurationError: Something is missing or cannot be right.
        """
        given: dict[str, Any] = {"base_url": self.base_url, "api_version": self.api_version}
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
        if not os.environ.get("CLOUD_API_ACCESS_TOKEN"):
            raise ConfigurationError("there is no access token: set CLOUD_API_ACCESS_TOKEN in the environment")
        if needs_number and not (self.phone_number_id or os.environ.get("WA_PHONE_NUMBER_ID")):
            raise ConfigurationError("there is no phone number id: pass --phone-number-id or set WA_PHONE_NUMBER_ID")
        return MediaApi(phone_number_id=self.phone_number_id, settings=settings)


@Parameter(name="*", group=_OUTPUT)
@dataclass(frozen=True, kw_only=True)
class Report:
    """How to say it."""

    json: Annotated[bool, Parameter(negative=())] = False
    """One JSON object per line, failures included, for other programs."""
    quiet: Annotated[bool, Parameter(negative=())] = False
    """Results and errors only: no progress bars, no remarks."""

    def output(self, *, items: int = 1) -> Output:
        """Make what the command prints with; its bars are not shown before they are entered."""
        return Output(json=self.json, quiet=self.quiet, bars=Bars(wanted=not self.quiet, items=items))


def source_of(file: Path, filename: str | None) -> Source:
    """Open a file by its name, or standard input, whose name nobody knows."""
    if file != STANDARD:
        return Source.path(file)
    return attrs.evolve(Source.handle(sys.stdin.buffer), name=filename)
