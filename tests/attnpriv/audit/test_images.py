"""Audits of models that read images: what is measured on patches, and what is not run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from attnpriv.audit.results import Audit, NotRun, blurred, to_json
from attnpriv.audit.runner import AuditOptions, audit_runs
from attnpriv.audit.subject import NO_TEXTS
from attnpriv.config import AttentionConfig, TrainConfig
from attnpriv.data import load_dataset
from attnpriv.errors import InputError
from attnpriv.report.auditing import audit_into
from attnpriv.report.writer import HTML_NAME
from attnpriv.runs.folder import load_run
from attnpriv.training import train

FEW = AuditOptions(
    documents=30,
    members=30,
    ig_documents=12,
    ig_steps=8,
    faithfulness_documents=2,
    sensitivity_documents=1,
    pgd_documents=2,
    permutations=200,
    resamples=50,
)
UNMOVED = replace(FEW, skip=("pixel_attacks",))
PAIRS = "digits:rows=300,beside=1"


def trained(source: str, out: Path, encoder: str = "vit") -> Path:
    """A run that needs no encoder to be trained: a head on what random weights make of an image."""
    config = TrainConfig(trainable="head", steps=80, head_learning_rate=0.3)
    attention = AttentionConfig(clip=2.0)
    data = load_dataset(source)
    train(data, out, encoder=encoder, attention=attention, config=config, privacy=None)
    return out


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(f"{PAIRS},tie=1", tmp_path_factory.mktemp("tied") / "tied")


@pytest.fixture(scope="module")
def audit(tied: Path) -> Audit:
    return audit_runs([load_run(tied)], load_dataset(f"{PAIRS},tie=1"), None, FEW)


def test_what_works_on_positions_is_measured_on_patches(audit: Audit) -> None:
    (result,) = audit.results
    attention = result.attention
    assert attention.documents == attention.documents_with_sensitive == 30
    # Of 4 × 8 patches of 2 × 2 pixels, the right half is marked.
    assert attention.content_tokens == 30 * 32
    assert attention.sensitive_tokens == attention.matched_tokens == 30 * 16
    assert [each.name for each in attention.entity_types] == ["DIGIT"]
    assert all(head.special_mass == 0 for head in attention.heads)
    assert attention.certificate.holds
    assert attention.planted.passed
    assert attention.null.passed
    assert audit.coverage.source == "gold boxes"
    assert result.robustness.documents == result.pixel_attacks.documents == 2
    assert result.pixel_attacks.valid
    assert not isinstance(result.membership, NotRun)


def test_what_replaces_words_is_not_run_and_says_why(audit: Audit) -> None:
    (result,) = audit.results
    for measure in ("memorisation", "text_attacks"):
        assert getattr(result, measure) == NotRun(NO_TEXTS)


def test_examples_are_maps_of_patches_whose_insides_show_only_if_asked_for(audit: Audit) -> None:
    (result,) = audit.results
    assert len(result.examples) == 4
    for shown in result.examples:
        boxes = [piece.box for piece in shown.pieces]
        assert boxes[:2] == [(0, 0, 2, 2), (2, 0, 4, 2)]
        assert len(boxes) == 32
        hidden = [piece for piece in shown.pieces if piece.placeholder]
        assert {piece.placeholder for piece in hidden} == {"[DIGIT]"}
        assert [piece.box[0] >= 8 for piece in shown.pieces] == [
            piece.placeholder is not None for piece in shown.pieces
        ]
        assert sum(piece.attention for piece in shown.pieces) == pytest.approx(1)

        seen = blurred(shown)
        inside = [piece for piece in seen.pieces if piece.placeholder]
        assert len({(piece.attention, piece.attribution) for piece in inside}) == 1
        mean = np.mean([piece.attention for piece in hidden])
        assert inside[0].attention == pytest.approx(mean)
        assert [p for p in seen.pieces if not p.placeholder] == [
            p for p in shown.pieces if not p.placeholder
        ]
    (first, *_) = to_json(audit)["results"][0]["examples"]
    assert len({p["attention"] for p in first["pieces"] if p["placeholder"]}) == 1
    (asked, *_) = to_json(audit, include_text=True)["results"][0]["examples"]
    assert len({p["attention"] for p in asked["pieces"] if p["placeholder"]}) > 1


def test_attributions_find_the_region_that_tells_the_class_and_no_other(
    audit: Audit, tmp_path: Path
) -> None:
    """The class is the sensitive digit's, or the other one's; nothing else differs."""
    found = audit.results[0].attribution.lift
    assert found.lift.low > 1.2
    swaps = audit.results[0].counterfactual
    assert swaps.valid
    assert (swaps.overall.entities, swaps.overall.left_out) == (30, 0)
    assert swaps.overall.flagged
    other = audit_runs(
        [load_run(trained(PAIRS, tmp_path / "null"))], load_dataset(PAIRS), None, UNMOVED
    )
    assert other.results[0].attribution.lift.lift.high < 1
    swaps = other.results[0].counterfactual
    assert swaps.valid
    assert not swaps.overall.flagged
    assert swaps.overall.excess.high < 0


def test_without_regions_nothing_is_sensitive(tmp_path: Path) -> None:
    source = "digits:rows=150"
    run = load_run(trained(source, tmp_path / "plain"))
    found = audit_runs([run], load_dataset(source), None, UNMOVED)
    (result,) = found.results
    assert found.coverage.source == "no gold boxes"
    assert result.attention.documents_with_sensitive == 0
    assert result.attention.overall.lift.value is None
    assert result.counterfactual.overall.entities == 0
    assert result.utility.accuracy.value > 0.3
    assert not isinstance(result.membership, NotRun)


def test_the_report_tells_it_all_and_shows_no_image(tied: Path, tmp_path: Path) -> None:
    data = load_dataset(f"{PAIRS},tie=1")
    options = AuditOptions.at("quick", documents=8, members=8, ig_documents=2, pgd_documents=1)
    written = audit_into(tmp_path, [load_run(tied)], data, None, options)
    page = (tmp_path / HTML_NAME).read_text(encoding="utf-8")
    assert NO_TEXTS[1:] in page
    assert "by what stands in a region of the same type and size in another image" in page
    assert page.count('class="tokens map" style="--columns: 8"') == 4
    assert "share its mean, so that its inside does not show" in page
    assert "These records are images: a word or a token of this page is a patch" in page
    assert written.report.results[0].name == "tied"


def test_a_run_is_audited_on_its_own_kind_of_record(tied: Path) -> None:
    run, texts = load_run(tied), load_dataset("tickets:rows=50")
    with pytest.raises(InputError, match="expected images, which tied reads, got tickets: texts"):
        audit_runs([run], texts, None, FEW)


def test_a_batch_of_images_has_the_bits_of_each_alone(tied: Path) -> None:
    run, data = load_run(tied), load_dataset(f"{PAIRS},tie=1")
    samples = run.modality.read(data.records[:5])
    together = run.model(*_inputs(run, samples)).numpy()
    for row, sample in enumerate(samples):
        alone = run.model(*_inputs(run, [sample])).numpy()[0]
        np.testing.assert_allclose(alone, together[row], rtol=1e-5, atol=1e-6)


def _inputs(run, samples):
    inputs = run.modality.collate(samples)
    return inputs.values, inputs.mask
