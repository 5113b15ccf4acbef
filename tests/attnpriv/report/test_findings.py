"""Findings word for word: what is said when a measure is good, bad, invalid or not run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from attnpriv.audit.infidelity import ExplanationSensitivity
from attnpriv.audit.lift import Lift
from attnpriv.audit.measures import AuditResult
from attnpriv.audit.results import Audit, NotRun
from attnpriv.estimates import Control, Estimate
from attnpriv.report.chapters import QUESTIONS, findings
from attnpriv.report.findings import Finding
from attnpriv.report.summary import run_verdict
from attnpriv.verdicts import Claim, Judgement, Placed, Verdict, make_claim

NONE = Estimate(None, None, None)
PASSED, FAILED = Control("p below 0.05", 1.0, True), Control("p below 0.05", 1.0, False)
UNDEFINED = Lift(NONE, None, None, None, None, None)
FEW = "There are too few records here to notice even twice the usual attention."
READ_ON = "Read whether the answers rely on it: attention alone explains nothing."
MORE_RECORDS = "Audit more records before you draw a conclusion."
OTHER_RECORDS = "Audit records that hold personal data, and check what the detector cannot see."
INVALID = "A control failed, so the figures say nothing, for or against. The control: p below 0.05."
AGAIN = "Audit again with more records. If the control fails again, report a defect."
NO_DATA = "No personal data was found in these records."


def lift(value: float, p_value: float, half: float = 0.1) -> Lift:
    return Lift(Estimate(value, value - half, value + half), 0.9, 1.1, p_value, p_value, p_value)


def around(value: float, half: float = 0.05) -> Estimate:
    return Estimate(value, value - half, value + half)


@pytest.fixture(scope="module")
def result(synthetic: Audit) -> AuditResult:
    """The private and hardened one, its heads without a lift beyond chance."""
    result = synthetic.results[3]
    heads = tuple(replace(h, content=lift(1.0, 1.0)) for h in result.attention.heads)
    return replace(result, attention=replace(result.attention, heads=heads, entity_types=()))


def said(result: AuditResult, measure: str) -> Finding:
    (found,) = [finding for finding in findings(result) if finding.measure == measure]
    return found


def with_card(result: AuditResult, **fields: Any) -> AuditResult:
    return replace(result, card={**result.card, **fields})


def with_(result: AuditResult, part: str, **fields: Any) -> AuditResult:
    return replace(result, **{part: replace(getattr(result, part), **fields)})


def test_one_finding_a_measure_in_the_order_of_the_questions(synthetic: Audit) -> None:
    for each in synthetic.results:
        assert [finding.measure for finding in findings(each)] == list(QUESTIONS)
        assert all(finding.action.endswith(".") for finding in findings(each))


PRIVACY = {
    "good": (
        {"epsilon": 2.9912},
        ("good", "Trained privately: ε = 3.00 at δ = 1e-05",
         "The influence of any one training record on this model is bounded.",
         "Keep the card with the model, and add up the ε of everything released on these records."),
    ),
    "weak": (
        {"epsilon": 10.001},
        ("warn", "Trained privately, but the bound is weak: ε = 10.01 at δ = 1e-05",
         "An ε above 10 rules out little about any one record's influence.",
         "Do not rely on this ε alone. Train again with a smaller one."),
    ),
    "warned": (
        {"epsilon": 3.0, "warnings": ["UNTRAINED"]},
        ("warn", "Trained privately, with warnings: ε = 3.00 at δ = 1e-05",
         "The model card restricts its own statement.",
         "Read the warnings on the privacy card before you rely on this ε."),
    ),
    "none": (
        {"private": False},
        ("bad", "Not trained privately",
         "Nothing bounds what this model reveals about its training records.",
         "Guard the model as closely as its training records, or train it again with an ε."),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PRIVACY)
def test_privacy(result: AuditResult, case: str) -> None:
    card, (level, title, text, action) = PRIVACY[case]
    finding = said(with_card(result, **card), "privacy")
    assert finding == Finding(level, title, text, "privacy", action)


@pytest.mark.parametrize(
    ("accuracy", "level", "title"),
    [
        (Estimate(0.9, 0.85, 0.95), "info", "Better than naming the most frequent class"),
        (Estimate(0.7, 0.6, 0.8), "warn", "No better than naming the most frequent class"),
    ],
)
def test_utility(result: AuditResult, accuracy: Estimate, level: str, title: str) -> None:
    classes = tuple(
        replace(c, support=support)
        for c, support in zip(result.utility.classes, (60, 40), strict=True)
    )
    finding = said(with_(result, "utility", n=100, classes=classes, accuracy=accuracy), "utility")
    assert (finding.level, finding.title) == (level, title)
    assert finding.text.endswith(
        "of the answers are right; always naming the most frequent class would get 60.0% right."
    )


CERTIFICATE = {
    "holds": (
        {"largest_weight": 0.5, "largest_weight_bound": 0.8801, "holds": True},
        ("good", "Attention stays within its proved bound",
         "Largest weight measured 0.500, proved limit 0.881. That limits how much one word "
         "weighs; it is not differential privacy.",
         "Keep the clip and the temperature whenever you train this model further."),
    ),
    "broken": (
        {"largest_weight": 0.9, "largest_weight_bound": 0.8801, "holds": False},
        ("bad", "ATTENTION EXCEEDS ITS PROVED BOUND",
         "This is a defect. Largest weight measured 0.900, proved limit 0.881.",
         "Do not release this model. Report the defect."),
    ),
    "none": (
        {"largest_weight": 0.9, "largest_weight_bound": None, "holds": None},
        ("warn", "Attention has no bound",
         "The logits are not clipped: one token can take all the attention (measured: 0.900).",
         "Train with a clip where no single word may dominate an answer."),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CERTIFICATE)
def test_certificate(result: AuditResult, case: str) -> None:
    fields, (level, title, text, action) = CERTIFICATE[case]
    certificate = replace(result.attention.certificate, **fields)
    finding = said(with_(result, "attention", certificate=certificate), "certificate")
    assert finding == Finding(level, title, text, "certificate", action)


def figure(overall: float, matched: float, half: float = 0.1) -> str:
    over, like = (f"{v:.3f} [{v - half:.3f}, {v + half:.3f}]" for v in (overall, matched))
    return (
        f"Personal data gets {over} times the attention of an average word, and {like} times that "
        "of like words nearby"
    )


NO_HEAD = " Compared with the average word, 0 of 6 heads favour it beyond chance."
ATTENTION = {
    "favoured": (
        {"overall": lift(2.0, 0.001), "matched": lift(1.5, 0.001)},
        ("warn", "Attention favours personal data",
         f"{figure(2.0, 1.5)}: more than chance explains.{NO_HEAD}", READ_ON),
    ),
    "favoured slightly": (
        {"overall": lift(1.01, 0.001, 0.001), "matched": lift(1.02, 0.001, 0.001)},
        ("info", "Attention favours personal data, but by less than 5%",
         f"{figure(1.01, 1.02, 0.001)}: more than chance explains.{NO_HEAD}", READ_ON),
    ),
    "explained by length and place": (
        {"overall": lift(2.0, 0.001), "matched": lift(1.0, 0.8)},
        ("info", "Attention favours personal data no more than like words",
         f"{figure(2.0, 1.0)}: its length and place explain the difference.", READ_ON),
    ),
    "explained, but without power": (
        {"overall": lift(2.0, 0.001), "matched": lift(1.0, 0.8), "matched_planted": FAILED},
        ("warn", "Attention favours personal data, perhaps for its length and place",
         f"{figure(2.0, 1.0)}. {FEW}", MORE_RECORDS),
    ),
    "nothing found": (
        {"overall": lift(1.0, 0.9), "matched": lift(1.0, 0.8)},
        ("info", "No difference in attention to personal data was found",
         f"{figure(1.0, 1.0)}, as chance alone gives.", READ_ON),
    ),
    "nothing found, without power": (
        {"overall": lift(1.0, 0.9), "matched": lift(1.0, 0.8), "planted": FAILED},
        ("warn", "No difference in attention to personal data was found",
         f"{figure(1.0, 1.0)}. {FEW}", MORE_RECORDS),
    ),
    "less": (
        {"overall": lift(0.5, 0.001), "matched": lift(0.9, 0.2)},
        ("good", "Attention does not favour personal data",
         f"{figure(0.5, 0.9)}, less than chance gives.", READ_ON),
    ),
    "less than average, more than like words": (
        {"overall": lift(0.5, 0.001), "matched": lift(1.5, 0.001)},
        ("warn", "Attention favours personal data",
         f"{figure(0.5, 1.5)}: more than chance explains.{NO_HEAD}", READ_ON),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ATTENTION)
def test_attention(result: AuditResult, case: str) -> None:
    fields, (level, title, text, action) = ATTENTION[case]
    finding = said(with_(result, "attention", **fields), "attention")
    assert finding == Finding(level, title, text, "attention", action)


def test_attention_says_where(result: AuditResult, synthetic: Audit) -> None:
    heads = tuple(
        replace(head, content=lift(2.0, 0.001 if head.layer else 0.2))
        for head in result.attention.heads
    )
    (some, other) = synthetic.results[3].attention.entity_types
    types = (replace(some, permuted=lift(2.0, 0.01)), replace(other, permuted=lift(3.0, 0.2)))
    fields = {"overall": lift(2.0, 0.001), "matched": lift(1.5, 0.001)}
    found = said(with_(result, "attention", heads=heads, entity_types=types, **fields), "attention")
    assert found.text.endswith("3 of 6 heads favour it beyond chance; by type, EMAIL (2.00).")


FLOW = "Over like words nearby, personal data gets {} times the attention followed through the "
FLOW += "layers, and {} times the attention weighted by what the values carry"
FLOWS = {
    "both": (lift(2.0, 0.001), lift(2.0, 0.001), PASSED, "warn",
             "Both readings favour personal data"),
    "one": (lift(2.0, 0.001), lift(1.0, 0.9), PASSED, "warn",
            "One of two readings favours personal data"),
    "slightly": (lift(1.01, 0.001, 0.001), lift(1.0, 0.9, 0.001), PASSED, "info",
                 "One of two readings favours personal data, but by less than 5%"),
    "neither": (lift(1.0, 0.9), lift(1.0, 0.9), PASSED, "info",
                "Neither reading favours personal data"),
    "no power": (lift(1.0, 0.9), lift(1.0, 0.9), FAILED, "warn",
                 "Neither reading favours personal data"),
}  # fmt: skip


@pytest.mark.parametrize("case", FLOWS)
def test_flow(result: AuditResult, case: str) -> None:
    rollout, norms, planted, level, title = FLOWS[case]
    flow = replace(
        result.flow,
        rollout=replace(result.flow.rollout, matched=rollout),
        norm_weighted=replace(result.flow.norm_weighted, matched=norms),
    )
    changed = replace(with_(result, "attention", matched_planted=planted), flow=flow)
    finding = said(changed, "flow")
    shown = (
        f"{e.value or 0:.3f} [{e.low or 0:.3f}, {e.high or 0:.3f}]"
        for e in (rollout.lift, norms.lift)
    )
    text = f"{FLOW.format(*shown)}.{f' {FEW}' if planted is FAILED else ''}"
    assert (finding.level, finding.title, finding.text) == (level, title, text)


@pytest.mark.parametrize(
    ("found", "level", "title", "end"),
    [
        (lift(2.0, 0.001), "warn", "Answers rely on personal data more than on other words",
         ": more than chance explains."),
        (lift(0.5, 0.001), "info", "Answers rely less on personal data than on other words", "."),
        (lift(1.0, 0.9), "info",
         "No greater reliance on personal data than on other words was found",
         ", as chance alone gives."),
    ],
)  # fmt: skip
def test_attribution(result: AuditResult, found: Lift, level: str, title: str, end: str) -> None:
    finding = said(with_(result, "attribution", share=0.25, lift=found), "attribution")
    value = found.lift.value or 0.0
    text = f"Personal data carries 25.0% of what moved the answers, {value:.2f} "
    text += f"[{value - 0.1:.2f}, {value + 0.1:.2f}] times an average word's part{end}"
    assert (finding.level, finding.title, finding.text) == (level, title, text)


def test_conductance(result: AuditResult) -> None:
    layers = result.conductance.layers
    quiet = tuple(replace(each, permuted=lift(2.0, 0.5)) for each in layers)
    loud = (quiet[0], replace(quiet[1], permuted=lift(2.0, 0.01)))
    figure = (
        "Most in layer 2: personal data carries 50.0% of what passes through its attention weights"
    )
    finding = said(with_(result, "conductance", layers=quiet), "conductance")
    assert (finding.level, finding.text) == ("info", f"{figure}.")
    assert finding.title == "No layer passes on more of personal data than of other words"
    finding = said(with_(result, "conductance", layers=loud), "conductance")
    assert (finding.level, finding.text) == ("warn", f"{figure}: more than chance explains.")
    assert finding.title == "Personal data reaches the answer through layer 2"


@pytest.mark.parametrize(
    ("correlation", "p_value", "level", "title"),
    [
        (0.6, 0.001, "info", "Two methods agree beyond chance on which words matter"),
        (0.6, 0.2, "warn", "Two methods do not agree on which words matter"),
        (-0.6, 0.001, "warn", "Two methods do not agree on which words matter"),
    ],
)
def test_occlusion(
    result: AuditResult, correlation: float, p_value: float, level: str, title: str
) -> None:
    fields = {"rank_correlation": around(correlation), "rank_p_value": p_value}
    finding = said(with_(result, "occlusion", rank_documents=40, **fields), "occlusion")
    assert (finding.level, finding.title) == (level, title)
    assert f"{correlation:.2f} [{correlation - 0.05:.2f}, {correlation + 0.05:.2f}]" in finding.text


@pytest.mark.parametrize(
    ("gain", "level", "title"),
    [
        (0.2, "info", "Attention names words that matter, more than chance does"),
        (0.04, "warn", "Attention names words that matter no better than chance"),
    ],
)
def test_faithfulness(result: AuditResult, gain: float, level: str, title: str) -> None:
    rankings = tuple(
        replace(each, comprehensiveness_gain=around(gain if each.ranking == "attention" else 0.3))
        for each in result.faithfulness.rankings
    )
    rank = replace(result.faithfulness.rank_correlation, mean=around(0.25))
    finding = said(
        with_(result, "faithfulness", rankings=rankings, rank_correlation=rank), "faithfulness"
    )
    assert (finding.level, finding.title) == (level, title)
    assert finding.text == (
        "Removing the words that attention ranks first lowers the answer's probability by "
        f"{gain:.3f} [{gain - 0.05:.3f}, {gain + 0.05:.3f}] more than removing random ones; for "
        "integrated gradients' ranking it is 0.300 [0.250, 0.350]. The two rank words with a "
        "correlation of 0.25 [0.20, 0.30]."
    )


@pytest.mark.parametrize(
    ("move", "level", "title"),
    [
        (0.1, "info", "Explanations move by less than their own size"),
        (1.5, "warn", "An explanation moves by more than its own size"),
    ],
)
def test_sensitivity(result: AuditResult, move: float, level: str, title: str) -> None:
    moves = (
        ExplanationSensitivity("attention", around(0.1)),
        ExplanationSensitivity("integrated_gradients", around(move)),
    )
    finding = said(with_(result, "sensitivity", explanations=moves, radius=0.05), "sensitivity")
    assert (finding.level, finding.title) == (level, title)
    assert finding.text == (
        "Noise of 0.05 deviations moves attention by at least 10.0% [5.0%, 15.0%] of its size and "
        f"integrated gradients by at least {move:.1%} [{move - 0.05:.1%}, {move + 0.05:.1%}] of "
        "its size."
    )


def test_counterfactual(result: AuditResult) -> None:
    swaps = result.counterfactual.overall
    swaps = replace(
        swaps,
        entities=90,
        swap=replace(swaps.swap, flips=around(0.3)),
        swap_null=replace(swaps.swap_null, flips=around(0.1)),
    )
    quiet = with_(result, "counterfactual", overall=swaps)
    text = (
        "Swapping in another value of the same type changed 30.0% [25.0%, 35.0%] of the answers; "
        "swapping as many other words changed 10.0% [5.0%, 15.0%] (90 swaps)."
    )
    finding = said(quiet, "counterfactual")
    assert (finding.level, finding.text) == ("info", f"{text} The answers may still depend on it.")
    assert finding.title == "No sign that personal data moves answers more than other words"
    types = tuple(replace(e, flagged=e.entity_type == "EMAIL") for e in quiet.counterfactual.types)
    finding = said(with_(quiet, "counterfactual", types=types), "counterfactual")
    assert finding.level == "bad"
    assert finding.title == "Answers depend on who the person is: EMAIL"
    assert finding.text == f"{text} That is the effect of the value alone."
    whole = with_(quiet, "counterfactual", overall=replace(swaps, flagged=True))
    assert said(whole, "counterfactual").title.endswith(": personal data taken together")


def test_memorisation(result: AuditResult) -> None:
    fields = {"difference": around(1.5), "member_entities": 70, "held_out_entities": 60}
    text = (
        "Swapping a value seen in training costs the true class 1.50 [1.45, 1.55] more log-odds "
        "than swapping one that was not (70 and 60 values)."
    )
    found = with_(result, "memorisation", flagged=True, judgement=judged("FOUND"), **fields)
    finding = said(found, "memorisation")
    assert (finding.level, finding.text) == ("bad", text)
    assert finding.title == "Values seen in training were memorised"
    finding = said(with_(result, "memorisation", flagged=False, **fields), "memorisation")
    assert finding.level == "info"
    assert finding.title == "No memorised values were found"
    assert finding.text == f"{text} This test sees only what changes the answer's class."
    assert finding.action == (
        "No action from this result alone: only ε bounds what a model remembers."
    )


THREE = make_claim(2.9912, 1e-5, "steps", [(0.0, 0.2)])


def judged(verdict: Verdict, claim: Claim | None = None, low: float = 0.7) -> Judgement:
    allowed = claim.auc if claim else None
    return Judgement(verdict, allowed, claim, (Placed("AUC", low, 0.8, 0.5, allowed, verdict),))


@pytest.mark.parametrize(
    ("verdict", "low", "level", "title", "meaning"),
    [
        ("FOUND", 0.7, "bad", "Membership can be inferred",
         "Members can be told from non-members better than by chance"),
        ("NOT FOUND", 0.4, "info", "No membership leak detected",
         "This attack found nothing, which does not prove privacy"),
    ],
)  # fmt: skip
def test_membership_without_a_claim(
    result: AuditResult, verdict: Any, low: float, level: str, title: str, meaning: str
) -> None:
    fields = {"judgement": judged(verdict, low=low), "auc": around(0.75)}
    finding = said(with_(result, "membership", **fields), "membership")
    assert (finding.level, finding.title) == (level, title)
    assert finding.text == f"{meaning} (AUC 0.750 [0.700, 0.800]; 0.5 is guessing)."


BESIDE = {
    "BEYOND THE CLAIM": ("bad", "Membership can be inferred, beyond what ε = 3.00 allows"),
    "WITHIN THE CLAIM": ("info", "Membership can be inferred, within what ε = 3.00 allows"),
    "INCONCLUSIVE": ("warn", "Membership test: too few records to hold it against ε = 3.00"),
    "CHANCE": ("info", "No membership leak detected"),
}


@pytest.mark.parametrize("verdict", BESIDE)
def test_membership_beside_a_claim(result: AuditResult, verdict: Any) -> None:
    """A private model is red only where more was found than its ε allows."""
    fields = {"judgement": judged(verdict, THREE), "auc": around(0.75)}
    finding = said(with_(result, "membership", **fields), "membership")
    assert (finding.level, finding.title) == BESIDE[verdict]
    assert "ε = 3.00 at δ = 1e-05 allows an AUC of at most 0.680." in finding.text
    beyond = "AUC is at least 0.700, where at most 0.680 is allowed."
    assert finding.text.endswith(beyond) == (verdict == "BEYOND THE CLAIM")


def test_memorised_values_within_the_claim_are_no_alarm(result: AuditResult) -> None:
    fields = {"flagged": True, "judgement": judged("WITHIN THE CLAIM", THREE)}
    finding = said(with_(result, "memorisation", **fields), "memorisation")
    assert finding.level == "info"
    assert finding.title == ("Values seen in training were memorised, within what ε = 3.00 allows")


def test_robustness(result: AuditResult) -> None:
    radii = tuple(replace(at, strongest=around(0.2)) for at in result.robustness.radii)
    finding = said(with_(result, "robustness", clean=around(0.9), radii=radii), "robustness")
    assert finding.text == (
        "90.0% [85.0%, 95.0%] without attack, 20.0% [15.0%, 25.0%] at the largest radius. "
        "Stronger attacks may lower it further: this is an upper limit, not a guarantee."
    )
    assert finding.level == "info"


def test_robustness_of_a_model_that_is_never_right(result: AuditResult) -> None:
    least = replace(result.robustness.least, documents=0, shares=(), scales=())
    finding = said(with_(result, "robustness", documents=7, least=least), "robustness")
    assert (finding.level, finding.title) == (
        "warn", "Nothing is answered rightly, so there is nothing to attack"
    )  # fmt: skip
    assert finding.text.startswith("None of the 7 attacked records is answered rightly")


def test_attention_attacks(result: AuditResult) -> None:
    radii = tuple(
        replace(at, onto=around(2.5), off=around(0.5)) for at in result.attention_attacks.radii
    )
    bounded = with_(result, "attention_attacks", radii=radii, onto_bound=3.7011)
    assert said(bounded, "attention_attacks") == Finding(
        "info",
        "Attention on personal data can be led",
        "At the largest radius it becomes 2.500 [2.450, 2.550] times or 0.500 [0.450, 0.550] times "
        "what it was, and the answer stays. The clip allows at most 3.71 times, whatever is moved.",
        "attention_attacks",
        "Do not take attention for a proof of what an answer rests on.",
    )
    unbounded = with_(result, "attention_attacks", radii=radii, onto_bound=None)
    assert said(unbounded, "attention_attacks").text.endswith("Nothing bounds it.")


FALSIFIED = {
    "attention": ("attention", {"null": FAILED}, "Attention to personal data"),
    "flow": ("attention", {"matched_null": FAILED}, "Attention through layers and values"),
    "faithfulness": ("faithfulness", {"valid": False, "positive": FAILED},
                     "Faithfulness of attention"),
    "sensitivity": ("sensitivity", {"valid": False, "null": FAILED}, "Stability of explanations"),
    "counterfactual": ("counterfactual", {"valid": False, "null": FAILED}, "The swap test"),
    "memorisation": ("memorisation", {"valid": False, "flagged": True, "positive": FAILED},
                     "The memorisation test"),
    "membership": ("membership", {"valid": False, "positive": FAILED}, "Membership test"),
    "robustness": ("robustness", {"valid": False, "null": FAILED}, "Robustness test"),
    "attention_attacks": ("attention_attacks", {"valid": False, "null": FAILED},
                          "Attacks on attention"),
    "text_attacks": ("text_attacks", {"valid": False, "within": FAILED}, "Attacks on texts"),
    "certified": ("certified", {"valid": False, "null": FAILED}, "Certified answers"),
    "checklist": ("checklist", {"valid": False, "null": FAILED}, "Behavioural tests"),
}  # fmt: skip


@pytest.mark.parametrize("measure", FALSIFIED)
def test_a_failed_control_makes_a_measure_invalid(result: AuditResult, measure: str) -> None:
    part, fields, name = FALSIFIED[measure]
    finding = said(with_(result, part, **fields), measure)
    assert finding == Finding("warn", f"{name} INVALID", INVALID, measure, AGAIN, "invalid")


def test_without_personal_data_nothing_is_claimed(result: AuditResult) -> None:
    flow = replace(result.flow, rollout=replace(result.flow.rollout, permuted=UNDEFINED))
    bare = replace(with_(result, "attention", overall=UNDEFINED, matched=UNDEFINED), flow=flow)
    bare = with_(bare, "attribution", share=None, lift=UNDEFINED)
    bare = with_(bare, "conductance", shares=(None, None))
    bare = with_(bare, "counterfactual", overall=replace(bare.counterfactual.overall, entities=0))
    bare = with_(bare, "occlusion", rank_correlation=NONE, rank_p_value=None)
    bare = replace(bare, membership=NotRun("no members"), memorisation=NotRun("no training rows"))
    for measure, text in {
        "attention": NO_DATA,
        "flow": NO_DATA,
        "attribution": NO_DATA,
        "conductance": NO_DATA,
        "counterfactual": "No personal data had a replacement of the same type and length.",
        "occlusion": "No record had words that differ in their effect.",
        "membership": "No members.",
        "memorisation": "No training rows.",
    }.items():
        finding = said(bare, measure)
        assert (finding.level, finding.state, finding.text) == ("info", "not run", text)
        assert finding.title.endswith(" not run")
    verdict = run_verdict(findings(bare))
    assert verdict.counts.endswith("8 not run")


@pytest.mark.parametrize(
    ("levels", "title", "counts"),
    [
        (("good", "bad", "warn", "info"), "Problems found",
         "1 bad, 1 to look at, 1 to know, 1 good"),
        (("good", "warn", "warn"), "Points to look at", "2 to look at, 1 good"),
        (("good", "good"), "No problem found, which does not prove that there is none", "2 good"),
    ],
)  # fmt: skip
def test_the_verdict_is_that_of_the_gravest(levels: Any, title: str, counts: str) -> None:
    verdict = run_verdict([Finding(level, "", "", "privacy", "") for level in levels])
    assert (verdict.title, verdict.counts) == (title, counts)


def test_what_fails_to_be_found_is_never_good(synthetic: Audit) -> None:
    """Only a card, a proof, or a bias that points the other way may be called good."""
    for each in synthetic.results:
        good = {finding.measure for finding in findings(each) if finding.level == "good"}
        assert good <= {"privacy", "certificate", "attention"}
