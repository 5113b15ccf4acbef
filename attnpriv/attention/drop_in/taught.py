"""The attention that a model of ``transformers`` was taught under, by its own configuration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attnpriv.attention.bound import ENTRY, Bound
from attnpriv.config import AttentionConfig
from attnpriv.errors import InputError


def choose_attention(owners: Iterable[Any], config: AttentionConfig | None) -> AttentionConfig:
    """The attention to harden with: what is asked for, or else what the weights were taught under.

    Args:
        owners: models of ``transformers``; what ``attnpriv encoder bound`` wrote into the
            ``config.json`` of their folders is in their configurations.
        config: what is asked for; None leaves it to the models.

    Raises:
        InputError: nothing is asked for and no model says it, or the models contradict each other
            or what is asked for; or an entry cannot be read.
    """
    bounds = (Bound.from_config(_entry(owner)) for owner in owners)
    found = list(dict.fromkeys(bound.attention for bound in bounds if bound is not None))
    if len(found) > 1:
        raise InputError(
            "expected models that were taught under one attention, got "
            + " and ".join(map(_described, found))
        )
    if config is None and not found:
        raise InputError(
            "expected a config, such as AttentionConfig(clip=2.0): the model was not loaded from a "
            "folder that attnpriv encoder bound wrote, so nothing says how to harden it"
        )
    if config is not None and found and config != found[0]:
        raise InputError(
            f"expected the attention that the model was taught under, {_described(found[0])}, got "
            f"{_described(config)}: leave config out, or take an encoder without a bound"
        )
    return found[0] if config is None else config


def _entry(owner: Any) -> dict[str, Any]:
    return {ENTRY: getattr(owner.config, ENTRY)} if hasattr(owner.config, ENTRY) else {}


def _described(attention: AttentionConfig) -> str:
    clip = "no clip" if attention.clip is None else f"clip {attention.clip:g}"
    floor = attention.temperature_floor
    learned = "" if floor is None else f" learned from the floor {floor:g}"
    return f"{clip} by {attention.clip_mode} and temperature {attention.temperature:g}{learned}"
