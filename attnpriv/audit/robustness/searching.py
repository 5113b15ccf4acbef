"""The attacks on one document's answer: which radii they break it at, and the least that they do.

Shapes: B batch, T positions, D model width, S radii.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attnpriv.audit.robustness import SCALES
from attnpriv.audit.robustness.autopgd import autopgd
from attnpriv.audit.robustness.balls import Ball, Norm
from attnpriv.audit.robustness.batches import Answer, Batch, is_right
from attnpriv.audit.robustness.captum_attacks import Attack, fgsm, pgd
from attnpriv.audit.robustness.goals import WrongAnswer, losses

STEPS = 12  # of AutoPGD
FURTHEST = 16.0  # the least radius is sought up to so many times the largest scale
BETWEEN = 7  # radii that are tried at once between one that holds and one that breaks
FINE = 1.125  # the search ends where two such radii differ by no more than this factor


@dataclass(frozen=True)
class Target:
    """A model under attack.

    Attributes:
        answer: of the model.
        guide: of the model without its clip, whose gradients are followed too; None without one.
        deviation: of a coordinate, by which scales are multiplied.
        seed: of random starts.
        ball: what makes a ball of x, movable, radii and norm.
    """

    answer: Answer
    guide: Answer | None
    deviation: float
    seed: int = 0
    ball: Callable[[Tensor, Tensor, Tensor, Norm], Ball] = Ball

    def radius(self, scale: float, norm: Norm, width: int) -> float:
        """Of a scale; in ``l2``, the length of a move of every coordinate by that of ``linf``."""
        return scale * self.deviation * (math.sqrt(width) if norm == "l2" else 1.0)


@dataclass(frozen=True)
class Standing:
    """Whether one document is answered rightly under each attack, by scale.

    Each attack counts what it broke at a smaller scale too, and what the one before it broke.

    Attributes:
        clean: without attack.
        fgsm: under FGSM alone.
        pgd: under FGSM and PGD.
        autopgd: under AutoPGD as well.
        strongest: under AutoPGD by the gradients of the model without its clip as well.
        l2: of all these, in the ball of ``l2`` of the same scale, which is larger.
    """

    clean: bool
    fgsm: tuple[bool, ...]
    pgd: tuple[bool, ...]
    autopgd: tuple[bool, ...]
    strongest: tuple[bool, ...]
    l2: tuple[bool, ...]


def attack(target: Target, batch: Batch, document: int = 0) -> Standing:
    """Try every attack on a batch of one document at every scale; ``document`` seeds its starts."""
    if not bool(is_right(target.answer, batch.x, batch)):
        none = (False,) * len(SCALES)
        return Standing(False, none, none, none, none, none)
    radii = [target.radius(scale, "linf", batch.x.shape[-1]) for scale in SCALES]
    by_fgsm = [holds_under(target.answer, batch, fgsm, radius) for radius in radii]
    by_pgd, ends = _by_pgd(target.answer, batch, by_fgsm, radii)
    own, all_ = _by_autopgd(target, batch, "linf", by_pgd, ends, document)
    _, l2 = _by_autopgd(target, batch, "l2", all_, ends, document)
    return Standing(True, tuple(by_fgsm), tuple(by_pgd), tuple(own), tuple(all_), tuple(l2))


def holds_under(answer: Answer, batch: Batch, attack: Attack, radius: float) -> bool:
    """Whether one document is answered rightly after an attack."""
    return bool(is_right(answer, attack(answer, batch, radius), batch))


def breaks(
    target: Target,
    batch: Batch,
    radii: Sequence[float],
    norm: Norm,
    starts: Tensor,
    document: int = 0,
    steps: int = STEPS,
) -> tuple[Tensor, Tensor]:
    """At which radii AutoPGD breaks one document: by the model's own gradients, and by any, [S].

    For each radius two starts are tried, the given and a random one, with every loss.

    Args:
        target: the model.
        batch: one document.
        radii: S of them.
        norm: of moves.
        starts: [S, T, D].
        document: seeds the random starts, with the target's seed.
        steps: of each ascent.
    """
    generator = torch.Generator().manual_seed(target.seed * 1_000_003 + document)
    own = _ascend(target, None, batch, radii, norm, starts, generator, steps)
    left = (~own).nonzero().squeeze(1)
    if target.guide is None or not len(left):
        return own, own
    either = own.clone()
    fewer = [radii[i] for i in left.tolist()]
    either[left] = _ascend(target, target.guide, batch, fewer, norm, starts[left], generator, steps)
    return own, either


def _ascend(
    target: Target,
    guide: Answer | None,
    batch: Batch,
    radii: Sequence[float],
    norm: Norm,
    starts: Tensor,
    generator: torch.Generator,
    steps: int,
) -> Tensor:
    """Which radii are broken, [S]: all starts and losses of all radii in one batch."""
    with torch.no_grad():
        kinds = losses(target.answer(batch.x, batch.mask).shape[-1])
    count = len(radii)
    rows = batch.part(torch.zeros(2 * len(kinds) * count, dtype=torch.int64))
    each = torch.tensor(radii).repeat(2 * len(kinds)).to(rows.x)
    ball = target.ball(rows.x, rows.movable, each, norm)
    given = starts.repeat(len(kinds), 1, 1)
    at = torch.cat([given, ball.random(generator)[len(given) :]])
    which = torch.arange(len(kinds)).repeat_interleave(count).repeat(2)

    def goal(answer: Answer) -> WrongAnswer:
        return WrongAnswer(answer, rows.mask, rows.labels, kinds, which)

    def by_radius(met: Tensor) -> Tensor:
        return met.view(-1, count).any(0)

    found = autopgd(
        goal(target.answer),
        ball,
        at,
        steps,
        None if guide is None else goal(guide),
        enough=lambda met: bool(by_radius(met).all()),
    )
    return by_radius(found.met)


def least_scale(target: Target, batch: Batch, standing: Standing, document: int = 0) -> float:
    """The least L∞ scale at which a document answered rightly was broken; infinite if at none.

    Bisection by several radii at once: of those between one that held and one that broke, in equal
    ratios, the least that breaks becomes the new end, until neighbours differ by at most an
    eighth. What holds may yet break: this is an upper bound of the least radius.
    """
    broken = [i for i, holds in enumerate(standing.strongest) if not holds]
    low, high = SCALES[-1], math.inf
    if broken:
        high = SCALES[broken[0]]
        low = SCALES[broken[0] - 1] if broken[0] else high / FURTHEST
    while True:
        end = min(high, FURTHEST * SCALES[-1])
        ratio = math.pow(end / low, 1 / (BETWEEN + 1))
        tried = [low * ratio**i for i in range(1, BETWEEN + 1)]
        tried += [end] if math.isinf(high) else []
        met = _broken_at(target, batch, tried, document)
        low, high = _closer(low, tried, met, high)
        if ratio <= FINE or math.isinf(high):
            return high


def _closer(
    low: float, tried: Sequence[float], met: Sequence[bool], high: float
) -> tuple[float, float]:
    """Neighbours of which the first holds and the second breaks; before, ``low`` and ``high``."""
    least = next((i for i, each in enumerate(met) if each), len(tried))
    return [low, *tried][least], [*tried, high][least]


def _broken_at(target: Target, batch: Batch, scales: Sequence[float], document: int) -> list[bool]:
    radii = [target.radius(scale, "linf", batch.x.shape[-1]) for scale in scales]
    starts = batch.x.expand(len(radii), -1, -1)
    return [bool(each) for each in breaks(target, batch, radii, "linf", starts, document)[1]]


def _by_pgd(
    answer: Answer, batch: Batch, by_fgsm: Sequence[bool], radii: Sequence[float]
) -> tuple[list[bool], Tensor]:
    """What holds under FGSM and PGD at each radius and all smaller, and where PGD ended [S, T, D].

    Where it was not needed, that is the document itself.
    """
    holds, ends, standing = [], [], True
    for fgsm_failed, radius in zip(by_fgsm, radii, strict=True):
        standing = standing and fgsm_failed
        ends.append(pgd(answer, batch, radius) if standing else batch.x)
        standing = standing and bool(is_right(answer, ends[-1], batch))
        holds.append(standing)
    return holds, torch.cat(ends)


def _by_autopgd(
    target: Target, batch: Batch, norm: Norm, before: Sequence[bool], ends: Tensor, document: int
) -> tuple[list[bool], list[bool]]:
    """What of that which held before holds under AutoPGD, by its own gradients and by any."""
    left = [i for i, holds in enumerate(before) if holds]
    if not left:
        return [*before], [*before]
    radii = [target.radius(SCALES[i], norm, batch.x.shape[-1]) for i in left]
    broken = breaks(target, batch, radii, norm, ends[left], document)
    holds = []
    for each in broken:
        lost = {i for i, met in zip(left, each.tolist(), strict=True) if met}
        first = min(lost, default=len(before))
        holds.append([was and i < first for i, was in enumerate(before)])
    return holds[0], holds[1]
