"""Paying for answers in an event loop: charged, drawn, kept; what callers and metrics are told."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest

from attnpriv_server.budget.accounts import Allowance, Period, Unit
from attnpriv_server.budget.batching import Batches
from attnpriv_server.budget.charging import Budget
from attnpriv_server.budget.requests import Receipt
from attnpriv_server.domain import Code, RefusedError
from attnpriv_server.telemetry import Telemetry
from tests.server.budget.charges import BOT, charge

DAY = 24 * 60 * 60


class Clock:
    """Tells the time that the test has set."""

    second = 1_795_996_800.5  # just after the midnight that begins 30 November 2026

    def __call__(self) -> float:
        return self.second


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def budget(url: str, telemetry: Telemetry, clock: Clock) -> Iterator[Budget]:
    opened = Budget.open(url, telemetry, clock)
    yield opened
    opened.close()


def counted(telemetry: Telemetry) -> dict[str, float]:
    """How many charges had which outcome."""
    return {
        sample.labels["outcome"]: sample.value
        for family in telemetry.registry.collect()
        for sample in family.samples
        if sample.name == "attnpriv_server_budget_charges_total"
    }


async def draw() -> bytes:
    return os.urandom(8)


async def not_drawn() -> bytes:
    raise AssertionError("an answer was drawn")


def refused(budget: Budget, wanted) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        asyncio.run(budget.answer(wanted, not_drawn))
    return caught.value


def test_equal_requests_get_the_same_bytes(budget, telemetry) -> None:
    same = charge(60)

    async def ask() -> set[bytes]:
        at_once = await asyncio.gather(*(budget.answer(same, draw) for _ in range(20)))
        return {*at_once, await budget.answer(same, not_drawn)}

    assert len(asyncio.run(ask())) == 1
    assert counted(telemetry) == {"charged": 1, "repeated": 20}


def test_an_answer_that_failed_stays_paid_for(budget, telemetry) -> None:
    wanted = charge(100)

    async def fail() -> bytes:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        asyncio.run(budget.answer(wanted, fail))

    assert refused(budget, charge()).status.code is Code.RESOURCE_EXHAUSTED
    assert len(asyncio.run(budget.answer(wanted, draw))) == 8
    assert counted(telemetry) == {"charged": 1, "exhausted": 1, "repeated": 1}


def test_what_is_exhausted_says_what_was_asked_and_when_the_period_ends(budget, clock) -> None:
    daily = Allowance(100, Unit.RHO, Period(DAY))
    asyncio.run(budget.charge(charge(70, allowance=daily)))

    told = refused(budget, charge(31, allowance=daily)).status

    assert told.code is Code.RESOURCE_EXHAUSTED
    assert told.message == (
        "the privacy budget has not enough left for 31 micro-rho in this period, "
        "which ends 2026-12-01T00:00:00Z"
    )
    assert told.retry_after is None  # or a stream would wait for it
    clock.second += DAY
    assert asyncio.run(budget.charge(charge(100, allowance=daily))) == Receipt(False)


def test_refusals_of_two_remainders_read_the_same(budget) -> None:
    asyncio.run(budget.charge(charge(1)))
    first = refused(budget, charge(100)).status
    asyncio.run(budget.charge(charge(98)))

    assert refused(budget, charge(100)).status == first
    assert first.message.endswith("in this period, which has no end")


def test_a_request_id_that_was_used_is_refused(budget, telemetry) -> None:
    first = charge()
    asyncio.run(budget.charge(first))

    told = refused(budget, replace(first, content=bytes(32))).status

    assert told.code is Code.ALREADY_EXISTS
    assert first.request_id not in told.message
    assert counted(telemetry) == {"charged": 1, "conflict": 1}


def test_the_other_unit_is_refused(budget, telemetry) -> None:
    asyncio.run(budget.charge(charge()))

    told = refused(budget, charge(allowance=Allowance(100, Unit.RHO))).status

    assert told.code is Code.UNAVAILABLE
    assert counted(telemetry) == {"charged": 1, "unit": 1}


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_store_that_is_down_releases_nothing_and_then_goes_on(
    budget, postgres, telemetry
) -> None:
    asyncio.run(budget.charge(charge()))
    postgres.crash()
    try:
        told = refused(budget, charge()).status
    finally:
        postgres.start()

    assert told.code is Code.UNAVAILABLE
    assert "nothing is released" in told.message
    assert counted(telemetry) == {"charged": 1, "store": 1}
    assert asyncio.run(budget.charge(charge(99))) == Receipt(False)


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_connection_that_was_cut_is_replaced_unseen(budget, postgres) -> None:
    asyncio.run(budget.charge(charge()))
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )

    assert asyncio.run(budget.charge(charge())) == Receipt(False)


def test_what_comes_during_a_commit_shares_the_next_one() -> None:
    settled: list[int] = []

    def settle(items: Sequence[int]) -> Sequence[int]:
        settled.append(len(items))
        may_end.wait()
        return items

    may_end = threading.Event()

    async def settle_many() -> list[int]:
        with ThreadPoolExecutor(1) as pool:
            batches = Batches[int, int](settle, pool)
            first = asyncio.gather(*(batches.settle(number) for number in range(3)))
            while not settled:
                await asyncio.sleep(0)  # the loop turns while the first are settled
            others = asyncio.gather(*(batches.settle(number) for number in range(3, 300)))
            await asyncio.sleep(0)
            may_end.set()
            return [*await first, *await others]

    assert asyncio.run(settle_many()) == list(range(300))
    assert settled == [3, 256, 41]


def test_callers_that_a_commit_woke_share_the_next_one() -> None:
    settled: list[int] = []

    def settle(items: Sequence[None]) -> Sequence[None]:
        settled.append(len(items))
        return items

    async def settle_again_and_again() -> None:
        with ThreadPoolExecutor(1) as pool:
            batches = Batches[None, None](settle, pool)

            async def call() -> None:
                for _ in range(5):
                    await batches.settle(None)

            await asyncio.gather(*(call() for _ in range(64)))

    asyncio.run(settle_again_and_again())

    assert settled == [64] * 5


def test_a_caller_that_leaves_before_its_turn_is_not_charged(budget) -> None:
    async def leave() -> None:
        first = asyncio.ensure_future(budget.charge(charge(1)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # now it is under way, and the next one waits
        second = asyncio.ensure_future(budget.charge(charge(10)))
        await asyncio.sleep(0)
        for task in (first, second):
            task.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        await budget.charge(charge(1))

    asyncio.run(leave())

    assert [each.spent for each in budget._store.usage()] == [2]


def test_metrics_and_refusals_name_nobody(budget, telemetry) -> None:
    asyncio.run(budget.charge(charge(account=replace(BOT, principal="tell-tale"))))
    told = str(refused(budget, charge(101, account=replace(BOT, principal="tell-tale"))))

    samples = [sample for family in telemetry.registry.collect() for sample in family.samples]
    assert "tell-tale" not in told + repr(samples)
    assert "mail" not in told + repr(samples)
