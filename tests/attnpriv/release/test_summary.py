"""Summaries: what one text can add, that the noise is the smaller error, and what they cost."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from attnpriv.errors import InputError
from attnpriv.release.cost import MICRO, cost_of_pure
from attnpriv.release.summary import KINDS, LABELS, Summarizer, TextFigures
from attnpriv.release.sums import GRID, epsilon_of_rho

TEXTS, CLASSES, GROUPS = 500, 5, 7
DELTA = TEXTS**-1.1
PLAIN = Summarizer(TEXTS, CLASSES, GROUPS, MICRO, DELTA)
PURE = replace(PLAIN, delta=0.0)
ALL = replace(PLAIN, by_label=True)


def texts(seed: int, number: int = TEXTS) -> list[TextFigures]:
    """Shares as texts have them: most groups absent, those that are there around a tenth."""
    rng = np.random.default_rng(seed)
    shares = rng.gamma(1.0, 0.12, (number, 2, GROUPS)) * rng.integers(0, 2, (number, 2, GROUPS))
    shares /= np.maximum(1.0, shares.sum(2, keepdims=True))
    return [
        TextFigures(int(rng.integers(CLASSES)), dict(zip(KINDS, each.tolist(), strict=True)))
        for each in shares
    ]


@pytest.mark.parametrize("made", [PLAIN, PURE, ALL], ids=["with delta", "pure", "by label"])
@pytest.mark.parametrize("worst", [1.0, 1e9, 0.3, 0.11, math.nan, math.inf, -1.0, 0.0])
@pytest.mark.parametrize("of", [1, GROUPS])
def test_one_text_adds_no_more_than_is_charged(made: Summarizer, worst: float, of: int) -> None:
    others = texts(1)
    shares = [worst] * of + [0.0] * (GROUPS - of)
    last = TextFigures(2, dict.fromkeys(KINDS, shares))
    one_more = replace(made, texts=TEXTS + 1, delta=0.0).exact([*others, last])
    without = made.exact(others)
    charged = {each.name: each for each in made.plan.sums}
    for name, sums in one_more.items():
        added = np.array(sums) - np.array(without[name])
        assert np.linalg.norm(added) <= charged[name].l2, name
        assert np.abs(added).sum() <= charged[name].l1, name


def test_the_noise_is_smaller_than_what_the_choice_of_the_texts_does() -> None:
    """At 500 texts and ε = 1, for every count and every mean over all texts."""
    drawn = [PLAIN.exact(texts(seed)) for seed in range(60)]
    for name in (LABELS, *KINDS):
        chosen = np.std([each[name] for each in drawn], axis=0, ddof=1)
        assert PLAIN.plan.deviation(name) < chosen.mean(), name


@pytest.mark.parametrize("made", [PLAIN, PURE], ids=["with delta", "pure"])
def test_intervals_hold_what_very_many_texts_show(made: Summarizer) -> None:
    many = texts(0, 20_000)
    large = Summarizer(20_000, CLASSES, GROUPS, MICRO)
    exact = large.exact(many)
    missed = total = 0
    for seed in range(20):
        found = made.summary(texts(seed + 1))
        for kind in KINDS:
            for each, sum_ in zip(found.means[kind], exact[kind], strict=True):
                assert each.low is not None
                assert each.high is not None
                missed += not each.low <= sum_ / GRID / 20_000 <= each.high
                total += 1
    assert missed <= 0.05 * total + 3 * (0.05 * 0.95 * total) ** 0.5


def test_a_class_that_the_noise_hides_has_no_mean() -> None:
    assert PLAIN.read(PLAIN.exact(texts(3))).by_label is None
    noised = ALL.exact(texts(3))
    noised[LABELS][0] = 3
    found = ALL.read(noised).by_label
    assert found is not None
    assert found["attention"][0].value is None
    assert found["attention"][1].value is not None


def test_what_a_summary_costs() -> None:
    assert PURE.plan.mechanism == "discrete Laplace"
    assert PURE.cost == cost_of_pure(MICRO)
    assert PLAIN.plan.mechanism == "discrete Gaussian"
    assert PLAIN.cost.micro_rho < PURE.cost.micro_rho
    assert epsilon_of_rho(PLAIN.cost.micro_rho / MICRO, DELTA) <= 1


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"texts": 0}, "expected texts >= 1"),
        ({"classes": 0}, "expected classes >= 1"),
        ({"delta": 1 / TEXTS}, "expected delta from 0 to below 1/500"),
        ({"micro_epsilon": 0}, "expected epsilon"),
    ],
)
def test_nonsense_is_refused(wrong: dict[str, float], named: str) -> None:
    with pytest.raises(InputError, match=named):
        replace(PLAIN, **wrong)  # type: ignore[arg-type]


def test_a_text_too_many_is_refused() -> None:
    with pytest.raises(InputError, match="expected 500 texts, got 499"):
        PLAIN.exact(texts(0)[1:])
