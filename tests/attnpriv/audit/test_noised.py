"""What one record adds to a noised figure, the figures that come out, and what draws can prove."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from attnpriv.audit.comparison import Compared
from attnpriv.audit.counterfactual import swap_apart
from attnpriv.audit.documents import Documents, prepare
from attnpriv.audit.figures import Figure
from attnpriv.audit.lift import LiftAccumulator
from attnpriv.audit.noised import (
    ABOVE,
    AUC,
    BOUNDS,
    MOST_FREQUENT,
    SIZE,
    SQUARES,
    Bound,
    Layout,
    NoisedFigure,
    contributions,
    sum_up,
    wins,
)
from attnpriv.audit.statistics import auc
from attnpriv.audit.subject import Rows
from attnpriv.data import Dataset
from attnpriv.data.records import Span
from attnpriv.data.text import Text
from attnpriv.data.tickets import make_tickets
from attnpriv.data.tokenisation import HashTokenizer
from attnpriv.estimates import UNDEFINED, Estimate
from attnpriv.release.sums import NoisePlan, Price, plan
from attnpriv.report.noised.document import make_result
from attnpriv.report.noised.findings import FINDINGS, noised_findings
from attnpriv.runs.folder import Run
from attnpriv.verdicts import make_claim
from tests.attnpriv.release.empirical import epsilon_lower_bound

RECORDS, CLASSES, GROUPS = 401, 5, (307, 401)
LAYOUT = Layout(0, RECORDS, CLASSES, GROUPS)
DELTA = RECORDS**-1.1
EXTREME = (0.0, 1e-300, 1e-9, 0.003, 0.1, 0.15, 0.5, 1.0, 7.0, 1e12)


def made_up(seed: int, records: int = RECORDS) -> Compared:
    """Figures as an audit has them: shares, lifts near 0.9, swaps in some records."""
    rng = np.random.default_rng(seed)
    figures = {}
    for path, bound in BOUNDS.items():
        if bound.high is None:
            y = rng.uniform(0, 0.3, records) * rng.integers(0, 2, records)
            x = np.clip(y * rng.normal(0.9, 0.1, records), 0, 1)
        elif bound.size:
            y = rng.integers(0, 4, records).astype(float)
            x = y * rng.uniform(0, 0.2, records)
        else:
            y, x = np.ones(records), rng.uniform(0.3, 1.0, records)
        figures[path] = Figure(tuple(range(records)), tuple(x.tolist()), tuple(y.tolist()))
    scores = rng.normal(0.2, 1, GROUPS[0]), rng.normal(0, 1, GROUPS[1])
    rows = Rows(tuple(range(GROUPS[0])), tuple(range(records)), frozenset())
    return Compared("made", rows, LiftAccumulator(1, 1, 1, 0), figures, scores)


def labels(records: int = RECORDS) -> list[int]:
    return np.random.default_rng(7).integers(0, CLASSES, records).tolist()


def exactly(layout: Layout = LAYOUT) -> NoisePlan:
    """A plan whose noise is nothing beside the sums."""
    sums = tuple(layout.sums())
    return NoisePlan("discrete Gaussian", sums, (Price(1, 1),) * len(sums), 1, DELTA)


@pytest.mark.parametrize("path", BOUNDS)
def test_no_record_adds_more_than_is_charged(path: str) -> None:
    """Whatever the record: every pair of extreme numbers, of either sign."""
    bound = BOUNDS[path]
    values = [sign * value for value in EXTREME for sign in (1, -1)]
    pairs = [(x, y) for x in values for y in EXTREME]
    if bound.size is None:  # every record counts once
        pairs = [(x, 1.0) for x in values]
    pairs += [(strange, 1.0) for strange in (math.nan, math.inf, -math.inf)]
    x, y = zip(*pairs, strict=True)
    added = contributions(Figure(tuple(range(len(x))), x, y), bound)
    charged = {each.name: each for each in LAYOUT.sums()}
    for of, each in added.items():
        own = charged[f"0 {path} {of}"]
        flat = each.reshape(len(x), -1)
        assert np.isfinite(flat).all()
        assert (flat == np.rint(flat)).all()
        assert (np.linalg.norm(flat, axis=1) <= own.l2).all(), of
        assert (np.abs(flat).sum(1) <= own.l1).all(), of


def test_the_bounds_of_the_sums_are_reached() -> None:
    """A bound that no record reaches would be charged for nothing."""
    lift, share = BOUNDS["attention.overall.lift"], BOUNDS["utility.accuracy"]
    wide = contributions(Figure((0, 1), (1.0, 0.3), (0.5, 0.3)), lift)
    charged = {each.name: each.l2 for each in LAYOUT.sums()}
    for of in (ABOVE, SIZE):
        assert np.abs(wide[of]).max() == pytest.approx(charged[f"0 attention.overall.lift {of}"])
    right = contributions(Figure((0,), (1.0,), (1.0,)), share)
    assert np.abs(right[ABOVE]).max() == charged[f"0 utility.accuracy {ABOVE}"]


@pytest.mark.parametrize("seed", range(20))
def test_a_record_less_moves_the_area_no_more_than_is_charged(seed: int) -> None:
    rng = np.random.default_rng(seed)
    members, others = np.round(rng.normal(size=GROUPS[0]), 1), np.round(rng.normal(size=23), 1)
    members[0] = (-1) ** seed * 1e9  # the record that differs, as far out as can be
    whole = wins(members, others)
    assert abs(whole - wins(members[1:], others)) <= max(len(members), len(others))
    assert abs(whole - wins(members, others[1:])) <= max(len(members), len(others))
    pairs = 2 * len(members) * len(others)
    assert 0.5 + whole / pairs == pytest.approx(auc(members, others).value)


def test_without_noise_the_figures_are_those_of_the_records() -> None:
    own, seen = made_up(3), labels()
    found = LAYOUT.figures(exactly(), LAYOUT.exact(own, seen))
    for path, bound in BOUNDS.items():
        x, y = (np.array(each) for each in (own.figures[path].numerators,
                                            own.figures[path].denominators))  # fmt: skip
        with np.errstate(divide="ignore", invalid="ignore"):
            weight = np.minimum(1, bound.spread / np.abs(x - bound.centre * y))
            if bound.size:
                weight = np.minimum(weight, bound.size / y)
        weight = np.where(y > 0, weight, 0)
        expected = (weight * x).sum() / (weight * y).sum()
        assert found[path].estimate.value == pytest.approx(expected, abs=1e-4), path
    assert found[MOST_FREQUENT].estimate.value == max(np.bincount(seen)) / RECORDS
    assert own.scores is not None
    assert found[AUC].estimate.value == pytest.approx(auc(*own.scores).value)


def test_the_weights_of_ordinary_records_are_not_lowered() -> None:
    own = made_up(4).figures["attention.overall.lift"]
    added = contributions(own, BOUNDS["attention.overall.lift"])
    ratio = 1 + added[ABOVE].sum() / added[SIZE].sum()
    assert ratio == pytest.approx(sum(own.numerators) / sum(own.denominators), abs=1e-4)


def test_a_figure_that_the_noise_hides_is_not_told() -> None:
    own = made_up(5)
    nothing = Figure((0,), (0.0,), (0.0,))
    figures = {**own.figures, "attention.matched.lift": nothing}
    made = plan(LAYOUT.sums(), 1.0, DELTA)
    noised = made.add(LAYOUT.exact(replace(own, figures=figures), labels()))
    name = f"0 attention.matched.lift {SIZE}"
    noised[name] = [int(4 * made.deviation(name))]
    assert LAYOUT.figures(made, noised)["attention.matched.lift"].estimate.value is None


@pytest.mark.exhaustive
def test_the_intervals_hold_the_noise_and_the_choice_of_the_records() -> None:
    """Records are drawn anew each time; the truth is that of very many of them."""
    paths = [*BOUNDS, AUC]
    missed, told = dict.fromkeys(paths, 0), dict.fromkeys(paths, 0)
    many = made_up(0, 200_000)
    large = Layout(0, 200_000, CLASSES, None)
    truth = large.figures(exactly(large), large.exact(many, labels(200_000)))
    area = 0.5 * (1 + math.erf(0.2 / 2))  # of N(0.2, 1) against N(0, 1)
    made = plan(LAYOUT.sums(), 1.0, DELTA)
    for seed in range(100):
        found = LAYOUT.figures(made, made.add(LAYOUT.exact(made_up(seed + 1), labels())))
        for path in paths:
            at = area if path == AUC else truth[path].estimate.value
            each = found[path].estimate
            assert at is not None
            if each.low is None or each.high is None:
                continue  # noise may leave nothing to divide by, and then nothing is told
            told[path] += 1
            missed[path] += not each.low <= at <= each.high
    assert min(told.values()) >= 30, told
    for path in paths:  # 5 %, and three deviations more
        assert missed[path] <= 0.05 * told[path] + 3 * (told[path] * 0.05 * 0.95) ** 0.5, path


@pytest.mark.parametrize("privately", [False, True])
def test_no_clear_verdict_changes_over_twenty_draws(privately: bool) -> None:
    """On 1,200 records at ε = 1, for two runs whose figures are far from where verdicts turn."""
    lift, right, area = (0.93, 0.78, 0.5) if privately else (0.82, 0.84, 0.6)
    layouts = [Layout(run, 1200, CLASSES, (1200, 1200)) for run in (0, 1)]
    made = plan([each for layout in layouts for each in layout.sums()], 1.0, 1200**-1.1)
    own, seen = clear(lift, right, area), labels(1200)
    exact = layouts[0].exact(own, seen) | layouts[1].exact(own, seen)
    nothing = replace(made, prices=(Price(1, 1),) * len(made.sums))
    expected = verdicts(layouts[0].figures(nothing, exact))
    assert "Attention does not favour personal data" in expected
    for _ in range(20):
        assert verdicts(layouts[0].figures(made, made.add(exact))) == expected


def clear(lift: float, right: float, area: float, records: int = 1200) -> Compared:
    rng = np.random.default_rng(1)
    figures = {}
    for path, bound in BOUNDS.items():
        y = np.ones(records)
        if bound.high is None:
            y = rng.uniform(0, 0.3, records)
            x = y * np.clip(rng.normal(lift, 0.15, records), 0, None)
        elif path == "utility.accuracy":
            x = (rng.random(records) < right).astype(float)
        elif path == "counterfactual.overall.excess":
            x = rng.normal(-0.2, 0.1, records)
        else:
            x = (rng.random(records) < (0.4 if "null" in path else 0.04)).astype(float)
        figures[path] = Figure(tuple(range(records)), tuple(x.tolist()), tuple(y.tolist()))
    shift = 2**0.5 * float(norm.ppf(area))
    scores = rng.normal(shift, 1, records), rng.normal(0, 1, records)
    rows = Rows(tuple(range(records)), tuple(range(records)), frozenset())
    return Compared("made", rows, LiftAccumulator(1, 1, 1, 0), figures, scores)


def verdicts(figures: dict[str, NoisedFigure]) -> list[str]:
    estimates = {path: each.estimate for path, each in figures.items()}
    result = make_result(
        "made", CARD, "data", (1200, (1200, 1200)), estimates, (1.0, 1.0), None, None
    )
    return [each.title for each in noised_findings(result)]


@pytest.mark.parametrize(
    ("area", "verdict", "title"),
    [
        (0.51, "CHANCE", "No membership leak detected"),
        (0.62, "WITHIN THE CLAIM", "Membership can be inferred, within what ε = 1.10 allows"),
        (0.75, "INCONCLUSIVE", "Membership test: too few records to hold it against ε = 1.10"),
        (0.85, "BEYOND THE CLAIM", "Membership can be inferred, beyond what ε = 1.10 allows"),
    ],
)
def test_the_noised_area_stands_beside_the_claim(area: float, verdict: str, title: str) -> None:
    claim = make_claim(math.log(3), 0.0, "a test", [(math.log(3), 0.0)])  # allows 0.75
    estimates = dict.fromkeys(BOUNDS, UNDEFINED)
    estimates["membership.auc"] = Estimate(area, area - 0.05, area + 0.05)
    result = make_result("made", CARD, "data", (9, (9, 9)), estimates, (1.0, 1.0), claim, None)
    membership: Any = result.membership
    assert membership["judgement"].verdict == verdict
    found = FINDINGS["membership"](result)
    assert (found.title, str(claim.auc)[:4]) == (title, "0.75")


CARD = {"private": False, "epsilon": None, "delta": None, "warnings": []}


DRAWS = 20_000


def drawn(made: NoisePlan, name: str, value: int, times: int = DRAWS) -> np.ndarray:
    """One number of a sum with its noise, many times."""
    which = [each.name for each in made.sums].index(name)
    wide = replace(made.sums[which], width=times)
    one = NoisePlan(made.mechanism, (wide,), (made.prices[which],), 1, made.delta)
    return np.array(one.add({name: [value] * times})[name]) / made.deviation(name)


def proved(made: NoisePlan, path: str, factor: float = 1.0) -> float:
    """What draws prove for two sets of records of which one has the worst record more."""
    name = f"0 {path} {ABOVE}"
    worst = next(each for each in made.sums if each.name == name).l2
    pair = [np.clip(drawn(made, name, int(factor * v)), -8, 8) for v in (0, worst)]
    return epsilon_lower_bound(*(np.digitize(each, np.linspace(-4, 4, 17)) for each in pair))


def alone(path: str, epsilon: float) -> tuple[NoisePlan, float]:
    """A plan that spends all on one sum, which is where draws can prove most."""
    sums = [each for each in LAYOUT.sums() if each.name == f"0 {path} {ABOVE}"]
    return plan(sums, epsilon, 0.0), epsilon


@pytest.mark.parametrize("path", ["utility.accuracy", "attention.matched.lift"])
def test_draws_prove_no_more_than_what_is_charged(path: str) -> None:
    made, epsilon = alone(path, 1.0)
    assert 0.6 < proved(made, path) <= epsilon


@pytest.mark.parametrize("path", ["utility.accuracy", "attention.matched.lift"])
def test_a_bound_that_is_doubled_in_secret_is_found(path: str) -> None:
    """The same as noise that is halved."""
    made, epsilon = alone(path, 1.0)
    assert proved(made, path, factor=2.0) > epsilon


@pytest.mark.parametrize("path", list(BOUNDS))
@pytest.mark.exhaustive
def test_each_sum_of_a_whole_audit_stays_within_its_share(path: str) -> None:
    made = plan(LAYOUT.sums(), 1.0, DELTA)
    assert proved(made, path) <= 1.0


@pytest.fixture(scope="module")
def twins(tickets: Dataset) -> tuple[Documents, Documents]:
    """The same documents, of which one is another one, with other values in it."""
    data = tickets.subset(range(12))
    other = make_tickets(50, seed=99)
    assert data.spans is not None
    assert other.spans is not None
    row = next(i for i, spans in enumerate(other.spans) if len(spans) > 1)
    texts = (*data.texts[:5], other.texts[row], *data.texts[6:])
    spans = (*data.spans[:5], other.spans[row], *data.spans[6:])
    changed = replace(data, texts=texts, spans=spans)
    both = [
        prepare(Text(HashTokenizer(4096), 64), each, each.spans or ()) for each in (data, changed)
    ]
    return both[0], both[1]


def test_a_swap_depends_on_no_other_record(run: Run, twins: tuple[Documents, Documents]) -> None:
    ours, theirs = (swap_apart(run, each, _spans(each), 0) for each in twins)
    assert sum(ours["counterfactual.overall.swap.change"].denominators) > 10
    for path, figure in ours.items():
        for of in ("numerators", "denominators"):
            pairs = zip(getattr(figure, of), getattr(theirs[path], of), strict=True)
            assert all(a == b for d, (a, b) in enumerate(pairs) if d != 5), path
    assert ours != theirs


def _spans(documents: Documents) -> tuple[tuple[Span, ...], ...]:
    assert documents.data.spans is not None
    return documents.data.spans


def test_the_same_bits_come_of_any_order_of_the_records() -> None:
    own, order = made_up(6), np.random.default_rng(0).permutation(RECORDS)
    bound: Bound = BOUNDS["attention.overall.lift"]
    of = own.figures["attention.overall.lift"]
    turned = Figure(
        of.documents,
        tuple(np.array(of.numerators)[order].tolist()),
        tuple(np.array(of.denominators)[order].tolist()),
    )
    for name in (ABOVE, SIZE, SQUARES):
        assert sum_up(contributions(of, bound)[name]) == sum_up(contributions(turned, bound)[name])
