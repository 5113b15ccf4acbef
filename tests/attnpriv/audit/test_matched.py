from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from attnpriv.audit.documents import Documents, prepare
from attnpriv.audit.matched import (
    MatchedControls,
    TokenLiftAccumulator,
    matched_lifts,
    partners,
    token_lengths,
)
from attnpriv.data.records import Span, Texts
from attnpriv.data.text import Text
from attnpriv.data.tokenisation import HashTokenizer
from attnpriv.estimates import Control

NAMES = ("first", "second", "third")


def _documents(seed: int, boost: float) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Scores [3, m] that grow with length, sensitive flags [m] that like long tokens, lengths."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(40):
        m = int(rng.integers(11, 37))
        lengths = rng.integers(1, 5, m)
        flags = rng.random(m) < np.where(lengths == 4, 0.5, 0.02)
        scores = rng.exponential(size=(3, m)) * lengths**2
        scores[0, flags] *= boost
        made.append((scores, flags, lengths))
    return made


def _collect(documents: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> TokenLiftAccumulator:
    statistics = TokenLiftAccumulator(len(documents), 3, 300, seed=0)
    for number, each in enumerate(documents):
        statistics.add(number, *each)
    return statistics


@pytest.mark.parametrize(
    ("sensitive", "lengths", "expected"),
    [
        ([0, 1, 0], [3, 3, 3], [0]),  # the left one of two
        ([0, 0, 1, 0], [3, 2, 3, 3], [3]),  # the nearest
        ([1, 1, 0], [3, 3, 3], [2, 2]),  # one partner for both
        ([1, 0], [3, 4], [-1]),  # none of its length
        ([1, 1], [3, 3], [-1, -1]),  # all are sensitive
        ([1], [3], [-1]),
        ([0, 0], [3, 3], []),
    ],
)
def test_partners(sensitive: list[int], lengths: list[int], expected: list[int]) -> None:
    found = partners(np.array(sensitive, dtype=bool), np.array(lengths, dtype=np.int64))
    assert found.tolist() == expected


def test_lift_equals_a_slow_loop() -> None:
    documents = _documents(0, boost=2.0)
    lifts = _collect(documents).lifts(NAMES, resamples=50)
    for series in range(3):
        ours = theirs = 0.0
        pairs = 0
        for scores, flags, lengths in documents:
            share = scores[series] / scores[series].sum()
            for t in np.flatnonzero(flags):
                same = [s for s in np.flatnonzero(~flags) if lengths[s] == lengths[t]]
                if same:
                    partner = min(same, key=lambda s: (abs(s - t), s))
                    ours, theirs, pairs = ours + share[t], theirs + share[partner], pairs + 1
        assert lifts[series].matched.lift.value == pytest.approx(ours / theirs)
        assert lifts[series].matched_tokens == pairs < lifts[series].tokens


def test_length_alone_is_no_finding_and_a_planted_lift_is() -> None:
    planted, *by_length = _collect(_documents(1, boost=3.0)).lifts(NAMES, resamples=50)
    assert (planted.matched.lift.low or 0) > 1
    assert (planted.matched.p_holm or 1) < 0.05
    for each in by_length:
        assert (each.permuted.p_adjusted or 1) < 0.05  # a lift over the uniform share, by length
        assert (each.matched.p_value or 0) > 0.01


def test_the_p_value_is_that_of_all_signs() -> None:
    rng = np.random.default_rng(4)
    ours, theirs = rng.random((2, 9, 1))
    ours += 0.3
    gaps = (ours - theirs)[:, 0]
    sums = [abs(np.dot(signs, gaps)) for signs in product((-1, 1), repeat=9)]
    exact = np.mean(np.array(sums) >= abs(gaps.sum()) - 1e-9)
    (lift,) = matched_lifts(ours, theirs, 4000, 10, seed=0)
    assert 0.02 < exact < 0.5
    assert lift.p_value == pytest.approx(exact, abs=4 * (exact / 4000) ** 0.5)


def test_ties_that_rounding_turns_leave_the_p_value() -> None:
    rng = np.random.default_rng(3)
    ours = np.array([0.5] * 7 + [0.25] * 3 + [0.125])[:, None]
    theirs = np.full_like(ours, 0.25)  # many signs give the same sum of gaps

    def p_value(noise: float) -> float | None:
        rounded = ours * (1 + noise * rng.integers(-1, 2, ours.shape))
        return matched_lifts(rounded, theirs, 1000, 10, seed=0)[0].p_value

    expected = p_value(0.0)
    assert [p_value(2.0**-23) for _ in range(10)] == [expected] * 10


def test_exchanging_the_two_sides_inverts_the_lift_and_keeps_its_p_value() -> None:
    rng = np.random.default_rng(3)
    ours, theirs = rng.random((2, 30, 2)) + np.array([[[0.2]], [[0.0]]])
    there, back = (matched_lifts(*pair, 500, 10, 0) for pair in ((ours, theirs), (theirs, ours)))
    for a, b in zip(there, back, strict=True):
        assert a.lift.value == pytest.approx(1 / (b.lift.value or 0))
        assert a.p_value == pytest.approx(b.p_value, abs=0.02)


@pytest.mark.parametrize(("ours", "theirs"), [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_sides_without_any_score_give_no_wrong_finding(ours: float, theirs: float) -> None:
    """One document, whose lift is 0, infinite or 0/0: nothing to find, and no warning."""
    (lift,) = matched_lifts(np.array([[ours]]), np.array([[theirs]]), 100, 10, seed=0)
    assert lift.p_value == (None if theirs == 0 else 1.0)


def test_documents_without_pairs_give_no_number() -> None:
    statistics = TokenLiftAccumulator(3, 1, 20, seed=0)
    everything = np.ones(2, dtype=bool)
    statistics.add(0, np.ones((1, 2)), everything, np.array([2, 2]))
    statistics.add(1, np.ones((1, 1)), ~everything[:1], np.array([2]))
    statistics.add(2, np.ones((1, 0)), everything[:0], np.zeros(0, dtype=np.int64))
    (lift,) = statistics.lifts(["only"], 10)
    assert (lift.documents, lift.tokens, lift.matched_tokens) == (1, 2, 0)
    assert lift.permuted.lift.value == 1.0
    assert lift.matched.lift.value is None
    assert statistics.mean_shares() == (1.0,)
    assert TokenLiftAccumulator(3, 2, 20, seed=0).mean_shares() == (None, None)


def test_lengths_are_those_of_the_text() -> None:
    data = Texts("one", ("at 12 o'clock",), (0,), ("a",), ((Span(3, 5, "TIME"),),))
    documents = prepare(Text(HashTokenizer(64), 16), data, data.spans or ())
    assert token_lengths(documents, 0).tolist() == [2, 2, 1, 1, 5]


def _controls(documents: Documents, most: int) -> tuple[Control, Control]:
    controls = MatchedControls(len(documents), permutations=200, seed=0)
    for d, flags in enumerate(documents.sensitive[:most]):
        controls.add(d, flags[documents.content(d)], token_lengths(documents, d))
    return controls.result(resamples=20)


def test_controls_pass_on_many_documents_and_admit_too_few(documents: Documents) -> None:
    planted, null = _controls(documents, len(documents))
    assert planted.passed
    assert null.passed
    assert not _controls(documents, 1)[0].passed
