"""The logger `meta_media`. The import of this module shows what the variable META_MEDIA_LOG names, on standard error."""

from __future__ import annotations

import logging
import os
from typing import Final, TextIO

__all__ = ["LOGGER", "level_of_environment"]

LOGGER: Final = logging.getLogger("meta_media")
_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO}
_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _LastHandler(logging.StreamHandler[TextIO]):
    """Writes a record that no other handler gets: a program that sets up logging itself has each line once."""

    def emit(self, record: logging.LogRecord) -> None:
        if LOGGER.handlers == [self] and not logging.getLogger().handlers:
            super().emit(record)


def level_of_environment() -> int | None:
    """Return the level that META_MEDIA_LOG names, `debug` or `info`; None for anything else."""
    return _LEVELS.get(os.environ.get("META_MEDIA_LOG", "").lower())


def _show_log() -> None:
    """Log at the level that the environment names, if it does. The root logger stays as it is."""
    level = level_of_environment()
    if level is not None:
        handler = _LastHandler()
        handler.setFormatter(logging.Formatter(_FORMAT))
        LOGGER.addHandler(handler)
        LOGGER.setLevel(level)


_show_log()
