"""What an attacker measures on a record's explanations: its attention maps and attributions.

Shapes: L layers, H heads, T positions.

Source: Zaree et al. 2026 (AttenMIA, arXiv:2601.18110) for maps: concentration, consistency between
neighbouring layers, and the shift under a perturbed input. Shokri, Strobel and Zick 2021
(arXiv:1907.00164) for attributions: members have other variances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attnpriv.audit.documents import Documents
from attnpriv.audit.statistics import Floats
from attnpriv.explain.gradients import POINTS, integrated_gradients
from attnpriv.modality import AttentionModel

TINY = float(torch.finfo(torch.float32).tiny)
STEP = 4  # every so manieth position of the record is blanked in the perturbed copy
TO_ITSELF = 0.1  # of each position's attention, in the leak that the positive control plants
TO_THE_FIRST = 0.25  # of the size of all attributions, likewise


@dataclass(frozen=True)
class Explanation:
    """What an attacker sees of one record.

    Attributes:
        weights: attention of the record, [L, H, T, T].
        perturbed: the same after every fourth position was blanked, [L, H, T, T].
        scores: integrated gradients of the predicted class, [T].
        content: which positions have a place in the record, [T].
    """

    weights: Tensor
    perturbed: Tensor
    scores: Tensor
    content: Tensor

    def leaky(self) -> Explanation:
        """The same with a leak planted: attention turned to itself, scores heaped on one place."""
        itself = torch.eye(self.weights.shape[-1])
        weights, perturbed = (
            (1 - TO_ITSELF) * each + TO_ITSELF * itself for each in (self.weights, self.perturbed)
        )
        heap = self.scores.abs().sum() * (self.content & (self.content.cumsum(0) == 1))
        scores = (1 - TO_THE_FIRST) * self.scores + TO_THE_FIRST * heap
        return Explanation(weights, perturbed, scores, self.content)


def explain(model: AttentionModel, documents: Documents, document: int, target: int) -> Explanation:
    """Explain one record's class as a server does, and its attention once more, perturbed.

    Attributions are integrated gradients by four points, which are not refined: an attacker needs
    no exact sums, and every record of both groups costs the same.
    """
    example = documents.embedded(model, document)
    content = example.content[0]
    blanked = content & (content.cumsum(0) % STEP == 0)
    pair = example.without(torch.tensor([0, 0]), torch.stack([blanked & False, blanked]))
    with torch.inference_mode():
        seen = model.run(pair, example.mask.expand(2, -1), need_maps=True).self_attention()
    found = integrated_gradients(model, example, torch.tensor([target]), POINTS, most=POINTS)
    weights, perturbed = torch.stack(seen, 1).double()
    return Explanation(weights, perturbed, found.scores[0].double(), content)


def map_features(seen: Explanation) -> Floats:
    """What the attention maps of a record look like, head by head; [F], the same F for every T.

    Of each head: entropy over its largest value, largest weight, attention of a position on itself
    and on what the model added, means over queries; the shift under perturbation. Of each head and
    that of the next layer: divergence, correlation, distance and how far the centre moves.
    """
    weights, length = seen.weights, seen.weights.shape[-1]
    entropy = -(weights * _log(weights)).sum(-1).mean(-1) / np.log(length)
    own = [
        entropy,
        weights.amax(-1).mean(-1),
        weights.diagonal(dim1=-2, dim2=-1).mean(-1),
        weights[..., ~seen.content].sum(-1).mean(-1),
        _divergence(weights, seen.perturbed).log1p(),
    ]
    here, above = weights[:-1], weights[1:]
    places = torch.arange(length, dtype=weights.dtype) / length
    between = [
        _divergence(here, above).log1p(),
        _correlation(here.flatten(2), above.flatten(2)),
        (here - above).square().sum((-2, -1)).sqrt() / length,
        ((here - above) @ places).abs().mean(-1),
    ]
    return np.asarray(torch.cat([each.flatten() for each in (*own, *between)]).numpy())


def attribution_features(seen: Explanation) -> Floats:
    """What the attributions of a record look like: size, variance and concentration; [8]."""
    scores = seen.scores[seen.content]
    size = scores.abs()
    total = size.sum().clamp(min=TINY)
    shares, count = size / total, max(len(size), 1)
    largest = torch.cat([shares.sort(descending=True).values, shares.new_zeros(3)])
    features = [
        total.log1p(),
        scores.sum(),
        (scores - scores.mean()).square().mean().sqrt().log1p(),
        -(shares * _log(shares)).sum() / np.log(max(count, 2)),
        largest[0],
        largest[:3].sum(),
        (scores.clamp(max=0).sum() / total),
        shares @ (torch.arange(len(shares), dtype=shares.dtype) / count),
    ]
    return np.asarray(torch.stack(features).numpy())


def map_places(seen: Explanation) -> Floats:
    """What the attention maps say of each place of a record, head by head; [T, F].

    Attention that it gets, over its equal share and as a logarithm; entropy of what it pays; what
    it pays to itself, to the first position, and to all that the model added.
    """
    weights, length = seen.weights.flatten(0, 1), seen.weights.shape[-1]
    features = [
        _log(weights.mean(1) * length),
        -(weights * _log(weights)).sum(-1) / np.log(length),
        weights.diagonal(dim1=-2, dim2=-1) * length,
        weights[..., 0] * length,
        weights[..., ~seen.content].sum(-1),
    ]
    return np.asarray(torch.cat(features).T[seen.content].numpy())


def attribution_places(seen: Explanation) -> Floats:
    """What the attributions say of each place of a record: score, share, rank and total; [T, 4]."""
    scores = seen.scores[seen.content]
    size = scores.abs()
    total, rank = size.sum(), size.argsort().argsort() / len(size)
    columns = [scores, size / total.clamp(min=TINY), rank.double(), total.expand(len(size))]
    return np.asarray(torch.stack(columns, 1).numpy())


def _log(weights: Tensor) -> Tensor:
    return weights.clamp(min=TINY).log()


def _divergence(ours: Tensor, theirs: Tensor) -> Tensor:
    """Kullback and Leibler's, of each row of [..., T, T] from that of another map; mean of rows."""
    return (ours * (_log(ours) - _log(theirs))).sum(-1).mean(-1).clamp(min=0)


def _correlation(ours: Tensor, theirs: Tensor) -> Tensor:
    """Pearson's over the last axis; 0 where one side is constant."""
    ours, theirs = (each - each.mean(-1, keepdim=True) for each in (ours, theirs))
    scale = (ours.square().sum(-1) * theirs.square().sum(-1)).sqrt()
    return (ours * theirs).sum(-1) / scale.clamp(min=TINY)
