"""Attacks on the explanation: how far attention can be led onto sensitive positions, or off them.

The attacker moves the embeddings of every position within an L∞ ball, as in
``attnpriv.audit.robustness.embedding``, and seeks the most or the least attention on the positions
that overlap sensitive regions, mean over layers, heads and queries. Either the answer stays, and
the explanation misleads whoever reads it beside the same answer (Ghorbani et al. 2019,
arXiv:1710.10547); or the answer is turned at the same time.

A clip bounds what any such attack can reach: no row puts more than ``guarantees.mass_bound`` on k
positions. The report shows that bound, and a control holds every attack against it.

Not covered: other explanations than attention, edits of the text, stronger attacks. What is found
is a lower bound of what the best attack would reach.

Shapes: B batch, T positions, D model width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from attnpriv import guarantees
from attnpriv.audit.documents import Documents, partly_sensitive, sample
from attnpriv.audit.figures import Figures, figure
from attnpriv.audit.robustness import SCALES
from attnpriv.audit.robustness.autopgd import Found, autopgd
from attnpriv.audit.robustness.balls import Ball
from attnpriv.audit.robustness.batches import coordinate_deviation, make_batch
from attnpriv.audit.robustness.goals import MovedAttention, margin, mass
from attnpriv.audit.robustness.searching import STEPS
from attnpriv.audit.robustness.surrogates import unclipped
from attnpriv.audit.statistics import Floats, bootstrap_ratios
from attnpriv.audit.subject import FORTH_AND_BACK, Answers, Progress, Subject
from attnpriv.config import AttentionConfig
from attnpriv.estimates import UNDEFINED, Control, Estimate, percentile_interval, wilson
from attnpriv.modality import AttentionMap, AttentionModel, Embedded, Pass

AIMS = ("kept_onto", "kept_off", "turned_onto", "turned_off")
SIGNS = torch.tensor([1.0, -1.0, 1.0, -1.0])
TURNED = torch.tensor([False, False, True, True])
ROUNDING = 1e-5  # relative error of float32 sums that a mass may show over its bound
EXACT = 1e-3  # of the probe: how near the best mass an attack must come
UNMOVED = 8  # documents of the controls


@dataclass(frozen=True)
class AttentionAtRadius:
    """How far attention was led at one radius, by the factor on the mass of the unmoved input.

    Attributes:
        scale: the radius in deviations of a coordinate.
        onto: the factor of the most mass, the answer kept.
        off: that of the least mass, the answer kept.
        turned: the share of documents whose answer was turned meanwhile.
        turned_onto: the factor of the most mass over those of them.
        turned_off: that of the least mass.
    """

    scale: float
    onto: Estimate
    off: Estimate
    turned: Estimate
    turned_onto: Estimate
    turned_off: Estimate


@dataclass(frozen=True)
class AttentionAttackResult:
    """How far attention on sensitive positions can be led by moves of the embeddings.

    ``onto_bound`` is the factor that the clip allows at any radius; None without a clip. ``mass``
    is the share of attention on sensitive positions before, a mean over documents.
    """

    documents: int
    sampled_from: int
    mass: float
    onto_bound: float | None
    radii: tuple[AttentionAtRadius, ...]
    positive: Control
    null: Control
    within: Control | None
    valid: bool
    seed: int


@dataclass(frozen=True)
class _Led:
    """Of one document: masses before and after, [scales, AIMS], NaN where no point was found."""

    clean: float
    bound: float | None
    masses: Floats


def attention_attacks(
    model: AttentionModel,
    documents: Documents,
    most: int,
    resamples: int = 1000,
    seed: int = 0,
    config: AttentionConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
    figures: Figures | None = None,
) -> AttentionAttackResult:
    """Lead attention on a seeded sample of documents that hold sensitive positions and others.

    Controls: radius 0 must change no mass. On an attention of one query whose best attack is
    written down, the same code must reach it. With a clip, no mass may exceed its bound. Where one
    fails, the result is not valid.

    Args:
        model: in eval mode.
        documents: tokenised held-out records, at least one of them with sensitive positions.
        most: how many to attack at most.
        resamples: of the bootstrap over documents.
        seed: of the sample and the bootstrap.
        config: how the model's attention is bounded.
        progress: called with documents done and their number.
        figures: takes in the masses by document.
    """
    eligible = partly_sensitive(documents)
    chosen = [eligible[i] for i in sample(len(eligible), most, seed)]
    examples = [documents.embedded(model, d) for d in chosen]
    marks = [torch.from_numpy(documents.sensitive[d])[None] for d in chosen]
    deviation = coordinate_deviation([make_batch(each, torch.zeros(1)) for each in examples])
    models = [each for each in (model, unclipped(model)) if each is not None]
    led = []
    for example, marked in zip(examples, marks, strict=True):
        led.append(_lead(models, example, marked, [s * deviation for s in SCALES], config))
        if progress:
            progress(len(led), len(chosen))
    if figures is not None:
        figures |= _figures(chosen, led)
    within = _within(led)
    positive = _positive_control(examples[:UNMOVED], marks[:UNMOVED])
    null = _null_control(model, examples[:UNMOVED], marks[:UNMOVED])
    passed = [each.passed for each in (positive, null, within) if each]
    return AttentionAttackResult(
        documents=len(chosen),
        sampled_from=len(eligible),
        mass=float(np.mean([each.clean for each in led])),
        onto_bound=_factor_of_bounds(led),
        radii=tuple(_at_scale(led, i, resamples, seed) for i in range(len(SCALES))),
        positive=positive,
        null=null,
        within=within,
        valid=all(passed),
        seed=seed,
    )


def _lead(
    models: list[AttentionModel],
    example: Embedded,
    marked: Tensor,
    radii: list[float],
    config: AttentionConfig | None = None,
) -> _Led:
    """Every aim at every radius for one document, by the gradients of each model."""
    rows = len(radii) * len(AIMS)
    clean, labels, scale = _before(models[0], example, marked)
    x, mask, marked = (
        each.expand(rows, *each.shape[1:]) for each in (example.x, example.mask, marked)
    )
    movable = make_batch(example, labels).movable.expand_as(x)
    ball = Ball(x, movable, torch.tensor(radii).repeat_interleave(len(AIMS)).to(x))
    goals = [
        MovedAttention(
            each, mask, marked, labels.expand(rows), SIGNS.repeat(len(radii)),
            TURNED.repeat(len(radii)), clean, scale,
        )
        for each in models
    ]  # fmt: skip
    found = autopgd(goals[0], ball, x, STEPS, enough=_never)
    for guide in goals[1:]:
        found = found.or_better(autopgd(goals[0], ball, x, STEPS, guide, _never))
    n, k = int(example.mask.sum()), int(marked[0].sum())
    return _Led(float(clean), _bound(config, n, k), _masses(goals[0], found, len(radii)))


def _never(met: Tensor) -> bool:
    return False  # there may always be more attention


@torch.no_grad()
def _before(
    model: AttentionModel, example: Embedded, marked: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The mass on the unmoved input, its answer [1], and by how far the answer wins."""
    passed = model.run(example.x, example.mask, need_maps=True)
    labels = passed.outputs.argmax(-1)
    clean = mass(passed.self_attention(), example.mask, marked)
    return clean.clamp(min=1e-12), labels, -margin(passed.outputs, labels).clamp(max=-1e-6)


