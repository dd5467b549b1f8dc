"""What is worth another try, and what that costs: by Meta's code first, then by the kind of failure."""

from __future__ import annotations

from collections.abc import Callable

from meta_media.errors import (
    ApiError,
    IntegrityError,
    MediaError,
    NetworkError,
    Operation,
    ServerError,
    TransferTimeoutError,
)

__all__ = ["RetryState", "cost"]


class RetryState:
    """
    What one piece of work, a request or a whole transfer, has been through.

    Args:
        replayable: Whether it can be done again from the start: a source that was read once may be gone.

    Attributes:
        count: Retries so far.
        token_renewed: Whether one of them was owed to a dead token.
    """

    def __init__(self, replayable: Callable[[], bool] = lambda: True) -> None:
        self.replayable = replayable
        self.count = 0
        self.token_renewed = False
        self._doubted = False

    def should_retry(self, error: MediaError, operation: Operation, most: int) -> bool:
        """
        Decide whether to try again after an error.

        Args:
            error: What went wrong; its `maybe_applied` is about all tries.
            operation: The public verb.
            most: Retries allowed.
        """
        if not error.retryable or self.count >= most or (operation == "send" and error.maybe_applied):
            return False  # a message that may have been sent is not sent again: its reader would see it twice
        if isinstance(error, TransferTimeoutError) and error.phase == "deadline":
            return False
        if _doubtful(error):
            if self._doubted:
                return False
            self._doubted = True
        if not self.replayable():
            error.add_note("the source can be read only once, so it was not sent again")
            return False
        return True


def _doubtful(error: MediaError) -> bool:
    """Tell whether a second try may help, but hardly a third: bytes or replies that are wrong, and code 1, "unknown"."""
    wrong = isinstance(error, ServerError) and error.status is not None and error.status < 300
    return wrong or isinstance(error, IntegrityError) or (isinstance(error, ApiError) and error.code == 1)


def cost(error: MediaError) -> int:
    """Return what a retry takes from the budget."""
    if isinstance(error, NetworkError) and error.stale:
        return 0
    return 10 if isinstance(error, TransferTimeoutError) else 5
