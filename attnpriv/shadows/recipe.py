"""How a run was trained, read off its card and its folder, so that others are trained like it."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from attnpriv.config import UNTRAINED, ModelConfig, PrivacyConfig, TrainConfig
from attnpriv.data.records import Dataset
from attnpriv.data.splits import split_rule
from attnpriv.errors import InputError
from attnpriv.models.pretrained import source_of_words
from attnpriv.runs.card import CardPrivacy, CardTraining
from attnpriv.runs.folder import TOKENIZER, WEIGHTS, Run
from attnpriv.training.plan import Parts, Plan, cut, plan_training
from attnpriv.training.preparation import Classifier, build_classifier

SHARE = 0.5  # of the records, that a shadow model is trained on
OWN_ENCODERS = (*UNTRAINED, "minilm", "minilm-bounded")


@dataclass(frozen=True)
class Recipe:
    """What the shadow models of a run have in common.

    Attributes:
        run: the run.
        config: how it was fitted; seed, split and batch size are those of each shadow.
        privacy: its mechanism, with the same noise multiplier; None without.
        sample_rate: q, a record's chance to join a batch.
        build: makes the untrained model.
    """

    run: Run
    config: TrainConfig
    privacy: PrivacyConfig | None
    sample_rate: float
    build: Callable[[], Classifier]

    @property
    def encoder_is_frozen(self) -> bool:
        """Whether all models share an encoder, so that its features need computing only once."""
        return self.config.trainable == "head"

    def cut(self, data: Dataset, seed: int, number: int) -> Parts:
        """The records of a shadow model, and those that it never sees.

        Each distinct text has a fair coin of its own for each model, so that copies of a record are
        on one side.
        """
        return cut(data, split_rule(SHARE, self.seed_of(seed, number)))

    def seed_of(self, seed: int, number: int) -> int:
        """The seed of a shadow model's split and weights, unlike that of any run near it.

        It depends on the run that is imitated: the shadows of a shadow have other splits than it.
        """
        words = f"attnpriv shadows {self.run.hashes[WEIGHTS]} {seed} {number}"
        return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=7).digest())

    def plan(self, parts: Parts) -> Plan:
        """The training of a shadow model.

        The batch is the largest with at most the run's sampling rate: with its noise and its steps
        too, the shadow spends at most the run's ε.
        """
        batch_size = max(1, int(self.sample_rate * len(parts.rows)))
        config = replace(
            self.config, batch_size=batch_size, train_size=SHARE, seed=parts.rule["seed"]
        )
        return plan_training(parts, self.build, config, self.privacy)


def recipe_of(run: Run, encoder: str | None = None) -> Recipe:
    """How to train like a run.

    Args:
        run: of ``attnpriv train`` or ``attnpriv tune``; of a search, the best run is imitated.
        encoder: the folder of its pretrained encoder. Needed only where the encoder was trained and
            came from a folder, since the run holds it as it was afterwards.

    Raises:
        InputError: the run was distilled from a teacher, its card does not say how it was trained,
            or ``encoder`` is not the one that it began with.
    """
    card = run.card
    if card.teacher is not None:
        raise InputError(
            f"{run.name} was distilled from {card.teacher.name}, a model that saw the same "
            "records: shadow models of such runs are not supported"
        )
    if card.training is None:
        raise InputError(
            f"the card of {run.name} does not say how it was trained: it is of an earlier version"
        )
    sample_rate = card.training.expected_batch_size / card.data.rows_train
    return Recipe(
        run,
        _config(card.training, card.trainable),
        None if card.privacy is None else _privacy(card.privacy),
        sample_rate if card.privacy is None else card.privacy.sample_rate,
        _build(run, encoder),
    )


def _config(training: CardTraining, trainable: str) -> TrainConfig:
    default = TrainConfig.learning_rate
    return TrainConfig(
        trainable=trainable,
        steps=training.steps,
        learning_rate=default if training.learning_rate is None else training.learning_rate,
        head_learning_rate=training.head_learning_rate,
        ema_decay=training.ema_decay,
        warmup=training.warmup,
        decay=training.decay,  # type: ignore[arg-type]  # TrainConfig checks the name
        precision=training.precision,  # type: ignore[arg-type]
        augmentation=training.augmentation,
        augmentation_multiplicity=(
            None if training.augmentation is None else training.augmentation_multiplicity
        ),
    )


def _privacy(mechanism: CardPrivacy) -> PrivacyConfig:
    return PrivacyConfig(
        epsilon=mechanism.target_epsilon,
        delta=mechanism.delta,
        max_grad_norm=mechanism.max_grad_norm,
        accountant=mechanism.accountant,  # type: ignore[arg-type]  # PrivacyConfig checks these
        noise_multiplier=mechanism.noise_multiplier,
        clipping=mechanism.clipping,  # type: ignore[arg-type]
        clipping_engine=mechanism.clipping_engine,  # type: ignore[arg-type]
    )


def _build(run: Run, encoder: str | None) -> Callable[[], Classifier]:
    if run.card.trainable == "head":
        return lambda: _with_new_head(run)
    _built_anew(run, encoder)  # what cannot be built is told now, and not by the first shadow
    return lambda: _built_anew(run, encoder)


def _with_new_head(run: Run) -> Classifier:
    """The run's own model with an untrained head; its encoder was not trained."""
    model = copy.deepcopy(run.model).train()
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)
    file = run.path / TOKENIZER
    return Classifier(model, run.modality, file if file.exists() else None)


def _built_anew(run: Run, encoder: str | None) -> Classifier:
    """A model of the run's shape, as it was before the training.

    Raises:
        InputError: the encoder is not known, or gives another shape.
    """
    shape = run.model.config
    name = encoder or shape.encoder
    if encoder is None and (source_of_words(name) or name) not in OWN_ENCODERS:
        raise InputError(
            f"{run.name} trained the encoder {name!r}, which came from a folder: expected this "
            "folder as --encoder"
        )
    built = build_classifier(
        name,
        shape.attention,
        shape.pooling,
        shape.share_layers,
        shape.num_labels,
        shape.pixels,
        isinstance(shape, ModelConfig) and shape.normalise,
        shape.heads if shape.isolated else None,
    )
    if built.model.config != shape:
        raise InputError(f"encoder {name} does not give a model of the shape of {run.name}")
    return built
