"""A lower bound on ε from the canaries of one run (``attnpriv train --canaries``).

Three attacks guess the coins: by the scores that the training kept of its gradients (white-box),
and by the finished model's margin and loss on the texts (black-box). Each guesses of the canaries
with the highest scores that they were in, of as many with the lowest that they were not, and
abstains for the rest. How many guesses it makes follows from the claim and the numbers of canaries
and attacks alone, so that it is fixed beforehand.

Claim: each lower bound is wrong in at most 5 % of trainings; over all attacks together, BEYOND THE
CLAIM and FOUND are wrong in at most 2.5 % of audits each. Condition: nobody who made the scores
knew the coins, which were fair and independent. Not covered: an attack that fails proves nothing,
and what even a perfect attacker could prove with these canaries stands beside each bound.

Source: Steinke, Nasr and Jagielski 2023 (arXiv:2305.08846); Mahloujifar, Melis and Chaudhuri 2024
(arXiv:2410.22235).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from attnpriv.audit.figures import Figures
from attnpriv.audit.leakage.claims import claim_of
from attnpriv.audit.leakage.one_run import one_run_epsilon_lower_bound
from attnpriv.audit.leakage.trade_off import (
    LARGEST_MU,
    Curve,
    curve_of,
    expected_correct,
    gaussian_curve,
    most_correct,
    one_run_gaussian_epsilon_lower_bound,
)
from attnpriv.audit.statistics import Floats
from attnpriv.audit.subject import Answers, Progress, Subject
from attnpriv.estimates import Control, Estimate
from attnpriv.privacy.accounting import gaussian_epsilon
from attnpriv.runs.canaries import Canaries, TextCanaries
from attnpriv.runs.folder import Run
from attnpriv.runs.prediction import predict_probabilities
from attnpriv.verdicts import ERROR, Claim, Judgement, judge

WHITE_BOX, LOSS, MARGIN = "white-box", "black-box: loss", "black-box: margin"
SHARES = (0.1, 0.15, 0.2, 0.3, 0.4)  # of the canaries, for which guesses are made
USUAL_SHARE = 0.4  # without a claim: what is remembered is remembered of many
SHARE_OF_FIRST = 0.8  # of the chance of a false finding: the weaker attacks seldom find anything
ENOUGH = 0.8  # chance to notice noise at half of what is stated; below, nothing can be concluded
PLENTY = 0.9  # chance with which more guesses are not tried
SOME = 0.05  # chance from which on it counts
KNOWN = 4.0  # by which the probe of the positive control scores canaries higher that were in
DELTA = 1e-5  # where no δ is claimed
EXPECTED = (
    "a noisy probe that knows the coins: a lower bound above 0",
    "coins tossed again: p of at least 0.001",
)
Coins = NDArray[np.bool_]


@dataclass(frozen=True)
class CanaryAttack:
    """What one attack guessed of one kind of canary.

    Attributes:
        name: of the attack.
        canaries: m, how many there are.
        guesses: r, for how many it made a guess.
        correct: v, how many guesses were right.
        epsilon: lower bound on ε at the claim's δ, by (ε, δ) alone.
        gaussian_epsilon: the same if the training has a Gaussian's curve, as that of many noised
            steps nearly is.
        epsilon_ceiling: what ``epsilon`` would be, on average, after a perfect attack with as many
            guesses on a training that spends just what it claims; without a claim, with all guesses
            right.
        gaussian_epsilon_ceiling: likewise.
        power: the chance that a perfect attack refutes the claim where the noise is half of what
            it should be; None without a claim.
    """

    name: str
    canaries: int
    guesses: int
    correct: int
    epsilon: float
    gaussian_epsilon: float
    epsilon_ceiling: float
    gaussian_epsilon_ceiling: float
    power: float | None


@dataclass(frozen=True)
class CanariesResult:
    """What was found out about the coins of a run's canaries, with two controls.

    Attributes:
        attacks: the strongest first.
        delta: δ at which the bounds are stated.
        epsilon: ``gaussian_epsilon`` of the first attack.
        ceiling: ``gaussian_epsilon_ceiling`` of it.
        judgement: of the shares of right guesses, the first attack's as the main figure.
    """

    attacks: tuple[CanaryAttack, ...]
    delta: float
    epsilon: float
    ceiling: float
    judgement: Judgement
    positive: Control
    null: Control
    valid: bool
    seed: int


@dataclass(frozen=True)
class Scored:
    """Canaries with the scores of one attack, higher for those that look trained on."""

    name: str
    coins: Coins
    scores: Floats


@dataclass(frozen=True)
class _Plan:
    """How many guesses an attack makes, decided without its scores.

    Attributes:
        guesses: r, an even number.
        chance: the most right guesses that are no finding.
        allowed: the most that the claim allows; None without a claim.
        power: as in ``CanaryAttack``.
    """

    guesses: int
    chance: int
    allowed: int | None
    power: float | None


def measure_canaries(
    attacks: Sequence[Scored], claim: Claim | None = None, seed: int = 0
) -> CanariesResult:
    """Guess coins, bound ε from below, and hold the guesses against the claim.

    Controls: a probe that knows the coins, with normal noise of deviation 1, must be found in each
    attack's place, or there are too few canaries. Against coins that are tossed again, the scores
    must find nothing. Where either fails, the result is not valid.

    Args:
        attacks: at least one, the strongest first.
        claim: of the model, if it has one.
        seed: of the controls.
    """
    rng = np.random.default_rng([seed, 21])
    curve = None if claim is None else curve_of(claim.profile)
    delta = DELTA if claim is None else claim.delta
    plans = [
        _plan(len(each.coins), claim, curve, error)
        for each, error in zip(attacks, _errors(len(attacks)), strict=True)
    ]
    rights = [_right(each, plan.guesses) for each, plan in zip(attacks, plans, strict=True)]
    positive, null = _controls(attacks, plans, delta, rng)
    judgement = _judge(attacks, plans, rights, claim, positive.passed and null.passed)
    measured = tuple(
        _bounded(each, plan, right, curve, delta)
        for each, plan, right in zip(attacks, plans, rights, strict=True)
    )
    return CanariesResult(
        attacks=measured,
        delta=delta,
        epsilon=measured[0].gaussian_epsilon,
        ceiling=measured[0].gaussian_epsilon_ceiling,
        judgement=judgement,
        positive=positive,
        null=null,
        valid=positive.passed and null.passed,
        seed=seed,
    )


def _errors(attacks: int) -> list[float]:
    """The chance of a false finding that each attack has; most is the first one's."""
    if attacks == 1:
        return [ERROR]
    others = (1 - SHARE_OF_FIRST) / (attacks - 1)
    return [ERROR * SHARE_OF_FIRST, *[ERROR * others] * (attacks - 1)]


