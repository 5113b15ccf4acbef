"""LiRA and RMIA: equal to slow loops from the papers; they win where they must, and only there."""

import math
from statistics import NormalDist, fmean, variance

import numpy as np
import pytest

from attnpriv.audit.leakage.likelihood import (
    Confidences,
    lira,
    lira_offline,
    rmia,
    rmia_offline,
)
from attnpriv.audit.statistics import auc, auc_difference
from attnpriv.errors import InputError
from tests.attnpriv.audit.worlds import World

ATTACKS = {
    "LiRA": lambda seen, population: lira(seen),
    "LiRA offline": lambda seen, population: lira_offline(seen),
    "RMIA": rmia,
    "RMIA offline": rmia_offline,
}


def drawn(models, records, seed):
    """Confidences without any meaning, with models on both sides of each record."""
    rng = np.random.default_rng(seed)
    inside = rng.random((models, records)) < 0.5
    inside[:2], inside[2:4] = True, False
    return Confidences(
        rng.normal(1, 2, records), rng.normal(1, 2, (models, records)) + inside, inside
    )


def sides(seen, record):
    """The log-odds of a record's IN and OUT models, as two lists."""
    pairs = list(zip(seen.shadows[:, record], seen.inside[:, record], strict=True))
    return [float(x) for x, i in pairs if i], [float(x) for x, i in pairs if not i]


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def shared_variances(seen):
    """One variance a side: squared distances from each record's mean, over degrees of freedom."""
    found = []
    for side in (0, 1):
        squares, free = 0.0, 0
        for record in range(len(seen.target)):
            values = sides(seen, record)[side]
            squares += sum((value - fmean(values)) ** 2 for value in values)
            free += len(values) - 1
        found.append(squares / free)
    return found


def normals(seen, record):
    both = sides(seen, record)
    own = len(seen.inside) >= 64
    spreads = [variance(values) for values in both] if own else shared_variances(seen)
    return [NormalDist(fmean(v), math.sqrt(s)) for v, s in zip(both, spreads, strict=True)]


@pytest.mark.parametrize("models", [5, 17, 64, 67])
def test_lira_equals_a_loop_over_records_from_its_paper(models):
    seen = drawn(models, 13, seed=models)
    online, offline = lira(seen), lira_offline(seen)
    for record, target in enumerate(seen.target):
        of_in, of_out = normals(seen, record)
        ratio = math.log(of_in.pdf(target) / of_out.pdf(target))
        assert online[record] == pytest.approx(ratio, abs=1e-6)
        assert NormalDist().cdf(offline[record]) == pytest.approx(of_out.cdf(target), abs=1e-6)


@pytest.mark.parametrize("gamma", [1.0, 2.0])
@pytest.mark.parametrize("a", [None, 0.0, 0.3, 1.0])
def test_rmia_equals_a_loop_over_pairs_from_its_paper(gamma, a):
    seen, population = drawn(11, 13, seed=1), drawn(11, 17, seed=2)

    def ratio(of, record):
        p_in, p_out = ([sigmoid(x) for x in side] for side in sides(of, record))
        online = 0.5 * fmean(p_in) + 0.5 * fmean(p_out)
        offline = None if a is None else 0.5 * ((1 + a) * fmean(p_out) + (1 - a))
        return sigmoid(of.target[record]) / (online if offline is None else offline)

    expected = [
        fmean(ratio(seen, x) / ratio(population, z) >= gamma for z in range(17)) for x in range(13)
    ]
    found = rmia(seen, population, gamma) if a is None else rmia_offline(seen, population, gamma, a)
    assert found == pytest.approx(expected, abs=1e-6)
    assert len({*expected}) >= 3


