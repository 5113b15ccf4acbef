"""Two readings of attention that know more than one head's weights: rollout, and norms of values.

Rollout follows the residual stream: at each layer half of a token stays, half is mixed by the mean
of the heads, and the layers are multiplied. Norm-weighted attention counts what a weight carries:
a key that is attended to but whose value vector is short adds little.

Both are averaged over the visible queries, as attention is. Shapes: L layers, H heads, T tokens,
Dh head width, D model width.

Not covered: rollout ignores the feed-forward layers, values and norms; norm-weighted attention
ignores the residual, the layer norms and how heads cancel each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from attnpriv.attention import MultiHeadSelfAttention
from attnpriv.audit.documents import Documents
from attnpriv.audit.figures import Figures, figure
from attnpriv.audit.matched import TokenLift, TokenLiftAccumulator, token_lengths
from attnpriv.audit.subject import Pass, Progress, Subject
from attnpriv.audit.tally import Tally
from attnpriv.models.text import TextClassifier


@dataclass(frozen=True)
class FlowResult:
    """Attention rollout and norm-weighted attention; see ``attnpriv.audit.rollout``.

    ``layers`` and ``heads`` are those of norm-weighted attention, ``norm_weighted`` their mean.
    """

    rollout: TokenLift
    norm_weighted: TokenLift
    layers: tuple[TokenLift, ...]
    heads: tuple[TokenLift, ...]


def rollout(weights: Tensor) -> Tensor:
    """How much of each input token reaches each token after the last layer.

    Args:
        weights: one document's, [L, H, T, T], first layer first.

    Returns:
        [T, T]: ``A_L ... A_1`` with ``A = W/2 + I/2``, W the mean of a layer's heads; rows sum to 1
        where those of the weights do.

    Source: Abnar and Zuidema 2020 (arXiv:2005.00928), equation 1 and section 3.
    """
    identity = torch.eye(weights.shape[-1], dtype=weights.dtype)
    flow = identity
    for layer in weights.mean(1):
        flow = (0.5 * layer + 0.5 * identity) @ flow
    return flow


def rollout_received(model: TextClassifier, ids: Tensor, mask: Tensor, target: Tensor) -> Tensor:
    """How much of each token reaches the last layer, mean over the visible queries, [B, T].

    Args:
        model: the classifier, in eval mode.
        ids: token ids [B, T].
        mask: True where a token is, [B, T].
        target: not used; it makes this a scorer of ``attnpriv.audit.faithfulness``.
    """
    weights = torch.stack(model.forward_with_weights(ids, mask)[1], dim=1)
    queries = mask / mask.sum(1, keepdim=True)
    reached = [row @ rollout(own) for row, own in zip(queries, weights, strict=True)]
    return torch.stack(reached) * mask


def value_norms(values: Tensor, output: Tensor) -> Tensor:
    """The lengths of the vectors that keys send, per unit of weight: ``‖f(x)‖``.

    Args:
        values: value vectors [..., H, T, Dh], their bias included.
        output: weight of the projection after the heads, [D, H·Dh].

    Returns:
        [..., H, T]; times a weight it is that head's ``‖α f(x)‖``.

    Source: Kobayashi et al. 2020 (arXiv:2004.10102), section 3.
    """
    return _norms(values, _gram(output, values.shape[-3]))


def _gram(output: Tensor, heads: int) -> Tensor:
    """``WᵀW`` of each head's part W of the projection, [H, Dh, Dh].

    ``‖W v‖² = v·(WᵀW)v`` needs no more; W v itself would be H times the output.
    """
    own = output.view(len(output), heads, -1).transpose(0, 1)  # [H, D, Dh]
    return own.transpose(1, 2) @ own


def _norms(values: Tensor, gram: Tensor) -> Tensor:
    return ((values @ gram) * values).sum(-1).clamp(min=0).sqrt()


@contextmanager
def recorded_value_norms(model: TextClassifier) -> Iterator[list[Tensor]]:
    """Collect ``value_norms`` of every layer, L times [B, H, T], while the model runs.

    The caller empties the list between forward passes.
    """
    norms: list[Tensor] = []

    def record(gram: Tensor, _: nn.Module, arguments: tuple[Any, ...]) -> None:
        norms.append(_norms(arguments[2], gram))

    handles = [
        module.core.register_forward_pre_hook(
            partial(record, _gram(module.output.weight, module.core.heads))
        )
        for module in model.modules()
        if isinstance(module, MultiHeadSelfAttention)
    ]
    try:
        yield norms
    finally:
        for handle in handles:
            handle.remove()


class FlowAccumulator(Tally):
    """The lifts of rollout and of norm-weighted attention, one document after the other."""

    def __init__(
        self, documents: Documents, shape: tuple[int, int], permutations: int, seed: int
    ) -> None:
        self.documents, self.shape = documents, shape
        self.rollout, self.norm_weighted = (
            TokenLiftAccumulator(len(documents), series, permutations, seed)
            for series in (1, shape[0] * shape[1])
        )

    def add(self, document: int, weights: Tensor, received: Tensor, norms: Tensor) -> None:
        """Take in a document's weights [L, H, T, T], their mean over queries and value norms."""
        content = self.documents.content(document)
        flags = self.documents.sensitive[document][content]
        lengths = token_lengths(self.documents, document)
        reached = rollout(weights.mean(1, keepdim=True).double()).mean(0, keepdim=True)
        carried = (received * norms).flatten(0, 1)
        self.rollout.add(document, reached[:, content].numpy(), flags, lengths)
        self.norm_weighted.add(document, carried[:, content].numpy(), flags, lengths)

    def result(self, resamples: int) -> FlowResult:
        """The lifts of both, norm-weighted attention also by layer and by head."""
        layers, heads = self.shape
        return FlowResult(
            rollout=self.rollout.lifts(["rollout"], resamples)[0],
            norm_weighted=self.norm_weighted.lifts(["norm-weighted attention"], resamples)[0],
            layers=self.norm_weighted.lifts(layer_names(layers), resamples),
            heads=self.norm_weighted.lifts(head_names(layers, heads), resamples),
        )


def layer_names(layers: int) -> Sequence[str]:
    """``layer 1`` and so on."""
    return [f"layer {layer + 1}" for layer in range(layers)]


def head_names(layers: int, heads: int) -> Sequence[str]:
    """``layer 1 head 1`` and so on, the heads of a layer together."""
    return [f"{layer} head {head + 1}" for layer in layer_names(layers) for head in range(heads)]


def run(subject: Subject, passed: Pass, progress: Progress, figures: Figures) -> FlowResult:
    """As a measure of an audit."""
    flow, documents = passed.attention.flow, range(len(subject.documents))
    figures |= {
        f"flow.{name}.permuted.lift": figure(
            documents, lift.permuted.mean_shares(), lift.permuted.uniform
        )
        for name, lift in (("rollout", flow.rollout), ("norm_weighted", flow.norm_weighted))
    }
    return flow.result(subject.options.resamples)
