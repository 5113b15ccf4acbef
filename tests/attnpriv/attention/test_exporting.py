"""Hardened models as graphs: an exported one holds for other sizes, and a trace is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnpriv.attention import attend, harden
from attnpriv.config import AttentionConfig, ModelConfig
from attnpriv.errors import InputError
from attnpriv.models.text import TextClassifier

NORM = AttentionConfig(2.0, 1.0, "norm", temperature_floor=0.7)
RELATIVE = AttentionConfig(0.5, 1.0, "relative", temperature_floor=0.4)
CLAMP = AttentionConfig(2.0, 1.0)


def mask(texts: int, tokens: int) -> Tensor:
    seen = torch.ones(texts, tokens, dtype=torch.bool)
    seen[0, tokens // 2 :] = False
    return seen


def ids(texts: int, tokens: int) -> Tensor:
    return torch.randint(3, 19, (texts, tokens))


class Torch(nn.Module):
    """Layers of PyTorch, which turn the padding mask into a float one."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(12, 2, 17, dropout=0.0, batch_first=True)
        self.encoder = harden(nn.TransformerEncoder(layer, 1), config)

    def forward(self, x: Tensor, seen: Tensor) -> Any:
        return self.encoder(x, src_key_padding_mask=~seen)

    def inputs(self, texts: int, tokens: int) -> tuple[Tensor, Tensor]:
        return torch.randn(texts, tokens, 12), mask(texts, tokens)


class Ours(nn.Module):
    """A text classifier, whose logits have a bias by position."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        shape = {"vocab_size": 19, "dim": 12, "layers": 1, "heads": 2, "hidden_dim": 17}
        self.model = TextClassifier(
            ModelConfig(
                "none", **shape, max_length=16, num_labels=3, attention=config,
                relative_positions=True,
            )
        )  # fmt: skip
        nn.init.normal_(self.model.head.weight)
        nn.init.normal_(self.model.blocks[0].attention.core.position_bias)

    def forward(self, words: Tensor, seen: Tensor) -> Any:
        return self.model(words, seen)

    def inputs(self, texts: int, tokens: int) -> tuple[Tensor, Tensor]:
        return ids(texts, tokens), mask(texts, tokens)


class HuggingFace(nn.Module):
    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        transformers = pytest.importorskip("transformers")
        sizes = {"vocab_size": 19, "hidden_size": 12, "num_hidden_layers": 1}
        sizes |= {"num_attention_heads": 3, "intermediate_size": 17}
        self.bert = harden(transformers.BertModel(transformers.BertConfig(**sizes)), config)

    def forward(self, words: Tensor, seen: Tensor) -> Any:
        return self.bert(words, attention_mask=seen).last_hidden_state

    def inputs(self, texts: int, tokens: int) -> tuple[Tensor, Tensor]:
        return ids(texts, tokens), mask(texts, tokens).long()


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("kind", "config"), [(Torch, NORM), (Ours, RELATIVE), (HuggingFace, CLAMP)], ids=str
)
def test_an_exported_model_holds_for_other_sizes(
    kind: type[Torch | Ours | HuggingFace], config: AttentionConfig
) -> None:
    torch.manual_seed(0)
    model = kind(config).eval()
    sizes = {0: torch.export.Dim("texts"), 1: torch.export.Dim("tokens", max=16)}
    with torch.no_grad():
        graph = torch.export.export(
            model, model.inputs(2, 7), dynamic_shapes=(sizes, sizes)
        ).module()
        for texts, tokens in ((5, 9), (3, 4), (2, 16)):
            inputs = model.inputs(texts, tokens)
            torch.testing.assert_close(graph(*inputs), model(*inputs), rtol=1e-4, atol=1e-5)


def test_an_exported_layer_refuses_a_mask_that_adds_to_the_logits() -> None:
    layer = harden(nn.TransformerEncoderLayer(12, 2, 17, batch_first=True), CLAMP).eval()
    x = torch.randn(2, 7, 12)
    with torch.no_grad():
        graph = torch.export.export(layer, (x, torch.zeros(7, 7))).module()
        torch.testing.assert_close(graph(x, torch.zeros(7, 7)), layer(x), rtol=1e-4, atol=1e-5)
        with pytest.raises(RuntimeError, match="expected attn_mask with no values but 0 and -inf"):
            graph(x, torch.full((7, 7), -1.0))


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.* is deprecated")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("config", [AttentionConfig(), NORM, RELATIVE, CLAMP], ids=str)
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("tokens", [7, 200])
def test_a_trace_which_would_keep_its_sizes_is_refused(
    config: AttentionConfig, need_weights: bool, tokens: int
) -> None:
    """Each backend in turn: run on a larger batch, a trace gave the memory of freed tensors."""

    def call(x: Tensor) -> Tensor:
        return attend(x, x, x, None, config, need_weights)[0]

    with pytest.raises(InputError, match=r"use torch\.export\.export"):
        torch.jit.trace(call, torch.randn(1, 2, tokens, 6), check_trace=False)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.* is deprecated")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
@pytest.mark.parametrize("kind", [Torch, Ours, HuggingFace])
def test_a_trace_of_a_model_is_refused(kind: type[Torch | Ours | HuggingFace]) -> None:
    model = kind(CLAMP).eval()
    with torch.no_grad(), pytest.raises(InputError, match="torch.jit.trace is not supported"):
        torch.jit.trace(model, model.inputs(1, 7), check_trace=False)
