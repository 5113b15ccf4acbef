"""Objects in images: how wrong detections are, which are right, and how good a detector is.

Shapes: B images, Q queries, K classes, M objects of the image that has most. Outputs are
[B, Q, K + 5]: logits of the classes and of no object, then a box. Targets are [B, M, 5]: a class,
or -1 where an image has fewer objects, then a box. Boxes are centre x, centre y, width and height,
as shares of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

OF_BOX = 4
L1, GIOU = 5.0, 2.0  # weights of the losses of boxes, as in DETR
NO_OBJECT = 0.1  # weight of a query without an object, likewise
OVERLAP = 0.5  # intersection over union from which on a detection is one of an object
CONFIDENT = 0.5  # probability from which on a detection counts for ``correct``


class Detection:
    """A set of objects for each image, matched one to one (Carion et al. 2020, arXiv:2005.12872).

    Claim: the loss of an image depends on its own outputs and objects alone. DETR divides the
    losses of boxes by the number of objects in the batch, which would let neighbours change a
    clipped gradient; here they are divided by the image's own.
    """

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of all queries, L1 and generalised IoU of the matched boxes, [B]."""
        logits, boxes = outputs[..., :-OF_BOX], outputs[..., -OF_BOX:]
        classes, true = targets[..., 0].long(), targets[..., 1:]
        real = classes >= 0
        queries = match(outputs.detach(), targets)
        wanted = torch.full(outputs.shape[:2], logits.shape[-1] - 1)
        rows, numbers = real.nonzero(as_tuple=True)
        wanted[rows, queries[rows, numbers]] = classes[rows, numbers]
        weights = torch.where(wanted < logits.shape[-1] - 1, 1.0, NO_OBJECT)
        wrong = F.cross_entropy(logits.transpose(1, 2), wanted, reduction="none") * weights
        found = boxes.gather(1, queries[..., None].expand(-1, -1, OF_BOX))
        far = L1 * (found - true).abs().sum(-1) + GIOU * (1 - pair_giou(found, true))
        of_boxes = torch.where(real, far, 0.0).sum(1) / real.sum(1).clamp(min=1)
        return wrong.sum(1) / weights.sum(1) + of_boxes

    def correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Whether an image's confident detections are its objects, none missing or added, [B]."""
        right = [_is_complete(own, target) for own, target in zip(outputs, targets, strict=True)]
        return torch.tensor(right, dtype=torch.bool)

    def answer(self, outputs: Tensor) -> Tensor:
        """Probabilities of the classes and of none, then boxes, [B, Q, K + 5]."""
        return torch.cat([outputs[..., :-OF_BOX].softmax(-1), outputs[..., -OF_BOX:]], -1)


DETECT = Detection()


def match(outputs: Tensor, targets: Tensor) -> Tensor:
    """The query of each object in the cheapest assignment of its image, [B, M]; 0 for no object."""
    classes = targets[..., 0].long()
    count, objects = outputs.shape[1], targets.shape[1]
    wanted = classes.clamp(min=0)[:, None].expand(-1, count, -1)
    chances = outputs[..., :-OF_BOX].softmax(-1).gather(2, wanted)
    boxes = outputs[:, :, None, -OF_BOX:].expand(-1, -1, objects, -1)
    true = targets[:, None, :, 1:].expand(-1, count, -1, -1)
    costs = L1 * (boxes - true).abs().sum(-1) - GIOU * pair_giou(boxes, true) - chances
    # Whatever is not finite costs most, so that a failed training ends in a bad model, not here.
    plain = torch.nan_to_num(costs, 1e9, 1e9, 1e9).numpy()
    queries = torch.zeros(targets.shape[:2], dtype=torch.long)
    for row, cost in enumerate(plain):
        (own,) = (classes[row] >= 0).nonzero(as_tuple=True)
        chosen, numbers = linear_sum_assignment(cost[:, own.numpy()])
        queries[row, own[numbers]] = torch.from_numpy(chosen)
    return queries


def _corners(boxes: Tensor) -> Tensor:
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], -1)


