"""Computes the answers of the core: what is read of a text, by whom it is scored, what is shown.

A drawn answer is computed in this order, so that nothing of the full text is looked at before its
price is paid::

    redacted text ─► scores ─► mechanism, cost ─► charge ─► full text ─► scores ─► draw ─► kept
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Collection, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from attnpriv.data.tokenisation import Encoding
from attnpriv.data.unknown import has_known
from attnpriv.errors import DetectionError
from attnpriv.guarantees import weight_bounds
from attnpriv.randomness import Stream
from attnpriv.release import FREE, Cost
from attnpriv.runs.folder import Run
from attnpriv.runs.prediction import encode_texts
from attnpriv.sensitive import Detector, Reading, read_redacted
from attnpriv.spans import Span
from attnpriv_server import release
from attnpriv_server.asking import Asked, refuse_input, text_path
from attnpriv_server.budget.charging import Budget
from attnpriv_server.domain import (
    Code,
    Deadline,
    ExplainRequest,
    Explanation,
    Predictions,
    PredictRequest,
    Redaction,
    RefusedError,
)
from attnpriv_server.explain import Scored, Wanted, score
from attnpriv_server.lane import Lane
from attnpriv_server.models.versions import Loaded
from attnpriv_server.policy import ExplainRules
from attnpriv_server.policy.rules import Reads
from attnpriv_server.queueing import Batching
from attnpriv_server.release import Classes, Classified, Sight, Sights
from attnpriv_server.telemetry import Telemetry

# Texts of this many bytes are tokenised where they arrive: handing them to a thread takes longer.
# More would hold up every other request.
QUICK_BYTES = 4096
KEY_BYTES = 32


@dataclass(frozen=True)
class _Question:
    """What the explaining lane is to compute for one request."""

    encoding: Encoding
    target: int
    wanted: Wanted
    deadline: Deadline


@dataclass(frozen=True)
class _Look:
    """One text to be explained: by which rules, what is hidden in it, and for which class.

    Attributes:
        named: whether the caller named the class; if not, it is the predicted one.
    """

    rules: ExplainRules
    text: str
    reading: Reading | None
    found: Classes
    target: int
    named: bool


Answer = TypeVar("Answer", Predictions, Explanation)


class Answers:
    """Computes answers to requests that were let through. Use it from one event loop.

    Two lanes compute: explanations, which can take seconds, and predictions, which must not wait
    behind them.

    Args:
        detector: finds what is hidden.
        budget: pays for drawn answers; closed with this. None where no policy draws any.
        batching: how predictions are put together.
        explanations: how many may wait.
        telemetry: told of what the lanes do.
        workers: how many batches of predictions are computed at once.
    """

    def __init__(
        self,
        detector: Detector,
        budget: Budget | None,
        batching: Batching,
        explanations: int,
        telemetry: Telemetry,
        workers: int,
    ) -> None:
        self._detector = detector
        self._budget = budget
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
        if self._budget is not None:
            self._budget.close()

    async def predict(self, asked: Asked, request: PredictRequest) -> Predictions:
        """Classify texts.

        Raises:
            RefusedError: why there is no answer.
        """
        loaded = asked.loaded
        rules = asked.role.of_model(request.model).predict
        if rules is None:
            raise RefusedError(Code.PERMISSION_DENIED, "the policy withholds predictions")
        redacted: list[Classified] = []
        if "redacted" in rules.reads:
            # Not together with the full texts: their lengths could move these answers by rounding.
            readings = await self._readings(asked, "texts", request.texts, request.sensitive)
            redacted = await self._classified_readings(asked, readings)
        mechanisms = [release.label_mechanism(rules, each) for each in redacted]
        cost = release.total([each.cost for each in mechanisms if each is not None])

        async def answer() -> Predictions:
            full: list[Classified] = []
            if "full" in rules.reads:
                # Where it is drawn, a refusal would tell of the hidden values.
                full = await self._classified_in_full(
                    asked, "texts", request.texts, can_refuse=rules.epsilon is None
                )
            return Predictions(
                loaded.version.version,
                loaded.run.label_names,
                tuple(
                    release.prediction(
                        rules,
                        found,
                        loaded.run.label_names,
                        asked.restricted,
                        _stream(),
                    )
                    for found in _by_reading(full, redacted)
                ),
                self._redaction(rules.reads, rules.epsilon) if redacted else None,
                cost.micro_epsilon,
            )

        return await self._paid(asked, cost, Predictions, answer)

    async def explain(self, asked: Asked, request: ExplainRequest) -> Explanation:
        """Say what the answer on one text rests on.

        Raises:
            RefusedError: why there is no answer.
        """
        rules = _explain_rules(asked)
        named = _label_index(asked.loaded.run, request.target_label)
        self._explanations.check_room(1, asked.turn)
        reading = None
        if "redacted" in rules.reads:
            (reading,) = await self._readings(asked, "text", (request.text,), (request.sensitive,))
        paid_for: frozenset[Reads] = frozenset() if rules.key is None else frozenset({"full"})
        found = await self._found(asked, request.text, reading, rules.reads - paid_for)
        target = release.explained_class(rules, found) if named is None else named
        look = _Look(rules, request.text, reading, found, target, named is not None)
        free = await self._sights(asked, look, rules.reads - paid_for)
        mechanism = release.key_mechanism(rules, free["redacted"]) if paid_for else None
        cost = FREE if mechanism is None else mechanism.cost

        async def answer() -> Explanation:
            sights = free
            drawn = None
            if mechanism is not None and reading is not None:
                sights = {**free, **await self._sights(asked, look, paid_for)}
                drawn = release.drawn_token(mechanism, sights, reading, _stream())
            shown = self._explanation(asked, look, sights)
            return replace(shown, drawn_token=drawn, micro_epsilon=cost.micro_epsilon)

        return await self._paid(asked, cost, Explanation, answer)

    def _explanation(self, asked: Asked, look: _Look, sights: Sights) -> Explanation:
        run, rules = asked.loaded.run, look.rules
        tokens, special = release.tokens(rules, sights, look.reading)
        gradients = rules.integrated_gradients
        scored = Scored() if gradients is None else sights[gradients.read].scored
        hides = rules.tokens.read == "redacted"
        shows_target = look.named or rules.label is not None
        return Explanation(
            version=asked.loaded.version.version,
            label_names=run.label_names,
            prediction=release.explained_prediction(rules, look.found, run.label_names),
            target_label=run.label_names[look.target] if shows_target else None,
            tokens=tuple(tokens),
            special_tokens=tuple(special),
            redaction=self._redaction(rules.reads, rules.epsilon) if hides else None,
            weight_bound=_weight_bound(rules, run, len(tokens) + len(special)),
            integrated_gradients_error=scored.gradients_error,
            integrated_gradients_withheld=scored.gradients_withheld,
        )

    async def _found(
        self, asked: Asked, text: str, reading: Reading | None, reads: Collection[Reads]
    ) -> dict[Reads, Classified]:
        """What the model makes of each reading of one text."""
        found: dict[Reads, Classified] = {}
        if "redacted" in reads and reading is not None:
            (found["redacted"],) = await self._classified_readings(asked, [reading])
        if "full" in reads:
            (found["full"],) = await self._classified_in_full(asked, "text", (text,))
        return found

    async def _sights(
        self, asked: Asked, look: _Look, reads: Collection[Reads]
    ) -> dict[Reads, Sight]:
        """The readings, with the numbers that the rules take from each."""
        sights: dict[Reads, Sight] = {}
        if "redacted" in reads and look.reading is not None:
            shown = look.reading.redacted.text
            scored = await self._score(asked, look, "redacted", look.reading.encoding)
            sights["redacted"] = Sight(shown, look.reading.encoding, scored)
        if "full" in reads:
            (encoding,) = await self._encodings(asked.loaded.run, (look.text,), asked.turn)
            scored = await self._score(asked, look, "full", encoding)
            sights["full"] = Sight(look.text, encoding, scored)
        return sights

    async def _score(self, asked: Asked, look: _Look, reads: Reads, encoding: Encoding) -> Scored:
        wanted = release.wanted(look.rules, reads)
        question = _Question(encoding, look.target, wanted, asked.deadline)
        rows = [(question, encoding.size)]
        scored: list[Scored] = await self._explanations.compute(
            asked.loaded, rows, asked.turn, asked.deadline
        )
        return scored[0]

    async def _paid(
        self,
        asked: Asked,
        cost: Cost,
        kind: type[Answer],
        answer: Callable[[], Awaitable[Answer]],
    ) -> Answer:
        """The answer, drawn only once its cost is charged; without a cost, simply the answer."""
        if cost == FREE:
            return await answer()
        if self._budget is None:  # the server does not start so, nor takes such a policy later
            raise RefusedError(Code.UNAVAILABLE, "there is no privacy budget; tell the operator")
        adapter = TypeAdapter(kind)
        charge = asked.charge(cost, self._detector.name)

        async def draw() -> bytes:
            return adapter.dump_json(await answer())

        return adapter.validate_json(await self._budget.answer(charge, draw))

    async def _readings(
        self,
        asked: Asked,
        field: str,
        texts: Sequence[str],
        known: Sequence[Sequence[Span]],
    ) -> list[Reading]:
        """What the model reads of texts whose sensitive parts are hidden."""
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
        _check_readable(field, asked.loaded.run, encodings)
        return readings

    async def _classified_readings(
        self, asked: Asked, readings: Sequence[Reading]
    ) -> list[Classified]:
        return await self._classified(
            asked,
            [reading.encoding for reading in readings],
            [reading.truncated for reading in readings],
        )

    async def _classified_in_full(
        self, asked: Asked, field: str, texts: Sequence[str], can_refuse: bool = True
    ) -> list[Classified]:
        run = asked.loaded.run
        encodings = await self._encodings(run, texts, asked.turn)
        if can_refuse:
            _check_readable(field, run, encodings)
        limit = run.model.config.max_length
        truncated = [_is_truncated(*each, limit) for each in zip(texts, encodings, strict=True)]
        return await self._classified(asked, encodings, truncated)

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

    def _redaction(self, reads: Collection[Reads], epsilon: Decimal | None) -> Redaction:
        detector = self._detector
        hidden = reads == {"redacted"} or epsilon is not None
        return Redaction(detector.name, detector.entity_types, detector.cannot_see, hidden)


def _stream() -> Stream:
    """A source of bits for one draw."""
    return Stream(secrets.token_bytes(KEY_BYTES))


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


def _by_reading(full: Sequence[Classified], redacted: Sequence[Classified]) -> list[Classes]:
    """For each text what the model makes of each reading there is."""
    readings: dict[Reads, Sequence[Classified]] = {"full": full, "redacted": redacted}
    there = {reads: found for reads, found in readings.items() if found}
    return [dict(zip(there, each, strict=True)) for each in zip(*there.values(), strict=True)]


def _explain_rules(asked: Asked) -> ExplainRules:
    if asked.restricted:
        raise RefusedError(
            Code.PERMISSION_DENIED,
            "the policy withholds explanations of models that were not trained privately",
        )
    rules = asked.role.of_model(asked.request.model).explain
    if rules is None:
        raise RefusedError(Code.PERMISSION_DENIED, "the policy withholds all explanations")
    return rules


def _weight_bound(rules: ExplainRules, run: Run, entries: int) -> float | None:
    """The certified bound. It counts a redacted part as one entry, which only makes it larger."""
    attention = run.model.config.attention
    shows_weights = any(name in rules.scores for name in release.ATTENTION)
    if attention.clip is None or not shows_weights:
        return None
    return weight_bounds(attention.clip, attention.smallest_temperature, entries)[1]


def _check_readable(field: str, run: Run, encodings: Sequence[Encoding]) -> None:
    """Refuse a text of which the model would see nothing, or nothing but the unknown token.

    Tokenisers drop some characters that are seen, and know no word of some scripts.
    """
    for index, encoding in enumerate(encodings):
        if not has_known(run.tokenizer, encoding):
            refuse_input(
                text_path(field, index), "expected a text, got nothing that the model reads"
            )


def _label_index(run: Run, label: str | None) -> int | None:
    if label is None:
        return None
    if label not in run.label_names:
        refuse_input("target_label", "unknown label; GetModel names those there are")
    return run.label_names.index(label)


def _is_truncated(text: str, encoding: Encoding, limit: int) -> bool:
    """Whether the encoding is full and anything but white space follows its last token."""
    return encoding.size == limit and bool(text[encoding.end :].strip())
