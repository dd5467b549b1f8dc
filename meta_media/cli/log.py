"""The records of the logger `meta_media`, as lines on standard error; and the waits that Meta asks for."""

from __future__ import annotations

import logging
import math
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from meta_media.cli.output import Bars, printable
from meta_media.errors import ApiError, RateLimitError
from meta_media.http.log import LOGGER, level_of_environment

__all__ = ["close_log", "open_log"]

_SHORTEST_WAIT: Final = 1.0  # seconds; a shorter one is not worth a line


class _Lines(logging.Handler):
    """Writes each record above the bars, on a thread of its own, because a terminal or a pipe may be slow."""

    def __init__(self, bars: Bars, lowest: int) -> None:
        super().__init__()
        self._bars = bars
        self._lowest = lowest  # level that is shown
        self._writer = ThreadPoolExecutor(1, "meta_media_log")
        self._times = logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")

    def emit(self, record: logging.LogRecord) -> None:
        delay, error = getattr(record, "delay", 0.0), getattr(record, "error", None)
        asked = isinstance(error, RateLimitError) or (isinstance(error, ApiError) and bool(error.retry_after))
        if asked and delay >= _SHORTEST_WAIT and self._lowest <= logging.WARNING and self._bars.wait(delay):
            self._write(f"Meta asks to wait: {math.ceil(delay)} s")
        if record.levelno >= self._lowest:
            warns = record.levelno >= logging.WARNING
            self._write(f"meta-media: {record.getMessage()}" if warns else self._times.format(record))

    def _write(self, line: str) -> None:
        self._writer.submit(self._bars.write, sys.stderr, printable(line))

    def close(self) -> None:
        self._writer.shutdown()
        super().close()


def open_log(bars: Bars, *, quiet: bool, verbose: bool) -> None:
    """Show errors if `quiet`, everything if `verbose`, else warnings and what META_MEDIA_LOG names, until `close_log`."""
    lowest = logging.DEBUG if verbose else logging.ERROR if quiet else level_of_environment() or logging.WARNING
    LOGGER.addHandler(_Lines(bars, lowest))
    LOGGER.setLevel(min(lowest, logging.INFO))  # at which waits are logged


def close_log() -> None:
    """Write what is left, and undo `open_log`."""
    for handler in [handler for handler in LOGGER.handlers if isinstance(handler, _Lines)]:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(logging.NOTSET)
        handler.close()
