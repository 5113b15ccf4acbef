"""The mechanisms: exact privacy on whole numbers, and optima found by linear programs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import linprog

from attnpriv.errors import InputError
from attnpriv.randomness import StepKeys, Stream
from attnpriv.release import FREE, BoundedDraw, Cost, RandomisedResponse
from attnpriv.release.cost import MICRO, cost_of_pure, ratio_below
from attnpriv.release.draws import UNIT, draw, whole_weights

EPSILONS = (1, 10_001, 500_000, 1_000_000, 3_000_000, 20_000_000)
Array = NDArray[np.float64]


def stream(seed: int = 0) -> Stream:
    return Stream(StepKeys.from_seed(seed).key)


def random_scores(rng: np.random.Generator, outcomes: int) -> Array:
    scores: Array = rng.dirichlet(np.full(outcomes, rng.choice([0.1, 1.0, 10.0])))
    return scores


def within(first: Sequence[int], second: Sequence[int], micro_epsilon: int) -> bool:
    """Whether every chance of the first is at most e^ε times that of the second, exactly.

    The bound is a fraction just below e^ε, so True proves the claim.
    """
    ratio = ratio_below(micro_epsilon)
    one, other = sum(first), sum(second)
    return all(
        a * other * ratio.denominator <= b * one * ratio.numerator
        for a, b in zip(first, second, strict=True)
    )


def chances(weights: Sequence[int]) -> Array:
    return np.array([weight / sum(weights) for weight in weights])


def variation(first: Array, second: Array) -> float:
    return float(np.abs(first - second).sum() / 2)


@pytest.mark.parametrize("micro", EPSILONS)
def test_ratio_is_just_below_the_power_of_e(micro: int) -> None:
    # e^x > the first 200 terms of its series, a sum of fractions.
    exponent, term, series = Fraction(micro, MICRO), Fraction(1), Fraction(1)
    for number in range(1, 200):
        term *= exponent / number
        series += term
    assert series * (1 - Fraction(1, 10**45)) < ratio_below(micro) < series
    assert ratio_below(Fraction(micro, 2)) ** 2 < series


def test_costs_are_whole_numbers_rounded_up() -> None:
    assert cost_of_pure(1) == Cost(1, 1)  # ε²/2 is 5e-13
    assert cost_of_pure(500_000) == Cost(500_000, 125_000)
    assert cost_of_pure(500_001) == Cost(500_001, 125_001)
    assert BoundedDraw([0.5, 0.5], 3_000_000).cost == Cost(3_000_000, 4_500_000)
    assert RandomisedResponse([0.5, 0.5], 3_000_000).cost == Cost(3_000_000, 4_500_000)


def test_below_is_uniform_and_takes_the_bytes_it_says() -> None:
    source = stream()
    for bound in (1, 2, 3, 5, 256, 257):
        drawn = [source.below(bound) for _ in range(200 * bound)]
        counts = np.bincount(drawn, minlength=bound)
        assert len(counts) == bound
        chi_squared = ((counts - 200) ** 2 / 200).sum()
        assert chi_squared <= bound + 5 * math.sqrt(2 * bound)
    keystream = Stream(bytes(32))
    # RFC 8439, appendix A.1, test vector 1: the keystream of zeros begins 76 b8 e0 ad a0 f1.
    assert keystream.below(2**8) == 0x76
    assert keystream.below(2**16) == 0xE0B8
    assert keystream.below(100) == 0xAD & 0x7F
    large = 2**200 + 1
    assert all(0 <= keystream.below(large) < large for _ in range(100))
    with pytest.raises(InputError, match="expected bound >= 1, got 0"):
        keystream.below(0)


def test_draw_gives_each_outcome_its_exact_share_of_the_numbers_below_the_sum() -> None:
    class Counting(Stream):
        """Every number below the bound, one after another."""

        number = -1

        def below(self, bound: int) -> int:
            self.number = (self.number + 1) % bound
            return self.number

    weights = [0, 3, 0, 1, 5, 0]
    source = Counting(bytes(32))
    drawn = [draw(weights, source) for _ in range(sum(weights))]
    assert np.bincount(drawn, minlength=6).tolist() == weights


def test_whole_weights_keep_their_scores_to_one_part_in_a_quadrillion() -> None:
    scores = [1e-300, 0.25, 3.0, 0.0]
    weights = whole_weights("prior", scores)
    assert weights[0] == weights[3] == 0
    assert chances(weights) == pytest.approx(np.array(scores) / 3.25, rel=1e-15, abs=1e-18)
    assert abs(sum(weights) - UNIT) <= 2**10


@pytest.mark.parametrize("micro", EPSILONS)
def test_randomised_response_is_private_for_every_pair_of_answers(micro: int) -> None:
    rng = np.random.default_rng(micro)
    for outcomes in (1, 2, 3, 7, 32):
        for prior in (np.ones(outcomes), random_scores(rng, outcomes)):
            mechanism = RandomisedResponse(prior, micro)
            every = [mechanism.weights(answer) for answer in range(outcomes)]
            for first, second in itertools.product(every, repeat=2):
                assert within(first, second, micro)
                if mechanism.cost == FREE:
                    assert (chances(first) == chances(second)).all()


@pytest.mark.parametrize("micro", EPSILONS)
def test_bounded_draw_is_private_for_any_two_texts(micro: int) -> None:
    rng = np.random.default_rng(micro)
    for outcomes in (1, 2, 3, 7, 32):
        redacted = random_scores(rng, outcomes)
        mechanism = BoundedDraw(redacted, micro)
        texts = [random_scores(rng, outcomes) for _ in range(10)]
        texts += [*np.eye(outcomes)[:5], np.zeros(outcomes), np.full(outcomes, math.nan)]
        texts += [np.full(outcomes, -1.0), np.full(outcomes, math.inf), np.full(outcomes, 1e-320)]
        every = [mechanism.weights(text) for text in texts]
        assert len({sum(weights) for weights in every}) == 1
        for first, second in itertools.product(every, repeat=2):
            assert within(first, second, micro)


def test_answers_that_say_nothing_about_a_text_are_those_of_the_redacted_one() -> None:
    redacted = [0.5, 0.3, 0.2]
    for whole in ([math.nan] * 3, [-1.0] * 3, [0.0] * 3, redacted):
        weights = BoundedDraw(redacted, 1_000_000).weights(whole)
        assert chances(weights) == pytest.approx(redacted, rel=1e-12)


def test_a_probability_that_rounding_took_above_one_counts_as_one() -> None:
    mechanism = BoundedDraw([0.5, 0.5], 1_000_000)
    assert mechanism.weights([1.0 + 2**-23, 0.0]) == mechanism.weights([1.0, 0.0])
    assert mechanism.weights([1.0, math.inf]) == mechanism.weights([1.0, 0.0])


@pytest.mark.parametrize("micro", EPSILONS)
def test_bounded_draw_is_as_close_to_the_whole_text_as_a_linear_program(micro: int) -> None:
    rng = np.random.default_rng(micro)
    for outcomes in (2, 3, 7, 32):
        for _ in range(5):
            redacted, whole = random_scores(rng, outcomes), random_scores(rng, outcomes)
            mechanism = BoundedDraw(redacted, micro)
            ours = variation(chances(mechanism.weights(whole)), whole)
            half = math.exp(micro / MICRO / 2)
            # What must be taken from some outcomes, or given to others, whatever the rest gets.
            least = max(
                np.maximum(whole - redacted * half, 0).sum(),
                np.maximum(redacted / half - whole, 0).sum(),
            )
            assert ours == pytest.approx(least, abs=1e-9)
            if micro < 100_000:  # of the order of the solver's own tolerance
                continue
            assert smallest_variation(redacted, whole, half) == pytest.approx(least, abs=1e-6)
            assert ours <= variation(mixture(redacted, whole, half), whole) + 1e-9


def smallest_variation(redacted: Array, whole: Array, half: float) -> float:
    """The least total variation to ``whole`` of any chances within a factor of ``redacted``."""
    outcomes = len(whole)
    # Variables: the chances, then how far each falls short of what the whole text gives.
    found = linprog(
        np.r_[np.zeros(outcomes), np.ones(outcomes)],
        A_ub=np.c_[-np.eye(outcomes), -np.eye(outcomes)],
        b_ub=-whole,
        A_eq=[np.r_[np.ones(outcomes), np.zeros(outcomes)]],
        b_eq=[1.0],
        bounds=[*zip(redacted / half, redacted * half, strict=True), *[(0, None)] * outcomes],
    )
    assert found.status == 0
    return float(found.fun)


def mixture(redacted: Array, whole: Array, half: float) -> Array:
    """``λ·whole + (1-λ)·redacted`` with the largest λ that stays within the factor."""
    ratios = whole / redacted
    room = [1.0]
    if ratios.max() > 1:
        room.append((half - 1) / (ratios.max() - 1))
    if ratios.min() < 1:
        room.append((1 - 1 / half) / (1 - ratios.min()))
    return min(room) * whole + (1 - min(room)) * redacted


@pytest.mark.parametrize("micro", EPSILONS[2:5])
def test_no_private_mechanism_names_the_answer_more_often(micro: int) -> None:
    rng = np.random.default_rng(micro)
    sizes = set()
    for outcomes in (2, 3, 5):
        for _ in range(8):
            prior = random_scores(rng, outcomes)
            mechanism = RandomisedResponse(prior, micro)
            right = [chances(mechanism.weights(each))[each] for each in range(outcomes)]
            best = most_often_right(prior, math.exp(micro / MICRO))
            assert prior @ right == pytest.approx(best, abs=1e-8)
            sizes.add(len(mechanism.candidates))
    assert len(sizes) >= 3  # the choice of j was put to the test


def most_often_right(prior: Array, ratio: float) -> float:
    """The largest chance to name the answer of any mechanism of that ε, by a linear program."""
    outcomes = len(prior)
    chance = np.arange(outcomes**2).reshape(outcomes, outcomes)  # [secret answer, named answer]
    private, sums = [], []
    for one, other in itertools.permutations(range(outcomes), 2):
        for named in range(outcomes):
            row = np.zeros(outcomes**2)
            row[chance[one, named]], row[chance[other, named]] = 1, -ratio
            private.append(row)
    for secret in range(outcomes):
        row = np.zeros(outcomes**2)
        row[chance[secret]] = 1
        sums.append(row)
    found = linprog(
        -np.diag(prior).ravel(),
        A_ub=private,
        b_ub=np.zeros(len(private)),
        A_eq=sums,
        b_eq=np.ones(outcomes),
    )
    assert found.status == 0
    return float(-found.fun)


def test_equal_priors_give_the_classic_randomised_response() -> None:
    for outcomes, epsilon in itertools.product((2, 5, 32), (1.0, 3.0)):
        mechanism = RandomisedResponse([1.0] * outcomes, round(epsilon * MICRO))
        right = chances(mechanism.weights(1))[1]
        assert right == pytest.approx(math.exp(epsilon) / (math.exp(epsilon) + outcomes - 1))


def test_what_the_redacted_text_makes_sure_is_free_and_told_as_it_is() -> None:
    mechanism = RandomisedResponse([0.05, 0.9, 0.05], 1_000_000)
    assert (mechanism.candidates, mechanism.cost) == ((1,), FREE)
    source = stream()
    assert {mechanism.draw(answer, source) for answer in (0, 1, 2) * 20} == {1}


def test_an_answer_that_is_no_candidate_is_never_named() -> None:
    mechanism = RandomisedResponse([0.5, 0.5, 0.0], 1_000_000)
    assert mechanism.weights(2) == [2**40, 2**40, 0]


def test_a_draw_is_a_draw_of_its_weights() -> None:
    response, bounded = RandomisedResponse([0.5, 0.5], MICRO), BoundedDraw([0.5, 0.5], MICRO)
    for seed in range(50):
        expected = draw(response.weights(1), stream(seed))
        assert response.draw(1, stream(seed)) == expected
        expected = draw(bounded.weights([0.9, 0.1]), stream(seed))
        assert bounded.draw([0.9, 0.1], stream(seed)) == expected


@pytest.mark.parametrize("mechanism", [RandomisedResponse, BoundedDraw])
@pytest.mark.parametrize(
    ("scores", "micro", "message"),
    [
        ([0.5, -0.5], 1, ">= 0 and finite, got -0.5"),
        ([0.5, math.nan], 1, ">= 0 and finite, got nan"),
        ([0.5, math.inf], 1, ">= 0 and finite, got inf"),
        ([0.0, 0.0], 1, "positive and finite sum, got 0.0"),
        ([], 1, "positive and finite sum, got 0"),
        ([1.0], 0, "micro_epsilon to be a whole number from 1 to 20000000, got 0"),
        ([1.0], 20_000_001, "micro_epsilon to be a whole number .* got 20000001"),
        ([1.0], 0.5, "micro_epsilon to be a whole number .* got 0.5"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(
    mechanism: type, scores: list[float], micro: int, message: str
) -> None:
    with pytest.raises(InputError, match=f"expected .*{message}"):
        mechanism(scores, micro)


def test_refusals_of_a_draw_do_not_quote_what_is_secret() -> None:
    with pytest.raises(InputError, match="^expected an answer from 0 to 1, got another one$"):
        RandomisedResponse([0.5, 0.5], 1).draw(7, stream())
    with pytest.raises(InputError, match="^expected 2 scores, got 3$"):
        BoundedDraw([0.5, 0.5], 1).draw([0.1, 0.2, 0.7], stream())
