"""Two tests of an explanation by small experiments: infidelity and max-sensitivity.

Infidelity asks whether the scores foretell what happens when some tokens go; max-sensitivity how
far the scores themselves move when the input hardly does. Both are of Yeh et al. 2019
(arXiv:1901.09392, definitions 2.1 and 3.1).

Not covered: an explanation can be faithful to a model and say nothing about the world.

Shapes: B batch, T tokens, D model width, P experiments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from captum.metrics import sensitivity_max
from torch import Tensor

from attnpriv.audit.documents import Documents, sample
from attnpriv.audit.figures import Figures
from attnpriv.audit.statistics import Floats, bootstrap_ratios
from attnpriv.audit.subject import FORTH_AND_BACK, USUAL_POINTS, Answers, Progress, Subject
from attnpriv.errors import InputError
from attnpriv.estimates import Control, Estimate, percentile_interval
from attnpriv.explain.attention import last_attention
from attnpriv.explain.gradients import integrate
from attnpriv.modality import AttentionModel, Embedded

RADIUS = 0.05  # of the noise, in standard deviations of the document's own coordinates
DRAWS = 8  # noises for each document
TOLERANCE = 0.25  # of the positive control: the norm of uniform noise is known to a few per cent
ROUNDING = 1e-5  # relative error of float32 sums over batches of different size

Explain = Callable[[Embedded, Tensor], Tensor]


@dataclass(frozen=True)
class ExplanationSensitivity:
    """Mean over documents of how far an explanation moves, relative to its norm."""

    explanation: str
    largest: Estimate


@dataclass(frozen=True)
class SensitivityResult:
    """Max-sensitivity of explanations; ``radius`` in deviations of a document's coordinates."""

    documents: int
    sampled_from: int
    radius: float
    draws: int
    steps: int
    explanations: tuple[ExplanationSensitivity, ...]
    positive: Control
    null: Control
    valid: bool
    seed: int


def infidelity(scores: Tensor, removed: Tensor, effects: Tensor) -> Tensor:
    """The mean squared error of foretelling effects by the sum of the removed tokens' scores.

    The scores are scaled by whatever factor serves them best, for an explanation may be right up to
    its unit. Scores of 0 give the mean squared effect.

    Args:
        scores: of each token, [B, T].
        removed: which tokens went in each experiment, [B, P, T].
        effects: what came of it, [B, P].

    Returns:
        [B], from 0 to the mean squared effect.

    Source: Yeh et al. 2019, equation 1, with the optimal scaling of their section 5.
    """
    foretold = (removed * scores[:, None]).sum(-1)
    power = foretold.square().mean(1)
    product = (foretold * effects).mean(1)
    scale = torch.where(power > 0, product / power.clamp(min=torch.finfo(power.dtype).tiny), 0.0)
    return (scale[:, None] * foretold - effects).square().mean(1)


def draw_removals(content: Tensor, documents: list[int], experiments: int, seed: int) -> Tensor:
    """Random sets of the content [B, T] of all sizes, by seed and document number, [B, P, T]."""
    removed = np.zeros((len(documents), experiments, content.shape[1]), dtype=np.bool_)
    for row, (document, own) in enumerate(zip(documents, content.numpy(), strict=True)):
        rng = np.random.default_rng([seed, document, 2])
        share = rng.random((experiments, 1))
        removed[row][:, own] = rng.random((experiments, own.sum())) < share
    return torch.from_numpy(removed)


