"""Weights of encoders to our blocks and back, with ``transformers`` as the judge of both."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from attnpriv.config import AttentionConfig
from attnpriv.models.layouts import FAMILIES, to_ours, to_theirs
from attnpriv.models.pretrained import load_pretrained, read_encoder
from attnpriv.models.text import TextClassifier
from tests.attnpriv.models.encoders import farthest_apart, random_encoder

# In each family: the row of the first position, the layer's prefix, and some of its parts.
NAMES = {
    "bert": (0, "encoder", "attention.self.key", "attention.self.value", "output.dense"),
    "roberta": (2, "encoder", "attention.self.key", "attention.self.value", "output.dense"),
    "xlm-roberta": (2, "encoder", "attention.self.key", "attention.self.value", "output.dense"),
    "mpnet": (2, "encoder", "attention.attn.k", "attention.attn.v", "output.dense"),
    "distilbert": (0, "transformer", "attention.k_lin", "attention.v_lin", "ffn.lin2"),
}
PREFIX = {name: f"{name}." for name in NAMES} | {"xlm-roberta": "roberta."}
every_family = pytest.mark.parametrize("name", FAMILIES)


def opened(folder: Path) -> tuple[TextClassifier, dict[str, Tensor]]:
    return load_pretrained(folder, 2, AttentionConfig()).eval(), read_encoder(folder).state


def written_back(model: TextClassifier, folder: Path) -> dict[str, Tensor]:
    encoder = read_encoder(folder)
    return to_theirs(model.state_dict(), encoder.state, model.config, encoder.family)


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> list[str]:
    """The names under which both hold the same bits; both must have the same form."""
    assert list(left) == list(right)
    for name in left:
        assert (left[name].shape, left[name].dtype) == (right[name].shape, right[name].dtype)
    return [name for name in left if torch.equal(left[name], right[name])]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("prefixed", [False, True])
@every_family
def test_what_was_not_trained_comes_back_to_the_bit(
    tmp_path: Path, name: str, prefixed: bool, dtype: torch.dtype
) -> None:
    random_encoder(name, tmp_path)
    file = tmp_path / "model.safetensors"
    prefix = PREFIX[name] if prefixed else ""
    state = {f"{prefix}{key}": tensor.to(dtype) for key, tensor in load_file(file).items()}
    state |= {"lm_head.bias": torch.arange(7), "embeddings.position_ids": torch.arange(302)}
    save_file(state, file)
    model, read = opened(tmp_path)
    assert set(read) == set(state)
    assert same(written_back(model, tmp_path), read) == list(read)


@every_family
def test_a_changed_weight_comes_back_in_its_place_alone(tmp_path: Path, name: str) -> None:
    random_encoder(name, tmp_path)
    model, before = opened(tmp_path)
    dim = model.config.dim
    first, encoder, keys, values, contract = NAMES[name]
    qkv = model.blocks[1].attention.qkv
    with torch.no_grad():
        qkv.weight[dim + 3, 5] += 1.0  # the second third are the keys
        qkv.bias[2 * dim + 4] += 2.0
        model.words.weight[7, 2] += 3.0
        model.positions.weight[11, 1] += 4.0
        model.blocks[0].contract.weight[2, 39] += 5.0
    after = written_back(model, tmp_path)
    layer = f"{encoder}.layer"
    expected = {
        f"{layer}.1.{keys}.weight": ((3, 5), 1.0),
        f"{layer}.1.{values}.bias": ((4,), 2.0),
        "embeddings.word_embeddings.weight": ((7, 2), 3.0),
        "embeddings.position_embeddings.weight": ((first + 11, 1), 4.0),
        f"{layer}.0.{contract}.weight": ((2, 39), 5.0),
    }
    assert set(before) - set(same(before, after)) == set(expected)
    for key, (place, by) in expected.items():
        changed = torch.zeros_like(before[key])
        changed[place] = by
        torch.testing.assert_close(after[key] - before[key], changed, atol=1e-6, rtol=0)
        assert torch.count_nonzero(after[key] - before[key]) == 1


@every_family
def test_transformers_computes_the_same_with_what_was_written_back(
    tmp_path: Path, name: str
) -> None:
    import transformers

    random_encoder(name, tmp_path)
    model, _ = opened(tmp_path)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) / 10)
    state = written_back(model, tmp_path)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    theirs, report = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert model.config.max_length == 256
    assert farthest_apart(model, theirs.eval()) < 1e-4


@every_family
def test_the_file_and_our_state_are_not_changed(tmp_path: Path, name: str) -> None:
    """And share no memory with the result, which somebody may go on to train."""
    random_encoder(name, tmp_path)
    model, state = opened(tmp_path)
    family, held = FAMILIES[name], {key: tensor.clone() for key, tensor in state.items()}
    ours = to_ours(state, model.config, family)
    kept = {key: tensor.clone() for key, tensor in ours.items()}
    ours["words.weight"][0] += 1
    theirs = to_theirs(ours, state, model.config, family)
    theirs["embeddings.word_embeddings.weight"] += 1
    theirs["embeddings.position_embeddings.weight"] += 1
    assert same(state, held) == list(held)
    assert set(kept) - set(same(ours, kept)) == {"words.weight"}
    assert torch.equal(ours["words.weight"][0], kept["words.weight"][0] + 1)


@every_family
def test_a_file_without_a_weight_is_named(tmp_path: Path, name: str) -> None:
    random_encoder(name, tmp_path)
    model, state = opened(tmp_path)
    lost = f"{NAMES[name][1]}.layer.1.{NAMES[name][2]}.bias"
    del state[lost]
    with pytest.raises(KeyError, match=lost):
        to_ours(state, model.config, FAMILIES[name])


@every_family
def test_norms_of_the_first_files_have_a_gamma_and_a_beta(tmp_path: Path, name: str) -> None:
    random_encoder(name, tmp_path)
    model, state = opened(tmp_path)
    old = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for key, tensor in state.items()
    }
    assert "embeddings.LayerNorm.gamma" in old
    ours = to_ours(old, model.config, FAMILIES[name])
    expected = to_ours(state, model.config, FAMILIES[name])
    assert same(ours, expected) == list(expected)
    assert same(to_theirs(ours, old, model.config, FAMILIES[name]), old) == list(old)


@every_family
def test_quantised_weights_are_refused(tmp_path: Path, name: str) -> None:
    random_encoder(name, tmp_path)
    model, state = opened(tmp_path)
    key = "embeddings.word_embeddings.weight"
    with pytest.raises(
        TypeError, match=f"expected floating-point numbers in {key}, got torch.int8"
    ):
        to_ours({**state, key: state[key].to(torch.int8)}, model.config, FAMILIES[name])
