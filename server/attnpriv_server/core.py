"""The transport-free core: admits callers, checks requests, applies the policy, answers.

Adapters open a call by ``Core.call`` or ``Core.stream``, and what they get is the only way to an
answer, so none can leave a check out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NoReturn, assert_never

import numpy as np
from numpy.typing import NDArray

from attnpriv.data.tokenisation import Encoding
from attnpriv.data.unknown import has_known
from attnpriv.errors import InputError
from attnpriv.guarantees import weight_bounds
from attnpriv.runs.folder import Run
from attnpriv.runs.prediction import encode_texts
from attnpriv.sensitive import Detector, PresidioDetector
from attnpriv.visible import has_visible
from attnpriv_server.access import Access
from attnpriv_server.calls import Call, Calls, Incoming, StreamCall
from attnpriv_server.domain import (
    Code,
    Credentials,
    Deadline,
    ExplainRequest,
    Explanation,
    GetModelRequest,
    ListModelsRequest,
    Model,
    Models,
    Prediction,
    Predictions,
    PredictRequest,
    Principal,
    Readiness,
    ReadinessRequest,
    Redaction,
    RefusedError,
    Request,
    Response,
    Token,
    Violation,
)
from attnpriv_server.explain import Scored, detect, redact, score_tokens, split_special
from attnpriv_server.lane import Lane
from attnpriv_server.models.repository import Repository
from attnpriv_server.models.versions import Loaded, UnknownModelError, Version
from attnpriv_server.policy import Limits, Policies, Policy
from attnpriv_server.queueing import Batching
from attnpriv_server.telemetry import Telemetry

# Texts of this many bytes are tokenised where they arrive: handing them to a thread takes longer.
# More would hold up every other request.
QUICK_BYTES = 4096


@dataclass(frozen=True)
class _Question:
    """What the explaining lane is to compute for one request."""

    text: str
    encoding: Encoding
    target: int
    policy: Policy
    deadline: Deadline


_Tokens = tuple[list[Token], list[Token], Redaction | None, Scored]


class Core:
    """Answers requests on the models of a repository.

    Two lanes compute: explanations, which can take seconds, and predictions, which must not wait
    behind them. Use it from one event loop.

    Args:
        repository: the models.
        access: who may ask.
        policies: what answers may reveal, and to whom.
        limits: how large a request may be.
        batching: how predictions are put together.
        telemetry: told of calls and of what the lanes do.
        workers: how many batches of predictions are computed at once.
        detector: finds what explanations hide; by default the one without a file of rules.
    """

    def __init__(
        self,
        repository: Repository,
        access: Access,
        policies: Policies,
        limits: Limits,
        batching: Batching,
        telemetry: Telemetry,
        workers: int = 1,
        detector: Detector | None = None,
    ) -> None:
        self.limits = limits
        self.repository = repository
        self.telemetry = telemetry
        self._access = access
        self._calls = Calls(access, telemetry, self._answer)
        self._policies = policies
        self._detector = PresidioDetector() if detector is None else detector
        self._tokenisers = ThreadPoolExecutor(1, "tokenise")
        self._loader = ThreadPoolExecutor(1, "load")  # the repository loads one at a time
        self._loads: dict[Version, asyncio.Future[Loaded]] = {}  # that wait or are under way
        alone = Batching(token_budget=1, capacity=limits.explanations)
        self._predictions = Lane("predict", _forward, batching, telemetry, workers)
        self._explanations = Lane("explain", self._scored, alone, telemetry)

    def close(self) -> None:
        """Finish the work that waits, and end the threads."""
        for lane in (self._predictions, self._explanations):
            lane.close()
        for pool in (self._tokenisers, self._loader):
            pool.shutdown(cancel_futures=True)

    def call(self, incoming: Incoming) -> AbstractAsyncContextManager[Call]:
        """Let a caller in, and answer its request inside the block.

        Nothing of the request has to be read before the block is entered: whoever may not ask is
        refused without that. Whatever ends the block is counted and logged, by method, status and
        time alone.

        Raises:
            RefusedError: UNAUTHENTICATED or PERMISSION_DENIED when it is entered; then whatever
                the block lets through. What is no refusal is logged as a defect and becomes
                INTERNAL.
        """
        return self._calls.call(incoming)

    def stream(self, incoming: Incoming) -> AbstractAsyncContextManager[StreamCall]:
        """As ``call``, for as long as the caller may ask and for any number of requests.

        Raises:
            RefusedError: as for ``call``; also once the caller may not ask any more, and
                UNAVAILABLE where the server stopped before the client had sent all its requests.
        """
        return self._calls.stream(incoming)

    def stop_streams(self) -> None:
        """Read no more requests of streams; each ends once those that were read are answered."""
        self._calls.streams.stop()

    async def _answer(
        self, request: Request, credentials: Credentials, deadline: Deadline
    ) -> Response:
        deadline.check()
        # Not only when the call was admitted: streams outlast that, and may ask for other things.
        principal = self._access.authenticate(credentials)
        principal.check(request.role)
        turn = principal.name if self._access.required else credentials.connection
        match request:
            case PredictRequest():
                return await self._predict(request, principal, turn, deadline)
            case ExplainRequest():
                return await self._explain(request, principal, turn, deadline)
            case ListModelsRequest():
                found = self.repository.models()
                return Models(tuple(_model(versions[-1], versions) for versions in found.values()))
            case GetModelRequest():
                version = self._find(request.name, request.version)
                return _model(version, self.repository.models()[version.name])
            case ReadinessRequest():
                return Readiness(self._is_ready(request))
            case _:
                assert_never(request)

    async def _predict(
        self, request: PredictRequest, principal: Principal, turn: Hashable, deadline: Deadline
    ) -> Predictions:
        self._check_texts("texts", request.texts)
        loaded = await self._loaded(request.model, request.version, deadline)
        encodings = await self._encodings(loaded.run, request.texts, turn)
        _check_readable("texts", loaded.run, encodings)
        probabilities = await self._probabilities(loaded, encodings, turn, deadline)
        policy = self._policies.for_principal(principal)
        reveal = policy.reveal_probabilities and not _restricted(policy, loaded.run)
        return Predictions(
            loaded.version.version,
            loaded.run.label_names,
            tuple(
                _prediction(loaded.run, text, encoding, row, reveal)
                for text, encoding, row in zip(request.texts, encodings, probabilities, strict=True)
            ),
        )

    async def _explain(
        self, request: ExplainRequest, principal: Principal, turn: Hashable, deadline: Deadline
    ) -> Explanation:
        self._check_texts("text", (request.text,))
        policy = self._policies.for_principal(principal)
        loaded = await self._loaded(request.model, request.version, deadline)
        run = loaded.run
        _check_explainable(policy, run)
        target = _label_index(run, request.target_label)
        self._explanations.check_room(1, turn)
        encodings = await self._encodings(run, (request.text,), turn)
        _check_readable("text", run, encodings)
        probabilities = await self._probabilities(loaded, encodings, turn, deadline)
        if target is None:
            target = int(probabilities[0].argmax())
        question = _Question(request.text, encodings[0], target, policy, deadline)
        size = encodings[0].size
        rows = await self._explanations.compute(loaded, [(question, size)], turn, deadline)
        tokens, special, redaction, scored = rows[0]
        reveal = policy.reveal_probabilities and not _restricted(policy, run)
        return Explanation(
            version=loaded.version.version,
            label_names=run.label_names,
            prediction=_prediction(run, request.text, encodings[0], probabilities[0], reveal),
            target_label=run.label_names[target],
            tokens=tuple(tokens),
            special_tokens=tuple(special),
            redaction=redaction,
            weight_bound=_weight_bound(policy, run, len(tokens) + len(special)),
            integrated_gradients_error=scored.gradients_error,
            integrated_gradients_withheld=scored.gradients_withheld,
        )

    async def _encodings(self, run: Run, texts: Sequence[str], turn: Hashable) -> list[Encoding]:
        self._predictions.check_room(len(texts), turn)
        if sum(map(len, texts)) <= QUICK_BYTES:
            return encode_texts(run, texts)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._tokenisers, encode_texts, run, texts)

    async def _probabilities(
        self, loaded: Loaded, encodings: Sequence[Encoding], turn: Hashable, deadline: Deadline
    ) -> list[NDArray[np.float32]]:
        rows = [(encoding, encoding.size) for encoding in encodings]
        return await self._predictions.compute(loaded, rows, turn, deadline)

    def _scored(self, loaded: Loaded, questions: Sequence[_Question]) -> list[_Tokens]:
        return [self._tokens(loaded.run, question) for question in questions]

    def _tokens(self, run: Run, question: _Question) -> _Tokens:
        scored = score_tokens(
            run,
            question.text,
            question.encoding,
            question.target,
            question.policy,
            question.deadline,
        )
        tokens, special = split_special(scored.tokens)
        if not question.policy.redact_sensitive_tokens:
            return tokens, special, None, scored
        detector = self._detector
        redaction = Redaction(detector.name, detector.entity_types, detector.cannot_see)
        shown = redact(tokens, detect(detector, question.text, tokens))
        return shown, special, redaction, scored

    def _find(self, name: str, version: str | None) -> Version:
        try:
            return self.repository.find(name, version)
        except UnknownModelError:
            raise RefusedError(
                Code.NOT_FOUND, "unknown model or version; ListModels names those served"
            ) from None

    async def _loaded(self, name: str, version: str | None, deadline: Deadline) -> Loaded:
        """The model, loaded first if it is not in memory; others are answered meanwhile."""
        found = self._find(name, version)
        loaded = self.repository.loaded(found)
        if loaded is not None:
            return loaded
        try:
            async with asyncio.timeout(deadline.remaining()):
                return await asyncio.shield(self._load(found))
        except TimeoutError:
            deadline.check()
            raise
        except InputError:
            raise RefusedError(Code.UNAVAILABLE, "the model cannot be loaded now") from None

    def _load(self, version: Version) -> asyncio.Future[Loaded]:
        """A load that all who wait for the version share, so that callers cannot pile up loads."""
        loading = self._loads.get(version)
        if loading is None:
            loop = asyncio.get_running_loop()
            loading = loop.run_in_executor(self._loader, self.repository.load, version)
            loading.add_done_callback(lambda _: self._loads.pop(version))
            self._loads[version] = loading
        return loading

    def _is_ready(self, request: ReadinessRequest) -> bool:
        if request.model is not None:
            self._find(request.model, request.version)  # what is listed answers, loaded or not
        return self.repository.ready()

    def _check_texts(self, field: str, texts: Sequence[str]) -> None:
        if not 1 <= len(texts) <= self.limits.texts:
            _refuse_input(field, f"expected 1 to {self.limits.texts} texts, got {len(texts)}")
        for index, text in enumerate(texts):
            path = _path(field, index)
            size = len(text.encode())
            if size > self.limits.text_bytes:
                _refuse_input(path, f"expected at most {self.limits.text_bytes} bytes, got {size}")
            if not has_visible(text):
                _refuse_input(
                    path, "expected a text, got nothing but white space or invisible characters"
                )


def _forward(
    loaded: Loaded, encodings: Sequence[Encoding]
) -> list[NDArray[np.float32] | ArithmeticError]:
    """Class probabilities of a batch; a row that is not finite fails its own request only."""
    rows = loaded.backend.classify([encoding.ids for encoding in encodings])
    return [
        row if np.isfinite(row).all() else ArithmeticError("a probability is not finite")
        for row in rows
    ]


def _prediction(
    run: Run, text: str, encoding: Encoding, probabilities: NDArray[np.float32], reveal: bool
) -> Prediction:
    return Prediction(
        label=run.label_names[int(probabilities.argmax())],
        probabilities=tuple(probabilities.tolist()) if reveal else None,
        truncated=_is_truncated(text, encoding, run.model.config.max_length),
    )


def _weight_bound(policy: Policy, run: Run, entries: int) -> float | None:
    """The certified bound. It counts a redacted run as one entry, which only makes it larger."""
    attention = run.model.config.attention
    if attention.clip is None or not policy.reveal_attention:
        return None
    return weight_bounds(attention.clip, attention.smallest_temperature, entries)[1]


def _restricted(policy: Policy, run: Run) -> bool:
    return policy.restrict_non_private_models and not run.card.private


def _check_explainable(policy: Policy, run: Run) -> None:
    if _restricted(policy, run):
        raise RefusedError(
            Code.PERMISSION_DENIED,
            "the policy withholds explanations of models that were not trained privately",
        )
    if not (policy.reveal_attention or policy.reveal_integrated_gradients):
        raise RefusedError(Code.PERMISSION_DENIED, "the policy withholds all explanations")


def _check_readable(field: str, run: Run, encodings: Sequence[Encoding]) -> None:
    """Refuse a text of which the model would see nothing, or nothing but the unknown token.

    Tokenisers drop some characters that are seen, and know no word of some scripts.
    """
    for index, encoding in enumerate(encodings):
        if not has_known(run.tokenizer, encoding):
            _refuse_input(_path(field, index), "expected a text, got nothing that the model reads")


def _path(field: str, index: int) -> str:
    """The path of a text in its request, such as ``texts[3]``."""
    return field if field == "text" else f"{field}[{index}]"


def _refuse_input(field: str, description: str) -> NoReturn:
    raise RefusedError(
        Code.INVALID_ARGUMENT, f"{field}: {description}", (Violation(field, description),)
    )


def _model(version: Version, versions: Sequence[Version]) -> Model:
    """The card, under the name that the model is served by: its folder may have been renamed."""
    card = version.card.named(version.name)
    return Model(card, version.version, tuple(each.version for each in versions))


def _label_index(run: Run, label: str | None) -> int | None:
    if label is None:
        return None
    if label not in run.label_names:
        _refuse_input("target_label", "unknown label; GetModel names those there are")
    return run.label_names.index(label)


def _is_truncated(text: str, encoding: Encoding, limit: int) -> bool:
    """Whether the encoding is full and anything but white space follows its last token."""
    return encoding.size == limit and bool(text[encoding.end :].strip())
