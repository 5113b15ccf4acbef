"""How interventions on texts change answers: the change of one answer, and means over many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log2

from attnpriv.estimates import SIGNIFICANT, UNDEFINED, Estimate, holm
from attnpriv_client.audit.results import Effect, EntityEffect
from attnpriv_client.audit.statistics import bootstrap_ratios, sign_flip_p_value

PERMUTATIONS = 1000
ALL = "ALL"
SWAP, MASK, SWAP_NULL, MASK_NULL = range(4)  # the interventions, in the order of all lists of them

Answer = tuple[str, Mapping[str, float] | None]
"""The label, and the probabilities if they are released."""


@dataclass(frozen=True)
class Changes:
    """The change from one answer to another; all but the flip are 0 if probabilities are withheld.

    Attributes:
        drop: the fall in the probability of the class that was predicted before.
        change: the absolute value of the drop.
        divergence: Jensen-Shannon divergence in bits.
        flip: 1 if another class is predicted, else 0.
    """

    drop: float
    change: float
    divergence: float
    flip: float


@dataclass(frozen=True)
class Measured:
    """A replaced value with the changes by each of the four interventions."""

    document: int
    entity_type: str
    same_length: bool
    changes: tuple[Changes, ...]


def changes(before: Answer, after: Answer) -> Changes:
    """What an intervention did to an answer."""
    flip = float(before[0] != after[0])
    if before[1] is None or after[1] is None:
        return Changes(0.0, 0.0, 0.0, flip)
    drop = before[1][before[0]] - after[1][before[0]]
    pairs = [(p, after[1][name]) for name, p in before[1].items()]
    middle = _entropy([(p + q) / 2 for p, q in pairs])
    ends = _entropy([p for p, _ in pairs]) + _entropy([q for _, q in pairs])
    return Changes(drop, abs(drop), max(0.0, middle - ends / 2), flip)


def _entropy(probabilities: Sequence[float]) -> float:
    return -sum(p * log2(p) for p in probabilities if p > 0)


@dataclass(frozen=True)
class Statistics:
    """Means over values of personal data, with a bootstrap and a sign test over documents.

    Attributes:
        documents: number of documents.
        present: number of values of each type in them.
        released: whether probabilities are released; if not, flips decide.
        seed: seed of the bootstrap and the signs.
    """

    documents: int
    present: Counter[str]
    released: bool
    seed: int

    def effect(self, measured: Sequence[Measured], kind: str | None) -> EntityEffect:
        """The effect for one entity type, or for all of them; its p-value is not corrected yet."""
        some = [each for each in measured if kind in (None, each.entity_type)]
        p_value = self.p_value(some) if some else None
        swap, mask, swap_null, mask_null = (self._effect(some, i) for i in range(4))
        return EntityEffect(
            entity_type=ALL if kind is None else kind,
            entities=len(some),
            documents=len({each.document for each in some}),
            same_length=sum(each.same_length for each in some),
            left_out=(self.present.total() if kind is None else self.present[kind]) - len(some),
            swap=swap,
            mask=mask,
            swap_null=swap_null,
            mask_null=mask_null,
            excess=self._mean(some, self.excess),
            p_value=p_value,
            p_adjusted=p_value,
            flagged=p_value is not None and p_value < SIGNIFICANT,
        )

    def excess(self, each: Measured) -> float:
        """By how much the swap changes the answer more than its null does."""
        swap, null = each.changes[SWAP], each.changes[SWAP_NULL]
        return swap.change - null.change if self.released else swap.flip - null.flip

    def p_value(self, measured: Sequence[Measured]) -> float:
        """The one-sided p-value of the excess."""
        sums = self._by_document(measured, self.excess)
        return sign_flip_p_value(sums, PERMUTATIONS, self.seed)

    def _effect(self, measured: Sequence[Measured], intervention: int) -> Effect:
        def mean(field: Callable[[Changes], float]) -> Estimate:
            return self._mean(measured, lambda each: field(each.changes[intervention]))

        flips = mean(lambda each: each.flip)
        if not self.released:
            return Effect(None, None, None, flips)
        return Effect(
            mean(lambda each: each.drop),
            mean(lambda each: each.change),
            mean(lambda each: each.divergence),
            flips,
        )

    def _mean(self, measured: Sequence[Measured], value: Callable[[Measured], float]) -> Estimate:
        if not measured:
            return UNDEFINED
        weights = self._by_document(measured, lambda each: 1.0)
        return bootstrap_ratios([self._by_document(measured, value)], weights, self.seed)[0]

    def _by_document(
        self, measured: Sequence[Measured], value: Callable[[Measured], float]
    ) -> list[float]:
        sums = [0.0] * self.documents
        for each in measured:
            sums[each.document] += value(each)
        return sums


def corrected(types: Sequence[EntityEffect]) -> tuple[EntityEffect, ...]:
    """The same effects with p-values that are Holm-corrected over all types that have one."""
    adjusted = iter(holm([each.p_value for each in types if each.p_value is not None]))
    found = []
    for each in types:
        p_value = None if each.p_value is None else next(adjusted)
        flagged = p_value is not None and p_value < SIGNIFICANT
        found.append(replace(each, p_adjusted=p_value, flagged=flagged))
    return tuple(found)
