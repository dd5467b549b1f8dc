"""The cases that are measured, and the contenders of each case."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

OURS = "meta_media"
MEGABYTE = 1_000_000
TINY = 1024  # bytes: the run is measured, not the transfer
SMALL = 65_536  # bytes of a typical image
LARGE = 100 * MEGABYTE  # bytes: the largest file that the service takes
MANY = 2000  # items of a run


@dataclass(frozen=True, kw_only=True)
class Entry:
    """
    A contender in a case.

    Attributes:
        name: In the tables.
        module: In `benchmarks.contenders`.
        needs: Distributions, or programs for curl and Redis, without which the entry is skipped.
        library: The module that the contender imports, where it can use several.
        verify: Whether SHA-256 is computed and compared.
        blocks: Whether files are read or written on the event loop.
        variant: Passed to the contender.
        checkout: Folder with another `meta_media` package; empty for the installed one.
        limit: Transfers at most; 0 for the case's own limit.
    """

    name: str
    module: str
    needs: tuple[str, ...] = ()
    library: str = ""
    verify: bool = False
    blocks: bool = False
    variant: str = ""
    checkout: str = ""
    limit: int = 0

    @property
    def shown(self) -> str:
        """The name with its marks."""
        return self.name + (" ✓" if self.verify else "") + (" ⊘" if self.blocks else "")


@dataclass(frozen=True, kw_only=True)
class Case:
    """
    One piece of work that all entries do.

    Attributes:
        name: For `--only` and in `results.json`.
        title: In the tables.
        work: The contender's method.
        scheme: Of the server.
        size: Bytes of one transfer.
        concurrency: Transfers at a time.
        limit: Transfers at most.
        seconds: No transfer starts after this time.
        sources: What `upload_all` reads: `bytes`, `path`, `files` (one for each item) or `generator`.
        again: Whether `upload_all` runs once before it is measured, so that a journal or library knows every item.
        entries: The contenders.
    """

    name: str
    title: str
    work: str
    scheme: str = "http"
    size: int = SMALL
    concurrency: int = 1
    limit: int = 20_000
    seconds: float = math.inf
    sources: str = "bytes"
    again: bool = False
    entries: tuple[Entry, ...]

    @property
    def counts_requests(self) -> bool:
        """Whether the rate is in requests per second; otherwise it is in MB per second."""
        return self.size <= SMALL

    def rate(self, transfers: int, seconds: float) -> float:
        """Requests or megabytes per second."""
        return transfers / seconds * (1 if self.counts_requests else self.size / MEGABYTE)


def _httpx(library: str, name: str = "", *, verify: bool = False, blocks: bool = False) -> Entry:
    needs = (library, "aiofiles") if name else (library,)
    return Entry(name=name or library, module="with_httpx", needs=needs, library=library, verify=verify, blocks=blocks)


_MEDIA = Entry(name=OURS, module="ours")
_AIOHTTP = Entry(name="aiohttp", module="with_aiohttp", needs=("aiohttp",))
_FORM = replace(_AIOHTTP, name="aiohttp FormData")
_AIOFILES = replace(_AIOHTTP, name="aiohttp + aiofiles", variant="aiofiles", verify=True)
_PYWA = Entry(name="pywa", module="with_pywa", needs=("pywa", "httpx"))
_CURL = Entry(name="curl", module="with_curl", needs=("curl",))
_OURS_VERIFIED = replace(_MEDIA, verify=True)
_AIOHTTP_VERIFIED = replace(_AIOHTTP, verify=True)

_SMALL = (
    _MEDIA,
    _httpx("httpx"),
    _httpx("httpx2"),
    _FORM,
    replace(_AIOHTTP, name="aiohttp prepared body", variant="prepared"),
    _PYWA,
)
_INFO = (_MEDIA, _httpx("httpx"), _httpx("httpx2"), _AIOHTTP, _PYWA)
_DISCARD = (_OURS_VERIFIED, _httpx("httpx"), _httpx("httpx", verify=True), _AIOHTTP, _AIOHTTP_VERIFIED, _PYWA, _CURL)
_SAVE = (
    _OURS_VERIFIED,
    _httpx("httpx", "httpx + aiofiles", verify=True),
    _httpx("httpx2", "httpx2 + aiofiles", verify=True),
    replace(_AIOHTTP_VERIFIED, blocks=True),
    _AIOFILES,
    replace(_PYWA, blocks=True),
    _CURL,
)
_UPLOAD = (
    _MEDIA,
    _httpx("httpx", blocks=True),
    _httpx("httpx2", blocks=True),
    _FORM,
    replace(_PYWA, blocks=True),
    _CURL,
)
_STORES = (
    *(replace(_MEDIA, name=f"ensure_many, {it}", variant=it) for it in ("memory", "sqlite")),
    replace(_MEDIA, name="ensure_many, redis", variant="redis", needs=("redis", "redis-server")),
)


def _small(work: str, scheme: str, concurrency: int, seconds: float) -> Case:
    name, title, entries = {
        "upload_bytes": ("upload-64k", "64 KiB uploads from memory", _SMALL),
        "get_info": ("get-info", "get_info", _INFO),
    }[work]
    return Case(
        name=f"{name}-{scheme}-{concurrency}",
        title=f"{title}, {concurrency} at a time, {scheme}",
        work=work,
        scheme=scheme,
        concurrency=concurrency,
        seconds=seconds,
        entries=entries,
    )


def _large(work: str, scheme: str, size: int, concurrency: int = 1) -> Case:
    name, title, entries = {
        "discard": ("discard", "download to nowhere", _DISCARD),
        "save": ("save", "download to disk", _SAVE),
        "upload_file": ("upload", "upload from disk", _UPLOAD),
    }[work]
    times = f"{concurrency} x " if concurrency > 1 else ""
    return Case(
        name=f"{name}-{scheme}" + (f"-{concurrency}" if concurrency > 1 else ""),
        title=f"{times}{size // MEGABYTE} MB {title}, {scheme}",
        work=work,
        scheme=scheme,
        size=size,
        concurrency=concurrency,
        limit=max(concurrency, 2),
        entries=tuple(it for it in entries if it != _CURL or concurrency == 1),
    )


def cases(*, quick: bool = False) -> list[Case]:
    """
    Return the cases of single calls, in order.

    Args:
        quick: Small files and short phases. This only shows that everything runs; the figures mean little.
    """
    seconds, size = (0.2, 10 * MEGABYTE) if quick else (1.0, LARGE)
    schemes = ("http", "https")
    return [
        *(_small("upload_bytes", scheme, number, seconds) for scheme in schemes for number in (16, 100)),
        _small("get_info", "https", 16, seconds),
        *(_large(work, scheme, size) for work in ("discard", "save", "upload_file") for scheme in schemes),
        *(_large(work, "http", size, 8) for work in ("save", "upload_file")),
    ]


def many_cases(*, quick: bool = False) -> list[Case]:
    """
    Return the cases of runs over many items, in order.

    Args:
        quick: Few items. This only shows that everything runs; the figures mean little.
    """
    items = MANY // 10 if quick else MANY
    lengths = (100, 1_000) if quick else (1_000, 10_000, 100_000)
    peers = (_MEDIA, _httpx("httpx"), _AIOHTTP, _PYWA)
    from_disk = (_MEDIA, _httpx("httpx", blocks=True), _AIOHTTP, replace(_PYWA, blocks=True))
    journaled = replace(_MEDIA, name="upload_many, journal", variant="journal")
    growing = tuple(
        replace(_MEDIA, name=f"{it or 'plain'}, {length:,} items", variant=it, limit=length)
        for it in ("", "journal")
        for length in lengths
    )

    def case(name: str, title: str, sources: str, entries: tuple[Entry, ...], *, again: bool = False) -> Case:
        size = TINY if sources == "generator" else SMALL
        return Case(
            name=f"many-{name}",
            title=f"{title}, 64 at a time",
            work="upload_all",
            size=size,
            concurrency=64,
            limit=items,
            sources=sources,
            again=again,
            entries=entries,
        )

    return [
        case("memory", f"{items:,} files of 64 KiB from memory: a run beside a semaphore and tasks", "bytes", peers),
        case("disk", f"{items:,} files of 64 KiB from disk: a run beside a semaphore and tasks", "path", from_disk),
        case(
            "growth", "upload_many of 1 KiB from a generator: the cost of an item in longer runs", "generator", growing
        ),
        case("overheads", f"{items:,} different files of 64 KiB", "files", (_MEDIA, journaled, *_STORES)),
        case(
            "again", f"the same {items:,} files again: every item is known", "files", (journaled, *_STORES), again=True
        ),
    ]


def against(checkout: str, *, quick: bool = False) -> list[Case]:
    """Return the cases that compare this checkout with another one, named `before`."""
    names = ("upload-64k-http-16", "upload-64k-https-16", "get-info-https-16", "save-https", "discard-https")
    return [
        replace(case, entries=(case.entries[0], replace(case.entries[0], name="before", checkout=checkout)))
        for case in cases(quick=quick)
        if case.name in names
    ]
