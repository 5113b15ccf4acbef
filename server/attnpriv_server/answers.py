"""Computes the answers of the core: what is read of a record, by whom it is scored, what is shown.

A drawn answer is computed in this order, so that nothing of the full record is looked at before its
price is paid::

    redacted text ─► scores ─► mechanism, cost ─► charge ─► full text ─► scores ─► draw ─► kept
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import TypeAdapter

from attnpriv.guarantees import weight_bounds
from attnpriv.randomness import Stream
from attnpriv.release import FREE, Cost
from attnpriv.release.summary import Noised
from attnpriv.runs.folder import Run
from attnpriv.sensitive import Detector
from attnpriv_server import release, summaries
from attnpriv_server.asking import Asked, Records, refuse_input
from attnpriv_server.domain import (
    Code,
    ExplainRequest,
    Explanation,
    Predictions,
    PredictRequest,
    Redaction,
    RefusedError,
    SummarizeRequest,
    TextsSummary,
)
from attnpriv_server.explain import Scored
from attnpriv_server.policy import ExplainRules
from attnpriv_server.policy.rules import Hiding, Reads
from attnpriv_server.queueing import Batching
from attnpriv_server.release import AnyReading, Classes, Classified, Sight, Sights
from attnpriv_server.scoring import Scoring
from attnpriv_server.summing import TextsToSum
from attnpriv_server.telemetry import Telemetry

if TYPE_CHECKING:
    from attnpriv_server.budget.charging import Budget


KEY_BYTES = 32
# Nothing looks for personal data in images: what is hidden is what the request marks.
OF_IMAGES = ("regions-in-the-request", (), ("UNMARKED_REGIONS",))


@dataclass(frozen=True)
class _Look:
    """One record to be explained: by which rules, what is hidden in it, and for which class.

    Attributes:
        named: whether the caller named the class; if not, it is the predicted one.
    """

    rules: ExplainRules
    record: Any
    reading: AnyReading | None
    found: Classes
    target: int
    named: bool


Answer = TypeVar("Answer", Predictions, Explanation, TextsSummary)


class Answers:
    """Computes answers to requests that were let through. Use it from one event loop.

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
        self._scoring = Scoring(detector, batching, explanations, telemetry, workers)

    def close(self) -> None:
        """Finish the work that waits, and end the threads."""
        self._scoring.close()
        if self._budget is not None:
            self._budget.close()

    async def predict(self, asked: Asked, request: PredictRequest) -> Predictions:
        """Classify texts or images.

        Raises:
            RefusedError: why there is no answer.
        """
        loaded = asked.loaded
        rules = asked.role.of_model(request.model).predict
        if rules is None:
            raise RefusedError(Code.PERMISSION_DENIED, "the policy withholds predictions")
        records = await self._scoring.records(asked, request)
        hidden: dict[Reads, list[Classified]] = {}
        if hiding := _hiding(rules.reads):
            # Not together with the full texts: their lengths could move these answers by rounding.
            readings = await self._scoring.readings(asked, records)
            for reads in hiding:
                hidden[reads] = await self._scoring.classified_readings(
                    asked,
                    readings,
                    reads,
                    certify=release.certifies(rules, asked.restricted, reads),
                )
        mechanisms = [release.label_mechanism(rules, each) for each in hidden.get("redacted", ())]
        cost = release.total([each.cost for each in mechanisms if each is not None])

        async def answer() -> Predictions:
            found = dict(hidden)
            if "full" in rules.reads:
                # Where it is drawn, a refusal would tell of the hidden values.
                found["full"] = await self._scoring.classified_in_full(
                    asked,
                    records,
                    can_refuse=rules.epsilon is None,
                    certify=release.certifies(rules, asked.restricted, "full"),
                )
            return Predictions(
                loaded.version.version,
                loaded.run.label_names,
                tuple(
                    release.prediction(
                        rules,
                        each,
                        loaded.run.label_names,
                        asked.restricted,
                        _stream(),
                    )
                    for each in _by_reading(found)
                ),
                self._redaction(asked, rules.reads, rules.epsilon) if hidden else None,
                cost.micro_epsilon,
            )

        return await self._paid(asked, cost, Predictions, answer)

    async def explain(self, asked: Asked, request: ExplainRequest) -> Explanation:
        """Say what the answer on one text or image rests on.

        Raises:
            RefusedError: why there is no answer.
        """
        rules = _explain_rules(asked)
        named = _label_index(asked.loaded.run, request.target_label)
        self._scoring.check_room_to_explain(asked.turn)
        records = await self._scoring.records(asked, request)
        reading = None
        if _hiding(rules.reads):
            (reading,) = await self._scoring.readings(asked, records)
        paid_for: frozenset[Reads] = frozenset() if rules.key is None else frozenset({"full"})
        found = await self._found(asked, records, reading, rules.reads - paid_for)
        target = release.explained_class(rules, found) if named is None else named
        look = _Look(rules, records.contents[0], reading, found, target, named is not None)
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

    async def summarize(self, asked: Asked, request: SummarizeRequest) -> TextsSummary:
        """Say what many texts have in common, with noise.

        Raises:
            RefusedError: why there is no answer.
        """
        rules = summaries.rules_of(asked, request)
        run = asked.loaded.run
        if run.kind != "text":
            refuse_input("model", f"expected a model of texts, got one of {run.kind}s")
        types = await asyncio.to_thread(lambda: self._detector.entity_types)
        groups = summaries.Groups(types, request.words)
        made = summaries.summarizer(rules, request, len(run.label_names), groups)
        texts = TextsToSum(self._scoring, asked, rules, request, groups)
        await texts.read()  # what cannot be read is refused before it is paid for

        async def answer() -> TextsSummary:
            summary = await asyncio.to_thread(made.summary, await texts.figures())
            return TextsSummary(
                asked.loaded.version.version,
                len(request.texts),
                summaries.labels_told(summary, run.label_names),
                summaries.groups_told(summary, groups),
                self._redaction(asked, texts.reads, None) if texts.searched else None,
                made.cost.micro_epsilon,
            )

        return await self._paid(asked, made.cost, TextsSummary, answer)

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
            redaction=self._redaction(asked, rules.reads, rules.epsilon) if hides else None,
            weight_bound=_weight_bound(rules, run, len(tokens) + len(special)),
            integrated_gradients_error=scored.gradients_error,
            integrated_gradients_withheld=scored.gradients_withheld,
        )

    async def _found(
        self, asked: Asked, records: Records, reading: AnyReading | None, reads: Collection[Reads]
    ) -> dict[Reads, Classified]:
        """What the model makes of each reading of one record."""
        found: dict[Reads, Classified] = {}
        if reading is not None:
            for hiding in _hiding(reads):
                (found[hiding],) = await self._scoring.classified_readings(asked, [reading], hiding)
        if "full" in reads:
            (found["full"],) = await self._scoring.classified_in_full(asked, records)
        return found

    async def _sights(
        self, asked: Asked, look: _Look, reads: Collection[Reads]
    ) -> dict[Reads, Sight]:
        """The readings, with the numbers that the rules take from each."""
        sights: dict[Reads, Sight] = {}
        wanted = {read: release.wanted(look.rules, read) for read in reads}
        if look.reading is not None:
            for hiding in _hiding(reads):
                sights[hiding] = await self._scoring.sight_of_reading(
                    asked, look.reading, hiding, look.target, wanted[hiding]
                )
        if "full" in reads:
            sights["full"] = await self._scoring.sight_in_full(
                asked, look.record, look.target, wanted["full"]
            )
        return sights

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
        # ``domain`` names it for type checkers alone: importing it there would slow every command.
        adapter.rebuild(_types_namespace={"Noised": Noised})
        charge = asked.charge(cost, self._detector.name)

        async def draw() -> bytes:
            return adapter.dump_json(await answer())

        return adapter.validate_json(await self._budget.answer(charge, draw))

    def _redaction(
        self, asked: Asked, reads: Collection[Reads], epsilon: Decimal | None
    ) -> Redaction:
        detector = self._detector
        hidden = "full" not in reads or epsilon is not None
        if asked.loaded.run.kind == "image":
            return Redaction(*OF_IMAGES, hidden)
        return Redaction(detector.name, detector.entity_types, detector.cannot_see, hidden)