def measure_sensitivity(
    model: AttentionModel,
    documents: Documents,
    targets: list[int],
    *,
    most: int,
    steps: int,
    resamples: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> SensitivityResult:
    """How far attention and integrated gradients move when every embedding moves a little.

    Of a model without attention between positions, integrated gradients alone.

    Max-sensitivity of a document is the largest ``|Φ(x + noise) - Φ(x)| / |Φ(x)|`` over a few draws
    of uniform noise on the content tokens; Φ has one score a token. It is a lower bound on the
    maximum over the whole ball.

    Controls: with a radius of 0 nothing may move. An explanation that is the embedding itself must
    move by the norm of the noise, which is known.

    Args:
        model: in eval mode.
        documents: tokenised held-out records.
        targets: for each of them, the class whose logit is explained.
        most: how many documents to measure at most.
        steps: points on each path of integrated gradients before it is refined.
        resamples: of the bootstrap over documents.
        seed: of the sample, the noise and the bootstrap.
        progress: called with documents done and their number.

    Raises:
        InputError: no document has a content token.
    """
    chosen = sample_with_content(documents, most, seed)
    explanations: dict[str, Explain] = {
        **({"attention": _attention(model)} if model.attention_shape[0] else {}),
        "integrated_gradients": _gradients(model, steps),
        "embedding": _embedding,
    }
    measured: Floats = np.zeros((len(chosen), len(explanations)))
    known = np.zeros(len(chosen))
    for row, document in enumerate(chosen):
        example, target = documents.embedded(model, document), torch.tensor([targets[document]])
        for column, explain in enumerate(explanations.values()):
            own = [seed, document, 3]
            measured[row, column] = _largest_move(explain, example, target, RADIUS, DRAWS, own)
        known[row] = _known_move(example)
        if progress:
            progress(row + 1, len(chosen))
    still = [  # one draw: all of radius 0 are the same
        _largest_move(explain, example, target, 0.0, 1, [seed]) for explain in explanations.values()
    ]
    names = [name for name in explanations if name != "embedding"]
    return _sensitivity_result(
        documents, names, measured, known, max(still), steps, resamples, seed
    )


def sample_with_content(documents: Documents, most: int, seed: int) -> list[int]:
    """A seeded sample of the documents that have more than what the model adds.

    Raises:
        InputError: there is none.
    """
    eligible = [d for d in range(len(documents)) if documents.has_content(d)]
    if not eligible:
        raise InputError(f"expected documents with content tokens, got none in {len(documents)}")
    return [eligible[i] for i in sample(len(eligible), most, seed)]


def _attention(model: AttentionModel) -> Explain:
    def explain(example: Embedded, target: Tensor) -> Tensor:
        return last_attention(model, example, target)

    return explain


def _gradients(model: AttentionModel, steps: int) -> Explain:
    def explain(example: Embedded, target: Tensor) -> Tensor:
        rows = [integrate(model, own, target[:1], steps).scores for own in example.rows()]
        return torch.cat(rows)

    return explain


def _embedding(example: Embedded, target: Tensor) -> Tensor:
    return example.x


def _deviation(example: Embedded) -> tuple[Tensor, Tensor]:
    """The coordinates that may move, as a mask [1, T, 1], and their standard deviation."""
    content = example.content[..., None]
    return content, example.x[content.expand_as(example.x)].std(correction=0)


def _largest_move(
    explain: Explain, example: Embedded, target: Tensor, radius: float, draws: int, seed: list[int]
) -> float:
    content, deviation = _deviation(example)
    rng = np.random.default_rng(seed)

    def perturb(inputs: Tensor) -> Tensor:
        noise = torch.from_numpy(rng.uniform(-radius, radius, inputs.shape)).to(inputs.dtype)
        return inputs + noise * deviation * content

    def explained(inputs: Tensor | tuple[Tensor], target: Tensor) -> tuple[Tensor]:
        """Captum hands over the example alone, or its noisy copies in a tuple of one."""
        x = inputs[0] if isinstance(inputs, tuple) else inputs
        return (explain(example.moved_to(x), target[:1].expand(len(x))),)

    moved = sensitivity_max(explained, example.x, perturb, n_perturb_samples=draws, target=target)
    return float(moved)


def _known_move(example: Embedded) -> float:
    """The expected move of the embedding itself: uniform noise has a variance of r²/3."""
    content, deviation = _deviation(example)
    coordinates = int(content.sum()) * example.x.shape[-1]
    return float(RADIUS * deviation * (coordinates / 3) ** 0.5 / example.x.norm())


def _sensitivity_result(
    documents: Documents,
    names: Sequence[str],
    measured: Floats,
    known: Floats,
    still: float,
    steps: int,
    resamples: int,
    seed: int,
) -> SensitivityResult:
    resampled = bootstrap_ratios(measured, np.ones(len(measured)), resamples, seed)
    means = measured.mean(0)
    off = float(np.abs(measured[:, -1] / known - 1).max())
    positive = Control(
        f"the embedding as its own explanation: moves as its noise, within {TOLERANCE:.0%}",
        off,
        off <= TOLERANCE,
    )
    null = Control("radius 0, one document: nothing moves beyond rounding", still, still < ROUNDING)
    return SensitivityResult(
        documents=len(measured),
        sampled_from=sum(documents.has_content(d) for d in range(len(documents))),
        radius=RADIUS,
        draws=DRAWS,
        steps=steps,
        explanations=tuple(
            ExplanationSensitivity(name, percentile_interval(means[i], resampled[:, i]))
            for i, name in enumerate(names)
        ),
        positive=positive,
        null=null,
        valid=positive.passed and null.passed,
        seed=seed,
    )


def passes(subject: Subject) -> float:
    """Roughly how many documents ``run`` sends through the model."""
    most = subject.taken(subject.options.sensitivity_documents)
    return most * (DRAWS + 1) * FORTH_AND_BACK * USUAL_POINTS


def run(
    subject: Subject, answers: Answers, progress: Progress, figures: Figures
) -> SensitivityResult:
    """As a measure of an audit."""
    options = subject.options
    return measure_sensitivity(
        subject.run.model,
        subject.documents,
        answers.targets,
        most=subject.affordable(options.sensitivity_documents),
        steps=options.ig_steps,
        resamples=options.resamples,
        seed=options.seed,
        progress=progress,
    )
