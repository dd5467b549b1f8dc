"""What is retried, when, and what that costs: decided by Meta's code first, then by the kind of failure."""

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
from meta_media.http.limits import MAX_RETRY_AFTER, Limits, backoff_delay
from meta_media.protocol.settings import Settings

__all__ = ["RetryState", "cost"]


class RetryState:
    """The retries of one piece of work: a request, or a whole transfer."""

    def __init__(self, replayable: Callable[[], bool] = lambda: True) -> None:
        self.count = 0  # retries so far
        self._replayable = replayable  # whether it can be done again from its start: a source may be exhausted
        self._token_renewed = False
        self._retried_doubtful = False

    def may_renew_token(self) -> bool:
        """Whether a refused token may be replaced and the work tried again, which happens once."""
        if self._token_renewed or not self._replayable():
            return False
        self._token_renewed = True
        return True

    def delay(self, error: MediaError, operation: Operation, settings: Settings, limits: Limits) -> float:
        """Return the seconds to wait before another attempt, and pay for it; raise the error if there is to be none."""
        asked = (error.retry_after if isinstance(error, ApiError) else None) or 0.0
        should_retry = self.should_retry(error, operation, settings.max_retries)
        if not should_retry or asked > MAX_RETRY_AFTER or not limits.budget.afford(cost(error)):
            raise error
        self.count += 1
        if isinstance(error, NetworkError) and error.stale:
            return 0.0
        return asked + backoff_delay(self.count, settings.backoff, limits.jitter)

    def should_retry(self, error: MediaError, operation: Operation, max_retries: int) -> bool:
        """Decide whether to try again after an error, whose `maybe_applied` is about all attempts."""
        if not error.retryable or self.count >= max_retries or (operation == "send" and error.maybe_applied):
            return False  # a message that may have been sent is not sent again: its recipient would see it twice
        if isinstance(error, TransferTimeoutError) and error.phase == "deadline":
            return False
        if _is_doubtful(error):
            if self._retried_doubtful:
                return False
            self._retried_doubtful = True
        if not self._replayable():
            error.add_note("the source can be read only once, so it was not sent again")
            return False
        return True


def _is_doubtful(error: MediaError) -> bool:
    """Whether a second attempt may help, but hardly a third: wrong bytes, wrong responses, and code 1, "unknown"."""
    wrong = isinstance(error, ServerError) and error.status is not None and error.status < 300
    return wrong or isinstance(error, IntegrityError) or (isinstance(error, ApiError) and error.code == 1)


def cost(error: MediaError) -> int:
    """Return the units that a retry takes from the `RetryBudget`."""
    if isinstance(error, NetworkError) and error.stale:
        return 0
    return 10 if isinstance(error, TransferTimeoutError) else 5
