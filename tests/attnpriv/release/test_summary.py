"""Summaries: what one text can change, that the noise is the smaller error, and what they cost."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from attnpriv.errors import InputError
from attnpriv.release.cost import MICRO, cost_of_pure
from attnpriv.release.summary import (
    KINDS,
    LABELS,
    UNTOLD,
    Kind,
    Summarizer,
    TextFigures,
)
from attnpriv.release.sums import GRID

TEXTS, CLASSES, GROUPS = 500, 5, 7
PLAIN = Summarizer(TEXTS, CLASSES, GROUPS, MICRO)
ATTENTION = replace(PLAIN, kinds=("attention",))
COUNTS = replace(PLAIN, kinds=())
ALL = replace(PLAIN, by_label=True)
LEAST, MOST = [0.0] * GROUPS, [1e9] * GROUPS


def texts(seed: int, number: int = TEXTS) -> list[TextFigures]:
    """Shares as texts have them: most groups absent, those that are there around a tenth."""
    rng = np.random.default_rng(seed)
    shares = rng.gamma(1.0, 0.12, (number, 2, GROUPS)) * rng.integers(0, 2, (number, 2, GROUPS))
    shares /= np.maximum(1.0, shares.sum(2, keepdims=True))
    return [
        TextFigures(int(rng.integers(CLASSES)), dict(zip(KINDS, each.tolist(), strict=True)))
        for each in shares
    ]


def only(place: int, share: float) -> list[float]:
    return [share if group == place else 0.0 for group in range(GROUPS)]


def text(label: int, shares: list[float]) -> TextFigures:
    return TextFigures(label, dict.fromkeys(KINDS, shares))


@pytest.mark.parametrize("made", [PLAIN, COUNTS, ALL], ids=["plain", "counts", "by label"])
@pytest.mark.parametrize("worst", [1.0, 1e9, 0.25, 0.11, math.nan, math.inf, -1.0, 0.0])
@pytest.mark.parametrize("other", [LEAST, MOST, only(3, 1.0)], ids=["least", "most", "one group"])
def test_another_text_in_its_place_changes_no_more_than_is_charged(
    made: Summarizer, worst: float, other: list[float]
) -> None:
    rest = texts(1)[1:]
    before = made.exact([text(2, only(0, worst)), *rest])
    after = made.exact([text(4, other), *rest])
    charged = {each.name: each for each in made.plan.sums}
    assert before.keys() == charged.keys()
    for name, sums in before.items():
        changed = np.abs(np.array(sums) - np.array(after[name]))
        assert changed.sum() <= charged[name].l1, name


def test_no_more_is_charged_than_the_worst_text_needs() -> None:
    rest = texts(1)[1:]
    before = ALL.exact([text(2, only(0, 1.0)), *rest])
    after = ALL.exact([text(4, only(1, 1.0)), *rest])
    for each in ALL.plan.sums:
        changed = np.abs(np.array(before[each.name]) - np.array(after[each.name])).sum()
        assert changed >= 0.9999 * each.l1, each.name


def test_the_prices_add_up_to_no_more_than_the_cost() -> None:
    for made in (PLAIN, ATTENTION, COUNTS, ALL):
        assert made.plan.mechanism == "discrete Laplace"
        assert sum(price.micro for price in made.plan.prices) <= made.cost.micro_epsilon
        for each, price in zip(made.plan.sums, made.plan.prices, strict=True):
            assert each.l1 * MICRO <= price.scale * price.micro
        assert made.cost == cost_of_pure(MICRO)


@pytest.mark.parametrize("asked", [LABELS, *KINDS])
def test_the_noise_is_smaller_than_what_the_choice_of_the_texts_does(asked: str) -> None:
    """At 500 texts and ε = 1, for each figure that is asked for alone."""
    kinds = tuple(kind for kind in KINDS if kind == asked)
    made = replace(PLAIN, labels=asked == LABELS, kinds=kinds)
    drawn = [made.exact(texts(seed))[asked] for seed in range(60)]

    assert made.plan.deviation(asked) < np.std(drawn, axis=0, ddof=1).mean()
    assert made.plan.deviation(asked) < PLAIN.plan.deviation(asked)


@pytest.mark.parametrize("made", [PLAIN, ATTENTION], ids=["plain", "attention"])
def test_intervals_hold_what_very_many_texts_show(made: Summarizer) -> None:
    many = texts(0, 20_000)
    exact = replace(made, texts=20_000).exact(many)
    missed = total = 0
    for seed in range(20):
        found = made.summary(texts(seed + 1))
        for kind in made.kinds:
            for each, sum_ in zip(found.means[kind], exact[kind], strict=True):
                assert each.low is not None
                assert each.high is not None
                missed += not each.low <= sum_ / GRID / 20_000 <= each.high
                total += 1
    assert missed <= 0.05 * total + 3 * (0.05 * 0.95 * total) ** 0.5


def test_what_was_not_asked_for_is_not_told() -> None:
    kinds: tuple[Kind, ...] = ("attention",)
    told = replace(PLAIN, labels=False, kinds=kinds).summary(texts(0))
    assert told.labels == ()
    assert told.means.keys() == {"attention"}
    assert told.by_label == {}
    assert COUNTS.summary(texts(0)).means == {}


def test_a_class_that_the_noise_hides_has_no_mean() -> None:
    clear = replace(ALL, micro_epsilon=4 * MICRO)
    noised = clear.exact(texts(3))
    noised[LABELS][0] = 3
    found = clear.read(noised).by_label["attention"]
    assert found[0] == UNTOLD
    assert found[1].value is not None


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"texts": 0}, "expected texts >= 1"),
        ({"classes": 0}, "expected classes >= 1"),
        ({"cap": 0.0}, "expected cap from 0.01 to 1, got 0.0"),
        ({"cap": math.nan}, "expected cap from 0.01 to 1, got nan"),
        ({"micro_epsilon": 0}, "expected epsilon"),
        ({"labels": False, "kinds": ()}, "got nothing"),
        ({"labels": False, "by_label": True}, "means are told by label"),
    ],
)
def test_nonsense_is_refused(wrong: dict[str, float], named: str) -> None:
    with pytest.raises(InputError, match=named):
        replace(PLAIN, **wrong)  # type: ignore[arg-type]


def test_a_text_too_many_is_refused() -> None:
    with pytest.raises(InputError, match="expected 500 texts, got 499"):
        PLAIN.exact(texts(0)[1:])
