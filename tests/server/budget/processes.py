"""Processes that charge a budget together, or are killed while they do; run as a module.

It runs apart from the tests, where no thread is in the way of a fork. The only argument is JSON,
``{"kill": {...}}`` or ``{"race": {...}}``; what was answered is printed as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import sqlalchemy as sa

from attnpriv.errors import InputError
from attnpriv_server.budget.accounts import Allowance, Unit
from attnpriv_server.budget.charging import Budget
from attnpriv_server.budget.database import open_database
from attnpriv_server.budget.store import Store
from attnpriv_server.domain import Code, RefusedError
from attnpriv_server.telemetry import Telemetry
from tests.server.budget.charges import charge

PLENTY = Allowance(10**9, Unit.EPSILON)
ANSWER_BYTES = 16


def request_id(*names: object) -> str:
    return "-".join(["a request of a test", *map(str, names)])


def kill(url: str, kills: int, seed: int) -> list[list[str]]:
    """Kill one child after another at a random moment; the answers that each was seen to give."""
    chance = random.Random(seed)
    return [_killed(url, number, chance) for number in range(kills)]


def _killed(url: str, number: int, chance: random.Random) -> list[str]:
    reading, writing = os.pipe()
    pid = _forked(lambda: _answer_for_ever(url, number, writing))
    os.close(writing)
    with os.fdopen(reading, encoding="ascii") as lines:
        wanted = chance.choice((0, 1, 2, 5))
        # Readline would wait for a whole block, and so for many more answers.
        seen = [lines.readline().strip() for _ in range(wanted)]
        time.sleep(chance.uniform(0, 0.02 if wanted == 0 else 0.004))
        os.kill(pid, signal.SIGKILL)
        seen += [line.strip() for line in lines]
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), f"the child ended by itself with {status}"
    return seen


def _answer_for_ever(url: str, number: int, writing: int) -> None:
    budget = Budget(Store(open_database(url, create=False)), Telemetry())

    async def answer() -> None:
        for count in range(10**6):
            wanted = charge(allowance=PLENTY, request_id=request_id(number, count))
            answer = await budget.answer(wanted, _draw)
            os.write(writing, f"{answer.hex()}\n".encode())

    asyncio.run(answer())


async def _draw() -> bytes:
    return os.urandom(ANSWER_BYTES)


def race(url: str, processes: int, callers: int, cuts: bool) -> list[list[str]]:
    """The answers that each process got before the budget was spent."""
    readers = []
    for number in range(processes):
        reading, writing = os.pipe()
        _forked(lambda number=number, writing=writing: _spend(url, number, callers, cuts, writing))
        os.close(writing)
        readers.append(os.fdopen(reading, encoding="ascii"))
    answers = []
    for reader in readers:
        with reader:
            answers.append(json.loads(reader.read()))
    for _ in readers:
        assert os.wait()[1] == 0
    return answers


def _spend(url: str, number: int, callers: int, cuts: bool, writing: int) -> None:
    if cuts and url.startswith("sqlite"):
        _cut_commits(random.Random(number))
    budget = _opened(url)

    async def call(caller: int) -> list[str]:
        answers: list[str] = []
        while True:
            wanted = charge(request_id=request_id(number, caller, len(answers)))
            try:
                answers.append((await budget.answer(wanted, _draw)).hex())
            except RefusedError as refusal:
                if refusal.status.code is Code.RESOURCE_EXHAUSTED:
                    return answers
                if refusal.status.code is not Code.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.05)  # and ask the same again

    async def spend() -> list[list[str]]:
        return await asyncio.gather(*(call(caller) for caller in range(callers)))

    answers = [each for answers in asyncio.run(spend()) for each in answers]
    budget.close()
    os.write(writing, json.dumps(answers).encode())


def _opened(url: str) -> Budget:
    """A server that cannot start is started again."""
    while True:
        with suppress(InputError):
            return Budget.open(url, Telemetry())


def _cut_commits(chance: random.Random) -> None:
    """Have every other commit end in an error, half of these before and half after it came true."""

    def commit(connection: sa.Connection) -> None:
        cut = chance.random()
        if cut < 0.25:
            connection.connection.dbapi_connection.commit()
        if cut < 0.5:
            raise sa.exc.OperationalError("COMMIT", None, sqlite3.OperationalError("disk I/O"))

    sa.event.listen(sa.Engine, "commit", commit)


def _forked(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def main(task: dict[str, Any]) -> list[list[str]]:
    match task:
        case {"kill": arguments}:
            return kill(**arguments)
        case {"race": arguments}:
            return race(**arguments)
    raise AssertionError(task)


if __name__ == "__main__":
    json.dump(main(json.loads(sys.argv[1])), sys.stdout)
