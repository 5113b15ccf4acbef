"""What a study trains: four cells, each with every seed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from attnpriv.audit.subject import AuditOptions
from attnpriv.config import AttentionConfig, PrivacyConfig, TrainConfig
from attnpriv.data import Dataset
from attnpriv.data.splits import split_rule
from attnpriv.errors import InputError
from attnpriv.models.classifier import AttentionClassifier
from attnpriv.models.pretrained import (
    MINILM,
    MINILM_BOUNDED,
    encoder_bound,
    own_attention,
)
from attnpriv.privacy.accounting import noise_multiplier_for
from attnpriv.training.loop import Schedule
from attnpriv.training.plan import check_delta, cut, make_schedule, make_untrained
from attnpriv.training.preparation import build_classifier, weights_sha256

FEWEST_SEEDS = 3


@dataclass(frozen=True)
class Cell:
    """One of the four: with hardened attention or not, trained privately or not."""

    name: str
    hardened: bool
    private: bool


CELLS = (
    Cell("plain", hardened=False, private=False),
    Cell("hardened", hardened=True, private=False),
    Cell("private", hardened=False, private=True),
    Cell("private-and-hardened", hardened=True, private=True),
)


@dataclass(frozen=True)
class Design:
    """What the cells have in common, and what they differ in.

    The four runs of a seed have the same split and schedule. They differ in ``attention``, which
    the cells without hardening have unclipped and at temperature 1, and in ``privacy``, which is
    none in the cells without it. They start from the same weights, unless the encoder is bounded:
    then those without hardening start from the encoder that it is a copy of.

    Attributes:
        attention: of the hardened cells; clipped. None takes that of a bounded encoder.
        privacy: of the private cells. A noise seed is added to the run's, so that the noise differs
            between seeds.
        config: how all of them are fitted; its seed is replaced by the run's.
        encoder: ``scratch``, ``minilm``, ``minilm-bounded`` or a folder in Hugging Face layout.
        plain_encoder: that of the cells without hardening. None takes the one of the others, or
            ``minilm`` beside ``minilm-bounded``.
        seeds: how many; they are 0, 1, 2, ...
        audit: how much is measured; its seed is replaced by the run's.

    Raises:
        InputError: fewer than 3 seeds, attention without a clip, a bounded encoder with no plain
            one beside it, or a noise multiplier: private runs would stop at another step than the
            others.
    """

    attention: AttentionConfig | None
    privacy: PrivacyConfig
    config: TrainConfig
    encoder: str = "scratch"
    plain_encoder: str | None = None
    seeds: int = FEWEST_SEEDS
    audit: AuditOptions = field(default_factory=AuditOptions)

    def __post_init__(self) -> None:
        if self.seeds < FEWEST_SEEDS:
            raise InputError(f"expected at least {FEWEST_SEEDS} seeds, got {self.seeds}")
        if self.hardened.clip is None:
            raise InputError("expected clip as a number: without one nothing is hardened, got none")
        if encoder_bound(self.encoder_of(CELLS[0])) is not None:
            raise InputError(
                f"expected a plain_encoder beside the bounded encoder {self.encoder}: the one of "
                "which it is a copy"
            )
        if self.privacy.noise_multiplier is not None:
            raise InputError(
                "expected no noise_multiplier, as a study takes the smallest with which all steps "
                f"stay within epsilon, got {self.privacy.noise_multiplier}"
            )

    @property
    def hardened(self) -> AttentionConfig:
        """The attention of the hardened cells."""
        return self.attention or own_attention(self.encoder)

    def attention_of(self, cell: Cell) -> AttentionConfig:
        """The attention of a cell."""
        if cell.hardened:
            return self.hardened
        return replace(self.hardened, temperature=1.0, clip=None, temperature_floor=None)

    def encoder_of(self, cell: Cell) -> str:
        """What a cell starts from."""
        if cell.hardened:
            return self.encoder
        default = MINILM if self.encoder == MINILM_BOUNDED else self.encoder
        return self.plain_encoder or default

    def privacy_of(self, cell: Cell, seed: int) -> PrivacyConfig | None:
        """The privacy of a cell's run; None without."""
        if not cell.private:
            return None
        noise_seed = self.privacy.noise_seed
        return replace(self.privacy, noise_seed=None if noise_seed is None else noise_seed + seed)

    def config_of(self, seed: int) -> TrainConfig:
        """How a seed's runs are fitted."""
        return replace(self.config, seed=seed)

    def identity(self, data: Dataset) -> dict[str, Any]:
        """What must be the same for a study to go on; ``initial weights`` are those of seed 0.

        Raises:
            InputError: the data, the encoder or the options cannot be used for some cell or seed.
        """
        for seed in range(self.seeds):
            self._schedule(data, seed)
        plain, hardened = (self._untrained(cell, data) for cell in CELLS[:2])
        options = {
            "attention": asdict(self.hardened),
            "privacy": asdict(self.privacy),
            "audit": asdict(self.audit),
            "training": asdict(self.config),
        }
        for name in ("training", "audit"):
            del options[name]["seed"]  # the run's
        return {
            "data": data.fingerprint(),
            "encoder": hardened.config.encoder,
            "plain encoder": plain.config.encoder,
            "seeds": self.seeds,
            **{f"{of} {name}": value for of in options for name, value in options[of].items()},
            "initial weights": weights_sha256(hardened),  # last: the others explain them
            "initial weights of the plain runs": weights_sha256(plain),
        }

    def _untrained(self, cell: Cell, data: Dataset) -> AttentionClassifier:
        """The model of a cell before its training, of seed 0."""
        start, attention = self.encoder_of(cell), self.attention_of(cell)
        labels, pixels = len(data.label_names), data.pixels
        build = partial(build_classifier, start, attention, None, False, labels, pixels)
        return make_untrained(build, self.config_of(0)).model

    def check_epsilon(self, data: Dataset) -> None:
        """Raise InputError where no noise is enough; the trainings need the figure anyway."""
        schedules, privacy = [self._schedule(data, s) for s in range(self.seeds)], self.privacy
        schedule = max(schedules, key=lambda schedule: schedule.sample_rate)
        target = (privacy.epsilon, privacy.delta, schedule.sample_rate, schedule.steps)
        noise_multiplier_for(*target, privacy.accountant)

    def _schedule(self, data: Dataset, seed: int) -> Schedule:
        """The schedule of a seed's runs, on whose split the number of their rows depends."""
        rows = cut(data, split_rule(self.config.train_size, seed)).rows
        check_delta(self.privacy.delta, len(rows))
        return make_schedule(self.config, len(rows))