def test_the_order_by_rmia_is_that_of_the_ratios_whoever_is_in_the_population():
    seen = drawn(11, 29, seed=3)
    some, others = drawn(11, 4001, seed=4), drawn(11, 4001, seed=5)
    scores = [rmia(seen, some), rmia(seen, others), rmia(seen, some, gamma=1.5)]
    apart = np.all([(each > 0) & (each < 1) for each in scores], axis=0)
    orders = {tuple(np.argsort(each[apart], kind="stable")) for each in scores}
    assert apart.sum() > 20
    assert len(orders) == 1


@pytest.fixture(scope="module")
def world():
    return World(64)


@pytest.mark.parametrize("name", ATTACKS)
def test_each_attack_beats_the_loss_threshold_on_overfitted_models(name, world):
    population = world.seen.of(~world.members)
    scores = ATTACKS[name](world.seen, population)
    *_, gained = auc_difference(world.split(scores), world.split(world.seen.target))
    assert gained.low > 0.02


@pytest.mark.parametrize("name", ATTACKS)
def test_each_attack_finds_nothing_where_membership_is_drawn_anew(name, world):
    rng = np.random.default_rng(5)
    found = []
    for _ in range(40):
        members = rng.permutation(world.members)
        scores = ATTACKS[name](world.seen, world.seen.of(~members))
        found.append(auc(scores[members], scores[~members]).value)
    assert fmean(found) == pytest.approx(0.5, abs=4 * np.std(found) / len(found) ** 0.5)


def test_the_order_of_records_and_of_models_does_not_matter():
    seen, population = drawn(11, 13, seed=7), drawn(11, 17, seed=8)
    rng = np.random.default_rng(9)
    records, models = rng.permutation(13), rng.permutation(11)

    def mixed(of, which):
        return Confidences(
            of.target[which], of.shadows[models][:, which], of.inside[models][:, which]
        )

    for attack in ATTACKS.values():
        scores = attack(mixed(seen, records), mixed(population, rng.permutation(17)))
        assert scores == pytest.approx(attack(seen, population)[records], abs=1e-9)


def test_models_that_all_answer_alike_give_scores_that_are_finite():
    inside = np.array([[True], [True], [False], [False]])
    seen = Confidences(np.array([3.0]), np.full((4, 1), 3.0), inside)
    for attack in ATTACKS.values():
        assert np.isfinite(attack(seen, seen)).all()


def test_a_record_with_too_few_models_on_a_side_is_told_and_refused():
    inside = np.array([[True, True], [True, False], [False, True], [False, False]])
    inside[2, 0] = True
    seen = Confidences(np.zeros(2), np.zeros((4, 2)), inside)
    assert seen.usable.tolist() == [False, True]
    for attack in ATTACKS.values():
        with pytest.raises(InputError, match="at least 2 shadow models"):
            attack(seen, seen.of(seen.usable))
        attack(seen.of(seen.usable), seen.of(seen.usable))


@pytest.mark.parametrize(
    ("target", "shadows", "inside"),
    [
        (np.zeros(3), np.zeros((5, 2)), np.ones((5, 2), dtype=bool)),
        (np.zeros(3), np.zeros((5, 3)), np.ones((4, 3), dtype=bool)),
        (np.zeros(3), np.zeros((0, 3)), np.ones((0, 3), dtype=bool)),
        (np.zeros(3), np.zeros(3), np.ones(3, dtype=bool)),
        (np.full(3, np.nan), np.zeros((5, 3)), np.ones((5, 3), dtype=bool)),
        (np.zeros(3), np.full((5, 3), np.inf), np.ones((5, 3), dtype=bool)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(target, shadows, inside):
    with pytest.raises(InputError):
        Confidences(target, shadows, inside)


def test_numbers_out_of_range_are_named():
    seen = drawn(5, 3, seed=0)
    with pytest.raises(InputError, match=r"a in \[0, 1\], got 1.5"):
        rmia_offline(seen, seen, a=1.5)
    with pytest.raises(InputError, match="gamma > 0, got 0"):
        rmia(seen, seen, gamma=0)
    with pytest.raises(InputError, match="at least one record"):
        rmia(seen, seen.of(np.zeros(3, dtype=bool)))
