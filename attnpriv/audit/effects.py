"""What interventions on entities do to answers: measured, averaged, tested against their null.

Shapes: K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from attnpriv.audit.figures import Figures, figure
from attnpriv.audit.matched import flipped_gaps
from attnpriv.audit.statistics import Floats, bootstrap_ratios
from attnpriv.estimates import (
    ROUNDING,
    SIGNIFICANT,
    UNDEFINED,
    Control,
    Estimate,
    holm,
    percentile_interval,
)

ALL = "ALL"
KINDS = 4  # of intervention: swap, mask, and the same for the null
MEASURES = 4  # drop, change, flip, divergence
CHANGE, FLIP = 1, 2
SWAP, SWAP_NULL = 0, 2


@dataclass(frozen=True)
class Effect:
    """What one kind of intervention does to the answer, mean over entities.

    Attributes:
        drop: fall of the predicted class's probability.
        change: absolute value of the same.
        flips: share of the entities after which another class is predicted.
        divergence: Jensen-Shannon divergence of the two answers, in bits, 0 to 1.
    """

    drop: Estimate
    change: Estimate
    flips: Estimate
    divergence: Estimate


@dataclass(frozen=True)
class EntityEffect:
    """What swapping and masking the entities of one type does; see ``audit.counterfactual``.

    Attributes:
        entity_type: the type; ``ALL`` for all of them.
        entities: how many were swapped.
        documents: in which they are.
        left_out: entities without a fitting replacement, or in documents too short for the null.
        swap: another value of the same type and length.
        mask: the entity's tokens hidden.
        swap_null: as many tokens that are not sensitive, swapped.
        mask_null: the same tokens hidden.
        excess: by how much the change of ``swap`` exceeds that of ``swap_null``, paired.
        p_value: one-sided sign-flip p-value of the excess.
        p_adjusted: the same, Holm-corrected over the types.
        flagged: whether that is below 0.05.
    """

    entity_type: str
    entities: int
    documents: int
    left_out: int
    swap: Effect
    mask: Effect
    swap_null: Effect
    mask_null: Effect
    excess: Estimate
    p_value: float | None
    p_adjusted: float | None
    flagged: bool


def answer_changes(before: Floats, after: Floats) -> Floats:
    """Drop, absolute change, flip and Jensen-Shannon divergence in bits: [..., K] to [..., 4].

    The first two are of the class that was predicted before.
    """
    before = np.broadcast_to(before, after.shape)
    predicted = before.argmax(-1)[..., None]
    drop = np.take_along_axis(before - after, predicted, -1)[..., 0]
    flip = after.argmax(-1) != predicted[..., 0]
    divergence = _entropy((before + after) / 2) - (_entropy(before) + _entropy(after)) / 2
    return np.stack([drop, np.abs(drop), flip, np.maximum(divergence, 0.0)], axis=-1)


def _entropy(p: Floats) -> Floats:
    return np.asarray(entr(p).sum(-1) / np.log(2))


class EffectStatistics:
    """Means over entities, with documents resampled and their signs drawn.

    Args:
        chosen: all sampled documents.
        origins: document and type of each entity.
        effects: what the interventions do to each answer, [entities, answers, KINDS, MEASURES]; the
            model's answer is the first.
        present: how many entities of each type the documents hold, swapped or not.
        permutations: random signs for the p-values.
        resamples: of the bootstrap over documents.
        seed: of both.
    """

    def __init__(
        self,
        chosen: Sequence[int],
        origins: Sequence[tuple[int, str]],
        effects: Floats,
        present: Counter[str],
        permutations: int,
        resamples: int,
        seed: int,
    ) -> None:
        position = {document: row for row, document in enumerate(chosen)}
        self.documents = len(chosen)
        self.rows = np.array([position[document] for document, _ in origins], dtype=np.int64)
        self.types = np.array([kind for _, kind in origins], dtype=np.str_)
        self.effects = effects
        self.present = present
        self.permutations, self.resamples, self.seed = permutations, resamples, seed

    def effect(self, kind: str | None) -> EntityEffect:
        """Of one entity type, or of all of them; its p-value is not corrected yet."""
        some = self.types == kind if kind is not None else np.ones(len(self.types), dtype=np.bool_)
        present = self.present[kind] if kind is not None else self.present.total()
        values = self.effects[some, 0]
        excess = _excess(values)
        columns = np.concatenate(
            [values.reshape(len(values), KINDS * MEASURES), excess[:, None]], axis=1
        )
        estimates = self._means(columns, some)
        swap, mask, swap_null, mask_null = (
            Effect(*estimates[MEASURES * i : MEASURES * (i + 1)]) for i in range(KINDS)
        )
        p_value = self.p_value(excess, some) if len(values) else None
        return EntityEffect(
            entity_type=ALL if kind is None else kind,
            entities=len(values),
            documents=len(np.unique(self.rows[some])),
            left_out=present - len(values),
            swap=swap,
            mask=mask,
            swap_null=swap_null,
            mask_null=mask_null,
            excess=estimates[-1],
            p_value=p_value,
            p_adjusted=p_value,
            flagged=p_value is not None and p_value < SIGNIFICANT,
        )

    def figures(self, chosen: Sequence[int]) -> Figures:
        """What swapping any entity does, and by how much it exceeds the null, by document."""
        values = self.effects[:, 0]
        count = np.bincount(self.rows, minlength=self.documents).astype(np.float64)
        columns = {"swap.change": values[:, SWAP, CHANGE], "excess": _excess(values)}
        return {
            f"counterfactual.overall.{name}": figure(chosen, self._sums(self.rows, column), count)
            for name, column in columns.items()
        }

    def p_value(self, excess: Floats, some: NDArray[np.bool_]) -> float:
        """One-sided: how often the sum is as large when each document's sign is a fair coin."""
        sums = self._sums(self.rows[some], excess)
        drawn = flipped_gaps(sums[:, None], self.permutations, self.seed)
        beyond = int((drawn >= sums.sum() - ROUNDING * len(excess)).sum())
        return (1 + beyond) / (1 + self.permutations)

    def _sums(self, rows: NDArray[np.int64], values: Floats) -> Floats:
        return np.bincount(rows, values, self.documents).astype(np.float64)

    def _means(self, columns: Floats, some: NDArray[np.bool_]) -> list[Estimate]:
        if not len(columns):
            return [UNDEFINED] * columns.shape[1]
        sums = np.zeros((self.documents, columns.shape[1]))
        np.add.at(sums, self.rows[some], columns)
        counts = np.bincount(self.rows[some], minlength=self.documents).astype(np.float64)
        resampled = bootstrap_ratios(sums, counts, self.resamples, self.seed)
        means = columns.mean(0)
        return [percentile_interval(means[i], resampled[:, i]) for i in range(len(means))]


