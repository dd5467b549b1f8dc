"""The options that commands share, and the client they make."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import attrs
from cyclopts import Group, Parameter

from meta_media.api import MediaApi
from meta_media.cli.lists import STANDARD, Listing
from meta_media.cli.output import Output
from meta_media.cli.progress import Bars
from meta_media.errors import ConfigurationError
from meta_media.protocol.settings import Settings
from meta_media.transfer.sources import Source

__all__ = ["STANDARD", "Connection", "FileNames", "Ids", "Many", "ManyFiles", "Report", "source_of"]

_CONNECTION = Group("Connection", sort_key=8)
_OUTPUT = Group("Output", sort_key=9)
_MANY = Group("Many at a time", sort_key=7)

# A hyphen is standard input or output. `app` sees to it that a mistyped option is not taken for a file.
FileNames = Annotated[list[str], Parameter(name="FILE", negative=(), allow_leading_hyphen=True)]
Ids = Annotated[list[str], Parameter(name="ID", negative=())]


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

    def client(self, *, needs_number: bool = False, **changes: Any) -> MediaApi:
        """
        Make the client.

        Args:
            needs_number: Whether it is of no use without a phone number.
            **changes: Fields of `Settings`; None is as good as not given.

        Raises:
            ConfigurationError: Something is missing or cannot be right.
        """
        given: dict[str, Any] = {"base_url": self.base_url, "api_version": self.api_version, **changes}
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
        if not os.environ.get("CLOUD_API_ACCESS_TOKEN"):
            raise ConfigurationError("there is no access token: set CLOUD_API_ACCESS_TOKEN in the environment")
        if needs_number and not (self.phone_number_id or os.environ.get("WA_PHONE_NUMBER_ID")):
            raise ConfigurationError("there is no phone number id: pass --phone-number-id or set WA_PHONE_NUMBER_ID")
        return MediaApi(phone_number_id=self.phone_number_id, settings=settings)


@Parameter(name="*", group=_MANY)
@dataclass(frozen=True, kw_only=True)
class Many:
    """What to do when they are many."""

    listed: Annotated[Path | None, Parameter(name="--from", allow_leading_hyphen=True)] = None
    """A file that lists more of them, one per line, and is read as they are needed; "-" is standard input."""
    null: Annotated[bool, Parameter(name=("--null", "-0"), negative=())] = False
    """What --from lists ends with NUL instead of with its line, as find -print0 writes it."""
    journal: Path | None = None
    """A file that notes what is done: after an interruption, the same command goes on from there."""
    concurrency: int | None = None
    """How many at a time. Default: 16."""

    def listing(self) -> Listing | None:
        """
        Return the list to read.

        Raises:
            ConfigurationError: An option that needs another one.
        """
        if self.listed is None:
            if self.null:
                raise ConfigurationError("--null says how --from is to be read: pass that, too")
            return None
        return Listing(file=self.listed, null=self.null)

    @property
    def again(self) -> str:
        """How to go on after an interruption."""
        if self.journal is not None:
            return "run the same command again, and it goes on from there"
        return "with --journal FILE, the same command run again would go on from there"


@Parameter(name="*", group=_MANY)
@dataclass(frozen=True, kw_only=True)
class ManyFiles(Many):
    """The same for uploads."""

    recursive: Annotated[bool, Parameter(name=("--recursive", "-r"), negative=())] = False
    """Upload all files in folders and below, but those whose names begin with a dot."""
    rate: float | None = None
    """Uploads per second at most. Default: any; 360dialog allows 25."""
    reuse: Annotated[bool, Parameter(negative=())] = False
    """Upload nothing twice: print the id that the same bytes got before, while it is good."""
    library: Path | None = None
    """The file in which --reuse keeps the ids; it implies --reuse. Default: one in your cache folder."""

    @property
    def reuses(self) -> bool:
        """Whether there is a library."""
        return self.reuse or self.library is not None

    @property
    def again(self) -> str:
        """How to go on after an interruption."""
        return "run the same command again: what has been uploaded is reused" if self.reuses else super().again


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


def source_of(file: str, filename: str | None) -> Source:
    """Open a file by its name, or standard input, whose name nobody knows; a file called "-" is "./-"."""
    if file != str(STANDARD):
        return Source.path(file)
    return attrs.evolve(Source.handle(sys.stdin.buffer), name=filename)
