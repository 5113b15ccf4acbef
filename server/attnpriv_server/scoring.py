"""What a model makes of texts: they are read in one of the ways that a policy names, and scored.

Two lanes compute: explanations, which can take seconds, and predictions, which must not wait
behind them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from attnpriv.data.tokenisation import Encoding
from attnpriv.data.unknown import has_known
from attnpriv.errors import DetectionError
from attnpriv.runs.folder import Run
from attnpriv.runs.prediction import encode_texts
from attnpriv.sensitive import Detector, Reading, read_redacted
from attnpriv.spans import Span
from attnpriv_server.asking import Asked, refuse_input, text_path
from attnpriv_server.domain import Deadline
from attnpriv_server.explain import Scored, Wanted, score
from attnpriv_server.lane import Lane
from attnpriv_server.models.versions import Loaded
from attnpriv_server.policy.rules import Hiding
from attnpriv_server.queueing import Batching
from attnpriv_server.release import Classified, Sight
from attnpriv_server.telemetry import Telemetry

# Texts of this many bytes are tokenised where they arrive: handing them to a thread takes longer.
# More would hold up every other request.
QUICK_BYTES = 4096


@dataclass(frozen=True)
class _Question:
    """What the explaining lane is to compute for one text."""

    encoding: Encoding
    target: int
    wanted: Wanted
    deadline: Deadline


class Scoring:
    """Reads and scores texts for requests. Use it from one event loop.

    Args:
        detector: finds what is hidden.
        batching: how predictions are put together.
        explanations: how many may wait.
        telemetry: told of what the lanes do.
        workers: how many batches of predictions are computed at once.
    """

    def __init__(
        self,
        detector: Detector,
        batching: Batching,
        explanations: int,
        telemetry: Telemetry,
        workers: int,
    ) -> None:
        self._detector = detector
        self._tokenisers = ThreadPoolExecutor(1, "tokenise")
        self._searchers = ThreadPoolExecutor(1, "search")  # slower: texts to tokenise must not wait
        alone = Batching(token_budget=1, capacity=explanations)
        self._predictions = Lane("predict", _forward, batching, telemetry, workers)
        self._explanations = Lane("explain", _scored, alone, telemetry)

    def close(self) -> None:
        """Finish the work that waits, and end the threads."""
        for lane in (self._predictions, self._explanations):
            lane.close()
        for pool in (self._tokenisers, self._searchers):
            pool.shutdown(cancel_futures=True)

    def check_room_to_explain(self, turn: Hashable) -> None:
        """Refuse an explanation that would be refused later, before any work goes into it.

        Raises:
            RefusedError: too many are waiting.
        """
        self._explanations.check_room(1, turn)

    async def readings(
        self,
        asked: Asked,
        field: str,
        texts: Sequence[str],
        known: Sequence[Sequence[Span]],
        first: int = 0,
    ) -> list[Reading]:
        """What the model reads of texts whose sensitive parts are hidden.

        Args:
            asked: the request.
            field: of the request that has the texts.
            texts: some of them.
            known: for each text what else is to be hidden; or nothing.
            first: the place of the first of them in the request.

        Raises:
            RefusedError: a text cannot be searched, or nothing of it is read; or the queue is full.
        """
        self._predictions.check_room(len(texts), asked.turn)
        text = asked.loaded.run.text
        find = partial(read_redacted, self._detector, texts, text.tokenizer, text.max_length, known)
        loop = asyncio.get_running_loop()
        try:
            readings = await loop.run_in_executor(self._searchers, find)
        except DetectionError:
            refuse_input(
                field, "expected a text that can be searched for personal data in the time there is"
            )
        encodings = [reading.encoding for reading in readings]
        _check_readable(field, asked.loaded.run, encodings, first)
        return readings

    async def check_readable(
        self, asked: Asked, field: str, texts: Sequence[str], first: int = 0
    ) -> None:
        """Refuse whole texts of which nothing is read, without scoring them.

        Raises:
            RefusedError: there is one; or the queue is full.
        """
        encodings = await self._encodings(asked.loaded.run, texts, asked.turn)
        _check_readable(field, asked.loaded.run, encodings, first)

    async def classified_readings(
        self, asked: Asked, readings: Sequence[Reading], reads: Hiding = "redacted"
    ) -> list[Classified]:
        """The classes of texts whose sensitive parts are hidden."""
        if reads == "redacted":
            encodings = [reading.encoding for reading in readings]
            truncated = [reading.truncated for reading in readings]
        else:
            encodings = [reading.substituted for reading in readings]
            truncated = [reading.substituted_truncated for reading in readings]
        return await self._classified(asked, encodings, truncated)

    async def classified_in_full(
        self, asked: Asked, field: str, texts: Sequence[str], can_refuse: bool = True
    ) -> list[Classified]:
        """The classes of whole texts.

        Raises:
            RefusedError: nothing of a text is read, if that may be told; or the queue is full.
        """
        run = asked.loaded.run
        encodings = await self._encodings(run, texts, asked.turn)
        if can_refuse:
            _check_readable(field, run, encodings)
        limit = run.model.config.max_length
        truncated = [_is_truncated(*each, limit) for each in zip(texts, encodings, strict=True)]
        return await self._classified(asked, encodings, truncated)

    async def sight_of_reading(
        self, asked: Asked, reading: Reading, reads: Hiding, target: int, wanted: Wanted
    ) -> Sight:
        """A text whose sensitive parts are hidden, with the numbers that are wanted of it."""
        encoding = reading.encoding if reads == "redacted" else reading.substituted
        scored = await self._score(asked, encoding, target, wanted)
        return Sight(reading.redacted.text, encoding, scored)

    async def sight_in_full(self, asked: Asked, text: str, target: int, wanted: Wanted) -> Sight:
        """A whole text with the numbers that are wanted of it."""
        (encoding,) = await self._encodings(asked.loaded.run, (text,), asked.turn)
        return Sight(text, encoding, await self._score(asked, encoding, target, wanted))

    async def _score(self, asked: Asked, encoding: Encoding, target: int, wanted: Wanted) -> Scored:
        question = _Question(encoding, target, wanted, asked.deadline)
        rows = [(question, encoding.size)]
        scored: list[Scored] = await self._explanations.compute(
            asked.loaded, rows, asked.turn, asked.deadline
        )
        return scored[0]

    async def _classified(
        self, asked: Asked, encodings: Sequence[Encoding], truncated: Sequence[bool]
    ) -> list[Classified]:
        rows = [(encoding, encoding.size) for encoding in encodings]
        found = await self._predictions.compute(asked.loaded, rows, asked.turn, asked.deadline)
        return [Classified(*each) for each in zip(found, truncated, strict=True)]

    async def _encodings(self, run: Run, texts: Sequence[str], turn: Hashable) -> list[Encoding]:
        self._predictions.check_room(len(texts), turn)
        if sum(map(len, texts)) <= QUICK_BYTES:
            return encode_texts(run, texts)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._tokenisers, encode_texts, run, texts)


def _forward(
    loaded: Loaded, encodings: Sequence[Encoding]
) -> list[NDArray[np.float32] | ArithmeticError]:
    """Class probabilities of a batch; a row that is not finite fails its own request only."""
    rows = loaded.backend.classify([encoding.ids for encoding in encodings])
    return [
        row if np.isfinite(row).all() else ArithmeticError("a probability is not finite")
        for row in rows
    ]


def _scored(loaded: Loaded, questions: Sequence[_Question]) -> list[Scored]:
    return [
        score(loaded.run, each.encoding, each.target, each.wanted, each.deadline)
        for each in questions
    ]


def _check_readable(field: str, run: Run, encodings: Sequence[Encoding], first: int = 0) -> None:
    """Refuse a text of which the model would see nothing, or nothing but the unknown token.

    Tokenisers drop some characters that are seen, and know no word of some scripts.
    """
    for index, encoding in enumerate(encodings, first):
        if not has_known(run.tokenizer, encoding):
            refuse_input(
                text_path(field, index), "expected a text, got nothing that the model reads"
            )


def _is_truncated(text: str, encoding: Encoding, limit: int) -> bool:
    """Whether the encoding is full and anything but white space follows its last token."""
    return encoding.size == limit and bool(text[encoding.end :].strip())
