"""An ideal queue with our forward pass: what random arrivals alone make callers wait.

Nothing in it takes time but the forward pass, and it knows no neighbour. So what a server needs
beyond it is the server's own doing, and what it needs as well is nobody's.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

ARRIVALS = 100_000
WARM = 1000  # answers from the empty beginning, which do not count


@dataclass(frozen=True)
class IdealQueue:
    """A free worker takes what waits, up to a batch, at once.

    The time of n texts is a line through that of one and that of the best batch.

    Attributes:
        single_ms: of a forward pass of one text.
        forward: texts a second of all workers, in batches of the best size.
        batch: texts in such a batch.
        workers: forward passes at a time.
    """

    single_ms: float
    forward: float
    batch: int
    workers: int = 1

    def p99_ms(self, rate: float, seed: int = 0) -> float:
        """The time within which 99 % are answered where texts arrive at random, rate a second."""
        arrivals = np.cumsum(np.random.default_rng(seed).exponential(1e3 / rate, ARRIVALS))
        free = [0.0] * self.workers
        answered = np.empty(ARRIVALS)
        first = 0
        while first < ARRIVALS:
            start = max(heapq.heappop(free), arrivals[first])
            waiting = int(np.searchsorted(arrivals, start, "right")) - first
            taken = min(max(waiting, 1), self.batch)
            end = start + self._ms(taken)
            answered[first : first + taken] = end
            heapq.heappush(free, end)
            first += taken
        return float(np.quantile((answered - arrivals)[WARM:], 0.99))

    def _ms(self, texts: int) -> float:
        if self.batch == 1:
            return self.single_ms
        whole = 1e3 * self.batch * self.workers / self.forward
        return self.single_ms + (whole - self.single_ms) * (texts - 1) / (self.batch - 1)
