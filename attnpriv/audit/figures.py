"""Figures that are ratios of sums over documents, in a form that can be compared between runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Figure:
    """``Σ numerators / Σ denominators`` over documents; a mean where each denominator is 1.

    Attributes:
        documents: their numbers.
        numerators: one a document.
        denominators: one a document.
    """

    documents: tuple[int, ...]
    numerators: tuple[float, ...]
    denominators: tuple[float, ...]


Figures = dict[str, Figure]
"""By their dotted paths in ``AuditResult``."""


def figure(
    documents: ArrayLike, numerators: NDArray[np.float64], denominators: ArrayLike = 1.0
) -> Figure:
    """A figure from arrays; the denominators may be one number for all."""
    below = np.broadcast_to(np.asarray(denominators, dtype=np.float64), numerators.shape)
    return Figure(
        tuple(np.asarray(documents).tolist()), tuple(numerators.tolist()), tuple(below.tolist())
    )
