"""Utility, and the loss-threshold membership test, from released predictions.

Records are scored by the log-odds of their true label, which order them as the loss does; records
that the model trained on tend to score higher.

Claim: none. An AUC near 0.5 says that this one attack failed on average; it does not prove privacy.
Compared with ``attnpriv.audit.leakage``: the positive control plants a difference in random scores,
since no network can be trained here. It shows that there are enough rows, not that the attack on
the model is good. The claim is ε and δ as on the card, which alone allow more than the mechanism
behind them. Rounded probabilities make ties, which count half.

Source: Yeom et al. 2018 (arXiv:1709.01604).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from decimal import Decimal
from math import log
from random import Random
from statistics import fmean, stdev

from attnpriv.estimates import Control, wilson
from attnpriv.verdicts import Claim, judge, make_claim
from attnpriv_client.audit.asking import Answered
from attnpriv_client.audit.results import MembershipResult, NotRunError, UtilityResult
from attnpriv_client.audit.statistics import auc
from attnpriv_client.domain import ModelCard

SHUFFLES = 200
PLANTED = 2.0  # standard deviations between members and others in the positive control
MUST_WIN = 0.75  # the lower end of its AUC
FLOAT32_DIGITS = 9  # that tell any two of its values apart
_TINY = 2.0**-126  # the smallest normal float32: a probability of 0 has lost its digits


def utility(answered: Sequence[Answered]) -> UtilityResult:
    """The share of the labelled rows whose label is predicted."""
    labelled = [a for a in answered if a.row.label is not None and a.prediction is not None]
    if not labelled:
        raise NotRunError("no row has a label")
    right = sum(a.prediction is not None and a.prediction.label == a.row.label for a in labelled)
    return UtilityResult(len(labelled), wilson(right, len(labelled)))


def membership(answered: Sequence[Answered], card: ModelCard | None, seed: int) -> MembershipResult:
    """Test membership by a threshold on the true label's log-odds, with both controls.

    The null control shuffles who is a member, so that nothing must be found. If a control fails,
    the result is not valid.

    Args:
        answered: the rows.
        card: whose claim the AUC is held against; None if the caller may not read it.
        seed: of the controls.
    """
    flagged = [a for a in answered if a.row.member is not None and a.row.label is not None]
    if not flagged:
        raise NotRunError("no row has both a label and a membership flag")
    repeated = _repeated(flagged)
    scores = [
        (a.row.member, log_odds)
        for a in flagged
        if a.row.text not in repeated and (log_odds := _log_odds(a)) is not None
    ]
    if not scores:
        raise NotRunError("the server releases no probabilities")
    members, others = (
        [score for is_in, score in scores if is_in is flag] for flag in (True, False)
    )
    if min(len(members), len(others)) < 2:
        raise NotRunError(
            f"expected at least 2 members and 2 non-members, got {len(members)} and {len(others)}"
        )
    return _result(members, others, len(repeated), _claim(card), seed)


def _claim(card: ModelCard | None) -> Claim | None:
    """What ε and δ on the card allow: more than the mechanism behind them, so a weaker test."""
    if card is None or not card.summary.private:
        return None
    epsilon, delta = card.summary.epsilon, card.summary.delta
    if epsilon is None or delta is None:
        return None
    return make_claim(epsilon, delta, "the model card's ε and δ", [(epsilon, delta)])


def _repeated(flagged: Sequence[Answered]) -> set[str]:
    members, others = (
        {a.row.text for a in flagged if a.row.member is flag} for flag in (True, False)
    )
    return members & others


def _log_odds(answered: Answered) -> float | None:
    """``ln p - ln(1 - p)`` of the true label, 1 - p summed over the other classes.

    Decimals are summed, since rounded answers must tie exactly: 0.1 + 0.3 and 0.2 + 0.2 differ as
    sums of float32, and would order rows by what rounding made of their other classes.
    """
    prediction, label = answered.prediction, answered.row.label
    if prediction is None or prediction.probabilities is None or label is None:
        return None
    others = sum(_decimal(p) for name, p in prediction.probabilities.items() if name != label)
    return log(max(prediction.probabilities[label], _TINY)) - log(max(float(others), _TINY))


def _decimal(value: float) -> Decimal:
    """The shortest decimal that float32 reads as this value; all digits of another float."""
    for digits in range(1, FLOAT32_DIGITS + 1):
        text = f"{value:.{digits}g}"
        if struct.unpack("f", struct.pack("f", float(text)))[0] == value:
            return Decimal(text)
    return Decimal(repr(value))


def _result(
    members: Sequence[float],
    others: Sequence[float],
    repeated: int,
    claim: Claim | None,
    seed: int,
) -> MembershipResult:
    positive = _positive_control(len(members), len(others), seed)
    null = _null_control(members, others, seed)
    area, valid = auc(members, others), positive.passed and null.passed
    placed = ("AUC", area, 0.5, claim.auc if claim else None)
    return MembershipResult(
        members=len(members),
        non_members=len(others),
        repeated=repeated,
        auc=area,
        positive=positive,
        null=null,
        valid=valid,
        judgement=judge([placed], claim, valid=valid),
    )


def _positive_control(members: int, others: int, seed: int) -> Control:
    rng = Random(f"{seed} planted")
    area = auc(
        [rng.gauss(PLANTED, 1.0) for _ in range(members)],
        [rng.gauss(0.0, 1.0) for _ in range(others)],
    )
    return Control(
        f"random scores, members {PLANTED:g} deviations higher: AUC above {MUST_WIN}",
        area.value or 0.0,
        (area.low or 0.0) > MUST_WIN,
    )


def _null_control(members: Sequence[float], others: Sequence[float], seed: int) -> Control:
    rng, everyone, areas = Random(f"{seed} shuffled"), [*members, *others], []
    for _ in range(SHUFFLES):
        rng.shuffle(everyone)
        areas.append(auc(everyone[: len(members)], everyone[len(members) :]).value or 0.0)
    mean, error = fmean(areas), stdev(areas) / SHUFFLES**0.5
    return Control(
        f"membership shuffled {SHUFFLES} times: mean AUC within 4 standard errors of 0.5",
        mean,
        abs(mean - 0.5) <= 4 * error + 1e-9,
    )
