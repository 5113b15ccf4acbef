"""What many texts have in common, told under a price: label counts, and means by group.

A group is a type of personal data, or a word that the caller named; the groups and the number of
texts are public. Each text gives its label and the shares of its attention and of its attribution
that fall on each group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from attnpriv.errors import InputError
from attnpriv.estimates import Z_95
from attnpriv.release.cost import MICRO, Cost, cost_of_pure
from attnpriv.release.sums import GRID, NoisePlan, Sum, plan

Kind = Literal["attention", "attribution"]
KINDS: tuple[Kind, ...] = ("attention", "attribution")
LABELS = "labels"
CAP = 0.25  # of a text's shares together
SHARE_VARIES = 0.05  # by how much a share usually differs from text to text


@dataclass(frozen=True)
class TextFigures:
    """What one text gives.

    Attributes:
        label: the number of its predicted class.
        shares: of each kind, the part on each group, from 0 to 1.
    """

    label: int
    shares: Mapping[Kind, Sequence[float]]


@dataclass(frozen=True)
class Noised:
    """A number with noise; all are None where the noise leaves nothing to tell.

    Attributes:
        value: the number.
        low: lower end of the 95 % interval, which holds the noise and the choice of the texts.
        high: its upper end.
        noise: the standard deviation of the noise alone.
    """

    value: float | None
    low: float | None
    high: float | None
    noise: float | None


UNTOLD = Noised(None, None, None, None)


@dataclass(frozen=True)
class Summary:
    """What is told of many texts; what was not asked for is empty.

    Attributes:
        labels: texts of each class.
        means: of each kind, the mean share of each group over all texts.
        by_label: of each kind, the mean share of all groups together over the texts of each class;
            ``UNTOLD`` for a class whose texts do not show through the noise.
    """

    labels: tuple[Noised, ...]
    means: Mapping[Kind, tuple[Noised, ...]]
    by_label: Mapping[Kind, tuple[Noised, ...]]


@dataclass(frozen=True)
class Summarizer:
    """Summaries of N texts, whose price is known before a text is read.

    A text whose shares add up to more than ``cap`` has them scaled down to it. So one text counts
    no more than that, however many groups there are. A certificate does not enter: its bound on the
    attention of a group is that of the worst text, and above the cap.

    Claim: a summary is pure ε-differential privacy for any two lists of N texts of which one text
    differs, whatever stands in its place; ε is ``micro_epsilon`` millionths. Condition: N, the
    classes, the groups and all attributes are public, and what a text gives depends on that text
    alone. Not covered: which texts were asked about; a person who wrote several of them; how many
    shares were scaled down, which is not told.

    Attributes:
        texts: their number N.
        classes: the number of classes.
        groups: the number of groups.
        micro_epsilon: ε in millionths, divided among what is told.
        labels: whether to count labels.
        kinds: of what to tell means.
        by_label: whether to tell means by class too. They rest on fewer texts each, and leave
            less of ε for all else.
        cap: the most that the shares of one text add up to. Smaller means less noise, and that
            more is cut from texts in which the groups weigh much.

    Raises:
        InputError: an attribute is out of range, nothing is asked for, or means by class without
            the labels.
    """

    texts: int
    classes: int
    groups: int
    micro_epsilon: int
    labels: bool = True
    kinds: tuple[Kind, ...] = KINDS
    by_label: bool = False
    cap: float = CAP

    def __post_init__(self) -> None:
        for name in ("texts", "classes", "groups"):
            if getattr(self, name) < 1:
                raise InputError(f"expected {name} >= 1, got {getattr(self, name)}")
        if not 0.01 <= self.cap <= 1:
            raise InputError(f"expected cap from 0.01 to 1, got {self.cap}")
        if not self.labels and not self.kinds:
            raise InputError("expected labels or a kind of mean to tell, got nothing")
        if self.by_label and not (self.labels and self.kinds):
            raise InputError("expected labels and a kind of mean where means are told by label")
        _ = self.plan  # refuses a bad ε

    @cached_property
    def plan(self) -> NoisePlan:
        """The noise, which wants to be as large as what the choice of the texts does anyway."""
        return plan(list(self._sums()), self.micro_epsilon / MICRO, 0.0)

    @property
    def cost(self) -> Cost:
        """What a summary costs."""
        return cost_of_pure(self.micro_epsilon)

    def exact(self, texts: Sequence[TextFigures]) -> dict[str, list[int]]:
        """What the texts add up to, which is secret: for ``summary`` and nothing else.

        Raises:
            InputError: there are not N texts.
        """
        if len(texts) != self.texts:
            raise InputError(f"expected {self.texts} texts, got {len(texts)}")
        labels = np.array([text.label for text in texts])
        sums: dict[str, list[int]] = {}
        if self.labels:
            sums[LABELS] = np.bincount(labels, minlength=self.classes).tolist()
        for kind in self.kinds:
            added = self._bounded(np.array([text.shares[kind] for text in texts], dtype=np.float64))
            sums[kind] = added.sum(0).tolist()
            if self.by_label:
                totals = np.zeros(self.classes, dtype=np.int64)
                np.add.at(totals, labels, added.sum(1))
                sums[_of_labels(kind)] = totals.tolist()
        return sums

    def summary(self, texts: Sequence[TextFigures]) -> Summary:
        """A summary with new noise; charge ``cost`` first.

        Raises:
            InputError: there are not N texts, or OpenDP is not installed.
        """
        return self.read(self.plan.add(self.exact(texts)))

    def read(self, noised: Mapping[str, Sequence[int]]) -> Summary:
        """The summary that noised sums tell, from nothing but them."""
        told_apart = self.kinds if self.by_label else ()
        return Summary(
            labels=tuple(map(self._count, noised[LABELS])) if self.labels else (),
            means={
                kind: tuple(self._mean(kind, total) for total in noised[kind])
                for kind in self.kinds
            },
            by_label={
                kind: tuple(
                    self._of_label(_of_labels(kind), total, count)
                    for total, count in zip(noised[_of_labels(kind)], noised[LABELS], strict=True)
                )
                for kind in told_apart
            },
        )

    def _sums(self) -> Iterator[Sum]:
        """What is noised. Where one text takes the place of another, both can move a sum."""
        share = 1 / self.classes
        if self.labels:
            varies = (self.texts * share * (1 - share) + 1) ** 0.5
            yield Sum(LABELS, self.classes, 2, 2, varies)
        most, varies = 2 * self._most, SHARE_VARIES * GRID * self.texts**0.5
        for kind in self.kinds:
            yield Sum(kind, self.groups, most, most, varies)
            if self.by_label:
                yield Sum(_of_labels(kind), self.classes, most, most, varies)

    @property
    def _most(self) -> int:
        """The most steps that the shares of one text add up to, however they were rounded."""
        return int(self.cap * GRID) + 1

    def _bounded(self, shares: NDArray[np.float64]) -> NDArray[np.int64]:
        """Shares [N, groups] in whole steps, those of a text scaled down to the cap."""
        told = np.clip(np.nan_to_num(shares, nan=0.0), 0.0, 1.0)
        total = told.sum(1, keepdims=True)
        scaled = told * np.minimum(1.0, self.cap / np.maximum(total, self.cap))
        whole: NDArray[np.int64] = np.trunc(scaled * GRID).astype(np.int64)
        return whole

    def _count(self, count: int) -> Noised:
        held = min(max(count, 0), self.texts)
        noise = self.plan.deviation(LABELS)
        half = Z_95 * (held * (1 - held / self.texts) + noise**2) ** 0.5
        return Noised(held, max(held - half, 0.0), min(held + half, self.texts), noise)

    def _mean(self, name: str, total: int) -> Noised:
        return self._share(total / GRID, self.plan.deviation(name) / GRID, self.texts)

    def _of_label(self, name: str, total: int, count: int) -> Noised:
        if count < 5 * self.plan.deviation(LABELS):
            return UNTOLD
        mean = min(max(total / GRID / count, 0.0), self.cap)
        noise = np.hypot(self.plan.deviation(name) / GRID, mean * self.plan.deviation(LABELS))
        return self._share(mean * count, float(noise), count)

    def _share(self, total: float, noise: float, texts: int) -> Noised:
        """A mean of values from 0 to the cap, whose spread is taken to be as large as it can be."""
        mean, of_noise = min(max(total / texts, 0.0), self.cap), noise / texts
        half = Z_95 * (of_noise**2 + mean * (self.cap - mean) / texts) ** 0.5
        return Noised(mean, max(mean - half, 0.0), min(mean + half, 1.0), of_noise)


def _of_labels(kind: Kind) -> str:
    return f"{kind} by label"
