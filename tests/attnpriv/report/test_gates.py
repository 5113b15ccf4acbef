"""Gates: what they say about intervals, guarantees and controls, and which they refuse."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnpriv import verdicts
from attnpriv.audit.measures import AuditResult
from attnpriv.audit.results import Audit
from attnpriv.errors import InputError
from attnpriv.estimates import Control, Estimate
from attnpriv.report import check_gates, exit_code
from attnpriv.report.document import make_report, report_text
from attnpriv.report.gates import Gate, Outcome

Json = dict[str, Any]
LIFT = "attention.overall.lift"
SPREAD = (-1.0, -0.25, 0.0, 0.5, 1.0, 3.0)


@pytest.fixture(scope="module")
def text(synthetic: Audit) -> str:
    return report_text(make_report(synthetic, None))


@pytest.fixture
def report(text: str) -> Json:
    """A report that a test may change."""
    read: Json = json.loads(text)
    return read


def gate(measure: str = LIFT, operator: str = "at most", limit: float = 1.0, **more: Any) -> Gate:
    return Gate("g", measure, operator, limit, **{"run": "plain", **more})


def judge(report: Json, *args: Any, **more: Any) -> tuple[str, str]:
    (outcome,) = check_gates(report, [gate(*args, **more)])
    return outcome.verdict, outcome.reason


def on_interval(low: float, high: float, operator: str, limit: float) -> str:
    """The verdict on a measure with this interval, with no controls or counts about it."""
    estimate = {"value": (low + high) / 2, "low": low, "high": high}
    report = {"results": [{"name": "plain", "card": {}, "measure": estimate}]}
    return judge(report, "measure", operator, limit)[0]


def keeps(x: float, operator: str, limit: float) -> bool:
    return x <= limit if operator == "at most" else x >= limit


OPERATORS = ("at most", "at least")


class TestIntervals:
    @pytest.mark.parametrize("operator", OPERATORS)
    def test_pass_where_all_of_it_keeps_the_limit_and_fail_where_none_does(
        self, operator: str
    ) -> None:
        for low, high, limit in itertools.product(SPREAD, SPREAD, SPREAD):
            if low < high:
                inside = {keeps(low + (high - low) * t / 64, operator, limit) for t in range(65)}
                expected = {(True,): "PASS", (False,): "FAIL"}.get(tuple(inside), "INCONCLUSIVE")
                assert on_interval(low, high, operator, limit) == expected, (low, high, limit)

    @given(st.floats(-9, 9), st.floats(-9, 9), st.floats(-9, 9), st.sampled_from(OPERATORS))
    def test_properties(self, a: float, b: float, limit: float, operator: str) -> None:
        low, high = min(a, b), max(a, b)
        if low == high:
            assert on_interval(low, high, operator, limit) == "INCONCLUSIVE"
            return
        verdict = on_interval(low, high, operator, limit)
        other = OPERATORS[1 - OPERATORS.index(operator)]
        assert on_interval(-high, -low, other, -limit) == verdict
        kinder = limit + 1 if operator == "at most" else limit - 1
        order = ("FAIL", "INCONCLUSIVE", "PASS")
        assert order.index(on_interval(low, high, operator, kinder)) >= order.index(verdict)
        assert on_interval(low - 1, high + 1, operator, limit) in (verdict, "INCONCLUSIVE")

    @pytest.mark.parametrize("operator", OPERATORS)
    def test_an_interval_without_width_says_nothing(self, operator: str) -> None:
        for limit in SPREAD:
            assert on_interval(0.5, 0.5, operator, limit) == "INCONCLUSIVE"

    def test_an_undefined_number_is_inconclusive(self, report: Json) -> None:
        report["results"][0]["attention"]["overall"]["lift"] = dict.fromkeys(
            ("value", "low", "high")
        )
        assert judge(report) == ("INCONCLUSIVE", "undefined: no record says anything about it")

    def test_the_reason_why_there_is_no_figure_is_given(self, report: Json) -> None:
        rare = report["results"][0]["membership"]["tpr"][1]
        rare |= {"tpr": dict.fromkeys(("value", "low", "high")), "not_reported": "too few of them"}
        verdict = judge(report, "membership.tpr.tpr", limit=0.1, subset={"fpr": 0.001})
        assert verdict == ("INCONCLUSIVE", "too few of them")


def paths(of: Any, wanted: type, path: str = "") -> Iterator[str]:
    """Where a result holds values of a type, with [*] after lists."""
    if get_origin(of) is UnionType:
        of = next(each for each in get_args(of) if each is not NoneType)
    if of is wanted:
        yield path
    elif get_origin(of) is tuple:
        yield from paths(get_args(of)[0], wanted, f"{path}[*]")
    elif dataclasses.is_dataclass(of):
        for name, type_ in get_type_hints(of).items():
            yield from paths(type_, wanted, f"{path}.{name}".lstrip("."))


ESTIMATES = list(paths(AuditResult, Estimate))
CONTROLS = list(paths(AuditResult, Control))


class TestMeasures:
    def test_gates_reach_every_estimate_of_an_audit(self, report: Json) -> None:
        assert len(ESTIMATES) > 50
        for path in ESTIMATES:
            assert judge(report, path, limit=2.0)[0] == "PASS", path
            assert judge(report, path, "at least", 2.0)[0] == "FAIL", path

    def test_every_control_that_fails_makes_its_measure_inconclusive(self, report: Json) -> None:
        assert len(CONTROLS) > 10
        for control in CONTROLS:
            part, _, name = control.rpartition(".")
            run = json.loads(json.dumps(report["results"][0]))
            measured = run
            for inner in part.split("."):
                measured = measured[inner]
            measured[name]["passed"] = False
            measures = [path for path in ESTIMATES if path.startswith(f"{part}.")]
            # The bound of canaries is no estimate: nobody knows how much more there is.
            for path in measures or [f"{part}.epsilon"]:
                spared = name.startswith("matched") and "matched" not in path
                verdict, reason = judge({"results": [run]}, path, limit=2.0)
                assert verdict == ("PASS" if spared else "INCONCLUSIVE"), (path, control)
                assert ("the control wins; measured 0." in reason) != spared

    @pytest.mark.parametrize("limit", [0.0, 9.0])
    def test_a_failed_control_outweighs_any_limit(self, report: Json, limit: float) -> None:
        report["results"][0]["attention"]["planted"]["passed"] = False
        assert judge(report, limit=limit)[0] == "INCONCLUSIVE"

    @pytest.mark.parametrize(
        ("measure", "count"),
        [
            (LIFT, "attention.documents_with_sensitive"),
            ("attention.heads[*].content.lift", "attention.documents"),
            ("attention.labels[*].permuted.lift", "attention.labels.documents"),
            ("utility.accuracy", "utility.n"),
            ("utility.classes[*].recall", "utility.classes.support"),
            ("membership.auc", "membership.members"),
            ("membership.tpr[*].tpr", "membership.non_members"),
            ("memorisation.difference", "memorisation.member_documents"),
            ("memorisation.difference", "memorisation.held_out_documents"),
            ("counterfactual.types[*].excess", "counterfactual.types.documents"),
            ("occlusion.rank_correlation", "occlusion.rank_documents"),
            ("faithfulness.rank_correlation.mean", "faithfulness.rank_correlation.documents"),
            ("faithfulness.rankings[*].infidelity", "faithfulness.documents"),
            ("robustness.radii[*].strongest", "robustness.documents"),
            ("text_attacks.curve[*].strongest", "text_attacks.documents"),
            ("certified.of_right[*].any_edits", "certified.right"),
            ("checklist.invariance", "checklist.cases"),
            ("checklist.tests[*].failures", "checklist.tests.cases"),
        ],
    )
    def test_too_few_records_are_inconclusive(self, report: Json, measure: str, count: str) -> None:
        *names, last = count.split(".")
        here = report["results"][0]
        for name in names:
            here = here[name]
        for entry in here if isinstance(here, list) else [here]:
            entry[last] = 29
        verdict, reason = judge(report, measure, limit=2.0)
        assert verdict == "INCONCLUSIVE"
        assert "29 records, 30 are needed" in reason
        assert judge(report, measure, limit=2.0, minimum_n=29)[0] == "PASS"
        assert judge(report, measure, limit=2.0, minimum_n=1000)[0] == "INCONCLUSIVE"

    def test_a_minimum_for_what_has_no_count_is_refused(self, report: Json) -> None:
        with pytest.raises(InputError, match=r"gives no number of records for card\.epsilon"):
            judge(report, "card.epsilon", minimum_n=50)

    def test_counts_are_exact(self, report: Json) -> None:
        n = report["results"][0]["membership"]["members"]
        report["results"][0]["membership"]["positive"]["passed"] = False
        assert judge(report, "membership.members", "at least", n)[0] == "PASS"
        assert judge(report, "membership.members", "at least", n + 1)[0] == "FAIL"

    @pytest.mark.parametrize(
        "measure", ["attention", "attention.heads[*].row_lift", "attribution.share", "name",
                    "attention.overall.p_value", "attention.certificate.holds",
                    "counterfactual.overall.flagged", "membership.valid"]
    )  # fmt: skip
    def test_what_is_no_number_with_an_interval_is_refused(
        self, report: Json, measure: str
    ) -> None:
        with pytest.raises(InputError, match="is no number with an interval"):
            judge(report, measure)

    def test_a_list_is_judged_by_its_gravest_entry(self, report: Json) -> None:
        heads = report["results"][0]["attention"]["heads"]
        for number, head in enumerate(heads):
            high = 3.0 if number == 4 else 1.5 if number == 1 else 0.9
            head["content"]["lift"] = {"value": 0.85, "low": high - 0.2, "high": high}
        every = "attention.heads[*].content.lift"
        assert judge(report, every, limit=1.4) == (
            "FAIL",
            "1 of 6 entries: layer 1, head 1: 0.85 [2.8, 3]: the whole 95 % interval is above 1.4",
        )
        assert judge(report, every, limit=4.0)[1].startswith("all 6 entries, the first is layer 0")
        assert judge(report, every, limit=0.5)[1].count("layer") == 3
        one = {"subset": {"layer": 0, "head": 1}}
        assert judge(report, every, limit=1.4, **one)[0] == "INCONCLUSIVE"
        assert judge(report, "attention.heads.content.lift", limit=1.4, **one)[0] == "INCONCLUSIVE"


class TestGuarantees:
    def test_epsilon_is_exact(self, report: Json) -> None:
        epsilon = report["results"][2]["card"]["epsilon"]
        above, below = math.nextafter(epsilon, 9), math.nextafter(epsilon, 0)
        for limit, verdict in ((above, "PASS"), (epsilon, "PASS"), (below, "FAIL")):
            assert judge(report, "card.epsilon", limit=limit, run="private")[0] == verdict

    def test_no_epsilon_fails(self, report: Json) -> None:
        assert judge(report, "card.epsilon", limit=1e9) == (
            "FAIL",
            "the model has no such guarantee",
        )

    def test_an_epsilon_that_the_card_warns_of_does_not_pass(self, report: Json) -> None:
        card = report["results"][2]["card"]
        card["warnings"] = ["UNTRAINED: NO STEP WAS TAKEN"]
        verdict, reason = judge(report, "card.epsilon", limit=9.0, run="private")
        assert verdict == "INCONCLUSIVE"
        assert "warns" in reason
        assert judge(report, "card.epsilon", limit=0.5, run="private")[0] == "FAIL"
        card["private"] = False
        assert judge(report, "card.epsilon", limit=9.0, run="private")[0] == "FAIL"

    def test_a_bound_on_attention(self, report: Json) -> None:
        measure = "attention.certificate.largest_weight_bound"
        assert judge(report, measure, limit=0.9, run="hardened")[0] == "PASS"
        assert judge(report, measure, limit=0.899, run="hardened")[0] == "FAIL"
        assert judge(report, measure, limit=1.0)[0] == "FAIL"  # unclipped: there is no bound
        report["results"][1]["attention"]["certificate"]["holds"] = False
        verdict, reason = judge(report, measure, limit=0.9, run="hardened")
        assert verdict == "FAIL"
        assert "exceed their proved bound" in reason

    @pytest.mark.parametrize(
        "measure", ["attention.certificate.largest_weight", "attention.heads[*].largest_weight"]
    )
    def test_the_largest_that_was_found_breaks_limits_and_confirms_none(
        self, report: Json, measure: str
    ) -> None:
        assert judge(report, measure, limit=0.1)[0] == "FAIL"
        assert judge(report, measure, limit=1.0)[0] == "INCONCLUSIVE"
        assert judge(report, measure, "at least", 0.1)[0] == "PASS"

    def test_a_lower_bound_on_epsilon_refutes_claims_and_confirms_none(self, report: Json) -> None:
        measure = "membership.epsilon_lower_bound"
        report["results"][0]["membership"] |= {"epsilon_lower_bound": 2.0, "epsilon_ceiling": 3.5}
        assert judge(report, measure, limit=1.9)[0] == "FAIL"
        for limit in (2.0, 3.0, 3.5):
            verdict, reason = judge(report, measure, limit=limit)
            assert verdict == "INCONCLUSIVE"
            assert "proves nothing" in reason
        verdict, reason = judge(report, measure, limit=3.6)
        assert verdict == "INCONCLUSIVE"
        assert "even a perfect attack" in reason
        assert judge(report, measure, "at least", 2.0)[0] == "PASS"
        assert judge(report, measure, "at least", 2.1)[0] == "INCONCLUSIVE"
        report["results"][0]["membership"]["null"]["passed"] = False
        assert judge(report, measure, limit=1.9)[0] == "INCONCLUSIVE"


class TestComparisons:
    AGAINST: Json = {"run": "hardened", "against": "plain"}  # noqa: RUF012

    def test_a_paired_difference(self, report: Json) -> None:
        differences = report["comparisons"][0]["differences"]
        for number, each in enumerate(differences):
            each["difference"] = {"value": number, "low": number - 0.1, "high": number + 0.1}
        for number, each in enumerate(differences):
            chosen = {**self.AGAINST, "subset": {"measure": each["measure"]}}
            assert judge(report, "differences.difference", limit=number + 0.1, **chosen)[0] == (
                "PASS"
            )
            assert judge(report, "differences.difference", limit=number - 0.2, **chosen)[0] == (
                "FAIL"
            )

    def test_the_ratio_of_lifts(self, report: Json) -> None:
        assert judge(report, "lift_ratio", limit=2.0, **self.AGAINST)[0] == "PASS"

    @pytest.mark.parametrize("side", [0, 1])
    def test_it_rests_on_the_controls_and_records_of_both(self, report: Json, side: int) -> None:
        chosen = {**self.AGAINST, "subset": {"measure": LIFT}}
        attention = report["results"][side]["attention"]
        attention["matched_null"]["passed"] = False
        assert judge(report, "differences.difference", limit=2.0, **chosen)[0] == "PASS"
        attention["null"]["passed"] = False
        assert judge(report, "differences.difference", limit=2.0, **chosen)[0] == "INCONCLUSIVE"
        assert judge(report, "lift_ratio", limit=2.0, **self.AGAINST)[0] == "INCONCLUSIVE"
        other = {**self.AGAINST, "subset": {"measure": "utility.accuracy"}}
        assert judge(report, "differences.difference", limit=2.0, **other)[0] == "PASS"

    def test_too_few_documents(self, report: Json) -> None:
        report["comparisons"][0]["differences"][0]["documents"] = 7
        chosen = {**self.AGAINST, "subset": {"measure": LIFT}}
        verdict, reason = judge(report, "differences.difference", limit=2.0, **chosen)
        assert (verdict, reason) == ("INCONCLUSIVE", "7 records, 30 are needed")

    def test_one_that_was_not_computed_is_refused(self, report: Json) -> None:
        report["comparisons"][0]["not_run"] = "their held-out rows differ"
        with pytest.raises(InputError, match="not computed: their held-out rows differ"):
            judge(report, "lift_ratio", **self.AGAINST)


class TestAttacks:
    VERDICT = "membership.judgement.verdict"

    def judge(self, report: Json, found: str, *allowed: str, **more: Any) -> tuple[str, str]:
        report["results"][0]["membership"]["judgement"]["verdict"] = found
        wanted = Gate("g", self.VERDICT, "one of", verdicts=allowed, run="plain", **more)
        (outcome,) = check_gates(report, [wanted])
        return outcome.verdict, outcome.reason

    @pytest.mark.parametrize("found", get_args(verdicts.Verdict))
    @pytest.mark.parametrize("allowed", get_args(verdicts.Verdict))
    def test_each_verdict_can_be_named(self, report: Json, found: str, allowed: str) -> None:
        verdict, reason = self.judge(report, found, allowed)
        other = "INCONCLUSIVE" if found == "INCONCLUSIVE" else "FAIL"
        assert verdict == ("PASS" if found == allowed else other)
        assert reason.startswith(f"{found}: ")

    def test_several_may_be_allowed(self, report: Json) -> None:
        assert self.judge(report, "CHANCE", "WITHIN THE CLAIM", "CHANCE")[0] == "PASS"
        assert self.judge(report, "FOUND", "WITHIN THE CLAIM", "CHANCE")[0] == "FAIL"

    def test_it_rests_on_records_and_controls(self, report: Json) -> None:
        assert self.judge(report, "CHANCE", "CHANCE", minimum_n=10_000)[0] == "INCONCLUSIVE"
        report["results"][0]["membership"]["null"]["passed"] = False
        assert self.judge(report, "CHANCE", "CHANCE")[0] == "INCONCLUSIVE"

    def test_what_is_allowed_is_a_guarantee(self, report: Json) -> None:
        report["results"][0]["membership"]["judgement"]["allowed"] = 0.69
        path = "membership.judgement.allowed"
        assert judge(report, path, limit=0.7)[0] == "PASS"
        assert judge(report, path, limit=0.6)[0] == "FAIL"
        report["results"][0]["membership"]["judgement"]["allowed"] = None
        assert judge(report, path, limit=0.7) == ("FAIL", "the model has no such guarantee")

    def test_numbers_and_verdicts_do_not_mix(self, report: Json) -> None:
        with pytest.raises(InputError, match="verdict is not a number"):
            judge(report, self.VERDICT)
        number = Gate("g", LIFT, "one of", verdicts=("CHANCE",), run="plain")
        with pytest.raises(InputError, match="is not a verdict"):
            check_gates(report, [number])

    @pytest.mark.parametrize("verdicts", [(), ("RED",), ("CHANCE", "chance")])
    def test_unknown_verdicts_are_refused(self, verdicts: tuple[str, ...]) -> None:
        with pytest.raises(InputError, match="expected verdicts to be some of CHANCE"):
            Gate("g", self.VERDICT, "one of", verdicts=verdicts)

    def test_a_threshold_and_verdicts_are_refused_together(self) -> None:
        with pytest.raises(InputError, match="threshold to be left out"):
            Gate("g", self.VERDICT, "one of", 0.5, verdicts=("CHANCE",))
        with pytest.raises(InputError, match="verdicts to be left out"):
            Gate("g", LIFT, "at most", 0.5, verdicts=("CHANCE",))


NOT_THERE = {
    "a measure that there is not": ({"measure": "attention.lifts"}, "no 'lifts' there, only"),
    "a part that there is not": ({"measure": "attntion.overall"}, "no 'attntion' there"),
    "an empty measure": ({"measure": ""}, "no '' there"),
    "beyond a number": ({"measure": "utility.accuracy.value.x"}, "no 'x' there, no names"),
    "every entry of no list": ({"measure": "attention[*].overall"}, "attention is not a list"),
    "several entries": ({"measure": "attention.heads.content.lift"}, "has several entries"),
    "plain numbers": ({"measure": "conductance.shares"}, "one of plain numbers"),
    "an entry that there is not": (
        {"measure": "attention.heads.content.lift", "subset": {"head": 9}},
        "no entry with head = 9",
    ),
    "a key that no entry has": ({"measure": LIFT, "subset": {"head": 0}}, "entries with 'head'"),
    "a run that there is not": ({"run": "other"}, "one run named 'other'"),
    "no run where there are several": ({"run": None}, "several runs"),
    "a comparison that there is not": (
        {"against": "private", "measure": "lift_ratio"},
        "no comparison of plain against private, but hardened against plain",
    ),
    "a measure of a run in a comparison": (
        {"run": "private", "against": "plain"},
        "no 'attention' there",
    ),
}


@pytest.mark.parametrize("case", NOT_THERE)
def test_what_the_report_does_not_have_is_refused(report: Json, case: str) -> None:
    asked, words = NOT_THERE[case]
    with pytest.raises(InputError, match=f"gate 'g': .*{re.escape(words)}"):
        check_gates(report, [gate(**asked)])


def test_what_was_not_run_is_refused_with_the_reason(report: Json) -> None:
    report["results"][0]["membership"] = {"not_run": "there are no members"}
    with pytest.raises(InputError, match="membership was not computed: there are no members"):
        judge(report, "membership.auc")


def test_two_runs_of_one_name_are_refused(report: Json) -> None:
    report["results"][1]["name"] = "plain"
    with pytest.raises(InputError, match="expected one run named 'plain'"):
        judge(report)


def test_a_single_run_needs_no_name(report: Json) -> None:
    alone = {**report, "results": report["results"][:1]}
    assert judge(alone, limit=2.0, run=None)[0] == "PASS"


def outcome(verdict: Any, allow: bool = False) -> Outcome:
    return Outcome(gate(allow_inconclusive=allow), "plain", verdict, "because")


def test_exit_codes() -> None:
    passed, failed = outcome("PASS"), outcome("FAIL", allow=True)
    doubt, allowed = outcome("INCONCLUSIVE"), outcome("INCONCLUSIVE", allow=True)
    for outcomes, code in (
        ([], 0), ([passed], 0), ([passed, allowed], 0), ([failed], 1), ([doubt], 2),
        ([passed, doubt], 2), ([doubt, failed], 1), ([failed, doubt, passed], 1),
    ):  # fmt: skip
        assert exit_code(outcomes) == code
