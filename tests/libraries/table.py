"""A row of the tables: what somebody's library gives, what is done with it, and what must become of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import attrs

from meta_media import errors, samples

__all__ = ["NAMELESS", "PHOTO", "SUBJECTS", "WRITTEN", "AnyOf", "Done", "Raises", "Refused", "Row", "Table", "content"]

SUBJECTS: Final = ("web", "files", "clients", "objects", "databases", "misc", "destinations", "bodies", "streaming")
SIZES: Final = {"small": 0, "large": 3_000_000}  # bytes at least; large is above every library's own threshold
_PHOTO: Final = next(path for path in samples.paths() if path.name == "photo.jpg").read_bytes()
_LINE: Final = b"A line of a note, to be sent as it is.\n"


def content(size: str, kind: str = "photo") -> bytes:
    """Make the file that a row sends: a photo, or a text."""
    least = SIZES[size]
    if kind == "text":
        return _LINE * (least // len(_LINE) + 1)
    filler = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(least // 32))
    return _PHOTO + filler


Seen = dict[str, Any]  # what the driver reports of a row and a size


class Wanted(Protocol):
    """What must become of a row."""

    def problem(self, seen: Seen, sent: bytes) -> str | None:
        """Return what is wrong; None if nothing is."""
        ...


@attrs.frozen
class Done:
    """The upload succeeds, and every byte arrives, with this name and type. Without a name, one is made for the type."""

    name: str | None = None
    mime_type: str = "image/jpeg"
    any_name: bool = False

    def problem(self, seen: Seen, sent: bytes) -> str | None:
        """See `Wanted`."""
        if problem := _incomplete(seen, sent):
            return problem
        if seen["mime_type"].partition(";")[0] != self.mime_type:
            return f"the type is {seen['mime_type']}, not {self.mime_type}"
        suffix = ".txt" if self.mime_type == "text/plain" else ".jpg"
        named = seen["name"] == self.name if self.name else seen["name"] in {f"media{suffix}", f"file{suffix}"}
        return None if named or self.any_name else f"the name is {seen['name']!r}, not {self.name!r}"


@attrs.frozen
class Written:
    """The download succeeds, and every byte is where it was to go."""

    def problem(self, seen: Seen, sent: bytes) -> str | None:
        """See `Wanted`."""
        return _incomplete(seen, sent)


@attrs.frozen
class Refused:
    """A typed error, with one sentence that says what to do."""

    sentence: str  # a regular expression that must be found in it
    error: str = "InvalidMediaError"

    def problem(self, seen: Seen, sent: bytes) -> str | None:
        """See `Wanted`."""
        if seen["result"] != "refused" or not issubclass(getattr(errors, seen["error"]), getattr(errors, self.error)):
            return f"no {self.error}, but {_told(seen)}"
        return None if re.search(self.sentence, seen["sentence"]) else f"no {self.sentence!r} in: {seen['sentence']}"


@attrs.frozen
class Raises:
    """The other library raises an error of its own: it never counts as done."""

    sentence: str

    def problem(self, seen: Seen, sent: bytes) -> str | None:
        """See `Wanted`."""
        told = _told(seen)
        return None if seen["result"] == "raw" and re.search(self.sentence, told) else f"not raised, but {told}"


@attrs.frozen
class NeverShort:
    """A response that is not whole is seen as such: by its status, or because the connection breaks."""

    whole: bool = False  # whether the response must be whole

    def problem(self, seen: Seen, sent: bytes) -> str | None:
        """See `Wanted`."""
        if seen["result"] != "response":
            return _told(seen)
        arrived = (seen["sha256"] == hashlib.sha256(sent).hexdigest()) and seen["status"] == 200
        if self.whole:
            return None if arrived and seen["complete"] else f"the response is not whole: {seen}"
        return f"a complete 200 of {seen['size']} bytes" if seen["status"] == 200 and seen["complete"] else None


@attrs.frozen
class AnyOf:
    """One of several right results."""

    choices: tuple[Wanted, ...]

    def problem(self, seen: Seen, sent: bytes) -> str | None:
        """See `Wanted`."""
        problems = [choice.problem(seen, sent) for choice in self.choices]
        return None if None in problems else "; ".join(filter(None, problems))


PHOTO: Final = Done("photo.jpg")
NAMELESS: Final = Done()
WRITTEN: Final = Written()


def _told(seen: Seen) -> str:
    return f"{seen['result']}: {seen.get('error', '')}: {seen.get('sentence', '')}"


def _incomplete(seen: Seen, sent: bytes) -> str | None:
    if seen["result"] != "done":
        return _told(seen)
    whole = seen.get("sha256") == hashlib.sha256(sent).hexdigest()
    return None if whole else f"{seen.get('size', 0)} of {len(sent)} bytes arrived, or other ones"


@attrs.frozen
class Row:
    """One row."""

    name: str
    wanted: Wanted
    run: Callable[[Any], Awaitable[None]]  # takes a `Trial`
    sizes: tuple[str, ...]
    kind: str  # of `content`
    fails: str  # why it is not right yet


class Table(list[Row]):
    """The rows of one subject."""

    def row(
        self, name: str, wanted: Wanted, *, sizes: tuple[str, ...] = tuple(SIZES), kind: str = "photo", fails: str = ""
    ) -> Callable[[Callable[[Any], Awaitable[None]]], None]:
        """Decorate a function that takes a `Trial`."""
        return lambda run: self.append(Row(name, wanted, run, sizes, kind, fails))

    def source(self, name: str, wanted: Wanted, make: Callable[[Any], Any], **options: Any) -> None:
        """Add a source, which `make` gives, or an awaitable of it. Options are those of `row`, and `keywords` of `upload`."""
        keywords = options.pop("keywords", {})

        async def run(trial: Any) -> None:
            await trial.upload(await trial.made(make), **keywords)

        self.row(name, wanted, **options)(run)

    def destination(
        self, name: str, wanted: Wanted, make: Callable[[Any], Any], read: Callable[[Any, Any], Any], **options: Any
    ) -> None:
        """Add a destination, which `make` gives. `read` takes the trial and the destination, and gives what it has got."""

        async def run(trial: Any) -> None:
            made = await trial.made(make)
            await trial.download(made)
            if trial.seen["result"] == "done":
                trial.wrote(await trial.made(lambda trial: read(trial, made)))

        self.row(name, wanted, **options)(run)
