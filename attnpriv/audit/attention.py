"""Where attention goes: mass on sensitive keys, lift, entropy, and the certified bounds.

Shapes: B batch, L layers, H heads, T tokens.

Two lifts are reported, since they answer different questions.

* ``content``: special tokens are left out of the keys, numerator and denominator alike, for they
  soak up attention whatever the text says. Its permutation null is centred on 1. Queries are all
  visible tokens, special ones included: their rows reach the answer too.
* ``row_lift``: the mass on sensitive keys over k/n of the whole row, special keys counted. Only
  this one is bounded by ``guarantees.mass_bound`` and ``lift_bound``.

The content lift has a second null, matched on token length and position, and is split by layer,
head, entity type and label. Documents pass the model one at a time, and what is summed over them is
summed exactly: in whatever order and pieces they come, the bits are the same.

Attention alone explains nothing (Jain and Wallace 2019; Wiegreffe and Pinter 2019). A lift near 1
acquits no model: one that attends to all tokens alike can read personal data through its values and
its pooling, which attribution, occlusion and swaps see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attnpriv import guarantees
from attnpriv.audit.documents import Documents
from attnpriv.audit.figures import Figures, figure
from attnpriv.audit.lift import Lift, LiftAccumulator, LiftControls, group_means
from attnpriv.audit.matched import MatchedControls, TokenLift, TokenLiftAccumulator, token_lengths
from attnpriv.audit.rollout import FlowAccumulator, head_names, layer_names
from attnpriv.audit.spatial_gates import GateAccumulator
from attnpriv.audit.statistics import Floats
from attnpriv.audit.subject import Pass, Progress, Subject
from attnpriv.audit.subsets import Subsets
from attnpriv.audit.tally import Tally
from attnpriv.config import AttentionConfig
from attnpriv.data.records import Span
from attnpriv.errors import InputError
from attnpriv.estimates import Control
from attnpriv.explain.attention import recorded_value_norms
from attnpriv.modality import AttentionModel

TINY = float(torch.finfo(torch.float32).tiny)
ROUNDING = 1e-5  # relative error of float32 sums that a measured value may show over its bound


@dataclass(frozen=True)
class Head:
    """One attention head over all audited documents; see ``attnpriv.audit.attention``."""

    layer: int
    head: int
    content: Lift
    matched: Lift
    row_lift: float | None
    special_mass: float
    normalised_entropy: float
    largest_weight: float


@dataclass(frozen=True)
class Certificate:
    """The proved bounds beside what was measured, worst over documents, layers and heads.

    Attributes:
        logit_bound: c, or None when the logits are not clipped and nothing is certified.
        temperature: τ; its floor where heads learn their own.
        largest_weight: the largest weight measured anywhere.
        largest_weight_bound: the bound for the document in which it was measured.
        weight_ratio: the largest measured weight over the bound of its own document.
        mass_ratio: the largest sensitive mass of one row over the bound of its own document.
        row_lift_bound: bound on ``Head.row_lift`` over these documents.
        holds: whether both ratios are at most 1 up to float32 rounding; None without a clip.
    """

    logit_bound: float | None
    temperature: float
    largest_weight: float
    largest_weight_bound: float | None
    weight_ratio: float | None
    mass_ratio: float | None
    row_lift_bound: float | None
    holds: bool | None


@dataclass(frozen=True)
class AttentionResult:
    """Attention on sensitive tokens, over all heads and for each of them.

    ``layers``, ``entity_types`` and ``labels`` hold the mean over their heads; p-values are
    corrected within each of the three. Without spans ``entity_types`` is empty.
    """

    documents: int
    documents_with_sensitive: int
    sensitive_tokens: int
    content_tokens: int
    matched_tokens: int
    overall: Lift
    matched: Lift
    heads: tuple[Head, ...]
    layers: tuple[TokenLift, ...]
    entity_types: tuple[TokenLift, ...]
    labels: tuple[TokenLift, ...]
    certificate: Certificate
    planted: Control
    null: Control
    matched_planted: Control
    matched_null: Control
    permutations: int
    resamples: int
    seed: int


class AttentionAccumulator(Tally):
    """One pass over the documents; of each it keeps a few numbers a head, never the weights.

    A model without attention between positions has no heads, and one without spatial gates no gated
    layers: then nothing is added of them.

    Attributes:
        logits: what the model answered, [documents, K].
    """

    def __init__(
        self,
        documents: Documents,
        shape: tuple[int, int],
        permutations: int,
        seed: int,
        spans: Sequence[Sequence[Span]] | None = None,
        gated_layers: int = 0,
    ) -> None:
        self.documents = documents
        self.shape = shape
        self.series = shape[0] * shape[1]
        n = len(documents)
        self.heads = TokenLiftAccumulator(n, self.series, permutations, seed)
        self.controls = LiftControls(n, permutations, seed)
        self.matched_controls = MatchedControls(n, permutations, seed)
        self.subsets = Subsets(documents, spans, permutations, seed)
        self.flow = FlowAccumulator(documents, shape, permutations, seed)
        self.gates = GateAccumulator(documents, gated_layers, permutations, seed)
        self.logits: Floats = np.zeros((n, len(documents.data.label_names)))
        self.mass, self.row_mass, self.special, self.entropy, self.largest = (
            np.zeros((n, self.series)) for _ in range(5)
        )

    @property
    def content(self) -> LiftAccumulator:
        """The shares of content tokens, by head."""
        return self.heads.permuted

    def add(self, document: int, weights: Tensor, norms: Tensor) -> None:
        """Take in a document's weights [L, H, T, T] and value norms [L, H, T]."""
        received = weights.mean(2, dtype=torch.float64)
        self._add_weights(document, weights.flatten(0, 1), received.flatten(0, 1).numpy())
        self.flow.add(document, weights, received, norms)

    def _add_weights(self, document: int, weights: Tensor, received: Floats) -> None:
        """Take in a document's weights [S, n, n] of all heads, and what each key gets [S, n]."""
        flags, content = self.documents.sensitive[document], self.documents.content(document)
        n = len(flags)
        self.mass[document] = received[:, flags].sum(1)
        self.special[document] = received[:, ~content].sum(1)
        on_sensitive = weights[..., torch.from_numpy(flags)].sum(-1, dtype=torch.float64)
        self.row_mass[document] = on_sensitive.amax(1).numpy()
        logs = weights.clamp(min=TINY).log()  # torch's own entropy takes twice as long
        entropy = -(weights * logs).sum((1, 2), dtype=torch.float64)
        self.entropy[document] = entropy.numpy() / n / np.log(n)
        self.largest[document] = weights.amax((1, 2)).double().numpy()
        scores = self.documents.of_content(document, received)
        lengths = token_lengths(self.documents, document)
        self.heads.add(document, scores, flags[content], lengths)
        self.controls.add(document, flags[content])
        self.matched_controls.add(document, flags[content], lengths)
        self.subsets.add(document, scores)

    def result(self, config: AttentionConfig, resamples: int, seed: int) -> AttentionResult:
        """Everything about these documents."""
        permutations = len(self.content.null)
        planted, null = self.controls.result(resamples)
        matched = self.matched_controls.result(resamples)
        (overall,) = self.heads.lifts(["overall"], resamples)
        layers, heads = self.shape
        return AttentionResult(
            documents=len(self.documents),
            documents_with_sensitive=overall.documents,
            sensitive_tokens=overall.tokens,
            content_tokens=sum(
                int(self.documents.content(d).sum()) for d in range(len(self.documents))
            ),
            matched_tokens=overall.matched_tokens,
            overall=overall.permuted,
            matched=overall.matched,
            heads=self._heads(self.heads.lifts(head_names(layers, heads), resamples)),
            layers=self.heads.lifts(layer_names(layers), resamples),
            entity_types=self.subsets.by_type(resamples),
            labels=self.subsets.by_label(resamples),
            certificate=self._certificate(config),
            planted=planted,
            null=null,
            matched_planted=matched[0],
            matched_null=matched[1],
            permutations=permutations,
            resamples=resamples,
            seed=seed,
        )

    def _heads(self, lifts: Sequence[TokenLift]) -> tuple[Head, ...]:
        uniform = sum(self._uniform_shares())
        return tuple(
            Head(
                layer=s // self.shape[1],
                head=s % self.shape[1],
                content=lifts[s].permuted,
                matched=lifts[s].matched,
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


@torch.inference_mode()
def measure_attention(
    model: AttentionModel,
    documents: Documents,
    permutations: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    spans: Sequence[Sequence[Span]] | None = None,
    chosen: Sequence[int] | None = None,
) -> AttentionAccumulator:
    """Run the model once over all documents, or some, and collect its answers and its attention.

    Memory grows with documents times heads, not with the square of their length.

    Args:
        model: in eval mode.
        documents: tokenised held-out records.
        permutations: of each null.
        seed: of the nulls and the bootstraps.
        progress: called with documents done and their number.
        spans: what the documents were prepared with, for the split by entity type; None leaves
            that split out.
        chosen: documents to take; None takes all.

    Raises:
        InputError: there are no documents.
    """
    if not len(documents):
        raise InputError("expected documents to measure, got none")
    statistics = AttentionAccumulator(
        documents, model.attention_shape, permutations, seed, spans, model.gated_layers
    )
    chosen = range(len(documents)) if chosen is None else chosen
    with recorded_value_norms(model) as norms:
        for done, document in enumerate(chosen, start=1):
            inputs = documents.inputs([document])
            seen = model.run(model.embed(inputs.values), inputs.mask, need_maps=True)
            statistics.logits[document] = seen.outputs[0].numpy()
            if weights := seen.self_attention():
                statistics.add(document, torch.cat(weights), torch.cat(norms))
            if gates := seen.spatial_gates():
                statistics.gates.add(document, torch.cat(gates))
            norms.clear()
            if progress:
                progress(done, len(chosen))
    return statistics


def run(subject: Subject, passed: Pass, progress: Progress, figures: Figures) -> AttentionResult:
    """As a measure of an audit."""
    found, options = passed.attention, subject.options
    documents, heads = range(len(subject.documents)), found.heads
    figures |= {
        "attention.overall.lift": figure(
            documents, found.content.mean_shares(), found.content.uniform
        ),
        "attention.matched.lift": figure(documents, _mean(heads.paired), _mean(heads.partners)),
        "attention.heads[*].normalised_entropy": figure(documents, _mean(found.entropy)),
        "attention.heads[*].special_mass": figure(documents, _mean(found.special)),
    }
    config = subject.run.model.config.attention
    return found.result(config, options.resamples, options.seed)


def _mean(values: Floats) -> Floats:
    """Of each document's values [N, S]."""
    return np.asarray(group_means(values, 1)[:, 0])
