from __future__ import annotations

import json
from pathlib import Path

from attnpriv.privacy import epsilon_spent
from attnpriv.privacy.ledger import Ledger, NoisedSteps


def test_entries_are_appended_in_order_and_carry_their_epsilon(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    spent = NoisedSteps(noise_multiplier=2.0, sample_rate=0.1, steps=7, max_grad_norm=0.5)
    Ledger(path).record_not_covered("the class names")
    Ledger(path).record_steps(spent, 1e-5, spent.epsilon(1e-5, "prv"))
    first, second = map(json.loads, path.read_text().splitlines())
    assert first == {"entry": "not_covered", "what": "the class names"}
    assert second["epsilon"] == epsilon_spent(2.0, 1e-5, 0.1, 7)
    assert (second["steps"], second["sample_rate"], second["delta"]) == (7, 0.1, 1e-5)
