"""Pretrained weights in our blocks against ``transformers``, on real sentences."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from attnpriv.config import AttentionConfig
from attnpriv.data import WordPieceTokenizer
from attnpriv.errors import InputError
from attnpriv.models.pretrained import encoder_folder, load_pretrained
from attnpriv.models.text import TextClassifier, pad_batch

SENTENCES = [
    "Ok lar... Joking wif u oni...",
    "The quick brown fox jumps over the lazy dog, twice.",
    "Please call our customer service representative on 0800 169 6031 between 10am-9pm",
    "one",
    "This film's stunning lyrical work of considerable force leaves nothing to be desired; "
    "unlike its sequel, which drags, repeats itself and ends in the middle of a",
]


@pytest.fixture(scope="module")
def minilm() -> TextClassifier:
    return load_pretrained(encoder_folder("minilm"), 2, AttentionConfig()).eval()


def real_sentences(shared: Path) -> list[str]:
    lines = (shared / "sms_spam.tsv").read_text(encoding="utf-8").splitlines()
    return [line.split("\t")[1] for line in lines[:60]]


def hidden_states(
    model: TextClassifier, ids: torch.Tensor, mask: torch.Tensor
) -> list[torch.Tensor]:
    states = [model.embed(ids)]
    for block in model.blocks:
        states.append(block(states[-1], mask)[0])
    return states


@pytest.mark.parametrize("source", ["built in", "SMS"])
def test_every_hidden_state_equals_that_of_transformers(
    minilm: TextClassifier, source: str, request: pytest.FixtureRequest
) -> None:
    from transformers import BertModel

    sentences = (
        SENTENCES
        if source == "built in"
        else real_sentences(request.getfixturevalue("shared_data"))
    )
    folder = encoder_folder("minilm")
    theirs = BertModel.from_pretrained(folder).eval()
    tokenizer = WordPieceTokenizer.from_file(folder / "tokenizer.json")
    ids, mask = pad_batch(tokenizer.encode_batch(sentences, 256), tokenizer.pad_id)
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask.long(), output_hidden_states=True).hidden_states
        ours = hidden_states(minilm, ids, mask)
    assert len(ours) == len(expected) == 7
    for mine, other in zip(ours, expected, strict=True):
        assert (mine - other)[mask].abs().max() < 1e-4


def test_hardening_changes_the_hidden_states(minilm: TextClassifier) -> None:
    hardened = load_pretrained(encoder_folder("minilm"), 2, AttentionConfig(2.0, 1.0, "norm"))
    ids, mask = torch.tensor([[101, 7592, 2088, 102]]), torch.ones(1, 4, dtype=torch.bool)
    with torch.no_grad():
        difference = hidden_states(minilm, ids, mask)[-1] - hidden_states(hardened, ids, mask)[-1]
    assert difference.abs().max() > 1e-2


def broken_copy(target: Path, change: dict[str, Any]) -> Path:
    folder = encoder_folder("minilm")
    target.mkdir()
    config = json.loads((folder / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, **change}))
    shutil.copy(folder / "model.safetensors", target)
    shutil.copy(folder / "tokenizer.json", target)
    return target


def test_a_local_folder_loads_under_its_own_name(tmp_path: Path) -> None:
    model = load_pretrained(broken_copy(tmp_path / "my-bert", {}), 3, AttentionConfig())
    assert model.config.encoder == "my-bert"
    assert model.config.num_labels == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "roberta"}, "expected a bert encoder"),
        ({"hidden_act": "relu"}, "expected a bert encoder"),
        ({"num_hidden_layers": 7}, "does not hold a BERT encoder"),
        ({"hidden_size": 192}, "does not hold a BERT encoder"),
    ],
)
def test_other_architectures_are_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_pretrained(broken_copy(tmp_path / "other", change), 2, AttentionConfig())


def test_missing_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected encoder scratch, minilm or a folder"):
        encoder_folder(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="cannot read the encoder's configuration"):
        load_pretrained(tmp_path, 2, AttentionConfig())
    folder = broken_copy(tmp_path / "broken", {})
    (folder / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(InputError, match="cannot read the encoder's weights"):
        load_pretrained(folder, 2, AttentionConfig())
