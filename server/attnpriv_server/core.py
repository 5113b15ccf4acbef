"""The transport-free core: checks a request, applies the policy, and computes the answer.

Every adapter (gRPC today) calls ``Core.handle`` and nothing else, so none can leave a check out.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, assert_never

import numpy as np

from attnpriv.data.tokenisation import Encoding
from attnpriv.errors import InputError
from attnpriv.guarantees import weight_bounds
from attnpriv.prediction import encode_texts, predict_probabilities
from attnpriv.run_folder import Run, list_runs, load_run
from attnpriv.sensitive import PresidioDetector
from attnpriv_server.domain import (
    Code,
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
    Redaction,
    RefusedError,
    Request,
    Response,
    Status,
    Token,
)
from attnpriv_server.explain import detect, redact, score_tokens, split_special
from attnpriv_server.policy import Limits, Policy

logger = logging.getLogger(__name__)


def load_models(folder: Path) -> dict[str, Run]:
    """Load every run folder in a folder, by name.

    Raises:
        InputError: there is none, one does not match its manifest, or two share a name. A folder
            that cannot be trusted stops the start; it is never skipped.
    """
    runs: dict[str, Run] = {}
    for path in list_runs(folder):
        run = load_run(path)
        if run.name in runs:
            raise InputError(f"{path} and {runs[run.name].path} both hold a model {run.name!r}")
        runs[run.name] = run
    if not runs:
        raise InputError(f"expected run folders in {folder}, found none")
    return runs


class Core:
    """Answers requests on the loaded models, one at a time or from several threads.

    Args:
        models: run folders by name.
        policy: what answers may reveal.
        limits: how large a request may be.
    """

    def __init__(
        self, models: dict[str, Run], policy: Policy | None = None, limits: Limits | None = None
    ) -> None:
        self.models = models
        self.policy = policy or Policy()
        self.limits = limits or Limits()
        self._detector = PresidioDetector() if self.policy.redact_sensitive_tokens else None

    def handle(
        self, request: Request, principal: Principal, deadline: Deadline
    ) -> Response | Status:
        """Answer one request, or say why not; never raises.

        Args:
            request: what is asked.
            principal: who asks. All are treated alike until there is authentication.
            deadline: checked before each step of the work; nothing is begun past it.
        """
        try:
            deadline.check()
            match request:
                case PredictRequest():
                    return self._predict(request, deadline)
                case ExplainRequest():
                    return self._explain(request, deadline)
                case ListModelsRequest():
                    return Models(tuple(_card(self.models[name]) for name in sorted(self.models)))
                case GetModelRequest():
                    return Model(_card(self._model(request.name)))
                case _:
                    assert_never(request)
        except RefusedError as refusal:
            return refusal.status
        except Exception as error:
            log_defect(error)
            return Status(Code.INTERNAL, "internal error")

    def _predict(self, request: PredictRequest, deadline: Deadline) -> Predictions:
        run = self._model(request.model)
        self._check_texts(request.texts)
        encodings = encode_texts(run, request.texts)
        deadline.check()
        return Predictions(run.label_names, self._predictions(run, request.texts, encodings))

    def _explain(self, request: ExplainRequest, deadline: Deadline) -> Explanation:
        run = self._model(request.model)
        self._check_texts([request.text])
        self._check_explainable(run)
        target = _label_index(run, request.target_label)
        encodings = encode_texts(run, [request.text])
        prediction = self._predictions(run, [request.text], encodings)[0]
        deadline.check()
        if target is None:
            target = run.label_names.index(prediction.label)
        scored = score_tokens(run, request.text, encodings[0], target, self.policy, deadline)
        tokens, special = split_special(scored)
        tokens, redaction = self._redacted(tokens, request.text)
        return Explanation(
            label_names=run.label_names,
            prediction=prediction,
            target_label=run.label_names[target],
            tokens=tuple(tokens),
            special_tokens=tuple(special),
            redaction=redaction,
            weight_bound=self._weight_bound(run, len(tokens) + len(special)),
        )

    def _redacted(self, tokens: list[Token], text: str) -> tuple[list[Token], Redaction | None]:
        detector = self._detector
        if detector is None:
            return tokens, None
        redaction = Redaction(detector.name, detector.entity_types, detector.cannot_see)
        return redact(tokens, detect(detector, text, tokens)), redaction

    def _weight_bound(self, run: Run, entries: int) -> float | None:
        """The certified bound; with a redacted run counted once it is larger, so it still holds."""
        attention = run.model.config.attention
        if attention.clip is None or not self.policy.reveal_attention:
            return None
        return weight_bounds(attention.clip, attention.smallest_temperature, entries)[1]

    def _predictions(
        self, run: Run, texts: Sequence[str], encodings: Sequence[Encoding]
    ) -> tuple[Prediction, ...]:
        probabilities = predict_probabilities(run, texts)
        if not np.isfinite(probabilities).all():
            raise ArithmeticError("a probability is not finite")
        reveal = self.policy.reveal_probabilities and not self._restricted(run)
        limit = run.model.config.max_length
        return tuple(
            Prediction(
                label=run.label_names[int(row.argmax())],
                probabilities=tuple(row.tolist()) if reveal else None,
                truncated=_is_truncated(text, encoding, limit),
            )
            for text, encoding, row in zip(texts, encodings, probabilities, strict=True)
        )

    def _model(self, name: str) -> Run:
        run = self.models.get(name)
        if run is None:
            raise RefusedError(Code.NOT_FOUND, "unknown model; ListModels names those served")
        return run

    def _restricted(self, run: Run) -> bool:
        return self.policy.restrict_non_private_models and not run.card["private"]

    def _check_explainable(self, run: Run) -> None:
        if self._restricted(run):
            raise RefusedError(
                Code.PERMISSION_DENIED,
                "the policy withholds explanations of models that were not trained privately",
            )
        if not (self.policy.reveal_attention or self.policy.reveal_integrated_gradients):
            raise RefusedError(Code.PERMISSION_DENIED, "the policy withholds all explanations")

    def _check_texts(self, texts: Sequence[str]) -> None:
        if not 1 <= len(texts) <= self.limits.texts:
            _refuse_input(f"expected 1 to {self.limits.texts} texts, got {len(texts)}")
        for number, text in enumerate(texts, start=1):
            size = len(text.encode())
            if size > self.limits.text_bytes:
                _refuse_input(
                    f"expected at most {self.limits.text_bytes} bytes in a text, "
                    f"got {size} in text {number}"
                )
            if not text.strip():
                _refuse_input(f"expected a text, got nothing but white space in text {number}")


def log_defect(error: Exception) -> None:
    """Log where an unexpected error was raised; its message could quote a text, so not that."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown"
    logger.error("defect", extra={"fields": {"error": type(error).__name__, "at": place}})


def _refuse_input(message: str) -> NoReturn:
    raise RefusedError(Code.INVALID_ARGUMENT, message)


def _card(run: Run) -> dict[str, Any]:
    """The card under the name by which the model is served: a folder may have been renamed."""
    return {**run.card, "name": run.name}


def _label_index(run: Run, label: str | None) -> int | None:
    if label is None:
        return None
    if label not in run.label_names:
        _refuse_input("unknown target label; GetModel names those there are")
    return run.label_names.index(label)


def _is_truncated(text: str, encoding: Encoding, limit: int) -> bool:
    """Whether the encoding is full and anything but white space follows its last token."""
    return len(encoding.ids) == limit and bool(text[encoding.offsets[-2][1] :].strip())
