"""When a call is tried again.

Every method of the service only reads, so trying again does no harm. It is done if it can help:

* UNAVAILABLE: the server was not reached, broke off, or is not ready;
* CANCELLED, but not by this client: the server stopped before it looked at the call, or before it
  had an answer;
* RESOURCE_EXHAUSTED, if the server says when to try again.

gRPC's own retries cannot tell the last one from a message that is too large, which will stay too
large, and ignore the time that the server asks for.
"""

from __future__ import annotations

import random
import threading
import time

from attnpriv_client.errors import OverloadedError, ServiceError, UnavailableError

FIRST_BACKOFF = 0.2  # seconds; it doubles from one attempt to the next
LARGEST_BACKOFF = 5.0
CANCELLED = "CANCELLED"


class Attempts:
    """The time and the attempts that are left for one call.

    Args:
        timeout: seconds for all attempts and the pauses between them.
        number: attempts in all; with 1, nothing is tried again.
        closed: set once the client is closed; then nothing is tried again.
    """

    def __init__(self, timeout: float, number: int, closed: threading.Event) -> None:
        self._end = time.monotonic() + timeout
        self._number = number
        self._closed = closed
        self._failed = 0

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, at least 0."""
        return max(0.0, self._end - time.monotonic())

    def pause(self, error: ServiceError) -> float:
        """How long to wait before the next attempt.

        It is the time that the server asks for, plus a random part of a backoff that doubles, so
        that clients that failed together do not come back together.

        Args:
            error: the error of the last attempt.

        Raises:
            ServiceError: ``error`` itself, if trying again cannot help, no attempt is left, or the
                pause would go past the deadline.
        """
        self._failed += 1
        backoff = min(FIRST_BACKOFF * 2 ** (self._failed - 1), LARGEST_BACKOFF)
        pause = (error.retry_after or 0.0) + random.uniform(0.0, backoff)
        if not self._can_help(error) or self._failed >= self._number or pause >= self.remaining:
            raise error
        return pause

    def _can_help(self, error: ServiceError) -> bool:
        transient = isinstance(error, UnavailableError | OverloadedError)
        return (transient or error.code == CANCELLED) and not self._closed.is_set()
