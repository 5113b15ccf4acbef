"""All that is decided before the first step of a training, for ``train`` and ``tune`` alike."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attnpriv.config import PrivacyConfig, TrainConfig, parse_augmentation
from attnpriv.data.records import Dataset
from attnpriv.data.splits import split_both
from attnpriv.errors import InputError
from attnpriv.modality import Sample
from attnpriv.privacy.accounting import noise_multiplier_for, steps_within
from attnpriv.privacy.ledger import NoisedSteps
from attnpriv.randomness import StepKeys
from attnpriv.runs.card import ModelCard
from attnpriv.runs.card_builder import build_card
from attnpriv.runs.folder import Run
from attnpriv.training.augmentation import check_augmentation
from attnpriv.training.canaries import CanaryPlan, PlantedCanaries
from attnpriv.training.loop import Schedule, Training
from attnpriv.training.preparation import (
    Classifier,
    make_optimizer,
    make_records,
    seeded,
    weights_sha256,
)
from attnpriv.training.processes import Processes
from attnpriv.training.sharding import empty, refill, shard, twin_of
from attnpriv.training.teacher import description


@dataclass(frozen=True)
class Parts:
    """A data set, cut into the rows to train on and the rows that are held out.

    Attributes:
        dataset: all rows.
        rule: how they were cut, as in ``attnpriv.data.splits``.
        rows: those to train on.
        held_out: the others.
    """

    dataset: Dataset
    rule: dict[str, Any]
    rows: Dataset
    held_out: Dataset


@dataclass(frozen=True)
class Plan:
    """One training before its first step.

    Attributes:
        parts: the data.
        config: how to fit; steps, batch size and training share are filled in.
        privacy: None without.
        schedule: how many steps on how many rows.
        noise_multiplier: σ; 0 without privacy.
        classifier: the untrained model, with what is to be trained of it chosen.
        teacher: the run that it learns from besides the labels, if any.
        canaries: made-up records that it is trained on besides, if any.
    """

    parts: Parts
    config: TrainConfig
    privacy: PrivacyConfig | None
    schedule: Schedule
    noise_multiplier: float
    classifier: Classifier
    teacher: Run | None = None
    canaries: CanaryPlan | None = None

    def spent(self, steps: int) -> NoisedSteps | None:
        """What that many steps spend; None without privacy."""
        if self.privacy is None:
            return None
        return NoisedSteps(
            self.noise_multiplier, self.schedule.sample_rate, steps, self.privacy.max_grad_norm
        )

    def epsilon(self, steps: int) -> float | None:
        """The ε of that many steps; None without privacy."""
        spent = self.spent(steps)
        if spent is None or self.privacy is None:
            return None
        return spent.epsilon(self.privacy.delta, self.privacy.accountant)

    def identity(self) -> dict[str, Any]:
        """What must be the same for an unfinished training to go on, as JSON values by name."""
        model, privacy = self.classifier.model, self.privacy
        return {
            "data": self.parts.dataset.fingerprint(),
            "split by": self.parts.rule.get("rule"),
            **{f"model {name}": value for name, value in model.config.to_dict().items()},
            **{f"training {name}": value for name, value in asdict(self.config).items()},
            **{
                f"privacy {name}": value
                for name, value in (asdict(privacy) if privacy else {}).items()
            },
            "noise_multiplier": self.noise_multiplier,
            "teacher": description(self.teacher),
            "canaries": None if self.canaries is None else self.canaries.counts,
            "initial weights": weights_sha256(model),  # last: what else differs explains them
        }

    def with_own_model(self) -> Plan:
        """The same with a copy of the untrained model, what is to be trained of it chosen."""
        model = copy.deepcopy(self.classifier.model)
        with seeded(self.config.seed):
            model.select_trainable(self.config.trainable)
        return replace(self, classifier=replace(self.classifier, model=model))

    def begin(
        self,
        samples: Sequence[Sample],
        keys: StepKeys,
        processes: Processes,
        features: Tensor | None = None,
        canary_key: bytes | None = None,
    ) -> Training:
        """The training before its first step.

        Args:
            samples: what the classifier reads of the training rows.
            keys: the secret behind coins and noise.
            processes: those that train together; where they share the model, this plan's is empty
                until the training has finished.
            features: as in ``make_records``, of the samples.
            canary_key: the secret behind the canaries, where they were drawn before.
        """
        labels = torch.from_numpy(self.parts.rows.targets)
        if self.canaries is not None:
            made_up = [*self.classifier.modality.read(self.canaries.texts)]
            if features is not None:
                features = torch.cat([features, self.classifier.features(made_up)])
            samples = [*samples, *made_up]
            labels = torch.cat([labels, torch.tensor(self.canaries.labels, dtype=labels.dtype)])
        teacher = None if self.teacher is None else self.teacher.model
        classifier, on_finish = self.classifier, None
        if processes.sharded:
            classifier = replace(classifier, model=twin_of(classifier.model))
            on_finish = partial(refill, self.classifier.model, classifier.model)
        records = make_records(classifier, samples, labels, self.config, features, teacher)
        size = sum(p.numel() for p in records.module.parameters() if p.requires_grad)
        if processes.sharded:
            shard(records.module, classifier.model.blocks)
            empty(self.classifier.model)
        return Training(
            records,
            make_optimizer(classifier.model, self.config),
            self.schedule,
            self.config,
            privacy=self.privacy,
            noise_multiplier=self.noise_multiplier,
            keys=keys,
            processes=processes,
            canaries=self._plant(size, canary_key or keys.derive("canaries")),
            on_finish=on_finish,
        )

    def _plant(self, size: int, key: bytes) -> PlantedCanaries | None:
        if self.canaries is None:
            return None
        return PlantedCanaries(
            self.canaries,
            key,
            self.schedule.rows,
            self.schedule.sample_rate,
            self.privacy,
            self.noise_multiplier,
            size,
        )

    def card(
        self,
        name: str,
        correct: int,
        spent: NoisedSteps | None,
        not_covered: Sequence[str],
        **search: Any,
    ) -> ModelCard:
        """The model card of what was trained.

        Args:
            name: of the run folder.
            correct: how many held-out rows the trained model predicts correctly.
            spent: on the training; None without privacy.
            not_covered: what looks at the data besides it and is covered by no ε.
            **search: what ``build_card`` wants to know of a search.
        """
        model, dataset, rows = self.classifier.model, self.parts.dataset, len(self.parts.held_out)
        return build_card(
            name=name,
            model=model.config,
            temperatures=model.temperatures(),
            label_names=dataset.label_names,
            config=self.config,
            privacy=self.privacy,
            spent=spent,
            data={
                "name": dataset.name,
                "rows_train": len(self.parts.rows),
                "fingerprint": dataset.fingerprint(),
                "split": self.parts.rule,
            },
            held_out={"rows": rows, "accuracy": correct / rows},
            not_covered=(*not_covered, *dataset.data_dependent),
            teacher=description(self.teacher),
            bound=self.classifier.bound,
            canaries=None if self.canaries is None else self.canaries.counts,
            **search,
        )


def cut(dataset: Dataset, rule: dict[str, Any]) -> Parts:
    """Cut a data set by a rule.

    Raises:
        InputError: a part has no row, or the rows to train on have only one class.
    """
    rows, held_out = map(dataset.subset, split_both(dataset.keys, rule))
    if len(set(rows.labels)) < 2:
        raise InputError("expected at least two classes among the training rows, got one")
    return Parts(dataset, rule, rows, held_out)


def plan_training(
    parts: Parts,
    build: Callable[[], Classifier],
    config: TrainConfig,
    privacy: PrivacyConfig | None,
    teacher: Run | None = None,
) -> Plan:
    """Plan one training: fill in steps, batch size and noise, and make the untrained model.

    Raises:
        InputError: the rows, the target or the options do not go together, or no noise or no step
            meets the target.
    """
    schedule = make_schedule(config, len(parts.rows))
    noise_multiplier = 0.0
    if privacy is not None:
        check_delta(privacy.delta, len(parts.rows))
        schedule, noise_multiplier = _within_target(schedule, privacy)
    classifier = make_untrained(build, config)
    if config.augmentation is not None:
        check_augmentation(classifier.modality, parse_augmentation(config.augmentation))
    return Plan(
        parts=parts,
        config=replace(config, steps=schedule.steps, batch_size=schedule.batch_size),
        privacy=privacy,
        schedule=schedule,
        noise_multiplier=noise_multiplier,
        classifier=classifier,
        teacher=teacher,
    )


def make_untrained(build: Callable[[], Classifier], config: TrainConfig) -> Classifier:
    """The untrained model of a seed, with what is to be trained of it chosen."""
    with seeded(config.seed):
        classifier = build()
        classifier.model.select_trainable(config.trainable)
    return classifier


def make_schedule(config: TrainConfig, size: int) -> Schedule:
    """The configuration's steps and batch size, filled in where it leaves them open.

    Raises:
        InputError: a batch would have more rows than there are.
    """
    head_only = config.trainable == "head"
    largest = min(4096, size // 2) if head_only else min(1024, size // 4)
    batch_size = config.batch_size or max(1, largest)
    if batch_size > size:
        raise InputError(f"expected batch_size at most the {size} training rows, got {batch_size}")
    return Schedule(size, batch_size, config.steps or (200 if head_only else 100))


def check_delta(delta: float, size: int, rows: str = "training rows") -> None:
    """Raise InputError unless δ is below 1/N.

    A mechanism that publishes one record drawn at random meets every δ from 1/N on.
    """
    if delta >= 1 / size:
        raise InputError(
            f"expected delta below 1/N = {1 / size:.3g} for {size} {rows}, got {delta:g}"
        )


def _within_target(schedule: Schedule, privacy: PrivacyConfig) -> tuple[Schedule, float]:
    """As many of the steps as ε allows, and their noise multiplier."""
    target = (privacy.delta, schedule.sample_rate, schedule.steps, privacy.accountant)
    noise_multiplier = privacy.noise_multiplier
    if noise_multiplier is None:
        return schedule, noise_multiplier_for(privacy.epsilon, *target)
    steps = steps_within(privacy.epsilon, noise_multiplier, *target)
    return replace(schedule, steps=steps), noise_multiplier
