"""Attacks with shadow models as a measure: figures, verdicts, controls, and records left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from attnpriv.audit.leakage.likelihood import Confidences, lira, rmia
from attnpriv.audit.leakage.shadow_attacks import shadow_attacks
from attnpriv.audit.statistics import auc, auc_difference
from attnpriv.errors import InputError
from attnpriv.shadow_answers import NAMES
from attnpriv.verdicts import make_claim
from tests.attnpriv.audit.worlds import World

SMALL = make_claim(0.1, 0.0, "pure", [(0.1, 0.0)])  # allows an AUC of 0.525
LARGE = make_claim(8.0, 0.0, "pure", [(8.0, 0.0)])


@pytest.fixture(scope="module")
def world() -> World:
    return World(64)


def test_an_overfitted_model_is_found_by_each_attack_which_beats_the_loss_threshold(
    world: World,
) -> None:
    found = shadow_attacks(world.seen, world.members)
    assert found.valid
    assert found.judgement.verdict == "FOUND"
    for name in NAMES:
        attack = getattr(found, name)
        assert attack.judgement.verdict == "FOUND"
        assert (attack.gain.low or 0) > 0
        assert attack.auc.value == pytest.approx((found.loss.auc.value or 0) + attack.gain.value)
    assert (found.models, found.members + found.non_members) == (64, 400)
    assert found.left_out == 0


def test_the_figures_are_those_of_the_attacks(world: World) -> None:
    found = shadow_attacks(world.seen, world.members)
    scores = lira(world.seen)
    assert found.lira.auc == auc(*world.split(scores))
    *_, gain = auc_difference(world.split(scores), world.split(world.seen.target))
    assert found.lira.gain == gain
    assert found.loss.auc == auc(*world.split(world.seen.target))
    population = World(64, seed=1).seen
    stepwise = auc(*world.split(rmia(world.seen, population)))  # ties within the 400 steps
    assert found.rmia.auc.value == pytest.approx(stepwise.value, abs=2 / 400)


def test_the_verdict_is_the_gravest_of_the_four(world: World) -> None:
    for claim, verdict in ((SMALL, "BEYOND THE CLAIM"), (LARGE, "WITHIN THE CLAIM")):
        found = shadow_attacks(world.seen, world.members, claim)
        assert found.judgement.verdict == verdict
        assert found.judgement == getattr(found, found.gravest).judgement
        lows = [getattr(found, name).judgement.figures[0].low for name in NAMES]
        assert found.judgement.figures[0].low == max(lows)


def test_a_random_split_that_the_run_was_not_trained_by_finds_nothing(world: World) -> None:
    rng, alarms = np.random.default_rng(3), []
    for seed in range(12):
        found = shadow_attacks(world.seen, rng.permutation(world.members), seed=seed)
        assert found.valid
        alarms.append(found.judgement.verdict)
    assert alarms.count("NOT FOUND") >= 11


def test_intervals_are_wider_than_those_of_one_attack(world: World) -> None:
    found = shadow_attacks(world.seen, world.members)
    placed = found.lira.judgement.figures[0]
    single = auc(*world.split(lira(world.seen)), 2 * 0.025 / (4 * 2))  # with TPR at 1 %
    assert (placed.low, placed.high) == (single.low, single.high)


def test_members_that_are_easier_than_others_fail_the_null_control(world: World) -> None:
    """They are no random split: models that saw neither tell them apart."""
    easy = np.where(world.seen.inside, np.nan, world.seen.shadows)
    members = np.nanmean(easy, 0) > np.nanmedian(easy)
    for claim in (None, SMALL, LARGE):
        found = shadow_attacks(world.seen, members, claim)
        assert not found.null.passed
        assert (found.valid, found.judgement.verdict) == (False, "INCONCLUSIVE")


def test_too_few_records_fail_the_positive_control(world: World) -> None:
    few = np.arange(9)
    found = shadow_attacks(world.seen.of(few), np.arange(9) < 4)
    assert not found.positive.passed
    assert not found.valid


def test_shadow_models_that_learn_nothing_leave_the_controls_in_force(world: World) -> None:
    dull = Confidences(world.seen.target, np.zeros_like(world.seen.shadows), world.seen.inside)
    found = shadow_attacks(dull, world.members)
    assert found.positive.passed
    assert found.null.measured == 0.5


def test_records_with_too_few_models_on_a_side_are_left_out_and_counted(world: World) -> None:
    inside = world.seen.inside.copy()
    inside[1:, :7] = True
    inside[:1, :7] = False
    found = shadow_attacks(replace(world.seen, inside=inside), world.members)
    assert found.left_out == 7
    assert found.members + found.non_members == 393
    rest = np.arange(7, 400)
    without = shadow_attacks(world.seen.of(rest), world.members[rest])
    assert found == replace(without, left_out=7)
    nothing = replace(world.seen, inside=np.ones_like(inside))
    with pytest.raises(InputError, match="64 shadow models are too few"):
        shadow_attacks(nothing, world.members)
