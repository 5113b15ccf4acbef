"""Attacks on the training data: what a run's answers say about who was in it."""

from attnpriv.audit.leakage.one_run import one_run_epsilon_ceiling, one_run_epsilon_lower_bound
from attnpriv.audit.leakage.trade_off import one_run_gaussian_epsilon_lower_bound

__all__ = [
    "one_run_epsilon_ceiling",
    "one_run_epsilon_lower_bound",
    "one_run_gaussian_epsilon_lower_bound",
]