@torch.no_grad()
def _masses(goal: MovedAttention, found: Found, radii: int) -> Floats:
    """The mass at the points that meet their goal, the best of this and each smaller radius."""
    passed = goal.model.run(found.x, goal.mask, need_maps=True)
    on = mass(passed.self_attention(), goal.mask, goal.marked).double()
    signed = torch.where(found.met, on * goal.sign, -torch.inf).view(radii, len(AIMS))
    best = signed.cummax(0).values * SIGNS
    values: Floats = torch.where(best.isfinite(), best, torch.nan).numpy()
    return values


def _bound(config: AttentionConfig | None, n: int, k: int) -> float | None:
    if config is None or config.clip is None:
        return None
    return guarantees.mass_bound(config.logit_bound, config.smallest_temperature, n, k)


def _factor_of_bounds(led: list[_Led]) -> float | None:
    bounds = [each.bound for each in led if each.bound is not None]
    return sum(bounds) / sum(each.clean for each in led) if bounds else None


def _within(led: list[_Led]) -> Control | None:
    over = [np.nanmax(each.masses) / each.bound for each in led if each.bound is not None]
    if not over:
        return None
    return Control(
        f"{len(over)} documents: no attack puts more attention on sensitive parts than the clip "
        "allows (largest share of what is allowed)",
        float(max(over)),
        bool(max(over) <= 1 + ROUNDING),
    )


