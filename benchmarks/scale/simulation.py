"""How 1 to 64 replicas do whose drawn answers are paid from one PostgreSQL: a simulation.

Assumptions. Each replica has a core of its own, on which an answer takes its measured time; so many
callers that each replica always has one to answer, up to 64 that wait. A drawn answer is charged,
computed and kept: two transactions, in which whatever waits on the replica goes together, one
transaction of a replica at a time (as ``Budget`` does). A transaction of n takes the measured
``fixed + n * each`` in the database, and a network that this machine does not have:
``ROUND_TRIPS`` of ``NETWORK`` seconds. Transactions on one account wait for one another, since each
locks its row; those on different accounts share the database's cores. No failures, no other load.
"""

from __future__ import annotations

import asyncio
import heapq
import statistics
import tempfile
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from attnpriv.jobs.threads import one_thread
from attnpriv.runs.folder import load_run
from attnpriv.runs.prediction import predict_probabilities
from attnpriv_server.budget.accounts import Account, Allowance, Relation, Unit
from attnpriv_server.budget.charging import Budget
from attnpriv_server.budget.requests import Charge
from attnpriv_server.telemetry import Telemetry
from tests.server.budget.postgres import PostgresServer

REPLICAS = (1, 2, 4, 8, 16, 32, 64)
CALLERS = 64  # of a replica
NETWORK = 0.0005  # seconds there and back, within one data centre
ROUND_TRIPS = 5  # of a transaction: begin, lock, read, write, commit
DATABASE_CORES = 4
SECONDS = 20.0  # that are simulated, after as many to fill the queues
MANY = 256  # charges at once, to measure what each adds
ALLOWANCE = Allowance(10**12, Unit.EPSILON)


@dataclass(frozen=True)
class Times:
    """Seconds, measured here.

    Attributes:
        answer: of one answer, in a batch of some.
        fixed: of a transaction.
        each: that one charge more adds to it.
    """

    answer: float
    fixed: float
    each: float

    @classmethod
    def measured(cls, run: Path, rounds: int) -> Self:
        """Medians of rounds, on this machine."""
        loaded, texts = load_run(run), ["my parcel has not arrived"] * 32
        answers, ones, many = [], [], []
        server = PostgresServer(Path(tempfile.gettempdir()))  # on a disk, where commits cost
        try:
            for _ in range(rounds):
                with one_thread():
                    began = time.perf_counter()
                    predict_probabilities(loaded, texts)
                    answers.append((time.perf_counter() - began) / len(texts))
                ones.append(asyncio.run(_charge(server.url, 1, 100)))
                many.append(asyncio.run(_charge(server.url, MANY, 10)))
        finally:
            server.close()
        one, more = statistics.median(ones), statistics.median(many)
        each = max(0.0, (more - one) / (MANY - 1))
        return cls(statistics.median(answers), max(0.0, one - each), each)


async def _charge(url: str, at_once: int, times: int) -> float:
    """Seconds of a transaction with so many charges of one account."""
    budget = Budget.open(url, Telemetry())
    account = Account(f"caller {time.monotonic_ns()}", "tickets", Relation.SPAN)
    try:
        began = time.perf_counter()
        for number in range(times):
            charges = [
                Charge(account, ALLOWANCE, 1, f"a request of a benchmark {number} {n}", bytes(32))
                for n in range(at_once)
            ]
            await asyncio.gather(*map(budget.charge, charges))
        return (time.perf_counter() - began) / times
    finally:
        budget.close()


@dataclass
class _Replica:
    waiting: deque[tuple[str, int]] = field(default_factory=deque)  # for its next transaction
    computing: int = 0  # that wait for the core, and the one that has it
    writes: bool = False


def replicas(times: Times) -> dict[str, Any]:
    """Drawn answers a second by the number of replicas, and where that stops growing."""
    kinds = {"one account": True, "an account for each replica": False}
    found: dict[str, Any] = {
        "seconds": asdict(times),
        "assumed": {
            "network": NETWORK,
            "round_trips": ROUND_TRIPS,
            "callers_of_a_replica": CALLERS,
            "database_cores": DATABASE_CORES,
        },
        "without_budget": {count: count / times.answer for count in REPLICAS},
    }
    for name, shared in kinds.items():
        rates = {count: simulated(times, count, shared) for count in REPLICAS}
        found[name] = {
            "answers_a_second": rates,
            "replicas_at_90_percent_of_the_most": next(
                count for count, rate in rates.items() if rate >= 0.9 * max(rates.values())
            ),
        }
    return found


def simulated(times: Times, count: int, shared: bool, seconds: float = SECONDS) -> float:
    """Drawn answers a second of all replicas together.

    Args:
        times: of the parts.
        count: of replicas.
        shared: whether all charge one account.
        seconds: that are counted, after as many.
    """
    return _Simulation(times, count, shared).run(seconds)


class _Simulation:
    """Callers ask again at once; events are ends of answers and of transactions."""

    def __init__(self, times: Times, count: int, shared: bool) -> None:
        self._times = times
        self._replicas = [_Replica() for _ in range(count)]
        self._locks = 1 if shared else min(DATABASE_CORES, count)
        self._queue: deque[int] = deque()  # replicas that wait for the database
        self._events: list[tuple[float, int, str, int, list[tuple[str, int]]]] = []
        self._number = 0
        self._now = 0.0
        self._kept = 0

    def run(self, seconds: float) -> float:
        for replica in range(len(self._replicas)):
            self._replicas[replica].waiting.extend([("charge", replica)] * CALLERS)
            self._ask(replica)
        before = 0
        while self._events and self._events[0][0] < 2 * seconds:
            self._now, _, what, replica, batch = heapq.heappop(self._events)
            if self._now < seconds:
                before = self._kept
            if what == "computed":
                self._computed(replica)
            else:
                self._committed(replica, batch)
        return (self._kept - before) / seconds

    def _ask(self, replica: int) -> None:
        """Have a replica's next transaction wait for the database, one at a time."""
        each = self._replicas[replica]
        if each.waiting and not each.writes:
            each.writes = True
            self._queue.append(replica)
            self._begin()

    def _begin(self) -> None:
        while self._queue and self._locks:
            self._locks -= 1
            replica = self._queue.popleft()
            batch = list(self._replicas[replica].waiting)
            self._replicas[replica].waiting.clear()
            took = self._times.fixed + len(batch) * self._times.each + ROUND_TRIPS * NETWORK
            self._after(took, "committed", replica, batch)

    def _committed(self, replica: int, batch: list[tuple[str, int]]) -> None:
        each = self._replicas[replica]
        self._locks += 1
        each.writes = False
        for what, _ in batch:
            if what == "charge":
                each.computing += 1
                if each.computing == 1:
                    self._after(self._times.answer, "computed", replica)
            else:
                self._kept += 1
                each.waiting.append(("charge", replica))  # the caller asks again
        self._ask(replica)
        self._begin()

    def _computed(self, replica: int) -> None:
        each = self._replicas[replica]
        each.computing -= 1
        if each.computing:
            self._after(self._times.answer, "computed", replica)
        each.waiting.append(("keep", replica))
        self._ask(replica)

    def _after(
        self, seconds: float, what: str, replica: int, batch: list[tuple[str, int]] | None = None
    ) -> None:
        self._number += 1
        event = (self._now + seconds, self._number, what, replica, batch or [])
        heapq.heappush(self._events, event)
