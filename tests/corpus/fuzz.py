"""
Damage files of the corpus, and have every reader read them: `python -m tests.corpus.fuzz FOLDER [MINUTES]`, for each reader.

A reader may not raise, but for the typed errors of repackaging. It reads at most eight times beyond the head, and ends in time.
Each damage is a few changes at places that Hypothesis' random numbers choose, most of them near the start, where the structure
is: a bit, a number of 1 to 8 bytes with a value at a limit, a piece that is repeated, moved or missing, an end that is missing.
"""

from __future__ import annotations

import collections
import contextlib
import random
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Final

from hypothesis import HealthCheck, Phase, given, settings, strategies

from meta_media.errors import InvalidMediaError
from meta_media.protocol.media_types import HEAD_SIZE, inspect_media
from meta_media.protocol.repackage import repackage_steps
from meta_media.protocol.signatures import sniff_steps

_MAX_READS: Final = 8
_MAX_SECONDS: Final = 1.0  # of processor time for one file
_HEAD_SIZES: Final = (512, 4096, HEAD_SIZE)  # most files of the corpus are smaller than a head, and would never be read
_MAX_SIZE: Final = 400_000  # bytes of a file that is used
_LIMITS: Final = (
    0,
    1,
    7,
    8,
    9,
    16,
    127,
    128,
    255,
    2**15,
    2**16 - 1,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63,
    2**64 - 1,
)
_READERS: Final = {  # by the extensions of the files
    "mp4": ("mp4", "m4a", "3gp", "m4b", "m4v", "mov"),
    "documents": (
        "doc",
        "xls",
        "ppt",
        "docx",
        "xlsx",
        "pptx",
        "odt",
        "ods",
        "odp",
        "pdf",
        "txt",
        "zip",
        "xlsb",
        "xlsm",
    ),
    "images": ("jpg", "jpeg", "png", "webp", "gif", "heic", "avif", "tiff"),
    "sound": ("mp3", "aac", "ogg", "oga", "opus", "amr", "wav", "flac", "mp2"),
    "repackage": ("webm", "mka", "mkv", "weba", "ogg", "m4a", "mp4"),
}


def _damaged(content: bytes, numbers: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(numbers.choice((1, 1, 2, 3, 8))):
        size = len(data)
        if not size:
            break
        at = min(int(size ** numbers.random()), size - 1) if numbers.random() < 0.7 else numbers.randrange(size)
        how = numbers.randrange(6)
        if how == 0:
            data[at] ^= 1 << numbers.randrange(8)
        elif how == 1:
            width = numbers.choice((1, 2, 4, 8))
            value = numbers.choice(_LIMITS) % 256**width
            data[at : at + width] = value.to_bytes(width, numbers.choice(("big", "little")))
        elif how == 2:
            piece = data[at : at + numbers.randrange(1, 200)]
            data[at:at] = piece * numbers.choice((1, 2, 50))
        elif how == 3:
            del data[at : at + numbers.choice((1, 4, 8, 100, 1000))]
        elif how == 4:
            other = numbers.randrange(size)
            data[at : at + 64] = data[other : other + 64]
        else:
            del data[at:]
    return bytes(data)


def _judge(content: bytes, name: str) -> int:
    """Judge as an upload does, and return the number of reads."""
    head, count = content[: _HEAD_SIZES[len(content) % len(_HEAD_SIZES)]], 0
    steps = sniff_steps(head, len(head) == len(content))
    try:
        offset, size = next(steps)
        while True:
            count += 1
            assert count <= _MAX_READS, f"{count} reads"
            start = max(offset + len(content), 0) if offset < 0 else offset  # a negative offset counts from the end
            offset, size = steps.send(content[start : start + size])
    except StopIteration as stop:
        signature: Any = stop.value
    with contextlib.suppress(InvalidMediaError):
        inspect_media(head, filename=name, complete=len(head) == len(content), signature=signature)
    return count


def _repackage(content: bytes, _name: str) -> int:
    """Repackage, and return the number of reads; more than the file has pieces would be an endless loop."""
    steps, count, sent = repackage_steps(), 0, b""
    try:
        while True:
            step = steps.send(sent if count else None)  # type: ignore[arg-type]  # the first send starts the generator
            count += 1
            assert count < 100_000, "it does not end"
            sent = content[step[0] : step[0] + step[1]] if isinstance(step, tuple) else b""
    except (StopIteration, InvalidMediaError):
        return count


def _fuzz(reader: str, paths: list[Path], seconds: float) -> tuple[int, dict[str, str]]:
    """Return how many files were read, and the problems: what happened, and the damaged file's origin and seed."""
    read = _repackage if reader == "repackage" else _judge
    contents = [(path.name, path.read_bytes()) for path in paths if 0 < path.stat().st_size <= _MAX_SIZE]
    problems: dict[str, str] = {}
    count, slowest, end = 0, 0.0, time.monotonic() + seconds

    @settings(
        max_examples=10**9,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(seed=strategies.integers(0, 2**64))
    def run(seed: int) -> None:
        nonlocal count, slowest
        if time.monotonic() > end:
            raise TimeoutError
        numbers = random.Random(seed)
        for name, content in numbers.sample(contents, min(len(contents), 50)):
            data, started = _damaged(content, numbers), time.process_time()
            try:
                read(data, name)
            except Exception as error:  # noqa: BLE001 - any exception at all is what is looked for
                place = traceback.extract_tb(error.__traceback__)[-1]
                problems.setdefault(
                    f"{type(error).__name__}: {error} at {place.name}:{place.lineno}"[:200], f"{name}, seed {seed}"
                )
            taken = time.process_time() - started
            slowest = max(slowest, taken)
            if taken > _MAX_SECONDS:
                problems.setdefault(f"it takes more than {_MAX_SECONDS} s", f"{name}, seed {seed}: {taken:.1f} s")
            count += 1

    with contextlib.suppress(TimeoutError):
        run()
    print(
        f"{reader}: {count} damaged files of {len(contents)}, {len(problems)} problems, slowest {slowest:.3f} s",
        flush=True,
    )
    return count, problems


def main(folder: Path, minutes: float, readers: list[str]) -> int:
    """Print what went wrong, and return the exit status."""
    found: dict[str, list[Path]] = collections.defaultdict(list)
    for path in sorted((folder / "files").iterdir()):
        for reader, extensions in _READERS.items():
            if path.suffix[1:].lower() in extensions or not path.suffix:
                found[reader].append(path)
    status = 0
    for reader in readers or _READERS:
        _, problems = _fuzz(reader, found[reader], minutes * 60)
        for problem, origin in problems.items():
            print(f"  {problem}: {origin}", flush=True)
            status = 1
    return status


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 10, sys.argv[3:]))
