"""The attacks on one document's answer: which radii they break it at, and the least that they do.

A search comes down from a point that is answered wrongly: along the line to the document, as near
as the answer stays wrong; then by AutoPGD in a ball that is a little smaller, until that finds
nothing. Balls lie within each other: what a point breaks is broken in every larger one, and where
an attack finds nothing, nothing is sought in the smaller ones.

Shapes: B batch, T positions, D model width, S scales.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attnpriv.audit.robustness import SCALES
from attnpriv.audit.robustness.autopgd import autopgd
from attnpriv.audit.robustness.balls import Ball, Norm
from attnpriv.audit.robustness.batches import Answer, Batch, is_right
from attnpriv.audit.robustness.captum_attacks import fgsm, pgd
from attnpriv.audit.robustness.goals import WrongAnswer, losses

STEPS = 12  # of AutoPGD
FURTHEST = 16.0  # the least radius is sought up to so many times the largest scale
NEAREST = SCALES[0] / FURTHEST  # and down to this scale
FINE = 1.03  # the search ends where a radius breaks and one smaller by this factor holds
BALLS = 8  # down to the largest scale, are tried in turn where no line leads to a wrong answer
PARTS = 8  # of a line; the part in which the answer turns is divided once more


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
        least: the least L∞ scale at which any attack broke it; infinite if none did. It is an upper
            bound of the least that would: what holds may yet break.
    """

    clean: bool
    fgsm: tuple[bool, ...]
    pgd: tuple[bool, ...]
    autopgd: tuple[bool, ...]
    strongest: tuple[bool, ...]
    l2: tuple[bool, ...]
    least: float


def attack(target: Target, batch: Batch, document: int = 0) -> Standing:
    """Try every attack on a batch of one document; ``document`` seeds its random starts."""
    if not bool(is_right(target.answer, batch.x, batch)):
        none = (False,) * len(SCALES)
        return Standing(False, none, none, none, none, none, 0.0)
    search = _Search(target, batch, "linf", _generator(target, document))
    by_fgsm, by_pgd, nearest = _by_captum(search)
    own = search.least(nearest, None)
    any_ = own if target.guide is None else search.least(own, target.guide)
    holds = [[at < point.scale for at in SCALES] for point in (own, any_)]
    autopgd, strongest = (_both(by_pgd, each) for each in holds)
    l2 = _both(strongest, _by_l2(replace(search, norm="l2"), any_))
    return Standing(True, by_fgsm, by_pgd, autopgd, strongest, l2, any_.scale)


def _generator(target: Target, document: int) -> torch.Generator:
    return torch.Generator().manual_seed(target.seed * 1_000_003 + document)


def _both(one: Sequence[bool], other: Sequence[bool]) -> tuple[bool, ...]:
    return tuple(a and b for a, b in zip(one, other, strict=True))


@dataclass(frozen=True)
class _Wrong:
    """A point that is answered wrongly, and the scale of a ball that it lies in; or infinity."""

    scale: float
    x: Tensor | None = None

    def or_nearer(self, other: _Wrong) -> _Wrong:
        return other if other.scale < self.scale else self


NOWHERE = _Wrong(math.inf)


@dataclass(frozen=True)
class _Search:
    """A search for wrong points near one document."""

    target: Target
    batch: Batch
    norm: Norm
    generator: torch.Generator

    def least(self, nearest: _Wrong, guide: Answer | None) -> _Wrong:
        """The nearest wrong point that AutoPGD finds from another, down to ``NEAREST``."""
        if nearest.x is None:
            nearest = self._anywhere(guide)
        while nearest.x is not None and nearest.scale > NEAREST:
            inner = [at for at in SCALES if at < nearest.scale]
            found = self.ascend(max(nearest.scale / FINE, *inner, NEAREST), nearest, guide)
            if found.x is None:
                break
            nearest = found
        return nearest

    def _anywhere(self, guide: Answer | None) -> _Wrong:
        """A wrong point in the largest ball that has one, of a few: some answers saturate."""
        for i in range(BALLS + 1):
            scale = SCALES[-1] * FURTHEST ** (1 - i / BALLS)
            found = self.ascend(scale, NOWHERE, guide)
            if found.x is not None:
                return found
        return NOWHERE

    def ascend(self, scale: float, nearest: _Wrong, guide: Answer | None) -> _Wrong:
        """A wrong point within a scale; from the document, below a point, and a random one."""
        starts = self.batch.x
        if nearest.x is not None:
            below = (nearest.x - starts) * min(scale / nearest.scale, 1.0)
            starts = torch.cat([starts, starts + below])
        radius = self.target.radius(scale, self.norm, starts.shape[-1])
        found = _wrong_point(
            self.target, guide, self.batch, radius, self.norm, starts, self.generator
        )
        return NOWHERE if found is None else self.nearer(found, scale)

    def nearer(self, x: Tensor, scale: float) -> _Wrong:
        """How near a wrong point within a scale can come on the line to the document."""
        low, high = 0.0, 1.0
        for _ in range(2):
            shares = [low + (high - low) * part / PARTS for part in range(1, PARTS)]
            wrong = self.wrong(self._on_line(x, shares))
            first = wrong.index(True) if True in wrong else len(wrong)
            low, high = [low, *shares][first], [*shares, high][first]
        x = x if high == 1.0 else self._on_line(x, [high])
        return _Wrong(min(self.scale(x), scale), x)

    def beyond(self, x: Tensor) -> _Wrong:
        """The nearest wrong point on the line from the document through another and beyond."""
        far = self.batch.x + FURTHEST * (x - self.batch.x)
        return self.nearer(far, FURTHEST * SCALES[-1]) if any(self.wrong(far)) else NOWHERE

    def _on_line(self, x: Tensor, shares: Sequence[float]) -> Tensor:
        return self.batch.x + (x - self.batch.x) * torch.tensor(shares).to(x)[:, None, None]

    def wrong(self, x: Tensor) -> list[bool]:
        """Which points in the document's place are answered wrongly."""
        rows = self.batch.repeated(len(x))
        answers: list[bool] = (~is_right(self.target.answer, x, rows)).tolist()
        return answers

    def scale(self, x: Tensor) -> float:
        """Of the smallest ball that a point lies in."""
        move = x - self.batch.x
        size = move.abs().amax() if self.norm == "linf" else move.norm(dim=-1).amax()
        unit = self.target.radius(1.0, self.norm, x.shape[-1])
        return float(size) / unit if unit else 0.0


