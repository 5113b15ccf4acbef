"""Audits of convolutional networks: gates and feature maps in the place of attention."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from attnpriv import guarantees as g
from attnpriv.audit.examples import Piece
from attnpriv.audit.results import Audit, NotRun, blurred
from attnpriv.audit.runner import audit_runs
from attnpriv.audit.subject import NO_ATTENTION, NO_FEATURE_MAPS, NO_GATES
from attnpriv.config import AttentionConfig
from attnpriv.data import load_dataset
from attnpriv.explain.gradients import grad_cam
from attnpriv.modality import embed
from attnpriv.models.cnn import CnnClassifier
from attnpriv.models.shapes import CnnConfig
from attnpriv.report.auditing import audit_into
from attnpriv.report.writer import HTML_NAME
from attnpriv.runs.folder import load_run
from tests.attnpriv.audit.test_images import FEW, PAIRS, trained

FEWER = replace(FEW, documents=20, members=20, ig_documents=8, ig_steps=4, full_sample_tokens=128)
NOT_OF_CNNS = ("attention", "flow", "conductance", "faithfulness")


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gated") / "gated"
    return trained(f"{PAIRS},tie=1", out, encoder="cnn-cbam")


@pytest.fixture(scope="module")
def attending(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(f"{PAIRS},tie=1", tmp_path_factory.mktemp("attending") / "attending")


@pytest.fixture(scope="module")
def folder(gated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audited")


@pytest.fixture(scope="module")
def audit(gated: Path, folder: Path) -> Audit:
    data = load_dataset(f"{PAIRS},tie=1")
    return audit_into(folder, [load_run(gated)], data, None, FEWER).report


def test_what_needs_attention_is_not_run_and_all_else_is(audit: Audit) -> None:
    (result,) = audit.results
    for name in NOT_OF_CNNS:
        assert getattr(result, name) == NotRun(NO_ATTENTION)
    assert result.utility.accuracy.value > 0.3
    assert [each.explanation for each in result.sensitivity.explanations] == [
        "integrated_gradients"
    ]
    assert result.sensitivity.valid
    assert result.robustness.documents == result.pixel_attacks.documents == 2
    assert result.pixel_attacks.valid
    assert not isinstance(result.membership, NotRun)
    assert result.counterfactual.valid
    assert result.counterfactual.overall.flagged
    for lift in (result.attribution.lift, result.occlusion.lift.permuted):
        assert lift.lift.low > 1.1


def test_the_lift_of_gates_stays_within_its_certificate(audit: Audit) -> None:
    gates = audit.results[0].spatial_gates
    assert not isinstance(gates, NotRun)
    assert (gates.documents, len(gates.layers)) == (20, 2)
    assert gates.overall.tokens == gates.overall.matched_tokens == 20 * 64
    bounds = gates.certificate
    assert bounds.holds
    assert bounds.largest_gate_bound == g.gate_bounds(2.0, 1.0)[1]
    # Half of the 128 patches of one pixel are marked in every image.
    assert bounds.lift_bound == pytest.approx(g.gate_lift_bound(2.0, 1.0, 128, 64))
    for layer in gates.layers:
        assert layer.permuted.lift.value < bounds.lift_bound
    assert gates.planted.passed
    assert gates.null.passed


def test_feature_maps_find_the_region_that_tells_the_class(audit: Audit) -> None:
    """A head that reads places apart leaves GradCAM blind, which HiResCAM is not."""
    found = audit.results[0].gradcam
    assert not isinstance(found, NotRun)
    assert found.hirescam.lift.permuted.lift.low > 1.1
    assert found.hirescam.documents == found.gradcam.documents == 8


def test_each_kind_of_map_is_shown_and_hidden(audit: Audit, folder: Path) -> None:
    (result,) = audit.results
    assert len(result.examples) == 4
    for shown in result.examples:
        assert all(piece.attention is None for piece in shown.pieces)
        assert sum(piece.gates for piece in shown.pieces) == pytest.approx(1)
        inside = [piece for piece in blurred(shown).pieces if piece.placeholder]
        assert len({(p.gates, p.gradcam, p.hirescam) for p in inside}) == 1
    page = (folder / HTML_NAME).read_text(encoding="utf-8")
    assert page.count('class="tokens map" style="--columns: 16"') == 4 * 4
    assert NO_ATTENTION[1:] in page
    assert "Gates do not favour personal data" in page
    assert "Attention to personal data not run" in page


def test_a_run_without_attention_is_held_against_one_with(gated: Path, attending: Path) -> None:
    data = load_dataset(f"{PAIRS},tie=1")
    options = replace(
        FEWER, documents=6, members=6, ig_documents=1, pgd_documents=1, skip=("pixel_attacks",)
    )
    audit = audit_runs([load_run(attending), load_run(gated)], data, None, options)
    (comparison,) = audit.comparisons
    assert comparison.not_run is None
    assert comparison.lift_ratio.value is None
    assert "utility.accuracy" in {each.measure for each in comparison.differences}
    of_vit, _ = audit.results
    assert of_vit.spatial_gates == NotRun(NO_GATES)
    assert of_vit.gradcam == NotRun(NO_FEATURE_MAPS)


@pytest.mark.parametrize("encoder", ["cnn", "cnn-cbam"])
def test_under_a_mean_both_maps_are_the_same_up_to_a_factor(encoder: str) -> None:
    """And they are the textbook's: channels by their mean gradients, summed, cut off at 0."""
    torch.manual_seed(0)
    shape = CnnConfig(
        encoder=encoder,
        height=8,
        width=8,
        channels=1,
        patch=2,
        num_labels=10,
        dim=15,
        groups=3,
        pooling="mean",
        attention=AttentionConfig(clip=1.0),
    )
    model = CnnClassifier(shape).eval().requires_grad_(False)
    nn.init.normal_(model.head.weight)
    data = load_dataset("digits:rows=5")
    inputs = shape.patches.collate(shape.patches.read(data.records))
    example, target = embed(model, inputs), torch.arange(5)
    maps = [grad_cam(model, model.feature_maps, example, target, by) for by in (False, True)]

    (state,), _ = model.encode(example.x, example.mask)
    state.requires_grad_()
    logits = model.head(model.pool([state], example.mask))
    (slope,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), state)
    expected = (slope.mean((2, 3), keepdim=True) * state).sum(1).clamp(min=0).flatten(1)
    torch.testing.assert_close(maps[0], expected.detach())
    assert maps[0].any()
    torch.testing.assert_close(maps[1], maps[0])


def test_a_piece_has_no_map_that_its_model_lacks() -> None:
    piece = Piece(None, "word", False, 0.5, 0.1)
    assert (piece.gates, piece.gradcam, piece.hirescam) == (None, None, None)
