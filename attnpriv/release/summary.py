"""What many texts have in common, told under a price: label counts, and means by group.

A group is a type of personal data, or a word that the caller named; the groups and the number of
texts are public. Each text gives its label and the shares of its attention and of its attribution
that fall on each group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from attnpriv.errors import InputError
from attnpriv.estimates import Z_95, Estimate
from attnpriv.release.cost import MICRO, Cost, cost_of_pure
from attnpriv.release.sums import GRID, NoisePlan, Sum, plan

Floats = NDArray[np.float64]
Kind = Literal["attention", "attribution"]
KINDS: tuple[Kind, ...] = ("attention", "attribution")
CAP = 0.3  # of the Euclidean length of a text's shares
SHARE_VARIES = 0.1  # by how much a share usually differs from text to text
LABELS = "labels"


@dataclass(frozen=True)
class TextFigures:
    """What one text gives.

    Attributes:
        label: the number of its predicted class.
        shares: of its attention and of its attribution, the part on each group, from 0 to 1.
    """

    label: int
    shares: Mapping[Kind, Sequence[float]]


@dataclass(frozen=True)
class Summary:
    """What is told of many texts; intervals are 95 % and hold the noise and the choice of texts.

    Attributes:
        labels: texts of each class.
        means: of each kind, the mean share of each group over all texts.
        by_label: of each kind, the mean share of all groups together over the texts of each class;
            undefined for a class whose texts do not show through the noise; None if not asked for.
    """

    labels: tuple[Estimate, ...]
    means: Mapping[Kind, tuple[Estimate, ...]]
    by_label: Mapping[Kind, tuple[Estimate, ...]] | None


@dataclass(frozen=True)
class Summarizer:
    """Summaries of N texts, whose price is known before a text is read.

    A text whose shares have a Euclidean length above ``CAP`` has them scaled down to it, so that
    one text cannot add more. A certificate does not enter: its bound on the attention of a group
    is that of the worst text, and above the cap for any group of usual size.

    Claim: a summary is differentially private for any two sets of texts of which one has a text
    more: pure with ε = ``micro_epsilon`` millionths where ``delta`` is 0, else (ε, δ), and zCDP
    with the ρ of ``cost``. Condition: N, the classes and the groups are public, and what a text
    gives depends on that text alone.
    Not covered: which texts were asked about; how many shares were scaled down, which is not told.

    Attributes:
        texts: their number N.
        classes: the number of classes.
        groups: the number of groups.
        micro_epsilon: ε in millionths.
        delta: δ, below 1/N; 0 for pure differential privacy.
        by_label: whether to tell means by class too. They rest on fewer texts each, so that at 500
            texts and ε = 1 their noise, and then that of all else, is larger than what the choice
            of the texts does.

    Raises:
        InputError: an attribute is out of range.
    """

    texts: int
    classes: int
    groups: int
    micro_epsilon: int
    delta: float = 0.0
    by_label: bool = False

    def __post_init__(self) -> None:
        for name in ("texts", "classes", "groups"):
            if getattr(self, name) < 1:
                raise InputError(f"expected {name} >= 1, got {getattr(self, name)}")
        if not 0 <= self.delta < 1 / self.texts:
            raise InputError(f"expected delta from 0 to below 1/{self.texts}, got {self.delta}")
        _ = self.plan  # refuses a bad ε

    @cached_property
    def plan(self) -> NoisePlan:
        """The noise, which wants to be as large as what the choice of the texts does anyway."""
        cap, varies = int(CAP * GRID), SHARE_VARIES * GRID * self.texts**0.5
        share = 1 / self.classes
        sums = [Sum(LABELS, self.classes, 1, 1, (self.texts * share * (1 - share) + 1) ** 0.5)]
        for kind in KINDS:
            # The shares of a text are rounded down, and of one sign.
            wide = int(cap * self.groups**0.5) + 1
            sums.append(Sum(kind, self.groups, cap, wide, varies))
            if self.by_label:
                sums.append(Sum(f"{kind} by label", self.classes, wide, wide, varies))
        return plan(sums, self.micro_epsilon / MICRO, self.delta)

    @property
    def cost(self) -> Cost:
        """What a summary costs: ε, and ρ as accounts under zCDP count it."""
        if self.plan.mechanism == "discrete Laplace":
            return cost_of_pure(self.micro_epsilon)
        return Cost(self.micro_epsilon, sum(price.micro for price in self.plan.prices))

    def exact(self, texts: Sequence[TextFigures]) -> dict[str, list[int]]:
        """What the texts add up to, which is secret: for ``summary`` and nothing else.

        Raises:
            InputError: there are not N texts.
        """
        if len(texts) != self.texts:
            raise InputError(f"expected {self.texts} texts, got {len(texts)}")
        labels = np.array([text.label for text in texts])
        sums = {LABELS: np.bincount(labels, minlength=self.classes).tolist()}
        for kind in KINDS:
            added = self._bounded(np.array([text.shares[kind] for text in texts], dtype=np.float64))
            sums[kind] = added.sum(0).tolist()
            if self.by_label:
                totals = np.zeros(self.classes, dtype=np.int64)
                np.add.at(totals, labels, added.sum(1))
                sums[f"{kind} by label"] = totals.tolist()
        return sums

    def summary(self, texts: Sequence[TextFigures]) -> Summary:
        """A summary with new noise; charge ``cost`` first.

        Raises:
            InputError: there are not N texts, or OpenDP is not installed.
        """
        return self.read(self.plan.add(self.exact(texts)))

    def read(self, noised: Mapping[str, Sequence[int]]) -> Summary:
        """The summary that noised sums tell, from nothing but them."""
        return Summary(
            labels=tuple(self._count(count) for count in noised[LABELS]),
            means={kind: tuple(self._mean(kind, each) for each in noised[kind]) for kind in KINDS},
            by_label=self._by_label(noised) if self.by_label else None,
        )

    def _by_label(self, noised: Mapping[str, Sequence[int]]) -> dict[Kind, tuple[Estimate, ...]]:
        return {
            kind: tuple(
                self._of_label(f"{kind} by label", each, count)
                for each, count in zip(noised[f"{kind} by label"], noised[LABELS], strict=True)
            )
            for kind in KINDS
        }

    def _bounded(self, shares: Floats) -> NDArray[np.int64]:
        """Shares [N, groups] in whole steps, none of whose lengths is above the cap."""
        told = np.clip(np.nan_to_num(shares, nan=0.0), 0.0, 1.0)
        length = np.linalg.norm(told, axis=1, keepdims=True)
        scaled = told * np.minimum(1.0, CAP / np.maximum(length, CAP))
        whole: NDArray[np.int64] = np.trunc(scaled * (GRID - 4)).astype(np.int64)
        return whole

    def _count(self, count: int) -> Estimate:
        held = min(max(count, 0), self.texts)
        chosen = held * (1 - held / self.texts)
        half = Z_95 * (chosen + self.plan.deviation(LABELS) ** 2) ** 0.5
        return Estimate(held, max(held - half, 0.0), min(held + half, self.texts))

    def _mean(self, name: str, total: int) -> Estimate:
        return _share(total / GRID, self.plan.deviation(name) / GRID, self.texts, CAP)

    def _of_label(self, name: str, total: int, count: int) -> Estimate:
        if count < 5 * self.plan.deviation(LABELS):
            return Estimate(None, None, None)
        most = CAP * self.groups**0.5
        mean = min(max(total / GRID / count, 0.0), most)
        noise = np.hypot(self.plan.deviation(name) / GRID, mean * self.plan.deviation(LABELS))
        return _share(mean * count, float(noise), count, most)


def _share(total: float, noise: float, texts: int, most: float) -> Estimate:
    """A mean of values from 0 to ``most``, whose spread is taken to be as large as it can be."""
    mean = min(max(total / texts, 0.0), most)
    half = Z_95 * ((noise / texts) ** 2 + mean * (most - mean) / texts) ** 0.5
    return Estimate(mean, max(mean - half, 0.0), min(mean + half, 1.0))
