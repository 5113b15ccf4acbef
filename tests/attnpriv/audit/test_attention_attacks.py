"""Attacks on attention: what a clip allows, what a formula reaches, and what must not move."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from attnpriv import guarantees
from attnpriv.audit.documents import Documents, partly_sensitive
from attnpriv.audit.robustness import SCALES, attention
from attnpriv.audit.robustness.attention import AIMS, AttentionAttackResult, attention_attacks
from attnpriv.audit.robustness.goals import mass
from attnpriv.config import AttentionConfig
from attnpriv.modality import embed
from attnpriv.models.text import TextClassifier
from tests.attnpriv.conftest import MakeModel

CLIPPED = AttentionConfig(clip=0.5)


@pytest.fixture(scope="module")
def plain(model: TextClassifier, documents: Documents) -> AttentionAttackResult:
    return attention_attacks(model, documents, 4, resamples=50)


def test_attention_is_led_both_ways_and_further_at_larger_radii(
    plain: AttentionAttackResult,
) -> None:
    assert plain.valid
    assert (plain.within, plain.onto_bound) == (None, None)
    assert plain.documents == 4
    onto = [at.onto.value or 0.0 for at in plain.radii]
    off = [at.off.value or 0.0 for at in plain.radii]
    assert onto == sorted(onto)
    assert off == sorted(off, reverse=True)
    assert off[-1] < 0.98 < 1.02 < onto[-1]


def test_the_mass_is_that_of_the_maps(model: TextClassifier, documents: Documents) -> None:
    (document,) = partly_sensitive(documents)[:1]
    example = embed(model, documents.inputs([document]))
    marked = torch.from_numpy(documents.sensitive[document])[None]
    maps = model.run(example.x, example.mask, need_maps=True).self_attention()
    by_hand = np.mean([float(each[0, :, :, marked[0]].sum(-1).mean()) for each in maps])
    assert float(mass(maps, example.mask, marked)) == pytest.approx(by_hand, rel=1e-5)
    everywhere = example.mask.clone()
    assert float(mass(maps, example.mask, everywhere)) == pytest.approx(1.0)


@pytest.mark.parametrize("mode", ["clamp", "relative"])
def test_no_attack_crosses_what_the_clip_allows(
    make_model: MakeModel, documents: Documents, mode: Any
) -> None:
    config = dataclasses.replace(CLIPPED, clip_mode=mode)
    model, document = make_model(config), partly_sensitive(documents)[0]
    example = embed(model, documents.inputs([document]))
    marked = torch.from_numpy(documents.sensitive[document])[None]
    led = attention._lead([model], example, marked, [50.0], config)
    n, k = int(example.mask.sum()), int(marked.sum())
    assert led.bound == guarantees.mass_bound(0.5, 1.0, n, k)
    assert np.nanmax(led.masses) <= led.bound * (1 + attention.ROUNDING)
    assert np.nanmax(led.masses) > 1.05 * led.clean  # it does move


def test_a_mass_beyond_its_bound_is_found_out(make_model: MakeModel, documents: Documents) -> None:
    """A model that is audited under another clip than it has."""
    result = attention_attacks(
        make_model(CLIPPED), documents, 1, resamples=10, config=AttentionConfig(clip=0.001)
    )
    assert result.within is not None
    assert not result.within.passed
    assert not result.valid


def test_answers_are_kept_or_turned_as_the_aim_says(
    model: TextClassifier, documents: Documents
) -> None:
    document = partly_sensitive(documents)[0]
    example = embed(model, documents.inputs([document]))
    marked = torch.from_numpy(documents.sensitive[document])[None]
    far = attention._lead([model], example, marked, [2.0])
    assert np.isfinite(far.masses).all()
    onto, off, turned_onto, turned_off = far.masses[0]
    assert onto > far.clean > off
    assert turned_onto > turned_off
    near = attention._lead([model], example, marked, [1e-6])
    assert np.isfinite(near.masses[0, :2]).all()
    assert np.isnan(near.masses[0, 2:]).all()  # nothing turns the answer there
    assert AIMS[2:] == ("turned_onto", "turned_off")


def test_an_attack_that_does_not_climb_fails_the_positive_control(
    model: TextClassifier, documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "STEPS", 0)
    result = attention_attacks(model, documents, 2, resamples=10)
    assert not result.positive.passed
    assert result.null.passed
    assert not result.valid


def test_the_same_seed_gives_the_same_figures(model: TextClassifier, documents: Documents) -> None:
    figures: dict[str, Any] = {}
    seen: list[tuple[int, int]] = []
    once = attention_attacks(
        model, documents, 1, 10, 3, progress=lambda *at: seen.append(at), figures=figures
    )
    assert attention_attacks(model, documents, 1, 10, 3) == once
    assert seen == [(1, 1)]
    path = f"attention_attacks.radii[{SCALES[1]}].onto"
    value = sum(figures[path].numerators) / sum(figures[path].denominators)
    assert value == pytest.approx(once.radii[1].onto.value)


def test_documents_of_sensitive_parts_alone_are_left_out(documents: Documents) -> None:
    whole = documents.content(0)
    marks = (whole, whole & False, documents.sensitive[2])
    some = dataclasses.replace(documents, samples=documents.samples[:3], sensitive=marks)
    assert partly_sensitive(some) == [2]
