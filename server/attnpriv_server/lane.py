"""Worker threads behind a fair queue: requests of an event loop in, batches computed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from attnpriv_server.domain import Code, Deadline, RefusedError
from attnpriv_server.memory import Returning
from attnpriv_server.queueing import Batching, FairQueue, Model, Row, Ticket
from attnpriv_server.telemetry import Telemetry

# Bounds of the seconds after which a full queue tells callers to try again: sooner would be too
# early, and later would trust the speed of the last batches too far.
SHORTEST_RETRY, LONGEST_RETRY = 0.05, 10.0
RATE_MEMORY = 32  # batches after which a change of speed has sunk in

LATE = (Code.DEADLINE_EXCEEDED, "the deadline has passed")

# (model, payloads) to one result each; a result that is an exception fails its own request only.
Compute = Callable[[Any, Sequence[Any]], Sequence[Any]]


class _Results:
    """The results that a request in an event loop waits for; use it in that loop's thread only."""

    def __init__(self, rows: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[list[Any]] = self.loop.create_future()
        self._results: list[Any] = [None] * rows
        self._missing = rows

    def give(self, index: int, result: Any) -> None:
        """Take one row's result. An exception ends the request, and later results are ignored."""
        self._results[index] = result
        self._missing -= 1
        if self.future.done():
            return
        if isinstance(result, Exception):
            self.future.set_exception(result)
        elif not self._missing:
            self.future.set_result(self._results)


class Lane:
    """Computes rows in batches, in threads of its own, each one batch at a time.

    Its requests come from one event loop.

    Args:
        name: in metrics.
        compute: computes a batch: (model, payloads) to one result a payload; called from as many
            threads at once as there are workers.
        batching: how rows are put together, and how many may wait.
        telemetry: told of waits, batches and refusals.
        workers: how many batches are computed at once.
    """

    def __init__(
        self,
        name: str,
        compute: Compute,
        batching: Batching,
        telemetry: Telemetry,
        workers: int = 1,
    ) -> None:
        self._name = name
        self._compute = compute
        self._telemetry = telemetry
        self._queue = FairQueue(batching)
        self._changed = threading.Condition()
        self._closing = False
        self._seconds_a_row = SHORTEST_RETRY
        telemetry.watch_queue(name, lambda: self._queue.waiting)
        self._workers = [
            threading.Thread(target=self._work, name=f"lane-{name}-{number}", daemon=True)
            for number in range(workers)
        ]
        for worker in self._workers:
            worker.start()

    def check_room(self, rows: int, principal: Hashable) -> None:
        """Refuse a request that ``compute`` would refuse now, before any work goes into its rows.

        Raises:
            RefusedError: the queue is full.
        """
        with self._changed:
            has_room = self._queue.has_room(principal, rows)
        if not has_room:
            self._telemetry.refused(self._name)
            raise self._full()

    async def compute(
        self,
        model: Model,
        rows: Sequence[tuple[Any, int]],
        principal: Hashable,
        deadline: Deadline,
    ) -> list[Any]:
        """Have the rows of a request computed.

        Args:
            model: what ``compute`` is to use; rows of one model share batches.
            rows: payloads and their lengths in tokens.
            principal: whose turn this uses up.
            deadline: past it, or once cancelled, rows leave the queue.

        Returns:
            One result a row, in their order.

        Raises:
            RefusedError: the queue is full, the deadline passed, or the lane is closing.
            Exception: what ``compute`` gave as the result of a row.
        """
        waiter = _Results(len(rows))
        ticket = Ticket(principal, deadline.end, waiter)
        now = time.monotonic()
        self._admit(
            ticket,
            [
                Row(ticket, index, model, length, payload, now)
                for index, (payload, length) in enumerate(rows)
            ],
        )
        try:
            async with asyncio.timeout(deadline.remaining()):
                return await waiter.future
        except TimeoutError:
            self._leave(ticket, "deadline")
            raise RefusedError(*LATE) from None
        except asyncio.CancelledError:
            self._leave(ticket, "cancelled")
            raise
        except Exception:
            self._leave(ticket, "failed")
            raise

    def close(self) -> None:
        """Take no more requests, compute those that wait, and stop."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.join()

    def _admit(self, ticket: Ticket, rows: Sequence[Row]) -> None:
        with self._changed:
            if self._closing:
                raise RefusedError(Code.UNAVAILABLE, "the server is stopping")
            evicted = self._queue.add(ticket, rows)
            self._changed.notify()
        if evicted is None:
            self._telemetry.refused(self._name)
            raise self._full()
        for other in evicted:
            self._telemetry.refused(self._name)
            _refuse(other, self._full())

    def _full(self) -> RefusedError:
        wait = self._queue.waiting * self._seconds_a_row / len(self._workers)
        return RefusedError(
            Code.RESOURCE_EXHAUSTED,
            "too many requests are waiting; try again later",
            retry_after=min(max(wait, SHORTEST_RETRY), LONGEST_RETRY),
        )

    def _leave(self, ticket: Ticket, reason: str) -> None:
        with self._changed:
            waited = self._queue.remove(ticket)
        if waited:
            self._telemetry.dropped(self._name, reason)

    def _work(self) -> None:
        freed = Returning()
        while batch := self._next_batch():
            started = time.monotonic()
            results = self._results(batch)
            self._record(batch, started)
            loop: asyncio.AbstractEventLoop = batch[0].ticket.owner.loop
            loop.call_soon_threadsafe(_deliver, batch, results)
            freed.when_due()

    def _next_batch(self) -> list[Row]:
        """Wait for work; empty once the lane closes and nobody waits any more."""
        with self._changed:
            while True:
                for late in self._queue.expired(time.monotonic()):
                    self._telemetry.dropped(self._name, "deadline")
                    _refuse(late, RefusedError(*LATE))
                if (batch := self._queue.take()) or self._closing:
                    if self._queue.waiting:
                        self._changed.notify()  # another worker: a request can make many batches
                    return batch
                self._changed.wait()

    def _results(self, batch: Sequence[Row]) -> Sequence[Any]:
        """Compute a batch. If that fails, compute each row alone, so that one fails no other."""
        try:
            return self._compute(batch[0].model, [row.payload for row in batch])
        except Exception as error:
            if len(batch) == 1:
                return [error]
            return [result for row in batch for result in self._results([row])]

    def _record(self, batch: Sequence[Row], started: float) -> None:
        seconds = time.monotonic() - started
        with self._changed:
            self._seconds_a_row += (seconds / len(batch) - self._seconds_a_row) / RATE_MEMORY
        tokens = sum(row.length for row in batch)
        self._telemetry.batch_finished(self._name, batch[0].model.name, len(batch), tokens, seconds)
        for row in batch:
            self._telemetry.waited(self._name, started - row.arrived)


def _deliver(batch: Sequence[Row], results: Sequence[Any]) -> None:
    for row, result in zip(batch, results, strict=True):
        row.ticket.owner.give(row.index, result)


def _refuse(ticket: Ticket, refusal: RefusedError) -> None:
    owner: _Results = ticket.owner
    owner.loop.call_soon_threadsafe(owner.give, 0, refusal)
