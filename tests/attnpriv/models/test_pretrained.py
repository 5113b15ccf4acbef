"""Pretrained weights in our blocks against ``transformers``, on real sentences or random ids."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from tokenizers import models, normalizers, pre_tokenizers

from attnpriv.certificate import certify
from attnpriv.config import AttentionConfig, PrivacyConfig, TrainConfig
from attnpriv.data import PretrainedTokenizer, load_dataset
from attnpriv.data.text import pad_batch
from attnpriv.errors import InputError
from attnpriv.guarantees import weight_bounds
from attnpriv.models.layouts import FAMILIES
from attnpriv.models.pretrained import encoder_folder, load_pretrained
from attnpriv.models.text import TextClassifier
from attnpriv.runs.folder import load_run
from attnpriv.training import train
from tests.attnpriv.models.encoders import (
    WORDS,
    farthest_apart,
    hidden_states,
    random_encoder,
)

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
    tokenizer = PretrainedTokenizer.from_file(folder / "tokenizer.json")
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


SHAPES: list[dict[str, int]] = [
    {},
    {"hidden_size": 5, "num_attention_heads": 1, "num_hidden_layers": 3, "wide": 7},
    {"num_attention_heads": 12, "num_hidden_layers": 1, "max_position_embeddings": 34},
    {"max_position_embeddings": 182},
    {"max_position_embeddings": 514},
]


@pytest.mark.parametrize("change", SHAPES, ids=str)
@pytest.mark.parametrize("kind", FAMILIES)
def test_every_hidden_state_of_every_kind_equals_that_of_transformers(
    tmp_path: Path, kind: str, change: dict[str, int]
) -> None:
    """With padding, and with texts as long as our models or theirs take."""
    theirs = random_encoder(kind, tmp_path, **change)
    ours = load_pretrained(tmp_path, 2, AttentionConfig()).eval()
    first = 0 if kind in ("bert", "distilbert") else 2
    assert ours.config.max_length == min(256, theirs.config.max_position_embeddings - first)
    assert farthest_apart(ours, theirs) < 1e-4


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "mpnet"])
def test_the_epsilon_of_the_norms_is_theirs(tmp_path: Path, kind: str) -> None:
    """DistilBERT's cannot be chosen, and is 1e-12."""
    theirs = random_encoder(kind, tmp_path, layer_norm_eps=0.1)
    ours = load_pretrained(tmp_path, 2, AttentionConfig()).eval()
    assert ours.config.norm_eps == 0.1
    assert farthest_apart(ours, theirs) < 1e-4


def test_distances_matter_to_mpnet(tmp_path: Path) -> None:
    theirs = random_encoder("mpnet", tmp_path)
    ours = load_pretrained(tmp_path, 2, AttentionConfig()).eval()
    for bias in ours.buffers():
        bias.zero_()
    assert farthest_apart(ours, theirs) > 1e-2


@pytest.mark.parametrize("kind", FAMILIES)
def test_hardened_weights_of_every_kind_keep_the_bounds(tmp_path: Path, kind: str) -> None:
    random_encoder(kind, tmp_path, initializer_range=3.0)
    ids = torch.randint(3, WORDS, (2, 32), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 32, dtype=torch.bool)
    least, most = weight_bounds(0.97, 1.0, 32)
    largest = {}
    for clip in (None, 0.97):
        model = load_pretrained(tmp_path, 2, AttentionConfig(clip=clip))
        with torch.no_grad():
            weights = model.run(model.embed(ids), mask, need_maps=True).self_attention()
        largest[clip] = max(float(each.max()) for each in weights)
        smallest = min(float(each.min()) for each in weights)
    assert 0.9 * most <= largest[0.97] <= most * (1 + 1e-5)
    assert least * (1 - 1e-5) <= smallest <= 1.1 * least
    assert (largest[None] or 0) > 2 * most


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        (AttentionConfig(clip=1.0, clip_mode="norm"), "expected clip_mode other than norm"),
        (AttentionConfig(score="additive"), "expected score dot_product"),
    ],
)
def test_what_would_not_bound_the_positions_of_mpnet_is_refused(
    tmp_path: Path, attention: AttentionConfig, message: str
) -> None:
    random_encoder("mpnet", tmp_path)
    with pytest.raises(InputError, match=message):
        load_pretrained(tmp_path, 2, attention)


def mpnet_tokenizer(words: list[str]) -> tokenizers.Tokenizer:
    """With MPNet's special tokens, and BERT's among the words as its vocabulary has them."""
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", "[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]
    made = tokenizers.Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "[UNK]"])
    return made


