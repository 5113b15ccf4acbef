"""The points of the frontier: how attention is hardened, and what that proves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from attnpriv.config import AttentionConfig, ClipMode
from attnpriv.errors import InputError
from attnpriv.guarantees import lift_bound

KEYS, SENSITIVE_KEYS = 32, 4  # the n and k of the lift bound that is reported
GOAL_LIFT = 4.0

# c and τ, the goal's first: a run that is cut short has measured what matters most.
GRID = ((0.97, 1.0), (1.94, 2.0), (3.88, 4.0), (1.0, 2.0), (4.0, 2.0))


@dataclass(frozen=True)
class Point:
    """One way to harden attention, written ``mode:c:τ``, or ``plain``."""

    attention: AttentionConfig

    @classmethod
    def parse(cls, text: str) -> Point:
        """Read ``plain`` or ``mode:c:τ``.

        Raises:
            InputError: another form, or numbers that the configuration refuses.
        """
        if text == "plain":
            return cls(AttentionConfig())
        try:
            mode, clip, temperature = text.split(":")
            values = float(clip), float(temperature)
        except ValueError:
            raise InputError(f"expected a point plain or MODE:CLIP:TAU, got {text!r}") from None
        for known in get_args(ClipMode):
            if mode == known:
                return cls(AttentionConfig(temperature=values[1], clip=values[0], clip_mode=known))
        raise InputError(f"expected a point of mode {', '.join(get_args(ClipMode))}, got {text!r}")

    @property
    def name(self) -> str:
        """The form that ``parse`` reads."""
        if self.attention.clip is None:
            return "plain"
        return f"{self.attention.clip_mode}:{self.attention.clip:g}:{self.attention.temperature:g}"

    @property
    def lift_bound(self) -> float:
        """The provable lift of 4 keys among 32; the vacuous n/k = 8 where nothing is clipped."""
        return lift_bound(
            self.attention.logit_bound, self.attention.temperature, KEYS, SENSITIVE_KEYS
        )

    @property
    def meets_goal(self) -> bool:
        """Whether the provable lift is at most the goal's, and not trivially close to none."""
        return GOAL_LIFT - 0.1 < self.lift_bound <= GOAL_LIFT


def all_points() -> tuple[Point, ...]:
    """Plain attention, then every mode at each point of the grid."""
    hardened = (f"{mode}:{c}:{tau}" for c, tau in GRID for mode in get_args(ClipMode))
    return tuple(Point.parse(name) for name in ("plain", *hardened))
