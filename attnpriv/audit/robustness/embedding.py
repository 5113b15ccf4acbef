"""How little the embeddings must be moved to change an answer.

The attacker moves every coordinate of every token of the text by at most a radius (L∞), or every
token by at most a length (L2); padding and what the model added stay. Radii are multiples of the
standard deviation of these coordinates over the attacked documents, so that models of different
scale compare. FGSM and PGD come from ``captum.robust``; AutoPGD goes beyond them.

Not covered: edits of the text (few embeddings near a word are another word's), stronger attacks;
of images, that pixels have a range. The accuracies are upper bounds on the accuracy under the best
attack, and so are the least radii, no certificate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from attnpriv.audit.documents import Documents, sample
from attnpriv.audit.figures import Figures, figure
from attnpriv.audit.robustness import QUANTILES, SCALES
from attnpriv.audit.robustness.batches import (
    Answer,
    Batch,
    coordinate_deviation,
    is_right,
    make_batch,
)
from attnpriv.audit.robustness.captum_attacks import PGD_STEPS, Attack, fgsm, pgd
from attnpriv.audit.robustness.searching import (
    FURTHEST,
    STEPS,
    Standing,
    Target,
    attack,
    breaks,
)
from attnpriv.audit.robustness.surrogates import unclipped
from attnpriv.audit.subject import FORTH_AND_BACK, Answers, Progress, Subject
from attnpriv.estimates import Control, Estimate, wilson
from attnpriv.modality import AttentionModel

ATTACKS = ("fgsm", "pgd", "autopgd", "strongest", "l2")
UNMOVED = 8  # documents of the null control
USUAL_PASSES = 120  # of one document that is attacked, forth and back; tells the expected end


@dataclass(frozen=True)
class AttackAtRadius:
    """Accuracy under attack at one radius; ``scale`` in units of the coordinates' deviation.

    Attributes:
        scale: of both radii.
        radius: of L∞.
        l2_radius: of L2 by token.
        fgsm: one step of the full radius.
        pgd: FGSM or PGD, here or at a smaller radius.
        autopgd: AutoPGD as well.
        strongest: AutoPGD by the gradients of the model without its clip as well.
        l2: all of these, in the ball of L2, which contains that of L∞.
        only_unclipped: documents that only the gradients without the clip broke.
    """

    scale: float
    radius: float
    l2_radius: float
    fgsm: Estimate
    pgd: Estimate
    autopgd: Estimate
    strongest: Estimate
    l2: Estimate
    only_unclipped: int


@dataclass(frozen=True)
class LeastRadii:
    """The least L∞ scales at which documents answered rightly were broken.

    Attributes:
        documents: answered rightly.
        unbroken: of them, those that no attack broke at ``furthest``. On a model whose answers
            depend on the moved embeddings at all, attacks that fail there hint at hidden gradients.
        furthest: the largest scale that was tried.
        shares: quantiles, as shares of the documents.
        scales: the least scale of each quantile; None where it is beyond ``furthest``.
    """

    documents: int
    unbroken: int
    furthest: float
    shares: tuple[float, ...]
    scales: tuple[float | None, ...]


@dataclass(frozen=True)
class RobustnessResult:
    """Accuracy under attacks on the embeddings, least radii, and two controls.

    ``unclipped`` tells whether the gradients of the model without its clip were followed too.
    """

    documents: int
    sampled_from: int
    coordinate_deviation: float
    pgd_steps: int
    autopgd_steps: int
    unclipped: bool
    clean: Estimate
    radii: tuple[AttackAtRadius, ...]
    least: LeastRadii
    positive: Control
    null: Control
    valid: bool
    seed: int


def embedding_attacks(
    model: AttentionModel,
    documents: Documents,
    most: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    figures: Figures | None = None,
) -> RobustnessResult:
    """Accuracy on a seeded sample of documents under attacks of three radii, and least radii.

    ``strongest`` counts a document as broken when any attack broke it at this radius or a smaller
    one: the smaller ball lies within, so the best attack found is never weaker than any of them,
    and never weaker at a larger radius. AutoPGD begins at the document, below the
    nearest wrong point that is known, and at a random point.

    Controls: radius 0 must leave every prediction as it is. On a linear classifier of the mean
    embedding, where the best attack is known by a formula, the same code must break exactly the
    documents that can be broken. Where either fails, the result is not valid. Not covered: that
    the attack is as good on this model as on a linear one; gradients can mislead.

    Args:
        model: in eval mode.
        documents: tokenised held-out records.
        most: how many to attack at most.
        seed: of the sample and of random starts.
        progress: called with documents done and their number.
        figures: takes in the accuracies by document.
    """
    chosen = sample(len(documents), most, seed)
    batches = [
        make_batch(documents.embedded(model, d), torch.tensor([documents.data.labels[d]]))
        for d in chosen
    ]
    target = make_target(model, coordinate_deviation(batches), seed)
    stood: list[Standing] = []
    for document, batch in zip(chosen, batches, strict=True):
        stood.append(attack(target, batch, document))
        if progress:
            progress(len(stood), len(chosen))
    if figures is not None:
        figures |= _figures(chosen, stood)
    positive, null = _positive_control(batches, seed), _null_control(target, batches[:UNMOVED])
    return RobustnessResult(
        documents=len(chosen),
        sampled_from=len(documents),
        coordinate_deviation=target.deviation,
        pgd_steps=PGD_STEPS,
        autopgd_steps=STEPS,
        unclipped=target.guide is not None,
        clean=wilson(sum(each.clean for each in stood), len(stood)),
        radii=tuple(_at_scale(target, batches, stood, i) for i in range(len(SCALES))),
        least=_least_radii([each.least for each in stood if each.clean]),
        positive=positive,
        null=null,
        valid=positive.passed and null.passed,
        seed=seed,
    )


def make_target(model: AttentionModel, deviation: float, seed: int = 0) -> Target:
    """A model as attacks take it, with what its gradients are without its clip."""
    bare = unclipped(model)
    return Target(_answers(model), None if bare is None else _answers(bare), deviation, seed)


def _answers(model: AttentionModel) -> Answer:
    def answer(x: Tensor, mask: Tensor) -> Tensor:
        return model.run(x, mask).outputs

    return answer


def _at_scale(
    target: Target, batches: Sequence[Batch], stood: Sequence[Standing], i: int
) -> AttackAtRadius:
    width = batches[0].x.shape[-1]
    holds = {name: [getattr(each, name)[i] for each in stood] for name in ATTACKS}
    return AttackAtRadius(
        scale=SCALES[i],
        radius=target.radius(SCALES[i], "linf", width),
        l2_radius=target.radius(SCALES[i], "l2", width),
        only_unclipped=sum(each.autopgd[i] and not each.strongest[i] for each in stood),
        **{name: wilson(sum(each), len(stood)) for name, each in holds.items()},
    )


def _least_radii(scales: Sequence[float]) -> LeastRadii:
    """Each quantile is one of the values: the lowest that at least this share does not exceed."""
    ordered = sorted(scales)
    at = [ordered[math.ceil(share * len(ordered)) - 1] for share in QUANTILES if ordered]
    return LeastRadii(
        documents=len(ordered),
        unbroken=sum(map(math.isinf, ordered)),
        furthest=FURTHEST * SCALES[-1],
        shares=QUANTILES if ordered else (),
        scales=tuple(None if math.isinf(scale) else scale for scale in at),
    )


def _figures(chosen: Sequence[int], stood: Sequence[Standing]) -> Figures:
    columns = {"robustness.clean": [each.clean for each in stood]}
    for i, scale in enumerate(SCALES):
        for name in ATTACKS:
            columns[f"robustness.radii[{scale}].{name}"] = [
                getattr(each, name)[i] for each in stood
            ]
    return {path: figure(chosen, np.array(own, np.float64)) for path, own in columns.items()}


class _LinearProbe(nn.Module):
    """A classifier of the sign of ``w·mean(x)`` with w of ±1, whose best attack is known."""

    def __init__(self, dim: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.w = torch.randint(0, 2, (dim,), generator=generator) * 2.0 - 1.0

    def score(self, x: Tensor, mask: Tensor) -> Tensor:
        """``w·mean(x)/D`` over the visible tokens, [B]."""
        return ((x @ self.w) * mask).sum(1) / mask.sum(1) / len(self.w)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Class logits [B, 2]."""
        score = self.score(x, mask)
        return torch.stack([-score, score], dim=-1)


