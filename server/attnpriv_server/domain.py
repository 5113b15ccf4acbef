"""What is asked of the server's core and what it answers, free of any transport."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Literal

from attnpriv.boxes import Box
from attnpriv.spans import Span

if TYPE_CHECKING:
    from attnpriv.release.summary import Noised
    from attnpriv.runs.card import ModelCard

Precision = Literal["auto", "float32", "bfloat16"]
"""Of predictions; ``make_backend`` says what each is."""


class Code(StrEnum):
    """Why a request was refused; each name is the name of a gRPC status code."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CANCELLED = "CANCELLED"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    UNAVAILABLE = "UNAVAILABLE"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True)
class Violation:
    """A field of the request that cannot be used.

    Attributes:
        field: its path in the request, such as ``texts[3]``; names and numbers only.
        description: what was expected and what was found, quoting nothing of the request.
    """

    field: str
    description: str


@dataclass(frozen=True)
class Status:
    """A refusal: its code and one sentence that quotes nothing of the request.

    Attributes:
        code: the status.
        message: the sentence.
        violations: the fields at fault, where the request is.
        retry_after: seconds after which the same request may succeed; None where it will not.
    """

    code: Code
    message: str
    violations: tuple[Violation, ...] = ()
    retry_after: float | None = None


class RefusedError(Exception):
    """Ends a request, or a call, with a status; transports tell it to their callers."""

    def __init__(
        self,
        code: Code,
        message: str,
        violations: tuple[Violation, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = Status(code, message, violations, retry_after)


class Role(StrEnum):
    """What a principal may do."""

    PREDICT = "predict"  # ask for labels and probabilities
    EXPLAIN = "explain"  # ask what an answer rests on
    SUMMARIZE = "summarize"  # ask what many texts have in common
    MODELS = "models"  # list models, read their cards and metadata, and the service's reflection


@dataclass(frozen=True)
class Credentials:
    """What a caller shows of itself, as the transport found it.

    Attributes:
        token: the bearer token, if one was sent.
        certificate_names: the subject's common name and alternative names of a client certificate
            that the transport verified.
        connection: tells connections apart, so that turns can be shared out fairly where nobody
            is authenticated; it is never logged.
    """

    token: str | None = None
    certificate_names: tuple[str, ...] = ()
    connection: str = ""


@dataclass(frozen=True)
class Principal:
    """Who asks, by name, and what it may do."""

    name: str
    roles: frozenset[Role]

    def check(self, role: Role | None) -> None:
        """Raise RefusedError where the principal lacks a role; None stands for none at all."""
        if role is not None and role not in self.roles:
            raise RefusedError(Code.PERMISSION_DENIED, f"this needs the role {role.value}")


ANONYMOUS = Principal("anonymous", frozenset(Role))


class Deadline:
    """Until when an answer is wanted, and whether anybody still waits for it.

    Args:
        seconds: time left from now; None for as long as it takes.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds
        self._cancelled = threading.Event()

    @property
    def end(self) -> float:
        """When the answer is of no use any more, by ``time.monotonic``; infinite where never."""
        return math.inf if self._end is None else self._end

    def remaining(self) -> float | None:
        """Seconds left, 0 where it has passed; None for as long as it takes."""
        return None if self._end is None else max(self._end - time.monotonic(), 0.0)

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
class ImageFile:
    """A PNG or JPEG file, and what the client knows to be personal data in it."""

    content: bytes = field(repr=False)
    sensitive: tuple[Box, ...] = ()


@dataclass(frozen=True)
class PredictRequest:
    """Which texts or images to classify, by which model; the newest version where none is named.

    The id tells a repeat from a new request where the answer is drawn. ``sensitive`` has, for each
    text, what the client knows to be personal data in it; it may be empty.
    """

    role: ClassVar[Role | None] = Role.PREDICT
    model: str
    texts: tuple[str, ...]
    version: str | None = None
    request_id: str | None = None
    sensitive: tuple[tuple[Span, ...], ...] = ()
    images: tuple[ImageFile, ...] = ()


@dataclass(frozen=True)
class ExplainRequest:
    """Which text or image to explain, for which class; None stands for the predicted one."""

    role: ClassVar[Role | None] = Role.EXPLAIN
    model: str
    text: str
    target_label: str | None = None
    version: str | None = None
    request_id: str | None = None
    sensitive: tuple[Span, ...] = ()
    image: ImageFile | None = None


Figure = Literal["labels", "attention", "attribution"]
FIGURES: tuple[Figure, ...] = ("labels", "attention", "attribution")


@dataclass(frozen=True)
class SummarizeRequest:
    """Over which texts to tell which figures, in which groups; see the proto.

    Attributes:
        figures: names from ``FIGURES``, once they were checked.
        cap: the most that one text may add to means; None stands for the default.
    """

    role: ClassVar[Role | None] = Role.SUMMARIZE
    model: str
    texts: tuple[str, ...]
    figures: tuple[str, ...]
    by_label: bool = False
    words: tuple[str, ...] = ()
    cap: float | None = None
    version: str | None = None
    request_id: str | None = None


@dataclass(frozen=True)
class ListModelsRequest:
    """Which models are there."""

    role: ClassVar[Role | None] = Role.MODELS


@dataclass(frozen=True)
class GetModelRequest:
    """The card of one model; of its newest version where none is named."""

    role: ClassVar[Role | None] = Role.MODELS
    name: str
    version: str | None = None


@dataclass(frozen=True)
class ReadinessRequest:
    """Whether a model answers requests; without a name, whether the server does."""

    role: ClassVar[Role | None] = None
    model: str | None = None
    version: str | None = None


@dataclass(frozen=True)
class Prediction:
    """The most probable label of one text, or one drawn around it.

    Attributes:
        label: the class.
        probabilities: one a class, or None where the policy withholds them.
        truncated: only the beginning of the text was read.
        certified_substitutions: of how many tokens the label is proved to withstand; None where
            nothing is proved or the policy withholds it.
    """

    label: str
    probabilities: tuple[float, ...] | None
    truncated: bool
    certified_substitutions: int | None = None


@dataclass(frozen=True)
class Redaction:
    """Which detector looked, what it can find and what it cannot, and whether the model read it."""

    detector: str
    entity_types: tuple[str, ...]
    cannot_see: tuple[str, ...]
    hidden_from_model: bool


@dataclass(frozen=True)
class Predictions:
    """One prediction a text, the classes in the order of their probabilities, and who answered."""

    version: str
    label_names: tuple[str, ...]
    predictions: tuple[Prediction, ...]
    redaction: Redaction | None = None
    micro_epsilon: int = 0


@dataclass(frozen=True)
class Token:
    """One token, one redacted part of the text, or one patch of an image, with its scores.

    Attributes:
        text: as it stands in the text, or a placeholder; empty for a patch that is shown.
        entity_types: what was redacted here; empty for what is shown.
        attention: received in the last layer, mean over the heads. Like those below, None where
            withheld.
        layer_attention: the same in each layer.
        head_attention: received in each head, for each layer.
        rollout: how much of it reaches the last layer.
        integrated_gradients: attribution to the target class.
        offsets: ``text[start:end]``, or None where that would give something away.
        box: left, top, right and bottom of a patch, in pixels.
    """

    text: str
    entity_types: tuple[str, ...] = ()
    attention: float | None = None
    layer_attention: tuple[float, ...] | None = None
    head_attention: tuple[tuple[float, ...], ...] | None = None
    rollout: float | None = None
    integrated_gradients: float | None = None
    offsets: tuple[int, int] | None = None
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Explanation:
    """What the answer on one text rests on; see ``ExplainResponse`` in the proto."""

    version: str
    label_names: tuple[str, ...]
    prediction: Prediction | None
    target_label: str | None
    tokens: tuple[Token, ...]
    special_tokens: tuple[Token, ...]
    redaction: Redaction | None
    weight_bound: float | None
    integrated_gradients_error: float | None = None
    integrated_gradients_withheld: str | None = None
    drawn_token: int | None = None
    micro_epsilon: int = 0


@dataclass(frozen=True)
class LabelSummary:
    """How many texts have a label, and the means over them; None where not told."""

    label: str
    count: Noised
    attention: Noised | None = None
    attribution: Noised | None = None


@dataclass(frozen=True)
class GroupSummary:
    """The means of one type of personal data, or of one word; None where not asked for."""

    name: str
    is_word: bool
    attention: Noised | None
    attribution: Noised | None


@dataclass(frozen=True)
class TextsSummary:
    """What many texts have in common, with noise; see ``SummarizeResponse`` in the proto."""

    version: str
    texts: int
    labels: tuple[LabelSummary, ...]
    groups: tuple[GroupSummary, ...]
    redaction: Redaction | None
    micro_epsilon: int


@dataclass(frozen=True)
class Model:
    """One version of a model: its card under the name it is served by, and all its versions.

    ``pixels`` are height, width and channels of the images that it reads; None for one of texts.
    """

    card: ModelCard
    version: str
    versions: tuple[str, ...]
    pixels: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Models:
    """The newest version of every model, sorted by name."""

    models: tuple[Model, ...]


@dataclass(frozen=True)
class Readiness:
    """Whether what was asked about answers requests now."""

    ready: bool


Request = (
    PredictRequest
    | ExplainRequest
    | SummarizeRequest
    | ListModelsRequest
    | GetModelRequest
    | ReadinessRequest
)
Response = Predictions | Explanation | TextsSummary | Models | Model | Readiness
