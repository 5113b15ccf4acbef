"""Gates that weigh channels or positions of feature maps, bounded by the clip of their logits.

A gate is ``σ(z/τ)`` with z clipped to [-c, c]. It multiplies what it weighs, and every gate is a
number of its own: nothing is normalised over positions, as softmax does.

Claim: each gate is in [σ(-c/τ), σ(c/τ)], two of them differ by a factor of at most ``e^(c/τ)``, and
of all gates over n positions, any k get at most ``gate_lift_bound`` times their share. Condition: a
clip; without one gates are in [0, 1]. Not covered: what gates multiply, which is not bounded;
positions of a deep layer, which see their neighbours; gates upon gates, whose factors multiply.

Shapes: N images, C channels, H × W positions.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from attnpriv.config import AttentionConfig

GateKind = Literal["channel", "spatial"]
REDUCTION = 4  # of the channels inside a channel gate
SPATIAL_KERNEL = 3  # 7 in CBAM, on images of more than a few positions


class Gate(nn.Module):
    """What gates are made of their logits.

    Args:
        config: its clip, its clip mode, ``clamp`` or ``tanh``, and its temperature.
        kind: what is weighed.
    """

    def __init__(self, config: AttentionConfig, kind: GateKind) -> None:
        super().__init__()
        self.config = config
        self.kind = kind

    def gates(self, logits: Tensor) -> Tensor:
        """σ of the clipped logits by the temperature."""
        clip = self.config.clip
        if clip is not None:
            hard = self.config.clip_mode == "clamp"
            logits = logits.clamp(-clip, clip) if hard else torch.tanh(logits / clip) * clip
        return torch.sigmoid(logits / self.config.temperature)


class ChannelGate(Gate):
    """One gate for each channel, from what the channels hold over all positions.

    Source: squeeze-and-excitation (Hu et al. 2018, arXiv:1709.01507, section 3) from the means;
    with ``largest``, the sum of what the same layers make of means and of maxima (CBAM, Woo et al.
    2018, arXiv:1807.06521, section 3.1).
    """

    def __init__(self, config: AttentionConfig, channels: int, largest: bool) -> None:
        super().__init__(config, "channel")
        self.largest = largest
        inner = max(1, channels // REDUCTION)
        self.excite = nn.Sequential(
            nn.Linear(channels, inner), nn.ReLU(), nn.Linear(inner, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The gates [N, C, 1, 1] of feature maps [N, C, H, W]."""
        logits: Tensor = self.excite(x.mean((2, 3)))
        if self.largest:
            logits = logits + self.excite(x.amax((2, 3)))
        return self.gates(logits)[..., None, None]


class SpatialGate(Gate):
    """One gate for each position, from mean and maximum of the channels there and next to it.

    Source: CBAM, section 3.1.
    """

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__(config, "spatial")
        self.look = nn.Conv2d(2, 1, SPATIAL_KERNEL, padding="same")

    def forward(self, x: Tensor) -> Tensor:
        """The gates [N, 1, H, W] of feature maps [N, C, H, W]."""
        seen = torch.stack((x.mean(1), x.amax(1)), dim=1)
        return self.gates(self.look(seen))
