"""How much of a planted secret a model gives away, by how often it was repeated in training.

Ranks and exposure are those of ``attnpriv.planted``, by the model's log-odds of the planted class.
A model that never saw a secret gives every rank with the same chance.

Claim: with a secret trained on in k records, the chance of a rank of at most r is at most the true
positive rate that the model's claim allows at a false positive rate of r / (candidates + 1), for
groups of k records. Condition: the secret was drawn like the candidates, by a coin that is
independent of all else. Not covered: a classifier does not generate, so that nobody can read a
secret out of it who does not guess it first; real secrets, which have other words; and bits beyond
the number of candidates.

Source: Carlini, Liu, Erlingsson, Kos and Song 2019 (arXiv:1802.08232), sections 4 and 6, with ranks
among a sample of candidates. Group privacy: Dwork and Roth 2014, theorem 2.2 and lemma 2.2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from attnpriv.audit.figures import Figures
from attnpriv.audit.leakage.claims import claim_of
from attnpriv.audit.leakage.membership import true_label_log_odds
from attnpriv.audit.statistics import Floats, bootstrap_ratios
from attnpriv.audit.subject import Answers, Progress, Subject
from attnpriv.audit.swapping import class_logits
from attnpriv.data.records import Dataset
from attnpriv.estimates import (
    ROUNDING,
    SIGNIFICANT,
    Control,
    Estimate,
    holm,
    percentile_interval,
)
from attnpriv.planted import (
    CANDIDATES,
    EXPECTED,
    KNOWN,
    LARGEST,
    LEAST_P,
    NUMBER,
    allowed_exposure,
    bits_by_chance,
    is_planted,
    new_secret,
    other_secrets,
    place,
)
from attnpriv.runs.folder import Run
from attnpriv.verdicts import Claim, Judgement, for_groups, judge

Score = Callable[[Sequence[str], int], Floats]
"""A model's log-odds of a class, for each of some texts."""


@dataclass(frozen=True)
class Secret:
    """A planted record, its class, and how often it stands in the training data."""

    text: str
    label: int
    repetitions: int


@dataclass(frozen=True)
class ExposureLevel:
    """The secrets that were repeated equally often.

    Attributes:
        repetitions: how often each of them was trained on.
        secrets: how many there are.
        exposure: in bits, mean over the secrets.
        allowed: the most that the claim allows of it; None without a claim.
        ranked_first: how many have the first rank.
        p_value: one-sided: how often ranks by chance have as large a mean.
        p_adjusted: the same after Holm's correction for all levels.
    """

    repetitions: int
    secrets: int
    exposure: Estimate
    allowed: float | None
    ranked_first: int
    p_value: float
    p_adjusted: float


@dataclass(frozen=True)
class ExposureResult:
    """Exposure of planted secrets by repetitions, with its two controls.

    Attributes:
        levels: by the number of repetitions.
        of_most_repeated: the exposure at the last level.
        by_chance: exposure of a secret that was not trained on, in bits.
        largest: exposure of a secret with the first rank, in bits.
        candidates: that each secret was ranked among.
        judgement: the verdict; something was found where a corrected p-value is below 0.05.
    """

    levels: tuple[ExposureLevel, ...]
    of_most_repeated: Estimate
    by_chance: float
    largest: float
    candidates: int
    judgement: Judgement
    positive: Control
    null: Control
    valid: bool
    permutations: int
    resamples: int
    seed: int


def planted_secrets(run: Run, data: Dataset) -> list[Secret]:
    """The planted secrets that a run was trained on, by repetitions."""
    rows = (row for row in run.split(data).trained if is_planted(data.keys[row]))
    found = Counter((data.keys[row], data.labels[row]) for row in rows)
    return sorted((Secret(*key, count) for key, count in found.items()), key=_repetitions)