def _positive_control(batches: Sequence[Batch], seed: int) -> Control:
    """Attack the probe at the radius that must break half of the documents, and no others.

    A radius r moves the probe's score by at most r times the share of tokens that may move; in
    ``l2``, by a √D-th of that.
    """
    batches = [batch for batch in batches if batch.movable.any()]
    if not batches:
        return Control("a linear classifier: no record has anything that can be moved", 0.0, False)
    probe = _LinearProbe(batches[0].x.shape[-1], seed)
    target = Target(probe, None, deviation=1.0, seed=seed)
    scores = [probe.score(batch.x, batch.mask) for batch in batches]
    needed = [
        score.abs() * batch.mask.sum(1) / batch.movable[..., 0].sum(1)
        for score, batch in zip(scores, batches, strict=True)
    ]
    radius = float(torch.cat(needed).median()) * 1.001  # beyond rounding of the median itself
    broken = wrong = 0
    for batch, score, least in zip(batches, scores, needed, strict=True):
        known = Batch(batch.x, batch.movable, batch.mask, (score > 0).long())
        must_break = bool(least < radius)
        broken += must_break
        broken_by = [not _holds(probe, known, each, radius) for each in (fgsm, pgd)]
        for norm in ("linf", "l2"):
            at = target.radius(radius, norm, batch.x.shape[-1])
            broken_by.append(any(breaks(target, known, at, norm)))
        wrong += sum(each != must_break for each in broken_by)
    return Control(
        f"a linear classifier: broken on the {broken} documents that the formula names, no others",
        float(wrong),
        wrong == 0 and broken > 0,
    )


