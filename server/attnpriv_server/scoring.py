"""What a model makes of records: they are read in one of the ways that a policy names, and scored.

Two lanes compute: explanations, which can take seconds, and predictions, which must not wait
behind them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnpriv.data.image.patches import Patches
from attnpriv.data.image.records import Pixels
from attnpriv.data.tokenisation import Encoding
from attnpriv.errors import DetectionError
from attnpriv.modality import Sample
from attnpriv.models.words import WordsClassifier
from attnpriv.runs.edits import can_certify, certified_substitutions
from attnpriv.runs.folder import Run
from attnpriv.sensitive import Detector, read_masked, read_redacted
from attnpriv_server.asking import Asked, Records, record_path, refuse_input
from attnpriv_server.domain import Deadline, ExplainRequest, PredictRequest
from attnpriv_server.explain import Scored, Wanted, score
from attnpriv_server.lane import Lane
from attnpriv_server.models.versions import Loaded
from attnpriv_server.policy.rules import Hiding
from attnpriv_server.queueing import Batching
from attnpriv_server.release import AnyReading, Classified, Sight
from attnpriv_server.rows import ImageRefusedError
from attnpriv_server.telemetry import Telemetry

# Texts and images of this many bytes are read where they arrive: handing them to a thread takes
# longer. More would hold up every other request.
QUICK_BYTES = 4096


@dataclass(frozen=True)
class _Question:
    """What the explaining lane is to compute for one record."""

    sample: Sample
    target: int
    wanted: Wanted
    deadline: Deadline


class Scoring:
    """Reads and scores texts and images for requests. Use it from one event loop.

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
        self._certifiers = ThreadPoolExecutor(1, "certify")
        self._decoders = ThreadPoolExecutor(workers, "decode")  # that wait for a worker
        alone = Batching(token_budget=1, capacity=explanations)
        self._predictions = Lane("predict", _forward, batching, telemetry, workers)
        self._explanations = Lane("explain", _scored, alone, telemetry)

    def close(self) -> None:
        """Finish the work that waits, and end the threads."""
        for lane in (self._predictions, self._explanations):
            lane.close()
        for pool in (self._tokenisers, self._searchers, self._certifiers, self._decoders):
            pool.shutdown(cancel_futures=True)

    def check_room_to_explain(self, turn: Hashable) -> None:
        """Refuse an explanation that would be refused later, before any work goes into it.

        Raises:
            RefusedError: too many are waiting.
        """
        self._explanations.check_room(1, turn)

    async def records(self, asked: Asked, request: PredictRequest | ExplainRequest) -> Records:
        """The texts of a request, or its images, decoded.

        Raises:
            RefusedError: the model reads the other; a file is no image that it reads, or a region
                is not inside of it; or the queue is full.
        """
        given, run = Records.of(request), asked.loaded.run
        if given.kind != run.kind:
            refuse_input(given.field, f"expected {run.kind}s, which this model reads")
        if given.kind == "text":
            return given
        _check_regions(given, run)
        self._predictions.check_room(len(given.contents), asked.turn)
        decode = partial(asked.loaded.backend.decode, given.contents)
        try:
            images = await asyncio.get_running_loop().run_in_executor(self._decoders, decode)
        except ImageRefusedError as refusal:
            refuse_input(record_path(given.field, refusal.index), refusal.reason)
        asked.deadline.check()
        return replace(given, contents=tuple(images))

    async def readings(
        self, asked: Asked, records: Records, first: int = 0
    ) -> Sequence[AnyReading]:
        """What the model reads of records whose sensitive parts are hidden.

        Args:
            asked: the request.
            records: some of its texts or images.
            first: the place of the first of them in the request.

        Raises:
            RefusedError: a text cannot be searched, or nothing of it is read; or the queue is full.
        """
        field = records.field
        self._predictions.check_room(len(records.contents), asked.turn)
        find = partial(self._find, asked.loaded.run, records)
        loop = asyncio.get_running_loop()
        try:
            readings = await loop.run_in_executor(self._searchers, find)
        except DetectionError:
            refuse_input(
                field, "expected a text that can be searched for personal data in the time there is"
            )
        samples = [reading.encoding for reading in readings]
        _check_readable(field, asked.loaded.run, samples, first)
        return readings

    async def check_readable(self, asked: Asked, records: Records, first: int = 0) -> None:
        """Refuse whole records of which nothing is read, without scoring them.

        Raises:
            RefusedError: there is one; or the queue is full.
        """
        samples = await self._samples(asked.loaded.run, records.contents, asked.turn)
        _check_readable(records.field, asked.loaded.run, samples, first)

    async def classified_readings(
        self,
        asked: Asked,
        readings: Sequence[AnyReading],
        reads: Hiding = "redacted",
        certify: bool = False,
    ) -> list[Classified]:
        """The classes of records whose sensitive parts are hidden, and what is certified."""
        samples: list[Sample]
        if reads == "redacted":
            samples = [reading.encoding for reading in readings]
            truncated = [reading.truncated for reading in readings]
        else:
            samples = [reading.substituted for reading in readings]
            truncated = [reading.substituted_truncated for reading in readings]
        return await self._classified(asked, samples, truncated, certify)

    async def classified_in_full(
        self, asked: Asked, records: Records, can_refuse: bool = True, certify: bool = False
    ) -> list[Classified]:
        """The classes of whole records, and what is certified.

        Raises:
            RefusedError: nothing of a text is read, if that may be told; or the queue is full.
        """
        run = asked.loaded.run
        samples = await self._samples(run, records.contents, asked.turn)
        if can_refuse:
            _check_readable(records.field, run, samples)
        read = zip(records.contents, samples, strict=True)
        truncated = [run.modality.is_truncated(*each) for each in read]
        return await self._classified(asked, samples, truncated, certify)

    async def sight_of_reading(
        self, asked: Asked, reading: AnyReading, reads: Hiding, target: int, wanted: Wanted
    ) -> Sight:
        """A record whose sensitive parts are hidden, with the numbers that are wanted of it."""
        sample = reading.encoding if reads == "redacted" else reading.substituted
        return Sight(reading.words, sample, await self._score(asked, sample, target, wanted))

    async def sight_in_full(self, asked: Asked, record: Any, target: int, wanted: Wanted) -> Sight:
        """A whole record with the numbers that are wanted of it."""
        run = asked.loaded.run
        (sample,) = await self._samples(run, (record,), asked.turn)
        words = run.modality.words(record, sample)
        return Sight(words, sample, await self._score(asked, sample, target, wanted))

    def _find(self, run: Run, records: Records) -> Sequence[AnyReading]:
        if isinstance(run.modality, Patches):
            return read_masked(run.modality, records.contents, records.known)
        text = run.text
        return read_redacted(
            self._detector, records.contents, text.tokenizer, text.max_length, records.known
        )

    async def _score(self, asked: Asked, sample: Sample, target: int, wanted: Wanted) -> Scored:
        question = _Question(sample, target, wanted, asked.deadline)
        rows = [(question, sample.size)]
        scored: list[Scored] = await self._explanations.compute(
            asked.loaded, rows, asked.turn, asked.deadline
        )
        return scored[0]

    async def _classified(
        self,
        asked: Asked,
        samples: Sequence[Sample],
        truncated: Sequence[bool],
        certify: bool = False,
    ) -> list[Classified]:
        rows = [(sample, sample.size) for sample in samples]
        found = await self._predictions.compute(asked.loaded, rows, asked.turn, asked.deadline)
        radii = await self._certified(asked, samples) if certify else [None] * len(samples)
        return [Classified(*each) for each in zip(found, truncated, radii, strict=True)]

    async def _certified(self, asked: Asked, samples: Sequence[Sample]) -> Sequence[int | None]:
        """Of how many tokens each answer withstands the substitution, where the model can tell."""
        if not isinstance(asked.loaded.run.model, WordsClassifier):
            return [None] * len(samples)
        certify = partial(_radii, asked.loaded.run, samples, asked.deadline)
        return await asyncio.get_running_loop().run_in_executor(self._certifiers, certify)

    async def _samples(self, run: Run, records: Sequence[Any], turn: Hashable) -> list[Sample]:
        self._predictions.check_room(len(records), turn)
        if sum(map(_size, records)) <= QUICK_BYTES:
            return run.modality.read(records)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._tokenisers, run.modality.read, records)


