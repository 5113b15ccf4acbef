"""The fair queue against its claims, and against a simple model of itself."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnpriv.errors import InputError
from attnpriv_server.queueing import Batching, FairQueue, Row, Ticket


@dataclass(frozen=True)
class Named:
    name: str


MODEL, OTHER = Named("model"), Named("other")


def request(who: str, *lengths: int, end: float = math.inf, model: Named = MODEL) -> list[Row]:
    ticket = Ticket(who, end)
    return [Row(ticket, i, model, length, None, 0.0) for i, length in enumerate(lengths)]


def added(queue: FairQueue, rows: list[Row]) -> Ticket:
    assert queue.add(rows[0].ticket, rows) is not None
    return rows[0].ticket


def drained(queue: FairQueue) -> list[list[Row]]:
    batches = []
    while batch := queue.take():
        batches.append(batch)
    return batches


def test_an_empty_queue_gives_nothing() -> None:
    assert FairQueue(Batching()).take() == []


requests = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.lists(st.integers(2, 256), min_size=1, max_size=9),
        st.one_of(st.just(math.inf), st.floats(0, 100)),
        st.sampled_from([MODEL, OTHER]),
    ),
    max_size=30,
)


@given(requests, st.integers(1, 2048))
def test_every_row_is_handed_out_once_in_batches_of_one_model_within_the_budget(
    asked, budget
) -> None:
    queue = FairQueue(Batching(budget, capacity=10_000))
    rows = []
    for who, lengths, end, model in asked:
        rows += (new := request(who, *lengths, end=end, model=model))
        added(queue, new)

    batches = drained(queue)

    assert Counter(map(id, rows)) == Counter(id(row) for batch in batches for row in batch)
    assert queue.waiting == 0
    waiting = list(rows)
    for batch in batches:
        assert len({row.model for row in batch}) == 1
        room = budget - sum(row.length for row in batch)
        assert len(batch) == 1 or room >= 0
        waiting = [row for row in waiting if row not in batch]
        # Whatever still waits for this model would not have fitted.
        assert all(row.length > room for row in waiting if row.model == batch[0].model)


@given(requests)
def test_one_principal_is_led_by_its_earliest_deadline(asked) -> None:
    queue = FairQueue(Batching(512, 10_000))
    waiting = []
    for _, lengths, end, model in asked:
        waiting += (new := request("a", *lengths, end=end, model=model))
        added(queue, new)

    while batch := queue.take():
        assert batch[0].ticket.end == min(row.ticket.end for row in waiting)
        waiting = [row for row in waiting if row not in batch]


@given(st.lists(st.integers(2, 256), min_size=12, max_size=12), st.integers(1, 512))
@settings(max_examples=30)
def test_a_flood_of_one_principal_does_not_hold_up_another(lengths, budget) -> None:
    """The flood leads a batch only while it was served no more than the other."""
    queue = FairQueue(Batching(budget, 10_000))
    for length in lengths * 5:
        added(queue, request("flood", length))
    for length in lengths:
        added(queue, request("polite", length))
    served = Counter()
    left = len(lengths)
    while left:
        batch = queue.take()
        leader = batch[0].ticket.principal
        assert served[leader] <= min(served["flood"], served["polite"])
        for row in batch:
            served[row.ticket.principal] += row.length
            left -= row.ticket.principal == "polite"


def test_whoever_comes_back_is_not_ahead_of_those_who_wait() -> None:
    """Sending one row at a time buys no more turns than sending them all at once."""
    queue = FairQueue(Batching(1, 10_000))
    for _ in range(50):
        added(queue, request("patient", 16))
    served = Counter()
    asked = 0
    for _ in range(60):
        if asked == served["eager"]:
            added(queue, request("eager", 16))
            asked += 1
        served.update(row.ticket.principal for row in queue.take())

    assert abs(served["eager"] - served["patient"]) <= 1


def test_a_batch_takes_the_most_urgent_rows_that_fit_whatever_their_lengths() -> None:
    queue = FairQueue(Batching(token_budget=256, capacity=100))
    for length, end in ((20, 4.0), (200, 1.0), (199, 3.0), (9, 6.0), (30, 2.0), (21, 5.0)):
        added(queue, request("a", length, end=end))

    assert [[row.length for row in batch] for batch in drained(queue)] == [
        [200, 30, 20],  # 199 and 21 would exceed the budget, and 9 by three tokens
        [199, 21, 9],
    ]


def test_a_batch_is_filled_up_by_whoever_was_served_least() -> None:
    queue = FairQueue(Batching(token_budget=40, capacity=100))
    added(queue, request("many", *[10] * 6))
    added(queue, request("few", 10, 10))

    batches = [[row.ticket.principal for row in batch] for batch in drained(queue)]

    assert batches == [["many", "few", "many", "few"], ["many"] * 4]


def test_a_full_queue_refuses_whoever_has_most_waiting() -> None:
    queue = FairQueue(Batching(capacity=4))
    added(queue, request("a", 9, 9))
    added(queue, request("a", 9, 9))

    assert queue.add(*_asked("a", 1)) is None
    assert queue.waiting == 4


def test_a_newcomer_takes_the_newest_place_of_whoever_has_most() -> None:
    queue = FairQueue(Batching(capacity=4))
    first = added(queue, request("a", 9, 9))
    second = added(queue, request("a", 9, 9))

    assert queue.add(*_asked("b", 1)) == [second]
    assert (queue.waiting, len(first.rows), len(second.rows)) == (3, 2, 0)


def test_nothing_is_evicted_for_a_request_that_does_not_fit_all_the_same() -> None:
    queue = FairQueue(Batching(capacity=4))
    added(queue, request("a", 9, 9))
    added(queue, request("b", 9))

    assert queue.add(*_asked("c", 4)) is None
    assert queue.add(*_asked("c", 5)) is None
    assert queue.waiting == 3


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 5)), max_size=60))
def test_the_queue_never_holds_more_than_its_capacity_and_loses_nobody(asked) -> None:
    queue = FairQueue(Batching(capacity=12))
    alive: dict[Ticket, int] = {}
    for who, rows in asked:
        ticket, new = _asked(who, rows)
        evicted = queue.add(ticket, new)
        if evicted is not None:
            alive[ticket] = rows
            for other in evicted:
                del alive[other]
        assert queue.waiting == sum(alive.values()) <= 12
    assert sum(map(len, drained(queue))) == sum(alive.values())


def test_expired_and_removed_requests_leave_at_once() -> None:
    queue = FairQueue(Batching())
    late = added(queue, request("a", 5, 300, end=1.0))
    gone = added(queue, request("a", 5, 6, end=9.0))
    kept = added(queue, request("b", 7, end=2.0))

    assert queue.expired(now=1.0) == [late]
    assert queue.remove(gone)
    assert not queue.remove(gone)
    assert queue.waiting == 1
    assert [row.ticket for batch in drained(queue) for row in batch] == [kept]


def test_the_order_depends_on_nothing_but_lengths_deadlines_and_principals() -> None:
    orders = []
    for seed in (0, 1):
        queue = FairQueue(Batching())
        generator, payloads = random.Random(7), random.Random(seed)
        for _ in range(100):
            rows = request(generator.choice("ab"), generator.randint(2, 256))
            rows[0].payload = payloads.random()
            added(queue, rows)
        orders.append([[row.length for row in batch] for batch in drained(queue)])
    assert orders[0] == orders[1]


@pytest.mark.parametrize("knob", ["token_budget", "capacity"])
def test_batching_below_one_is_refused(knob) -> None:
    with pytest.raises(InputError, match=f"expected {knob} >= 1, got 0"):
        Batching(**{knob: 0})


def _asked(who: str, rows: int) -> tuple[Ticket, list[Row]]:
    new = request(who, *[9] * rows)
    return new[0].ticket, new
