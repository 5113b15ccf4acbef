"""``harden`` without a configuration: the attention that a model was taught under."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from attnpriv.attention import HardenedAttention, harden
from attnpriv.attention.bound import ENTRY, Bound
from attnpriv.config import AttentionConfig
from attnpriv.errors import InputError
from tests.attnpriv.attention.finished_models import CLIPPED, IDS, Classifier, tiny

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("quiet_transformers")

ATTENTION = AttentionConfig(temperature=2.0, clip=1.5, clip_mode="tanh")


def marked(attention: AttentionConfig = ATTENTION, family: str = "Bert") -> Any:
    model = tiny(family)
    setattr(model.config, ENTRY, Bound(attention, {"encoder": "some"}).entry())
    return model


def hardened_with(model: nn.Module) -> set[AttentionConfig]:
    return {part.config for part in model.modules() if isinstance(part, HardenedAttention)}


@pytest.mark.parametrize("given", [(), (None,), (ATTENTION,)])
def test_a_marked_model_brings_its_attention(given: tuple[Any, ...], tmp_path: Path) -> None:
    marked().save_pretrained(tmp_path)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert hardened_with(harden(model, *given)) == {ATTENTION}
    model.save_pretrained(tmp_path / "tuned")
    tuned = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "tuned")
    assert hardened_with(harden(tuned)) == {ATTENTION}


@pytest.mark.parametrize("other", [AttentionConfig(), *CLIPPED], ids=str)
def test_another_attention_is_refused_and_the_model_stays_plain(other: AttentionConfig) -> None:
    model = marked()
    expected = model(IDS).last_hidden_state
    with pytest.raises(
        InputError,
        match=r"taught under, clip 1.5 by tanh and temperature 2, got .*: leave config out",
    ):
        harden(model, other)
    assert torch.equal(model(IDS).last_hidden_state, expected)
    assert not hardened_with(model)


def test_a_model_that_says_nothing_needs_a_config() -> None:
    for model in (tiny("Bert"), nn.MultiheadAttention(4, 2)):
        with pytest.raises(InputError, match="not loaded from a folder that attnpriv encoder"):
            harden(model)
    with pytest.raises(InputError, match="what attnpriv encoder bound writes under 'attnpriv'"):
        broken = tiny("Bert")
        broken.config.attnpriv = {"format": 1}
        harden(broken)


def test_models_inside_models_are_asked() -> None:
    around = Classifier()
    around.bert = marked()
    around.config = None
    assert hardened_with(harden(around)) == {ATTENTION}
    pair = nn.ModuleList([marked(), tiny("Electra")])
    assert hardened_with(harden(pair)) == {ATTENTION}
    pair = nn.ModuleList([marked(), marked(AttentionConfig(clip=1.0), "Electra")])
    with pytest.raises(InputError, match=r"one attention, got clip 1.5 .* and clip 1 by clamp"):
        harden(pair)
    assert not hardened_with(pair)
