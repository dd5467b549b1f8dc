"""The cases that are measured, and the contenders of each case."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

OURS = "meta_media"
MEGABYTE = 1_000_000
TINY = 1024  # bytes: the run is measured, not the transfer
SMALL = 65_536  # bytes of a typical image
LARGE = 100 * MEGABYTE  # bytes: the largest file that the service takes
MANY = 2000  # items of a run
SCHEMES = ("http", "https")
LOOPS = ("asyncio", "uvloop")


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
        build: Folder with the `meta_media` package of another build; empty for this checkout's.
        limit: Transfers at most; 0 for the case's own limit.
        standard: The entry whose figures are divided by this one's.
        beyond: The entry whose processor time is subtracted: what is left is the cost of a journal or library.
    """

    name: str
    module: str
    needs: tuple[str, ...] = ()
    library: str = ""
    verify: bool = False
    blocks: bool = False
    variant: str = ""
    build: str = ""
    limit: int = 0
    standard: str = OURS
    beyond: str = ""

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
        loop: The module whose event loop is used.
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
    loop: str = "asyncio"
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
        "upload_bytes": ("upload-64k", "64 KiB uploads", _SMALL),
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
        limit=max(concurrency, 4),
        entries=tuple(it for it in entries if it != _CURL or concurrency == 1),
    )


def _many(
    name: str, title: str, entries: tuple[Entry, ...], *, sources: str, limit: int, concurrency: int = 64
) -> Case:
    return Case(
        name=f"many-{name}",
        title=f"{title}, {concurrency} at a time",
        work="upload_all",
        size=TINY if sources == "generator" else SMALL,
        concurrency=concurrency,
        limit=limit,
        sources=sources,
        again=name == "again",
        entries=entries,
    )


def _many_cases(items: int, lengths: tuple[int, ...]) -> list[Case]:
    peers = (_MEDIA, _httpx("httpx"), _AIOHTTP, _PYWA)
    from_disk = (_MEDIA, _httpx("httpx", blocks=True), _AIOHTTP, replace(_PYWA, blocks=True))
    journaled = replace(_MEDIA, name="upload_many, journal", variant="journal")
    costs = tuple(replace(it, beyond=OURS) for it in (journaled, *_STORES))
    growing = tuple(
        replace(
            _MEDIA, name=f"{it}, {length:,} items", variant=it, limit=length, standard=f"{it}, {lengths[0]:,} items"
        )
        for it in ("plain", "journal")
        for length in lengths
    )
    files = f"{items:,} x 64 KiB"
    return [
        _many("memory", f"{files} from memory", peers, sources="bytes", limit=items),
        _many("disk", f"{files} from disk", from_disk, sources="path", limit=items),
        _many("overheads", f"{items:,} different files", (_MEDIA, *costs), sources="files", limit=items),
        _many("again", "the same files, all known", (journaled, *_STORES), sources="files", limit=items),
        *(
            _many(f"growth-{it}", "1 KiB from a generator", growing, sources="generator", limit=0, concurrency=it)
            for it in (16, 64, 256)
        ),
    ]


def cases(*, quick: bool = False) -> list[Case]:
    """
    Return all cases, in order.

    Args:
        quick: Small files, short phases and few items. This only shows that everything runs; the figures mean little.
    """
    seconds, size = (0.2, 10 * MEGABYTE) if quick else (1.0, LARGE)
    items, lengths = (200, (100, 1_000)) if quick else (MANY, (1_000, 10_000, 100_000))
    return [
        *(_small("upload_bytes", scheme, number, seconds) for scheme in SCHEMES for number in (16, 100, 256)),
        *(_small("get_info", scheme, 16, seconds) for scheme in SCHEMES),
        *(_large(work, scheme, size) for work in ("discard", "save", "upload_file") for scheme in SCHEMES),
        *(_large(work, scheme, size, 8) for work in ("save", "upload_file") for scheme in SCHEMES),
        *(_large(work, "https", size, 16) for work in ("save", "upload_file")),
        *_many_cases(items, lengths),
    ]


def narrowed(case: Case, beside: Sequence[str] | None, build: str, loop: str) -> Case:
    """
    Return a case with some of its contenders, on one event loop.

    Args:
        case: With all contenders.
        beside: The beginnings of the names of the other libraries; None for all.
        build: Folder with another build's `meta_media`, which is measured as `before`; empty for none.
        loop: The module whose event loop is used.
    """
    kept = [it for it in case.entries if it.module == "ours" or beside is None or it.name.startswith(tuple(beside))]
    before = [
        replace(
            it, name=f"{it.name}, before", build=build, standard=it.name, beyond=it.beyond and f"{it.beyond}, before"
        )
        for it in kept
        if build and it.module == "ours"
    ]
    asyncio = loop == "asyncio"
    return replace(
        case,
        name=case.name if asyncio else f"{case.name}-{loop}",
        title=case.title if asyncio else f"{case.title}, {loop}",
        loop=loop,
        entries=(*kept, *before),
    )
