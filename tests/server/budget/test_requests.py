"""What the store holds of a request tells it apart, and tells nothing else."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest

from attnpriv.errors import InputError
from attnpriv_server.budget.accounts import LARGEST, Account, Allowance, Relation, Unit
from attnpriv_server.budget.requests import Charge
from tests.server.budget.charges import BOT, HUNDRED, charge

ID = "5f0e7d3c-request-1"
FIRST = charge(request_id=ID, content="text")


def test_an_equal_charge_is_the_same_request() -> None:
    again = charge(request_id=ID, content="text")

    assert (again.key, again.tag) == (FIRST.key, FIRST.tag)
    assert again.open(FIRST.seal(b"answer")) == b"answer"


@pytest.mark.parametrize(
    "other",
    [
        charge(request_id=ID, content="text!"),
        charge(request_id=ID, content="text", cost=2),
        charge(request_id=ID, content="text", account=replace(BOT, model="mails")),
        charge(request_id=ID, content="text", account=replace(BOT, relation=Relation.ANY)),
        charge(request_id=ID, content="text", allowance=replace(HUNDRED, unit=Unit.RHO)),
    ],
    ids=["content", "cost", "model", "relation", "unit"],
)
def test_another_charge_under_the_same_id_is_found_and_differs(other: Charge) -> None:
    assert other.key == FIRST.key
    assert other.tag != FIRST.tag
    with pytest.raises(ValueError, match="damaged"):
        other.open(FIRST.seal(b"answer"))


def test_a_raised_limit_leaves_the_request_the_same() -> None:
    later = charge(request_id=ID, content="text", allowance=Allowance(200, Unit.EPSILON))

    assert (later.key, later.tag) == (FIRST.key, FIRST.tag)


def test_principals_share_no_request_ids() -> None:
    other = charge(request_id=ID, content="text", account=replace(BOT, principal="other"))

    assert other.key != FIRST.key


def test_no_two_parts_run_into_one_another() -> None:
    names = [("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc")]
    made = [
        charge(request_id=ID, content=content, account=Account(f"p{name}", f"m{model}", relation))
        for name, model in names
        for relation in Relation
        for content in ("x", "y")
    ]

    marks = [mark for each in made for mark in {each.key, each.tag}]
    assert len({each.tag for each in made}) == len(made)
    assert len(set(marks)) == len(made) + len(names)


@pytest.mark.parametrize("ids", list(combinations([ID, f"{ID}\x00", ID.upper(), "\ud800" * 16], 2)))
def test_ids_that_differ_anyhow_are_apart(ids) -> None:
    one, other = (charge(request_id=each) for each in ids)

    assert one.key != other.key


def test_what_is_stored_shows_neither_id_nor_content_nor_answer() -> None:
    answer = b"the answer " * 10
    sealed = FIRST.seal(answer)
    stored = FIRST.key + FIRST.tag + sealed

    assert ID.encode() not in stored
    assert FIRST.content not in stored
    assert answer[:11] not in stored
    assert FIRST.seal(answer) != sealed
    assert ID not in repr(FIRST)
    assert FIRST.content.hex() not in repr(FIRST)


def test_a_damaged_answer_is_not_returned() -> None:
    sealed = bytearray(FIRST.seal(b"answer"))
    sealed[-1] ^= 1

    with pytest.raises(ValueError, match="damaged"):
        FIRST.open(bytes(sealed))


@pytest.mark.parametrize("request_id", ["", "a" * 15, "a" * 129])
def test_ids_that_are_short_or_long_are_refused_and_not_quoted(request_id: str) -> None:
    with pytest.raises(InputError, match=f"got {len(request_id)} characters"):
        Charge(BOT, HUNDRED, 1, request_id, bytes(32))


@pytest.mark.parametrize("cost", [0, -1, 1.0, LARGEST + 1])
def test_a_cost_is_a_whole_number_above_0(cost) -> None:
    with pytest.raises(InputError, match="expected a cost"):
        charge(cost)


def test_a_digest_has_32_bytes() -> None:
    with pytest.raises(InputError, match="got 3"):
        Charge(BOT, HUNDRED, 1, ID, b"abc")


def test_an_answer_has_a_largest_size() -> None:
    with pytest.raises(InputError, match="at most 4194304 bytes"):
        FIRST.seal(bytes(4 * 1024 * 1024 + 1))
