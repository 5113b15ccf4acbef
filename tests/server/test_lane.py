"""The worker thread behind the queue: what callers of an event loop get, and when."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from attnpriv_server.domain import Code, Deadline, RefusedError
from attnpriv_server.lane import LONGEST_RETRY, SHORTEST_RETRY, Lane
from attnpriv_server.queueing import Batching
from attnpriv_server.telemetry import Telemetry


@dataclass(frozen=True)
class Named:
    name: str


MODEL = Named("model")


class Gate:
    """A computation that can be held up, and that tells which batches it was given."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.begun = threading.Semaphore(0)
        self.batches: list[list[int]] = []

    def __call__(self, model: Named, payloads: list[int]) -> list[int | Exception]:
        self.batches.append(list(payloads))
        self.begun.release()
        assert self.open.wait(30)
        if any(payload < 0 for payload in payloads):
            raise ValueError("a negative payload")
        return [ArithmeticError("odd") if each == 13 else each * each for each in payloads]


@contextmanager
def lane(gate: Gate, workers: int = 1, **batching: int) -> Iterator[Lane]:
    made = Lane("predict", gate, Batching(**batching), Telemetry(), workers)
    try:
        yield made
    finally:
        gate.open.set()
        made.close()


def ask(made: Lane, *payloads: int, who: str = "a", seconds: float | None = 30):
    return made.compute(MODEL, [(each, 8) for each in payloads], who, Deadline(seconds))


async def begun(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.begun.acquire, timeout=30)


def test_results_come_in_the_order_of_the_rows_whatever_the_batches() -> None:
    async def run() -> None:
        with lane(Gate(), token_budget=24) as made:
            many = [ask(made, *range(start, start + 10)) for start in (20, 40, 60)]
            for start, found in zip((20, 40, 60), await asyncio.gather(*many), strict=True):
                assert found == [each * each for each in range(start, start + 10)]

    asyncio.run(run())


def test_requests_that_wait_share_a_batch() -> None:
    async def run() -> None:
        gate = Gate()
        gate.open.clear()
        with lane(gate, token_budget=64) as made:
            first = asyncio.create_task(ask(made, 1))
            await begun(gate)
            others = [asyncio.create_task(ask(made, each)) for each in (2, 3, 4)]
            await asyncio.sleep(0)
            gate.open.set()
            assert await asyncio.gather(first, *others) == [[1], [4], [9], [16]]
            assert gate.batches == [[1], [2, 3, 4]]

    asyncio.run(run())


def test_a_row_that_fails_fails_its_own_request_only() -> None:
    async def run() -> None:
        gate = Gate()
        gate.open.clear()
        with lane(gate) as made:
            asks = [ask(made, 1), ask(made, 2), ask(made, -3), ask(made, 4, 13), ask(made, 5)]
            tasks = [asyncio.create_task(each) for each in asks]
            await begun(gate)
            gate.open.set()
            found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [found[i] for i in (0, 1, 4)] == [[1], [4], [25]]
        assert isinstance(found[2], ValueError)
        assert isinstance(found[3], ArithmeticError)

    asyncio.run(run())


@pytest.mark.parametrize("how", ["deadline", "cancel"])
def test_who_does_not_wait_any_more_is_not_computed(how) -> None:
    async def run() -> None:
        gate = Gate()
        gate.open.clear()
        with lane(gate, token_budget=8) as made:
            first = asyncio.create_task(ask(made, 1))
            await begun(gate)
            second = asyncio.create_task(ask(made, 2, seconds=0.05 if how == "deadline" else 30))
            await asyncio.sleep(0)
            if how == "cancel":
                second.cancel()
            found = (await asyncio.gather(second, return_exceptions=True))[0]
            third = asyncio.create_task(ask(made, 3))
            await asyncio.sleep(0)
            gate.open.set()
            assert await asyncio.gather(first, third) == [[1], [9]]
            if how == "deadline":
                assert isinstance(found, RefusedError)
                assert found.status.code is Code.DEADLINE_EXCEEDED
            else:
                assert isinstance(found, asyncio.CancelledError)
        assert gate.batches == [[1], [3]]

    asyncio.run(run())


