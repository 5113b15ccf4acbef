"""Conductance: how much of an answer goes through each attention weight, layer by layer.

Along the path of ``integrated_gradients`` from a text of padding to the text, the conductance of a
weight is ``∫ ∂logit/∂weight · d(weight)``: how far the answer hangs on it, times how far the text
moved it. A key's score in a layer is the sum of |conductance| over heads and queries.

Captum's ``LayerConductance`` computes the same; it needs a forward and backward pass for each layer
where here one serves all, and sees only one application of a block that several layers share. The
tests compare the two.

Not covered: what a layer passes on by its residual, and what reaches the answer through the values;
so the conductances of a layer do not sum to the answer.

Source: Dhamdhere, Sundararajan and Yan 2018 (arXiv:1805.12233), equation 3.

Shapes: L layers, H heads, T tokens, D model width, S points on a path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attnpriv.audit.attribution import path_ends, sample_sensitive, sensitive_documents
from attnpriv.audit.documents import Documents
from attnpriv.audit.figures import Figures
from attnpriv.audit.matched import TokenLift, TokenLiftAccumulator, token_lengths
from attnpriv.audit.rollout import layer_names
from attnpriv.audit.subject import Answers, Progress, Subject
from attnpriv.models.text import TextClassifier


@dataclass(frozen=True)
class ConductanceResult:
    """Conductance through each layer's attention weights: its share on sensitive keys and lift.

    ``shares[layer]`` is the mean over the documents that hold sensitive tokens; None without such.
    """

    documents: int
    sampled_from: int
    steps: int
    shares: tuple[float | None, ...]
    layers: tuple[TokenLift, ...]
    seed: int


def attention_conductance(
    model: TextClassifier, ids: Tensor, mask: Tensor, target: int, steps: int, pad_id: int
) -> Tensor:
    """The conductance of every attention weight of one text, by the trapezoidal rule.

    Memory grows with ``steps`` times the attention weights of the text.

    Args:
        model: the classifier, in eval mode.
        ids: token ids [1, T].
        mask: True where a token is, [1, T].
        target: class number.
        steps: intervals on the path.
        pad_id: id of the padding token.

    Returns:
        [L, H, T, T].
    """
    baseline, x = path_ends(model, ids, mask, pad_id)
    shares = torch.linspace(0, 1, steps + 1)[:, None, None]
    path = (baseline + shares * (x - baseline)).requires_grad_()
    masks = mask.expand(len(path), -1)
    states, weights = model.encode(path, masks, need_weights=True)
    assert weights is not None
    logits = model.head(model.pool(states, masks))[:, target]
    gradients = torch.autograd.grad(logits.sum(), weights)
    return torch.stack(
        [
            ((slope[1:] + slope[:-1]) / 2 * (layer[1:] - layer[:-1]).detach()).sum(0)
            for slope, layer in zip(gradients, weights, strict=True)
        ]
    )


def measure_conductance(
    model: TextClassifier,
    documents: Documents,
    targets: Sequence[int],
    *,
    most: int,
    steps: int,
    permutations: int,
    resamples: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> ConductanceResult:
    """The lift of |conductance| on sensitive keys in each layer, over a seeded sample.

    The sample is that of ``measure_attribution`` with the same number and seed. p-values are
    corrected over the layers.

    Args:
        model: the classifier, in eval mode.
        documents: tokenised held-out records.
        targets: for each of them, the class whose logit is explained.
        most: how many documents to explain at most.
        steps: intervals on each path.
        permutations: of the nulls.
        resamples: of the bootstrap over documents.
        seed: of the sample, the nulls and the bootstrap.
        progress: called with documents done and their number.

    Raises:
        InputError: there are no documents.
    """
    chosen = sample_sensitive(documents, most, seed)
    lifts = TokenLiftAccumulator(len(chosen), model.config.layers, permutations, seed)
    for row, document in enumerate(chosen):
        ids, mask = documents.padded([document])
        conductance = attention_conductance(
            model, ids, mask, targets[document], steps, documents.pad_id
        )
        scores = conductance.abs().sum((1, 2), dtype=torch.float64).numpy()
        content = documents.content(document)
        flags = documents.sensitive[document][content]
        lifts.add(row, scores[:, content], flags, token_lengths(documents, document))
        if progress:
            progress(row + 1, len(chosen))
    return ConductanceResult(
        documents=len(chosen),
        sampled_from=len(sensitive_documents(documents)),
        steps=steps,
        shares=lifts.mean_shares(),
        layers=lifts.lifts(layer_names(model.config.layers), resamples),
        seed=seed,
    )


def run(
    subject: Subject, answers: Answers, progress: Progress, figures: Figures
) -> ConductanceResult:
    """As a measure of an audit."""
    options = subject.options
    return measure_conductance(
        subject.run.model,
        subject.documents,
        answers.targets,
        most=options.ig_documents,
        steps=options.ig_steps,
        progress=progress,
        **options.draws,
    )
