"""The batches of a stream that wait for answers, independent of any transport.

A stream of any length goes out in batches, a few of them at a time. Answers come back in any order
and leave in the order of the texts. Memory holds one window, however long the stream is.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field

from attnpriv.errors import InputError
from attnpriv_client.convert import byte_size, new_request_id
from attnpriv_client.domain import Prediction
from attnpriv_client.errors import InternalError, InvalidRequestError, ServiceError

# The most in one request: well below what a server accepts, and so little that answers keep coming.
BATCH_TEXTS = 32
BATCH_BYTES = 1 << 20
# Most requests of a stream that wait for answers; a server works on that many of one stream.
WINDOW = 16
# The time a server has to end a call after its last answer, before the call is cancelled.
FINISH_SECONDS = 1.0

Answer = Prediction | InvalidRequestError
# An error stands for a text that its source cannot read; it is never sent, and is the answer.
Text = str | InvalidRequestError
# The number of a request, and its answer.
StreamAnswer = tuple[int, tuple[Prediction, ...] | ServiceError]

_TEXT_FIELD = re.compile(r"texts\[(\d{1,9})\]", re.ASCII)


class Batcher:
    """Gathers texts into batches that fit one message.

    A text that is too long for any message, or not valid Unicode, is replaced by its error.
    """

    def __init__(self) -> None:
        self._texts: list[Text] = []
        self._bytes = 0

    def add(self, text: Text) -> tuple[Text, ...]:
        """Take one more text; return the batch before it if that is full, else nothing."""
        text, size = _measured(text)
        full = len(self._texts) == BATCH_TEXTS or self._bytes + size > BATCH_BYTES
        before = self.rest() if full else ()
        self._texts.append(text)
        self._bytes += size
        return before

    def rest(self) -> tuple[Text, ...]:
        """Return the texts gathered so far, and start a new batch."""
        texts = tuple(self._texts)
        self._texts, self._bytes = [], 0
        return texts


def batches(texts: Iterable[Text]) -> Iterator[tuple[Text, ...]]:
    """All texts in batches; no text is read before it is needed."""
    batcher = Batcher()
    for text in _not_one_string(texts):
        if batch := batcher.add(text):
            yield batch
    if batch := batcher.rest():
        yield batch


async def async_batches(
    texts: Iterable[Text] | AsyncIterable[Text],
) -> AsyncIterator[tuple[Text, ...]]:
    """The same for asyncio."""
    batcher = Batcher()
    async for text in _each(texts):
        if batch := batcher.add(text):
            yield batch
    if batch := batcher.rest():
        yield batch


@dataclass
class Batch:
    """Texts that travel together, until each has its answer."""

    number: int
    texts: tuple[Text, ...]
    answers: dict[int, Answer] = field(default_factory=dict)
    sent: bool = False

    def __post_init__(self) -> None:
        for position, text in enumerate(self.texts):
            if isinstance(text, InvalidRequestError):
                self.answers[position] = text

    @property
    def unanswered(self) -> dict[int, str]:
        """The texts that a request must ask about, by position."""
        texts = enumerate(self.texts)
        return {n: each for n, each in texts if isinstance(each, str) and n not in self.answers}

    def accept(self, result: tuple[Prediction, ...] | ServiceError) -> None:
        """Take in the answer to a request about the unanswered texts.

        If the server refuses single texts, the refusals are their answers, and the others must be
        sent again.

        Raises:
            ServiceError: the request failed for another reason, or the answer does not fit it.
        """
        asked = list(self.unanswered)
        if isinstance(result, ServiceError):
            refused = _refused_texts(result, len(asked))
            self.answers |= {asked[position]: error for position, error in refused.items()}
            self.sent = False
        elif len(result) != len(asked):
            raise InternalError("INTERNAL", f"{len(result)} answers to {len(asked)} texts")
        else:
            self.answers |= dict(zip(asked, result, strict=True))


class Window:
    """The batches that wait for answers, oldest first."""

    def __init__(self) -> None:
        self.id = new_request_id()  # from which those of its requests are made
        self._batches: dict[int, Batch] = {}
        self._next_number = 0

    @property
    def has_room(self) -> bool:
        """Whether one more batch may be added."""
        return len(self._batches) < WINDOW

    @property
    def empty(self) -> bool:
        """Whether all answers have left the window."""
        return not self._batches

    @property
    def waiting(self) -> bool:
        """Whether any text has no answer yet; texts that cannot be sent have theirs at once."""
        return any(batch.unanswered for batch in self._batches.values())

    def add(self, texts: tuple[Text, ...]) -> None:
        """Take in a batch."""
        self._batches[self._next_number] = Batch(self._next_number, texts)
        self._next_number += 1

    def to_send(self) -> Iterator[tuple[int, list[str]]]:
        """Number and texts of each request to send now; they count as sent from then on."""
        for batch in self._batches.values():
            if not batch.sent and (texts := batch.unanswered):
                batch.sent = True
                yield batch.number, list(texts.values())

    def send_again(self) -> None:
        """After the stream broke: mark all texts without answers to be sent on the next stream."""
        for batch in self._batches.values():
            batch.sent = False

    def accept(self, number: int, result: tuple[Prediction, ...] | ServiceError) -> None:
        """Take in the answer to one request.

        Raises:
            ServiceError: as ``Batch.accept``, or nothing was asked under this number.
        """
        batch = self._batches.get(number)
        if batch is None or not batch.unanswered:
            raise InternalError("INTERNAL", f"an answer to request {number}, which was not asked")
        batch.accept(result)

    def ready(self) -> Iterator[Answer]:
        """The answers that are next in order; they leave the window."""
        while self._batches:
            number, batch = next(iter(self._batches.items()))
            if batch.unanswered:
                return
            del self._batches[number]
            for position in range(len(batch.texts)):
                yield batch.answers[position]


def _measured(text: Text) -> tuple[Text, int]:
    """The text and its size, or an error in its place if it cannot be sent."""
    if isinstance(text, InvalidRequestError):
        return text, 0
    try:
        size = byte_size(text)
    except InputError as error:
        return InvalidRequestError("INVALID_ARGUMENT", str(error)), 0
    if size > BATCH_BYTES:
        message = f"expected texts of at most {BATCH_BYTES} bytes, got one of {size}"
        return InvalidRequestError("INVALID_ARGUMENT", message), 0
    return text, size


def _refused_texts(error: ServiceError, asked: int) -> dict[int, InvalidRequestError]:
    """The refused texts of a request by position; any other error is raised."""
    if not isinstance(error, InvalidRequestError):
        raise error
    refused = {}
    for violation in error.violations:
        found = _TEXT_FIELD.fullmatch(violation.field)
        if found is None or int(found[1]) >= asked:
            raise error
        refused[int(found[1])] = InvalidRequestError(error.code, violation.description)
    if not refused:
        raise error
    return refused


def _not_one_string(texts: Iterable[Text]) -> Iterable[Text]:
    if isinstance(texts, str):
        raise InputError("expected several texts, got a single string")
    return texts


async def _each(texts: Iterable[Text] | AsyncIterable[Text]) -> AsyncIterator[Text]:
    if isinstance(texts, AsyncIterable):
        async for text in texts:
            yield text
    else:
        for text in _not_one_string(texts):
            yield text
