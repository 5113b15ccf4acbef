"""Statistics that are collected in pieces: numbers of single documents, and sums over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


class Tally:
    """A set of arrays that documents are added to, some here and some in another process.

    An array called ``null`` is a sum over documents; any other has one row a document. Attributes
    that are tallies themselves are parts of this one.

    Claim: whatever the pieces and their order, putting them together gives the same bits, as long
    as the sums are exact, as those of ``attnpriv.audit.lift.on_grid`` are.
    """

    def arrays(self) -> Arrays:
        """All arrays by their names, those of parts after the part's name and a dot."""
        found: Arrays = {}
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                found[name] = value
            elif isinstance(value, Tally):
                found |= {f"{name}.{inner}": array for inner, array in value.arrays().items()}
        return found

    def take(self, documents: Sequence[int]) -> Arrays:
        """What these documents left, if no others were added."""
        return {
            name: array if _is_sum(name) else array[list(documents)]
            for name, array in self.arrays().items()
        }

    def put(self, documents: Sequence[int], taken: Arrays) -> None:
        """Add what ``take`` gave for documents that are not in yet."""
        for name, array in self.arrays().items():
            if _is_sum(name):
                array += taken[name]
            else:
                array[list(documents)] = taken[name]


def _is_sum(name: str) -> bool:
    return name.rpartition(".")[2] == "null"
