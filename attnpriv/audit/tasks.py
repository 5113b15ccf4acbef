"""Pieces of an audit's work: what each of them is, and how it is done.

Every process computes in one thread. Sums that threads share would round differently with their
number; so the same bits come out with any number of processors and of processes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from pydantic import TypeAdapter

from attnpriv.audit.attention import AttentionAccumulator, measure_attention
from attnpriv.audit.documents import Documents
from attnpriv.audit.figures import Figures
from attnpriv.audit.measures import ALONE, APART, Measure, Read
from attnpriv.audit.subject import FORTH_AND_BACK, USUAL_POINTS, Answers, Progress, Subject
from attnpriv.audit.tally import Arrays
from attnpriv.models.classifier import AttentionClassifier

CHUNK = 128  # documents in one piece; it bounds what an interruption costs
FEW = 4  # documents whose gradients are one piece
ATTENTION, MEMBERS, GRADIENTS = "attention", "members", "gradients"
WHOLE = "the whole audit"
BY_NAME = {measure.name: measure for measure in (*ALONE, APART)}
WORDS = {
    ATTENTION: "predictions and attention",
    MEMBERS: "predictions for members",
    GRADIENTS: "integrated gradients",
    **{name: measure.words for name, measure in BY_NAME.items()},
}
"""What tasks do, as people call it."""
EXACT = (ATTENTION, MEMBERS, GRADIENTS, *(measure.name for measure in ALONE))
"""The stages of an audit without noise."""


@dataclass(frozen=True)
class Measured:
    """What a measure gives.

    Attributes:
        result: as it stands in the report.
        figures: those of its figures that can be compared between runs.
    """

    result: Any
    figures: Figures = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """One piece of work.

    Attributes:
        subject: number of the run.
        stage: ``ATTENTION``, ``MEMBERS``, ``GRADIENTS``, or the name of one of ``ALONE``.
        documents: the part of the documents that it takes; None for a whole measure.
        answers: of the run, which measures explain or score; no part of what identifies the task.
    """

    subject: int
    stage: str
    documents: Sequence[int] | None = None
    answers: Answers | None = field(default=None, compare=False, repr=False)

    @property
    def file(self) -> str:
        """What its result is called in a work folder."""
        if self.documents is None:
            return f"{self.subject}-{self.stage}.json"
        return f"{self.subject}-{self.stage}-{self.documents[0]:06d}.npz"

    def perform(self, subject: Subject, progress: Progress) -> bytes:
        """Do it; the result is NumPy's ``npz`` of plain arrays, or JSON."""
        if self.answers is not None:
            return self._explain(subject, self.answers, progress)
        assert self.documents is not None
        if self.stage == ATTENTION:
            return to_bytes(_attention(subject, self.documents, progress).take(self.documents))
        logits = _logits(subject.run.model, subject.members, self.documents, progress)
        return to_bytes({"logits": logits})

    def _explain(self, subject: Subject, answers: Answers, progress: Progress) -> bytes:
        if self.documents is None:
            return dump(measure(BY_NAME[self.stage], subject, answers, progress))
        return to_bytes(answers.gradients(subject).arrays(self.documents, progress))


def measure(of: Measure[Read], subject: Subject, read: Read, progress: Progress) -> Measured:
    """Run a measure."""
    figures: Figures = {}
    return Measured(of.run(subject, read, progress, figures), figures)


def dump(measured: Measured) -> bytes:
    """As JSON; every float comes back with the same bits."""
    return json.dumps(asdict(measured)).encode()


def parse(name: str, content: bytes) -> Measured:
    """What ``dump`` wrote of a measure."""
    plain = json.loads(content)
    result = TypeAdapter(BY_NAME[name].result).validate_python(plain["result"])
    return Measured(result, TypeAdapter(Figures).validate_python(plain["figures"]))


def expected_passes(subject: Subject) -> dict[str, float]:
    """Roughly how many documents each stage sends through the model, a backward pass twice."""
    options = subject.options
    explained = options.ig_documents + options.faithfulness_documents
    return {
        ATTENTION: len(subject.documents),
        MEMBERS: len(subject.members),
        GRADIENTS: subject.taken(explained) * FORTH_AND_BACK * USUAL_POINTS,
        **{
            each.name: each.passes(subject)
            for each in BY_NAME.values()
            if not subject.not_run(each.name, each.needs)
        },
    }


def pieces(
    subject: int, stage: str, documents: Sequence[int], answers: Answers | None = None
) -> list[Task]:
    """A stage that takes one document after the other, in pieces."""
    size = CHUNK if answers is None else FEW
    parts = [tuple(documents[at : at + size]) for at in range(0, len(documents), size)]
    return [Task(subject, stage, part, answers) for part in parts]


def to_bytes(arrays: Arrays) -> bytes:
    """As an ``npz`` file of plain arrays."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def to_arrays(content: bytes) -> Arrays:
    """What ``to_bytes`` wrote; nothing is unpickled.

    Raises:
        ValueError: it was something else.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return dict(file)
    except (OSError, EOFError, BadZipFile) as error:
        raise ValueError("no file of arrays") from error


def attention_of(subject: Subject) -> AttentionAccumulator:
    """An accumulator for the run's attention, without any document yet."""
    options = subject.options
    return AttentionAccumulator(
        subject.documents,
        subject.run.model.attention_shape,
        options.permutations,
        options.seed,
        subject.spans_of(subject.rows.held_out),
        subject.run.model.gated_layers,
    )


def _attention(
    subject: Subject, documents: Sequence[int], progress: Progress
) -> AttentionAccumulator:
    return measure_attention(
        subject.run.model,
        subject.documents,
        subject.options.permutations,
        subject.options.seed,
        progress,
        subject.spans_of(subject.rows.held_out),
        documents,
    )


@torch.inference_mode()
def _logits(
    model: AttentionClassifier,
    documents: Documents,
    chosen: Sequence[int],
    progress: Progress,
) -> np.ndarray:
    """Class logits [chosen, K], by the same pass as held-out rows: rounding must not tell them."""
    rows = []
    for done, document in enumerate(chosen, start=1):
        inputs = documents.inputs([document])
        rows.append(model.run(model.embed(inputs.values), inputs.mask, need_maps=True).outputs)
        progress(done, len(chosen))
    return torch.cat(rows).double().numpy()
