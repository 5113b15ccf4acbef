"""Texts as the model reads them, whole and redacted, and its answers to both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from attnpriv.data import Span
from attnpriv.runs.folder import Run
from attnpriv.sensitive import Reading, hidden_parts, redact
from attnpriv.sensitive.stand_ins import stand_ins
from benchmarks.release.answers import Answer, Case, answer_all, merge


def read_cases(
    run: Run,
    texts: Sequence[str],
    spans: Sequence[Sequence[Span]],
    gradients: bool = False,
) -> list[Case]:
    """Answer each text whole, redacted, and with public values; equal inputs are answered once.

    Args:
        run: the model.
        texts: of any length.
        spans: of each text what is hidden.
        gradients: whether to compute integrated gradients, too.
    """
    whole = run.modality.read(texts)
    redacted = [_read(run, *each) for each in zip(texts, spans, strict=True)]
    hidden = [each for reading in redacted for each in (reading.encoding, reading.substituted)]
    inputs = {each.ids: each for each in [*whole, *hidden]}
    answers = dict(zip(inputs, answer_all(run, list(inputs.values()), gradients), strict=True))
    return [
        Case(
            whole=answers[full.ids],
            redacted=answers[reading.encoding.ids],
            substituted=_merged(answers[reading.substituted.ids], reading),
            entries=np.array([-1 if at is None else at for at in reading.positions(full)]),
            kinds=tuple(map(reading.redacted.types_at, reading.encoding.places)),
            content=np.array([place is not None for place in reading.encoding.places]),
        )
        for full, reading in zip(whole, redacted, strict=True)
    ]


def _merged(answer: Answer, reading: Reading) -> Answer:
    """The answer to a text with public values in it, their scores summed for each entry."""
    entries = np.array([-1 if at is None else at for at in reading.substituted_positions()])
    return Answer(answer.probabilities, merge(answer.scores, entries, reading.encoding.size))


def _read(run: Run, text: str, spans: Sequence[Span]) -> Reading:
    parts = hidden_parts(spans)
    redacted = redact(text, parts)
    encoding = redacted.encode(run.tokenizer, run.model.config.max_length)
    truncated = encoding.end < len(redacted.text.rstrip())
    substituted = redacted.encode(run.tokenizer, run.model.config.max_length, stand_ins())
    return Reading(redacted, encoding, truncated, parts, substituted)