def _stream() -> Stream:
    """A source of bits for one draw."""
    return Stream(secrets.token_bytes(KEY_BYTES))


def _hiding(reads: Collection[Reads]) -> list[Hiding]:
    """The readings that hide sensitive parts, in a fixed order."""
    return [hiding for hiding in get_args(Hiding) if hiding in reads]


def _by_reading(found: Mapping[Reads, Sequence[Classified]]) -> list[Classes]:
    """For each text what the model makes of each reading there is."""
    return [dict(zip(found, each, strict=True)) for each in zip(*found.values(), strict=True)]


def _explain_rules(asked: Asked) -> ExplainRules:
    if asked.restricted:
        raise RefusedError(
            Code.PERMISSION_DENIED,
            "the policy withholds explanations of models that were not trained privately",
        )
    rules = asked.role.of_model(asked.request.model).explain
    if rules is None:
        raise RefusedError(Code.PERMISSION_DENIED, "the policy withholds all explanations")
    if rules.key is not None and not asked.loaded.run.model.attention_shape[0]:
        raise RefusedError(
            Code.UNIMPLEMENTED,
            "the policy draws a position by its attention, and this model attends to none",
        )
    return rules


def _weight_bound(rules: ExplainRules, run: Run, entries: int) -> float | None:
    """The certified bound. It counts a redacted part as one entry, which only makes it larger."""
    attention = run.model.config.attention
    shows_weights = any(name in rules.scores for name in release.ATTENTION)
    if attention.clip is None or not shows_weights or not run.model.attention_shape[0]:
        return None
    return weight_bounds(attention.clip, attention.smallest_temperature, entries)[1]


def _label_index(run: Run, label: str | None) -> int | None:
    if label is None:
        return None
    if label not in run.label_names:
        refuse_input("target_label", "unknown label; GetModel names those there are")
    return run.label_names.index(label)