def _overlaps(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Intersection, union and hull of boxes, pair by pair."""
    a, b = _corners(one), _corners(other)
    shared = (torch.minimum(a, b)[..., 2:] - torch.maximum(a, b)[..., :2]).clamp(min=0).prod(-1)
    union = one[..., 2:].prod(-1) + other[..., 2:].prod(-1) - shared
    hull = (torch.maximum(a, b)[..., 2:] - torch.minimum(a, b)[..., :2]).prod(-1)
    return shared, union.clamp(min=1e-9), hull.clamp(min=1e-9)


def pair_iou(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of boxes [..., 4], pair by pair."""
    shared, union, _ = _overlaps(one, other)
    return shared / union


def pair_giou(one: Tensor, other: Tensor) -> Tensor:
    """The generalised one, which also tells boxes that do not touch (Rezatofighi et al. 2019)."""
    shared, union, hull = _overlaps(one, other)
    return shared / union - (hull - union) / hull


def _is_complete(output: Tensor, target: Tensor) -> bool:
    answer = DETECT.answer(output[None])[0]
    chances, classes = answer[:, : -OF_BOX - 1].max(-1)
    sure = chances >= CONFIDENT
    objects = target[target[:, 0] >= 0]
    if not bool(output.isfinite().all()) or int(sure.sum()) != len(objects):
        return False
    if not len(objects):
        return True
    boxes, found = answer[sure][:, None, -OF_BOX:], classes[sure][:, None]
    fits = pair_iou(boxes, objects[None, :, 1:]) >= OVERLAP
    fits &= found == objects[None, :, 0].long()
    rows, columns = linear_sum_assignment(fits.numpy(), maximize=True)
    return bool(fits[rows, columns].all())


@dataclass(frozen=True)
class Precision:
    """How good detections are.

    Attributes:
        images: how many there are.
        objects: of each class.
        classes: average precision of each class; None of one without objects.
        mean: over the classes that have objects; None where none has.
    """

    images: int
    objects: tuple[int, ...]
    classes: tuple[float | None, ...]
    mean: float | None


def average_precision(answers: Sequence[Tensor], targets: Sequence[Tensor]) -> Precision:
    """The mean average precision at an overlap of 0.5, mAP@50.

    Each query stands for its likeliest class. Of a class, detections in the order of their
    probabilities take the object that they overlap most, if it is free and the overlap is at least
    0.5; others are wrong. The average precision is the area under the curve of precision and
    recall, the precision at each recall being the largest at that recall or beyond (Everingham et
    al. 2010, without sampling).

    Args:
        answers: of ``Detection.answer``, [Q, K + 5] for each image.
        targets: [M, 5] for each image.
    """
    classes = answers[0].shape[-1] - OF_BOX - 1
    objects, each = [], []
    for number in range(classes):
        count = sum(int((target[:, 0] == number).sum()) for target in targets)
        objects.append(count)
        each.append(_of_class(number, answers, targets, count) if count else None)
    known = [value for value in each if value is not None]
    mean = float(np.mean(known)) if known else None
    return Precision(len(answers), tuple(objects), tuple(each), mean)


def _of_class(
    number: int, answers: Sequence[Tensor], targets: Sequence[Tensor], count: int
) -> float:
    found: list[tuple[float, bool]] = []
    for answer, target in zip(answers, targets, strict=True):
        chances, likeliest = answer[:, : -OF_BOX - 1].max(-1)
        own = likeliest == number
        found += _hits(chances[own], answer[own, -OF_BOX:], target[target[:, 0] == number, 1:])
    found.sort(key=lambda each: -each[0])
    return _area(np.array([hit for _, hit in found], dtype=np.bool_), count)


def _hits(chances: Tensor, boxes: Tensor, objects: Tensor) -> list[tuple[float, bool]]:
    """The detections of one class in one image, and whether each is of an object of its own."""
    free, hits = [True] * len(objects), []
    for at in chances.argsort(descending=True, stable=True).tolist():
        hit = False
        if len(objects):
            overlap = pair_iou(boxes[at].expand(len(objects), -1), objects)
            best = int(overlap.argmax())
            hit = free[best] and float(overlap[best]) >= OVERLAP
            free[best] = free[best] and not hit
        hits.append((float(chances[at]), hit))
    return hits


def _area(hits: NDArray[np.bool_], count: int) -> float:
    if not len(hits):
        return 0.0
    right = np.cumsum(hits)
    precision = right / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((best * hits).sum() / count)
