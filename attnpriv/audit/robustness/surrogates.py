"""The same model without its clip, whose gradients show a way where clipped logits are flat.

Past the clip, ``clamp`` and ``relative`` have no gradient and that of ``tanh`` vanishes: an attack
that follows them may stop early and make the model look robust (Athalye et al. 2018,
arXiv:1802.00420). Gradients of the unclipped model go on. What they find is judged by the clipped
model, so no accuracy is worse than what was measured on the model itself.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TypeVar

from torch import nn

from attnpriv.attention import HardenedAttention
from attnpriv.attention.gates import Gate
from attnpriv.modality import AttentionModel

Model = TypeVar("Model", bound=AttentionModel)


def unclipped(model: Model) -> Model | None:
    """A copy without clips that shares all weights; None where nothing is clipped."""
    if not isinstance(model, nn.Module) or not any(
        core.config.clip is not None for core in _cores(model)
    ):
        return None
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    copied = copy.deepcopy(model, shared)
    for core in _cores(copied):
        core.config = replace(core.config, clip=None)
    return copied


def _cores(model: nn.Module) -> list[HardenedAttention | Gate]:
    return [each for each in model.modules() if isinstance(each, HardenedAttention | Gate)]
