"""Canaries of a training: made-up records, each of which enters by a fair coin.

What an attack finds out about the coins of one run gives a lower bound on the run's ε (Steinke,
Nasr and Jagielski 2023, arXiv:2305.08846). There are two kinds. Gradients along single axes are
for an attacker who sees every noised sum; they cost next to nothing, and need an ε, which gives
them their length. Texts are for an attacker who asks the finished model; they are training
records like any others, and so are fewer.

Claim: each coin is fair and independent of all else. A record of the data keeps its ε, whatever the
canaries are. Condition: the key is secret. Not covered: what texts cost in accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attnpriv.config import PrivacyConfig, require_count
from attnpriv.data.made_up import made_up_texts
from attnpriv.data.records import Dataset
from attnpriv.errors import InputError
from attnpriv.privacy.canaries import AxisCanaries
from attnpriv.randomness import Stream
from attnpriv.runs.canaries import Canaries, GradientCanaries, TextCanaries

LEAST = 20  # of a kind: fewer prove nothing, whatever is found
ROWS_PER_TEXT = 10  # at most one text for so many training rows, half of which enter
FAIR = 0.5


@dataclass(frozen=True)
class CanaryPlan:
    """Which canaries a training has, whether they enter or not.

    Attributes:
        gradients: how many are gradients.
        texts: the made-up texts.
        labels: their classes.
    """

    gradients: int
    texts: tuple[str, ...]
    labels: tuple[int, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many there are of each kind."""
        return {"gradients": self.gradients, "texts": len(self.texts)}


def plan_canaries(
    count: int, rows: Dataset, private: bool, trainable_numbers: int, seed: int
) -> CanaryPlan:
    """As many gradients, and as many texts but no more than a tenth of the training rows.

    Where that would be fewer texts than prove anything, there are none.

    Args:
        count: M.
        rows: those to train on.
        private: whether there is an ε; without one there are texts only.
        trainable_numbers: how many axes there are for gradients.
        seed: of the texts.

    Raises:
        InputError: the count is out of range, or there is nothing to make canaries of.
    """
    require_count("canaries", count)
    if count < LEAST:
        raise InputError(
            f"expected at least {LEAST} canaries, since fewer prove nothing, got {count}"
        )
    gradients = count if private else 0
    if gradients > trainable_numbers:
        raise InputError(
            f"expected at most {trainable_numbers} canaries, one for each trainable number, "
            f"got {count}"
        )
    most = len(rows) // ROWS_PER_TEXT if rows.kind == "text" else 0
    if not gradients and most < LEAST:
        raise InputError(
            f"canaries without an ε are texts, one for every {ROWS_PER_TEXT} training rows: "
            f"expected at least {LEAST * ROWS_PER_TEXT} rows of text, or --epsilon"
        )
    texts = min(count, most) if most >= LEAST else 0
    return CanaryPlan(gradients, *made_up_texts(texts, len(rows.label_names), seed))


class PlantedCanaries:
    """The canaries of a training that is under way.

    In the draw of a batch they come after the rows of the data: first texts, then gradients, all
    of them, so that who enters changes no other draw.

    Args:
        plan: which ones there are.
        key: 32 secret bytes, from which coins, axes and signs are drawn.
        rows: of the data, to train on.
        sample_rate: q, which is that of the canaries too.
        privacy: clipping; None without.
        noise_multiplier: σ.
        size: how many numbers are trained.

    Attributes:
        count: of both kinds.
        gradients: what adds and scores the gradients; None where there are none.
    """

    def __init__(
        self,
        plan: CanaryPlan,
        key: bytes,
        rows: int,
        sample_rate: float,
        privacy: PrivacyConfig | None,
        noise_multiplier: float,
        size: int,
    ) -> None:
        self.count = len(plan.texts) + plan.gradients
        self.gradients: AxisCanaries | None = None
        self._plan, self._key, self._rows = plan, key, rows
        stream = Stream(key)
        self._coins = stream.uniform(self.count) < FAIR
        if privacy is not None:
            signs = torch.where(stream.uniform(plan.gradients) < FAIR, -1.0, 1.0)
            self.gradients = AxisCanaries(
                stream.uniform(size).argsort()[: plan.gradients],
                signs,
                sample_rate=sample_rate,
                noise_multiplier=noise_multiplier,
                max_grad_norm=privacy.max_grad_norm,
                clipping=privacy.clipping,
            )

    def enter(self, batch: Tensor) -> Tensor:
        """Of a draw from rows and canaries, the rows and the texts whose coin lets them in."""
        numbers = batch - self._rows
        batch = batch[(numbers < 0) | self._coins[numbers.clamp(min=0)]]
        end = self._rows + len(self._plan.texts)
        if self.gradients is not None:
            self.gradients.drawn = batch[batch >= end] - end
        return batch[batch < end]

    @property
    def scores(self) -> Tensor:
        """Those of the gradients so far; empty where there are none."""
        return torch.empty(0) if self.gradients is None else self.gradients.scores

    def state(self) -> dict[str, Tensor]:
        """What goes on with the training."""
        return {"key": torch.tensor(list(self._key), dtype=torch.uint8), "scores": self.scores}

    def seen(self, weights: str) -> Canaries:
        """What is known after the last step.

        Args:
            weights: the SHA-256 of the trained weights.
        """
        coins, texts = tuple(self._coins.tolist()), len(self._plan.texts)
        return Canaries(
            weights,
            GradientCanaries(coins[texts:], tuple(self.scores.tolist())),
            TextCanaries(coins[:texts], self._plan.texts, self._plan.labels),
        )
