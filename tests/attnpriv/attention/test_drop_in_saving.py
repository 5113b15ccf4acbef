"""Hardened models that are saved, copied and loaded again, with what they have learned."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from attnpriv.attention import harden
from attnpriv.config import AttentionConfig
from attnpriv.errors import InputError
from tests.attnpriv.attention.finished_models import (
    CLIPPED,
    IDS,
    MASK,
    PLAIN,
    close,
    encoder,
    temperatures,
    tiny,
)

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("quiet_transformers")


def test_what_is_saved_loads_as_the_plain_model(tmp_path: Path) -> None:
    model = tiny("Bert", attention_probs_dropout_prob=0.3)
    expected = model(IDS, attention_mask=MASK).last_hidden_state
    keys = list(model.state_dict())
    harden(model, CLIPPED[0]).save_pretrained(tmp_path)
    assert list(model.state_dict()) == keys
    assert "attnpriv" not in (tmp_path / "config.json").read_text()
    loaded, report = transformers.BertModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert loaded.config.attention_probs_dropout_prob == 0.3
    close(loaded.eval()(IDS, attention_mask=MASK).last_hidden_state, expected)
    close(
        harden(loaded, CLIPPED[0])(IDS, attention_mask=MASK).last_hidden_state,
        model(IDS, attention_mask=MASK).last_hidden_state,
    )


LEARNED = CLIPPED[3]


def learned(model: Any) -> Any:
    """Hardened, and with temperatures as if it was trained."""
    harden(model, LEARNED)
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        if "raw_temperature" in name:
            nn.init.normal_(parameter, generator=generator)
    return model


@pytest.mark.every_pair
@pytest.mark.parametrize("saved", ["BertModel", "BertForSequenceClassification"])
@pytest.mark.parametrize("loaded", ["BertModel", "BertForSequenceClassification"])
@pytest.mark.parametrize("shard", ["1GB", "2KB"])
def test_learned_temperatures_survive_saving_and_loading(
    tmp_path: Path, saved: str, loaded: str, shard: str
) -> None:
    model = learned(getattr(transformers, saved)(tiny("Bert").config))
    model.save_pretrained(tmp_path, max_shard_size=shard)
    again = getattr(transformers, loaded).from_pretrained(tmp_path)
    assert temperatures(harden(again, LEARNED)) == temperatures(model)
    again.save_pretrained(tmp_path / "again")
    again = getattr(transformers, loaded).from_pretrained(tmp_path / "again")
    assert temperatures(harden(again, LEARNED)) == temperatures(model)


def test_learned_temperatures_that_would_be_lost_are_refused(tmp_path: Path) -> None:
    learned(tiny("Bert")).save_pretrained(tmp_path)

    def load() -> Any:
        return transformers.BertModel.from_pretrained(tmp_path)

    for config in (PLAIN, AttentionConfig(2.0, 1.0, "norm", temperature_floor=0.5)):
        with pytest.raises(InputError, match="expected temperature_floor 0.7, .* delete attnpriv_"):
            harden(load(), config)
    model, other = load(), load()
    expected = model(IDS).last_hidden_state
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="expected one set of learned temperatures for encoder.l"):
        harden(model, LEARNED)
    assert torch.equal(model(IDS).last_hidden_state, expected)
    assert not temperatures(model)
    del other.config.attnpriv_temperature_floor
    assert temperatures(harden(other, LEARNED)) == [pytest.approx([2.0] * 3)] * 2


@pytest.mark.parametrize("make", [encoder, lambda: tiny("Bert")], ids=["torch", "transformers"])
def test_hardening_with_an_equal_configuration_keeps_what_was_learned(
    make: Callable[[], nn.Module],
) -> None:
    model = learned(make())
    before = temperatures(model)
    assert temperatures(harden(model, AttentionConfig(2.0, 1.0, "norm", temperature_floor=0.7)))
    assert temperatures(model) == before
    assert temperatures(
        harden(model, AttentionConfig(2.0, 0.9, "norm", temperature_floor=0.7))
    ) != (before)


@pytest.mark.exhaustive
def test_a_model_saved_whole_loads_where_nothing_of_this_package_was_imported(
    tmp_path: Path,
) -> None:
    model = harden(tiny("Bert"), CLIPPED[3])
    expected = model(IDS, attention_mask=MASK).last_hidden_state
    torch.save((model, IDS, MASK, expected), tmp_path / "model.pt")
    script = (
        "import sys, torch\n"
        "model, ids, mask, expected = torch.load(sys.argv[1], weights_only=False)\n"
        "out = model(ids, attention_mask=mask).last_hidden_state\n"
        "torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "model.pt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
