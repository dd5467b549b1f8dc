"""Keeps an exception for whoever is to hear of it, where raising it would end other people's work."""

from __future__ import annotations

import contextlib

from meta_media.errors import MediaError

__all__ = ["Caught"]


class Caught:
    """
    A block that no `Exception` leaves. Cancellations of its own task do; somebody else's, met while waiting, does not.

    Attributes:
        raised: What ended the block, if anything did.
        error: The same; but of somebody else's cancellation, an error that says so.
    """

    def __init__(self) -> None:
        self.raised: BaseException | None = None
        self.error: Exception | None = None

    def __enter__(self) -> Caught:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if isinstance(error, Exception):
            self.error = error
        elif error is not None and _of_others(error):
            self.error = MediaError("what this was waiting for was cancelled by somebody else")
            self.error.__cause__ = error
        self.raised = error if self.error is not None else None
        return self.error is not None


def _of_others(error: BaseException) -> bool:
    import asyncio

    if not isinstance(error, asyncio.CancelledError):
        return False
    task = None
    with contextlib.suppress(RuntimeError):  # on a thread, which nobody can cancel
        task = asyncio.current_task()
    return task is None or not task.cancelling()
