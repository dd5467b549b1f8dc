"""Keeps an exception for whoever is to hear of it, where raising it would end other people's work."""

from __future__ import annotations

__all__ = ["Caught"]


class Caught:
    """
    A block that no `Exception` leaves; cancellations and exits do.

    Attributes:
        error: What ended the block, if anything did.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __enter__(self) -> Caught:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        self.error = error if isinstance(error, Exception) else None
        return self.error is not None
