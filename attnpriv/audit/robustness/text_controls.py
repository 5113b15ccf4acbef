"""Controls of attacks on texts: classifiers of which it is known whether edits break them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from attnpriv.audit.documents import Documents
from attnpriv.audit.robustness.text_edits import Family, choices_at, places_of
from attnpriv.audit.robustness.text_search import Answer, Found, Target, search
from attnpriv.audit.statistics import Floats
from attnpriv.estimates import Control
from attnpriv.runs.folder import Run

PROBED = 8  # documents of each control
LONG_WORD = 4  # letters of the words that the positive control reads


def controls(
    run: Run, kinds: Mapping[str, Family], documents: Documents, chosen: Sequence[int], seed: int
) -> tuple[Control, Control]:
    """A classifier that reads one word of each text, and one that reads nothing."""
    tried = stood = changed = 0
    for document in chosen[:PROBED]:
        text, end = documents.data.records[document], documents.samples[document].end
        for token in [*_lone_words(documents, document)][:1]:
            tried += 1
            found = _probe(_reads(run, token), text, end, kinds, seed, most=1)
            stood += found.edits is None
        changed += _probe(_reads_nothing, text, end, kinds, seed, most=2).edits is not None
    return (
        Control(
            f"a classifier that reads one word, {tried} texts: each is broken by one edit",
            float(stood),
            stood == 0 and tried > 0,
        ),
        Control(
            f"a classifier that reads nothing, {len(chosen[:PROBED])} texts: none is broken",
            float(changed),
            changed == 0,
        ),
    )


def _probe(
    answer: Answer, text: str, end: int, kinds: Mapping[str, Family], seed: int, most: int
) -> Found:
    target = Target.of(answer, text, 1, places_of(text, end))
    return search(target, choices_at(kinds.values(), text, target.places, seed), most, 1)


def _lone_words(documents: Documents, document: int) -> Iterator[int]:
    """Tokens that occur once and are a whole word, long enough for every kind of edit."""
    encoding = documents.samples[document]
    words = {*places_of(documents.data.records[document], encoding.end)}
    for token, place in zip(encoding.ids, encoding.places, strict=True):
        if place in words and place[1] - place[0] >= LONG_WORD and encoding.ids.count(token) == 1:
            yield token


def _reads(run: Run, token: int) -> Answer:
    """Class 1 where a token is in the text, else 0."""

    def answer(texts: Sequence[str]) -> Floats:
        there = [token in each.ids for each in run.modality.read(texts)]
        return np.eye(2)[np.array(there, dtype=np.int64)]

    return answer


def _reads_nothing(texts: Sequence[str]) -> Floats:
    return np.tile([0.0, 1.0], (len(texts), 1))
