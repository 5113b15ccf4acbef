"""``attnpriv-server budget``: tables for people, JSON and CSV for machines, errors in one line."""

from __future__ import annotations

import csv
import io
import json

import pytest

from attnpriv.command import run_command
from attnpriv_server.budget.accounts import Account, Allowance, Period, Relation, Unit
from attnpriv_server.budget.command import COLUMNS, budget_app
from attnpriv_server.budget.store import Store
from tests.server.budget.charges import charge

ALICE = Account("alice", "mail", Relation.SPAN)
BOB = Account("bob", "tickets", Relation.ANY)
ALICE_FOR_EVER = {
    "principal": "alice",
    "model": "mail",
    "relation": "span",
    "unit": "micro-epsilon",
    "starts": None,
    "ends": None,
    "allowed": 1_500_000,
    "spent": 250_001,
    "charges": 2,
}
BOB_IN_1970 = {
    "principal": "bob",
    "model": "tickets",
    "relation": "any",
    "unit": "micro-rho",
    "starts": "1970-01-01T00:00:00Z",
    "ends": "1970-01-02T00:00:00Z",
    "allowed": 1000,
    "spent": 1000,
    "charges": 1,
}


@pytest.fixture
def filled(store: Store, url: str) -> str:
    for_ever = Allowance(1_500_000, Unit.EPSILON)
    daily = Allowance(1000, Unit.RHO, Period(24 * 60 * 60))
    store.charge_all([charge(250_000, ALICE, for_ever), charge(1, ALICE, for_ever)], 0)
    store.charge_all([charge(1000, BOB, daily)], 0)
    return url


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["budget", *arguments])
        with pytest.raises(SystemExit) as ended:
            run_command(budget_app)
        return ended.value.code, *capsys.readouterr()

    return call


def test_show_prints_what_is_spent_and_left_now(run, filled, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    code, out, err = run("show", "--budget", filled)

    assert (code, err) == (0, "")
    line = next(line for line in out.splitlines() if "alice" in line)
    assert [cell.strip() for cell in line.strip("│").split("│")] == [
        "alice",
        "mail",
        "span",
        "for ever",
        "0.250001 ε",
        "1.500000 ε",
        "1.249999 ε",
        "2",
    ]
    assert "bob" not in out


def test_show_prints_past_periods_if_asked(run, filled) -> None:
    code, out, _ = run("show", "--budget", filled, "--past", "--json")

    assert code == 0
    assert json.loads(out) == {"budgets": [ALICE_FOR_EVER, BOB_IN_1970]}


def test_export_prints_everything_as_csv(run, filled) -> None:
    code, out, _ = run("export", "--budget", filled)

    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert tuple(rows[0]) == COLUMNS
    expected = [ALICE_FOR_EVER, BOB_IN_1970]
    assert rows == [
        {key: "" if value is None else str(value) for key, value in each.items()}
        for each in expected
    ]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--principal", "alice"], [ALICE_FOR_EVER]),
        (["--model", "tickets"], [BOB_IN_1970]),
        (["--relation", "any"], [BOB_IN_1970]),
        (["--principal", "bob", "--model", "mail"], []),
    ],
)
def test_export_can_be_narrowed_down(run, filled, options, found) -> None:
    code, out, _ = run("export", "--budget", filled, "--format", "json", *options)

    assert code == 0
    assert json.loads(out) == {"budgets": found}


def test_nothing_to_show_is_said(run, store, url) -> None:
    assert run("show", "--budget", url)[:2] == (
        0,
        "nothing was charged in a period that is running\n",
    )


def test_the_url_may_come_from_the_environment(run, filled, monkeypatch) -> None:
    monkeypatch.setenv("ATTNPRIV_BUDGET", filled)

    assert json.loads(run("show", "--json")[1]) == {"budgets": [ALICE_FOR_EVER]}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:///missing.db", "error: there is no budget at missing.db\n"),
        ("mysql://bot:secret@host/name", "error: expected a budget URL such as"),
        ("postgresql://bot:secret@127.0.0.1:1/name", "error: cannot use the budget database: "),
    ],
)
def test_what_cannot_be_used_is_one_line_and_exit_code_2(run, url, message) -> None:
    code, out, err = run("show", "--budget", url)

    assert (code, out) == (2, "")
    assert err.startswith(message)
    assert err.count("\n") == 1
    assert "secret" not in err
