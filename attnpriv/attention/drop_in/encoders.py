"""Pretrained encoders of ``transformers`` as they are taught to work under a bound.

These are the families of texts that ``harden`` knows and this package's own blocks do not load. No
network is used, no code of a folder is run, and weights are read from safetensors only.

Shapes: B texts, T tokens, D model width, L layers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from attnpriv.attention.drop_in import harden
from attnpriv.config import AttentionConfig, thirds
from attnpriv.errors import InputError

WEIGHTS = "model.safetensors"
INSTALL = "pip install 'transformers>=5.20'"
# What makes another computation of the same weights, with the value that it must have.
ONLY = {"is_decoder": False, "add_cross_attention": False, "quantization_config": None}


class TransformersEncoder:
    """An encoder of ``transformers`` with hardened attention, in float32 and without dropout.

    Its hidden states after every layer are what ``transformers`` returns for
    ``output_hidden_states``, the last one after the norm that some families end with.

    Args:
        folder: in Hugging Face layout, of a family in ``families.ENCODERS``.
        attention: with no clip and temperature 1 it computes what ``transformers`` does.
        learns: whether its weights are learned. Word embeddings are not, nor is what takes no part
            in the hidden states, such as a pooler. A block that several layers share is learned
            once.

    Attributes:
        module: the model.
        pooled: the last layers of the first third, the first two thirds and all layers.
        vocab_size: every token id is below it.

    Raises:
        InputError: ``transformers`` is not installed, the folder cannot be read or its parts do not
            fit each other, or the encoder does not read in both directions.
    """

    def __init__(self, folder: Path, attention: AttentionConfig, learns: bool) -> None:
        self.module = harden(_load(folder), attention).eval()
        words = self.module.get_input_embeddings()
        self.vocab_size: int = words.num_embeddings
        self._folder, self._longest = folder, _longest(self.module)
        self.module.requires_grad_(True)
        used = self._used()
        self.pooled = thirds(self._layers)
        self._keys = _keys_in_file(folder, self.module, used)
        self.module.requires_grad_(False)
        for parameter in used if learns else ():
            parameter.requires_grad_(parameter is not words.weight)

    def states(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        """Hidden states [B, T, D] after every layer, of ids [B, T] under mask [B, T].

        Raises:
            InputError: a text is longer than the model's positions.
        """
        if ids.shape[1] > self._longest:
            raise InputError(f"expected at most {self._longest} tokens, got {ids.shape[1]}")
        pad_id = self.module.config.pad_token_id
        # Some families count positions from the ids that are not padding.
        ids = ids if pad_id is None else ids.masked_fill(~mask, pad_id)
        found = self.module(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True)
        return [*found.hidden_states[1:-1], found.last_hidden_state]

    def to_file(self) -> dict[str, Tensor]:
        """What the encoder's file holds, with the learned weights in their places.

        Claim: names, shapes and dtypes are those of the file. What is not learned stays as it was:
        word embeddings, poolers, and the heads of other tasks.
        """
        file = _read_weights(self._folder)
        learned = {
            key: parameter.detach().to(file[key].dtype, copy=True)
            for key, parameter in self._keys.items()
            if parameter.requires_grad
        }
        return {**file, **learned}

    @torch.no_grad()
    def from_file(self, file: dict[str, Tensor]) -> None:
        """Take the weights of such a file."""
        for key, parameter in self._keys.items():
            parameter.copy_(file[key])

    @torch.enable_grad()
    def _used(self) -> list[nn.Parameter]:
        """The parameters that have a part in the hidden states."""
        states = self.states(torch.zeros(1, 3).long(), torch.ones(1, 3).bool())
        self._layers = len(states)
        every = list(self.module.parameters())
        total = torch.stack([state.sum() for state in states]).sum()
        found = torch.autograd.grad(total, every, allow_unused=True)
        return [each for each, gradient in zip(every, found, strict=True) if gradient is not None]


def _read_weights(folder: Path) -> dict[str, Tensor]:
    try:
        return load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"cannot read the encoder's weights {folder / WEIGHTS}: {error}"
        ) from error


def _load(folder: Path) -> Any:
    """The model in a folder, plain, in float32."""
    try:
        from transformers import AutoModel
    except ImportError as error:
        raise InputError(f"the encoder in {folder} needs transformers: {INSTALL}") from error
    _check_computation(folder)
    with _quiet():
        try:
            return AutoModel.from_pretrained(
                str(folder),
                attn_implementation="eager",
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
            )
        except Exception as error:  # transformers raises nothing more specific
            reason = " ".join(str(error).split())
            raise InputError(
                f"transformers cannot load the encoder in {folder}: {reason}"
            ) from error


def _check_computation(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for key, expected in ONLY.items():
        if values.get(key, expected) != expected:
            raise InputError(
                f"{folder / 'config.json'}: expected {key} {expected}, got {values[key]!r}"
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the bar and the table that transformers prints; what they say is checked here."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _longest(model: Any) -> int:
    """The most tokens for which there are positions."""
    for name, part in model.named_modules():
        if isinstance(part, nn.Embedding) and name.endswith("position_embeddings"):
            first = 0 if part.padding_idx is None else part.padding_idx + 1
            return part.num_embeddings - first
    return int(model.config.max_position_embeddings)


def _keys_in_file(folder: Path, model: Any, used: list[nn.Parameter]) -> dict[str, nn.Parameter]:
    """The parameter that each weight of the encoder's file became.

    Raises:
        InputError: a parameter is not in the file, or has other numbers than it has there.
    """
    file, prefix = _read_weights(folder), f"{model.base_model_prefix}."
    wanted, keys = {id(each) for each in used}, {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) not in wanted:
            continue
        # The norms of old files have a gamma and a beta.
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        old = old.replace("LayerNorm.bias", "LayerNorm.beta")
        names = (name, prefix + name, old, prefix + old)
        key = next((each for each in names if each in file), None)
        # transformers draws what it misses at random.
        if key is None or not torch.equal(file[key].float(), parameter):
            raise InputError(
                f"{folder / WEIGHTS} does not hold the {model.config.model_type} encoder that "
                f"transformers loads: {name} {'is missing' if key is None else 'has other values'}"
            )
        keys[key] = parameter
    return keys