def _plan(canaries: int, claim: Claim | None, curve: Curve | None, error: float) -> _Plan:
    """The fewest guesses with which half the noise would be noticed, or those nearest to it.

    Where it never would be, those that prove most.
    """
    if claim is None or curve is None:
        guesses = _even(USUAL_SHARE * canaries)
        return _Plan(guesses, _most_by_chance(guesses, error), None, None)
    mu = 2 * _mu_of(claim.epsilon, claim.delta)  # what half the noise makes of a Gaussian
    plans = []
    for share in SHARES:
        guesses = _even(share * canaries)
        allowed = most_correct(curve, canaries, guesses, error)
        right = expected_correct(gaussian_curve(mu), canaries, guesses) / max(1, guesses)
        power = float(binom.sf(allowed, guesses, right))
        plans.append(_Plan(guesses, _most_by_chance(guesses, error), allowed, power))
        if power >= PLENTY:
            return plans[-1]
    best = max(plans, key=lambda plan: plan.power or 0.0)
    if (best.power or 0.0) >= SOME:
        return best
    return max(plans, key=lambda plan: _ceiling(canaries, plan.guesses, curve, claim.delta))


def _ceiling(canaries: int, guesses: int, curve: Curve, delta: float) -> float:
    """What a perfect attack proves on average."""
    right = round(expected_correct(curve, canaries, guesses))
    return one_run_gaussian_epsilon_lower_bound(canaries, guesses, right, delta)


def _even(number: float) -> int:
    return 2 * round(number / 2)


def _most_by_chance(guesses: int, error: float) -> int:
    return int(binom.isf(error, guesses, 0.5))


def _mu_of(epsilon: float, delta: float) -> float:
    """The Gaussian with this ε at δ."""
    low, high = 0.0, LARGEST_MU
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_epsilon(middle, delta) < epsilon else (low, middle)
    return high


def _right(attack: Scored, guesses: int) -> int:
    """How many guesses are right; equal scores stand in the order of the canaries."""
    ranked = attack.coins[np.argsort(attack.scores, kind="stable")]
    half = guesses // 2
    return int(ranked[len(ranked) - half :].sum() + (~ranked[:half]).sum())


