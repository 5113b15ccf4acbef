"""What the answer loses when tokens go: replaced by padding, or hidden by the mask.

Shapes: B batch, T tokens, K classes, P experiments.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attnpriv.explain.gradients import special_tokens
from attnpriv.models.text import TextClassifier

ROWS_AT_ONCE = 64  # variants of a text in one forward pass; bounds memory only


def occlusion(
    model: TextClassifier, ids: Tensor, mask: Tensor, target: Tensor, pad_id: int
) -> Tensor:
    """By how much the target's logit falls without each content token alone.

    Args:
        model: the classifier, in eval mode.
        ids: token ids [B, T].
        mask: True where a token is, [B, T].
        target: class numbers [B].
        pad_id: id of the padding token.

    Returns:
        [B, T]; zero at padding and at the special tokens.
    """
    content = mask & ~special_tokens(mask)
    removed = torch.eye(mask.shape[1], dtype=torch.bool) & content[:, None]
    return removal_effects(model, ids, mask, target, removed, pad_id) * content


def removal_effects(
    model: TextClassifier, ids: Tensor, mask: Tensor, target: Tensor, removed: Tensor, pad_id: int
) -> Tensor:
    """By how much the target's logit falls when token embeddings become those of padding.

    That is the baseline of ``integrated_gradients``, so that its scores sum to the effect of
    removing everything.

    Args:
        model: the classifier, in eval mode.
        ids: token ids [B, T].
        mask: True where a token is, [B, T].
        target: class numbers [B].
        removed: which tokens go in each of P experiments, [B, P, T].
        pad_id: id of the padding token.

    Returns:
        [B, P].
    """
    experiments = removed.shape[1]
    changed = torch.where(removed, pad_id, ids[:, None]).flatten(0, 1)
    masks = mask.repeat_interleave(experiments, dim=0)
    targets = target.repeat_interleave(experiments)[:, None]
    logits = class_logits(model, changed, masks).gather(1, targets)
    whole = class_logits(model, ids, mask).gather(1, target[:, None])
    return whole - logits.reshape(-1, experiments)


def leave_one_out(model: TextClassifier, ids: Tensor, mask: Tensor, target: Tensor) -> Tensor:
    """How far the target's probability falls without each content token alone, [B, T]."""
    width = mask.shape[1]
    masks = mask[:, None] & ~torch.eye(width, dtype=torch.bool)
    drops = probability_drops(model, ids, mask, target, masks)
    return drops.masked_fill(~mask | special_tokens(mask), 0.0)


def probability_drops(
    model: TextClassifier, ids: Tensor, mask: Tensor, target: Tensor, masks: Tensor
) -> Tensor:
    """The fall of the target's probability under each of P masks [B, P, T], [B, P]."""
    variants = masks.shape[1]
    rows = ids.repeat_interleave(variants, dim=0)
    targets = target.repeat_interleave(variants)[:, None]
    changed = class_probabilities(model, rows, masks.flatten(0, 1)).gather(1, targets)
    whole = class_probabilities(model, ids, mask).gather(1, target[:, None])
    return whole - changed.reshape(-1, variants)


def class_probabilities(model: TextClassifier, ids: Tensor, mask: Tensor) -> Tensor:
    """Class probabilities [N, K] of ids [N, T] under a mask [N, T] with holes, a few at a time."""
    return class_logits(model, ids, mask).softmax(-1)


def class_logits(model: TextClassifier, ids: Tensor, mask: Tensor) -> Tensor:
    """Class logits [N, K] of ids [N, T] under a mask [N, T], in forward passes of a few rows."""
    starts = range(0, len(ids), ROWS_AT_ONCE)
    parts = [slice(start, start + ROWS_AT_ONCE) for start in starts]
    return torch.cat([model(ids[part], mask[part]) for part in parts])
