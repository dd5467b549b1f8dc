"""What the HTTP stack logs while it works for us, without the queries of URLs: a download's is a signature."""

from __future__ import annotations

import logging
import re
from contextvars import ContextVar

__all__ = ["QueriesHidden"]

_ours: ContextVar[bool] = ContextVar("meta_media_sending", default=False)


class _Filter(logging.Filter):
    """httpx logs every URL in full, at INFO, and httpcore every redirect's, at DEBUG."""

    def filter(self, record: logging.LogRecord) -> bool:
        if _ours.get():
            record.msg, record.args = re.sub(r"\?[^\s'\"]+", "?…", record.getMessage()), ()
        return True


for _name in ("httpx", "httpcore.http11"):
    logging.getLogger(_name).addFilter(_Filter())


class QueriesHidden:
    """Hides them for what is done inside the block; others who use the same libraries are not affected."""

    def __enter__(self) -> None:
        self._outside = _ours.set(True)

    def __exit__(self, *_: object) -> None:
        _ours.reset(self._outside)
