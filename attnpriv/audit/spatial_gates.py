"""Where spatial gates look: their lift on sensitive positions, and the certified bound beside it.

A spatial gate weighs one position of a layer's feature maps, as in CBAM
(``attnpriv.attention.gates``). The share of a position is its gate over the sum of all gates of the
layer, so that the lift is attention's, against the same two nulls.

Not covered: what the gates multiply. A gate says nothing about an answer by itself, and a position
of a deep layer sees its neighbours, so that a gate beside a sensitive region may let it through.

Shapes: L layers, T positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from attnpriv import guarantees
from attnpriv.audit.documents import Documents
from attnpriv.audit.figures import Figures
from attnpriv.audit.lift import LiftControls
from attnpriv.audit.matched import MatchedControls, TokenLift, TokenLiftAccumulator, token_lengths
from attnpriv.audit.rollout import layer_names
from attnpriv.audit.statistics import Floats
from attnpriv.audit.subject import Pass, Progress, Subject
from attnpriv.audit.tally import Tally
from attnpriv.config import AttentionConfig
from attnpriv.estimates import Control

ROUNDING = 1e-5  # relative error of float32 that a measured value may show over its bound


@dataclass(frozen=True)
class GateBounds:
    """The proved bounds beside what was measured, worst over documents and layers.

    Attributes:
        logit_bound: c, or None when the logits are not clipped and nothing is certified.
        temperature: τ.
        largest_gate: the largest gate measured anywhere.
        largest_gate_bound: no gate can be larger.
        share_ratio: the largest share of the sensitive positions over its bound, by document.
        lift_bound: no layer's lift over the average position can be larger on these documents.
        holds: whether no bound is exceeded by more than float32 rounding; None without a clip.
    """

    logit_bound: float | None
    temperature: float
    largest_gate: float
    largest_gate_bound: float | None
    share_ratio: float | None
    lift_bound: float | None
    holds: bool | None


@dataclass(frozen=True)
class SpatialGatesResult:
    """The gates of positions, over all layers and for each; see ``attnpriv.audit.spatial_gates``.

    p-values of ``layers`` are corrected together.
    """

    documents: int
    overall: TokenLift
    layers: tuple[TokenLift, ...]
    certificate: GateBounds
    planted: Control
    null: Control
    matched_planted: Control
    matched_null: Control
    permutations: int
    resamples: int
    seed: int


class GateAccumulator(Tally):
    """The lifts of spatial gates, one document after the other."""

    def __init__(self, documents: Documents, layers: int, permutations: int, seed: int) -> None:
        n = len(documents)
        self.documents = documents
        self.layers = TokenLiftAccumulator(n, layers, permutations, seed)
        self.controls = LiftControls(n, permutations, seed)
        self.matched_controls = MatchedControls(n, permutations, seed)
        self.largest: Floats = np.zeros((n, layers))

    def add(self, document: int, gates: Tensor) -> None:
        """Take in a document's gates [L, T]."""
        scores = gates.double().numpy()
        self.largest[document] = scores.max(1)
        scores = self.documents.of_content(document, scores)
        flags = self.documents.of_content(document, self.documents.sensitive[document])
        lengths = token_lengths(self.documents, document)
        self.layers.add(document, scores, flags, lengths)
        self.controls.add(document, flags)
        self.matched_controls.add(document, flags, lengths)

    def result(self, config: AttentionConfig, resamples: int, seed: int) -> SpatialGatesResult:
        """Everything about these documents."""
        shares = self.layers.permuted.shares
        planted, null = self.controls.result(resamples)
        matched_planted, matched_null = self.matched_controls.result(resamples)
        return SpatialGatesResult(
            documents=len(self.documents),
            overall=self.layers.lifts(["overall"], resamples)[0],
            layers=self.layers.lifts(layer_names(shares.shape[1]), resamples),
            certificate=self._bounds(config),
            planted=planted,
            null=null,
            matched_planted=matched_planted,
            matched_null=matched_null,
            permutations=len(self.layers.permuted.null),
            resamples=resamples,
            seed=seed,
        )

    def _bounds(self, config: AttentionConfig) -> GateBounds:
        c, tau = config.clip, config.temperature
        largest = float(self.largest.max())
        if c is None:
            return GateBounds(None, tau, largest, None, None, None, None)
        top = guarantees.gate_bounds(c, tau)[1]
        uniform = self.layers.permuted.uniform
        bounds = np.array([self._share_bound(d, c, tau) for d in range(len(self.documents))])
        some = uniform > 0
        shares = self.layers.permuted.shares.max(1)
        ratio = float((shares[some] / bounds[some]).max()) if some.any() else None
        return GateBounds(
            logit_bound=c,
            temperature=tau,
            largest_gate=largest,
            largest_gate_bound=top,
            share_ratio=ratio,
            lift_bound=float(bounds.sum() / uniform.sum()) if some.any() else None,
            holds=max(largest / top, ratio or 0.0) <= 1 + ROUNDING,
        )

    def _share_bound(self, document: int, c: float, tau: float) -> float:
        """The most of all gates that a document's k sensitive positions of n can get."""
        flags = self.documents.of_content(document, self.documents.sensitive[document])
        n, k = len(flags), int(flags.sum())
        return guarantees.gate_lift_bound(c, tau, n, k) * k / n if k else 0.0


def run(subject: Subject, passed: Pass, progress: Progress, figures: Figures) -> SpatialGatesResult:
    """As a measure of an audit."""
    config, options = subject.run.model.config.attention, subject.options
    return passed.attention.gates.result(config, options.resamples, options.seed)
