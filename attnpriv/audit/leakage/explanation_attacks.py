"""Was this record in the training data? The answer of its attention maps and of its attributions.

The attacker knows of some records whether they were trained on, fits an attack model to their
explanations, and asks about other records. Members' explanations may differ for reasons that have
nothing to do with the model, and may tell no more than the loss does. So each attack stands beside
one that never saw the model, on the texts alone, and beside the loss threshold; it has found
something only where it beats guessing and both of them, on the same resamples of the same records.

Claim: none about privacy. That explanations add nothing to the loss does not prove that they tell
nothing. Condition: members and non-members come from a random split. Not covered: attack models
other than a regression on these features; attackers with shadow models; explanations of other
classes than the predicted one; exact integrated gradients, in whose place four points stand.

Source: Zaree et al. 2026 (arXiv:2601.18110); Shokri, Strobel and Zick 2021 (arXiv:1907.00164).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Literal

import numpy as np

from attnpriv.audit.documents import Documents, sample
from attnpriv.audit.figures import Figures
from attnpriv.audit.leakage.claims import claim_of
from attnpriv.audit.leakage.explained import attribution_features, explain, map_features
from attnpriv.audit.leakage.fitting import Bools, fitted_scores, fitted_word_scores, half_of
from attnpriv.audit.leakage.membership import true_label_log_odds
from attnpriv.audit.leakage.scores import ScoredAttack, score_attack
from attnpriv.audit.statistics import Floats, auc, resampled_areas
from attnpriv.audit.subject import FORTH_AND_BACK, LEAST, Answers, Progress, Subject
from attnpriv.errors import InputError
from attnpriv.estimates import Control, Estimate, percentile_interval
from attnpriv.explain.gradients import POINTS
from attnpriv.verdicts import ERROR, Claim, Judgement, gravity

Name = Literal["attention", "attributions", "together"]
NAMES: tuple[Name, ...] = ("attention", "attributions", "together")
MUST_WIN = 0.75  # the lower end of each attack's AUC in the positive control
NULL_ERROR = 0.0005  # each AUC's chance to fail the null control
EXPECTED = (
    "a leak planted in the explanations of half the non-members: AUC of each attack above "
    f"{MUST_WIN}",
    "half the non-members taken for members: 0.5 within the "
    f"{100 * (1 - NULL_ERROR):g} % interval of each attack's AUC",
    f"the texts alone: 0.5 within the {100 * (1 - NULL_ERROR):g} % interval of their AUC",
)


@dataclass(frozen=True)
class Observed:
    """What the attackers see of N records of one kind.

    Attributes:
        texts: the records, no two of them copies.
        log_odds: of the true label, [N].
        maps: features of the attention maps, [N, F].
        attributions: features of the attributions, [N, G].
    """

    texts: tuple[str, ...]
    log_odds: Floats
    maps: Floats
    attributions: Floats

    def of(self, chosen: Bools) -> Observed:
        """Some of them."""
        texts = tuple(compress(self.texts, chosen))
        return Observed(texts, self.log_odds[chosen], self.maps[chosen], self.attributions[chosen])

    def view(self, name: Name) -> Floats:
        """What one of the attacks reads, [N, its features]."""
        match name:
            case "attention":
                return self.maps
            case "attributions":
                return self.attributions
        return np.hstack([self.maps, self.attributions, self.log_odds[:, None]])


@dataclass(frozen=True)
class ExplanationAttack(ScoredAttack):
    """An attack on explanations.

    Attributes:
        above_loss: its AUC less that of the loss threshold.
        above_texts: its AUC less that of the texts alone.
        p_value: the larger share of resamples in which it is not above the one or the other.
    """

    above_loss: Estimate
    above_texts: Estimate
    p_value: float


@dataclass(frozen=True)
class ExplanationAttacksResult:
    """What attention maps and attributions tell of who was trained on.

    Attributes:
        fitted: records that the attack models were fitted to.
        members: attacked records that the run was trained on.
        non_members: attacked records that it was not.
        loss: the threshold on the log-odds of the true label.
        texts: the attack that never saw the model.
        attention: by the attention maps.
        attributions: by integrated gradients of the predicted class.
        together: by both and the log-odds: what explanations add to the loss.
        gravest: which of the three the verdict is that of.
        judgement: its judgement.
        positive: a leak was planted.
        null: there is nothing to find.
        split: the texts alone tell nothing, as after a random split; a claim is not judged without.
        valid: whether the controls passed.
        resamples: of the bootstrap.
        seed: of the halves, the controls and the bootstrap.
    """

    fitted: int
    members: int
    non_members: int
    loss: ScoredAttack
    texts: ScoredAttack
    attention: ExplanationAttack
    attributions: ExplanationAttack
    together: ExplanationAttack
    gravest: Name
    judgement: Judgement
    positive: Control
    null: Control
    split: Control
    valid: bool
    resamples: int
    seed: int


@dataclass(frozen=True)
class _Scores:
    """Of the attacked records, members and non-members, by each attack."""

    members: dict[str, Floats]
    non_members: dict[str, Floats]

    def of(self, name: str) -> tuple[Floats, Floats]:
        return self.members[name], self.non_members[name]


def explanation_attacks(
    members: Observed,
    non_members: Observed,
    leaky: Observed,
    claim: Claim | None = None,
    *,
    resamples: int,
    seed: int,
) -> ExplanationAttacksResult:
    """Fit each attack to one half of the records, and attack the other, with all controls.

    The positive control takes half of the non-members for members, with a leak planted in their
    explanations: each attack must win. The null control takes the same records as they are: none
    may. Where either fails, the result is not valid. With a claim, the texts alone must not win
    either: else the split is not random, and the claim says nothing about it.

    Args:
        members: records that were trained on.
        non_members: records that were not.
        leaky: the latter with a leak planted in each explanation.
        claim: of the run, if it has one.
        resamples: of the bootstrap.
        seed: of the halves, the controls and the bootstrap.

    Raises:
        InputError: fewer than 8 records of a kind.
    """
    for observed in (members, non_members):
        if (count := len(observed.texts)) < LEAST:
            raise InputError(f"expected at least {LEAST} records of either kind, got {count}")
    scores = _attack(members, non_members, seed)
    loss, texts = (scores.of(name) for name in ("loss", "texts"))
    positive, null = _controls(non_members, leaky, seed)
    split = _split_control(texts)
    valid = positive.passed and null.passed and (claim is None or split.passed)
    drawn = {name: resampled_areas(*scores.of(name), resamples, seed) for name in scores.members}
    attacks = {name: _scored(name, scores, drawn, claim, valid) for name in NAMES}
    gravest = max(NAMES, key=lambda name: gravity(attacks[name].judgement))
    return ExplanationAttacksResult(
        fitted=len(members.texts) + len(non_members.texts) - len(loss[0]) - len(loss[1]),
        members=len(loss[0]),
        non_members=len(loss[1]),
        loss=score_attack(*loss, claim, valid=valid),
        texts=score_attack(*texts, claim, valid=valid),
        **attacks,
        gravest=gravest,
        judgement=attacks[gravest].judgement,
        positive=positive,
        null=null,
        split=split,
        valid=valid,
        resamples=resamples,
        seed=seed,
    )


def _attack(members: Observed, non_members: Observed, seed: int) -> _Scores:
    """Each attack model is fitted to one half of either group, and scores the other."""
    halves = [half_of(len(group.texts), seed) for group in (members, non_members)]
    known, asked = (
        [
            group.of(half == fitted)
            for group, half in zip((members, non_members), halves, strict=True)
        ]
        for fitted in (True, False)
    )
    truth = np.repeat([True, False], [len(group.texts) for group in known])
    split = len(asked[0].texts)

    def both(of: Sequence[Observed], name: Name) -> Floats:
        return np.concatenate([group.view(name) for group in of])

    found: dict[str, Floats] = {
        name: fitted_scores(both(known, name), truth, both(asked, name)) for name in NAMES
    }
    words = [text for group in known for text in group.texts]
    found["texts"] = fitted_word_scores(words, truth, [t for g in asked for t in g.texts])
    found["loss"] = np.concatenate([group.log_odds for group in asked])
    return _Scores(
        {name: each[:split] for name, each in found.items()},
        {name: each[split:] for name, each in found.items()},
    )


def _scored(
    name: Name, scores: _Scores, drawn: dict[str, Floats], claim: Claim | None, valid: bool
) -> ExplanationAttack:
    area = auc(*scores.of(name)).value or 0.0
    gains, beaten = [], []
    for other in ("loss", "texts"):
        more = drawn[name] - drawn[other]
        gains.append(percentile_interval(area - (auc(*scores.of(other)).value or 0.0), more))
        beaten.append(float((1 + (more <= 0).sum()) / (1 + len(more))))
    beats = max(beaten) <= ERROR / len(NAMES)
    scored = score_attack(
        *scores.of(name), claim, attacks=len(NAMES), valid=valid, beats_others=beats
    )
    return ExplanationAttack(**vars(scored), above_loss=gains[0], above_texts=gains[1],
                             p_value=max(beaten))  # fmt: skip


def _controls(non_members: Observed, leaky: Observed, seed: int) -> tuple[Control, Control]:
    chosen = half_of(len(non_members.texts), seed + 1)
    others = non_members.of(~chosen)
    planted, plain = (
        [auc(*_attack(group.of(chosen), others, seed + 2).of(name), error) for name in NAMES]
        for group, error in ((leaky, 0.05), (non_members, NULL_ERROR))
    )
    lowest = min(planted, key=lambda area: area.value or 0.0)
    furthest = max(plain, key=lambda area: abs((area.value or 0.0) - 0.5))
    return (
        Control(EXPECTED[0], lowest.value or 0.0, all((a.low or 0.0) > MUST_WIN for a in planted)),
        Control(EXPECTED[1], furthest.value or 0.0, all(map(_may_be_chance, plain))),
    )


def _split_control(texts: tuple[Floats, Floats]) -> Control:
    area = auc(*texts, NULL_ERROR)
    return Control(EXPECTED[2], area.value or 0.0, _may_be_chance(area))


def _may_be_chance(area: Estimate) -> bool:
    return (area.low or 0.0) <= 0.5 <= (1.0 if area.high is None else area.high)


def passes(subject: Subject) -> float:
    """Roughly how many documents ``run`` sends through the model."""
    each = 2 + POINTS * FORTH_AND_BACK
    return each * sum(map(len, _chosen(subject)))


def _chosen(subject: Subject) -> tuple[list[int], list[int]]:
    """The members and the non-members that are explained, by their numbers among the documents."""
    most = max(LEAST, subject.affordable(subject.options.explanation_documents))
    groups = subject.different_members, subject.different_unseen
    members, others = (
        [group[i] for i in sample(len(group), most, subject.options.seed)] for group in groups
    )
    return members, others


def run(
    subject: Subject, answers: Answers, progress: Progress, figures: Figures
) -> ExplanationAttacksResult:
    """As a measure of an audit."""
    of_members, of_others = _chosen(subject)
    total, first = len(of_members) + len(of_others), len(of_members)
    members, _ = _observe(
        subject, subject.members, of_members, answers.members, lambda n: progress(n, total)
    )
    non_members, leaky = _observe(
        subject, subject.documents, of_others, answers.held_out,
        lambda n: progress(first + n, total),
    )  # fmt: skip
    options = subject.options
    return explanation_attacks(
        members,
        non_members,
        leaky,
        claim_of(subject.run),
        resamples=options.resamples,
        seed=options.seed,
    )


def _observe(
    subject: Subject,
    documents: Documents,
    numbers: Sequence[int],
    probabilities: Floats,
    done: Callable[[int], None],
) -> tuple[Observed, Observed]:
    """Some records as they are, and with a leak planted in their explanations."""
    rows = []
    for count, number in enumerate(numbers, start=1):
        seen = explain(subject.run.model, documents, number, int(probabilities[number].argmax()))
        rows.append(
            [(map_features(each), attribution_features(each)) for each in (seen, seen.leaky())]
        )
        done(count)
    data = documents.data.subset(numbers)
    log_odds = true_label_log_odds(probabilities[list(numbers)], data.labels)
    plain, leaky = (
        Observed(data.records, log_odds, np.array(maps), np.array(attributions))
        for maps, attributions in (zip(*of, strict=True) for of in zip(*rows, strict=True))
    )
    return plain, leaky