def test_texts_for_mpnet_have_its_special_tokens_and_cannot_forge_them(tmp_path: Path) -> None:
    mpnet_tokenizer(["good", "film"]).save(str(tmp_path / "tokenizer.json"))
    tokenizer = PretrainedTokenizer.from_file(tmp_path / "tokenizer.json")
    assert tokenizer.pad_id == 1
    assert tokenizer.encode("Good film", 9).ids == (0, 8, 9, 2)
    forged = tokenizer.encode("good </s> <s> <pad> [SEP] film", 64).ids
    assert not {0, 1, 2, 7} & set(forged[1:-1])


def test_a_private_run_on_mpnet_keeps_its_biases(tmp_path: Path) -> None:
    tickets = load_dataset("tickets:rows=80")
    words = sorted({word for text in tickets.texts for word in re.findall("[a-z]+", text.lower())})
    random_encoder("mpnet", tmp_path / "mpnet", vocab_size=len(words) + 8)
    mpnet_tokenizer(words).save(str(tmp_path / "mpnet" / "tokenizer.json"))
    attention = AttentionConfig(clip=0.97)
    train(
        tickets,
        tmp_path / "run",
        attention=attention,
        config=TrainConfig(trainable="all", steps=2, batch_size=8),
        privacy=PrivacyConfig(epsilon=3.0, delta=1e-3, noise_seed=0),
        encoder=str(tmp_path / "mpnet"),
    )
    run = load_run(tmp_path / "run")
    assert run.model.config.relative_positions
    start = load_pretrained(tmp_path / "mpnet", len(run.label_names), attention)
    biases = dict(start.named_buffers())
    assert len(biases) == 2
    for name, bias in run.model.named_buffers():
        assert bias.abs().max() > 0.1
        assert torch.equal(bias, biases[name])
    assert not torch.equal(run.model.words.weight, start.words.weight)
    heads = certify(run.model, 32, 4)
    assert [head.lift_bound for head in heads] == [pytest.approx(3.99, abs=0.01)] * 6


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
        (
            {"model_type": "albert"},
            "model_type bert or distilbert or mpnet or roberta or xlm-roberta, got 'albert'",
        ),
        ({"model_type": ["bert"]}, r"expected model_type bert or .*, got \['bert'\]"),
        ({"hidden_act": "relu"}, "expected hidden_act gelu, got 'relu'"),
        (
            {"position_embedding_type": "relative_key"},
            "expected position_embedding_type absolute, got 'relative_key'",
        ),
        ({"is_decoder": True}, "expected is_decoder False, got True"),
        ({"add_cross_attention": True}, "expected add_cross_attention False, got True"),
        (
            {"quantization_config": {"bits": 8}},
            "expected quantization_config None, got {'bits': 8}",
        ),
        ({"model_type": "mpnet"}, "does not hold a mpnet encoder"),
        ({"model_type": "roberta", "pad_token_id": 0}, "expected pad_token_id 1, got 0"),
        (
            {"model_type": "distilbert", "activation": "relu"},
            "expected activation gelu, got 'relu'",
        ),
        ({"model_type": "distilbert"}, "does not hold a distilbert encoder: 'dim' is missing"),
        ({"num_hidden_layers": 7}, "does not hold a bert encoder: 'encoder.layer.6.* is missing"),
        ({"num_hidden_layers": "6"}, "does not hold a bert encoder"),
        ({"hidden_size": 192}, "does not hold a bert encoder"),
    ],
)
def test_other_architectures_are_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        load_pretrained(broken_copy(tmp_path / "other", change), 2, AttentionConfig())
    assert "\n" not in str(refusal.value)


def test_a_configuration_that_is_no_object_is_refused(tmp_path: Path) -> None:
    folder = broken_copy(tmp_path / "other", {})
    (folder / "config.json").write_text("[]")
    with pytest.raises(InputError, match="expected model_type bert or .*, got None"):
        load_pretrained(folder, 2, AttentionConfig())


def test_missing_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="scratch, minilm, minilm-bounded, words or a folder"):
        encoder_folder(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="cannot read the encoder's configuration"):
        load_pretrained(tmp_path, 2, AttentionConfig())
    folder = broken_copy(tmp_path / "broken", {})
    (folder / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(InputError, match="cannot read the encoder's weights"):
        load_pretrained(folder, 2, AttentionConfig())
