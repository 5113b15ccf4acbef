"""Which rows are trained on, which are held out, and what that says of another file."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable

import pytest
from scipy.stats import binom

from attnpriv.data.splits import (
    assign_held_out,
    folded,
    split_both,
    split_indices,
    split_rows,
    split_rule,
    tells_rows_apart,
)
from attnpriv.errors import InputError

TEXTS = [f"message number {i}" for i in range(5003)]
RULES = {
    "training": split_rule(0.8, 0),
    "search": {"rule": "content", "validation_share": 0.2, "salt": "attnpriv"},
    "earlier search": {"validation_share": 0.2, "salt": "attnpriv"},
}


def held_out(texts: list[str], rule: dict[str, object]) -> set[str]:
    return {texts[row] for row in split_rows(texts, rule)[1]}


@pytest.mark.parametrize("case", RULES)
def test_rows_that_come_or_go_move_no_other_row(case: str) -> None:
    rule = RULES[case]
    train, rest = split_rows(TEXTS, rule)
    assert sorted(train + rest) == list(range(len(TEXTS)))
    assert tells_rows_apart(rule)
    texts = TEXTS[:211]
    before = held_out(texts, rule)
    for at in (0, 100, 211):
        more = [*texts[:at], "another one", *texts[at:]]
        assert held_out(more, rule) - {"another one"} == before
    for at in range(0, 211, 7):
        assert held_out(texts[:at] + texts[at + 1 :], rule) == before - {texts[at]}
    random.Random(1).shuffle(texts)
    assert held_out(texts, rule) == before
    assert held_out(texts * 2, rule) == before


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9])
def test_each_side_has_its_share_of_distinct_texts(share: float) -> None:
    for rule in (split_rule(share, 3), split_rule(share, 4)):
        train, _ = split_both(TEXTS, rule)
        assert 0.0005 < binom.cdf(len(train), len(TEXTS), share) < 0.9995


def test_splits_by_other_keys_are_independent() -> None:
    for first, second in ((0, 1), (1, 2)):
        both = held_out(TEXTS, split_rule(0.5, first)) & held_out(TEXTS, split_rule(0.5, second))
        assert 0.0005 < binom.cdf(len(both), len(TEXTS), 0.25) < 0.9995


def test_a_smaller_share_to_train_on_is_a_part_of_a_larger_one() -> None:
    small, large = (set(split_rows(TEXTS, split_rule(share, 0))[0]) for share in (0.3, 0.8))
    assert small < large


@pytest.mark.parametrize(
    "copy",
    [
        str.upper,
        str.title,
        lambda t: f"  {t}\r\n",
        lambda t: t.replace(" ", "\u00a0 "),
        lambda t: unicodedata.normalize("NFKC", t),
        lambda t: unicodedata.normalize("NFD", t),
    ],
)
def test_a_copy_in_other_clothes_lies_where_its_original_lies(copy: Callable[[str], str]) -> None:
    texts = [f"the café № {i} is open" for i in range(97)]
    copies = [copy(text) for text in texts]
    assert [folded(text) for text in copies] == [folded(text) for text in texts]
    for rule in (RULES["training"], RULES["search"]):
        assert split_rows(copies, rule) == split_rows(texts, rule)


def test_records_of_earlier_versions_mean_what_they_meant() -> None:
    shuffled = {"train_size": 0.8, "seed": 3}
    assert split_rows(TEXTS, shuffled) == split_indices(len(TEXTS), 0.8, 3)
    assert not tells_rows_apart(shuffled)
    assert held_out(["A text", "a text"], RULES["earlier search"]) != {"A text", "a text"}
    texts = [f"Text {i}" for i in range(50)]
    expected = assign_held_out(texts, 0.2, "attnpriv", str)
    assert held_out(texts, RULES["earlier search"]) == {
        text for text, out in zip(texts, expected, strict=True) if out
    }


def test_a_number_of_rows_is_kept_and_shuffled() -> None:
    rule = split_rule(4458, 0)
    assert split_rows(TEXTS, rule) == split_indices(len(TEXTS), 4458, 0)
    assert not tells_rows_apart(rule)


def test_any_text_has_a_side() -> None:
    assert assign_held_out([], 0.5, "salt") == []
    assert len(assign_held_out(["", "é", "\ud800", "a" * 10**6], 0.5, "salt")) == 4


@pytest.mark.parametrize(
    "call",
    [
        lambda: split_both(["one"], split_rule(0.8, 0)),
        lambda: split_both(["same"] * 9, split_rule(0.8, 0)),
        lambda: split_both(["one", "two"], split_rule(2, 0)),
        lambda: split_rows(["one", "two"], {"rule": "astrology", "seed": 0}),
        lambda: assign_held_out(["a"], 0.0, "salt"),
        lambda: assign_held_out(["a"], 1.0, "salt"),
        lambda: assign_held_out(["a"], 0.5, ""),
        lambda: assign_held_out(["a"], 0.5, "s" * 65),
    ],
)
def test_what_cannot_be_split_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(InputError, match="expected"):
        call()
