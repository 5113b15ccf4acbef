"""The pairs (ε, δ) that one mechanism keeps, of which a claim states a single one."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from attnpriv.config import Accountant
from attnpriv.privacy.accounting import epsilon_spent
from attnpriv.privacy.ledger import NoisedSteps
from attnpriv.privacy.loss_distribution import deltas_from_losses
from attnpriv.verdicts import Profile

# Dense where the area under the curve is decided; what lies beyond is seen at tiny FPRs only.
EPSILONS = np.concatenate([[0.0], np.geomspace(0.02, 40.0, 60)])
DELTAS = (*np.geomspace(1e-9, 1e-2, 15)[:-1], *np.geomspace(1e-2, 0.99, 25))
SMALLEST_DELTA = 1e-10  # below it a pair says nothing at any FPR that could be measured


def profile_of_steps(steps: NoisedSteps, accountant: Accountant) -> Profile:
    """The pairs that a run of noised steps keeps, rising in ε.

    Claim: each pair is an upper bound, as ``accounting.epsilon_spent`` gives them, under the same
    conditions; so is every curve that they bound. The central limit of many steps, which is no
    upper bound, has no part in it.

    Args:
        steps: as the ledger or the card states them.
        accountant: ``prv`` composes the privacy loss, or where that cannot be done takes what
            ``epsilon_spent`` does; ``rdp`` takes Rényi's bounds.
    """
    return _profile(steps.noise_multiplier, steps.sample_rate, steps.steps, accountant)


def profile_of(epsilon_at: Callable[[float], float]) -> Profile:
    """The pairs of a mechanism whose ε is known at every δ, down to ε = 0."""
    pairs: list[tuple[float, float]] = []
    for delta in DELTAS:
        epsilon = epsilon_at(float(delta))
        pairs.append((epsilon, float(delta)))
        if epsilon == 0:
            break
    return tuple(reversed(pairs))


@lru_cache(maxsize=64)
def _profile(noise: float, rate: float, steps: int, accountant: Accountant) -> Profile:
    if accountant == "prv" and noise > 0 and steps > 0:
        deltas = deltas_from_losses(EPSILONS, noise, rate, steps)
        pairs = zip(EPSILONS.tolist(), deltas.tolist(), strict=True)
        known = tuple((e, d) for e, d in pairs if SMALLEST_DELTA < d < 1)
        if known:
            return known
    return profile_of(lambda delta: epsilon_spent(noise, delta, rate, steps, accountant))
