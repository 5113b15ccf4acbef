"""The questions of an audit, asked as any other caller would ask them, and their answers.

If the caller may not have an answer, or no more of them, that is a finding and ends one measure.
Any other error, such as a server that is gone, ends the audit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from attnpriv_client.audit.results import NotRunError
from attnpriv_client.audit.rows import Row
from attnpriv_client.client import Client
from attnpriv_client.domain import Explanation, ModelCard, Prediction
from attnpriv_client.errors import InvalidRequestError, ServiceError

# The server's own message is left out, since it might quote the request.
_REASONS = {
    "PERMISSION_DENIED": "the caller lacks the role, or the policy withholds the answer",
    "RESOURCE_EXHAUSTED": "the server answers no more of these for this caller: it is full, or a "
    "budget is spent",
    "DEADLINE_EXCEEDED": "no answer within the timeout",
}
INTERRUPTED = "interrupted"

Progress = Callable[[str, int, int], None]
"""Called with what is asked for, the number of answers so far, and the number expected."""


Ask = Callable[[Iterable[str], str], Mapping[str, Prediction | None]]
"""From texts, and their name in the progress bar, to one prediction for each distinct text."""


@dataclass(frozen=True)
class Answered:
    """A row with the server's answers to it.

    Attributes:
        row: the row that was asked about.
        prediction: None if the server refused the text, or all predictions.
        explanation: None if there is none; the reason is kept for all rows together.
        extents: where each entry of the explanation stands in the text; None if that is unknown.
    """

    row: Row
    prediction: Prediction | None
    explanation: Explanation | None = None
    extents: tuple[tuple[int, int], ...] | None = None

    @property
    def truncated(self) -> bool:
        """Whether the model did not read all of the text."""
        return self.prediction is not None and self.prediction.truncated


@dataclass(frozen=True)
class Explained:
    """Explanations in the order of the texts, and the reason if there are not more of them."""

    answers: tuple[Explanation | None, ...]
    stopped: str | None


class Asker:
    """Asks about one model.

    Args:
        client: the client that asks.
        model: name of the model.
        version: version of the model; None for the newest, until it is known which one that is.
        progress: told of every answer.

    Attributes:
        version: of the model, once it is known.
        micro_epsilon: millionths of ε that the answers so far were charged.
    """

    def __init__(self, client: Client, model: str, version: str | None, progress: Progress) -> None:
        self._client, self._model, self._progress = client, model, progress
        self.version = version
        self.micro_epsilon = 0.0

    def card(self) -> ModelCard | None:
        """The model card; None if the caller may not read it."""
        try:
            return self._client.model_card(self._model, self.version)
        except ServiceError as error:
            _reason(error)
            return None

    def predict(self, texts: Iterable[str], what: str) -> dict[str, Prediction | None]:
        """One answer for each distinct text; None if the server refuses the text.

        Raises:
            NotRunError: the caller may not have these answers.
        """
        asked = list(dict.fromkeys(texts))
        answers: dict[str, Prediction | None] = {}
        try:
            with closing(self._client.predict_stream(self._model, asked, self.version)) as stream:
                for text, answer in zip(asked, stream, strict=True):
                    answers[text] = answer if isinstance(answer, Prediction) else None
                    if isinstance(answer, Prediction):
                        self.micro_epsilon += answer.micro_epsilon
                    self._progress(what, len(answers), len(asked))
        except ServiceError as error:
            raise NotRunError(_reason(error)) from None
        return answers

    def explain(self, texts: Sequence[str]) -> Explained:
        """Explain one text after the other, for as long as the server answers."""
        answers: list[Explanation | None] = []
        try:
            for text in texts:
                answers.append(self._explain_one(text))
                self._progress("explanations", len(answers), len(texts))
        except NotRunError as error:
            return Explained(tuple(answers), str(error))
        except KeyboardInterrupt:
            return Explained(tuple(answers), INTERRUPTED)
        return Explained(tuple(answers), None)

    def _explain_one(self, text: str) -> Explanation | None:
        try:
            found = self._client.explain(self._model, text, version=self.version)
        except InvalidRequestError:
            return None
        except ServiceError as error:
            raise NotRunError(_reason(error)) from None
        self.micro_epsilon += found.micro_epsilon
        return found


def _reason(error: ServiceError) -> str:
    """The reason why the caller gets no such answer; any other error is raised."""
    if error.code not in _REASONS:
        raise error
    return f"{error.code}: {_REASONS[error.code]}"
