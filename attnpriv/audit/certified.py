"""Certified accuracy: how many answers are right and cannot be changed by m edits of the text.

For runs with encoder ``words`` alone; see ``attnpriv.models.edits`` for what is proved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from attnpriv.audit.documents import Documents, sample
from attnpriv.audit.figures import Figures
from attnpriv.audit.robustness import EDITS
from attnpriv.audit.subject import Answers, Progress, Subject
from attnpriv.data.tokenisation import Encoding
from attnpriv.estimates import Control, Estimate, wilson
from attnpriv.models.classifier import AttentionClassifier
from attnpriv.models.edits import EditCertifier, EditRadii
from attnpriv.runs.deletion import VoteRadii
from attnpriv.runs.edits import edit_certifier

CHECKED = 100  # answers on which the worst substitutions are tried


@dataclass(frozen=True)
class CertifiedShare:
    """Shares of texts whose answer counts and withstands every choice of so many edits.

    Attributes:
        edits: m.
        substitutions: withstand m substitutions.
        deletions: withstand m deletions.
        insertions: withstand m insertions.
        any_edits: withstand m substitutions, deletions and insertions in any mixture.
    """

    edits: int
    substitutions: Estimate
    deletions: Estimate
    insertions: Estimate
    any_edits: Estimate


@dataclass(frozen=True)
class CertifiedResult:
    """Certified accuracy on held-out records, and the worst edits tried on the model itself.

    Attributes:
        documents: how many there are.
        right: how many of them are answered rightly.
        filled: how many fill the model's length, and so may have been cut.
        clean: share of right answers, which m = 0 edits leave as they are.
        shares: for each m in ``EDITS``, of all documents: right and withstanding.
        of_right: the same among the right answers.
        positive: the worst substitutions, one more than the radius, must change the answer.
        null: the worst substitutions within the radius must not.
        valid: whether both controls passed.
    """

    documents: int
    right: int
    filled: int
    clean: Estimate
    shares: tuple[CertifiedShare, ...]
    of_right: tuple[CertifiedShare, ...]
    positive: Control
    null: Control
    valid: bool


def certified_shares(
    radii: Sequence[EditRadii | VoteRadii], right: Sequence[bool], numbers: Sequence[int]
) -> tuple[CertifiedShare, ...]:
    """The certified share at each number of edits, with Wilson's intervals.

    Args:
        radii: of N texts.
        right: whether each answer counts, say because it is right, N of them.
        numbers: of edits.
    """

    def withstand(of: Callable[[EditRadii | VoteRadii], int], edits: int) -> Estimate:
        counted = sum(ok and of(each) >= edits for each, ok in zip(radii, right, strict=True))
        return wilson(counted, len(radii))

    return tuple(
        CertifiedShare(
            edits,
            withstand(lambda each: each.substitutions, edits),
            withstand(lambda each: each.deletions, edits),
            withstand(lambda each: each.insertions, edits),
            withstand(lambda each: each.edits, edits),
        )
        for edits in numbers
    )


def certified_accuracy(
    model: AttentionClassifier,
    certifier: EditCertifier,
    documents: Documents,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> CertifiedResult:
    """Certified accuracy of all documents, with the certificate tried on a sample of them.

    The controls are attacks on the model itself, in float32, that know the certificate: at a
    radius of m substitutions, the m worst ones must leave the answer as it is, and the worst m + 1
    must change it. Answers closer to a tie than rounding can tell are left out of the second. With
    several heads a radius is a lower bound: then some answers must change where every token does.

    Args:
        model: in eval mode.
        certifier: of this model.
        documents: tokenised held-out records.
        seed: of the sample.
        progress: called with documents done and their number.
    """
    radii = []
    for done, encoding in enumerate(documents.samples, start=1):
        radii.append(certifier.radii(encoding))
        if progress:
            progress(done, len(documents))
    right = [each.label == y for each, y in zip(radii, documents.data.labels, strict=True)]
    standing = [each for each, ok in zip(radii, right, strict=True) if ok]
    chosen = sample(len(documents), CHECKED, seed)
    positive, null = _controls(model, certifier, documents, {d: radii[d] for d in chosen})
    return CertifiedResult(
        documents=len(documents),
        right=len(standing),
        filled=sum(each.filled for each in radii),
        clean=wilson(len(standing), len(documents)),
        shares=certified_shares(radii, right, EDITS),
        of_right=certified_shares(standing, [True] * len(standing), EDITS),
        positive=positive,
        null=null,
        valid=positive.passed and null.passed,
    )


def _controls(
    model: AttentionClassifier,
    certifier: EditCertifier,
    documents: Documents,
    radii: dict[int, EditRadii],
) -> tuple[Control, Control]:
    """The worst substitutions beyond the radius of each document, and those within it."""
    tried = [_tried(model, certifier, documents, d, each) for d, each in radii.items()]
    crossed = sum(within for within, _ in tried)
    beyond = [changed for _, changed in tried if changed is not None]
    if certifier.heads == 1:
        expected = "one substitution more than the radius, {} texts: each answer changes"
        passed = all(beyond)
    else:
        expected = "every token substituted, {} texts: some answers change"
        passed = any(beyond)
    return (
        Control(expected.format(len(beyond)), float(len(beyond) - sum(beyond)), passed),
        Control(
            f"the worst substitutions within the radius, {len(tried)} texts: no answer changes",
            float(crossed),
            crossed == 0,
        ),
    )


def _tried(
    model: AttentionClassifier,
    certifier: EditCertifier,
    documents: Documents,
    document: int,
    radii: EditRadii,
) -> tuple[bool, bool | None]:
    """Whether the worst substitutions within the radius change the answer, and one more than that.

    The second is None where there is no token more, or a tie that rounding may decide either way.
    """
    encoding, label, radius = documents.samples[document], radii.label, radii.substitutions

    def changes(edited: Sequence[Encoding]) -> bool:
        return any(_answer(model, documents, each) != label for each in edited)

    more = radius + 1 if certifier.heads == 1 else encoding.size
    within = certifier.worst_substitutions(encoding, radius)
    beyond = certifier.worst_substitutions(encoding, more)
    margin = min(certifier.margin(each, label) for each in beyond)
    if beyond == within or abs(margin) <= certifier.slack:
        return radius > 0 and changes(within), None
    return radius > 0 and changes(within), changes(beyond)


@torch.no_grad()
def _answer(model: AttentionClassifier, documents: Documents, encoding: Encoding) -> int:
    inputs = documents.modality.collate([encoding])
    return int(model(inputs.values, inputs.mask).argmax())


def passes(subject: Subject) -> float:
    """Roughly how many documents ``run`` sends through the model."""
    classes = len(subject.data.label_names)
    return len(subject.documents) + 2 * (classes - 1) * subject.taken(CHECKED)


def run(
    subject: Subject, answers: Answers, progress: Progress, figures: Figures
) -> CertifiedResult:
    """As a measure of an audit."""
    return certified_accuracy(
        subject.run.model,
        edit_certifier(subject.run),
        subject.documents,
        subject.options.seed,
        progress,
    )
