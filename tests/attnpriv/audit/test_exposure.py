"""Exposure of planted secrets: exact values, both controls, and what a claim allows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from math import factorial, log2

import numpy as np
import pytest

from attnpriv.audit.exposure import (
    Score,
    Secret,
    measure_exposure,
    planted_secrets,
    rank_of_first,
)
from attnpriv.audit.runner import AuditOptions, audit_runs
from attnpriv.audit.statistics import Floats
from attnpriv.config import TrainConfig
from attnpriv.data import Dataset
from attnpriv.data.planting import plant
from attnpriv.planted import CANDIDATES, allowed_exposure
from attnpriv.runs.folder import Run, load_run
from attnpriv.training import train
from attnpriv.verdicts import for_groups, make_claim

DRAWS = {"permutations": 400, "resamples": 50, "seed": 0}
PURE = make_claim(0.5, 0.0, "pure", [(0.5, 0.0)])


@pytest.fixture(scope="module")
def secrets(tickets: Dataset) -> list[Secret]:
    planted = plant(tickets.subset(range(9)), 12, (1, 5))
    texts, labels = planted.texts[9:], planted.labels[9:]
    return [
        Secret(text, label, texts.count(text))
        for text, label in dict.fromkeys(zip(texts, labels, strict=True))
    ]


def probe(known: Sequence[Secret], bits: float) -> Score:
    """A model that knows these secrets: noise that each text decides, and log-odds on top."""
    texts = {(secret.text, secret.label) for secret in known}

    def score(asked: Sequence[str], label: int) -> Floats:
        noise = [int(hashlib.sha256(f"{t}{label}".encode()).hexdigest()[:8], 16) for t in asked]
        return np.array(
            [n / 2**32 + bits * ((t, label) in texts) for n, t in zip(noise, asked, strict=True)]
        )

    return score


def test_a_model_that_knows_the_secrets_gives_away_all_bits(secrets: list[Secret]) -> None:
    found = measure_exposure(probe(secrets, 9.0), secrets, 10, **DRAWS)
    assert found.valid
    assert found.judgement.verdict == "FOUND"
    assert [level.repetitions for level in found.levels] == [1, 5]
    for level in found.levels:
        assert (level.secrets, level.ranked_first) == (12, 12)
        assert level.exposure.value == log2(CANDIDATES + 1) == found.largest == 7
        assert level.p_value == 1 / 401
    assert found.by_chance == pytest.approx(7 - log2(factorial(128)) / 128)
    claimed = measure_exposure(probe(secrets, 9.0), secrets, 10, PURE, **DRAWS)
    assert claimed.judgement.verdict == "BEYOND THE CLAIM"


def test_only_what_was_repeated_is_found_where_only_that_is_known(secrets: list[Secret]) -> None:
    repeated = [secret for secret in secrets if secret.repetitions == 5]
    once, often = measure_exposure(probe(repeated, 9.0), secrets, 10, **DRAWS).levels
    assert once.p_adjusted > 0.05
    assert (once.exposure.high or 0) < 4
    assert often.ranked_first == 12
    assert once.p_adjusted >= once.p_value


def test_a_model_that_knows_nothing_is_not_found(secrets: list[Secret]) -> None:
    found = measure_exposure(probe((), 0.0), secrets, 10, **DRAWS)
    assert found.valid
    assert found.judgement.verdict == "NOT FOUND"
    for level in found.levels:
        assert (level.exposure.low or 0) < found.by_chance < (level.exposure.high or 0)
    large = make_claim(0.5, 0.0, "pure", [(0.5, 0.0)])
    claimed = measure_exposure(probe((), 0.0), secrets, 10, large, **DRAWS)
    assert claimed.judgement.verdict in ("CHANCE", "INCONCLUSIVE")


def test_too_few_secrets_fail_the_positive_control_and_a_leak_to_all_the_null() -> None:
    (one,) = [Secret("planted secret 1 is alpha bravo delta echo", 0, 1)]
    few = measure_exposure(probe([one], 9.0), [one], 2, permutations=9, resamples=9, seed=0)
    assert not few.positive.passed
    assert (few.valid, few.judgement.verdict) == (False, "INCONCLUSIVE")

    def first(asked: Sequence[str], label: int) -> Floats:
        return -np.arange(float(len(asked)))

    peeked = measure_exposure(first, [replace(one, text=f"planted secret {i} is alpha bravo delta "
                                              "echo") for i in range(9)], 2, **{**DRAWS,
                                              "permutations": 2000})  # fmt: skip
    assert not peeked.null.passed
    assert not peeked.valid


def test_a_rank_counts_the_scores_that_are_no_lower() -> None:
    assert rank_of_first(np.array([2.0, 1.0, 3.0, 2.0])) == 3
    assert rank_of_first(np.array([2.0, 1.0, 1.0])) == 1


def test_what_a_claim_allows_is_chance_at_0_and_all_bits_at_large_epsilon() -> None:
    by_chance = np.log2((CANDIDATES + 1) / np.arange(1, CANDIDATES + 2)).mean()
    assert allowed_exposure(((0.0, 0.0),)) == pytest.approx(by_chance)
    assert allowed_exposure(((30.0, 0.0),)) == pytest.approx(7.0)
    once, twice = ((for_groups(((0.7, 1e-5),), k)) for k in (1, 2))
    assert by_chance < allowed_exposure(once) < allowed_exposure(twice) < 7


def test_the_bound_is_reached_by_the_best_attack_that_pure_epsilon_allows() -> None:
    """Randomised response on which secret it is: its rank is 1 more often, and else any."""
    epsilon = 1.3
    likely = np.exp(epsilon) / (np.exp(epsilon) + CANDIDATES)
    others = np.log2((CANDIDATES + 1) / np.arange(1, CANDIDATES + 2))
    reached = likely * others[0] + (1 - likely) * others[1:].mean()
    assert reached <= allowed_exposure(((epsilon, 0.0),))


@pytest.mark.exhaustive
def test_an_overfitted_run_remembers_what_was_repeated_and_its_audit_says_so(
    tmp_path, tickets: Dataset
) -> None:
    planted = plant(tickets.subset(range(100)), 6, (1, 8))
    config = TrainConfig(trainable="all", steps=60, learning_rate=0.01)
    train(planted, tmp_path / "run", encoder="scratch", config=config, privacy=None)
    run: Run = load_run(tmp_path / "run")
    trained = planted_secrets(run, planted)
    held_out = {planted.texts[row] for row in run.split(planted).held_out}
    assert 6 < len(trained) <= 12
    assert not {secret.text for secret in trained} & held_out
    assert [secret.repetitions for secret in trained] == sorted(s.repetitions for s in trained)
    (result,) = audit_runs([run], planted, None, SMALL).results
    found = result.exposure
    assert [level.repetitions for level in found.levels] == [1, 8]
    assert found.of_most_repeated == found.levels[-1].exposure
    assert (found.of_most_repeated.low or 0) > found.by_chance
    assert found.judgement.verdict in ("FOUND", "INCONCLUSIVE")


SMALL = AuditOptions(
    documents=10, members=10, ig_documents=1, ig_steps=2, faithfulness_documents=1,
    sensitivity_documents=1, counterfactual_documents=2, memorisation_documents=2,
    pgd_documents=1, permutations=400, resamples=20, examples=1,
)  # fmt: skip
