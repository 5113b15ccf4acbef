"""The lifts of attention rollout and of norm-weighted attention (``attnpriv.explain.attention``).

Both are averaged over the visible queries, as attention is. Shapes: L layers, H heads, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import Tensor

from attnpriv.audit.documents import Documents
from attnpriv.audit.figures import Figures, figure
from attnpriv.audit.lift import group_means
from attnpriv.audit.matched import TokenLift, TokenLiftAccumulator, token_lengths
from attnpriv.audit.subject import Pass, Progress, Subject
from attnpriv.audit.tally import Tally
from attnpriv.explain.attention import rollout


@dataclass(frozen=True)
class FlowResult:
    """Attention rollout and norm-weighted attention; see ``attnpriv.audit.rollout``.

    ``layers`` and ``heads`` are those of norm-weighted attention, ``norm_weighted`` their mean.
    """

    rollout: TokenLift
    norm_weighted: TokenLift
    layers: tuple[TokenLift, ...]
    heads: tuple[TokenLift, ...]


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
        of_content = partial(self.documents.of_content, document)
        flags = of_content(self.documents.sensitive[document])
        lengths = token_lengths(self.documents, document)
        reached = rollout(weights.mean(1, keepdim=True).double()).mean(0, keepdim=True)
        carried = (received * norms).flatten(0, 1)
        self.rollout.add(document, of_content(reached.numpy()), flags, lengths)
        self.norm_weighted.add(document, of_content(carried.numpy()), flags, lengths)

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
    for name, lift in (("rollout", flow.rollout), ("norm_weighted", flow.norm_weighted)):
        shares, uniform = lift.permuted.mean_shares(), lift.permuted.uniform
        figures[f"flow.{name}.permuted.lift"] = figure(documents, shares, uniform)
        pairs = (np.asarray(group_means(each, 1)[:, 0]) for each in (lift.paired, lift.partners))
        figures[f"flow.{name}.matched.lift"] = figure(documents, *pairs)
    return flow.result(subject.options.resamples)
