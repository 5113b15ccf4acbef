"""Who is computed next: a bounded queue, fair between principals, that hands out batches.

A request becomes a ``Ticket`` of one or more rows, each of a model and of a length in tokens. The
queue decides only on those; what the rows hold never changes the order. It is not thread-safe: its
``Lane`` locks it.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

from attnpriv.errors import InputError


class Model(Hashable, Protocol):
    """What a row is for: rows of one model share batches."""

    @property
    def name(self) -> str:
        """The model's name in metrics."""


Shelf = tuple[Model, int]  # rows of one model and length


@dataclass(frozen=True)
class Batching:
    """How rows are put together into batches.

    Attributes:
        token_budget: tokens of a batch of several rows, at most.
        capacity: rows that wait at most.

    Raises:
        InputError: one of them is below 1.
    """

    token_budget: int = 512
    capacity: int = 1024

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise InputError(f"expected {name} >= 1, got {value}")


@dataclass(eq=False)
class Ticket:
    """A request in the queue.

    Attributes:
        principal: whose turn it uses up.
        end: when it is of no use any more, as a number of ``time.monotonic``.
        owner: whoever waits for the results.
        rows: those that still wait.
    """

    principal: Hashable
    end: float
    owner: Any = None
    rows: set[Row] = field(default_factory=set)


@dataclass(eq=False, slots=True)
class Row:
    """One row of a request.

    Attributes:
        ticket: the request.
        index: its number among the request's rows.
        model: rows of different models never share a batch.
        length: tokens.
        payload: what the model is to be fed with.
        arrived: a number of ``time.monotonic``.
        order: rows of one principal go by this, the smaller first.
    """

    ticket: Ticket
    index: int
    model: Model
    length: int
    payload: Any
    arrived: float
    order: tuple[float, int] = (math.inf, 0)

    @property
    def shelf(self) -> Shelf:
        """Where it waits."""
        return self.model, self.length


class _Account:
    """The rows that one principal has waiting, and the tokens it was served."""

    def __init__(self, principal: Hashable, served: float) -> None:
        self.principal = principal
        self.served = served  # tokens; the virtual time of fair queueing
        self.shelves: dict[Shelf, list[Row]] = {}
        self.tickets: dict[Ticket, None] = {}  # in order of arrival
        self.waiting = 0

    def add(self, row: Row) -> None:
        insort(self.shelves.setdefault(row.shelf, []), row, key=_order)
        row.ticket.rows.add(row)
        self.tickets[row.ticket] = None
        self.waiting += 1

    def remove(self, row: Row) -> None:
        rows = self.shelves[row.shelf]
        del rows[bisect_left(rows, row.order, key=_order)]
        if not rows:
            del self.shelves[row.shelf]
        row.ticket.rows.discard(row)
        if not row.ticket.rows:
            del self.tickets[row.ticket]
        self.waiting -= 1

    def most_urgent(self) -> Row:
        return min((rows[0] for rows in self.shelves.values()), key=_order)

    def most_urgent_of(self, model: Model, longest: int) -> Row | None:
        """The most urgent of a model's rows that have at most ``longest`` tokens."""
        fitting = (
            rows[0]
            for (of, length), rows in self.shelves.items()
            if length <= longest and of == model
        )
        return min(fitting, key=_order, default=None)


