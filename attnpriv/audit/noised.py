"""Figures of an audit under one ε: what a record adds to each is bounded, summed and noised.

::

    Layout   who is audited, and how many records: public
      ├── sums() ──► release.sums.plan ──► how much noise each sum gets: public
      ├── exact()    what the records add up to: secret
      └── figures()  estimates with intervals, from the noised sums alone

A figure ``Σ x / Σ y`` over records is measured from a public centre: ``Σ (x - centre·y)`` and
``Σ y`` are noised. So a share, from 0 to 1, moves by half a record at most, and a lift by how far
it is from 1. A record that would add more than its bound has its weight lowered until it does not,
in all of its sums alike; which ones were is not told.

Claim: the figures are (ε, δ)-differentially private for any two audits of which one has a record
more, held-out or trained on. Condition: the records' number, and which of them were trained on, are
public; so is the model. What a record adds depends on that record alone: values that take the place
of others come from public texts, and samples are drawn by place.
Not covered: which rows of a file are audited at all; what the model itself tells of its training
data; the last bits of what other records add, should they move with a record's place in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from attnpriv.audit.comparison import Compared
from attnpriv.audit.figures import Figure
from attnpriv.audit.statistics import Floats
from attnpriv.estimates import UNDEFINED, Z_95, Estimate
from attnpriv.release.sums import GRID, NoisePlan, Sum

AUC = "membership.auc"
MOST_FREQUENT = "utility.most_frequent"
ABOVE, SIZE, SQUARES = "above the centre", "size", "squares"  # the sums of a figure
SHOWS = 5.0  # standard deviations of its noise that a denominator must exceed
ONE_SIDED = 1.6448536269514722  # the 95 % quantile of the standard normal distribution


@dataclass(frozen=True)
class Bound:
    """What one record may add to a figure ``Σ x / Σ y``.

    Attributes:
        centre: from where the figure is measured.
        spread: the most that ``|x - centre·y|`` may be.
        size: the most that y may be; None where y is 1 for every record, so that Σ y is known.
        usual: what y is on average, roughly: it decides how ε is divided, and nothing else.
        wanted: the standard deviation of a noise on the figure that would be welcome.
        low: the figure is never below.
        high: the figure is never above; None for a lift, whose spread over the records is noised
            too, where that of the others is taken to be as large as it can be.
    """

    centre: float
    spread: float
    size: float | None
    usual: float
    wanted: float
    low: float = 0.0
    high: float | None = 1.0


_SHARE = Bound(0.5, 0.5, None, 1.0, 0.01)
_LIFT = Bound(1.0, 0.1, 0.3, 0.15, 0.015, high=None)
_SWAPPED = Bound(0.5, 0.5, 1.0, 0.7, 0.015)
BOUNDS: dict[str, Bound] = {
    "utility.accuracy": _SHARE,
    "attention.overall.lift": _LIFT,
    "attention.matched.lift": _LIFT,
    "attention.heads[*].normalised_entropy": Bound(0.5, 0.5, None, 1.0, 0.03),
    "attention.heads[*].special_mass": Bound(0.5, 0.5, None, 1.0, 0.03),
    "flow.rollout.permuted.lift": Bound(1.0, 0.1, 0.3, 0.15, 0.03, high=None),
    "flow.rollout.matched.lift": _LIFT,
    "flow.norm_weighted.permuted.lift": Bound(1.0, 0.1, 0.3, 0.15, 0.03, high=None),
    "flow.norm_weighted.matched.lift": _LIFT,
    "counterfactual.overall.swap.flips": _SWAPPED,
    "counterfactual.overall.swap_null.flips": _SWAPPED,
    "counterfactual.overall.swap.change": _SWAPPED,
    "counterfactual.overall.excess": Bound(0.0, 1.0, 1.0, 0.7, 0.03, low=-1.0),
}
"""Every figure that is noised, but for the AUC and the classes."""


@dataclass(frozen=True)
class NoisedFigure:
    """One figure of a run.

    Attributes:
        estimate: with a 95 % interval for both the noise and the choice of the records.
        noise: the standard deviation of the noise on it.
    """

    estimate: Estimate
    noise: float | None


HIDDEN = NoisedFigure(UNDEFINED, None)
"""A figure that does not show through the noise."""


@dataclass(frozen=True)
class Layout:
    """What is public of an audited run.

    Attributes:
        run: its number.
        held_out: records that it was not trained on.
        classes: number of classes K.
        groups: members and non-members of the membership test; None without the test.
    """

    run: int
    held_out: int
    classes: int
    groups: tuple[int, int] | None

    def sums(self) -> list[Sum]:
        """What of the run is noised."""
        found = [
            each for path, bound in BOUNDS.items() for each in self._ratio(self._name(path), bound)
        ]
        # A record has one class. The noise is welcome at two records of a hundred.
        found.append(Sum(self._name(MOST_FREQUENT), self.classes, 1, 1, 0.02 * self.held_out))
        if self.groups:
            pairs, most = self.groups[0] * self.groups[1], max(self.groups)
            found.append(Sum(self._name(AUC), 1, most, most, 0.01 * 2 * pairs))
        return found

    def exact(self, own: Compared, labels: Sequence[int]) -> dict[str, list[int]]:
        """What the records of the run add up to, by the names of the sums."""
        found: dict[str, list[int]] = {}
        for path, bound in BOUNDS.items():
            added = contributions(own.figures[path], bound)
            found |= {f"{self._name(path)} {of}": sum_up(each) for of, each in added.items()}
        found[self._name(MOST_FREQUENT)] = np.bincount(labels, minlength=self.classes).tolist()
        if self.groups:
            assert own.scores is not None
            found[self._name(AUC)] = [wins(*own.scores)]
        return found

    def figures(
        self, plan: NoisePlan, noised: Mapping[str, Sequence[int]]
    ) -> dict[str, NoisedFigure]:
        """The figures by their paths, from what was noised."""
        found = {path: self._figure(path, bound, plan, noised) for path, bound in BOUNDS.items()}
        found[MOST_FREQUENT] = self._most_frequent(plan, noised)
        if self.groups:
            found[AUC] = self._auc(self.groups, plan, noised)
        return found

    def _name(self, path: str) -> str:
        return f"{self.run} {path}"

    def _ratio(self, name: str, bound: Bound) -> list[Sum]:
        """The sums of one figure; the noise of its denominator shall move it as little."""
        spread, usual = steps(bound.spread), bound.usual * self.held_out * GRID
        found = [Sum(f"{name} {ABOVE}", 1, spread, spread, bound.wanted * usual)]
        if bound.size is not None:
            size = steps(bound.size)
            found.append(Sum(f"{name} {SIZE}", 1, size, size, 0.07 * usual))
        if bound.high is None:
            # Three numbers of a Euclidean length of at most 2·spread², each rounded.
            length = steps(2 * bound.spread**2) + 2
            wanted = 0.1 * bound.spread**2 * self.held_out * GRID
            found.append(Sum(f"{name} {SQUARES}", 3, length, 2 * length, wanted))
        return found

    def _figure(
        self, path: str, bound: Bound, plan: NoisePlan, noised: Mapping[str, Sequence[int]]
    ) -> NoisedFigure:
        name = self._name(path)
        above, error = noised[f"{name} {ABOVE}"][0], plan.deviation(f"{name} {ABOVE}")
        size, own = float(self.held_out * GRID), 0.0
        if bound.size is not None:
            size, own = float(noised[f"{name} {SIZE}"][0]), plan.deviation(f"{name} {SIZE}")
            if size < SHOWS * own:
                return HIDDEN
        off = above / size
        noise = float(np.hypot(error, off * own) / size)
        value = bound.centre + off
        if bound.high is None:
            squares = noised[f"{name} {SQUARES}"]
            spread = _scattered(squares, plan.deviation(f"{name} {SQUARES}"), off, bound)
            return _between(value, noise, spread * GRID / size**2, bound)
        held = min(max(value, bound.low), bound.high)
        most = (bound.high - held) * (held - bound.low)  # Bhatia and Davis 2000
        return _between(held, noise, most * GRID / size, bound)

    def _most_frequent(self, plan: NoisePlan, noised: Mapping[str, Sequence[int]]) -> NoisedFigure:
        name, bound = self._name(MOST_FREQUENT), _SHARE
        share = min(max(noised[name]) / self.held_out, 1.0)
        variance = share * (1 - share) / self.held_out
        return _between(share, plan.deviation(name) / self.held_out, variance, bound)

    def _auc(
        self, groups: tuple[int, int], plan: NoisePlan, noised: Mapping[str, Sequence[int]]
    ) -> NoisedFigure:
        """The interval takes the largest variance that an area may have.

        Source: Birnbaum and Klose 1957, area·(1 - area)/min(m, n).
        """
        pairs = 2 * groups[0] * groups[1]
        area = min(max(0.5 + noised[self._name(AUC)][0] / pairs, 0.0), 1.0)
        noise = plan.deviation(self._name(AUC)) / pairs
        return _between(area, noise, area * (1 - area) / min(groups), _SHARE)


def contributions(of: Figure, bound: Bound) -> dict[str, Floats]:
    """What each record adds to the sums of a figure, in whole steps, [records] or [records, 3]."""
    x, y = np.array(of.numerators), np.array(of.denominators)
    told = np.isfinite(x) & np.isfinite(y)  # an error would tell of a record that gives none
    off, y = np.where(told, x - bound.centre * y, 0.0), np.where(told, y, 0.0)
    size = 1.0 if bound.size is None else bound.size
    with np.errstate(divide="ignore"):
        weight = np.minimum(1.0, np.minimum(bound.spread / np.abs(off), size / np.abs(y)))
    off, y = weight * off, weight * y
    found = {ABOVE: _whole(off, bound.spread)}
    if bound.size is not None:
        found[SIZE] = _whole(y, bound.size)
    if bound.high is None:
        even = y * bound.spread / size
        squares = np.stack([off**2, 2**0.5 * off * even, even**2], axis=1)
        found[SQUARES] = np.rint(squares * GRID)
    return found


def wins(members: Floats, others: Floats) -> int:
    """Pairs in which the member scores higher, less those in which the other does."""
    m, n = len(members), len(others)
    scores = np.nan_to_num(np.concatenate([members, others]))
    ranks = rankdata(scores)[:m].sum()
    return round(2 * float(ranks) - m * (m + 1) - m * n)


def steps(value: float) -> int:
    """A bound in whole steps, rounded down."""
    return int(value * GRID)


def sum_up(added: Floats) -> list[int]:
    """The exact sums of whole numbers."""
    return [int(total) for total in np.atleast_1d(added.astype(np.int64).sum(0))]


def _whole(values: Floats, bound: float) -> Floats:
    most = steps(bound)
    return np.clip(np.trunc(values * GRID), -most, most)


def _scattered(squares: Sequence[int], deviation: float, off: float, bound: Bound) -> float:
    """An upper bound on ``Σ (x - figure·y)²``, in steps, right in 95 of 100 audits."""
    assert bound.size is not None
    slope = off * bound.size / bound.spread
    found = squares[0] - 2**0.5 * slope * squares[1] + slope**2 * squares[2]
    return max(0.0, found) + ONE_SIDED * deviation * (1 + slope**2)


def _between(value: float, noise: float, variance: float, bound: Bound) -> NoisedFigure:
    half = Z_95 * float(np.sqrt(noise**2 + variance))
    high = np.inf if bound.high is None else bound.high
    held = min(max(value, bound.low), high)
    estimate = Estimate(held, max(held - half, bound.low), min(held + half, high))
    return NoisedFigure(estimate, noise)