def _holds(answer: Answer, batch: Batch, attack: Attack, radius: float) -> bool:
    """Whether one document is answered rightly after an attack."""
    return bool(is_right(answer, attack(answer, batch, torch.tensor([radius])), batch))


def _null_control(target: Target, batches: Sequence[Batch]) -> Control:
    moved = sum(_changed_by_nothing(target, batch) for batch in batches)
    return Control(
        f"radius 0, at most {UNMOVED} documents: no prediction changes", float(moved), moved == 0
    )


def _changed_by_nothing(target: Target, batch: Batch) -> bool:
    """Whether any attack of radius 0 changes what is predicted for one document."""
    with torch.no_grad():
        predicted = target.answer(batch.x, batch.mask).argmax(-1)
    own = Batch(batch.x, batch.movable, batch.mask, predicted)
    captum = [_holds(target.answer, own, each, 0.0) for each in (fgsm, pgd)]
    return not all(captum) or any(breaks(target, own, 0.0, "linf"))


def passes(subject: Subject) -> float:
    """Roughly how many documents ``run`` sends through the model."""
    return subject.taken(subject.options.pgd_documents) * FORTH_AND_BACK * USUAL_PASSES


def run(
    subject: Subject, answers: Answers, progress: Progress, figures: Figures
) -> RobustnessResult:
    """As a measure of an audit."""
    return embedding_attacks(
        subject.run.model,
        subject.documents,
        subject.affordable(subject.options.pgd_documents),
        subject.options.seed,
        progress,
        figures,
    )
