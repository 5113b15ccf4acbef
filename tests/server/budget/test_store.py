"""Charges to both kinds of database: what is granted, what is refused, what is kept."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attnpriv.errors import InputError
from attnpriv_server.budget import database as databases
from attnpriv_server.budget.accounts import FOR_EVER, Account, Allowance, Period, Relation, Unit
from attnpriv_server.budget.database import StoreDownError, open_database
from attnpriv_server.budget.requests import Charge, Receipt
from attnpriv_server.budget.schema import metadata
from attnpriv_server.budget.store import Reason, Store
from tests.server.budget.charges import BOT, charge

NEW, REPEATED = Receipt(False), Receipt(True)


def one(store: Store, wanted: Charge, second: int = 0) -> Receipt | Reason:
    (result,) = store.charge_all([wanted], second)
    return result


def spent(store: Store, account: Account = BOT) -> dict[tuple[int, int], int]:
    """What an account has spent, by the beginning and the length of the window."""
    return {
        (each.window.starts, each.window.seconds): each.spent
        for each in store.usage()
        if each.account == account
    }


def test_the_limit_can_be_spent_and_not_a_millionth_more(store: Store) -> None:
    assert one(store, charge(60)) == NEW
    assert one(store, charge(41)) is Reason.EXHAUSTED
    assert one(store, charge(40)) == NEW
    assert one(store, charge(1)) is Reason.EXHAUSTED

    (usage,) = store.usage()
    assert (usage.account, usage.unit, usage.window) == (BOT, Unit.EPSILON, FOR_EVER)
    assert (usage.allowed, usage.spent, usage.charges) == (100, 100, 2)


def test_charges_of_one_transaction_are_settled_in_turn(store: Store) -> None:
    first = charge(50)

    results = store.charge_all([first, charge(51), charge(50), first, charge(1)], 0)

    assert results == [NEW, Reason.EXHAUSTED, NEW, REPEATED, Reason.EXHAUSTED]
    assert spent(store) == {(0, 0): 100}


def test_a_repeat_costs_nothing_even_when_nothing_is_left(store: Store) -> None:
    first = charge(100)
    assert one(store, first) == NEW
    assert [one(store, first) for _ in range(3)] == [REPEATED] * 3
    assert store.keep_all([(first, b"drawn once")]) == [b"drawn once"]

    assert one(store, first, second=10**9) == Receipt(True, b"drawn once")
    assert spent(store) == {(0, 0): 100}


def test_the_first_answer_stays(store: Store) -> None:
    first, other = charge(), charge()
    store.charge_all([first, other], 0)

    assert store.keep_all([(first, b"1"), (other, b"2"), (first, b"3")]) == [b"1", b"2", b"1"]
    assert store.keep_all([(first, b"4")]) == [b"1"]
    assert one(store, other) == Receipt(True, b"2")


@pytest.mark.parametrize(
    "changed",
    [
        {"content": bytes(range(32))},
        {"cost": 2},
        {"account": replace(BOT, model="other")},
        {"account": replace(BOT, relation=Relation.ANY)},
    ],
    ids=["content", "cost", "model", "relation"],
)
def test_a_request_id_serves_one_request(store: Store, changed) -> None:
    first = charge()
    one(store, first)

    assert one(store, replace(first, **changed)) is Reason.CONFLICT
    assert sum(each.spent for each in store.usage()) == 1


def test_a_refused_request_may_come_again(store: Store) -> None:
    wanted = charge(101)
    assert one(store, wanted) is Reason.EXHAUSTED

    assert one(store, replace(wanted, allowance=Allowance(101, Unit.EPSILON))) == NEW


def test_accounts_count_apart(store: Store) -> None:
    accounts = [
        Account(principal, model, relation)
        for principal in ("bot", "Bot")
        for model in ("mail", "mail2")
        for relation in Relation
    ]
    charges = [charge(number + 1, account) for number, account in enumerate(accounts)]

    assert store.charge_all(charges, 0) == [NEW] * 12
    assert {each.account: each.spent for each in store.usage()} == {
        account: number + 1 for number, account in enumerate(accounts)
    }


def test_an_account_keeps_its_unit(store: Store) -> None:
    in_rho = charge(allowance=Allowance(100, Unit.RHO))
    assert one(store, charge()) == NEW

    assert one(store, in_rho) is Reason.UNIT
    assert store.charge_all([in_rho, charge()], 0) == [Reason.UNIT, NEW]
    assert spent(store) == {(0, 0): 2}


def test_a_new_period_begins_with_nothing_spent(store: Store) -> None:
    daily = Allowance(100, Unit.EPSILON, Period(10, epoch=3))
    seconds = [(3, NEW), (12, Reason.EXHAUSTED), (13, NEW), (22, Reason.EXHAUSTED), (23, NEW)]

    assert [(at, one(store, charge(60, allowance=daily), at)) for at, _ in seconds] == seconds
    assert spent(store) == {(3, 10): 60, (13, 10): 60, (23, 10): 60}


def test_a_clock_that_goes_back_gives_nothing_back(store: Store) -> None:
    daily = Allowance(100, Unit.EPSILON, Period(10))
    assert one(store, charge(100, allowance=daily), 5) == NEW
    assert one(store, charge(100, allowance=daily), 15) == NEW

    assert one(store, charge(1, allowance=daily), 9) is Reason.EXHAUSTED


def test_another_period_misses_nothing_that_was_spent_in_it(store: Store) -> None:
    def under(seconds: int | None, cost: int, at: int) -> Receipt | Reason:
        period = None if seconds is None else Period(seconds)
        return one(store, charge(cost, allowance=Allowance(100, Unit.EPSILON, period)), at)

    assert under(10, 30, 5) == NEW
    assert under(10, 30, 15) == NEW
    assert under(100, 41, 16) is Reason.EXHAUSTED  # 60 were spent in these hundred seconds
    assert under(100, 20, 17) == NEW  # and in these ten now 50
    assert under(10, 51, 18) is Reason.EXHAUSTED
    assert under(10, 10, 105) == NEW
    assert under(None, 11, 110) is Reason.EXHAUSTED
    assert under(None, 10, 110) == NEW
    assert spent(store) == {(0, 10): 30, (10, 10): 50, (0, 100): 80, (100, 10): 10, (0, 0): 100}


def test_a_lowered_limit_counts_what_was_spent_before(store: Store) -> None:
    one(store, charge(60))

    assert one(store, charge(1, allowance=Allowance(60, Unit.EPSILON))) is Reason.EXHAUSTED
    assert one(store, charge(1, allowance=Allowance(61, Unit.EPSILON))) == NEW
    assert store.usage()[0].allowed == 61


@settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["bot", "other"]),
            st.integers(1, 60),
            st.integers(0, 5),  # which request
            st.integers(0, 12),  # seconds that go by first
            st.booleans(),  # whether it begins a transaction
        ),
        max_size=30,
    )
)
def test_any_sequence_does_as_a_simple_count_says(store: Store, steps) -> None:
    """Against a second implementation, which adds up all that was granted."""
    names, allowance = {}, Allowance(100, Unit.EPSILON, Period(20))
    batches: list[tuple[int, list[Charge]]] = []
    second, salt = 0, charge().request_id
    for principal, cost, number, passed, begins in steps:
        if begins or not batches:
            second += passed
            batches.append((second, []))
        account = Account(f"{principal}-{salt}", "mail", Relation.SPAN)
        batches[-1][1].append(charge(cost, account, allowance, f"{salt}-{number}"))

    for at, batch in batches:
        for wanted, result in zip(batch, store.charge_all(batch, at), strict=True):
            before = names.get(wanted.key)
            window = at - at % 20
            granted = [
                each.cost
                for each, when in names.values()
                if each.account == wanted.account and when == window
            ]
            if before is not None:
                expected = REPEATED if before[0].cost == wanted.cost else Reason.CONFLICT
            elif sum(granted) + wanted.cost > 100:
                expected = Reason.EXHAUSTED
            else:
                expected, names[wanted.key] = NEW, (wanted, window)
            assert result == expected
    counted = Counter()
    for wanted, window in names.values():
        counted[wanted.account, window] += wanted.cost
    found = {
        (each.account, each.window.starts): each.spent
        for each in store.usage()
        if each.account.principal.endswith(salt) and each.spent
    }
    assert found == counted


def test_many_threads_spend_the_limit_exactly(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: one(store, charge()), range(160)))

    assert Counter(map(str, results)) == {str(NEW): 100, "exhausted": 60}
    assert spent(store) == {(0, 0): 100}


def test_one_request_from_many_threads_is_charged_once(store: Store) -> None:
    same = charge(50)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: one(store, same), range(40)))

    assert Counter(map(str, results)) == {str(NEW): 1, str(REPEATED): 39}
    assert spent(store) == {(0, 0): 50}


# The database


def test_what_was_spent_is_there_when_it_is_opened_again(url: str) -> None:
    first = charge(60)
    for expected in (NEW, REPEATED, REPEATED):
        store = Store(open_database(url, create=True))
        assert one(store, first) == expected
        store.close()


def test_the_migrations_make_the_tables_that_the_code_uses(url: str) -> None:
    database = open_database(url, create=True)

    found = database.read(
        lambda connection: compare_metadata(MigrationContext.configure(connection), metadata)
    )
    database.close()

    assert found == []


def test_servers_that_start_together_make_the_tables_once(url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: open_database(url, create=True), range(4)))

    for database in made:
        database.close()


def test_tables_of_a_newer_version_are_refused(url: str) -> None:
    database = open_database(url, create=True)
    newer = sa.text("UPDATE alembic_version SET version_num = '9999'")
    database.write(lambda connection: connection.execute(newer) and None)
    database.close()

    with pytest.raises(InputError, match="made by another version"):
        open_database(url, create=True)


def test_nothing_is_made_where_only_reading_was_asked_for(url: str) -> None:
    with pytest.raises(InputError, match="there is no budget"):
        open_database(url, create=False)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "budget.db",
        "mysql://bot:secret@host/name",
        "postgresql+asyncpg://bot:secret@host/name",
        "postgresql://bot:secret@host:port/name",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///budget.db?mode=memory",
    ],
)
def test_other_urls_are_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(InputError, match="expected a budget URL such as") as caught:
        open_database(url, create=True)
    assert "secret" not in str(caught.value)


def test_a_folder_that_is_not_there_is_bad_input(folder: Path) -> None:
    with pytest.raises(OSError, match="No such file") as caught:
        open_database(f"sqlite:///{folder}/missing/budget.db", create=True)
    assert caught.value.filename


def test_a_file_that_is_no_database_is_refused(folder: Path) -> None:
    (folder / "budget.db").write_text("not a database" * 100)
    with pytest.raises(InputError, match="cannot use the budget database"):
        open_database(f"sqlite:///{folder}/budget.db", create=True)


def test_only_the_owner_may_read_the_file(folder: Path) -> None:
    store = Store(open_database(f"sqlite:///{folder}/budget.db", create=True))
    one(store, charge())

    found = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    store.close()

    names = ("budget.db", "budget.db-wal", "budget.db-shm", "budget.db-lock")
    assert found == dict.fromkeys(names, 0o600)


def test_sqlite_syncs_every_commit(folder: Path) -> None:
    database = open_database(f"sqlite:///{folder}/budget.db", create=True)

    def setting(name: str) -> object:
        return database.read(lambda c: c.exec_driver_sql(f"PRAGMA {name}").scalar())

    found = {name: setting(name) for name in ("journal_mode", "synchronous", "wal_autocheckpoint")}
    database.close()

    assert found == {"journal_mode": "wal", "synchronous": 2, "wal_autocheckpoint": 0}


def test_sqlites_log_does_not_grow_for_ever(folder: Path) -> None:
    store = Store(open_database(f"sqlite:///{folder}/budget.db", create=True))
    sizes = []
    for _ in range(5 * databases.COMMITS):
        one(store, charge(allowance=Allowance(10**6, Unit.EPSILON)))
        sizes.append((folder / "budget.db-wal").stat().st_size)
    store.close()

    assert max(sizes) < 1.2 * max(sizes[: databases.COMMITS])


def test_another_process_that_holds_the_lock_takes_the_store_down(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(open_database(f"sqlite:///{folder}/budget.db", create=True))
    monkeypatch.setattr(databases, "WAIT_SECONDS", 0.1)

    with (
        databases._locked(folder / "budget.db-lock"),
        pytest.raises(StoreDownError, match="another process holds its lock"),
    ):
        one(store, charge())

    assert one(store, charge()) == NEW
    store.close()


@contextmanager
def setting(url: str, name: str, value: str) -> Iterator[None]:
    """A setting of the whole server, once it holds for new connections and as long as the block."""

    def say(command: str) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"ALTER SYSTEM {command}")
            connection.execute("SELECT pg_reload_conf()")

    def shown() -> str:
        with psycopg.connect(url) as connection:
            return connection.execute(f"SHOW {name}").fetchone()[0]

    before = shown()
    say(f"SET {name} = {value}")
    while shown() != value:
        time.sleep(0.01)
    try:
        yield
    finally:
        say(f"RESET {name}")
        while shown() != before:
            time.sleep(0.01)


def test_postgresql_that_does_not_wait_for_the_disk_is_made_to(postgres) -> None:
    with setting(postgres.url, "synchronous_commit", "off"):
        database = open_database(postgres.url, create=True)
        show = sa.text("SHOW synchronous_commit")
        found = database.read(lambda connection: connection.execute(show).scalar())
        database.close()

    assert found == "on"


@pytest.mark.parametrize("name", ["fsync", "full_page_writes"])
def test_postgresql_that_does_not_sync_is_refused(postgres, name: str) -> None:
    with (
        setting(postgres.url, name, "off"),
        pytest.raises(InputError, match=f"the server has {name} off"),
    ):
        open_database(postgres.url, create=True)
