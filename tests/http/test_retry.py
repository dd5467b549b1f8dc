"""What is worth another try."""

from __future__ import annotations

import pytest

from meta_media.errors import (
    ApiError,
    ConfigurationError,
    IntegrityError,
    MediaError,
    NetworkError,
    RateLimitError,
    ServerError,
    TransferTimeoutError,
)
from meta_media.http.retry import RetryState, cost


def stale() -> NetworkError:
    """Make what a kept connection ends with that the server had given up."""
    error = NetworkError("stale", retryable=True)
    error.stale = True
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (NetworkError("reset", retryable=True), 2),
        (NetworkError("certificate", retryable=False), 0),
        (TransferTimeoutError("idle", phase="read"), 2),
        (TransferTimeoutError("deadline", phase="deadline"), 0),
        (RateLimitError("throttled", retryable=True), 2),
        (RateLimitError("spam", retryable=False), 0),
        (ServerError("busy", status=503, retryable=True), 2),
        (ServerError("no JSON", status=200, retryable=True), 1),
        (ServerError("no JSON", status=299, retryable=True), 1),
        (ServerError("a refused redirect", status=300, retryable=True), 2),
        (ServerError("no status", retryable=True), 2),
        (ServerError("unknown", status=500, code=1, retryable=True), 1),
        (ApiError("transient", status=400, retryable=True), 2),
        (IntegrityError("other bytes"), 1),
        (ConfigurationError("closed"), 0),
        (MediaError("strange", retryable=True), 2),
    ],
    ids=str,
)
def test_how_often(error: MediaError, expected: int) -> None:
    """What may pass is tried again twice, what is more likely to stay once, anything else never."""
    tries = RetryState()
    granted = 0
    while tries.should_retry(error, "get_info", 2):
        tries.count += 1
        granted += 1
    assert granted == expected


def test_two_doubts() -> None:
    """Wrong bytes after a wrong reply are not a reason for another try; a broken connection still is."""
    tries = RetryState()
    assert tries.should_retry(ServerError("HTML", status=200, retryable=True), "download", 9)
    assert not tries.should_retry(IntegrityError("other bytes"), "download", 9)
    assert tries.should_retry(NetworkError("reset", retryable=True), "download", 9)


@pytest.mark.parametrize("maybe_applied", [True, False])
def test_messages_are_not_sent_twice(maybe_applied: bool) -> None:
    """A message is tried again only if it certainly was not sent; an upload either way."""
    error = NetworkError("reset", retryable=True, maybe_applied=maybe_applied)
    assert RetryState().should_retry(error, "send", 2) is not maybe_applied
    assert RetryState().should_retry(error, "upload", 2)


def test_a_source_that_is_gone() -> None:
    """What cannot be read again is not tried again, and the error says why."""
    error = NetworkError("reset", retryable=True)
    assert not RetryState(lambda: False).should_retry(error, "upload", 2)
    assert error.__notes__ == ["the source can be read only once, so it was not sent again"]


def test_costs() -> None:
    """A timeout costs the budget most; a kept connection that the server had given up, nothing."""
    assert (cost(NetworkError("reset")), cost(TransferTimeoutError("idle")), cost(stale())) == (5, 10, 0)
    assert (cost(ServerError("busy")), cost(IntegrityError("other bytes"))) == (5, 5)
