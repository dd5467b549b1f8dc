"""A small, valid sample file of each media type that WhatsApp accepts."""

from importlib.resources import files
from pathlib import Path

__all__ = ["paths"]


def paths() -> list[Path]:
    """Return the paths of the sample files, sorted by name. They hold tones, gradients and sentences, 170 KB in all."""
    entries = (Path(str(entry)) for entry in files(__name__).iterdir() if entry.is_file())
    return sorted(path for path in entries if path.suffix not in {".py", ".pyc"})
