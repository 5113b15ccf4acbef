"""How a bounded encoder is marked and shipped, and what contradicts it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from attnpriv.attention.bound import ENTRY, Bound
from attnpriv.config import BOUNDED, AttentionConfig
from attnpriv.errors import InputError
from attnpriv.models import bounded
from attnpriv.models.bounded import pack, unpack
from attnpriv.models.pretrained import (
    classifier_of,
    encoder_bound,
    load_pretrained,
    open_encoder,
    read_encoder,
)
from tests.attnpriv.models.encoders import random_encoder

ATTENTION = AttentionConfig(temperature=2.0, clip=1.5, clip_mode="tanh")
BOUND = Bound(ATTENTION, {"encoder": "some-bert", "texts": []})


def marked(folder: Path, entry: object) -> Path:
    """A BERT with random weights and that entry in its configuration."""
    random_encoder("bert", folder)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, ENTRY: entry}))
    return folder


def test_a_bound_survives_the_configuration() -> None:
    values = json.loads(json.dumps({"model_type": "bert", ENTRY: BOUND.entry()}))
    assert Bound.from_config(values) == BOUND
    assert Bound.from_config({"model_type": "bert"}) is None


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        {},
        {"format": 2, "attention": {}},
        {"format": 1},
        {"format": 1, "attention": {"clip": -1.0}},
        {"format": 1, "attention": {"clips": 1.0}},
        {"format": 1, "attention": 3},
    ],
)
def test_an_entry_that_cannot_be_used_is_refused(tmp_path: Path, entry: object) -> None:
    with pytest.raises(InputError, match=r"(?s)attnpriv encoder bound|expected clip"):
        read_encoder(marked(tmp_path, entry))


def test_a_marked_folder_brings_its_attention(tmp_path: Path) -> None:
    folder = marked(tmp_path / "calm", BOUND.entry())
    assert load_pretrained(folder, 2).config.attention == ATTENTION
    assert load_pretrained(folder, 2, ATTENTION).config.attention == ATTENTION
    assert encoder_bound(str(folder)) == BOUND
    random_encoder("bert", tmp_path / "plain")
    assert load_pretrained(tmp_path / "plain", 2).config.attention == AttentionConfig()
    assert encoder_bound(str(tmp_path / "plain")) is None
    assert encoder_bound("scratch") is None


@pytest.mark.parametrize(
    "other",
    [
        AttentionConfig(),
        AttentionConfig(temperature=2.0, clip=1.4, clip_mode="tanh"),
        AttentionConfig(temperature=2.0, clip=1.5, clip_mode="clamp"),
        AttentionConfig(temperature=2.0, clip=1.5, clip_mode="tanh", temperature_floor=1.0),
    ],
)
def test_another_attention_contradicts_a_marked_folder(
    tmp_path: Path, other: AttentionConfig
) -> None:
    folder = marked(tmp_path / "calm", BOUND.entry())
    with pytest.raises(InputError, match="calm was taught with clip 1.5 by tanh and temperature 2"):
        load_pretrained(folder, 2, other)


@pytest.mark.parametrize("step", [0.1, 0.4, 1.0])
def test_what_is_packed_comes_back_up_to_half_a_step(step: float) -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(64, 48, generator=generator) * 3e-3
    vector = torch.randn(48, generator=generator)
    found = unpack(pack({"matrix": matrix, "vector": vector}, step))
    assert list(found) == ["matrix", "vector"]
    size = max(step * float(matrix.square().mean().sqrt()), float(matrix.abs().max()) / 127)
    assert float((found["matrix"] - matrix).abs().max()) <= size / 2 * (1 + 1e-5)
    assert torch.equal(found["vector"], vector.half().float())


def test_packing_makes_the_same_bytes_and_few_of_them() -> None:
    matrix = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    content = pack({"matrix": matrix}, 0.4)
    assert content == pack({"matrix": matrix}, 0.4)
    # A normal distribution in steps of 0.4 has an entropy of 3.37 bits.
    assert 3.3 < 8 * len(content) / matrix.numel() < 3.7
    nothing = {"nothing": torch.zeros(3, 3)}
    assert torch.equal(unpack(pack(nothing, 0.4))["nothing"], nothing["nothing"])


def test_the_shipped_difference_is_the_pinned_one() -> None:
    bound, difference = bounded.shipped()
    assert bound.attention == BOUNDED
    assert bound.provenance["encoder"] == "minilm"
    content = (Path(bounded.__file__).parent / bounded.DIFFERENCE).read_bytes()
    assert hashlib.sha256(content).hexdigest() == bound.provenance["difference_sha256"]
    assert len(content) <= 6_000_000
    plain, copy = open_encoder("minilm"), open_encoder("minilm-bounded")
    assert set(difference) < set(plain.state)
    assert not any("word_embeddings" in name for name in difference)
    changed = {name for name in plain.state if not torch.equal(plain.state[name], copy.state[name])}
    assert changed == set(difference)
    assert all(np.isfinite(tensor.numpy()).all() for tensor in difference.values())


def test_another_difference_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = Path(bounded.__file__).parent
    content = bytearray((source / bounded.DIFFERENCE).read_bytes())
    content[1000] ^= 1
    (tmp_path / bounded.DIFFERENCE).write_bytes(content)
    (tmp_path / bounded.RECORD).write_bytes((source / bounded.RECORD).read_bytes())
    monkeypatch.setattr(bounded, "FOLDER", tmp_path)
    with pytest.raises(InputError, match="install attnpriv again"):
        open_encoder("minilm-bounded")


def test_the_shipped_encoder_is_called_by_its_name() -> None:
    model = classifier_of(open_encoder("minilm-bounded"), 3)
    assert model.config.encoder == "minilm-bounded"
    assert model.config.attention == BOUNDED
    assert encoder_bound("minilm-bounded") == bounded.shipped_bound()
    assert encoder_bound("minilm") is None
