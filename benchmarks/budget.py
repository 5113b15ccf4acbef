"""Charges a second to the privacy budget, by database and number of callers.

Rounds of all contenders alternate, each with a fresh account, and every round first measures the
limit: how often a second the same disk syncs a page that is written over. ``answers`` also keep an
answer of 512 bytes, which is a second transaction. The PostgreSQL server is the tests' own, on the
same disk. Where other work keeps the processor, its microseconds for each charge (without those of
PostgreSQL's processes) say more than charges a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

from attnpriv_server.budget.accounts import Account, Allowance, Relation, Unit
from attnpriv_server.budget.charging import Budget
from attnpriv_server.budget.requests import Charge
from attnpriv_server.telemetry import Telemetry
from tests.server.budget.postgres import PostgresServer

CALLERS = (1, 64)
AIM = 5000  # charges a second
PAGE = bytes(4096)
ANSWER = bytes(512)
ALLOWANCE = Allowance(10**12, Unit.EPSILON)

DATABASES = ("sqlite", "postgresql")

Pay = Callable[[Charge], Awaitable[object]]
Round = dict[str, tuple[float, float]]


def main() -> None:
    """Measure; print a line for each round and JSON at the end."""
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.budget")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each contender in a round")
    parser.add_argument("--folder", type=Path, default=Path("/tmp"), help="on the disk to measure")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as made:
        server = PostgresServer(arguments.folder)
        try:
            rounds = _rounds(Path(made), server.url, arguments.rounds, arguments.seconds)
        finally:
            server.close()
    print(json.dumps(_result(rounds)))


def _rounds(folder: Path, postgres: str, count: int, seconds: float) -> list[Round]:
    urls = (f"sqlite:///{folder}/budget.db", postgres)
    opened = (Budget.open(url, Telemetry()) for url in urls)
    budgets = dict(zip(DATABASES, opened, strict=True))
    rounds: list[Round] = []
    for _ in range(count):
        found = {"syncs": (_syncs(folder / "page", seconds / 2), 0.0)}
        for name, budget in budgets.items():
            for callers in CALLERS:
                for what, pay in _ways(budget).items():
                    found[f"{name} {what} {callers}"] = asyncio.run(_rate(pay, callers, seconds))
        rounds.append(found)
        print({name: round(rate) for name, (rate, _) in found.items()}, flush=True)
    for budget in budgets.values():
        budget.close()
    return rounds


def _ways(budget: Budget) -> dict[str, Pay]:
    async def draw() -> bytes:
        return ANSWER

    return {"charges": budget.charge, "answers": lambda charge: budget.answer(charge, draw)}


async def _rate(pay: Pay, callers: int, seconds: float) -> tuple[float, float]:
    """Payments a second, and microseconds of the processor for each."""
    account = Account(str(uuid.uuid4()), "mail", Relation.SPAN)
    started, busy = time.perf_counter(), time.process_time()

    async def call() -> int:
        paid = 0
        while time.perf_counter() - started < seconds:
            await pay(Charge(account, ALLOWANCE, 1, str(uuid.uuid4()), bytes(32)))
            paid += 1
        return paid

    paid = sum(await asyncio.gather(*(call() for _ in range(callers))))
    busy = time.process_time() - busy
    return paid / (time.perf_counter() - started), busy / paid * 1e6


def _syncs(path: Path, seconds: float) -> float:
    """How often a second the disk syncs a page that is written over."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
    os.pwrite(descriptor, PAGE, 0)
    os.fsync(descriptor)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        os.pwrite(descriptor, PAGE, 0)
        os.fdatasync(descriptor)
        count += 1
    os.close(descriptor)
    return count / (time.perf_counter() - started)


def _result(rounds: list[Round]) -> dict[str, object]:
    rates, microseconds = (
        {
            name: round(statistics.median(each[name][which] for each in rounds), 1)
            for name in rounds[0]
        }
        for which in (0, 1)
    )
    reached = {name: rates[f"{name} charges {CALLERS[-1]}"] >= AIM for name in DATABASES}
    return {
        "benchmark": "budget",
        "device": f"cpu {platform.processor()}".strip(),
        "a_second": rates,
        "microseconds_of_processor": microseconds,
        "aim": AIM,
        "reached": reached,
        "rounds": [{name: round(rate, 1) for name, (rate, _) in each.items()} for each in rounds],
    }


if __name__ == "__main__":
    main()
