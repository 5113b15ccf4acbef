"""Differential privacy: accounting, Poisson sampling, clipped and noised steps, the ledger."""

from attnpriv.privacy.accounting import epsilon_spent, noise_multiplier_for

__all__ = ["epsilon_spent", "noise_multiplier_for"]
