"""Small models to be hardened, and what their attention is compared with."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnpriv import guarantees as g
from attnpriv.attention import HardenedAttention
from attnpriv.config import AttentionConfig

transformers = pytest.importorskip("transformers")

PLAIN = AttentionConfig()
CLIPPED = [
    AttentionConfig(2.0, 1.0, "clamp"),
    AttentionConfig(0.5, 1.0, "tanh"),
    AttentionConfig(2.0, 1.0, "norm"),
    AttentionConfig(2.0, 1.0, "norm", temperature_floor=0.7),
    AttentionConfig(0.5, 1.0, "relative"),
]
SLACK = 2e-5  # of a weight in float32
HIDDEN = torch.tensor([[False] * 7, [False] * 4 + [True] * 3])  # padding, as torch marks it
MASK = (~HIDDEN).long()  # the same, as transformers marks it
IDS = torch.arange(3, 17).reshape(2, 7)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def within_bounds(weights: Tensor, visible: Tensor, config: AttentionConfig) -> None:
    """Weights [..., Tk], and True where a key may be seen, of a shape that broadcasts to theirs."""
    visible = visible.expand_as(weights)
    assert not weights[~visible].any()
    tau = config.temperature_floor or config.temperature
    for n in visible.sum(-1).unique().tolist():
        low, high = g.weight_bounds(config.logit_bound, tau, n)
        shown = weights[(visible.sum(-1) == n).unsqueeze(-1) & visible]
        assert shown.min() >= low * (1 - SLACK)
        assert shown.max() <= high * (1 + SLACK)


def causal(size: int) -> Tensor:
    return torch.ones(size, size, dtype=torch.bool).triu(1)


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch_first": {"batch_first": True},
    "no bias": {"bias": False},
    "other widths": {"kdim": 5, "vdim": 11, "batch_first": True},
    "bias_kv": {"add_bias_kv": True},
    "zero_attn": {"add_zero_attn": True, "batch_first": True},
    "both extra keys": {"add_bias_kv": True, "add_zero_attn": True, "kdim": 5, "vdim": 11},
}
TQ, TK, HEADS, WIDTH = 3, 7, 2, 26


def multihead(kind: str) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(WIDTH, HEADS, **KINDS[kind])
    for parameter in module.parameters():  # some of them start at zero
        nn.init.normal_(parameter, std=0.3)
    return module


def multihead_inputs(kind: str) -> list[Tensor]:
    widths = (WIDTH, KINDS[kind].get("kdim", WIDTH), KINDS[kind].get("vdim", WIDTH))
    inputs = [torch.randn(2, t, w) for t, w in zip((TQ, TK, TK), widths, strict=True)]
    return [x if "batch_first" in KINDS[kind] else x.transpose(0, 1) for x in inputs]


class Encoder(nn.Module):
    """Attention at several depths, and one module in two places."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(12, 2, 17, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)
        self.again = self.attention

    def forward(
        self, x: Tensor, hidden: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        x = self.encoder(x, mask=mask, src_key_padding_mask=hidden)
        return self.again(x, x, x, key_padding_mask=hidden)[0]


def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder()


def twice(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Combines two softmaxes, under the name and in place of what computes one."""

    @functools.wraps(forward)
    def difference(*given: Any, **named: Any) -> Any:
        (first, weights), (second, _) = forward(*given, **named), forward(*given, **named)
        return 2 * first - second, weights

    return difference


def with_another_forward(module: Any) -> Any:
    module.forward = twice(module.forward)
    return module


SIZES: dict[str, Any] = {
    "vocab_size": 19,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 17,
    "pad_token_id": 0,
    "max_position_embeddings": 23,
}
DISTILBERT = {"vocab_size": 19, "dim": 12, "n_layers": 2, "n_heads": 3, "hidden_dim": 17}
FAMILY: dict[str, dict[str, Any]] = {
    "Bert": SIZES,
    "Roberta": SIZES,
    "DistilBert": DISTILBERT,
    "Electra": SIZES,
    "Albert": {**SIZES, "embedding_size": 5},
    "ModernBert": {**SIZES, "local_attention": 2, "layer_types": None},
}


def tiny(family: str, implementation: str = "eager", **changes: Any) -> Any:
    torch.manual_seed(0)
    sizes = {**FAMILY[family], **changes}
    config = getattr(transformers, f"{family}Config")(**sizes, attn_implementation=implementation)
    model = getattr(transformers, f"{family}Model")(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("weight") and parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.3)  # the default is so small that weights are uniform
    return model


def temperatures(model: nn.Module) -> list[list[float]]:
    return [p.temperatures() for p in model.modules() if isinstance(p, HardenedAttention)]


class Classifier(nn.Module):
    """A user's own model around a pretrained one, beside attention of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.bert = tiny("Bert")
        self.config = self.bert.config
        self.mixer = nn.MultiheadAttention(12, 3, batch_first=True)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.bert(ids).last_hidden_state
        return self.mixer(x, x, x)[0]
