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

    The four runs of a seed have the same split, initial weights and schedule. They differ in
    ``attention``, which the cells without hardening have unclipped and at temperature 1, and in
    ``privacy``, which is none in the cells without it.

    Attributes:
        attention: of the hardened cells; clipped.
        privacy: of the private cells. A noise seed is added to the run's, so that the noise differs
            between seeds.
        config: how all of them are fitted; its seed is replaced by the run's.
        encoder: ``scratch``, ``minilm`` or a folder in Hugging Face layout.
        seeds: how many; they are 0, 1, 2, ...
        audit: how much is measured; its seed is replaced by the run's.

    Raises:
        InputError: fewer than 3 seeds, attention without a clip, or a noise multiplier: private
            runs would stop at another step than the others.
    """

    attention: AttentionConfig
    privacy: PrivacyConfig
    config: TrainConfig
    encoder: str = "scratch"
    seeds: int = FEWEST_SEEDS
    audit: AuditOptions = field(default_factory=AuditOptions)

    def __post_init__(self) -> None:
        if self.seeds < FEWEST_SEEDS:
            raise InputError(f"expected at least {FEWEST_SEEDS} seeds, got {self.seeds}")
        if self.attention.clip is None:
            raise InputError("expected clip as a number: without one nothing is hardened, got none")
        if self.privacy.noise_multiplier is not None:
            raise InputError(
                "expected no noise_multiplier, as a study takes the smallest with which all steps "
                f"stay within epsilon, got {self.privacy.noise_multiplier}"
            )

    def attention_of(self, cell: Cell) -> AttentionConfig:
        """The attention of a cell."""
        if cell.hardened:
            return self.attention
        return replace(self.attention, temperature=1.0, clip=None, temperature_floor=None)

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
        labels = len(data.label_names)
        build = partial(build_classifier, self.encoder, self.attention, "layers", False, labels)
        classifier = make_untrained(build, self.config_of(0))
        options = {name: asdict(getattr(self, name)) for name in ("attention", "privacy", "audit")}
        options["training"] = asdict(self.config)
        for name in ("training", "audit"):
            del options[name]["seed"]  # the run's
        return {
            "data": data.fingerprint(),
            "encoder": classifier.model.config.encoder,
            "seeds": self.seeds,
            **{f"{of} {name}": value for of in options for name, value in options[of].items()},
            "initial weights": weights_sha256(classifier.model),  # last: the others explain them
        }

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
