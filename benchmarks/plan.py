"""What is measured: the cases, who takes part in each, and which ratios the project aims at."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

OURS = "meta_media"
MEGABYTE = 1_000_000
SMALL = 65_536  # bytes of an image that people send
LARGE = 100 * MEGABYTE  # what the service takes at most
CONCURRENT = 8


@dataclass(frozen=True, kw_only=True)
class Entry:
    """
    A contender in a case.

    Attributes:
        name: In the tables.
        module: In `benchmarks.contenders`.
        needs: Distributions, or for curl the program, without which it is missing.
        library: What the module is to import, where it can do with several.
        verify: Whether SHA-256 is computed and compared.
        blocks: Whether it reads or writes files on the event loop.
        variant: Of the contender.
    """

    name: str
    module: str
    needs: tuple[str, ...] = ()
    library: str = ""
    verify: bool = False
    blocks: bool = False
    variant: str = ""

    @property
    def shown(self) -> str:
        """Its name with its marks."""
        return self.name + (" ✓" if self.verify else "") + (" ⊘" if self.blocks else "")


@dataclass(frozen=True, kw_only=True)
class Case:
    """
    One piece of work that all its entries do.

    Attributes:
        name: For `--only` and in `results.json`.
        group: Cases that share a plot.
        title: In the tables.
        work: The verb of a contender.
        scheme: Of the server; uploads go to the upload server over http.
        size: Bytes of one transfer.
        concurrency: Transfers at a time.
        limit: Transfers at most.
        seconds: After which no further one is begun.
        entries: Who takes part.
    """

    name: str
    group: str
    title: str
    work: str
    scheme: str
    size: int
    concurrency: int
    limit: int
    seconds: float = math.inf
    entries: tuple[Entry, ...]

    @property
    def unit(self) -> str:
        """Of the value that is compared; more is better."""
        return "requests/s" if self.size == SMALL else "MB/s"

    @property
    def uploads(self) -> bool:
        """Whether bytes go up."""
        return self.work.startswith("upload")

    def value(self, transfers: int, seconds: float) -> float:
        """Turn a measurement into the value that is compared."""
        return transfers / seconds * (1 if self.unit == "requests/s" else self.size / MEGABYTE)

    def per(self, transfers: int) -> float:
        """Say by what processor time is divided: requests in thousands, or gigabytes."""
        return transfers / 1000 if self.unit == "requests/s" else transfers * self.size / 1e9


@dataclass(frozen=True)
class Goal:
    """A ratio of medians that the project aims at: of ours to a peer's, or of ours in one case to ours in another."""

    case: str
    peer: str
    at_least: float
    other_case: str = ""


def _httpx(library: str, *, verify: bool = False, blocks: bool = False) -> Entry:
    needs = (library,)
    return Entry(name=library, module="with_httpx", needs=needs, library=library, verify=verify, blocks=blocks)


_AIOHTTP = Entry(name="aiohttp", module="with_aiohttp", needs=("aiohttp",))
_PYWA = Entry(name="pywa", module="with_pywa", needs=("pywa", "httpx"))
_CURL = Entry(name="curl", module="with_curl", needs=("curl",))
_MEDIA = Entry(name=OURS, module="ours", needs=("meta-media",))


def _verified(entry: Entry, name: str = "") -> Entry:
    return replace(entry, name=name or entry.name, verify=True)


