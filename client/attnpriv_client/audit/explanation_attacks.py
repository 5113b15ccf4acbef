"""Was this row in the training data? The answer of released attention and attributions.

The attacker knows of half the rows whether they were trained on, fits a regression to their
explanations, and asks about the other half, as in ``attnpriv.audit.leakage.explanation_attacks``.
An attack has found something only where it beats guessing, the threshold on the answers and the
texts alone, on the same resamples. Drawn and noised scores are used as they come.

Claim: none about privacy. Condition: members and non-members come from a random split. Not covered:
other attack models and features; what the policy withholds from this caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress

from attnpriv.estimates import Control, Estimate, percentile_interval
from attnpriv.verdicts import ERROR, Claim, gravity
from attnpriv_client.audit.asking import Answered
from attnpriv_client.audit.attack_results import (
    Explained,
    ExplanationAttack,
    ExplanationAttacksResult,
)
from attnpriv_client.audit.explained import (
    attention_features,
    attention_maps,
    attribution_features,
    attributions,
    drawn_features,
    heaped,
)
from attnpriv_client.audit.fitting import fitted_scores, fitted_word_scores, half_of
from attnpriv_client.audit.membership import flagged_rows, log_odds, repeated_texts
from attnpriv_client.audit.results import NotRunError
from attnpriv_client.audit.scoring import Groups, claim_of, may_be_chance, score_attack
from attnpriv_client.audit.statistics import auc, resampled_areas
from attnpriv_client.domain import Explanation, ModelCard

LEAST = 8  # rows of a kind
MUST_WIN = 0.75  # the lower end of each attack's AUC in the positive control
NULL_ERROR = 0.0005  # each AUC's chance to fail the null control
DRAWN_LEAK = 4.0  # by how much the positive control moves what is known of a drawn token
EXPECTED = (
    f"a leak planted in the explanations of half the non-members: AUC of each attack above "
    f"{MUST_WIN}",
    "half the non-members taken for members: 0.5 within the "
    f"{100 * (1 - NULL_ERROR):g} % interval of each attack's AUC",
    f"the texts alone: 0.5 within the {100 * (1 - NULL_ERROR):g} % interval of their AUC",
)
Views = dict[Explained, list[float]]


@dataclass(frozen=True)
class Observed:
    """What the attackers see of one row.

    Attributes:
        text: the row.
        score: log-odds of its label, or whether it is answered where there are no probabilities.
        views: features of what was released.
        leaky: the same with a leak planted.
    """

    text: str
    score: float
    views: Views
    leaky: Views

    def view(self, name: Explained, planted: bool) -> list[float]:
        """What one of the attacks reads."""
        views = self.leaky if planted else self.views
        if name != "together":
            return views[name]
        return [*(value for own in views.values() for value in own), self.score]


def explanation_attacks(
    answered: Sequence[Answered], card: ModelCard | None, seed: int
) -> ExplanationAttacksResult:
    """Fit each attack to one half of the rows, and attack the other, with all controls.

    Args:
        answered: the rows.
        card: whose claim the figures are held against; None if the caller may not read it.
        seed: of the halves, the controls and the bootstrap.
    """
    groups = _observed(flagged_rows(answered))
    fewest = min(map(len, groups))
    if fewest < LEAST:
        raise NotRunError(
            f"expected at least {LEAST} explained rows of either kind with the same scores, got "
            f"{fewest}"
        )
    return _result(*groups, claim_of(card), seed)


def _observed(flagged: Sequence[Answered]) -> tuple[list[Observed], list[Observed]]:
    """The rows that have every score which most rows have; copies are left out."""
    repeated = repeated_texts(flagged)
    different = {a.row.text: a for a in flagged if a.row.text not in repeated and a.explanation}
    seen = {text: views_of(a.explanation) for text, a in different.items() if a.explanation}
    if not any(views for views, _ in seen.values()):
        raise NotRunError("the released explanations carry no scores")
    kinds = [{name: len(own) for name, own in views.items()} for views, _ in seen.values()]
    usual = max(kinds, key=kinds.count)
    kept = [
        (different[text], views, leaky)
        for (text, (views, leaky)), kind in zip(seen.items(), kinds, strict=True)
        if kind == usual
    ]
    members, others = (
        [Observed(a.row.text, _score(a), *own) for a, *own in kept if a.row.member is flag]
        for flag in (True, False)
    )
    return members, others


def views_of(explanation: Explanation) -> tuple[Views, Views]:
    """The features of what was released, and the same with a leak planted."""
    maps, scores = attention_maps(explanation), attributions(explanation)
    drawn, added = drawn_features(explanation), len(explanation.special_tokens)
    views: Views = {}
    leaky: Views = {}
    if maps:
        views["attention"] = attention_features(maps, added)
        planted = [[heaped(one) for one in layer] for layer in maps]
        leaky["attention"] = attention_features(planted, added)
    if scores:
        views["attributions"] = attribution_features(scores)
        leaky["attributions"] = attribution_features(heaped(scores))
    if drawn:
        views["drawn"], leaky["drawn"] = drawn, [value + DRAWN_LEAK for value in drawn]
    return views, leaky


def _score(answered: Answered) -> float:
    found = log_odds(answered)
    if found is not None:
        return found
    answer = answered.prediction
    return float(answer is not None and answer.label == answered.row.label)


def _result(
    members: Sequence[Observed], others: Sequence[Observed], claim: Claim | None, seed: int
) -> ExplanationAttacksResult:
    names: list[Explained] = [*members[0].views, "together"]
    scores = _attack(names, members, others, (False, False), seed)
    positive, null = _controls(names, others, seed)
    value, passed = may_be_chance(scores["texts"], NULL_ERROR)
    split = Control(EXPECTED[2], value, passed)
    valid = positive.passed and null.passed and (claim is None or passed)
    drawn = {name: resampled_areas(*groups, seed) for name, groups in scores.items()}
    attacks = {name: _scored(name, len(names), scores, drawn, claim, valid) for name in names}
    gravest = max(names, key=lambda name: gravity(attacks[name].judgement))
    asked = [len(group) for group in scores["loss"]]
    return ExplanationAttacksResult(
        fitted=len(members) + len(others) - sum(asked),
        members=asked[0],
        non_members=asked[1],
        loss=score_attack(scores["loss"], claim, valid=valid),
        texts=score_attack(scores["texts"], claim, valid=valid),
        attacks=attacks,
        gravest=gravest,
        judgement=attacks[gravest].judgement,
        positive=positive,
        null=null,
        split=split,
        valid=valid,
    )


def _attack(
    names: Sequence[Explained],
    members: Sequence[Observed],
    others: Sequence[Observed],
    planted: tuple[bool, bool],
    seed: int,
) -> dict[str, Groups]:
    """Each attack model is fitted to one half of either group, and scores the other."""
    known, asked = [], []
    for group, leak in zip((members, others), planted, strict=True):
        half = half_of(len(group), seed)
        known.append([(each, leak) for each in compress(group, half)])
        asked.append([(each, leak) for each in compress(group, (not is_in for is_in in half))])
    truth = [flag for flag, group in zip((True, False), known, strict=True) for _ in group]
    found: dict[str, Groups] = {
        name: _fitted(known, truth, asked, lambda each, leak, name=name: each.view(name, leak))
        for name in names
    }
    texts = [[each.text for each, _ in (*groups[0], *groups[1])] for groups in (known, asked)]
    found["texts"] = _cut(fitted_word_scores(texts[0], truth, texts[1]), len(asked[0]))
    found["loss"] = _cut([e.score for e, _ in (*asked[0], *asked[1])], len(asked[0]))
    return found


Group = Sequence[tuple[Observed, bool]]


def _fitted(
    known: Sequence[Group],
    truth: Sequence[bool],
    asked: Sequence[Group],
    view: Callable[..., list[float]],
) -> Groups:
    rows = [[view(*each) for each in (*groups[0], *groups[1])] for groups in (known, asked)]
    return _cut(fitted_scores(rows[0], truth, rows[1]), len(asked[0]))


def _cut(scores: Sequence[float], members: int) -> Groups:
    return scores[:members], scores[members:]


def _scored(
    name: Explained,
    attacks: int,
    scores: dict[str, Groups],
    drawn: dict[str, list[float]],
    claim: Claim | None,
    valid: bool,
) -> ExplanationAttack:
    gains: list[Estimate] = []
    beaten: list[float] = []
    for other in ("loss", "texts"):
        more = [ours - theirs for ours, theirs in zip(drawn[name], drawn[other], strict=True)]
        gain = (auc(*scores[name]).value or 0.0) - (auc(*scores[other]).value or 0.0)
        gains.append(percentile_interval(gain, more))
        beaten.append((1 + sum(each <= 0 for each in more)) / (1 + len(more)))
    found = score_attack(
        scores[name],
        claim,
        attacks=attacks,
        beats_others=max(beaten) <= ERROR / attacks,
        valid=valid,
    )
    return ExplanationAttack(
        **vars(found), above_loss=gains[0], above_texts=gains[1], p_value=max(beaten)
    )


def _controls(
    names: Sequence[Explained], others: Sequence[Observed], seed: int
) -> tuple[Control, Control]:
    half = half_of(len(others), seed + 1)
    taken, rest = list(compress(others, half)), list(compress(others, (not h for h in half)))
    planted = _attack(names, taken, rest, (True, False), seed + 2)
    plain = _attack(names, taken, rest, (False, False), seed + 2)
    areas = [auc(*planted[name]) for name in names]
    chances = [may_be_chance(plain[name], NULL_ERROR) for name in names]
    furthest = max((value for value, _ in chances), key=lambda value: abs(value - 0.5))
    return (
        Control(
            EXPECTED[0],
            min(area.value or 0.0 for area in areas),
            all((area.low or 0.0) > MUST_WIN for area in areas),
        ),
        Control(EXPECTED[1], furthest, all(passed for _, passed in chances)),
    )
