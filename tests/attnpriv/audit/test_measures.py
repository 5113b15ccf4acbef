"""The table of measures against the result that it fills."""

from __future__ import annotations

from typing import get_args, get_type_hints

import pytest

from attnpriv.audit.measures import ALONE, MEASURES, OF_THE_PASS, AuditResult
from attnpriv.audit.results import NotRun
from attnpriv.audit.subject import OfRows, Rows

ABOUT_THE_RUN = ("name", "card", "data_name", "held_out_rows")


def test_each_measure_fills_the_field_of_its_name_and_type() -> None:
    fields = {k: v for k, v in get_type_hints(AuditResult).items() if k not in ABOUT_THE_RUN}
    names = [measure.name for measure in MEASURES]
    assert sorted(names) == sorted(fields)
    for measure in MEASURES:
        expected = measure.result | NotRun if measure.needs else measure.result
        assert fields[measure.name] == expected, measure.name


def test_what_is_read_off_the_pass_needs_no_other_rows() -> None:
    needs = {need for measure in OF_THE_PASS for need in measure.needs}
    assert needs == {"layers", "self-attention", "spatial gates", "answers"}
    assert (*OF_THE_PASS, *ALONE) == MEASURES


@pytest.mark.parametrize(
    ("rows", "lacking"),
    [
        (Rows((1, 2), (3, 4), frozenset({3})), []),
        (
            Rows((1, 2), (3, 4), frozenset({3, 4})),
            ["membership", "shadow_attacks", "explanation_attacks"],
        ),
        (
            Rows(None, (3, 4), frozenset(), left_out=7),
            [
                "memorisation",
                "exposure",
                "membership",
                "shadow_attacks",
                "explanation_attacks",
            ],
        ),
    ],
)
def test_needs_that_are_not_met_are_named(rows: Rows, lacking: list[str]) -> None:
    known = get_args(OfRows)
    found = [m.name for m in ALONE if any(n in known and rows.lack(n) for n in m.needs)]
    assert found == lacking
    reason = rows.lack("non-members") or ""
    assert ("7 rows may have been trained on" in reason) == (rows.left_out == 7)
