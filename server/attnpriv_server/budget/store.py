"""The budget store: many charges in one transaction, over any of its databases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa

from attnpriv_server.budget.accounts import Account, Relation, Unit, Window
from attnpriv_server.budget.database import Database, StoreDownError
from attnpriv_server.budget.requests import Charge, Receipt
from attnpriv_server.budget.schema import accounts, requests, windows


class Reason(StrEnum):
    """Why a charge was refused."""

    EXHAUSTED = "exhausted"  # the window has not enough left
    CONFLICT = "conflict"  # the request id was used for something else
    UNIT = "unit"  # the account counts in the other unit
    STORE = "store"  # the store does not answer


@dataclass(frozen=True)
class Usage:
    """What an account has spent in one window.

    Attributes:
        account: whose.
        unit: what ``allowed`` and ``spent`` count.
        window: when.
        allowed: the limit, as it was at the last charge.
        spent: the sum of all charges.
        charges: how many there were; repeats are none.
    """

    account: Account
    unit: Unit
    window: Window
    allowed: int
    spent: int
    charges: int


class Store:
    """What was spent, and on which requests.

    Claim: for every window of an account, the costs of all receipts that were given out, repeats
    aside, add up to at most the limit that each of them was charged under, whatever number of
    processes charges, and whatever crashes. Condition: limits are those of the charges, so raising
    one allows more, and clocks agree on the window. Not covered: see ``Database``.

    Use it from any thread.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    def charge_all(self, charges: Sequence[Charge], second: int) -> list[Receipt | Reason]:
        """Charge as many as there is budget for, the first ones first; durable when it returns.

        Args:
            charges: to be settled in one transaction.
            second: the time, in seconds since 1970.

        Returns:
            For each charge its receipt, or why there is none.

        Raises:
            StoreDownError: nothing is known to be charged. Charging the same again is safe: what
                had come through is a repeat then.
        """
        return self._database.write(lambda connection: self._settle(connection, charges, second))

    def keep_all(self, answers: Sequence[tuple[Charge, bytes]]) -> list[bytes]:
        """Keep the answers to charged requests; durable when it returns.

        Returns:
            For each the answer that is kept: its own, or the one that was there before.

        Raises:
            StoreDownError: none is known to be kept.
        """
        sealed = [{"sought": charge.key, "sealed": charge.seal(own)} for charge, own in answers]
        kept = self._database.write(lambda connection: _keep(connection, sealed))
        return [charge.open(kept[charge.key]) for charge, _ in answers]

    def usage(self) -> list[Usage]:
        """Every window of every account, sorted by names and time.

        Raises:
            StoreDownError: the database does not answer.
        """
        query = (
            sa.select(accounts, windows)
            .join_from(windows, accounts)
            .order_by(
                accounts.c.principal,
                accounts.c.model,
                accounts.c.relation,
                windows.c.starts,
                windows.c.seconds,
            )
        )
        rows = self._database.read(lambda connection: connection.execute(query).all())
        return [_usage(row) for row in rows]

    def _settle(
        self, connection: sa.Connection, charges: Sequence[Charge], second: int
    ) -> list[Receipt | Reason]:
        locked = self._locked(connection, charges)  # first: what is read before can change
        book = _Book(second, locked, _known(connection, charges))
        book.windows = self._windows(connection, book, charges)
        results = [book.settle(charge) for charge in charges]
        book.write(connection)
        return results

    def _locked(
        self, connection: sa.Connection, charges: Iterable[Charge]
    ) -> dict[Account, tuple[int, Unit]]:
        """The accounts' rows, made where they are missing; nobody else can charge them now."""
        units = {charge.account: charge.allowance.unit for charge in charges}
        found = _lock(connection, units)
        missing = [account for account in units if account not in found]
        if missing:
            rows = [
                {
                    "principal": each.principal,
                    "model": each.model,
                    "relation": each.relation.value,
                    "unit": units[each].value,
                }
                for each in missing
            ]
            connection.execute(self._database.insert_missing(accounts), rows)
            found = _lock(connection, units)
        return found

    def _windows(
        self, connection: sa.Connection, book: _Book, charges: Iterable[Charge]
    ) -> dict[int, dict[Window, _Spent]]:
        """All windows of the accounts that hold this second, made where they are missing."""
        found = _open_windows(connection, book)
        for charge in charges:
            account_id, unit = book.accounts[charge.account]
            window = charge.allowance.window(book.second)
            if unit is charge.allowance.unit and window not in found[account_id]:
                row = _new_window(connection, account_id, window, charge.allowance.limit)
                found[account_id][window] = row
        return found


@dataclass
class _Spent:
    """What a window holds, and what this transaction adds."""

    allowed: int
    spent: int
    added: int = 0
    charges: int = 0


