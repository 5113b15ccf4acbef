"""The results of attacks on a server's answers; as in ``results``, none holds a text or a token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from attnpriv.estimates import Control, Estimate
from attnpriv.rates import TprAtFpr
from attnpriv.shadow_answers import Name as ShadowName
from attnpriv.verdicts import Judgement

By = Literal["log-odds", "labels"]
Explained = Literal["attention", "attributions", "drawn", "together"]


@dataclass(frozen=True)
class Scored:
    """What the scores of an attack give.

    Attributes:
        auc: area under the ROC curve, with DeLong's interval.
        tpr: true positive rates at low false positive rates.
        judgement: the verdict, by intervals that are corrected for the number of figures.
    """

    auc: Estimate
    tpr: tuple[TprAtFpr, ...]
    judgement: Judgement


@dataclass(frozen=True)
class MembershipResult:
    """A membership test by one threshold, with its two controls.

    Attributes:
        members: rows that the model was trained on.
        non_members: rows that it was not.
        repeated: texts that are both, and are left out.
        by: what was compared: the log-odds of the true label or, where the policy releases labels
            alone, how often it is answered for the text and for copies without one of its words.
        auc: area under the ROC curve.
        tpr: true positive rates at low false positive rates.
        positive: a difference is planted.
        null: membership is shuffled.
        valid: whether both controls passed.
        judgement: the verdict, against the claim of the card where the caller may read one.
    """

    members: int
    non_members: int
    repeated: int
    by: By
    auc: Estimate
    tpr: tuple[TprAtFpr, ...]
    positive: Control
    null: Control
    valid: bool
    judgement: Judgement


@dataclass(frozen=True)
class ShadowAttack(Scored):
    """An attack with shadow models; ``gain`` is its AUC less that of the loss threshold."""

    gain: Estimate


@dataclass(frozen=True)
class ShadowAttacksResult:
    """LiRA and RMIA on released probabilities; see ``attnpriv.audit.leakage.shadow_attacks``.

    Attributes:
        models: how many shadow models there are.
        members: rows that the model was trained on.
        non_members: rows that it was not.
        left_out: further rows, of which too few models are on either side.
        loss: the threshold on the released log-odds.
        attacks: by name.
        gravest: which of them the verdict is that of.
        judgement: its judgement.
        positive: a leak is planted in a shadow model and in the others.
        null: answers of models that did not see the row stand for the server's.
        valid: whether both controls passed.
    """

    models: int
    members: int
    non_members: int
    left_out: int
    loss: Scored
    attacks: dict[ShadowName, ShadowAttack]
    gravest: ShadowName
    judgement: Judgement
    positive: Control
    null: Control
    valid: bool


@dataclass(frozen=True)
class ExplanationAttack(Scored):
    """An attack on released explanations.

    Attributes:
        above_loss: its AUC less that of the threshold on the answers.
        above_texts: its AUC less that of the texts alone.
        p_value: the larger share of resamples in which it is not above the one or the other.
    """

    above_loss: Estimate
    above_texts: Estimate
    p_value: float


@dataclass(frozen=True)
class ExplanationAttacksResult:
    """What released explanations tell of who was trained on.

    Attributes:
        fitted: rows that the attack models were fitted to.
        members: attacked rows that the model was trained on.
        non_members: attacked rows that it was not.
        loss: the threshold on the released log-odds or, without them, on right and wrong labels.
        texts: the attack that never saw an answer.
        attacks: by what was released.
        gravest: which of them the verdict is that of.
        judgement: its judgement.
        positive: a leak is planted.
        null: there is nothing to find.
        split: the texts alone tell nothing, as after a random split; a claim is not judged without.
        valid: whether the controls passed.
    """

    fitted: int
    members: int
    non_members: int
    loss: Scored
    texts: Scored
    attacks: dict[Explained, ExplanationAttack]
    gravest: Explained
    judgement: Judgement
    positive: Control
    null: Control
    split: Control
    valid: bool


@dataclass(frozen=True)
class ExposureLevel:
    """The secrets that were repeated equally often.

    Attributes:
        repetitions: how often each of them was trained on.
        secrets: how many there are.
        exposure: in bits, mean over the secrets.
        allowed: the most that the claim allows of it; None without a claim.
        ranked_first: how many have the first rank.
        p_adjusted: one-sided, Holm-corrected over the levels: how often ranks by chance have as
            large a mean.
    """

    repetitions: int
    secrets: int
    exposure: Estimate
    allowed: float | None
    ranked_first: int
    p_adjusted: float


@dataclass(frozen=True)
class ExposureResult:
    """Exposure of planted secrets by released probabilities; see ``attnpriv.planted``.

    Attributes:
        levels: by the number of repetitions.
        by_chance: exposure of a secret that was not trained on, in bits.
        judgement: the verdict; something was found where a corrected p-value is below 0.05.
        positive: a noisy probe that knows the secrets.
        null: secrets that nobody trained on.
        valid: whether both controls passed.
    """

    levels: tuple[ExposureLevel, ...]
    by_chance: float
    judgement: Judgement
    positive: Control
    null: Control
    valid: bool


@dataclass(frozen=True)
class HiddenWordsResult:
    """What an observer of the answers alone guesses of words that the server hid.

    Attributes:
        fitted: rows whose hidden words the observer knows.
        documents: rows that were attacked.
        words: hidden words of the latter.
        known: share of them that stand in the known rows: no guesser names more.
        top1: share that the first guess names.
        top10: share that is among the first ten guesses.
        by_type_top1: the same of a guesser that sees types and places alone.
        by_type_top10: likewise.
        top1_gain: the former less the latter, on the same resamples.
        top10_gain: likewise.
        judgement: the verdict, by intervals that are corrected for the two gains.
        positive: scores that tell words apart are planted.
        null: scores are shuffled among the placeholders.
        valid: whether both controls passed.
    """

    fitted: int
    documents: int
    words: int
    known: float
    top1: Estimate
    top10: Estimate
    by_type_top1: Estimate
    by_type_top10: Estimate
    top1_gain: Estimate
    top10_gain: Estimate
    judgement: Judgement
    positive: Control
    null: Control
    valid: bool


@dataclass(frozen=True)
class AttributeGuess:
    """How often a guess is right that texts hold a type of personal data.

    Attributes:
        entity_type: the type.
        source: which released numbers the guesser sees.
        share: of the attacked rows that hold it.
        by_label: right guesses of the one that sees the label alone.
        accuracy: right guesses of the one that sees the numbers.
        gain: the latter less the former, on the same rows.
        judgement: the verdict, by intervals that are corrected for the number of guesses.
    """

    entity_type: str
    source: str
    share: float
    by_label: Estimate
    accuracy: Estimate
    gain: Estimate
    judgement: Judgement


@dataclass(frozen=True)
class AttributesResult:
    """Which types of personal data can be guessed to stand in a text, from released numbers.

    Attributes:
        fitted: rows that the guessers know.
        documents: rows that were attacked.
        guesses: of each type and source.
        judgement: the gravest of them.
        positive: the attribute is planted.
        null: the attribute is shuffled among the known rows.
        valid: whether both controls passed.
    """

    fitted: int
    documents: int
    guesses: tuple[AttributeGuess, ...]
    judgement: Judgement
    positive: Control
    null: Control
    valid: bool