class FairQueue:
    """Rows that wait, handed out in batches.

    The next batch begins with the principal that was served least, by its row with the earliest
    deadline. Rows of the same model that still fit the budget fill it up in the same order, and
    each is charged to its principal: start-time fair queueing (Goyal et al. 1997) on tokens.

    Claim: a batch is led by somebody else only while that one was served fewer tokens, however many
    requests it sends, so that a row waits for at most as many batches as its principal has rows
    before it, and for those that others need to draw level. Not covered: idle time earns no credit;
    what fills a batch up may be anybody's, and makes it take longer; a batch under way is not
    interrupted.

    Args:
        batching: budget and capacity.
    """

    def __init__(self, batching: Batching) -> None:
        self._batching = batching
        self._accounts: dict[Hashable, _Account] = {}
        self._left_at: dict[Hashable, float] = {}  # ahead of the clock, with nothing waiting
        self._clock = 0.0
        self._numbers = count()
        self.waiting = 0

    def add(self, ticket: Ticket, rows: Sequence[Row]) -> list[Ticket] | None:
        """Queue a request.

        Where there is no room, requests of whoever has most waiting make room, the newest first,
        unless the asker would then have more.

        Returns:
            The requests that had to go, or None where this one was not taken.
        """
        evicted = self._to_evict(ticket.principal, len(rows))
        if evicted is None:
            return None
        for other in evicted:
            self.remove(other)
        account = self._account(ticket.principal)
        for row in rows:
            row.order = (ticket.end, next(self._numbers))
            account.add(row)
        self.waiting += len(rows)
        return evicted

    def has_room(self, principal: Hashable, rows: int) -> bool:
        """Whether a request of ``rows`` rows would be taken now."""
        return self._to_evict(principal, rows) is not None

    def remove(self, ticket: Ticket) -> bool:
        """Remove a request's waiting rows, and return whether there were any."""
        rows = list(ticket.rows)
        for row in rows:
            self._remove(row)
        return bool(rows)

    def expired(self, now: float) -> list[Ticket]:
        """Remove and return the requests whose deadline has passed."""
        late = [
            ticket
            for account in self._accounts.values()
            for ticket in account.tickets
            if ticket.end <= now
        ]
        for ticket in late:
            self.remove(ticket)
        return late

    def take(self) -> list[Row]:
        """Remove and return the next batch; empty where nothing waits."""
        if not self._accounts:
            return []
        account = min(self._accounts.values(), key=_served)
        self._clock = account.served
        self._left_at = {who: at for who, at in self._left_at.items() if at > self._clock}
        batch = [account.most_urgent()]
        self._serve(batch[0])
        room = self._batching.token_budget - batch[0].length
        while row := self._next(batch[0].model, room):
            self._serve(row)
            batch.append(row)
            room -= row.length
        return batch

    def _next(self, model: Model, longest: int) -> Row | None:
        """The most urgent row that fits, of the principal that was served least."""
        for account in sorted(self._accounts.values(), key=_served):
            if row := account.most_urgent_of(model, longest):
                return row
        return None

    def _account(self, principal: Hashable) -> _Account:
        if principal not in self._accounts:
            served = max(self._clock, self._left_at.pop(principal, 0.0))
            self._accounts[principal] = _Account(principal, served)
        return self._accounts[principal]

    def _serve(self, row: Row) -> None:
        self._accounts[row.ticket.principal].served += row.length
        self._remove(row)

    def _remove(self, row: Row) -> None:
        account = self._accounts[row.ticket.principal]
        account.remove(row)
        self.waiting -= 1
        if not account.waiting:
            del self._accounts[account.principal]
            self._left_at[account.principal] = account.served

    def _to_evict(self, principal: Hashable, rows: int) -> list[Ticket] | None:
        """The requests that must go for ``rows`` more of a principal; None where it is its turn."""
        excess = self.waiting + rows - self._batching.capacity
        if excess <= 0:
            return []
        waiting = {key: account.waiting for key, account in self._accounts.items()}
        newest = {key: reversed(account.tickets) for key, account in self._accounts.items()}
        own = waiting.get(principal, 0) + rows
        evicted: list[Ticket] = []
        while excess > 0:
            heaviest = max(waiting, key=waiting.__getitem__, default=principal)
            if waiting.get(heaviest, 0) <= own:
                return None
            evicted.append(next(newest[heaviest]))
            excess -= len(evicted[-1].rows)
            waiting[heaviest] -= len(evicted[-1].rows)
        return evicted


def _order(row: Row) -> tuple[float, int]:
    return row.order


def _served(account: _Account) -> float:
    return account.served
