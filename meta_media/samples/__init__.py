"""One small, valid file of every type WhatsApp accepts, for trying things out: `paths` lists them."""

from importlib.resources import files
from pathlib import Path

__all__ = ["paths"]


def paths() -> list[Path]:
    """Return the sample files, sorted by name: synthetic tones, gradients and single sentences, 170 KB in all."""
    entries = (Path(str(entry)) for entry in files(__name__).iterdir() if entry.is_file())
    return sorted(path for path in entries if path.suffix not in {".py", ".pyc"})
