from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attnpriv.certificate import certify
from attnpriv.config import AttentionConfig, ModelConfig
from attnpriv.data import Encoding, HashTokenizer
from attnpriv.data.text import Text, pad_batch
from attnpriv.errors import InputError
from attnpriv.models.classifier import pooled_features
from attnpriv.models.text import TextClassifier
from attnpriv.runs.folder import CARD, LEDGER, load_run, publish, write_model

LEARNED = AttentionConfig(2.0, 1.0, "norm", "additive", temperature_floor=0.5)


def make_model(
    pooling: str = "mean", attention: AttentionConfig | None = None, share_layers: bool = False
) -> TextClassifier:
    torch.manual_seed(0)
    config = ModelConfig(
        encoder="scratch",
        vocab_size=50,
        dim=12,
        layers=3,
        heads=3,
        hidden_dim=17,
        max_length=16,
        num_labels=5,
        pooling=pooling,  # type: ignore[arg-type]
        attention=attention or AttentionConfig(),
        share_layers=share_layers,
    )
    model = TextClassifier(config)
    torch.nn.init.normal_(model.head.weight)
    return model


def encoding(*ids: int) -> Encoding:
    return Encoding(ids, tuple((0, 0) for _ in ids))


MODALITY = Text(HashTokenizer(64), 16)
ENCODINGS = [encoding(1, 7, 8, 9, 2), encoding(1, 11, 2), encoding(1, 7, 9, 8, 13, 14, 2)]


@pytest.mark.parametrize("pooling", ["mean", "cls", "layers"])
@pytest.mark.parametrize(
    "attention", [AttentionConfig(), AttentionConfig(2.0, 1.0), AttentionConfig(1.0, 1.0, "norm")]
)
def test_padding_and_neighbours_do_not_change_a_text(
    pooling: str, attention: AttentionConfig
) -> None:
    model = make_model(pooling, attention)
    together = model(*pad_batch(ENCODINGS, 0))
    for row, one in enumerate(ENCODINGS):
        torch.testing.assert_close(
            model(*pad_batch([one], 0))[0], together[row], rtol=1e-5, atol=1e-5
        )


def test_logits_with_weights_equal_those_of_the_fused_path() -> None:
    model = make_model()
    ids, mask = pad_batch(ENCODINGS, 0)
    seen = model.run(model.embed(ids), mask, need_maps=True)
    logits, weights = seen.outputs, seen.self_attention()
    torch.testing.assert_close(logits, model(ids, mask), rtol=1e-5, atol=1e-5)
    assert [w.shape for w in weights] == [(3, 3, 7, 7)] * 3
    for w in weights:
        torch.testing.assert_close(w.sum(-1), torch.ones(3, 3, 7))
        assert not w[1, :, :, 3:].any()


def test_embedded_forward_is_the_second_half_of_the_forward() -> None:
    model = make_model()
    ids, mask = pad_batch(ENCODINGS, 0)
    torch.testing.assert_close(model.run(model.embed(ids), mask).outputs, model(ids, mask))


@pytest.mark.parametrize(("pooling", "width"), [("mean", 12), ("cls", 12), ("layers", 36)])
def test_pooled_features_have_norm_one_and_keep_the_order(pooling: str, width: int) -> None:
    model = make_model(pooling)
    features = pooled_features(model, MODALITY, ENCODINGS, batch_size=2)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(
        model.head(features), model(*pad_batch(ENCODINGS, 0)), rtol=1e-5, atol=1e-5
    )
    assert features.shape == (3, width)
    assert pooled_features(model, MODALITY, []).shape == (0, width)


def test_layers_are_pooled_side_by_side() -> None:
    """Each third is the mean-pooled state after its block, by another route."""
    model = make_model("layers")
    ids, mask = pad_batch(ENCODINGS, 0)
    x = model.embed(ids)
    expected = []
    for block in model.blocks:
        x, _ = block(x, mask)
        mean = torch.stack([row[m].mean(0) for row, m in zip(x, mask, strict=True)])
        expected.append(mean / mean.norm(dim=1, keepdim=True) / 3**0.5)
    torch.testing.assert_close(pooled_features(model, MODALITY, ENCODINGS), torch.cat(expected, 1))


def test_which_layers_are_pooled() -> None:
    config = make_model("layers").config
    pooled = [replace(config, layers=count).pooled_layers for count in (1, 2, 4, 6, 12)]
    assert pooled == [(1,), (1, 2), (2, 3, 4), (2, 4, 6), (4, 8, 12)]
    assert replace(config, pooling="mean").pooled_layers == (3,)


@pytest.mark.parametrize(
    ("trainable", "prefixes"),
    [
        ("head", {"head"}),
        ("last:1", {"head", "blocks.2"}),
        ("last:3", {"head", "blocks.0", "blocks.1", "blocks.2"}),
        (
            "all",
            {"head", "blocks.0", "blocks.1", "blocks.2", "words", "positions", "embedding_norm"},
        ),
    ],
)
@pytest.mark.parametrize("attention", [AttentionConfig(), LEARNED], ids=str)
def test_select_trainable(trainable: str, prefixes: set[str], attention: AttentionConfig) -> None:
    model = make_model(attention=attention)
    model.select_trainable(trainable)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    expected = {
        name for name, _ in model.named_parameters() if any(name.startswith(x) for x in prefixes)
    }
    assert trained == expected