def _at_scale(led: list[_Led], i: int, resamples: int, seed: int) -> AttentionAtRadius:
    masses, clean = np.stack([each.masses[i] for each in led]), np.array([e.clean for e in led])
    turned = np.isfinite(masses[:, 2:]).any(1)

    def factor(aim: str) -> Estimate:
        own = masses[:, AIMS.index(aim)]
        there = np.isfinite(own)
        if not there.any():
            return UNDEFINED
        value = own[there].sum() / clean[there].sum()
        drawn = bootstrap_ratios(own[there, None], clean[there], resamples, seed)
        return percentile_interval(float(value), drawn[:, 0])

    return AttentionAtRadius(
        scale=SCALES[i],
        onto=factor("kept_onto"),
        off=factor("kept_off"),
        turned=wilson(int(turned.sum()), len(led)),
        turned_onto=factor("turned_onto"),
        turned_off=factor("turned_off"),
    )


def _figures(chosen: list[int], led: list[_Led]) -> Figures:
    clean = np.array([each.clean for each in led])
    return {
        f"attention_attacks.radii[{scale}].{name}": figure(
            chosen, np.array([each.masses[i, aim] for each in led]), clean
        )
        for i, scale in enumerate(SCALES)
        for aim, name in enumerate(("onto", "off"))
    }


class _OneQuery:
    """Attention of one query of ±1/D, whose best attack is known; it answers always alike."""

    def __init__(self, dim: int) -> None:
        self.w = (torch.arange(dim) % 2 * 2.0 - 1.0) / dim

    def run(self, x: Tensor, mask: Tensor, need_maps: bool = False) -> Pass:
        """Weights of the softmax of ``w·x`` over the visible positions, for every query."""
        weights = self.weights(x @ self.w, mask)[:, None, None].expand(-1, 1, x.shape[1], -1)
        outputs = torch.stack([x.sum((1, 2)) * 0 + 1, x.sum((1, 2)) * 0], dim=-1)
        return Pass(outputs, outputs, (AttentionMap("self", weights),))

    @staticmethod
    def weights(logits: Tensor, mask: Tensor) -> Tensor:
        """[B, T] to [B, T]."""
        return logits.masked_fill(~mask, -torch.inf).softmax(-1)

    def best(self, example: Embedded, marked: Tensor, radius: float, sign: float) -> float:
        """The mass after the best attack: each coordinate of ±1/D gives its whole radius."""
        shift = (marked.float() * 2 - 1) * sign * radius * example.content
        weights = self.weights(example.x @ self.w + shift, example.mask)
        return float((weights * marked).sum())


def _positive_control(examples: list[Embedded], marks: list[Tensor]) -> Control:
    """Attack the probe at radius 1, where what is best is written down."""
    wrong = 0
    for example, marked in zip(examples, marks, strict=True):
        probe = _OneQuery(example.x.shape[-1])
        found = _lead([cast(Any, probe)], example, marked, [1.0]).masses[0]
        for aim, sign in enumerate((1.0, -1.0)):
            best = probe.best(example, marked, 1.0, sign)
            wrong += not abs(found[aim] - best) <= EXACT * best
    return Control(
        f"attention of one query, {len(examples)} documents: the mass of the formula is reached",
        float(wrong),
        wrong == 0 and bool(examples),
    )


def _null_control(model: AttentionModel, examples: list[Embedded], marks: list[Tensor]) -> Control:
    moved = 0
    for example, marked in zip(examples, marks, strict=True):
        led = _lead([model], example, marked, [0.0])
        moved += not np.allclose(led.masses[0, :2], led.clean, rtol=ROUNDING)
        moved += bool(np.isfinite(led.masses[0, 2:]).any())
    return Control(
        f"radius 0, at most {UNMOVED} documents: no attention and no answer moves",
        float(moved),
        moved == 0,
    )


def passes(subject: Subject) -> float:
    """Roughly how many documents ``run`` sends through the model."""
    rows = len(SCALES) * len(AIMS)
    return subject.taken(subject.options.ig_documents) * FORTH_AND_BACK * STEPS * rows


def run(
    subject: Subject, answers: Answers, progress: Progress, figures: Figures
) -> AttentionAttackResult:
    """As a measure of an audit."""
    options = subject.options
    return attention_attacks(
        subject.run.model,
        subject.documents,
        subject.affordable(options.ig_documents),
        options.resamples,
        options.seed,
        subject.run.model.config.attention,
        progress,
        figures,
    )
