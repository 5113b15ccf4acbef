"""The privacy ledger: what looked at the private data, and what ε that cost.

One JSON object a line, in the order in which things happened. An entry either carries the numbers
from which its ε follows, or says that no ε covers it. Lines are only ever appended, and each is on
disk before the call returns, so that a crash can lose work but never an expense.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attnpriv.config import Accountant
from attnpriv.privacy.accounting import epsilon_spent


@dataclass(frozen=True)
class NoisedSteps:
    """A run of Poisson-subsampled Gaussian steps with one setting.

    The record from which ε is computed, apart from the accountant that computes it.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int
    max_grad_norm: float

    def epsilon(self, delta: float, accountant: Accountant) -> float:
        """The ε these steps have spent at ``delta``; see ``accounting.epsilon_spent``."""
        return epsilon_spent(self.noise_multiplier, delta, self.sample_rate, self.steps, accountant)


class Ledger:
    """An append-only file of ledger entries.

    Args:
        path: the file; it is created with the first entry.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def record_steps(self, spent: NoisedSteps, delta: float, epsilon: float) -> None:
        """Append noised steps with the ε that they cost."""
        self._append(
            {
                "entry": "noised_steps",
                "mechanism": "Poisson-subsampled Gaussian",
                **asdict(spent),
                "delta": delta,
                "epsilon": epsilon,
            }
        )

    def record_not_covered(self, what: str) -> None:
        """Append something that looked at the private data and that no ε covers."""
        self._append({"entry": "not_covered", "what": what})

    def _append(self, entry: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
