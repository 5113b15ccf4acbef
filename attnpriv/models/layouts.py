"""Where a pretrained encoder keeps its weights and where ours keep them, in both directions.

Names of weights are Hugging Face's, as in the file of an encoder, with or without the prefix that a
model around the encoder adds. M is our longest text in tokens, H the number of heads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attnpriv.config import ModelConfig

# From so many tokens on MPNet's encoders do not tell distances apart.
FARTHEST = 128

_WORDS = "embeddings.word_embeddings.weight"
_POSITIONS = "embeddings.position_embeddings.weight"
_SEGMENTS = "embeddings.token_type_embeddings.weight"
_BUCKETS = "encoder.relative_attention_bias.weight"


@dataclass(frozen=True)
class Family:
    """A kind of encoder: what its sizes and weights are called.

    Attributes:
        name: its ``model_type``.
        prefix: what a model around the encoder puts before the names of the encoder's weights.
        sizes: of each size of ours, its key in ``config.json``.
        activation: the key there of the activation in the feed-forward layers.
        layer: what comes before the number of a layer.
        parts: of each part of our blocks, what it is called in a layer of theirs; the queries, keys
            and values that ours compute at once have three names.
        first_position: the row of the first token among the position embeddings.
        pad_id: the ``pad_token_id`` for which that holds, if it depends on that.
        segments: whether a text has an embedding of its segment.
        relative: whether the distance of two tokens adds to their logit.
    """

    name: str
    prefix: str
    sizes: Mapping[str, str]
    activation: str
    layer: str
    parts: Mapping[str, tuple[str, ...]]
    first_position: int
    pad_id: int | None
    segments: bool
    relative: bool


_BERT = Family(
    name="bert",
    prefix="bert.",
    sizes={
        "dim": "hidden_size",
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "hidden_dim": "intermediate_size",
        "norm_eps": "layer_norm_eps",
    },
    activation="hidden_act",
    layer="encoder.layer",
    parts={
        "attention.qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
        "attention.output": ("attention.output.dense",),
        "attention_norm": ("attention.output.LayerNorm",),
        "expand": ("intermediate.dense",),
        "contract": ("output.dense",),
        "output_norm": ("output.LayerNorm",),
    },
    first_position=0,
    pad_id=None,
    segments=True,
    relative=False,
)
# Positions are counted from the one after that of padding, which is the padding's id.
_ROBERTA = replace(_BERT, name="roberta", prefix="roberta.", first_position=2, pad_id=1)
_XLM_ROBERTA = replace(_ROBERTA, name="xlm-roberta")
_MPNET = replace(
    _BERT,
    name="mpnet",
    prefix="mpnet.",
    parts={
        **_BERT.parts,
        "attention.qkv": ("attention.attn.q", "attention.attn.k", "attention.attn.v"),
        "attention.output": ("attention.attn.o",),
        "attention_norm": ("attention.LayerNorm",),
    },
    first_position=2,
    segments=False,
    relative=True,
)
_DISTILBERT = Family(
    name="distilbert",
    prefix="distilbert.",
    # Its norms have the ε that is ours by default.
    sizes={"dim": "dim", "layers": "n_layers", "heads": "n_heads", "hidden_dim": "hidden_dim"},
    activation="activation",
    layer="transformer.layer",
    parts={
        "attention.qkv": ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        "attention.output": ("attention.out_lin",),
        "attention_norm": ("sa_layer_norm",),
        "expand": ("ffn.lin1",),
        "contract": ("ffn.lin2",),
        "output_norm": ("output_layer_norm",),
    },
    first_position=0,
    pad_id=None,
    segments=False,
    relative=False,
)
FAMILIES = {family.name: family for family in (_BERT, _DISTILBERT, _MPNET, _ROBERTA, _XLM_ROBERTA)}


def to_ours(state: Mapping[str, Tensor], config: ModelConfig, family: Family) -> dict[str, Tensor]:
    """Our names and tensors for the weights of an encoder, in float32.

    Queries, keys and values become one matrix, and the vector of segment 0, in which every text
    lies, is added to the positions.

    Args:
        state: what the encoder's file holds.
        config: of our model; positions beyond its ``max_length`` are left out.
        family: the kind of encoder.

    Returns:
        All that a ``TextClassifier`` of this shape holds besides its head and learned temperatures.

    Raises:
        KeyError: the file lacks a weight.
        TypeError: a weight is not a floating-point number, as in quantised files.
    """
    file = _File(state, family)
    ours = {
        name: torch.cat([file.weight(each) for each in theirs])
        for name, theirs in _names(config, family).items()
    }
    ours["positions.weight"] = file.weight(_POSITIONS)[_rows(config, family)] + file.segment()
    if family.relative:
        by_distance = _by_distance(file.weight(_BUCKETS), config.max_length)
        for layer in range(config.layers):
            ours[f"blocks.{layer}.attention.core.position_bias"] = by_distance.clone()
    return ours


def to_theirs(
    ours: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    config: ModelConfig,
    family: Family,
) -> dict[str, Tensor]:
    """The inverse of ``to_ours``: an encoder's file with the weights of our model in it.

    Claim: a weight that is as ``to_ours`` made it comes back bit for bit, and names, shapes and
    dtypes are those of ``state``. What our model does not hold stays as it was: positions beyond
    its ``max_length``, poolers, heads of other tasks, and MPNet's biases by distance, which are
    never trained. Not covered: the head and learned temperatures of ours, for which the file has no
    place. Positions that changed are exact up to the rounding of one subtraction.

    Args:
        ours: the state of our model, without low-rank adapters.
        state: what the encoder's file held; it is not changed.
        config: of our model.
        family: the kind of encoder.

    Raises:
        KeyError: either lacks a weight.
        TypeError: a weight of theirs is not a floating-point number.
    """
    file, theirs = _File(state, family), dict(state)
    for name, parts in _names(config, family).items():
        for part, tensor in zip(parts, ours[name].chunk(len(parts)), strict=True):
            key = file.key(part)
            theirs[key] = tensor.to(state[key].dtype, copy=True)
    rows, segment = _rows(config, family), file.segment()
    table = state[file.key(_POSITIONS)].clone()
    new, old = ours["positions.weight"], table[rows].float()
    # Subtracting would not undo the rounding of the addition where nothing was trained.
    table[rows] = torch.where(new == old + segment, old, new - segment).to(table.dtype)
    theirs[file.key(_POSITIONS)] = table
    return theirs


@dataclass(frozen=True)
class _File:
    """The weights of an encoder by the names that its family gives them."""

    state: Mapping[str, Tensor]
    family: Family

    def key(self, name: str) -> str:
        """What a weight is called in the file: with a prefix or without, and maybe by an old name.

        The norms of BERT's first files have a gamma and a beta.
        """
        prefix = self.family.prefix if self.family.prefix + _WORDS in self.state else ""
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        old = old.replace("LayerNorm.bias", "LayerNorm.beta")
        return prefix + (old if prefix + old in self.state else name)

    def weight(self, name: str) -> Tensor:
        """A weight in float32."""
        tensor = self.state[self.key(name)]
        if not tensor.is_floating_point():
            raise TypeError(f"expected floating-point numbers in {name}, got {tensor.dtype}")
        return tensor.float()

    def segment(self) -> Tensor:
        """The vector of segment 0, [D], or [] of 0 where there are no segments."""
        return self.weight(_SEGMENTS)[0] if self.family.segments else torch.zeros(())


def _names(config: ModelConfig, family: Family) -> dict[str, tuple[str, ...]]:
    """Their names of each weight of ours that is copied as it is, or put together of parts."""
    names: dict[str, tuple[str, ...]] = {
        "words.weight": (_WORDS,),
        "embedding_norm.weight": ("embeddings.LayerNorm.weight",),
        "embedding_norm.bias": ("embeddings.LayerNorm.bias",),
    }
    for layer in range(config.layers):
        for part, theirs in family.parts.items():
            for kind in ("weight", "bias"):
                names[f"blocks.{layer}.{part}.{kind}"] = tuple(
                    f"{family.layer}.{layer}.{each}.{kind}" for each in theirs
                )
    return names


def _rows(config: ModelConfig, family: Family) -> slice:
    """The rows of their positions that ours hold."""
    return slice(family.first_position, family.first_position + config.max_length)


def _by_distance(of_buckets: Tensor, max_length: int) -> Tensor:
    """The bias of each distance -M < j - i < M, [H, 2M-1], from that of each bucket, [N, H].

    Half of the buckets are for keys after the query. Of each half, one half again is for one
    distance each, and the rest for ranges that grow geometrically up to ``FARTHEST``.

    Source: Raffel et al. 2020 (arXiv:1910.10683), section 2.1; the second half as in MPNet's code.
    """
    distances = torch.arange(1 - max_length, max_length)
    half = len(of_buckets) // 2
    exact = half // 2
    apart = distances.abs()
    share = torch.log(apart.clamp(min=1) / exact) / math.log(FARTHEST / exact)
    wide = (exact + (share * (half - exact)).long()).clamp(max=half - 1)
    buckets = torch.where(apart < exact, apart, wide) + half * (distances > 0)
    return of_buckets[buckets].T.contiguous()
