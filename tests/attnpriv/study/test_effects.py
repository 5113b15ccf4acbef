"""From audits to means and effects: known numbers, and SciPy's t-test as a second opinion."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from attnpriv.report import as_report
from attnpriv.report.chapter import NAMES
from attnpriv.study import CELLS, StudyResult, effects_table, means_table
from attnpriv.study.effects import MEASURES, VERDICTS, StudyRun, compose, student_t, summarise
from attnpriv.study.writing import cost, markdown


def result(name: str, value: float, private: bool) -> dict[str, Any]:
    """A result of ``audit.json`` in which every main figure has the same value."""
    run: dict[str, Any] = {
        "name": name,
        "card": {
            "epsilon": 2.999 if private else None,
            "delta": 1e-5 if private else None,
            "private": private,
        },
    }
    for figure in MEASURES:
        estimate = {"value": value, "low": value - 1, "high": value + 1}
        put(run, NAMES.findall(figure.path), estimate if figure.kind == "estimate" else value)
    for figure in VERDICTS:
        put(run, NAMES.findall(figure.path), "CHANCE" if private else "FOUND")
    return run


def put(into: dict[str, Any], path: list[str], value: Any) -> None:
    """Put a value where a path leads; of a list, other entries have other values."""
    name, _, which = path[0].rstrip("]").partition("[")
    if which:
        scales = (float(which) - 0.01, float(which), float(which) + 0.03)
        into[name] = [
            {"scale": scale, path[1]: {**value, "value": value["value"] + scale - float(which)}}
            for scale in scales
        ]
    elif len(path) == 1:
        into[name] = value
    else:
        put(into.setdefault(name, {}), path[1:], value)


def reports(values: list[list[float]]) -> list[dict[str, Any]]:
    """One report a seed, from its figures in the order of the cells."""
    return [
        {
            "results": [
                result(f"{cell.name}-seed{seed}", value, cell.private)
                for cell, value in zip(CELLS, row, strict=True)
            ],
            "comparisons": [],
            "coverage": {},
            "options": {},
            "findings": [],
            "provenance": None,
            "schema_version": 1,
        }
        for seed, row in enumerate(values)
    ]


def study(values: list[list[float]]) -> StudyResult:
    return summarise("tickets", {"training steps": 3}, [*map(as_report, reports(values))])


def measured(of: StudyResult, name: str) -> Any:
    (found,) = [measure for measure in of.measures if measure.name == name]
    return found


def test_the_cells_are_the_two_by_two_in_the_order_of_the_contrasts() -> None:
    assert [(c.name, c.hardened, c.private) for c in CELLS] == [
        ("plain", False, False),
        ("hardened", True, False),
        ("private", False, True),
        ("private-and-hardened", True, True),
    ]


def test_effects_by_hand() -> None:
    # Seed by seed: hardening (1 + 3)/2, (2 + 2)/2, (3 + 4)/2; privacy (5 + 7)/2, (6 + 6)/2, 7.5.
    of = study([[0.0, 1.0, 5.0, 8.0], [0.0, 2.0, 6.0, 8.0], [1.0, 4.0, 8.0, 12.0]])
    for measure in of.measures:
        assert measure.values["private"] == pytest.approx((5.0, 6.0, 8.0))
        assert measure.means["private-and-hardened"] == pytest.approx(28 / 3)
        effects = measure.effects
        assert effects["hardening"].value == pytest.approx((2 + 2 + 3.5) / 3)
        assert effects["privacy"].value == pytest.approx((6 + 6 + 7.5) / 3)
        assert effects["interaction"].value == pytest.approx((2 + 0 + 1) / 3)
        # t(0.975) with 2 degrees of freedom is 4.302653; the interactions 2, 0, 1 have s = 1.
        assert effects["interaction"].low == pytest.approx(1 - 4.302653 / math.sqrt(3), abs=1e-6)
        assert effects["interaction"].high == pytest.approx(1 + 4.302653 / math.sqrt(3), abs=1e-6)


@pytest.mark.parametrize("seeds", [2, 3, 5, 40])
def test_intervals_are_those_of_a_t_test(seeds: int) -> None:
    values = np.random.default_rng(seeds).normal(3, 2, seeds)
    ours, theirs = student_t(values), ttest_1samp(values, 0).confidence_interval(0.95)
    assert (ours.value, ours.low, ours.high) == pytest.approx((values.mean(), *theirs))


@pytest.mark.parametrize(
    ("h", "p", "both"), list(product((-0.3, 0.0, 0.2), (-0.1, 0.0), (-0.5, 0.0)))
)
def test_what_the_seeds_of_all_cells_share_is_in_no_effect(h: float, p: float, both: float) -> None:
    rows = [[base, base + h, base + p, base + h + p + both] for base in (0.1, 0.7, 0.4)]
    effects = study(rows).measures[0].effects
    expected = {"hardening": h + both / 2, "privacy": p + both / 2, "interaction": both}
    for name, value in expected.items():
        estimate = effects[name]
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx([value] * 3)


def test_what_a_run_lacks_is_named_and_makes_no_number() -> None:
    given = reports([[0.1, 0.2, 0.3, 0.4]] * 3)
    given[1]["results"][2]["membership"] = {"not_run": "there are no members"}
    given[2]["results"][0]["robustness"]["valid"] = False
    for report in given:
        for i in (0, 2):
            report["results"][i]["attention"]["certificate"]["largest_weight_bound"] = None
    of = summarise("tickets", {}, [*map(as_report, given)])
    membership = measured(of, "membership AUC")
    assert membership.values["private"] == (0.3, None, 0.3)
    assert membership.means == {
        "plain": pytest.approx(0.1),
        "hardened": pytest.approx(0.2),
        "private": None,
        "private-and-hardened": pytest.approx(0.4),
    }
    assert {e.value for e in membership.effects.values()} == {None}
    assert [(m.run, m.reason) for m in membership.missing] == [
        ("private-seed1", "there are no members")
    ]
    (failed,) = measured(of, "accuracy under the strongest attack at 0.02 sd").missing
    assert (failed.run, failed.reason) == ("plain-seed2", "a control failed")
    bound = measured(of, "proved bound on attention weights")
    assert (bound.means["plain"], bound.means["hardened"]) == (None, pytest.approx(0.2))
    assert {missing.run[-5:] for missing in bound.missing} == {"seed0", "seed1", "seed2"}
    assert measured(of, "accuracy").effects["privacy"].value == pytest.approx(0.2)
    page = markdown(of)
    assert "membership AUC, since there are no members: private-seed1" in page
    assert page.count("| none | none | none |") == 4
    assert "| membership verdict | FOUND | FOUND | 2 × CHANCE, 1 × not run | CHANCE |" in page


def test_a_figure_that_audits_do_not_have_is_an_error() -> None:
    given = reports([[0.0] * 4] * 3)
    del given[0]["results"][0]["utility"]["accuracy"]
    with pytest.raises(AttributeError, match="no attribute 'accuracy'"):
        summarise("tickets", {}, [*map(as_report, given)])


def test_the_private_runs_add_up_and_the_others_have_no_epsilon() -> None:
    of = study([[0.0] * 4] * 3)
    assert (of.composition.private_runs, of.composition.runs_without_epsilon) == (6, 6)
    assert (of.composition.epsilon, of.composition.delta) == (17.994, 6e-5)
    words = cost(of.composition)
    assert "6 private runs together are (18.00, 6e-05)-differentially private" in words
    assert "The 6 other runs have no ε at all" in words
    assert words in markdown(of)


def test_a_seeded_run_counts_as_one_without_epsilon() -> None:
    runs = [StudyRun(f"run{i}", "private", i, 3.0, 1e-5, private=i > 0) for i in range(3)]
    assert compose(runs).epsilon == 6.0
    seeded = compose([StudyRun("run", "private", 0, 3.0, 1e-5, private=False)])
    assert (seeded.private_runs, seeded.epsilon, seeded.runs_without_epsilon) == (0, None, 1)
    assert cost(seeded).startswith("No run is private.")


def test_tables_have_every_measure_and_bounds_are_rounded_up() -> None:
    of = study([[0.1, 0.20001, 0.3, 0.4]] * 3)
    columns, rows = means_table(of)
    assert columns == ("", "plain", "hardened", "private", "private-and-hardened")
    assert rows[0] == ("ε of the training, largest", "none", "none", "3.00", "3.00")
    assert [row[0] for row in rows[1:]] == [figure.words for figure in (*MEASURES, *VERDICTS)]
    table = {row[0]: row[1:] for row in rows}
    assert table["largest attention weight"] == ("0.100", "0.200", "0.300", "0.400")
    assert table["proved bound on attention weights"][1] == "0.201"
    columns, rows = effects_table(of)
    assert columns == ("", "hardening", "privacy", "interaction")
    assert rows[0] == (
        "accuracy",
        "+0.100 [+0.100, +0.100]",
        "+0.200 [+0.200, +0.200]",
        "-0.000 [-0.000, -0.000]",
    )
