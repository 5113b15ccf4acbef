"""Records in their forms: the same losses and the same clipped sums, however they are cut."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from attnpriv.config import AttentionConfig, ModelConfig, Pooling
from attnpriv.data import Encoding, HashTokenizer
from attnpriv.data.text import Text
from attnpriv.models.text import TextClassifier
from attnpriv.privacy.clipping import make_engine
from attnpriv.training.batches import Records, SampleRecords, UpperRecords, states_size

TEXTS = [" ".join(f"word{(i * 7 + j) % 31}" for j in range(1 + i % 11)) for i in range(23)]
LABELS = torch.arange(23) % 3


def make_model(pooling: Pooling, trainable: str) -> tuple[TextClassifier, Text, list[Encoding]]:
    torch.manual_seed(0)
    config = ModelConfig(
        encoder="scratch",
        vocab_size=64,
        dim=12,
        layers=3,
        heads=3,
        hidden_dim=7,
        max_length=16,
        num_labels=3,
        pooling=pooling,
        attention=AttentionConfig(2.0, 1.0, "norm"),
    )
    model = TextClassifier(config)
    nn.init.normal_(model.head.weight)
    model.select_trainable(trainable)
    modality = Text(HashTokenizer(64), 16)
    return model, modality, modality.read(TEXTS)


def clipped_sum(records: Records, batch: Tensor) -> list[Tensor]:
    engine = make_engine("book_keeping", records.module, 0.1, "flat")
    totals = {p: torch.zeros_like(p) for p in records.module.parameters() if p.requires_grad}
    for losses_of in records.losses(batch):
        engine.accumulate(losses_of(engine.module), totals)
    engine.close()
    return list(totals.values())


@pytest.mark.parametrize("pooling", ["mean", "cls", "layers"])
@pytest.mark.parametrize(
    ("trainable", "start"), [("last:1", 2), ("last:2", 1), ("lora:2:last:1", 2)]
)
def test_frozen_layers_run_once_and_change_nothing(
    pooling: Pooling, trainable: str, start: int
) -> None:
    model, modality, samples = make_model(pooling, trainable)
    whole = SampleRecords(model, modality, samples, LABELS, 40)
    upper = UpperRecords(model, start, modality, samples, LABELS, 40)
    batch = torch.tensor([22, 0, 5, 13, 7, 8, 21])
    for first, second in zip(clipped_sum(whole, batch), clipped_sum(upper, batch), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)
        assert first.abs().max() > 0 or "lora" in trainable


@pytest.mark.parametrize("tokens", [1, 11, 40, 10_000])
def test_micro_batches_hold_every_row_once_and_keep_to_their_tokens(tokens: int) -> None:
    model, modality, samples = make_model("mean", "all")
    records = SampleRecords(model, modality, samples, LABELS, tokens)
    sizes: list[int] = []

    class Counting(nn.Module):
        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            sizes.append(len(ids))
            assert len(ids) == 1 or ids.numel() <= tokens
            assert mask.any(0).all(), "no column is padding alone"
            return torch.zeros(len(ids), 3)

    batch = torch.arange(23)
    losses = [losses_of(Counting()) for losses_of in records.losses(batch)]
    assert sum(sizes) == 23
    assert [len(x) for x in losses] == sizes
    assert list(records.losses(batch[:0])) == []


def test_cuts_do_not_change_the_sum() -> None:
    model, modality, samples = make_model("layers", "all")
    batch = torch.arange(23)
    sums = [
        clipped_sum(SampleRecords(model, modality, samples, LABELS, tokens), batch)
        for tokens in (1, 37, 10_000)
    ]
    for one, few, all_ in zip(*sums, strict=True):
        torch.testing.assert_close(one, few, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(one, all_, rtol=1e-4, atol=1e-6)


def test_the_size_of_the_states_is_that_of_their_tensors() -> None:
    model, modality, samples = make_model("mean", "last:1")
    records = UpperRecords(model, 2, modality, samples, LABELS, 40)
    bytes_held = sum(state.numel() * state.element_size() for state in records._hidden)
    assert states_size(samples, 12) == bytes_held
