"""What is asked of each model: one function for each question, with everything that it needs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from attnpriv.data import Dataset, Span, make_tickets
from attnpriv.runs.folder import Run
from attnpriv.sensitive import PresidioDetector
from benchmarks.release import drawn, faithfulness
from benchmarks.release.answers import Case
from benchmarks.release.attack import (
    learned_attacks,
    learned_value,
    value_attack,
    words_tell,
    worth,
)
from benchmarks.release.models import Trained, load_data, open_model
from benchmarks.release.policies import POLICIES
from benchmarks.release.reading import read_cases
from benchmarks.release.values import KINDS, Secret, public_values, secrets_of, values_in

SEEN, PUBLIC, ROWS = 1, 2, 3000  # seeds of tickets that no model was trained on, and how many
SUBSTITUTES = 16
LEARNED = [name for name in POLICIES if name not in ("mixed, ε = 0.5", "mixed, ε = 1")]


def attack(model: Trained, options: argparse.Namespace) -> dict[str, Any]:
    """Every policy against both attackers, and how much of the full answer it shows."""
    run = open_model(model, options.runs)
    layers = run.model.config.layers
    secrets = {kind: _secrets(run, kind, options.secrets) for kind in KINDS}
    explained = [own for kind in KINDS for own, _ in _secrets(run, kind, options.explained, True)]
    every = [cases for found in secrets.values() for cases, _ in found]
    tickets = make_tickets(options.texts, SEEN)
    cases = read_cases(run, tickets.texts, tickets.spans or ())
    hiding = [case for case in cases if case.hidden.any()]
    return {
        "texts": len(cases),
        "texts_that_hide": len(hiding),
        "secrets": len(every),
        "candidates": len(every[0]),
        "policies": {
            name: {
                "words": policy.words,
                "words_tell": words_tell(hiding, policy),
                "value": value_attack(every, policy, layers),
                "value, explained": value_attack(explained, policy, layers),
                "value, learned": {
                    kind: learned_value(
                        [own for own, _ in found], [entry for _, entry in found], policy, layers
                    )
                    for kind, found in secrets.items()
                    if name in LEARNED
                },
                "learned": learned_attacks(cases, policy, layers) if name in LEARNED else None,
                "worth": worth(hiding, policy, layers),
            }
            for name, policy in POLICIES.items()
        },
    }


def _secrets(
    run: Run, kind: str, count: int, gradients: bool = False
) -> list[tuple[list[Case], int]]:
    """Texts with each candidate, answered, and the entry of the value in each text."""
    values = public_values(make_tickets(ROWS, PUBLIC), kind, PUBLIC)
    return [
        _answered(run, secret, values, gradients)
        for secret in secrets_of(make_tickets(ROWS, SEEN), kind, count)
    ]


def _answered(
    run: Run, secret: Secret, values: Sequence[str], gradients: bool
) -> tuple[list[Case], int]:
    made = [secret.with_value(value) for value in values]
    cases = read_cases(run, [text for text, _ in made], [spans for _, spans in made], gradients)
    number = sorted(secret.spans, key=lambda span: span.start).index(secret.span)
    return cases, int(np.flatnonzero(cases[0].hidden)[number])


def cost(model: Trained, options: argparse.Namespace) -> dict[str, Any]:
    """What it costs to read the redacted text, in accuracy and in faithfulness.

    Spans are those that the detector finds, as in the server. Texts without any are read as they
    are: their answers are compared, too.
    """
    run = open_model(model, options.runs)
    data = _unseen(run, model, options.documents)
    texts, labels = data.texts, data.labels
    spans = _detected(texts)
    cases = read_cases(run, texts, spans)
    last = run.model.config.layers - 1
    hiding = [row for row, case in enumerate(cases) if case.hidden.any()]
    others = sorted({*range(len(cases))} - {*hiding})
    few = hiding[: options.gradients]
    explained = read_cases(run, [texts[row] for row in few], [spans[row] for row in few], True)
    return {
        "hidden_share_of_tokens": faithfulness.mean(
            [case.hidden[case.entries].mean() for case in (cases[row] for row in hiding)]
        ),
        "all": faithfulness.accuracy(cases, labels),
        "hiding": faithfulness.accuracy(*_of(cases, labels, hiding)),
        "others": faithfulness.accuracy(*_of(cases, labels, others)),
        "attention": faithfulness.faithfulness([cases[row] for row in hiding], last),
        "attention, others": faithfulness.faithfulness([cases[row] for row in others], last),
        "gradients": {"documents": len(few), **faithfulness.faithfulness(explained, last + 1)},
    }


def substituted(model: Trained, options: argparse.Namespace) -> dict[str, Any]:
    """What it costs to read public values in place of hidden ones, beside what masks cost."""
    run = open_model(model, options.runs)
    data = _unseen(run, model, options.documents)
    cases = read_cases(run, data.texts, _detected(data.texts))
    hiding = [row for row, case in enumerate(cases) if case.hidden.any()]
    with_masks, labels = _of(cases, data.labels, hiding)
    with_values = [replace(case, redacted=case.substituted) for case in with_masks]
    last = run.model.config.layers - 1
    return {
        name: {
            "label": faithfulness.accuracy(read, labels),
            "attention": faithfulness.faithfulness(read, last),
        }
        for name, read in (("masks", with_masks), ("values", with_values))
    }


def _unseen(run: Run, model: Trained, count: int) -> Dataset:
    """Rows that the model was not trained on."""
    if model.data == "tickets":
        return make_tickets(count, SEEN)
    data = load_data(model.data)
    return data.subset(run.split(data).held_out[:count])


@lru_cache(maxsize=2)
def _detected(texts: tuple[str, ...]) -> list[tuple[Span, ...]]:
    return PresidioDetector().detect_all(texts)


def _of(
    cases: Sequence[Case], labels: Sequence[int], rows: Sequence[int]
) -> tuple[list[Case], list[int]]:
    return [cases[row] for row in rows], [labels[row] for row in rows]


def draws(model: Trained, options: argparse.Namespace) -> dict[str, Any]:
    """Drawn answers beside the free ones, on tickets with their gold spans."""
    run = open_model(model, options.runs)
    data = _unseen(run, model, options.documents)
    rows = [row for row, found in enumerate(data.spans or ()) if found][: options.draws]
    texts, spans = [data.texts[row] for row in rows], [(data.spans or ())[row] for row in rows]
    cases, truth = read_cases(run, texts, spans), [data.labels[row] for row in rows]
    public = _Public(make_tickets(ROWS, PUBLIC))
    made = [public.replaced(*each) for each in zip(texts, spans, strict=True)]
    substitutes = [read_cases(run, *zip(*each, strict=True)) for each in made]
    last = run.model.config.layers - 1
    return {
        "documents": len(cases),
        "free": drawn.free(cases, substitutes, truth, last),
        "labels": drawn.labels(cases, substitutes, truth),
        "keys": drawn.keys(cases, substitutes, last),
    }


class _Public:
    """Values to stand in for hidden ones, drawn by type."""

    def __init__(self, data: Dataset) -> None:
        self._data = data
        self._rng = np.random.default_rng(PUBLIC)
        self._values: dict[str, list[str]] = {}

    def replaced(self, text: str, spans: Sequence[Span]) -> list[tuple[str, tuple[Span, ...]]]:
        """The text with public values for all that is hidden, 16 times, with the new spans."""
        return [self._once(text, spans) for _ in range(SUBSTITUTES)]

    def _once(self, text: str, spans: Sequence[Span]) -> tuple[str, tuple[Span, ...]]:
        made, found, at = "", [], 0
        for span in sorted(spans, key=lambda each: each.start):
            made += text[at : span.start]
            value = str(self._rng.choice(self._of(span.entity_type)))
            found.append(Span(len(made), len(made) + len(value), span.entity_type))
            made, at = made + value, span.end
        return made + text[at:], tuple(found)

    def _of(self, kind: str) -> list[str]:
        if kind not in self._values:
            pairs = zip(self._data.texts, self._data.spans or (), strict=True)
            self._values[kind] = [value for pair in pairs for value in values_in(*pair, kind)]
        return self._values[kind]
