"""What is asked of the server's core and what it answers, free of any transport."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Code(StrEnum):
    """Why a request was refused; each name is the name of a gRPC status code."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CANCELLED = "CANCELLED"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True)
class Status:
    """A refusal: its code and one sentence that quotes nothing of the request."""

    code: Code
    message: str


class RefusedError(Exception):
    """Raised inside the core to end a request with a status; ``handle`` returns it."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.status = Status(code, message)


@dataclass(frozen=True)
class Principal:
    """Who asks. Nobody is told apart until the server authenticates."""

    name: str


ANONYMOUS = Principal("anonymous")


class Deadline:
    """Until when an answer is wanted, and whether anybody still waits for it.

    Args:
        seconds: time left from now; None for as long as it takes.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Say, from any thread, that nobody waits for the answer any more."""
        self._cancelled.set()

    def check(self) -> None:
        """Raise RefusedError where the answer would come too late or is no longer wanted."""
        if self._cancelled.is_set():
            raise RefusedError(Code.CANCELLED, "the request was cancelled")
        if self._end is not None and time.monotonic() >= self._end:
            raise RefusedError(Code.DEADLINE_EXCEEDED, "the deadline has passed")


@dataclass(frozen=True)
class PredictRequest:
    """Which texts to classify, by which model."""

    model: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class ExplainRequest:
    """Which text to explain, for which class; None stands for the predicted one."""

    model: str
    text: str
    target_label: str | None = None


@dataclass(frozen=True)
class ListModelsRequest:
    """Which models are there."""


@dataclass(frozen=True)
class GetModelRequest:
    """The card of one model."""

    name: str


@dataclass(frozen=True)
class Prediction:
    """The most probable label of one text.

    Attributes:
        label: the class.
        probabilities: one a class, or None where the policy withholds them.
        truncated: only the beginning of the text was read.
    """

    label: str
    probabilities: tuple[float, ...] | None
    truncated: bool


@dataclass(frozen=True)
class Predictions:
    """One prediction a text, and the classes in the order of their probabilities."""

    label_names: tuple[str, ...]
    predictions: tuple[Prediction, ...]


@dataclass(frozen=True)
class Token:
    """One token, or one redacted run of tokens, with its scores.

    Attributes:
        text: as it stands in the text, or a placeholder.
        entity_types: what was redacted here; empty for a token that is shown.
        attention: received attention in each layer, or None where withheld.
        integrated_gradients: attribution to the target class, or None where withheld.
        offsets: ``text[start:end]``, or None where that would give something away.
    """

    text: str
    entity_types: tuple[str, ...] = ()
    attention: tuple[float, ...] | None = None
    integrated_gradients: float | None = None
    offsets: tuple[int, int] | None = None


@dataclass(frozen=True)
class Redaction:
    """Which detector looked, what it can find, and what it cannot."""

    detector: str
    entity_types: tuple[str, ...]
    cannot_see: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """What the answer on one text rests on; see ``ExplainResponse`` in the proto."""

    label_names: tuple[str, ...]
    prediction: Prediction
    target_label: str
    tokens: tuple[Token, ...]
    special_tokens: tuple[Token, ...]
    redaction: Redaction | None
    weight_bound: float | None


@dataclass(frozen=True)
class Models:
    """The model cards, sorted by name."""

    cards: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Model:
    """One model card."""

    card: dict[str, Any]


Request = PredictRequest | ExplainRequest | ListModelsRequest | GetModelRequest
Response = Predictions | Explanation | Models | Model