def _excess(values: Floats) -> Floats:
    """By how much the change of each swap exceeds that of its null: [cases, 4, 4] to [cases]."""
    return np.asarray(values[:, SWAP, CHANGE] - values[:, SWAP_NULL, CHANGE])


def corrected(types: Sequence[EntityEffect]) -> tuple[EntityEffect, ...]:
    """The same with p-values corrected for all types that have one."""
    own = {each.entity_type: each.p_value for each in types if each.p_value is not None}
    adjusted = dict(zip(own, holm([*own.values()]), strict=True))
    return tuple(
        replace(
            each,
            p_adjusted=adjusted.get(each.entity_type),
            flagged=adjusted.get(each.entity_type, 1.0) < SIGNIFICANT,
        )
        for each in types
    )


def probe_controls(statistics: EffectStatistics) -> tuple[Control, Control]:
    """The same interventions on the two probes, whose answers to them are known."""
    expected = (
        "a probe of the sensitive tokens alone: flagged, and not moved by other words",
        "a probe of the other tokens alone: not moved by any swap of an entity",
    )
    if not len(statistics.effects):
        return Control(expected[0], 0.0, False), Control(expected[1], 0.0, False)
    everything = np.ones(len(statistics.types), dtype=np.bool_)
    of_sensitive, of_others = statistics.effects[:, 1], statistics.effects[:, 2]
    excess = _excess(of_sensitive)
    flagged = statistics.p_value(excess, everything) < SIGNIFICANT
    unmoved = not of_sensitive[:, SWAP_NULL, CHANGE].any()
    moved = float(of_others[:, SWAP, CHANGE].max())
    return (
        Control(expected[0], float(excess.mean()), flagged and unmoved),
        Control(expected[1], moved, moved == 0),
    )
