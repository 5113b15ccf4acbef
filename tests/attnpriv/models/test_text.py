from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from attnpriv.config import AttentionConfig, ModelConfig
from attnpriv.data import Encoding
from attnpriv.errors import InputError
from attnpriv.models.text import TextClassifier, pad_batch, pooled_features


def make_model(pooling: str = "mean", attention: AttentionConfig | None = None) -> TextClassifier:
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
    )
    model = TextClassifier(config)
    torch.nn.init.normal_(model.head.weight)
    return model


def encoding(*ids: int) -> Encoding:
    return Encoding(ids, tuple((0, 0) for _ in ids))


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
    logits, weights = model.forward_with_weights(ids, mask)
    torch.testing.assert_close(logits, model(ids, mask), rtol=1e-5, atol=1e-5)
    assert [w.shape for w in weights] == [(3, 3, 7, 7)] * 3
    for w in weights:
        torch.testing.assert_close(w.sum(-1), torch.ones(3, 3, 7))
        assert not w[1, :, :, 3:].any()


def test_embedded_forward_is_the_second_half_of_the_forward() -> None:
    model = make_model()
    ids, mask = pad_batch(ENCODINGS, 0)
    torch.testing.assert_close(model.forward_embedded(model.embed(ids), mask), model(ids, mask))


@pytest.mark.parametrize(("pooling", "width"), [("mean", 12), ("cls", 12), ("layers", 36)])
def test_pooled_features_have_norm_one_and_keep_the_order(pooling: str, width: int) -> None:
    model = make_model(pooling)
    features = pooled_features(model, ENCODINGS, 0, batch_size=2)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(
        model.head(features), model(*pad_batch(ENCODINGS, 0)), rtol=1e-5, atol=1e-5
    )
    assert features.shape == (3, width)
    assert pooled_features(model, [], 0).shape == (0, width)


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
    torch.testing.assert_close(pooled_features(model, ENCODINGS, 0), torch.cat(expected, 1))


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
def test_select_trainable(trainable: str, prefixes: set[str]) -> None:
    model = make_model()
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
