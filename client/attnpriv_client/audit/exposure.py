"""Planted secrets from outside: how high released probabilities rank them among others like them.

Rows that hold planted secrets are known by their words, see ``attnpriv.planted``; those that the
model was trained on say how often by how often they stand in the file. Rounded probabilities make
ties, which count against a secret.

Claim: as in ``attnpriv.audit.exposure``, held against ε and δ of the model card. Not covered: real
secrets, which have other words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean

from attnpriv.estimates import ROUNDING, SIGNIFICANT, Control, holm
from attnpriv.planted import (
    CANDIDATES,
    EXPECTED,
    KNOWN,
    LEAST_P,
    NUMBER,
    allowed_exposure,
    bits,
    bits_by_chance,
    is_planted,
    new_secret,
    other_secrets,
    place,
)
from attnpriv.verdicts import Claim, for_groups, judge
from attnpriv_client.audit.asking import Answered, Ask
from attnpriv_client.audit.attack_results import ExposureLevel, ExposureResult
from attnpriv_client.audit.membership import log_odds
from attnpriv_client.audit.results import NotRunError
from attnpriv_client.audit.rows import Row
from attnpriv_client.audit.scoring import claim_of
from attnpriv_client.audit.statistics import bootstrap_ratios
from attnpriv_client.domain import ModelCard, Prediction

PERMUTATIONS = 1000
NO_SECRETS = "no row that the model was trained on is a planted secret: attnpriv data plant"
AT_ONCE = 16  # secrets whose candidates are asked about together


@dataclass(frozen=True)
class Secret:
    """A planted record, its class, and how often it stands in the training data."""

    text: str
    label: str
    repetitions: int


def exposure(
    everything: Sequence[Row], card: ModelCard | None, predict: Ask, names: Sequence[str], seed: int
) -> ExposureResult:
    """Rank the planted secrets, and as many that nobody trained on.

    Args:
        everything: all rows of the file.
        card: whose claim the figures are held against; None if the caller may not read it.
        predict: asks about candidates.
        names: the classes.
        seed: of candidates, controls and bootstrap.
    """
    counts = Counter(
        (row.text, row.label)
        for row in everything
        if row.member and row.label is not None and is_planted(row.text)
    )
    if not counts:
        raise NotRunError(NO_SECRETS)
    rng = Random(f"{seed} secrets")
    secrets = [Secret(text, label or "", count) for (text, label), count in counts.items()]
    unseen = [
        Secret(new_secret(NUMBER + n, rng), rng.choice(names), 0) for n in range(len(secrets))
    ]
    ranks = [*_ranks((*secrets, *unseen), predict, rng)]
    levels: dict[int, list[int]] = {}
    for secret, rank in zip(secrets, ranks, strict=False):
        levels.setdefault(secret.repetitions, []).append(rank)
    return _result(dict(sorted(levels.items())), ranks[len(secrets) :], claim_of(card), seed)


def _ranks(secrets: Sequence[Secret], predict: Ask, rng: Random) -> Iterator[int]:
    candidates = [[each.text, *other_secrets(each.text, CANDIDATES, rng)] for each in secrets]
    for start in range(0, len(secrets), AT_ONCE):
        some = candidates[start : start + AT_ONCE]
        found = predict((text for texts in some for text in texts), "planted secrets")
        for secret, texts in zip(secrets[start:], some, strict=False):
            own, *others = (_score(text, secret.label, found) for text in texts)
            yield 1 + sum(score >= own for score in others)


def _score(text: str, label: str, found: Mapping[str, Prediction | None]) -> float:
    score = log_odds(Answered(Row(0, text, label), found[text]))
    if score is None:
        raise NotRunError("the server releases no probabilities")
    return score


def _result(
    levels: dict[int, list[int]], unseen: Sequence[int], claim: Claim | None, seed: int
) -> ExposureResult:
    chance = _Chance(seed)
    adjusted = holm([chance.p_value(ranks) for ranks in levels.values()])
    positive = _positive_control([len(ranks) for ranks in levels.values()], chance, seed)
    p_of_unseen = chance.p_value(unseen)
    null = Control(EXPECTED[1], p_of_unseen, p_of_unseen >= LEAST_P)
    valid = positive.passed and null.passed
    placed = [place(often, ranks, claim, len(levels)) for often, ranks in levels.items()]
    return ExposureResult(
        levels=tuple(
            _level(often, ranks, p, claim, seed)
            for (often, ranks), p in zip(levels.items(), adjusted, strict=True)
        ),
        by_chance=bits_by_chance(),
        judgement=judge(placed, claim, found=min(adjusted) < SIGNIFICANT, valid=valid),
        positive=positive,
        null=null,
        valid=valid,
    )


def _level(
    often: int, ranks: Sequence[int], p_value: float, claim: Claim | None, seed: int
) -> ExposureLevel:
    own = [*map(bits, ranks)]
    return ExposureLevel(
        repetitions=often,
        secrets=len(ranks),
        exposure=bootstrap_ratios([own], [1.0] * len(own), seed)[0],
        allowed=allowed_exposure(for_groups(claim.profile, often)) if claim else None,
        ranked_first=list(ranks).count(1),
        p_adjusted=p_value,
    )


@dataclass(frozen=True)
class _Chance:
    """Ranks as a model gives them that knows no secret."""

    seed: int

    def p_value(self, ranks: Sequence[int]) -> float:
        """One-sided: how often as many ranks by chance have as large a mean exposure."""
        rng, all_bits = Random(f"{self.seed} ranks"), [bits(r) for r in range(1, CANDIDATES + 2)]
        least = fmean(map(bits, ranks)) - ROUNDING
        beyond = sum(
            fmean(rng.choices(all_bits, k=len(ranks))) >= least for _ in range(PERMUTATIONS)
        )
        return (1 + beyond) / (1 + PERMUTATIONS)


def _positive_control(sizes: Sequence[int], chance: _Chance, seed: int) -> Control:
    """The test on a probe that knows the secrets."""
    rng, p_values = Random(f"{seed} probe"), []
    for size in sizes:
        ranks = []
        for _ in range(size):
            own = rng.gauss(KNOWN, 1.0)
            ranks.append(1 + sum(rng.gauss(0.0, 1.0) >= own for _ in range(CANDIDATES)))
        p_values.append(chance.p_value(ranks))
    return Control(EXPECTED[0], max(p_values), max(p_values) < SIGNIFICANT)