def _bounded(
    attack: Scored, plan: _Plan, right: int, curve: Curve | None, delta: float
) -> CanaryAttack:
    canaries, perfect = len(attack.coins), plan.guesses
    if curve is not None:
        perfect = round(expected_correct(curve, canaries, plan.guesses))
    return CanaryAttack(
        name=attack.name,
        canaries=canaries,
        guesses=plan.guesses,
        correct=right,
        epsilon=one_run_epsilon_lower_bound(canaries, plan.guesses, right, delta),
        gaussian_epsilon=one_run_gaussian_epsilon_lower_bound(canaries, plan.guesses, right, delta),
        epsilon_ceiling=one_run_epsilon_lower_bound(canaries, plan.guesses, perfect, delta),
        gaussian_epsilon_ceiling=one_run_gaussian_epsilon_lower_bound(
            canaries, plan.guesses, perfect, delta
        ),
        power=plan.power,
    )


def _judge(
    attacks: Sequence[Scored],
    plans: Sequence[_Plan],
    rights: Sequence[int],
    claim: Claim | None,
    valid: bool,
) -> Judgement:
    figures = []
    for attack, plan, right in zip(attacks, plans, rights, strict=True):
        of = max(1, plan.guesses)
        allowed = None if plan.allowed is None else plan.allowed / of
        share = right / of
        name = f"share of right guesses, {attack.name}"
        figures.append((name, Estimate(share, share, share), plan.chance / of, allowed))
    judged = judge(figures, claim, valid=valid)
    weak = plans[0].power is not None and plans[0].power < ENOUGH
    # An attack that is no better than guessing may only be a bad one.
    if judged.verdict == "CHANCE" or (judged.verdict == "WITHIN THE CLAIM" and weak):
        return replace(judged, verdict="INCONCLUSIVE")
    return judged


def _controls(
    attacks: Sequence[Scored], plans: Sequence[_Plan], delta: float, rng: np.random.Generator
) -> tuple[Control, Control]:
    bounds, p_values = [], []
    for attack, plan in zip(attacks, plans, strict=True):
        m = len(attack.coins)
        probe = replace(attack, scores=rng.normal(size=m) + KNOWN * attack.coins)
        right = _right(probe, plan.guesses)
        bounds.append(one_run_epsilon_lower_bound(m, plan.guesses, right, delta))
        again = replace(attack, coins=rng.random(m) < 0.5)
        p_values.append(float(binom.sf(_right(again, plan.guesses) - 1, plan.guesses, 0.5)))
    return (
        Control(EXPECTED[0], min(bounds), min(bounds) > 0),
        Control(EXPECTED[1], min(p_values), min(p_values) >= 0.001),
    )


def text_scores(run: Run, canaries: TextCanaries) -> tuple[Floats, Floats]:
    """The log-probability and the margin of each text's class, less the mean of its class.

    Texts of a class that the model likes have high scores, trained on or not.
    """
    probabilities = predict_probabilities(run, canaries.texts)
    own, labels = np.arange(len(canaries.labels)), np.asarray(canaries.labels)
    tiny = float(np.finfo(np.float32).tiny)
    logs = np.log(np.maximum(probabilities, tiny))
    others = logs.copy()
    others[own, labels] = -np.inf
    found = logs[own, labels], logs[own, labels] - others.max(1)
    for scores in found:
        for label in set(canaries.labels):
            scores[labels == label] -= scores[labels == label].mean()
    return found


def attacks_on(run: Run, canaries: Canaries) -> list[Scored]:
    """The attacks that the canaries of a run allow, the strongest first."""
    attacks = []
    if canaries.gradients.coins:
        coins = np.array(canaries.gradients.coins)
        attacks.append(Scored(WHITE_BOX, coins, np.array(canaries.gradients.scores)))
    if canaries.texts.coins:
        coins, (loss, margin) = np.array(canaries.texts.coins), text_scores(run, canaries.texts)
        attacks += [Scored(MARGIN, coins, margin), Scored(LOSS, coins, loss)]
    return attacks


def passes(subject: Subject) -> float:
    """Roughly how many documents ``run`` sends through the model."""
    return 0 if subject.canaries is None else len(subject.canaries.texts.texts)


def run(subject: Subject, answers: Answers, progress: Progress, figures: Figures) -> CanariesResult:
    """As a measure of an audit."""
    assert subject.canaries is not None
    return measure_canaries(
        attacks_on(subject.run, subject.canaries), claim_of(subject.run), subject.options.seed
    )
