"""FGSM and PGD on the token embeddings, by ``captum.robust``.

The attacker moves every coordinate of every token of the text by at most a radius (L∞); padding
and what the model added stay. Radii are multiples of the standard deviation of these
coordinates over the attacked documents, so that models of different scale compare.

Not covered: edits of the text (few embeddings near a word are another word's), stronger or adaptive
attacks. The accuracies are upper bounds on the accuracy under the best attack, no certificate.

Sources: Goodfellow et al. 2015 (arXiv:1412.6572), Madry et al. 2018 (arXiv:1706.06083).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from captum.robust import FGSM, PGD
from torch import Tensor, nn

from attnpriv.audit.documents import Documents, sample
from attnpriv.audit.figures import Figures, figure
from attnpriv.audit.robustness import SCALES
from attnpriv.audit.subject import FORTH_AND_BACK, Answers, Progress, Subject
from attnpriv.estimates import Control, Estimate, wilson
from attnpriv.modality import AttentionModel, Embedded
from attnpriv.tasks import CLASSIFY

PGD_STEPS = 6
STEP = 2.5 / PGD_STEPS  # of the radius: the steps can cross the ball and come back
ATTACKS = ("fgsm", "strongest")
UNMOVED = 32  # documents of the null control
# Captum takes gradients below 1e-6 for zero, and so would leave confident documents where they are.
ANY_GRADIENT = 0.0


@dataclass(frozen=True)
class AttackAtRadius:
    """Accuracy under attack at one radius; ``scale`` in units of the coordinates' deviation."""

    scale: float
    radius: float
    fgsm: Estimate
    strongest: Estimate


@dataclass(frozen=True)
class RobustnessResult:
    """Accuracy under FGSM and PGD on the token embeddings, with its two controls."""

    documents: int
    sampled_from: int
    coordinate_deviation: float
    pgd_steps: int
    clean: Estimate
    radii: tuple[AttackAtRadius, ...]
    positive: Control
    null: Control
    valid: bool
    seed: int


@dataclass(frozen=True)
class _Batch:
    """Embedded documents x [B, T, D], what may move [B, T, D], mask [B, T], labels [B]."""

    x: Tensor
    movable: Tensor
    mask: Tensor
    labels: Tensor


_Answer = Callable[[Tensor, Tensor], Tensor]
"""Embeddings [B, T, D] and mask [B, T] to class logits [B, K]."""

_Attack = Callable[[_Answer, _Batch, float], Tensor]


def embedding_attacks(
    model: AttentionModel,
    documents: Documents,
    most: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    figures: Figures | None = None,
) -> RobustnessResult:
    """Accuracy on a seeded sample of documents under attacks of three radii.

    ``fgsm`` is one step of the full radius. ``strongest`` counts a document as broken when FGSM or
    PGD broke it at this radius or a smaller one: the smaller ball lies within, so the best attack
    found is never weaker than either, and never weaker at a larger radius.

    Controls: radius 0 must leave every prediction as it is. On a linear classifier of the mean
    embedding, where the best attack is known by a formula, the same code must break exactly the
    documents that can be broken. Where either fails, the result is not valid. Not covered: that
    the attack is as good on this model as on a linear one; gradients can mislead.

    Args:
        model: in eval mode.
        documents: tokenised held-out records.
        most: how many to attack at most.
        seed: of the sample.
        progress: called with documents done and their number.
        figures: takes in the accuracies by document.
    """

    def answer(x: Tensor, mask: Tensor) -> Tensor:
        return model.run(x, mask).outputs

    chosen = sample(len(documents), most, seed)
    batches = [
        make_batch(documents.embedded(model, d), torch.tensor([documents.data.labels[d]]))
        for d in chosen
    ]
    deviation = _coordinate_deviation(batches)
    counts = np.zeros((len(chosen), 2 * len(SCALES) + 1), dtype=np.int64)
    for done, batch in enumerate(batches, start=1):
        counts[done - 1] = _attack_batch(answer, batch, deviation).numpy()
        if progress:
            progress(done, len(chosen))
    clean, *attacked = counts.sum(0).tolist()
    positive = _positive_control(batches, seed)
    moved = sum(_changed_by_nothing(answer, batch) for batch in batches[:UNMOVED])
    null = Control(
        f"radius 0, at most {UNMOVED} documents: no prediction changes", float(moved), moved == 0
    )
    if figures is not None:
        paths = ["clean", *(f"radii[{scale}].{kind}" for scale in SCALES for kind in ATTACKS)]
        columns = counts.T.astype(np.float64)
        figures |= {
            f"robustness.{path}": figure(chosen, column)
            for path, column in zip(paths, columns, strict=True)
        }
    return RobustnessResult(
        documents=len(chosen),
        sampled_from=len(documents),
        coordinate_deviation=deviation,
        pgd_steps=PGD_STEPS,
        clean=wilson(clean, len(chosen)),
        radii=tuple(
            AttackAtRadius(
                scale,
                scale * deviation,
                wilson(attacked[2 * i], len(chosen)),
                wilson(attacked[2 * i + 1], len(chosen)),
            )
            for i, scale in enumerate(SCALES)
        ),
        positive=positive,
        null=null,
        valid=positive.passed and null.passed,
        seed=seed,
    )