def test_what_does_not_fit_is_refused() -> None:
    model = make_model()
    with pytest.raises(InputError, match="at most last:3"):
        model.select_trainable("last:4")
    with pytest.raises(InputError, match="at most 16 tokens, got 17"):
        model.embed(torch.zeros(1, 17, dtype=torch.int64))


def copies_of(shared: TextClassifier) -> TextClassifier:
    """The model whose layers have weights of their own, equal to the shared ones."""
    model = TextClassifier(replace(shared.config, share_layers=False))
    weights = shared.state_dict()
    model.load_state_dict(
        {
            name: weights[".".join(["blocks", "0", *name.split(".")[2:]])]
            if name.startswith("blocks.")
            else weights[name]
            for name in model.state_dict()
        }
    )
    return model


@pytest.mark.parametrize("attention", [AttentionConfig(), LEARNED], ids=str)
def test_a_recursive_encoder_equals_layers_that_are_copies(attention: AttentionConfig) -> None:
    shared = make_model("layers", attention, share_layers=True)
    copies = copies_of(shared)
    ids, mask = pad_batch(ENCODINGS, 0)
    states, weights = shared.encode(shared.embed(ids), mask, need_weights=True)
    expected_states, expected_weights = copies.encode(copies.embed(ids), mask, need_weights=True)
    assert len(states) == len(weights or []) == 3
    assert all(map(torch.equal, states, expected_states))
    assert all(map(torch.equal, weights or [], expected_weights or []))
    assert not torch.equal(states[0], states[1])
    assert torch.equal(shared(ids, mask), copies(ids, mask))
    assert shared.temperatures() == copies.temperatures()

    for model in (shared, copies):
        model(ids, mask).logsumexp(1).sum().backward()
    for name, parameter in shared.blocks[0].named_parameters():
        gradients = [block.get_parameter(name).grad for block in copies.blocks]
        assert parameter.grad is not None
        torch.testing.assert_close(
            parameter.grad, sum(g for g in gradients if g is not None), rtol=1e-5, atol=1e-6
        )


def test_shared_layers_have_the_weights_of_one() -> None:
    def count(model: torch.nn.Module) -> int:
        return sum(p.numel() for p in model.parameters())

    shared, separate = make_model(share_layers=True), make_model()
    block = (36 + 12 + 17) * 12 + 12 * 17 + (36 + 12 + 17 + 12) + 4 * 12
    assert len(shared.blocks) == 1
    assert shared.layers == [shared.blocks[0]] * 3
    assert separate.layers == list(separate.blocks)
    assert count(shared.blocks) == block
    assert count(separate) - count(shared) == 2 * block
    assert count(make_model("layers", share_layers=True).head) == (3 * 12 + 1) * 5


def test_the_certificate_of_shared_layers_lists_each_of_them() -> None:
    model = make_model(attention=LEARNED, share_layers=True)
    torch.nn.init.normal_(model.get_parameter("blocks.0.attention.core.raw_temperature.weight"))
    heads = certify(model, 7, 2)
    assert [(head.module, head.layer, head.head) for head in heads] == [
        ("blocks.0.attention.core", layer, head) for layer in range(3) for head in range(3)
    ]
    for head in heads:
        assert head.temperature == model.temperatures()[head.layer][head.head]
    assert heads[0].temperature != heads[1].temperature
    assert heads[0].mass_bound == heads[3].mass_bound == heads[6].mass_bound


def test_a_run_folder_keeps_shared_layers(tiny_run: Path, tmp_path: Path) -> None:
    model = make_model("layers", LEARNED, share_layers=True)
    staging = tmp_path / "staging"
    staging.mkdir()
    write_model(staging, model, tuple("abcde"), {}, None)
    shutil.copy(tiny_run / CARD, staging)
    (staging / LEDGER).touch()
    publish(staging, tmp_path / "run")
    read = load_run(tmp_path / "run").model
    assert read.config == model.config
    assert len(read.blocks) == 1
    assert torch.equal(read(*pad_batch(ENCODINGS, 0)), model(*pad_batch(ENCODINGS, 0)))
    assert certify(read, 7, 2) == certify(model, 7, 2)


@pytest.mark.parametrize("trainable", ["last:1", "last:3", "lora:2:last:1"])
def test_a_part_of_shared_layers_is_not_trained(trainable: str) -> None:
    model = make_model(share_layers=True)
    before = {name for name, p in model.named_parameters() if p.requires_grad}
    with pytest.raises(InputError, match=f"no last:K .* got '{trainable[-6:]}'"):
        model.select_trainable(trainable)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == before
