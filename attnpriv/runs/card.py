"""The model card as a value: what a run folder says of its model, its privacy and its training.

``card_builder`` makes one when a training ends, ``folder`` reads one with every run, and
``card_text`` writes it out for people. The file is JSON, and what is passed on as a whole, to an
audit's report or to a client, is that JSON as it was written; programs read the attributes.

Fields with a default came later than the first version: the cards of older runs lack them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from attnpriv.config import AttentionConfig, is_number, is_whole
from attnpriv.errors import InputError
from attnpriv.runs.parsing import read_fields

NOT_STATED = "not stated"


@dataclass(frozen=True)
class CardLibrary:
    """A library and its version."""

    name: str = NOT_STATED
    version: str = NOT_STATED


@dataclass(frozen=True)
class CardGroup:
    """What ε and δ alone still give a person with several records."""

    records: int
    epsilon: float
    delta: float


@dataclass(frozen=True)
class CardSearch:
    """The search whose best run the model is.

    Attributes:
        distribution: of the number of runs.
        mean_runs: their expected number.
        candidates: how many settings a run could have.
        score_noise: standard deviation of the noise on a run's number of correct predictions.
        validation_share: share of the rows that runs were scored on.
        salt: of the rule by which these rows were chosen.
        score: the noised score of the best run; None where the search made no run.
    """

    distribution: str
    mean_runs: float
    candidates: int
    score_noise: float
    validation_share: float
    salt: str
    score: float | None


@dataclass(frozen=True)
class CardPrivacy:
    """The mechanism that the training went through, and the ε of it.

    A model that was trained with a seed for the noise has these numbers too, and is not private.

    Attributes:
        unit: what is protected.
        neighbours: the difference between two data sets that is hard to see.
        mechanism: where the noise goes in.
        noise_multiplier: σ, the noise over C.
        max_grad_norm: C, the L2 norm to which each record's gradient is clipped.
        sample_rate: q, a record's chance to join a batch.
        expected_batch_size: q times the records.
        steps: how often noise was added.
        delta: δ.
        target_epsilon: the ε that was asked for.
        accountant: the one that was asked for, ``prv`` or ``rdp``.
        epsilon: ε.
        epsilon_rdp: ε by Rényi composition.
        sampler: how batches were drawn.
        random_generator: what made the batches and the noise.
        trust_model: who saw the records.
        query_model: what is given out.
        noise_multiplier_from: ``target``, ``user`` or ``search``.
        clipping: the rule, ``flat`` or ``automatic``.
        clipping_engine: how it was computed.
        repeated_steps: what a crash costs.
        accountant_library: what computed ε.
        epsilon_by: the accountant that ``epsilon`` is of.
        epsilon_prv: ε by numerical composition; None where no bound is lower than Rényi's.
        largest_guess_accuracy: how often a guess whether a record was used is right at most.
        groups: bounds for several records of one person.
        selection: the search, where there was one.
    """

    unit: str
    neighbours: str
    mechanism: str
    noise_multiplier: float
    max_grad_norm: float
    sample_rate: float
    expected_batch_size: int
    steps: int
    delta: float
    target_epsilon: float
    accountant: str
    epsilon: float
    epsilon_rdp: float
    sampler: str
    random_generator: str
    trust_model: str = NOT_STATED
    query_model: str = NOT_STATED
    noise_multiplier_from: str = NOT_STATED
    clipping: str = NOT_STATED
    clipping_engine: str = NOT_STATED
    repeated_steps: str = NOT_STATED
    accountant_library: CardLibrary = field(default_factory=CardLibrary)
    epsilon_by: str = NOT_STATED
    epsilon_prv: float | None = None
    largest_guess_accuracy: float = 1.0
    groups: tuple[CardGroup, ...] = ()
    selection: CardSearch | None = None


@dataclass(frozen=True)
class CardTraining:
    """How the model was fitted.

    Attributes:
        optimizer: its name.
        steps: how many were taken.
        expected_batch_size: of a step.
        head_learning_rate: of the classifier head.
        learning_rate: of the encoder; None where it was not trained.
        warmup: share of the steps over which the learning rates rose.
        decay: how they fell afterwards.
        ema_decay: decay of the moving average of the weights.
        precision: of the encoder's passes.
        augmentation: how the copies of each record differed from it; None where there were none.
        augmentation_multiplicity: K, each record and its copies counted, whose mean gradient was
            clipped.
    """

    optimizer: str
    steps: int
    expected_batch_size: int
    head_learning_rate: float
    learning_rate: float | None
    warmup: float
    decay: str
    ema_decay: float
    precision: str
    augmentation: str | None = None
    augmentation_multiplicity: int = 1


@dataclass(frozen=True)
class CardTeacher:
    """The run that the model was distilled from.

    Attributes:
        name: of its folder.
        attention: its hardening.
        sha256: of its files.
    """

    name: str
    attention: AttentionConfig
    sha256: Mapping[str, str]


@dataclass(frozen=True)
class CardCanaries:
    """Made-up records, each of which was trained on if a fair coin said so.

    Attributes:
        gradients: how many of them are gradients along single axes.
        texts: how many of them are texts.
    """

    gradients: int
    texts: int


@dataclass(frozen=True)
class CardAttention(AttentionConfig):
    """The hardening of the model, and the temperatures that it ended with.

    Attributes:
        temperatures: τ as trained, layer by layer, head by head.
    """

    temperatures: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class CardData:
    """The data of the training.

    Attributes:
        name: what it is called.
        rows_train: how many rows were trained on.
        fingerprint: SHA-256 over all texts and labels, those of the held-out rows too.
        split: the rule by which rows were held out, as ``attnpriv.data.splits`` reads it.

    Raises:
        InputError: the rule lacks what it cannot be applied without.
    """

    name: str
    rows_train: int
    fingerprint: str
    split: Mapping[str, Any]

    def __post_init__(self) -> None:
        needed: dict[str, Callable[[object], bool]] = (
            {"validation_share": is_number, "salt": _is_text}
            if "salt" in self.split
            else {"train_size": is_number, "seed": is_whole}
        )
        for name, fits in needed.items():
            if not fits(self.split.get(name)):
                raise InputError(f"split has no usable {name}, got {self.split.get(name)!r}")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


@dataclass(frozen=True)
class CardHeldOut:
    """How many rows were held out, and the share of them that the model got right."""

    rows: int
    accuracy: float


@dataclass(frozen=True)
class CardMetrics:
    """How good the model is; computed without noise."""

    held_out: CardHeldOut
    covered_by_epsilon: bool


@dataclass(frozen=True)
class ModelCard:
    """What a run folder says of its model.

    Attributes:
        name: of the run folder, or by which a server calls the model.
        statement: what privacy the model has, in two sentences.
        warnings: what restricts the statement.
        private: whether the training was differentially private under a secret key.
        epsilon: ε; None without a mechanism.
        delta: δ; likewise.
        privacy: the mechanism; likewise.
        not_covered: what looked at the records without noise.
        encoder: ``scratch``, ``minilm``, or the name of a local one.
        trainable: which part of the model was trained.
        attention: the hardening.
        label_names: the K classes.
        data: what it was trained on.
        metrics: how good it is.
        as_written: the whole card as JSON, to be passed on and not to be changed.
        terms: where the terms are defined.
        limits: what lies outside of what ε means, by topic.
        training: how it was fitted.
        teacher: the run that it was distilled from, where it was.
        canaries: what was planted in the training to audit it, where anything was.

    Raises:
        InputError: a private model has no ε or δ, or one of them is negative.
    """

    name: str
    statement: str
    warnings: tuple[str, ...]
    private: bool
    epsilon: float | None
    delta: float | None
    privacy: CardPrivacy | None
    not_covered: tuple[str, ...]
    encoder: str
    trainable: str
    attention: CardAttention
    label_names: tuple[str, ...]
    data: CardData
    metrics: CardMetrics
    as_written: dict[str, Any] = field(repr=False)
    terms: str = NOT_STATED
    limits: Mapping[str, str] = field(default_factory=dict)
    training: CardTraining | None = None
    teacher: CardTeacher | None = None
    canaries: CardCanaries | None = None

    def __post_init__(self) -> None:
        for name, value in (("epsilon", self.epsilon), ("delta", self.delta)):
            if (self.private and value is None) or (value is not None and value < 0):
                raise InputError(f"expected {name} >= 0, got {value!r}")

    @classmethod
    def from_json(cls, values: Any) -> ModelCard:
        """Read a card.

        Args:
            values: as ``as_written``.

        Raises:
            InputError: a field is missing, has a value of another type, or contradicts others.
        """
        return cls(**read_fields(cls, values, leave_out=["as_written"]), as_written=values)

    def named(self, name: str) -> ModelCard:
        """The card under another name: a folder may have been renamed."""
        return ModelCard.from_json({**self.as_written, "name": name})