def fgsm(answer: _Answer, batch: _Batch, radius: float) -> Tensor:
    """One step of the given size along the sign of the loss's gradient, [B, T, D]."""
    attack = FGSM(answer, CLASSIFY.losses)
    attack.zero_thresh = ANY_GRADIENT
    with _captum_warnings_ignored():
        moved: Tensor = attack.perturb(
            batch.x, radius, batch.labels, additional_forward_args=(batch.mask,), mask=batch.movable
        )
    return moved.detach()


def pgd(answer: _Answer, batch: _Batch, radius: float) -> Tensor:
    """Projected gradient steps within the ball of the given radius, [B, T, D]."""
    attack = PGD(answer, CLASSIFY.losses)
    attack.fgsm.zero_thresh = ANY_GRADIENT
    with _captum_warnings_ignored():
        moved: Tensor = attack.perturb(
            batch.x,
            radius,
            radius * STEP,
            PGD_STEPS,
            batch.labels,
            additional_forward_args=(batch.mask,),
            mask=batch.movable,
        )
    return moved.detach()


@contextmanager
def _captum_warnings_ignored() -> Iterator[None]:
    """Captum warns at every step that it switches on the gradients it was asked for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Input Tensor .* did not already require gradients")
        yield


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


def _positive_control(batches: Sequence[_Batch], seed: int) -> Control:
    """Attack the probe at the radius that must break half of the documents, and no others.

    A radius r moves the probe's score by at most r times the share of tokens that may move.
    """
    probe = _LinearProbe(batches[0].x.shape[-1], seed)
    scores = [probe.score(batch.x, batch.mask) for batch in batches]
    needed = [
        score.abs() * batch.mask.sum(1) / batch.movable[..., 0].sum(1)
        for score, batch in zip(scores, batches, strict=True)
    ]
    radius = float(torch.cat(needed).median()) * 1.001  # beyond rounding of the median itself
    broken = wrong = 0
    for batch, score, least in zip(batches, scores, needed, strict=True):
        known = _Batch(batch.x, batch.movable, batch.mask, (score > 0).long())
        must_break = least < radius
        broken += int(must_break.sum())
        for attack in (fgsm, pgd):
            stands = _still_right(probe, known, torch.ones_like(must_break), attack, radius)
            wrong += int((stands == must_break).sum())
    return Control(
        f"a linear classifier: broken on the {broken} documents that the formula names, no others",
        float(wrong),
        wrong == 0 and broken > 0,
    )


def _changed_by_nothing(answer: _Answer, batch: _Batch) -> int:
    """How many predictions of a batch the attacks change at radius 0."""
    before = _predict(answer, batch.x, batch.mask)
    after = [_predict(answer, attack(answer, batch, 0.0), batch.mask) for attack in (fgsm, pgd)]
    return int(((after[0] != before) | (after[1] != before)).sum())


def _attack_batch(answer: _Answer, batch: _Batch, deviation: float) -> Tensor:
    """Counts: right, then for each radius right under FGSM and under the strongest."""
    right = is_right(answer, batch.x, batch)
    counts = []
    standing = right
    for scale in SCALES:
        by_fgsm = _still_right(answer, batch, right, fgsm, scale * deviation)
        standing = _still_right(answer, batch, standing & by_fgsm, pgd, scale * deviation)
        counts += [by_fgsm.sum(), standing.sum()]
    return torch.stack([right.sum(), *counts])


def _still_right(
    answer: _Answer, batch: _Batch, rows: Tensor, attack: _Attack, radius: float
) -> Tensor:
    """Which of the chosen rows [B] the attack leaves right; it runs on no others."""
    standing = rows.clone()
    if rows.any():
        part = _Batch(batch.x[rows], batch.movable[rows], batch.mask[rows], batch.labels[rows])
        standing[rows] = is_right(answer, attack(answer, part, radius), part)
    return standing


@torch.no_grad()
def is_right(answer: _Answer, x: Tensor, batch: _Batch) -> Tensor:
    """Whether the answers to embeddings x in the place of the batch's own are its labels, [B]."""
    return CLASSIFY.correct(answer(x, batch.mask), batch.labels)


@torch.no_grad()
def _predict(answer: _Answer, x: Tensor, mask: Tensor) -> Tensor:
    return answer(x, mask).argmax(-1)


def make_batch(example: Embedded, labels: Tensor) -> _Batch:
    """Embedded examples with their labels [B]; what stands for their content may move."""
    movable = example.content[:, :, None].expand_as(example.x).to(example.x.dtype)
    return _Batch(example.x, movable, example.mask, labels)


def _coordinate_deviation(batches: Sequence[_Batch]) -> float:
    values = torch.cat([batch.x[batch.movable > 0] for batch in batches])
    return float(values.std()) if len(values) > 1 else 0.0


def passes(subject: Subject) -> float:
    """Roughly how many documents ``run`` sends through the model."""
    steps = len(SCALES) * (1 + PGD_STEPS)
    return subject.taken(subject.options.pgd_documents) * FORTH_AND_BACK * steps


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
