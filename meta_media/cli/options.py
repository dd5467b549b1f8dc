"""The options that commands share, and the client they make."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from meta_media import MediaApi, Settings
from meta_media.cli.items import Listing
from meta_media.cli.log import open_log
from meta_media.cli.output import Bars, Output
from meta_media.errors import ConfigurationError

__all__ = ["REPORT", "Connection", "FileNames", "Flag", "Ids", "Many", "ManyFiles", "ManyRecipients", "Report"]

_MANY = Group("Many at a time", sort_key=7)

# A hyphen is standard input or output. `app` refuses a mistyped option, which would pass as a file.
FileNames = Annotated[list[str], Parameter(name="FILE", negative=(), allow_leading_hyphen=True)]
Ids = Annotated[list[str], Parameter(name="ID", negative=())]
Flag = Annotated[bool, Parameter(negative=())]


@Parameter(name="*", group=Group("Connection", sort_key=8))
@dataclass(frozen=True, kw_only=True)
class Connection:
    """How to reach Meta. The access token comes from CLOUD_API_ACCESS_TOKEN only: other users can see a command line."""

    phone_number_id: str | None = None
    """Id of the business phone number. Default: WA_PHONE_NUMBER_ID."""
    base_url: str | None = None
    """Scheme, host and port. Default: WA_BASE_URL, else https://graph.facebook.com."""
    api_version: str | None = None
    """Version of the Graph API, such as v25.0. Default: CLOUD_API_VERSION, else the SDK's own."""

    def client(self, *, needs_number: bool = False, **changes: Any) -> MediaApi:
        """Make the client. `changes` are fields of `Settings`; None keeps a default."""
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
    """Options for many items."""

    list_option: ClassVar[str] = "--from"
    listed: Annotated[Path | None, Parameter(name="--from", allow_leading_hyphen=True)] = None
    """File with more items, one per line, read as they are needed. "-" is standard input."""
    null: Annotated[bool, Parameter(name=("--null", "-0"), negative=())] = False
    """Items in the list end with NUL instead of a newline, as find -print0 writes them."""
    journal: Path | None = None
    """File that records finished items. After an interruption, the same command continues from there."""
    concurrency: Annotated[int | None, Parameter(validator=Number(gte=1, lte=1000))] = None
    """Items at a time, at most 1000. Default: 16."""

    def inputs(self, arguments: list[str] | None, items: str) -> tuple[list[str], Listing | None]:
        """Return the arguments, and the list to read. `items` says in an error message what is missing."""
        if self.listed is None and self.null:
            raise ConfigurationError(f"--null describes the list of {self.list_option}: pass {self.list_option}, too")
        if self.listed is None and not arguments:
            raise ConfigurationError(f"there is nothing to do: pass {items}, or a list of them with {self.list_option}")
        listing = None if self.listed is None else Listing(self.listed, self.null)
        return list(arguments or ()), listing

    @property
    def again(self) -> str:
        """How to continue after an interruption."""
        if self.journal is not None:
            return "run the same command again to continue from here"
        return "with --journal FILE, the same command could continue from here"


@Parameter(name="*", group=_MANY)
@dataclass(frozen=True, kw_only=True)
class ManyFiles(Many):
    """Options for many uploads."""

    recursive: Annotated[bool, Parameter(name=("--recursive", "-r"), negative=())] = False
    """Upload the files in folders and their sub-folders. Names that begin with a dot and links out of the folder are
    left out."""
    rate: Annotated[float | None, Parameter(validator=Number(gt=0))] = None
    """Uploads per second at most. Default: no limit. 360dialog allows 25."""
    reuse: Flag = False
    """Upload nothing twice: the same bytes get the same id while it is valid."""
    library: Path | None = None
    """File in which --reuse keeps the ids. Implies --reuse. Default: a file in your cache folder."""

    @property
    def reuses(self) -> bool:
        """Whether there is a library."""
        return self.reuse or self.library is not None

    @property
    def again(self) -> str:
        """How to continue after an interruption."""
        return "run the same command again: uploaded files are reused" if self.reuses else super().again


@Parameter(name="*", group=_MANY)
@dataclass(frozen=True, kw_only=True)
class ManyRecipients(Many):
    """Options for many messages."""

    list_option: ClassVar[str] = "--recipients"
    listed: Annotated[Path | None, Parameter(name="--recipients", allow_leading_hyphen=True)] = None
    """File with more recipients, one per line, read as they are needed; a group as group:ID. "-" is standard input."""


@Parameter(name="*", group=Group("Output", sort_key=9))
@dataclass(frozen=True, kw_only=True)
class Report:
    """How to print."""

    json: Flag = False
    """One JSON object per line, for failures too."""
    quiet: Annotated[bool, Parameter(name=("--quiet", "-q"), negative=())] = False
    """Results and errors only: no progress bars, no remarks."""
    verbose: Annotated[bool, Parameter(name=("--verbose", "-v"), negative=())] = False
    """Show the log on standard error, such as retries. META_MEDIA_LOG=info does so, too."""

    def output(self) -> Output:
        """Make the command's output. Its bars are drawn once they are entered."""
        bars = Bars(wanted=not self.quiet)
        open_log(bars, quiet=self.quiet, verbose=self.verbose)
        return Output(json=self.json, quiet=self.quiet, bars=bars)


REPORT: Final = Report()
