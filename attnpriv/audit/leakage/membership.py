"""The loss-threshold membership test: was this record in the training data?

Records are scored by the model's log-odds of their true label, which order them as the loss does;
those it trained on tend to score higher.

Claim: none. An AUC near 0.5 says that this one attack failed on average. It does not prove privacy:
stronger attacks exist (LiRA, arXiv:2112.03570; RMIA, arXiv:2312.03262), and a few records can be
exposed while the average is not.

Source: Yeom et al. 2018 (arXiv:1709.01604); TPR at low FPR after Carlini et al. 2022.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from attnpriv.audit.documents import sample
from attnpriv.audit.figures import Figures
from attnpriv.audit.leakage.claims import claim_of
from attnpriv.audit.leakage.scores import require_scores, score_attack
from attnpriv.audit.statistics import Floats, auc
from attnpriv.audit.subject import Answers, Progress, Subject
from attnpriv.errors import InputError
from attnpriv.estimates import Control, Estimate
from attnpriv.models.classifier import pooled_features
from attnpriv.rates import TprAtFpr
from attnpriv.verdicts import Claim, Judgement

SHUFFLES = 200
FITTED = 200  # rows that the positive control memorises
MUST_WIN = 0.75  # the lower end of its AUC
FEATURE_ROWS = 400  # held-out rows for the positive control


@dataclass(frozen=True)
class MembershipResult:
    """A loss-threshold membership test with its two controls.

    ``repeated`` held-out rows were left out of the non-members: their texts are training rows too.
    """

    members: int
    non_members: int
    repeated: int
    auc: Estimate
    tpr: tuple[TprAtFpr, ...]
    roc: tuple[tuple[float, float], ...]
    positive: Control
    null: Control
    valid: bool
    judgement: Judgement
    seed: int


def membership(
    members: Floats,
    non_members: Floats,
    features: Floats,
    classes: int,
    claim: Claim | None = None,
    seed: int = 0,
    repeated: int = 0,
) -> MembershipResult:
    """Test membership by a threshold on the true label's log-odds, with both controls.

    The positive control fits a network, without privacy and with random labels, to some of
    ``features`` and is attacked by the same code: it must be caught. The null control shuffles who
    is a member: nothing may be found. Where either fails, the result is not valid.

    Args:
        members: log-odds of the true label, rows that were trained on.
        non_members: the same for rows that were not.
        features: pooled features [N, D] of rows that were not trained on, for the control.
        classes: number of classes K.
        claim: of the model, if it has one.
        seed: of the controls.
        repeated: how many held-out rows were left out, to be shown in the report.

    Raises:
        InputError: an empty group, a value that is NaN, or fewer than four feature rows.
    """
    require_scores(members, non_members)
    positive = _positive_control(features, classes, seed)
    null = _null_control(members, non_members, seed)
    valid = positive.passed and null.passed
    scored = score_attack(members, non_members, claim, valid=valid)
    return MembershipResult(
        members=len(members),
        non_members=len(non_members),
        repeated=repeated,
        auc=scored.auc,
        tpr=scored.tpr,
        roc=scored.roc,
        positive=positive,
        null=null,
        valid=valid,
        judgement=scored.judgement,
        seed=seed,
    )


def true_label_log_odds(probabilities: Floats, labels: Sequence[int]) -> Floats:
    """``ln p - ln(1 - p)`` of each row's true label, [N, K] to [N].

    It orders rows as the loss does. Since 1 - p is summed over the other classes, confident rows
    stay apart where p itself would round to 1.
    """
    rows, own = np.arange(len(labels)), np.asarray(labels, dtype=np.int64)
    others = probabilities.copy()
    others[rows, own] = 0.0
    tiny = float(np.finfo(np.float32).tiny)
    right, wrong = (np.maximum(p, tiny) for p in (probabilities[rows, own], others.sum(1)))
    return np.asarray(np.log(right) - np.log(wrong), dtype=np.float64)


def _null_control(members: Floats, non_members: Floats, seed: int) -> Control:
    rng = np.random.default_rng([seed, 1])
    everyone = np.concatenate([members, non_members])
    areas = []
    for _ in range(SHUFFLES):
        shuffled = rng.permutation(everyone)
        areas.append(auc(shuffled[: len(members)], shuffled[len(members) :]).value or 0.0)
    mean, error = float(np.mean(areas)), float(np.std(areas)) / SHUFFLES**0.5
    return Control(
        f"membership shuffled {SHUFFLES} times: mean AUC within 4 standard errors of 0.5",
        mean,
        bool(abs(mean - 0.5) <= 4 * error + 1e-9),
    )


def _positive_control(features: Floats, classes: int, seed: int) -> Control:
    rows = np.random.default_rng([seed, 2]).permutation(len(features))[: 2 * FITTED]
    half = len(rows) // 2
    if half < 2:
        raise InputError(f"expected at least 4 feature rows, got {len(features)}")
    labels = np.random.default_rng([seed, 3]).integers(0, classes, len(rows))
    if len({*labels[:half]}) == 1:  # few rows may draw one class, of which nothing can be learned
        labels[0] = (labels[0] + 1) % classes
    scaled = StandardScaler().fit_transform(features[rows])
    network = _overfit(scaled[:half], labels[:half], seed)
    probabilities = np.zeros((len(rows), classes))
    probabilities[:, network.classes_] = network.predict_proba(scaled)
    scores = true_label_log_odds(probabilities, labels.tolist())
    area = auc(scores[:half], scores[half:])
    return Control(
        f"a network overfitted to {half} rows with random labels: AUC above {MUST_WIN}",
        area.value or 0.0,
        bool((area.low or 0.0) > MUST_WIN),
    )


def _overfit(features: Floats, labels: NDArray[np.int64], seed: int) -> MLPClassifier:
    network = MLPClassifier((256,), solver="lbfgs", alpha=0.0, max_iter=300, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # converged or not, it memorises
        return network.fit(features, labels)


def passes(subject: Subject) -> float:
    """Roughly how many documents ``run`` sends through the model."""
    return min(FEATURE_ROWS, len(subject.documents))


def run(
    subject: Subject, answers: Answers, progress: Progress, figures: Figures
) -> MembershipResult:
    """As a measure of an audit."""
    documents, unseen, seed = subject.documents, subject.unseen, subject.options.seed
    samples = [documents.samples[unseen[i]] for i in sample(len(unseen), FEATURE_ROWS, seed)]
    features = pooled_features(subject.run.model, documents.modality, samples, progress=progress)
    return membership(
        *scores(subject, answers),
        features.double().numpy(),
        len(subject.data.label_names),
        claim_of(subject.run),
        seed,
        repeated=len(subject.rows.repeated),
    )


def scores(subject: Subject, answers: Answers) -> tuple[Floats, Floats]:
    """Log-odds of the true label of the members, and of the non-members."""
    held_out = true_label_log_odds(answers.held_out, subject.documents.data.labels)
    members = true_label_log_odds(answers.members, subject.members.data.labels)
    return members, held_out[subject.unseen]
