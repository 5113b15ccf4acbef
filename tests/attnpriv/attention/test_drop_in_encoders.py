"""Encoders of ``transformers`` that are opened to be bounded: states, weights, refusals."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from attnpriv.attention.drop_in.encoders import TransformersEncoder
from attnpriv.attention.drop_in.families import ENCODERS
from attnpriv.config import AttentionConfig
from attnpriv.errors import InputError
from tests.attnpriv.models.encoders import family_encoder

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("quiet_transformers")

PLAIN, CLIPPED = AttentionConfig(), AttentionConfig(clip=0.5)
WORDS = {"eurobert": "embed_tokens.weight", "modernbert": "embeddings.tok_embeddings.weight"}
FREQUENT = ("albert", "electra", "modernbert")
KINDS = [
    pytest.param(kind, marks=() if kind in FREQUENT else pytest.mark.exhaustive)
    for kind in ENCODERS
]
MASK = torch.tensor([[1] * 9, [1] * 4 + [0] * 5]).bool()
IDS = torch.arange(3, 21).reshape(2, 9)


@pytest.mark.parametrize("kind", KINDS)
def test_states_are_those_of_transformers_after_every_layer(kind: str, tmp_path: Path) -> None:
    family_encoder(kind, tmp_path)
    theirs = transformers.AutoModel.from_pretrained(tmp_path, attn_implementation="eager")
    encoder = TransformersEncoder(tmp_path, PLAIN, learns=False)
    with torch.no_grad():
        padded = IDS.where(MASK, theirs.config.pad_token_id)
        found = theirs(padded, attention_mask=MASK.long(), output_hidden_states=True)
        states = encoder.states(IDS, MASK)  # whatever stands where a text has ended
        bounded = TransformersEncoder(tmp_path, CLIPPED, learns=False).states(IDS, MASK)
    assert len(states) == theirs.config.num_hidden_layers
    for ours, other in zip(states, found.hidden_states[1:], strict=True):
        torch.testing.assert_close(ours[MASK], other[MASK], rtol=1e-4, atol=1e-5)
        assert ours.isfinite().all()
    torch.testing.assert_close(
        states[-1][MASK], found.last_hidden_state[MASK], rtol=1e-4, atol=1e-5
    )
    assert float((bounded[-1] - states[-1])[MASK].abs().max()) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_words_and_what_has_no_part_in_the_states_are_not_learned(
    kind: str, tmp_path: Path
) -> None:
    family_encoder(kind, tmp_path)
    encoder = TransformersEncoder(tmp_path, CLIPPED, learns=True)
    named = dict(encoder.module.named_parameters())
    frozen = {name for name, each in named.items() if not each.requires_grad}
    words = WORDS.get(kind, "embeddings.word_embeddings.weight")
    assert frozen == {words, *(name for name in named if name.startswith("pooler."))}
    still = TransformersEncoder(tmp_path, PLAIN, learns=False).module
    assert not any(each.requires_grad for each in still.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("auto", ["AutoModel", "AutoModelForMaskedLM"])
@pytest.mark.parametrize("kind", FREQUENT)
def test_a_file_comes_back_with_the_learned_weights_in_it(
    kind: str, auto: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    model = family_encoder(kind, tmp_path, auto=auto).to(dtype)
    model.save_pretrained(tmp_path)
    file = load_file(tmp_path / "model.safetensors")
    assert {each.dtype for each in file.values()} == {dtype}
    encoder = TransformersEncoder(tmp_path, CLIPPED, learns=True)
    same = encoder.to_file()
    assert list(same) == list(file)
    assert all(torch.equal(same[name], file[name]) for name in file)

    learned = {n: p for n, p in encoder.module.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for each in learned.values():
            each += 0.123
    changed = encoder.to_file()
    prefix = f"{model.base_model_prefix}." if auto != "AutoModel" else ""
    for name, tensor in file.items():
        assert changed[name].dtype == dtype
        inner = name.removeprefix(prefix)
        if name.startswith(prefix) and inner in learned:
            assert torch.equal(changed[name], learned[inner].to(dtype))
            assert not torch.equal(changed[name], tensor)
        else:
            assert torch.equal(changed[name], tensor)
    encoder.from_file(changed)
    again = encoder.to_file()
    assert all(torch.equal(again[name], changed[name]) for name in file)
    for name, each in learned.items():
        assert torch.equal(each, each.to(dtype).float()), name


def test_norms_by_their_old_names_are_found_and_keep_them(tmp_path: Path) -> None:
    family_encoder("electra", tmp_path)
    path = tmp_path / "model.safetensors"
    old = {
        name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): tensor
        for name, tensor in load_file(path).items()
    }
    save_file(old, path, {"format": "pt"})
    encoder = TransformersEncoder(tmp_path, CLIPPED, learns=True)
    with torch.no_grad():
        encoder.module.embeddings.LayerNorm.weight.fill_(7.0)
    changed = encoder.to_file()
    assert list(changed) == list(load_file(path))
    assert (changed["embeddings.LayerNorm.gamma"] == 7.0).all()


def rewrite(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_weights_that_transformers_would_draw_at_random_are_refused(tmp_path: Path) -> None:
    family_encoder("electra", tmp_path)
    path = tmp_path / "model.safetensors"
    file = load_file(path)
    name = "encoder.layer.1.output.dense.weight"
    save_file({key: each for key, each in file.items() if key != name}, path, {"format": "pt"})
    with pytest.raises(InputError, match=f"does not hold the electra .*: {name} is missing"):
        TransformersEncoder(tmp_path, CLIPPED, learns=True)


def test_other_computations_and_files_are_refused(tmp_path: Path) -> None:
    family_encoder("electra", tmp_path)
    for key, value in (
        ("is_decoder", True),
        ("add_cross_attention", True),
        ("quantization_config", {"quant_method": "gptq"}),
    ):
        rewrite(tmp_path, **{key: value})
        with pytest.raises(InputError, match=f"expected {key} "):
            TransformersEncoder(tmp_path, CLIPPED, learns=True)
        family_encoder("electra", tmp_path)
    rewrite(tmp_path, hidden_size=12)
    with pytest.raises(InputError, match="transformers cannot load"):
        TransformersEncoder(tmp_path, CLIPPED, learns=True)
    family_encoder("electra", tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="transformers cannot load"):
        TransformersEncoder(tmp_path, CLIPPED, learns=True)


@pytest.mark.parametrize(("kind", "longest"), [("electra", 302), ("camembert", 300)])
def test_a_text_without_positions_is_refused(kind: str, longest: int, tmp_path: Path) -> None:
    family_encoder(kind, tmp_path)
    encoder = TransformersEncoder(tmp_path, PLAIN, learns=False)
    for size in (longest, longest + 1):
        ids, mask = torch.full((1, size), 5), torch.ones(1, size).bool()
        if size == longest:
            assert encoder.states(ids, mask)[-1].isfinite().all()
        else:
            with pytest.raises(InputError, match=f"at most {longest} tokens, got {size}"):
                encoder.states(ids, mask)


@pytest.mark.parametrize("kind", [*FREQUENT, "eurobert"])  # which turns queries in float32
def test_bfloat16_works(kind: str, tmp_path: Path) -> None:
    family_encoder(kind, tmp_path)
    encoder = TransformersEncoder(tmp_path, CLIPPED, learns=False)
    with torch.no_grad():
        exact = encoder.states(IDS, MASK)[-1]
        with torch.autocast("cpu", torch.bfloat16):
            rounded = encoder.states(IDS, MASK)[-1]
    size = float(exact[MASK].square().mean().sqrt())
    assert 0 < float((rounded - exact)[MASK].abs().max()) < 0.3 * size


def test_without_transformers_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)  # importing it is an error now
    with pytest.raises(InputError, match="needs transformers: pip install 'transformers>=5.20'"):
        TransformersEncoder(tmp_path, CLIPPED, learns=True)
