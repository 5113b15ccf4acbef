"""Kill -9, lost writes, races and cut connections: nothing is answered that was not paid for."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from attnpriv_server.budget.database import open_database
from attnpriv_server.budget.requests import Receipt
from attnpriv_server.budget.schema import requests
from attnpriv_server.budget.store import Store
from tests.server.budget.charges import HUNDRED, charge
from tests.server.budget.cutting import CuttingProxy
from tests.server.budget.postgres import PostgresServer
from tests.server.budget.processes import PLENTY, request_id

ROOT = Path(__file__).resolve().parents[3]
MINUTES = 60


def run(module: str, task: dict[str, Any], at_most: float = 5 * MINUTES) -> Any:
    """What the module prints, which has a process to itself."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.server.budget.{module}", json.dumps(task)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
        timeout=at_most,
    )
    return json.loads(done.stdout)


def stored(url: str) -> set[bytes]:
    """The keys of all requests in the store."""
    database = open_database(url, create=False)
    keys = database.read(lambda connection: set(connection.scalars(sa.select(requests.c.key))))
    database.close()
    return keys


@pytest.mark.parametrize("kills", [20, pytest.param(1000, marks=pytest.mark.exhaustive)])
def test_kills_at_random_moments(url: str, kills: int) -> None:
    open_database(url, create=True).close()
    seen = run("processes", {"kill": {"url": url, "kills": kills, "seed": kills}}, 60 * MINUTES)

    keys, store = stored(url), Store(open_database(url, create=False))
    assert sum(map(len, seen)) > kills / 2
    for number, answers in enumerate(seen):
        asked = [
            charge(allowance=PLENTY, request_id=request_id(number, count))
            for count in range(len(answers) + 2)
        ]
        # What was answered was charged and is kept, byte for byte.
        receipts = store.charge_all(asked[: len(answers)], 0)
        assert receipts == [Receipt(True, bytes.fromhex(answer)) for answer in answers]
        # At most one request was charged and not answered: the one under way.
        assert asked[-1].key not in keys
    charged = len(keys)
    assert 0 <= charged - sum(map(len, seen)) <= kills
    (usage,) = store.usage()
    store.close()
    assert usage.spent == usage.charges == charged


@contextmanager
def crashing(server: PostgresServer) -> Iterator[None]:
    """The server ends in the midst of its work, again and again, as long as the block runs."""
    over, chance = threading.Event(), random.Random(0)

    def crash() -> None:
        while not over.wait(chance.uniform(0.02, 0.2)):
            server.crash()
            server.start()

    thread = threading.Thread(target=crash)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def race(url: str, cuts: bool) -> list[str]:
    """The answers of four processes of 64 callers each, to a budget of a hundred charges."""
    task = {"url": url, "processes": 4, "callers": 64, "cuts": cuts}
    answers = run("processes", {"race": task})
    return [answer for each in answers for answer in each]


def check_a_hundred(url: str, answers: list[str]) -> None:
    assert len(answers) == len(set(answers)) == 100
    assert len(stored(url)) == 100
    store = Store(open_database(url, create=False))
    (usage,) = store.usage()
    store.close()
    assert (usage.spent, usage.charges, usage.allowed) == (100, 100, HUNDRED.limit)


@pytest.mark.parametrize("cuts", [False, True], ids=["whole", "cut"])
def test_four_processes_of_64_callers_share_a_hundred_charges(
    request: pytest.FixtureRequest, url: str, cuts: bool
) -> None:
    if not cuts or url.startswith("sqlite"):
        check_a_hundred(url, race(url, cuts))
        return
    open_database(url, create=True).close()
    server = request.getfixturevalue("postgres")
    proxy = CuttingProxy(server.port)
    try:
        answers = race(url.replace(str(server.port), str(proxy.port)), cuts)
    finally:
        proxy.close()
    assert proxy.cuts > 3
    check_a_hundred(url, answers)


@pytest.mark.exhaustive
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_database_server_that_crashes_loses_no_charge(url: str, postgres) -> None:
    open_database(url, create=True).close()
    with crashing(postgres):
        answers = race(url, cuts=False)

    check_a_hundred(url, answers)


@pytest.mark.parametrize("crashes", [300, pytest.param(3000, marks=pytest.mark.exhaustive)])
def test_lost_writes_lose_no_charge(tmp_path: Path, crashes: int) -> None:
    """A machine that loses power keeps what was synced and any part of what was not."""
    task = {"folder": str(tmp_path), "crashes": crashes, "synchronous": "FULL"}
    found = run("unsynced", task, 30 * MINUTES)
    if "missing" in found:
        pytest.skip(found["missing"])

    assert found["crashes"] == crashes
    assert found["lost"] == found["uneven"] == found["damaged"] == 0
    assert found["stranded"] > 0  # commits that came through and were never told


def test_without_syncs_lost_writes_do_lose_charges(tmp_path: Path) -> None:
    """The control: what the test above would find if commits did not wait for the disk."""
    task = {"folder": str(tmp_path), "crashes": 100, "synchronous": "NORMAL"}
    found = run("unsynced", task)
    if "missing" in found:
        pytest.skip(found["missing"])

    assert found["lost"] > 10