def breaks(
    target: Target,
    batch: Batch,
    radius: float,
    norm: Norm,
    start: Tensor | None = None,
    document: int = 0,
    steps: int = STEPS,
) -> tuple[bool, bool]:
    """Whether AutoPGD breaks one document: by the model's own gradients, and by any.

    Args:
        target: the model.
        batch: one document.
        radius: of moves.
        norm: of moves.
        start: [1, T, D]; the document itself where it is None. A random one is tried as well.
        document: seeds the random starts, with the target's seed.
        steps: of each ascent.
    """
    start = batch.x if start is None else start
    generator = _generator(target, document)

    def broken(guide: Answer | None) -> bool:
        found = _wrong_point(target, guide, batch, radius, norm, start, generator, steps)
        return found is not None

    own = broken(None)
    return own, own or (target.guide is not None and broken(target.guide))


def _wrong_point(
    target: Target,
    guide: Answer | None,
    batch: Batch,
    radius: float,
    norm: Norm,
    starts: Tensor,
    generator: torch.Generator,
    steps: int = STEPS,
) -> Tensor | None:
    """A point where AutoPGD breaks one document, [1, T, D]; None where it finds none.

    The given starts and a random one are tried, with every loss, until one breaks it.

    Args:
        target: the model.
        guide: whose gradients are followed; those of the model where it is None.
        batch: one document.
        radius: of moves.
        norm: of moves.
        starts: S of them, [S, T, D].
        generator: of the random start.
        steps: of each ascent.
    """
    with torch.no_grad():
        kinds = losses(target.answer(batch.x, batch.mask).shape[-1])
    rows = batch.repeated((len(starts) + 1) * len(kinds))
    each = torch.full((len(rows.x),), radius).to(rows.x)
    ball = target.ball(rows.x, rows.movable, each, norm)
    at = torch.cat([starts.repeat(len(kinds), 1, 1), ball.random(generator)[-len(kinds) :]])
    which = torch.arange(len(kinds))
    which = torch.cat([which.repeat_interleave(len(starts)), which])

    def goal(answer: Answer) -> WrongAnswer:
        return WrongAnswer(answer, rows.mask, rows.labels, kinds, which)

    found = autopgd(
        goal(target.answer),
        ball,
        at,
        steps,
        None if guide is None else goal(guide),
        enough=lambda met: bool(met.any()),
    )
    best = int(torch.where(found.met, found.values, -torch.inf).argmax())
    return found.x[best : best + 1] if bool(found.met[best]) else None


def _by_captum(search: _Search) -> tuple[tuple[bool, ...], tuple[bool, ...], _Wrong]:
    """What holds under FGSM, and under PGD as well; and the nearest wrong point on their lines."""
    target, batch = search.target, search.batch
    radii = torch.tensor([target.radius(at, "linf", batch.x.shape[-1]) for at in SCALES])
    ends = fgsm(target.answer, batch.repeated(len(SCALES)), radii)
    alone = [not each for each in search.wrong(ends)]
    holds = [*alone, False].index(False)  # so many scales, from the smallest on
    if holds:
        by_pgd = pgd(target.answer, batch.repeated(holds), radii[:holds])
        ends = torch.cat([by_pgd, ends[holds:]])
        holds = [*search.wrong(by_pgd), True].index(True)
    if holds < len(SCALES):
        nearest = search.nearer(ends[holds : holds + 1], SCALES[holds])
    else:
        nearest = search.beyond(ends[-1:])
    return tuple(alone), tuple(at < holds for at in range(len(SCALES))), nearest


def _by_l2(search: _Search, nearest: _Wrong) -> list[bool]:
    """At which scales AutoPGD breaks nothing, from the nearest wrong point of ``linf``."""
    guides = (None,) if search.target.guide is None else (None, search.target.guide)
    if nearest.x is not None:
        nearest = _Wrong(search.scale(nearest.x), nearest.x)
    for at in reversed(SCALES):
        for guide in guides:
            if nearest.scale > at:
                nearest = nearest.or_nearer(search.ascend(at, nearest, guide))
        if nearest.scale > at:
            break
    return [at < nearest.scale for at in SCALES]
