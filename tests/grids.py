"""Which cells of a grid ``make test`` runs: so many that nothing that two parameters do is missed.

Source: combinatorial testing (Kuhn, Wallace and Gallo 2004, doi:10.1109/TSE.2004.24): most faults
show as soon as one value, or two values together, occur at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import pytest

STRENGTHS = {"every_value": 1, "every_pair": 2}


def covering(cells: Sequence[dict[str, int]], strength: int) -> list[int]:
    """Numbers of cells that together hold each combination of ``strength`` values there is.

    Greedy, so not the fewest possible; ties go to the first cell, so always the same ones.
    """
    strength = min(strength, *map(len, cells))
    combined = [set(combinations(sorted(cell.items()), strength)) for cell in cells]
    missing = set[Any]().union(*combined)
    chosen = []
    while missing:
        best = max(range(len(cells)), key=lambda number: len(combined[number] & missing))
        chosen.append(best)
        missing -= combined[best]
    return sorted(chosen)


def mark_the_rest(items: Sequence[pytest.Item]) -> None:
    """Mark as exhaustive the cells that the grids' own markers do not ask for."""
    for marker, strength in STRENGTHS.items():
        grids: dict[str, list[Any]] = defaultdict(list)
        for item in items:
            if item.get_closest_marker(marker):
                grids[item.nodeid.partition("[")[0]].append(item)
        for grid in grids.values():
            kept = covering([_values(item) for item in grid], strength)
            for number, item in enumerate(grid):
                if number not in kept:
                    item.add_marker(pytest.mark.exhaustive)


def _values(item: Any) -> dict[str, int]:
    """Which object each parameter is: the cells of a grid share them, hashable or not."""
    return {name: id(value) for name, value in item.callspec.params.items()}
