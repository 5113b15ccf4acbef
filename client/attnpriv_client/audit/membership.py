"""Utility, and the membership test by one threshold, from released predictions.

Records are scored by the log-odds of their true label, which order them as the loss does; records
that the model trained on tend to score higher. Where the policy releases labels alone, they are
scored by how often the true label is answered, for the text and for copies of it.

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
from attnpriv.verdicts import Claim
from attnpriv_client.audit.asking import Answered, Ask
from attnpriv_client.audit.attack_results import By, MembershipResult
from attnpriv_client.audit.results import NotRunError, UtilityResult
from attnpriv_client.audit.scoring import Groups, claim_of, score_attack
from attnpriv_client.audit.statistics import auc
from attnpriv_client.domain import ModelCard

SHUFFLES = 200
COPIES = 8  # of a text, each without one word, where labels alone are released
KNOWN = 0.95  # share of right answers about members in the positive control
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


def membership(
    answered: Sequence[Answered], card: ModelCard | None, predict: Ask, seed: int
) -> MembershipResult:
    """Test membership by one threshold, with both controls.

    The null control shuffles who is a member, so that nothing must be found. If a control fails,
    the result is not valid.

    Args:
        answered: the rows.
        card: whose claim the figures are held against; None if the caller may not read it.
        predict: asks about copies of the rows where labels alone are released.
        seed: of the controls and the copies.
    """
    flagged = flagged_rows(answered)
    repeated = repeated_texts(flagged)
    different = [a for a in flagged if a.row.text not in repeated]
    scored = [(a.row.member, score) for a in different if (score := log_odds(a)) is not None]
    by: By = "log-odds"
    if not scored:
        by, scored = "labels", _by_labels(different, predict, seed)
    members, others = (
        [score for is_in, score in scored if is_in is flag] for flag in (True, False)
    )
    if min(len(members), len(others)) < 2:
        raise NotRunError(
            f"expected at least 2 members and 2 non-members, got {len(members)} and {len(others)}"
        )
    return _result((members, others), len(repeated), by, claim_of(card), seed)


def flagged_rows(answered: Sequence[Answered]) -> list[Answered]:
    """The rows of which it is known whether the model was trained on them, and their label.

    Raises:
        NotRunError: there are none.
    """
    flagged = [a for a in answered if a.row.member is not None and a.row.label is not None]
    if not flagged:
        raise NotRunError("no row has both a label and a membership flag")
    return flagged


def _by_labels(
    different: Sequence[Answered], predict: Ask, seed: int
) -> list[tuple[bool | None, float]]:
    """How often the true label is answered, for each text and copies without one of its words.

    Source: Choquette-Choo, Tramèr, Carlini and Papernot 2021 (arXiv:2007.14321), section 3.3; one
    question without copies is the attack of Yeom et al.
    """
    rng = Random(f"{seed} copies")
    copies = {a.row.text: _copies(a.row.text, rng) for a in different if a.prediction is not None}
    found = predict((copy for own in copies.values() for copy in own), "membership")
    scored = []
    for a in different:
        if a.prediction is None:
            continue
        answers = [a.prediction, *(found[copy] for copy in copies[a.row.text])]
        labels = [answer.label for answer in answers if answer is not None]
        scored.append((a.row.member, labels.count(a.row.label or "") / len(labels)))
    return scored


def _copies(text: str, rng: Random) -> list[str]:
    """The text without one word, for some of its words; none where it has a single one."""
    words = text.split()
    dropped = rng.sample(range(len(words)), min(COPIES, len(words))) if len(words) > 1 else []
    return [" ".join(words[:n] + words[n + 1 :]) for n in dropped]


def repeated_texts(flagged: Sequence[Answered]) -> set[str]:
    """Texts that are both members and non-members."""
    members, others = (
        {a.row.text for a in flagged if a.row.member is flag} for flag in (True, False)
    )
    return members & others


def log_odds(answered: Answered) -> float | None:
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
    groups: Groups, repeated: int, by: By, claim: Claim | None, seed: int
) -> MembershipResult:
    members, others = groups
    positive = _positive_control(len(members), len(others), by, seed)
    null = _null_control(members, others, seed)
    valid = positive.passed and null.passed
    scored = score_attack(groups, claim, valid=valid)
    return MembershipResult(
        members=len(members),
        non_members=len(others),
        repeated=repeated,
        by=by,
        auc=scored.auc,
        tpr=scored.tpr,
        positive=positive,
        null=null,
        valid=valid,
        judgement=scored.judgement,
    )


def _positive_control(members: int, others: int, by: By, seed: int) -> Control:
    rng = Random(f"{seed} planted")
    if by == "log-odds":
        what = f"random scores, members {PLANTED:g} deviations higher"
        area = auc(
            [rng.gauss(PLANTED, 1.0) for _ in range(members)],
            [rng.gauss(0.0, 1.0) for _ in range(others)],
        )
    else:
        what = f"random answers, right in {KNOWN:.0%} for members and in half for others"
        area = auc(
            [_right(rng, KNOWN) for _ in range(members)], [_right(rng, 0.5) for _ in range(others)]
        )
    return Control(f"{what}: AUC above {MUST_WIN}", area.value or 0.0, (area.low or 0.0) > MUST_WIN)


def _right(rng: Random, chance: float) -> float:
    return fmean(rng.random() < chance for _ in range(1 + COPIES))


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
