"""Are the tokens that an explanation names those that the answer hangs on?

Comprehensiveness: how far the predicted class's probability falls without the tokens ranked first;
a faithful ranking makes it fall far. Sufficiency: how far it falls when they alone are left; a
faithful ranking keeps it. Both are of ERASER (DeYoung et al. 2020, arXiv:1911.03429, equations 1
and 2); their means over the shares leave out the empty one, which equation 3 counts and which is 0
for comprehensiveness.

A token is removed by masking it out of attention and pooling, as padding is; the others keep their
positions. A visible padding token in its place would be an input that no model was trained on. The
positions that the model added always stay.

Not covered: a text with holes is still no text that people write, and a model may answer it oddly;
so compare rankings with each other and with the random one rather than read a value alone.

Shapes: B batch, T tokens, K classes, S shares of the tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attnpriv.audit.correlation import RankCorrelation, RankCorrelations
from attnpriv.audit.documents import Documents
from attnpriv.audit.figures import Figures
from attnpriv.audit.gradients import Gradients
from attnpriv.audit.infidelity import (
    draw_removals,
    infidelity,
    sample_with_content,
)
from attnpriv.audit.statistics import Floats, bootstrap_ratios
from attnpriv.audit.subject import Answers, Pass, Progress, Subject
from attnpriv.estimates import Control, Estimate, percentile_interval
from attnpriv.explain.attention import last_attention, rollout_received
from attnpriv.explain.removal import leave_one_out, probability_drops, removal_effects
from attnpriv.modality import AttentionModel, Embedded

PERCENTS = (1, 5, 10, 20, 50)  # of the content tokens, rounded up: at least one goes
RANKINGS = 6  # that are compared: four of their own, rollout, and a second random one
EXPERIMENTS = 24  # random removals of a document, for the infidelity
LEAVE_ONE_OUT, RANDOM, SECOND_RANDOM = "leave_one_out", "random", "random_again"
ATTENTION, GRADIENTS = "attention", "integrated_gradients"

Scorer = Callable[[AttentionModel, Embedded, Tensor], Tensor]
"""B embedded examples and target classes [B] to scores [B, T]; the highest rank first."""


@dataclass(frozen=True)
class RankingFaithfulness:
    """One ranking of tokens; see ``attnpriv.audit.faithfulness``.

    Attributes:
        ranking: its name.
        comprehensiveness: fall of the predicted class's probability without the tokens ranked
            first, one for each of ``FaithfulnessResult.percents``.
        sufficiency: the same where they alone are left; lower is better.
        comprehensiveness_aopc: mean of the first over the shares.
        sufficiency_aopc: mean of the second.
        comprehensiveness_gain: by how much the mean exceeds the random ranking's, paired.
        sufficiency_gain: by how much the mean lies below the random ranking's, paired.
        infidelity: squared error of foretelling random removals, over that of foretelling nothing.
    """

    ranking: str
    comprehensiveness: tuple[Estimate, ...]
    sufficiency: tuple[Estimate, ...]
    comprehensiveness_aopc: Estimate
    sufficiency_aopc: Estimate
    comprehensiveness_gain: Estimate
    sufficiency_gain: Estimate
    infidelity: Estimate


@dataclass(frozen=True)
class FaithfulnessResult:
    """Rankings of tokens against what removing tokens does, with two controls."""

    documents: int
    sampled_from: int
    steps: int
    percents: tuple[int, ...]
    experiments: int
    rankings: tuple[RankingFaithfulness, ...]
    rank_correlation: RankCorrelation
    positive: Control
    null: Control
    valid: bool
    resamples: int
    seed: int


def removal_drops(
    model: AttentionModel, example: Embedded, target: Tensor, scores: Tensor
) -> Tensor:
    """How far the target's probability falls at each share of the tokens.

    Args:
        model: in eval mode.
        example: B embedded examples.
        target: class numbers [B].
        scores: of the tokens [B, T]; the highest are first, of equals the one further left.

    Returns:
        [B, 2, S]: comprehensiveness, then sufficiency.
    """
    content = example.content
    added = example.mask & ~content
    order = scores.masked_fill(~content, -torch.inf).argsort(stable=True, dim=-1, descending=True)
    rank = order.argsort(-1)
    percents = torch.tensor(PERCENTS)
    count = -(-percents * content.sum(1, keepdim=True) // 100)
    top = (rank[:, None] < count[..., None]) & content[:, None]
    masks = torch.stack([example.mask[:, None] & ~top, added[:, None] | top], dim=1)
    drops = probability_drops(model, example, target, masks.flatten(1, 2))
    return drops.reshape(-1, 2, len(PERCENTS))


class _Accumulator:
    """Of each document and ranking 2·S falls and its infidelity; of each the rank correlation."""

    def __init__(self, names: Sequence[str], documents: int, permutations: int, seed: int) -> None:
        self.names = list(names)
        self.drops: Floats = np.zeros((documents, len(names), 2, len(PERCENTS)))
        self.infidelity: Floats = np.zeros((documents, len(names)))
        self.squared_effect: Floats = np.zeros(documents)
        self.agreement = RankCorrelations(documents, permutations, seed)


def measure_faithfulness(
    gradients: Gradients,
    *,
    most: int,
    permutations: int,
    resamples: int,
    seed: int,
    scorers: Mapping[str, Scorer] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FaithfulnessResult:
    """Comprehensiveness, sufficiency and infidelity of token rankings, on a seeded sample.

    The rankings: attention received in the last layer, |integrated gradients|, the true effect of
    leaving each token out, random numbers, and whatever else is given.

    The infidelity of integrated gradients is that of their signed values. All are shares of that of
    scores of 0. Compare them with the random numbers', which need not be near 1: what sums up the
    removed tokens also counts them, and more is lost where more goes.

    Controls: the ranking by true effects must beat the random one, or these documents show nothing;
    two random rankings must not differ. Where either fails, the result is not valid.

    Args:
        gradients: integrated gradients of the predicted classes of the documents to sample from.
        most: how many documents to measure at most.
        permutations: of the null of the rank correlation.
        resamples: of the bootstrap over documents.
        seed: of the sample, the random rankings, the null and the bootstrap.
        scorers: further rankings by their names, for instance attention rollout.
        progress: called with documents done and their number.

    Raises:
        InputError: no document has a content token.
    """
    model, documents = gradients.model, gradients.documents
    chosen = sample_with_content(documents, most, seed)
    given = {ATTENTION: last_attention, **(scorers or {}), LEAVE_ONE_OUT: leave_one_out}
    names = [*given, GRADIENTS, RANDOM, SECOND_RANDOM]
    statistics = _Accumulator(names, len(chosen), permutations, seed)
    for row, document in enumerate(chosen):
        example = documents.embedded(model, document)
        target, signed = torch.tensor([gradients.targets[document]]), gradients[document].scores
        with torch.inference_mode():
            scores = {name: scorer(model, example, target) for name, scorer in given.items()}
            scores[GRADIENTS] = signed
            for number, name in enumerate((RANDOM, SECOND_RANDOM)):
                scores[name] = _random(example.mask, [seed, document, number])
            removed = draw_removals(example.content, [document], EXPERIMENTS, seed)
            effects = removal_effects(model, example, target, removed)
            statistics.squared_effect[row] = float(effects.square().mean())
            for i, (name, values) in enumerate(scores.items()):
                ranking = values.abs() if name == GRADIENTS else values
                statistics.drops[row, i] = removal_drops(model, example, target, ranking)[0]
                statistics.infidelity[row, i] = float(infidelity(values, removed, effects))
        attention, integrated = (
            documents.of_content(document, scores[name][0].double().numpy())
            for name in (ATTENTION, GRADIENTS)
        )
        statistics.agreement.add(row, document, attention, np.abs(integrated))
        if progress:
            progress(row + 1, len(chosen))
    return _result(statistics, documents, gradients.steps, resamples, seed)


def _random(mask: Tensor, seed: list[int]) -> Tensor:
    """Random scores of one document's tokens, [1, T]."""
    return torch.from_numpy(np.random.default_rng(seed).random(mask.shape))


