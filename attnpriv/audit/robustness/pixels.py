"""How little the pixels of an image must be moved to change an answer.

The attacker knows the model, and moves every pixel by at most a radius (L∞, in levels of 255), or
the whole image by at most a length (L2, where white is 1); each stays between black and white. The
search is AutoPGD, from the image itself and from a random point, and where something is clipped,
also by the gradients of the model without its clip.

Not covered: stronger attacks, and moves that people would not notice although they are large, such
as a shift. Pixels are not rounded to whole levels. The accuracies are upper bounds on the accuracy
under the best attack, no certificate.

Shapes: B images, T patches, P numbers of a patch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from attnpriv.audit.documents import Documents, sample
from attnpriv.audit.figures import Figures
from attnpriv.audit.robustness import LENGTHS, LEVELS
from attnpriv.audit.robustness.balls import Ball, Norm
from attnpriv.audit.robustness.batches import Answer, Batch, is_right
from attnpriv.audit.robustness.searching import Target, breaks
from attnpriv.audit.robustness.surrogates import unclipped
from attnpriv.audit.subject import FORTH_AND_BACK, Answers, Progress, Subject
from attnpriv.data.image.patches import Patches
from attnpriv.estimates import Control, Estimate, wilson
from attnpriv.models.classifier import AttentionClassifier

WHITE = 255
RADII: dict[Norm, tuple[float, ...]] = {
    "linf": tuple(level / WHITE for level in LEVELS),
    "l2": LENGTHS,
}
STEPS = 12  # of AutoPGD
UNMOVED = 8  # images of the null control
USUAL_PASSES = 250  # of one image that is attacked, forth and back; tells the expected end
HALVINGS = 40  # to find the radius that a formula has
SURE = 0.98  # of a radius: what a smaller one must break, an ascent of few steps breaks, too
BESIDE = 1.05  # the control's radius over the median of those that are needed

pixel_ball = partial(Ball, over=(-2, -1), limits=(0.0, 1.0))
"""All images within a radius."""


@dataclass(frozen=True)
class AccuracyAtRadius:
    """Accuracy under attack at one radius, or a smaller one.

    Attributes:
        scale: the radius: of L∞ in levels of 255, of L2 a length.
        own: under AutoPGD by the model's own gradients.
        strongest: by those of the model without its clip as well.
    """

    scale: float
    own: Estimate
    strongest: Estimate


@dataclass(frozen=True)
class PixelAttackResult:
    """Accuracy under attacks on pixels, and two controls.

    Attributes:
        documents: attacked images.
        sampled_from: held-out images.
        steps: of AutoPGD at most, from each of two starts.
        unclipped: whether gradients of the model without its clip were followed too.
        clean: accuracy without attack.
        linf: no pixel moves by more than the radius.
        l2: the whole image moves by no more.
        positive: a linear classifier whose least radius is known.
        null: radius 0.
        valid: whether both passed.
        seed: of the sample and of random starts.
    """

    documents: int
    sampled_from: int
    steps: int
    unclipped: bool
    clean: Estimate
    linf: tuple[AccuracyAtRadius, ...]
    l2: tuple[AccuracyAtRadius, ...]
    positive: Control
    null: Control
    valid: bool
    seed: int


@dataclass(frozen=True)
class _Held:
    """Whether one image is answered rightly: without attack, and by norm and radius."""

    clean: bool
    own: dict[Norm, list[bool]]
    strongest: dict[Norm, list[bool]]


def pixel_attacks(
    model: AttentionClassifier,
    documents: Documents,
    most: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> PixelAttackResult:
    """Accuracy on a seeded sample of images under attacks of several radii in two norms.

    An image counts as broken where an attack broke it at this radius or a smaller one.

    Controls: radius 0 must leave every prediction as it is. On a linear classifier of the pixels,
    where the least radius follows from a formula, the same code must break the images that a radius
    2 % smaller breaks, and none that cannot be broken. Where either fails, the result is not valid.
    Not covered: that the attack is as good on this model as on a linear one.

    Args:
        model: in eval mode; it reads images.
        documents: held-out images.
        most: how many to attack at most.
        seed: of the sample and of random starts.
        progress: called with images done and their number.
    """
    chosen = sample(len(documents), most, seed)
    batches = [_batch(documents, d) for d in chosen]
    bare = unclipped(model)
    guide = None if bare is None else _answers(bare)
    target = Target(_answers(model), guide, 1.0, seed, pixel_ball)
    held: list[_Held] = []
    for document, batch in zip(chosen, batches, strict=True):
        held.append(_attack(target, batch, document))
        if progress:
            progress(len(held), len(chosen))
    positive, null = _positive_control(batches, seed), _null_control(target, batches[:UNMOVED])
    return PixelAttackResult(
        documents=len(chosen),
        sampled_from=len(documents),
        steps=STEPS,
        unclipped=guide is not None,
        clean=wilson(sum(each.clean for each in held), len(held)),
        linf=_curve("linf", LEVELS, held),
        l2=_curve("l2", LENGTHS, held),
        positive=positive,
        null=null,
        valid=positive.passed and null.passed,
        seed=seed,
    )


def _batch(documents: Documents, document: int) -> Batch:
    """One image; what fills up the patches at its edge does not move."""
    assert isinstance(documents.modality, Patches)
    inputs = documents.inputs([document])
    movable = torch.from_numpy(documents.modality.inside)[None].to(inputs.values.dtype)
    label = torch.tensor([documents.data.labels[document]])
    return Batch(inputs.values, movable, inputs.mask, label)


def _answers(model: AttentionClassifier) -> Answer:
    def answer(values: Tensor, mask: Tensor) -> Tensor:
        outputs: Tensor = model(values, mask)
        return outputs

    return answer


def _attack(target: Target, batch: Batch, document: int) -> _Held:
    """Try every radius of both norms on one image; ``document`` seeds its random starts."""
    if not bool(is_right(target.answer, batch.x, batch)):
        none = {norm: [False] * len(radii) for norm, radii in RADII.items()}
        return _Held(False, none, none)
    own, strongest = {}, {}
    for norm, radii in RADII.items():
        own[norm], strongest[norm] = _holds(target, batch, norm, radii, document)
    return _Held(True, own, strongest)


def _holds(
    target: Target, batch: Batch, norm: Norm, radii: Sequence[float], document: int
) -> tuple[list[bool], list[bool]]:
    """What holds at each radius, by the model's own gradients and by any; not after it broke."""
    own, strongest = [False] * len(radii), [False] * len(radii)
    for i, radius in enumerate(radii):
        by_own, by_any = breaks(target, batch, radius, norm, batch.x, document, STEPS)
        if by_own:
            break
        own[i] = True
        strongest[i] = not by_any and all(strongest[:i])
    return own, strongest