def measure_exposure(
    score: Score,
    secrets: Sequence[Secret],
    classes: int,
    claim: Claim | None = None,
    *,
    permutations: int,
    resamples: int,
    seed: int,
    progress: Progress | None = None,
) -> ExposureResult:
    """Rank planted secrets among candidates, and as many that nobody trained on.

    Controls: a probe that prefers each secret by 4 log-odds, with normal noise of deviation 1 on
    all candidates, must be found at each level, or there are too few secrets. Secrets that nobody
    trained on must not be. Where either fails, the result is not valid.

    Args:
        score: of the model.
        secrets: at least one, by repetitions.
        classes: number of classes K.
        claim: of the model, if it has one.
        permutations: how often ranks are drawn by chance.
        resamples: of the bootstrap over secrets.
        seed: of candidates, controls and bootstrap.
        progress: called with secrets done and their number.
    """
    rng, levels = Random(seed), sorted({secret.repetitions for secret in secrets})
    unseen = [
        Secret(new_secret(NUMBER + number, rng), rng.randrange(classes), 0)
        for number in range(len(secrets))
    ]
    ranks = _ranks(score, (*secrets, *unseen), rng, progress)
    chance = _Chance(permutations, seed)
    by_level = {
        level: ranks[[i for i, secret in enumerate(secrets) if secret.repetitions == level]]
        for level in levels
    }
    p_values = [chance.p_value(own) for own in by_level.values()]
    positive = _positive_control([len(own) for own in by_level.values()], chance, seed)
    p_of_unseen = chance.p_value(ranks[len(secrets) :])
    null = Control(EXPECTED[1], p_of_unseen, p_of_unseen >= LEAST_P)
    valid, adjusted = positive.passed and null.passed, holm(p_values)
    rows = tuple(
        _level(*own, p, corrected, claim, resamples, seed)
        for own, p, corrected in zip(by_level.items(), p_values, adjusted, strict=True)
    )
    placed = [place(level, own.tolist(), claim, len(levels)) for level, own in by_level.items()]
    return ExposureResult(
        levels=rows,
        of_most_repeated=rows[-1].exposure,
        by_chance=bits_by_chance(),
        largest=LARGEST,
        candidates=CANDIDATES,
        judgement=judge(placed, claim, found=min(adjusted) < SIGNIFICANT, valid=valid),
        positive=positive,
        null=null,
        valid=valid,
        permutations=permutations,
        resamples=resamples,
        seed=seed,
    )


def rank_of_first(scores: Floats) -> int:
    """The place of the first score among all, the highest being 1; ties count against it."""
    return int((scores[1:] >= scores[0]).sum()) + 1


def _bits(ranks: NDArray[np.int64]) -> Floats:
    """The exposure of each rank."""
    return np.asarray(LARGEST - np.log2(ranks))


def _ranks(
    score: Score, secrets: Sequence[Secret], rng: Random, progress: Progress | None
) -> NDArray[np.int64]:
    ranks = []
    for secret in secrets:
        texts = [secret.text, *other_secrets(secret.text, CANDIDATES, rng)]
        ranks.append(rank_of_first(score(texts, secret.label)))
        if progress:
            progress(len(ranks), len(secrets))
    return np.array(ranks)


@dataclass(frozen=True)
class _Chance:
    """Ranks as a model gives them that knows no secret."""

    permutations: int
    seed: int

    def p_value(self, ranks: NDArray[np.int64]) -> float:
        """One-sided: how often as many ranks by chance have as large a mean exposure."""
        rng = np.random.default_rng([self.seed, 7])
        drawn = rng.integers(1, CANDIDATES + 2, (self.permutations, len(ranks)))
        beyond = _bits(drawn).mean(1) >= _bits(ranks).mean() - ROUNDING
        return float((1 + beyond.sum()) / (1 + self.permutations))


def _level(
    repetitions: int,
    ranks: NDArray[np.int64],
    p_value: float,
    p_adjusted: float,
    claim: Claim | None,
    resamples: int,
    seed: int,
) -> ExposureLevel:
    own = _bits(ranks)
    drawn = bootstrap_ratios(own[:, None], np.ones(len(own)), resamples, seed)[:, 0]
    return ExposureLevel(
        repetitions=repetitions,
        secrets=len(ranks),
        exposure=percentile_interval(float(own.mean()), drawn),
        allowed=allowed_exposure(for_groups(claim.profile, repetitions)) if claim else None,
        ranked_first=int((ranks == 1).sum()),
        p_value=p_value,
        p_adjusted=p_adjusted,
    )


def _positive_control(sizes: Sequence[int], chance: _Chance, seed: int) -> Control:
    """The test on a probe that knows the secrets."""
    rng = np.random.default_rng([seed, 8])
    p_values = []
    for size in sizes:
        scores = rng.normal(size=(size, CANDIDATES + 1))
        scores[:, 0] += KNOWN
        p_values.append(chance.p_value(np.array([rank_of_first(each) for each in scores])))
    return Control(EXPECTED[0], max(p_values), max(p_values) < SIGNIFICANT)


def _repetitions(secret: Secret) -> int:
    return secret.repetitions


def _score_of(run: Run) -> Score:
    @torch.inference_mode()
    def score(texts: Sequence[str], label: int) -> Floats:
        inputs = run.text.collate(run.text.read(texts))
        logits = class_logits(run.model, inputs.values, inputs.mask).double().numpy()
        return true_label_log_odds(softmax(logits, axis=1), [label] * len(texts))

    return score


def passes(subject: Subject) -> float:
    """Roughly how many documents ``run`` sends through the model."""
    return 2 * len(planted_secrets(subject.run, subject.data)) * (CANDIDATES + 1)


def run(subject: Subject, answers: Answers, progress: Progress, figures: Figures) -> ExposureResult:
    """As a measure of an audit."""
    return measure_exposure(
        _score_of(subject.run),
        planted_secrets(subject.run, subject.data),
        len(subject.data.label_names),
        claim_of(subject.run),
        progress=progress,
        **subject.options.draws,
    )