def _result(
    statistics: _Accumulator, documents: Documents, steps: int, resamples: int, seed: int
) -> FaithfulnessResult:
    positive, null = _controls(statistics, resamples, seed)
    return FaithfulnessResult(
        documents=len(statistics.drops),
        sampled_from=sum(documents.has_content(d) for d in range(len(documents))),
        steps=steps,
        percents=PERCENTS,
        experiments=EXPERIMENTS,
        rankings=tuple(
            _ranking(statistics, name, resamples, seed)
            for name in statistics.names
            if name != SECOND_RANDOM
        ),
        rank_correlation=statistics.agreement.result(resamples),
        positive=positive,
        null=null,
        valid=positive.passed and null.passed,
        resamples=resamples,
        seed=seed,
    )


def _ranking(statistics: _Accumulator, name: str, resamples: int, seed: int) -> RankingFaithfulness:
    own, random = (statistics.names.index(n) for n in (name, RANDOM))
    drops = statistics.drops[:, own]
    aopc = drops.mean(-1)
    gain = (aopc - statistics.drops[:, random].mean(-1)) * (1, -1)
    columns = np.concatenate([drops.reshape(len(drops), -1), aopc, gain], axis=1)
    resampled = bootstrap_ratios(columns, np.ones(len(columns)), resamples, seed)
    estimates = tuple(
        percentile_interval(value, resampled[:, i]) for i, value in enumerate(columns.mean(0))
    )
    shares = len(PERCENTS)
    squared = statistics.squared_effect
    missed = statistics.infidelity[:, own]
    ratio = missed.sum() / squared.sum() if squared.sum() else np.nan
    return RankingFaithfulness(
        ranking=name,
        comprehensiveness=estimates[:shares],
        sufficiency=estimates[shares : 2 * shares],
        comprehensiveness_aopc=estimates[-4],
        sufficiency_aopc=estimates[-3],
        comprehensiveness_gain=estimates[-2],
        sufficiency_gain=estimates[-1],
        infidelity=percentile_interval(
            ratio, bootstrap_ratios(missed[:, None], squared, resamples, seed)[:, 0]
        ),
    )