class _Book:
    """The accounts of one transaction: decides each charge in turn, then writes them all."""

    def __init__(
        self,
        second: int,
        accounts: dict[Account, tuple[int, Unit]],
        known: dict[bytes, tuple[bytes, bytes | None]],
    ) -> None:
        self.second = second
        self.accounts = accounts
        self.windows: dict[int, dict[Window, _Spent]] = {}
        self._known = known
        self._new: list[dict[str, object]] = []

    def settle(self, charge: Charge) -> Receipt | Reason:
        account_id, unit = self.accounts[charge.account]
        if charge.key in self._known:
            tag, sealed = self._known[charge.key]
            if tag != charge.tag:
                return Reason.CONFLICT
            return Receipt(True, None if sealed is None else charge.open(sealed))
        if unit is not charge.allowance.unit:
            return Reason.UNIT
        own = self.windows[account_id][charge.allowance.window(self.second)]
        own.allowed = charge.allowance.limit
        if own.spent + own.added + charge.cost > own.allowed:
            return Reason.EXHAUSTED
        self._add(charge, account_id)
        return Receipt(False)

    def _add(self, charge: Charge, account_id: int) -> None:
        # Windows of other lengths come from another state of the policy, which may be in force
        # elsewhere or come back: they must not miss this charge.
        for window in self.windows[account_id].values():
            window.added += charge.cost
            window.charges += 1
        self._known[charge.key] = charge.tag, None
        self._new.append(
            {
                "key": charge.key,
                "tag": charge.tag,
                "account_id": account_id,
                "cost": charge.cost,
                "charged_at": self.second,
            }
        )

    def write(self, connection: sa.Connection) -> None:
        if self._new:
            connection.execute(sa.insert(requests), self._new)
        for account_id, by_window in self.windows.items():
            for window, spent in by_window.items():
                if spent.added:
                    _update(connection, account_id, window, spent)


def _update(connection: sa.Connection, account_id: int, window: Window, spent: _Spent) -> None:
    """Write what a window holds now, on the condition that it held what was read.

    Raises:
        StoreDownError: it did not, so the database's locks do not work.
    """
    updated = connection.execute(
        sa.update(windows)
        .where(*_is(account_id, window), windows.c.spent == spent.spent)
        .values(
            spent=spent.spent + spent.added,
            charges=windows.c.charges + spent.charges,
            allowed=spent.allowed,
        )
    )
    if updated.rowcount != 1:
        raise StoreDownError("its locks do not work")


def _is(account_id: int, window: Window) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        windows.c.account_id == account_id,
        windows.c.starts == window.starts,
        windows.c.seconds == window.seconds,
    )


def _lock(connection: sa.Connection, wanted: Iterable[Account]) -> dict[Account, tuple[int, Unit]]:
    """Lock the rows of accounts, in one order for all, so that nobody waits in a circle."""
    name = sa.tuple_(accounts.c.principal, accounts.c.model, accounts.c.relation)
    names = [(each.principal, each.model, each.relation.value) for each in wanted]
    query = sa.select(accounts).where(name.in_(names)).order_by(accounts.c.id).with_for_update()
    return {_account(row): (row.id, Unit(row.unit)) for row in connection.execute(query)}


def _known(
    connection: sa.Connection, charges: Iterable[Charge]
) -> dict[bytes, tuple[bytes, bytes | None]]:
    """Tag and sealed answer of the requests that were charged before."""
    keys = [charge.key for charge in charges]
    query = sa.select(requests.c.key, requests.c.tag, requests.c.answer).where(
        requests.c.key.in_(keys)
    )
    return {row.key: (row.tag, row.answer) for row in connection.execute(query)}


def _open_windows(connection: sa.Connection, book: _Book) -> dict[int, dict[Window, _Spent]]:
    found: dict[int, dict[Window, _Spent]] = {row[0]: {} for row in book.accounts.values()}
    query = sa.select(windows).where(
        windows.c.account_id.in_(found),
        windows.c.starts <= book.second,
        (windows.c.seconds == 0) | (windows.c.starts + windows.c.seconds > book.second),
    )
    for row in connection.execute(query):
        found[row.account_id][Window(row.starts, row.seconds)] = _Spent(row.allowed, row.spent)
    return found


def _new_window(connection: sa.Connection, account_id: int, window: Window, allowed: int) -> _Spent:
    """Begin a window with what was charged in it already, under a policy of other periods."""
    charged = requests.c.account_id == account_id
    if window.ends is not None:
        charged &= requests.c.charged_at.between(window.starts, window.ends - 1)
    total = sa.func.coalesce(sa.func.sum(requests.c.cost), 0)
    count, spent = connection.execute(sa.select(sa.func.count(), total).where(charged)).one()
    row = {"account_id": account_id, "starts": window.starts, "seconds": window.seconds}
    values = {"allowed": allowed, "spent": int(spent), "charges": count}
    connection.execute(sa.insert(windows).values(**row, **values))
    return _Spent(allowed, int(spent))


def _keep(connection: sa.Connection, sealed: list[dict[str, bytes]]) -> dict[bytes, bytes]:
    """Keep each where none is kept yet; returns those that are kept."""
    unanswered = (requests.c.key == sa.bindparam("sought")) & requests.c.answer.is_(None)
    update = sa.update(requests).where(unanswered).values(answer=sa.bindparam("sealed"))
    connection.execute(update, sealed)
    keys = [each["sought"] for each in sealed]
    query = sa.select(requests.c.key, requests.c.answer).where(requests.c.key.in_(keys))
    return {row.key: row.answer for row in connection.execute(query)}


def _account(row: sa.Row[tuple[object, ...]]) -> Account:
    return Account(row.principal, row.model, Relation(row.relation))


def _usage(row: sa.Row[tuple[object, ...]]) -> Usage:
    window = Window(row.starts, row.seconds)
    return Usage(_account(row), Unit(row.unit), window, row.allowed, row.spent, row.charges)
