"""The whole audit on real run folders."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from attnpriv.audit.leakage.membership import MembershipResult
from attnpriv.audit.memorisation import MemorisationResult
from attnpriv.audit.results import Audit, NotRun, to_json
from attnpriv.audit.runner import AuditOptions, audit_runs
from attnpriv.audit.subject import choose_rows
from attnpriv.data import Dataset, Texts
from attnpriv.data.splits import split_indices, split_rows
from attnpriv.errors import InputError
from attnpriv.runs.folder import load_run
from attnpriv.sensitive import PresidioDetector

SMALL = AuditOptions(
    documents=50,
    members=60,
    ig_documents=3,
    ig_steps=8,
    faithfulness_documents=3,
    sensitivity_documents=1,
    counterfactual_documents=6,
    memorisation_documents=6,
    pgd_documents=4,
    text_attack_documents=2,
    permutations=50,
    resamples=50,
)
FEWER = replace(
    SMALL,
    documents=12,
    members=12,
    ig_documents=1,
    pgd_documents=1,
    text_attack_documents=1,
    examples=1,
)


class Seen(NamedTuple):
    """An audit, and what was said of its progress last, by stage."""

    audit: Audit
    progress: dict[str, tuple[int, int]]


@pytest.fixture(scope="module")
def seen(tiny_run: Path, private_run: Path, tickets: Dataset) -> Seen:
    runs = [load_run(tiny_run), load_run(private_run)]
    last: dict[str, tuple[int, int]] = {}
    audit = audit_runs(
        runs,
        tickets,
        None,
        SMALL,
        lambda stage, done, total: last.update({stage: (done, total)}),
    )
    return Seen(audit, last)


@pytest.fixture(scope="module")
def audit(seen: Seen) -> Audit:
    return seen.audit


def test_both_runs_are_measured_on_their_held_out_rows(audit: Audit) -> None:
    assert [r.name for r in audit.results] == ["tiny", "private"]
    for result in audit.results:
        assert result.held_out_rows == SMALL.documents
        assert result.utility.n == SMALL.documents
        assert result.attention.documents == SMALL.documents
        assert result.attribution.documents == SMALL.ig_documents
        assert result.conductance.documents == SMALL.ig_documents
        assert result.occlusion.documents == SMALL.ig_documents
        assert result.faithfulness.documents == SMALL.faithfulness_documents
        assert "rollout" in {r.ranking for r in result.faithfulness.rankings}
        assert result.sensitivity.documents == SMALL.sensitivity_documents
        assert result.counterfactual.documents == SMALL.counterfactual_documents
        assert result.counterfactual.overall.entities > 0
        assert isinstance(result.memorisation, MemorisationResult)
        assert {t.name for t in result.attention.entity_types} >= {"PERSON", "EMAIL_ADDRESS"}
        assert len(result.flow.layers) == 2
        assert result.robustness.documents == SMALL.pgd_documents
        assert isinstance(result.membership, MembershipResult)
        tested = result.membership.non_members + result.membership.repeated
        assert (result.membership.members, tested) == (60, 50)
        assert len(result.examples) == SMALL.examples


def test_only_the_clipped_run_has_a_certificate_and_it_holds(audit: Audit) -> None:
    plain, hardened = (r.attention.certificate for r in audit.results)
    assert (plain.holds, plain.largest_weight_bound) == (None, None)
    assert hardened.holds is True


def test_runs_are_compared_on_the_same_rows(audit: Audit) -> None:
    (comparison,) = audit.comparisons
    assert (comparison.run, comparison.against, comparison.not_run) == ("private", "tiny", None)
    lifts = [r.attention.overall.lift.value or 0 for r in audit.results]
    assert comparison.lift_ratio.value == pytest.approx(lifts[1] / lifts[0])
    found = {each.measure: each for each in comparison.differences}
    for side, result in (("theirs", audit.results[0]), ("ours", audit.results[1])):
        assert isinstance(result.membership, MembershipResult)
        reported = {
            "utility.accuracy": result.utility.accuracy,
            "attention.overall.lift": result.attention.overall.lift,
            "attention.matched.lift": result.attention.matched.lift,
            "flow.rollout.permuted.lift": result.flow.rollout.permuted.lift,
            "flow.norm_weighted.permuted.lift": result.flow.norm_weighted.permuted.lift,
            "attribution.lift.lift": result.attribution.lift.lift,
            "counterfactual.overall.swap.change": result.counterfactual.overall.swap.change,
            "counterfactual.overall.excess": result.counterfactual.overall.excess,
            "robustness.clean": result.robustness.clean,
            "robustness.radii[0.05].strongest": result.robustness.radii[-1].strongest,
            "membership.auc": result.membership.auc,
        }
        assert {path: getattr(found[path], side) for path in reported} == pytest.approx(
            {path: estimate.value for path, estimate in reported.items()}
        )
    assert {"attention.heads[*].normalised_entropy", "attention.heads[*].special_mass"} < {*found}


def test_controls_stand_in_every_result(audit: Audit) -> None:
    for result in audit.results:
        assert isinstance(result.membership, MembershipResult)
        assert result.membership.positive.passed
        assert result.membership.null.passed
        assert result.robustness.null.passed
        assert result.attention.null.passed


def test_json_is_plain(audit: Audit) -> None:
    text = json.dumps(to_json(audit), sort_keys=True, allow_nan=False)
    assert json.loads(text)["schema_version"] == 1


def test_examples_hold_placeholders_and_no_personal_data(audit: Audit, tickets: Dataset) -> None:
    assert tickets.spans is not None
    secrets = {
        text[span.start : span.end]
        for text, spans in zip(tickets.texts, tickets.spans, strict=True)
        for span in spans
    }
    shown = [
        piece for result in audit.results for example in result.examples for piece in example.pieces
    ]
    assert any(piece.placeholder == "[PERSON]" for piece in shown)
    words = " ".join(piece.word or "" for piece in shown)
    assert not [secret for secret in secrets if len(secret) > 4 and secret in words]
    assert "word" not in json.dumps(to_json(audit)["results"][0]["examples"])


def test_members_are_the_training_rows(tiny_run: Path, tickets: Dataset) -> None:
    """A membership test of foreign rows must not run, and of known rows must use the split."""
    run = load_run(tiny_run)
    split = run.card.data.split
    _, held_out = split_rows(tickets.texts, split)
    other = tickets.subset(held_out)
    (result,) = audit_runs([run], other, None, FEWER).results
    for measure in (result.memorisation, result.membership):
        assert isinstance(measure, NotRun)
        assert "this is not the data trained on" in measure.not_run


def test_of_a_changed_file_the_rows_that_may_have_been_trained_on_are_left_out(
    tiny_run: Path, tickets: Dataset
) -> None:
    run = load_run(tiny_run)
    trained = {tickets.texts[row] for row in run.split(tickets).trained}
    for changed in (tickets.subset(range(299)), tickets.subset([*range(300), 0])):
        rows = choose_rows(run, changed, AuditOptions())
        assert rows.members is None
        assert rows.held_out
        assert rows.left_out + len(rows.held_out) == len(changed)
        assert not trained & {changed.texts[row] for row in rows.held_out}
    data = replace(run.card.data, split={"train_size": 240, "seed": 0})
    shuffled = replace(run, card=replace(run.card, data=data))
    with pytest.raises(InputError, match="not the data that tiny was trained on.*may have been"):
        audit_runs([shuffled], tickets.subset(range(299)), None, FEWER)


def test_held_out_copies_of_training_texts_are_no_non_members(tiny_run: Path) -> None:
    texts = [f"text {i % 7}" for i in range(20)]
    data = Texts("copies", tuple(texts), (0, 1) * 10, ("a", "b"), ((),) * 20)
    run, split = load_run(tiny_run), {"train_size": 6, "seed": 0}
    trained_on = replace(run.card.data, fingerprint=data.fingerprint(), split=split)
    rows = choose_rows(replace(run, card=replace(run.card, data=trained_on)), data, SMALL)
    train, held_out = split_indices(20, 6, 0)
    known = {texts[i] for i in train}
    assert rows.held_out == tuple(held_out)
    assert rows.repeated == {i for i in held_out if texts[i] in known}
    assert 0 < len(rows.repeated) < len(held_out)


@pytest.mark.exhaustive
def test_detector_stands_in_for_missing_gold_and_is_scored_beside_it(
    tiny_run: Path, tickets: Dataset
) -> None:
    run, detector = load_run(tiny_run), PresidioDetector()
    blind = dataclasses.replace(tickets, spans=None)
    coverage = audit_runs([run], blind, detector, FEWER).coverage
    assert (coverage.source, coverage.quality) == ("presidio-en_core_web_sm", None)
    assert "AGE" in coverage.cannot_see
    scored = audit_runs([run], tickets, detector, FEWER).coverage
    assert scored.source == "gold spans"
    quality = {q.entity_type: q for q in scored.quality or ()}
    assert (quality["EMAIL_ADDRESS"].recall or 0) > 0.9
    assert (quality["PERSON"].recall or 0) > 0.5


def test_data_without_personal_data_is_audited_all_the_same(
    tiny_run: Path, tickets: Dataset
) -> None:
    nothing = dataclasses.replace(tickets, spans=((),) * len(tickets))
    audit = audit_runs([load_run(tiny_run)], nothing, None, FEWER)
    (result,) = audit.results
    assert result.attention.overall.lift.value is None
    assert result.attribution.share is None
    assert result.examples == ()
    assert result.counterfactual.overall.entities == 0
    json.dumps(to_json(audit), allow_nan=False)


def test_progress_reaches_its_total(seen: Seen) -> None:
    assert seen.progress["tiny: predictions and attention"] == (50, 50)
    assert seen.progress["private: attacks on embeddings"] == (4, 4)
    assert seen.progress["private: integrated gradients"][0] >= 3
    assert len(seen.progress) == 2 * 17 + 1
    assert "the whole audit" in seen.progress
    assert all(done == total for done, total in seen.progress.values())


def test_bad_input(tiny_run: Path, tickets: Dataset) -> None:
    run = load_run(tiny_run)
    with pytest.raises(InputError, match="at least one run"):
        audit_runs([], tickets)
    with pytest.raises(InputError, match="give a detector"):
        audit_runs([run], dataclasses.replace(tickets, spans=None))
    with pytest.raises(InputError, match="classes of tiny"):
        audit_runs([run], dataclasses.replace(tickets, label_names=tuple("abcdefghij")))
    with pytest.raises(InputError, match="resamples"):
        AuditOptions(resamples=0)
