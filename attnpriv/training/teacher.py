"""Hardened attention learns from plain attention: a student starts as a copy of its teacher.

From few labels alone, a model with clipped attention does not find what one with plain attention
finds. So a plain model is fine-tuned first. Its copy, with hardened attention, then learns from the
plain model's answers and hidden states besides the labels. None of this is private: the teacher has
seen the same records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from attnpriv.config import AttentionConfig, ModelConfig, PrivacyConfig, TrainConfig
from attnpriv.data.records import Dataset
from attnpriv.data.splits import split_rule
from attnpriv.errors import InputError
from attnpriv.models.text import TextClassifier
from attnpriv.runs.folder import CONFIG, TOKENIZER, WEIGHTS, Run, load_run
from attnpriv.training.preparation import Classifier

NAMES = {
    "encoder": "encoder",
    "pooling": "pooling",
    "share_layers": "sharing of layers",
    "normalise": "normalisation",
    "heads": "number of heads",
}


def load_teacher(
    path: Path, dataset: Dataset, config: TrainConfig, privacy: PrivacyConfig | None
) -> Run:
    """The run to learn from.

    Raises:
        RunFolderError: there is no usable run folder.
        InputError: the training is to be private, or the teacher was trained on other data or on
            another cut of it, so that it may have seen the rows that its student is held to.
    """
    if privacy is not None:
        raise InputError(
            f"expected epsilon none with a teacher, got {privacy.epsilon:g}: the teacher was "
            "trained on the same records, and no noise protects its answers"
        )
    teacher = load_run(path)
    data = teacher.card.data
    if data.fingerprint != dataset.fingerprint():
        raise InputError(f"expected a teacher trained on the same data, got {teacher.name!r}")
    wanted = split_rule(config.train_size, config.seed)
    if data.split != wanted:
        raise InputError(
            f"expected a teacher trained on the same rows ({_listed(wanted)}), "
            f"got {teacher.name!r} ({_listed(data.split)})"
        )
    return teacher


def student_of(teacher: Run, attention: AttentionConfig) -> Classifier:
    """A copy of the teacher with its own hardening; learned temperatures start anew.

    Raises:
        InputError: the copy would make its scores in another way, or the teacher has no layers.
    """
    config = teacher.model.config
    if config.isolated:
        raise InputError(f"expected a teacher with layers, got {teacher.name!r} with encoder words")
    if not isinstance(config, ModelConfig):
        raise InputError(f"expected a teacher that reads texts, got {teacher.name!r}")
    if attention.score != config.attention.score:
        raise InputError(
            f"expected score {config.attention.score}, which the teacher has, "
            f"got {attention.score!r}"
        )
    model = TextClassifier(replace(config, attention=attention))
    theirs = teacher.model.state_dict().items()
    kept = {name: weight for name, weight in theirs if "raw_temperature" not in name}
    model.load_state_dict({**model.state_dict(), **kept})
    file = teacher.path / TOKENIZER
    return Classifier(model, teacher.modality, file if file.exists() else None)


def check_no_shape(**options: object) -> None:
    """Raise InputError for an option that would give a student another shape than its teacher."""
    for name, value in options.items():
        if value is not None:
            raise InputError(
                f"--{name.replace('_', '-')} cannot be used with --distil-from, got {value!r}: "
                f"the student takes the teacher's {NAMES[name]}"
            )


def description(teacher: Run | None) -> dict[str, Any] | None:
    """Which teacher it was, for the model card and for a run that resumes; None without one."""
    if teacher is None:
        return None
    return {
        "name": teacher.name,
        "attention": asdict(teacher.model.config.attention),
        "sha256": {name: teacher.hashes[name] for name in (CONFIG, WEIGHTS)},
    }


def _listed(split: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in split.items())