def _forward(
    loaded: Loaded, samples: Sequence[Sample]
) -> list[NDArray[np.float32] | ArithmeticError]:
    """Class probabilities of a batch; a row that is not finite fails its own request only."""
    rows = loaded.backend.classify([sample.values for sample in samples])
    return [
        row if np.isfinite(row).all() else ArithmeticError("a probability is not finite")
        for row in rows
    ]


def _radii(run: Run, samples: Sequence[Sample], deadline: Deadline) -> list[int | None]:
    if not can_certify(run):
        return [None] * len(samples)
    radii = list[int | None]()
    for sample in samples:
        deadline.check()
        assert isinstance(sample, Encoding)  # only models of texts certify
        radii.append(certified_substitutions(run, sample))
    return radii


def _scored(loaded: Loaded, questions: Sequence[_Question]) -> list[Scored]:
    return [
        score(loaded.run, each.sample, each.target, each.wanted, each.deadline)
        for each in questions
    ]


def _check_readable(field: str, run: Run, samples: Sequence[Sample], first: int = 0) -> None:
    """Refuse a record of which the model would see nothing, or nothing but the unknown token."""
    for index, sample in enumerate(samples, first):
        if not run.modality.sees(sample):
            refuse_input(
                record_path(field, index), "expected a text, got nothing that the model reads"
            )


def _check_regions(files: Records, run: Run) -> None:
    height, width, _ = run.model.config.pixels or (0, 0, 0)
    for index, boxes in enumerate(files.known):
        for number, box in enumerate(boxes):
            if box.right > width or box.bottom > height:
                path = f"{record_path(files.field, index)}.sensitive[{number}]"
                refuse_input(path, f"expected a box inside {width} × {height} pixels")


def _size(record: str | Pixels) -> int:
    return len(record) if isinstance(record, str) else record.nbytes
