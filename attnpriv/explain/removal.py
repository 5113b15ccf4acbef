"""What the answer loses when positions go: replaced by the baseline, or hidden by the mask.

Shapes: B batch, T positions, K classes, P experiments, N variants of the examples.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnpriv.modality import AttentionModel, Embedded
from attnpriv.tasks import CLASSIFY

ROWS_AT_ONCE = 64  # variants in one forward pass; bounds memory only


def occlusion(
    model: AttentionModel, example: Embedded, target: Int[Tensor, " B"]
) -> Float[Tensor, "B T"]:
    """By how much the target's logit falls without each content position alone.

    Args:
        model: in eval mode.
        example: B embedded examples.
        target: class numbers [B].

    Returns:
        [B, T]; zero at padding and at what the model added.
    """
    width = example.mask.shape[1]
    removed = torch.eye(width, dtype=torch.bool) & example.content[:, None]
    return removal_effects(model, example, target, removed) * example.content


def removal_effects(
    model: AttentionModel,
    example: Embedded,
    target: Int[Tensor, " B"],
    removed: Bool[Tensor, "B P T"],
) -> Float[Tensor, "B P"]:
    """By how much the target's logit falls when embeddings become those of the baseline.

    It is the baseline of ``integrated_gradients``, so that its scores sum to the effect of removing
    everything.

    Args:
        model: in eval mode.
        example: B embedded examples.
        target: class numbers [B].
        removed: which positions go in each of P experiments, [B, P, T].

    Returns:
        [B, P].
    """
    logits = torch.cat(
        [
            model.run(example.without(rows, gone), example.mask[rows]).outputs
            for rows, gone in _parts(removed)
        ]
    )
    whole = model.run(example.x, example.mask).outputs
    return _falls(whole, logits, target, removed.shape[1])


def leave_one_out(
    model: AttentionModel, example: Embedded, target: Int[Tensor, " B"]
) -> Float[Tensor, "B T"]:
    """How far the target's probability falls without each content position alone, [B, T]."""
    width = example.mask.shape[1]
    masks = example.mask[:, None] & ~torch.eye(width, dtype=torch.bool)
    drops = probability_drops(model, example, target, masks)
    return drops.masked_fill(~example.content, 0.0)


def probability_drops(
    model: AttentionModel,
    example: Embedded,
    target: Int[Tensor, " B"],
    masks: Bool[Tensor, "B P T"],
) -> Float[Tensor, "B P"]:
    """The fall of the target's probability under each of P masks [B, P, T], [B, P]."""
    logits = torch.cat([model.run(example.x[rows], mask).outputs for rows, mask in _parts(masks)])
    whole = model.run(example.x, example.mask).outputs
    return _falls(CLASSIFY.answer(whole), CLASSIFY.answer(logits), target, masks.shape[1])


def _parts(variants: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Variants [B, P, T] a few at a time: of which example each is, [N], and itself, [N, T]."""
    examples, count = variants.shape[:2]
    rows = torch.arange(examples).repeat_interleave(count)
    return zip(
        torch.split(rows, ROWS_AT_ONCE),
        torch.split(variants.flatten(0, 1), ROWS_AT_ONCE),
        strict=True,
    )


def _falls(whole: Tensor, changed: Tensor, target: Tensor, count: int) -> Tensor:
    """Of the target's value [B, K] less that of each of its ``count`` variants, [B, count]."""
    own = changed.gather(1, target.repeat_interleave(count)[:, None])
    return whole.gather(1, target[:, None]) - own.reshape(-1, count)
