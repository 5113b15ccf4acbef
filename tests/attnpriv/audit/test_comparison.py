from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from attnpriv.audit.comparison import Compared, compare
from attnpriv.audit.figures import Figures, figure
from attnpriv.audit.lift import LiftAccumulator
from attnpriv.audit.statistics import auc_difference, bootstrap_counts
from attnpriv.audit.subject import AuditOptions, Rows

N = 23
OPTIONS = AuditOptions(resamples=300, seed=5)


def _figures(seed: int) -> Figures:
    rng = np.random.default_rng(seed)
    return {
        "utility.accuracy": figure(range(N), rng.integers(0, 2, N).astype(np.float64)),
        "attention.overall.lift": figure(range(N), rng.random(N), rng.random(N)),
        "attribution.lift.lift": figure(range(seed, seed + 9), rng.random(9), rng.random(9)),
    }


def _compared(name: str, seed: int, **given: object) -> Compared:
    content = LiftAccumulator(N, 2, permutations=10, seed=0)
    rng = np.random.default_rng(seed)
    for d in range(N):
        content.add(d, rng.random((2, 7)), np.arange(7) < 3)
    scores = rng.normal(size=11) + 1, rng.normal(size=13)
    rows = Rows(tuple(range(50, 61)), tuple(range(N)), frozenset())
    made = Compared(name, rows, content, _figures(seed), scores)
    return replace(made, **given)  # type: ignore[arg-type]


def test_every_difference_equals_a_slow_loop_over_the_same_resamples() -> None:
    ours, theirs = _compared("ours", 1), _compared("theirs", 3)
    found = {d.measure: d for d in compare(ours, theirs, OPTIONS).differences}
    assert [*found] == [*ours.figures, "membership.auc"]
    for path, common in (
        ("utility.accuracy", range(N)),
        ("attention.overall.lift", range(N)),
        ("attribution.lift.lift", range(3, 10)),
    ):
        assert found[path].documents == len(common)
        sides = []
        for each in (ours.figures[path], theirs.figures[path]):
            parts = dict(
                zip(
                    each.documents,
                    zip(each.numerators, each.denominators, strict=True),
                    strict=True,
                )
            )
            sides.append([parts[document] for document in common])
        values = [sum(a for a, _ in side) / sum(b for _, b in side) for side in sides]
        assert found[path].ours == pytest.approx(values[0])
        assert found[path].theirs == pytest.approx(values[1])
        assert found[path].difference.value == pytest.approx(values[0] - values[1])
        drawn = []
        for counts in np.concatenate([*bootstrap_counts(len(common), 300, 5)]):
            ratios = [
                sum(c * a for c, (a, _) in zip(counts, side, strict=True))
                / sum(c * b for c, (_, b) in zip(counts, side, strict=True))
                for side in sides
            ]
            drawn.append(ratios[0] - ratios[1])
        low, high = np.quantile(drawn, (0.025, 0.975))
        assert found[path].difference.low == pytest.approx(low)
        assert found[path].difference.high == pytest.approx(high)


def test_a_run_differs_from_itself_by_exactly_nothing() -> None:
    comparison = compare(_compared("ours", 2), _compared("again", 2), OPTIONS)
    assert comparison.lift_ratio.value == 1.0
    for each in comparison.differences:
        assert (each.difference.value, each.difference.low, each.difference.high) == (0, 0, 0)
        assert each.ours == each.theirs


def test_other_held_out_rows_are_not_compared() -> None:
    rows = Rows(None, tuple(range(1, N + 1)), frozenset())
    comparison = compare(_compared("ours", 1, rows=rows), _compared("theirs", 2), OPTIONS)
    assert comparison.differences == ()
    assert comparison.lift_ratio.value is None
    assert comparison.not_run == "their held-out rows differ"


def test_only_what_both_have_is_compared() -> None:
    figures = {"utility.accuracy": _figures(1)["utility.accuracy"]}
    ours = _compared("ours", 1, figures=figures, scores=None)
    differences = compare(ours, _compared("theirs", 2), OPTIONS).differences
    assert [each.measure for each in differences] == ["utility.accuracy"]
    other = Rows(tuple(range(51, 62)), tuple(range(N)), frozenset())
    differences = compare(_compared("ours", 1, rows=other), _compared("t", 2), OPTIONS).differences
    assert "membership.auc" not in {each.measure for each in differences}


def test_a_figure_without_a_denominator_is_undefined() -> None:
    nothing = {"attention.overall.lift": figure(range(N), np.zeros(N), np.zeros(N))}
    (each,) = compare(
        _compared("ours", 1, figures=nothing, scores=None), _compared("theirs", 2), OPTIONS
    ).differences
    assert (each.ours, each.difference.value) == (None, None)
    assert each.theirs is not None


def test_difference_of_two_areas_is_theirs_and_its_interval_covers() -> None:
    """Correlated scores of the same rows; the true difference is 0."""
    covered, narrower = 0, 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        base = [rng.normal(size=60) + 1, rng.normal(size=70)]
        ours, theirs = ([b + 0.5 * rng.normal(size=len(b)) for b in base] for _ in range(2))
        own, other, difference = auc_difference(tuple(ours), tuple(theirs))  # type: ignore[arg-type]
        if seed < 3:
            truth = [1] * 60 + [0] * 70
            assert own == pytest.approx(roc_auc_score(truth, np.concatenate(ours)))
            assert other == pytest.approx(roc_auc_score(truth, np.concatenate(theirs)))
        assert difference.value == own - other
        covered += (difference.low or 0) <= 0 <= (difference.high or 0)
        narrower += (difference.high or 0) - (difference.low or 0) < 0.15
    assert 88 <= covered <= 100
    assert narrower > 75, "pairing makes use of the correlation"
