"""Whole answers to texts: of the model that read a text as it is, and of one that read it hidden.

Shapes: K classes, L layers, T tokens of the whole text, E entries, which are what the redacted text
is read as: its visible tokens, and a mask token for each hidden stretch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from attnpriv.data.tokenisation import Encoding
from attnpriv.explain.attention import attention_received
from attnpriv.explain.gradients import integrated_gradients
from attnpriv.modality import embed
from attnpriv.models.classifier import batches_by_length
from attnpriv.runs.folder import Run
from attnpriv.tasks import CLASSIFY

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
ROWS_AT_ONCE = 32


@dataclass(frozen=True)
class Answer:
    """Everything that an explanation could show.

    Attributes:
        probabilities: of the classes, [K].
        scores: [S, T]: for each layer what each position receives of attention, mean over heads and
            queries, and in the last row, where they were asked for, integrated gradients.
    """

    probabilities: Array
    scores: Array


@dataclass(frozen=True)
class Case:
    """One text, answered three times.

    Attributes:
        whole: by token, [.., T].
        redacted: by entry, [.., E].
        substituted: the same of the redacted text with public values in it.
        entries: the entry that each token belongs to, [T]; -1 beyond what is read redacted.
        kinds: of each entry the entity types that it hides; none for visible tokens, E times.
        content: which entries stand in the text and were not added by the model, [E].
    """

    whole: Answer
    redacted: Answer
    substituted: Answer
    entries: Ints
    kinds: tuple[tuple[str, ...], ...]
    content: Bools

    @property
    def merged(self) -> Array:
        """The scores of the whole text, summed for each entry, [S, E]."""
        return merge(self.whole.scores, self.entries, len(self.kinds))

    @property
    def hidden(self) -> Bools:
        """Which entries are placeholders, [E]."""
        return np.array([bool(kinds) for kinds in self.kinds])


def merge(scores: Array, entries: Ints, count: int) -> Array:
    """Scores of tokens [S, T] summed for each entry, [S, E]."""
    merged: Array = scores @ np.eye(count + 1)[entries, :count]  # entry -1 is beyond all of them
    return merged


def answer_all(run: Run, encodings: Sequence[Encoding], gradients: bool = False) -> list[Answer]:
    """The model's answers; integrated gradients, which take long, only where wanted."""
    answers: dict[int, Answer] = {}
    for rows in batches_by_length(encodings, ROWS_AT_ONCE):
        made = _forward(run, [encodings[row] for row in rows])
        answers |= dict(zip(rows, made, strict=True))
    found = [answers[row] for row in range(len(encodings))]
    if not gradients:
        return found
    return [_explained(run, *each) for each in zip(found, encodings, strict=True)]


@torch.no_grad()
def _forward(run: Run, encodings: Sequence[Encoding]) -> list[Answer]:
    inputs = run.modality.collate(encodings)
    seen = run.model.run(run.model.embed(inputs.values), inputs.mask, need_maps=True)
    attention = attention_received(seen.self_attention(), inputs.mask).mean(2).double().numpy()
    probabilities = CLASSIFY.answer(seen.outputs).double().numpy()
    return [
        Answer(own, rows[:, : encoding.size])
        for own, rows, encoding in zip(probabilities, attention, encodings, strict=True)
    ]


def _explained(run: Run, answer: Answer, encoding: Encoding) -> Answer:
    """The answer with integrated gradients for its label below its attention."""
    example = embed(run.model, run.modality.collate([encoding]))
    target = torch.tensor([int(answer.probabilities.argmax())])
    found = integrated_gradients(run.model, example, target).scores.double().numpy()
    return Answer(answer.probabilities, np.concatenate([answer.scores, found]))
