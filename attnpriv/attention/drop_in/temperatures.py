"""Learned temperatures of a model that was saved with ``save_pretrained``.

They are saved with its weights, but ``from_pretrained`` drops all weights that its classes do not
know. So a mark in the configuration says that they exist, and hardening the model reads them again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from attnpriv.attention.modules import HardenedAttention
from attnpriv.config import AttentionConfig
from attnpriv.errors import InputError

MARK = "attnpriv_temperature_floor"  # the floor that they were learned under
KEY = "core.raw_temperature.weight"  # of the weights of an attention module
_START_ANEW = f"to start with new ones, delete {MARK} from the model's config"


def restore_temperatures(
    owners: Iterable[Any], cores: dict[nn.Module, HardenedAttention], config: AttentionConfig
) -> None:
    """Give new cores the temperatures that were saved with their models.

    Args:
        owners: models of ``transformers``, the outer before the inner.
        cores: the new cores, by attention module.
        config: the configuration that the cores were made with.

    Raises:
        InputError: a model was saved with temperatures, but ``config`` has another floor or they
            are not found.
    """
    left = dict(cores)
    for owner in owners:
        floor = getattr(owner.config, MARK, None)
        names = {name: part for name, part in owner.named_modules() if part in left}
        if floor is None or not names:
            continue
        if config.temperature_floor != floor:
            raise InputError(
                f"expected temperature_floor {floor}, with which this model learned its "
                f"temperatures, got {config.temperature_floor}; {_START_ANEW}"
            )
        saved = _saved_temperatures(owner.name_or_path)
        for name, part in names.items():
            raw = left.pop(part).raw_temperature
            assert raw is not None
            raw.weight.data.copy_(_of_module(name, saved, raw.weight, owner.name_or_path))


def _of_module(name: str, saved: dict[str, Tensor], like: Tensor, folder: str) -> Tensor:
    """The temperatures of one module; its name may have a prefix on either side.

    A model may be saved with its head and loaded without, or the other way round.
    """
    full = f".{name}.{KEY}"
    found = [x for key, x in saved.items() if f".{key}".endswith(full) or full.endswith(f".{key}")]
    if len(found) != 1 or found[0].shape != like.shape:
        raise InputError(
            f"expected one set of learned temperatures for {name} in the weights in {folder!r}, "
            f"got {len(found)}: load the model from the folder that save_pretrained wrote; "
            f"{_START_ANEW}"
        )
    return found[0]


def _saved_temperatures(folder: str) -> dict[str, Tensor]:
    """The saved temperatures by their names in the files; empty if there are no files."""
    from safetensors import safe_open

    saved: dict[str, Tensor] = {}
    for path in _weights(folder):
        with safe_open(path, "pt") as file:
            names = [name for name in file.keys() if name.endswith(KEY)]  # noqa: SIM118  # no dict
            saved |= {name: file.get_tensor(name) for name in names}
    return saved


def _weights(folder: str) -> list[str]:
    """The files of a folder, or of a model in the cache of Hugging Face's hub."""
    whole, index = _file(folder, "model.safetensors"), _file(folder, "model.safetensors.index.json")
    if whole is not None or index is None:
        return [] if whole is None else [whole]
    names = set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values())
    return [path for name in sorted(names) if (path := _file(folder, name)) is not None]


def _file(folder: str, name: str) -> str | None:
    from transformers.utils import cached_file

    try:
        path: str | None = cached_file(folder, name, local_files_only=True)
    except (OSError, ValueError):  # there is none
        return None
    return path