def _curve(
    norm: Norm, scales: Sequence[float], held: Sequence[_Held]
) -> tuple[AccuracyAtRadius, ...]:
    def share(of: Callable[[_Held], dict[Norm, list[bool]]], i: int) -> Estimate:
        return wilson(sum(of(each)[norm][i] for each in held), len(held))

    return tuple(
        AccuracyAtRadius(
            float(scale), share(lambda each: each.own, i), share(lambda each: each.strongest, i)
        )
        for i, scale in enumerate(scales)
    )


class _LinearProbe(nn.Module):
    """A classifier of the sign of the sum of w·x over all pixels, with w of ±1."""

    def __init__(self, like: Tensor, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.w = torch.randint(0, 2, like.shape[1:], generator=generator) * 2.0 - 1.0

    def score(self, x: Tensor) -> Tensor:
        """The sum, [B]."""
        return (x * self.w).sum((1, 2))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Class logits [B, 2]."""
        score = self.score(x)
        return torch.stack([-score, score], dim=-1)

    def least(self, batch: Batch) -> dict[Norm, float]:
        """The least radii that break one image; infinite where none does.

        The best move changes every pixel against the score by the same amount, or by what is left
        to black or white where that is less: in L∞ that amount is the radius, in L2 its norm is
        (Karush, Kuhn and Tucker).
        """
        score = self.score(batch.x)
        against = -self.w * torch.where(score > 0, 1.0, -1.0)
        room = torch.where(against > 0, 1 - batch.x, batch.x) * batch.movable
        low, high = 0.0, 1.0
        if float(room.sum()) <= float(score.abs()):
            return {"linf": float("inf"), "l2": float("inf")}
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            enough = float(room.clamp(max=middle).sum()) > float(score.abs())
            low, high = (low, middle) if enough else (middle, high)
        return {"linf": high, "l2": float(room.clamp(max=high).norm())}


def _positive_control(batches: Sequence[Batch], seed: int) -> Control:
    """Attack the probe, in each norm, at a radius that must break half of the images."""
    probe = _LinearProbe(batches[0].x, seed)
    target = Target(probe, None, 1.0, seed, pixel_ball)
    least = [probe.least(batch) for batch in batches]
    must = wrong = 0
    for norm in RADII:
        radius = float(torch.tensor([each[norm] for each in least]).median()) * BESIDE
        for batch, needed in zip(batches, least, strict=True):
            known = Batch(batch.x, batch.movable, batch.mask, (probe.score(batch.x) > 0).long())
            broken = breaks(target, known, radius, norm, steps=STEPS)[0]
            sure = needed[norm] < radius * SURE
            must += sure
            wrong += (sure and not broken) or (broken and needed[norm] > radius)
    return Control(
        f"a linear classifier: the formula names {must} attacks that must succeed, and those that "
        "cannot",
        float(wrong),
        wrong == 0 and must > 0,
    )


def _null_control(target: Target, batches: Sequence[Batch]) -> Control:
    moved = sum(_changed_by_nothing(target, batch) for batch in batches)
    return Control(
        f"radius 0, at most {UNMOVED} images: no prediction changes", float(moved), moved == 0
    )


def _changed_by_nothing(target: Target, batch: Batch) -> bool:
    with torch.no_grad():
        predicted = target.answer(batch.x, batch.mask).argmax(-1)
    own = Batch(batch.x, batch.movable, batch.mask, predicted)
    return any(breaks(target, own, 0.0, norm)[1] for norm in RADII)


def passes(subject: Subject) -> float:
    """Roughly how many images ``run`` sends through the model."""
    return subject.taken(subject.options.pgd_documents) * FORTH_AND_BACK * USUAL_PASSES


def run(
    subject: Subject, answers: Answers, progress: Progress, figures: Figures
) -> PixelAttackResult:
    """As a measure of an audit."""
    options = subject.options
    return pixel_attacks(
        subject.run.model,
        subject.documents,
        subject.affordable(options.pgd_documents),
        options.seed,
        progress,
    )
