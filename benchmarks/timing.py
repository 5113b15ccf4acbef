"""Times of contenders that take turns, so that what else happens on a machine happens to all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

Clock = Callable[[], float]


def timed(call: Callable[[], object], clock: Clock = time.perf_counter) -> Callable[[], float]:
    """A call that returns the seconds which another takes."""

    def seconds() -> float:
        started = clock()
        call()
        return clock() - started

    return seconds


def medians(
    contenders: Mapping[str, Callable[[], float]], rounds: int, warm_up: int = 1
) -> dict[str, float]:
    """The median seconds of each contender, who take turns.

    Args:
        contenders: each returns the seconds that it took.
        rounds: in which each has a turn and is counted.
        warm_up: rounds before these.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(warm_up + rounds):
        for name, contender in contenders.items():
            seconds = contender()
            if number >= warm_up:
                times[name].append(seconds)
    return {name: statistics.median(values) for name, values in times.items()}
