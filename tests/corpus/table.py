"""A row of the corpus: a file, the program and the command that make it, and the verdict that it must have."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from tests.corpus import rows

__all__ = [
    "B_FRAMES",
    "FRAGMENTS",
    "HIGH",
    "MOOV_LAST",
    "Accepted",
    "Input",
    "Program",
    "Refused",
    "Row",
    "Verdict",
    "modules",
    "table",
]

MOOV_LAST: Final = "(moov)"  # words of the remarks on MP4
FRAGMENTS: Final = "fragments"
HIGH: Final = "High profile"
B_FRAMES: Final = "B-frames"
_WORDS: Final = (MOOV_LAST, FRAGMENTS, HIGH, B_FRAMES)  # one sentence may have several
Seen = Mapping[str, Any]  # a line of `meta-media check --json`


@attrs.frozen
class Program:
    """What is installed. Of apt, the release of Debian decides the version; of pip and npm, the pin does."""

    name: str  # which the rows have
    apt: tuple[str, ...] = ()
    npm: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()  # names of other programs that its commands run
    env: str = "python"  # the folder of the virtual environment, which programs with the same name share


def _missing(words: tuple[str, ...], text: str) -> str | None:
    return next((word for word in words if word.lower() not in text.lower()), None)


class Verdict:
    """What `check` must say of a file."""

    def problem(self, seen: Seen) -> str | None:
        """Return what is wrong; None if nothing is."""
        raise NotImplementedError


class Accepted(Verdict):
    """
    The file is accepted as a type.

    Each of the words is in a remark, unless it begins with a question mark, and each remark has one of them. What is remarked on
    in an MP4 is listed whole.
    """

    def __init__(self, mime_type: str, *words: str) -> None:
        self.mime_type = mime_type
        self.needed = tuple(word for word in words if word[0] != "?")
        self.words = tuple(word.lstrip("?") for word in words)

    def problem(self, seen: Seen) -> str | None:
        """See `Verdict`."""
        if not seen["accepted"]:
            return f"refused: {seen['error']['message']}"
        if seen["mime_type"] != self.mime_type:
            return f"accepted as {seen['mime_type']}, not {self.mime_type}"
        remarks: list[str] = list(seen.get("remarks", ()))
        if word := _missing(self.needed, " ".join(remarks)):
            return f"no remark says {word!r}: {remarks}"
        text, words = " ".join(remarks), " ".join(self.words)
        more = [remark for remark in remarks if not any(word in remark for word in self.words)]
        more += [word for word in _WORDS if word in text and word not in words]
        return f"a remark too many: {more[0]}" if more else None


class Refused(Verdict):
    """The file is refused, by a sentence that has these words."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def problem(self, seen: Seen) -> str | None:
        """See `Verdict`."""
        if seen["accepted"]:
            return f"accepted as {seen['mime_type']}; the refusal should say {', '.join(self.words)}"
        message: str = seen["error"]["message"]
        word = _missing(self.words, message)
        return f"the refusal does not say {word!r}: {message}" if word else None


@attrs.frozen
class Input:
    """A file that commands read as `$IN/name`, in the folder of inputs; it is made when a row reads it."""

    name: str
    program: str
    command: str  # of bash, which writes the file "$OUT"


@attrs.frozen
class Row:
    """A file of the corpus."""

    name: str
    program: str
    command: (
        str  # of bash, which writes the file "$OUT"; "$IN" is the folder of the inputs, "$MAKERS" that of the scripts
    )
    verdict: Verdict
    why: str = ""  # where the verdict is not that of the documented table of types


def unpacked(archive: str, *groups: tuple[str, Verdict, str]) -> tuple[Row, ...]:
    """Return the rows of the files that one run of a script makes: a program, the verdict, and the names of each group."""
    return tuple(
        Row(name, program, f'tar xOf "$IN/{archive}" {name} > "$OUT"', verdict)
        for program, verdict, names in groups
        for name in names.split()
    )


def modules() -> Iterator[Any]:
    """Yield the modules of rows."""
    for module in pkgutil.iter_modules(rows.__path__):
        yield importlib.import_module(f"{rows.__name__}.{module.name}")


def table() -> dict[str, Row]:
    """Return all rows by the name of their file."""
    found: Final[dict[str, Row]] = {}
    for module in modules():
        for row in module.TABLE:
            if row.name in found:
                raise ValueError(f"two rows make {row.name}: rename one")
            found[row.name] = row
    return found
