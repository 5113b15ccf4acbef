"""Where attention goes: mass on sensitive keys, lift, entropy, and the certified bounds.

Shapes: B batch, L layers, H heads, T tokens.

Two lifts are reported, since they answer different questions.

* ``content``: special tokens are left out of the keys, numerator and denominator alike, for they
  soak up attention whatever the text says. Its permutation null is centred on 1. Queries are all
  visible tokens, special ones included: their rows reach the answer too.
* ``row_lift``: the mass on sensitive keys over k/n of the whole row, special keys counted. Only
  this one is bounded by ``guarantees.mass_bound`` and ``lift_bound``.

Attention alone explains nothing (Jain and Wallace 2019; Wiegreffe and Pinter 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from attnpriv import guarantees
from attnpriv.audit.documents import Documents
from attnpriv.audit.lift import LiftAccumulator, controls
from attnpriv.audit.results import AttentionResult, Certificate, Head, Lift
from attnpriv.audit.statistics import Floats
from attnpriv.config import AttentionConfig
from attnpriv.models.text import TextClassifier

ROUNDING = 1e-5  # relative error of float32 sums that a measured value may show over its bound


def attention_received(weights: Sequence[Tensor], mask: Tensor) -> Tensor:
    """The mass that each key gets, averaged over the visible queries.

    Args:
        weights: of L layers, each [B, H, T, T].
        mask: True where a token is, [B, T].

    Returns:
        [B, L, H, T]; each row sums to 1 over T, padding gets 0.
    """
    queries = mask / mask.sum(1, keepdim=True).clamp(min=1)
    return torch.stack(
        [torch.einsum("bhqk,bq->bhk", layer, queries.to(layer.dtype)) for layer in weights], dim=1
    )


class AttentionAccumulator:
    """One pass over the documents; of each it keeps a few numbers a head, never the weights."""

    def __init__(self, documents: Documents, shape: tuple[int, int], permutations: int, seed: int):
        self.documents = documents
        self.shape = shape
        self.series = shape[0] * shape[1]
        n = len(documents)
        self.content = LiftAccumulator(n, self.series, permutations, seed)
        self.mass, self.row_mass, self.special, self.entropy, self.largest = (
            np.zeros((n, self.series)) for _ in range(5)
        )

    def add(self, batch: Sequence[int], weights: Sequence[Tensor], mask: Tensor) -> None:
        """Take in the weights, L times [B, H, T, T], of a batch of documents."""
        sensitive = torch.zeros(mask.shape, dtype=weights[0].dtype)
        for row, document in enumerate(batch):
            flags = self.documents.sensitive[document]
            sensitive[row, : len(flags)] = torch.from_numpy(flags)
        rows = [_row_statistics(layer, mask, sensitive) for layer in weights]
        received = attention_received(weights, mask).flatten(1, 2).double().numpy()
        index = list(batch)
        self.row_mass[index], self.entropy[index], self.largest[index] = (
            torch.cat([layer[kind] for layer in rows], dim=1).double().numpy() for kind in range(3)
        )
        for row, document in enumerate(batch):
            self._add_document(document, received[row])

    def _add_document(self, document: int, received: Floats) -> None:
        flags, content = self.documents.sensitive[document], self.documents.content(document)
        scores = received[:, : len(flags)]
        self.mass[document] = scores[:, flags].sum(1)
        self.special[document] = scores[:, 0] + scores[:, len(flags) - 1]
        self.content.add(document, scores[:, content], flags[content])

    def result(self, config: AttentionConfig, resamples: int, seed: int) -> AttentionResult:
        """Everything about these documents."""
        flags = [
            f[self.documents.content(d)] for d, f in enumerate(self.documents.sensitive) if f.any()
        ]
        permutations = len(self.content.null)
        planted, null = controls(flags, permutations, resamples, seed)
        return AttentionResult(
            documents=len(self.documents),
            documents_with_sensitive=len(flags),
            sensitive_tokens=int(sum(f.sum() for f in flags)),
            content_tokens=sum(len(e.ids) - 2 for e in self.documents.encodings),
            overall=self.content.overall(resamples),
            heads=self._heads(self.content.lifts(resamples)),
            certificate=self._certificate(config),
            planted=planted,
            null=null,
            permutations=permutations,
            resamples=resamples,
            seed=seed,
        )

    def _heads(self, lifts: Sequence[Lift]) -> tuple[Head, ...]:
        uniform = sum(self._uniform_shares())
        return tuple(
            Head(
                layer=s // self.shape[1],
                head=s % self.shape[1],
                content=lifts[s],
                row_lift=float(self.mass[:, s].sum() / uniform) if uniform else None,
                special_mass=float(self.special[:, s].mean()),
                normalised_entropy=float(self.entropy[:, s].mean()),
                largest_weight=float(self.largest[:, s].max()),
            )
            for s in range(self.series)
        )

    def _uniform_shares(self) -> list[float]:
        """k/n of each document, n counting the special tokens."""
        return [float(flags.mean()) for flags in self.documents.sensitive]

    def _certificate(self, config: AttentionConfig) -> Certificate:
        c, tau = config.logit_bound, config.smallest_temperature
        weight, mass = np.transpose(
            [
                (
                    guarantees.weight_bounds(c, tau, len(flags))[1],
                    guarantees.mass_bound(c, tau, len(flags), int(flags.sum())),
                )
                for flags in self.documents.sensitive
            ]
        )
        top = int(self.largest.max(1).argmax())
        largest = float(self.largest[top].max())
        if config.clip is None:
            return Certificate(None, tau, largest, None, None, None, None, None)
        some = mass > 0
        weight_ratio = float((self.largest.max(1) / weight).max())
        mass_ratio = float((self.row_mass.max(1)[some] / mass[some]).max()) if some.any() else 0.0
        return Certificate(
            logit_bound=c,
            temperature=tau,
            largest_weight=largest,
            largest_weight_bound=float(weight[top]),
            weight_ratio=weight_ratio,
            mass_ratio=mass_ratio,
            row_lift_bound=float(mass.sum() / sum(self._uniform_shares())) if some.any() else None,
            holds=max(weight_ratio, mass_ratio) <= 1 + ROUNDING,
        )


def _row_statistics(weights: Tensor, mask: Tensor, sensitive: Tensor) -> tuple[Tensor, ...]:
    """Of one layer's weights [B, H, T, T], three tensors [B, H] over the visible queries.

    The largest mass of a row on sensitive keys, the mean entropy over ln n, the largest weight.
    """
    visible = mask[:, None, :].to(weights.dtype)
    on_sensitive = torch.einsum("bhqk,bk->bhq", weights, sensitive) * visible
    n = mask.sum(1)[:, None]
    entropy = (torch.special.entr(weights).sum(-1) * visible).sum(-1) / n
    largest = weights.amax(-1) * visible
    return on_sensitive.amax(-1), entropy / n.clamp(min=2).log(), largest.amax(-1)


@torch.inference_mode()
def measure_attention(
    model: TextClassifier,
    documents: Documents,
    permutations: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> AttentionAccumulator:
    """Run the model once over all documents and collect its attention.

    Memory grows with documents times heads, not with the square of their length.
    """
    shape = (model.config.layers, model.config.heads)
    statistics = AttentionAccumulator(documents, shape, permutations, seed)
    done = 0
    for batch, ids, mask in documents.batches(range(len(documents))):
        statistics.add(batch, model.forward_with_weights(ids, mask)[1], mask)
        done += len(batch)
        if progress:
            progress(done, len(documents))
    return statistics
