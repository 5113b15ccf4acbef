"""Weights of encoders to our blocks and back, with ``transformers`` as the judge of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from attnpriv.config import AttentionConfig
from attnpriv.models.layouts import FAMILIES, to_ours, to_theirs
from attnpriv.models.pretrained import load_pretrained, read_encoder
from attnpriv.models.text import TextClassifier

WORDS, POSITIONS = 61, 302  # more positions than our models take
FIRST = {"bert": 0, "mpnet": 2}
QUERY = {"bert": "attention.self.query", "mpnet": "attention.attn.q"}
KEY = {"bert": "attention.self.key", "mpnet": "attention.attn.k"}
VALUE = {"bert": "attention.self.value", "mpnet": "attention.attn.v"}
CONTRACT = {"bert": "output.dense", "mpnet": "output.dense"}
every_family = pytest.mark.parametrize("name", FAMILIES)


def random_encoder(name: str, folder: Path) -> None:
    """A small model of ``transformers`` with random weights, those of its norms too."""
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(
        name,
        vocab_size=WORDS,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        max_position_embeddings=POSITIONS,
        initializer_range=0.3,
    )
    model = transformers.AutoModel.from_config(config)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.uniform_(parameter, -0.5, 1.0)
    model.save_pretrained(folder)


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
    prefix = f"{name}." if prefixed else ""
    state = {f"{prefix}{key}": tensor.to(dtype) for key, tensor in load_file(file).items()}
    state |= {"lm_head.bias": torch.arange(7), "embeddings.position_ids": torch.arange(POSITIONS)}
    save_file(state, file)
    model, read = opened(tmp_path)
    assert set(read) == set(state)
    assert same(written_back(model, tmp_path), read) == list(read)


@every_family
def test_a_changed_weight_comes_back_in_its_place_alone(tmp_path: Path, name: str) -> None:
    random_encoder(name, tmp_path)
    model, before = opened(tmp_path)
    dim, first = model.config.dim, FIRST[name]
    qkv = model.blocks[1].attention.qkv
    with torch.no_grad():
        qkv.weight[dim + 3, 5] += 1.0  # the second third are the keys
        qkv.bias[2 * dim + 4] += 2.0
        model.words.weight[7, 2] += 3.0
        model.positions.weight[11, 1] += 4.0
        model.blocks[0].contract.weight[2, 39] += 5.0
    after = written_back(model, tmp_path)
    layer = "encoder.layer"
    expected = {
        f"{layer}.1.{KEY[name]}.weight": ((3, 5), 1.0),
        f"{layer}.1.{VALUE[name]}.bias": ((4,), 2.0),
        "embeddings.word_embeddings.weight": ((7, 2), 3.0),
        "embeddings.position_embeddings.weight": ((first + 11, 1), 4.0),
        f"{layer}.0.{CONTRACT[name]}.weight": ((2, 39), 5.0),
    }
    assert set(before) - set(same(before, after)) == set(expected)
    for key, (place, by) in expected.items():
        changed = torch.zeros_like(before[key])
        changed[place] = by
        torch.testing.assert_close(after[key] - before[key], changed, atol=1e-6, rtol=0)
        assert torch.count_nonzero(after[key] - before[key]) == 1


def hidden_states(model: TextClassifier, ids: Tensor, mask: Tensor) -> list[Tensor]:
    states = [model.embed(ids)]
    for block in model.blocks:
        states.append(block(states[-1], mask)[0])
    return states


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
    theirs: Any
    theirs, report = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())

    longest = model.config.max_length
    assert longest == 256
    ids = torch.randint(3, WORDS, (3, longest), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(longest) < torch.tensor([1, 17, longest])[:, None]
    ids = ids.where(mask, theirs.config.pad_token_id)
    with torch.no_grad():
        expected = theirs.eval()(ids, attention_mask=mask.long(), output_hidden_states=True)
        ours = hidden_states(model, ids, mask)
    assert len(ours) == len(expected.hidden_states) == 3
    for mine, other in zip(ours, expected.hidden_states, strict=True):
        assert (mine - other)[mask].abs().max() < 1e-4


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
    lost = f"encoder.layer.1.{QUERY[name]}.bias"
    del state[lost]
    with pytest.raises(KeyError, match=lost):
        to_ours(state, model.config, FAMILIES[name])
