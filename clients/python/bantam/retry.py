"""When a call that failed before its first message is made again, and how long that may take."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from bantam.errors import BantamError


@dataclass(frozen=True)
class Retry:
    """Makes a call again when the server was full and said when to come back, or was not there. A stream that has begun is never
    made again. Retries end with the call's timeout."""

    attempts: int = 4
    """At most so many, the first included"""
    initial_backoff: float = 0.1
    """Seconds before the second attempt, doubled with each further one, a fifth of it up or down by chance"""
    max_backoff: float = 5.0
    """Seconds, at most, between two attempts when the server does not say"""
    max_pushback: float = 30.0
    """A server that wants to be left alone for more seconds than these is taken by its word: the error is raised"""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts is {self.attempts}: at least 1, the call itself")
        for name in ("initial_backoff", "max_backoff", "max_pushback"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: seconds, 0 or more")


ONCE = Retry(attempts=1)


class Attempts:
    """The attempts of one call."""

    def __init__(self, retry: Retry | None, timeout: float | None):
        self.retry = retry or ONCE
        self.ends_at = None if timeout is None else time.monotonic() + timeout
        self.made = 1

    def remaining(self) -> float | None:
        """Seconds for the next attempt; None = no deadline."""
        return None if self.ends_at is None else max(0.0, self.ends_at - time.monotonic())

    def delay_after(self, error: BantamError) -> float | None:
        """Seconds until the next attempt, which this counts; None when the error is final."""
        if self.made >= self.retry.attempts or not error.is_retryable:
            return None
        delay = error.retry_after
        if delay is None:
            backoff = self.retry.initial_backoff * 2.0 ** (self.made - 1)
            delay = min(backoff, self.retry.max_backoff) * random.uniform(0.8, 1.2)
        elif delay > self.retry.max_pushback:
            return None
        remaining = self.remaining()
        if remaining is not None and delay >= remaining:
            return None
        self.made += 1
        return delay