_SMALL = (
    replace(_MEDIA),
    _httpx("httpx"),
    _httpx("httpx2"),
    replace(_AIOHTTP, name="aiohttp FormData"),
    replace(_AIOHTTP, name="aiohttp prepared body", variant="prepared"),
    _PYWA,
)
_DISCARD = (
    _verified(_MEDIA),
    _httpx("httpx"),
    _httpx("httpx", verify=True),
    _httpx("httpx2"),
    _AIOHTTP,
    _verified(_AIOHTTP),
    _PYWA,
    _CURL,
)
_AIOHTTP_FILES = replace(_AIOHTTP, name="aiohttp + aiofiles", variant="aiofiles", needs=("aiohttp", "aiofiles"))
_HTTPX_FILES = replace(_httpx("httpx"), name="httpx + aiofiles", needs=("httpx", "aiofiles"))
_HTTPX2_FILES = replace(_httpx("httpx2"), name="httpx2 + aiofiles", needs=("httpx2", "aiofiles"))
_SAVE = (
    _verified(_MEDIA),
    _HTTPX_FILES,
    _verified(_HTTPX_FILES),
    _verified(_HTTPX2_FILES),
    replace(_AIOHTTP, blocks=True),
    replace(_AIOHTTP, blocks=True, verify=True),
    _verified(_AIOHTTP_FILES),
    replace(_PYWA, blocks=True),
    _CURL,
)
_UPLOAD = (
    _MEDIA,
    _httpx("httpx", blocks=True),
    _httpx("httpx2", blocks=True),
    replace(_AIOHTTP, name="aiohttp FormData"),
    replace(_PYWA, blocks=True),
    _CURL,
)
_MANY_UP = _UPLOAD[:-1]
_MANY_DOWN = (
    _verified(_MEDIA),
    _verified(_HTTPX_FILES),
    _verified(_HTTPX2_FILES),
    replace(_AIOHTTP, blocks=True, verify=True),
    _verified(_AIOHTTP_FILES),
    replace(_PYWA, blocks=True),
)


def _small(concurrency: int, seconds: float) -> Case:
    return Case(
        name=f"upload-64k-{concurrency}",
        group="uploads of 64 KiB",
        title=f"64 KiB uploads from memory, {concurrency} at a time, http",
        work="upload_bytes",
        scheme="http",
        size=SMALL,
        concurrency=concurrency,
        limit=20_000,
        seconds=seconds,
        entries=_SMALL,
    )


def _large(
    name: str, group: str, work: str, scheme: str, size: int, entries: tuple[Entry, ...], *, concurrency: int = 1
) -> Case:
    times = f"{concurrency} x " if concurrency > 1 else ""
    what = {"discard": "download to nowhere", "save": "download to disk", "upload_file": "upload from disk"}[work]
    return Case(
        name=name,
        group=group,
        title=f"{times}{size // MEGABYTE} MB {what}, {scheme}",
        work=work,
        scheme=scheme,
        size=size,
        concurrency=concurrency,
        limit=concurrency if concurrency > 1 else 2,
        entries=entries,
    )


def cases(*, quick: bool) -> list[Case]:
    """
    Return all cases, in order.

    Args:
        quick: Fewer cases, smaller files and shorter phases, to see that everything runs; the figures mean little.
    """
    seconds, size = (0.2, 10 * MEGABYTE) if quick else (1.0, LARGE)
    schemes = ("https",) if quick else ("http", "https")
    many = "eight at a time"
    return [
        *(_small(concurrency, seconds) for concurrency in ((16, 100) if quick else (16, 100, 256))),
        *(_large(f"discard-{it}", "download to nowhere", "discard", it, size, _DISCARD) for it in schemes),
        *(_large(f"save-{it}", "download to disk", "save", it, size, _SAVE) for it in schemes),
        _large("upload-disk", "upload from disk", "upload_file", "http", size, _UPLOAD),
        _large("upload-8", many, "upload_file", "http", size, _MANY_UP, concurrency=CONCURRENT),
        _large("save-8", many, "save", "http", size, _MANY_DOWN, concurrency=CONCURRENT),
    ]


GOALS = (
    Goal("upload-64k-16", "httpx", 3.0),
    Goal("upload-64k-100", "httpx", 8.0),
    Goal("upload-64k-16", "aiohttp FormData", 0.8),
    Goal("upload-64k-100", "aiohttp FormData", 0.8),
    Goal("upload-64k-256", OURS, 0.85, other_case="upload-64k-16"),
    Goal("save-https", "httpx + aiofiles ✓", 2.0),
    Goal("save-https", "aiohttp ✓ ⊘", 1.0),
    Goal("save-https", "aiohttp + aiofiles ✓", 1.0),
    Goal("upload-disk", "aiohttp FormData", 1.0),
    Goal("upload-disk", "pywa ⊘", 1.3),
)
MOST_MEMORY = 48 * 2**20  # bytes that eight transfers of ours may add
MOST_LATENESS = 10.0  # ms at the 99th percentile under eight transfers of ours
