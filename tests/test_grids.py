"""The part of a grid that ``make test`` runs."""

from __future__ import annotations

from itertools import combinations, product

import pytest

from tests.grids import covering

SIZES = (4, 3, 3, 4, 2)
CELLS = [dict(zip("abcde", values, strict=True)) for values in product(*(range(n) for n in SIZES))]


@pytest.mark.parametrize(("strength", "fewest"), [(1, 4), (2, 16)])
def test_every_combination_is_in_a_few_cells(strength: int, fewest: int) -> None:
    kept = [CELLS[number] for number in covering(CELLS, strength)]
    for names in combinations("abcde", strength):
        wanted = set(product(*(range(SIZES["abcde".index(name)]) for name in names)))
        assert {tuple(cell[name] for name in names) for cell in kept} == wanted
    assert fewest <= len(kept) <= 1.5 * fewest


def test_the_same_cells_every_time_and_all_where_none_can_be_spared() -> None:
    assert covering(CELLS, 2) == covering(CELLS, 2)
    assert covering([{"a": 0, "b": n} for n in range(5)], 1) == [0, 1, 2, 3, 4]
    assert covering([{"a": n} for n in range(5)], 2) == [0, 1, 2, 3, 4]