def _controls(statistics: _Accumulator, resamples: int, seed: int) -> tuple[Control, Control]:
    """The comprehensiveness of true effects over random's, and of one random ranking's."""
    aopc = statistics.drops[:, :, 0].mean(-1)
    best, random, again = (
        aopc[:, statistics.names.index(name)] for name in (LEAVE_ONE_OUT, RANDOM, SECOND_RANDOM)
    )
    gains = np.stack([best - random, again - random], axis=1)
    resampled = bootstrap_ratios(gains, np.ones(len(gains)), resamples, seed)
    low = float(np.quantile(resampled[:, 0], 0.025))
    mean, error = gains[:, 1].mean(), resampled[:, 1].std()
    return (
        Control(
            "tokens ranked by their true effect: comprehensiveness above that of random ones",
            float(gains[:, 0].mean()),
            low > 0,
        ),
        Control(
            "another random ranking: comprehensiveness within 4 standard errors of the first",
            float(mean),
            bool(abs(mean) <= 4 * error + 1e-9),
        ),
    )


def explains(subject: Subject, passed: Pass) -> list[int]:
    """The documents whose integrated gradients ``run`` reads."""
    options = subject.options
    most = subject.affordable(options.faithfulness_documents)
    return sample_with_content(subject.documents, most, options.seed)


def passes(subject: Subject) -> float:
    """Roughly how many documents ``run`` sends through the model: one a token, and the removals."""
    removals = EXPERIMENTS + 2 * len(PERCENTS) * RANKINGS
    most = subject.taken(subject.options.faithfulness_documents)
    return most * (subject.mean_length + removals)


def run(
    subject: Subject, answers: Answers, progress: Progress, figures: Figures
) -> FaithfulnessResult:
    """As a measure of an audit."""
    options = subject.options
    return measure_faithfulness(
        answers.gradients(subject),
        most=subject.affordable(options.faithfulness_documents),
        scorers={"rollout": rollout_received},
        progress=progress,
        **options.draws,
    )