def test_a_full_lane_refuses_at_once_and_says_when_to_try_again() -> None:
    async def run() -> None:
        gate = Gate()
        gate.open.clear()
        with lane(gate, capacity=2) as made:
            first = asyncio.create_task(ask(made, 1))
            await begun(gate)
            second = asyncio.create_task(ask(made, 2, 3))
            await asyncio.sleep(0)
            with pytest.raises(RefusedError) as caught:
                await ask(made, 4)
            assert caught.value.status.code is Code.RESOURCE_EXHAUSTED
            assert SHORTEST_RETRY <= caught.value.status.retry_after <= LONGEST_RETRY
            gate.open.set()
            assert await asyncio.gather(first, second) == [[1], [4, 9]]

    asyncio.run(run())


def test_a_newcomer_takes_a_place_of_whoever_fills_the_queue() -> None:
    async def run() -> None:
        gate = Gate()
        gate.open.clear()
        with lane(gate, capacity=4, token_budget=8) as made:
            first = asyncio.create_task(ask(made, 1))
            await begun(gate)
            flood = [asyncio.create_task(ask(made, each, who="flood")) for each in range(2, 6)]
            await asyncio.sleep(0)
            polite = asyncio.create_task(ask(made, 6, who="polite"))
            await asyncio.sleep(0)
            gate.open.set()
            assert await asyncio.gather(first, polite, *flood[:3]) == [[1], [36], [4], [9], [16]]
            with pytest.raises(RefusedError, match="too many requests"):
                await flood[3]

    asyncio.run(run())


def test_closing_computes_what_waits_and_takes_no_more() -> None:
    async def run() -> None:
        gate = Gate()
        gate.open.clear()
        with lane(gate, token_budget=8) as made:
            tasks = [asyncio.create_task(ask(made, each)) for each in (1, 2, 3)]
            await begun(gate)
            closing = asyncio.create_task(asyncio.to_thread(made.close))
            while not made._closing:
                await asyncio.sleep(0.001)
            with pytest.raises(RefusedError) as caught:
                await ask(made, 4)
            assert caught.value.status.code is Code.UNAVAILABLE
            gate.open.set()
            assert await asyncio.gather(*tasks) == [[1], [4], [9]]
            await closing

    asyncio.run(run())


def test_as_many_batches_are_under_way_as_there_are_workers() -> None:
    async def run() -> None:
        gate = Gate()
        gate.open.clear()
        with lane(gate, workers=3, token_budget=16) as made:
            # One request, of more rows than three batches hold: whoever takes one wakes the next.
            many = asyncio.create_task(ask(made, *range(1, 9)))
            for _ in range(3):
                await begun(gate)
            assert sorted(gate.batches) == [[1, 2], [3, 4], [5, 6]]
            gate.open.set()
            assert await many == [each * each for each in range(1, 9)]

    asyncio.run(run())


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_several_workers_compute_each_row_once_and_none_after_the_lane_is_closed(workers) -> None:
    async def run() -> None:
        gate = Gate()
        with lane(gate, workers, token_budget=24) as made:
            asks = [ask(made, 100 * i, 100 * i + 1, who=str(i % 5)) for i in range(1, 200)]
            found = await asyncio.gather(*asks)
        assert found == [[(100 * i) ** 2, (100 * i + 1) ** 2] for i in range(1, 200)]
        rows = sorted(row for batch in gate.batches for row in batch)
        assert rows == sorted(100 * i + j for i in range(1, 200) for j in (0, 1))
        assert not any(worker.is_alive() for worker in made._workers)

    asyncio.run(run())


def test_closing_waits_for_every_worker() -> None:
    async def run() -> None:
        gate = Gate()
        gate.open.clear()
        with lane(gate, workers=2, token_budget=8) as made:
            asks = [asyncio.create_task(ask(made, each)) for each in (2, 3, 4)]
            await begun(gate)
            await begun(gate)
            closing = asyncio.create_task(asyncio.to_thread(made.close))
            await asyncio.sleep(0.05)
            assert not closing.done()
            gate.open.set()
            await closing
            assert await asyncio.gather(*asks) == [[4], [9], [16]]

    asyncio.run(run())
