"""The worst documents token by token or patch by patch, personal data behind placeholders.

Worst is by selection: those on whose sensitive tokens attention exceeds their share of the tokens
by most. They show what the model can do, not what it does on the average; that is what the lifts
are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from attnpriv.audit.documents import Documents
from attnpriv.audit.figures import Figures
from attnpriv.audit.gradients import Gradients
from attnpriv.audit.lift import LiftAccumulator
from attnpriv.audit.statistics import Floats
from attnpriv.audit.subject import Pass, Progress, Subject
from attnpriv.boxes import Box
from attnpriv.data.image.patches import Patched
from attnpriv.data.records import Span
from attnpriv.data.spans import sensitive_tokens
from attnpriv.explain.attention import attention_received
from attnpriv.modality import Place
from attnpriv.sensitive import Detector, placeholder


@dataclass(frozen=True)
class Piece:
    """A token of an example, all tokens of one sensitive span under its placeholder, or a patch.

    Attributes:
        placeholder: ``[TYPE]`` for personal data, ``[CLS]`` and the like for special tokens.
        word: the text itself, only where ``placeholder`` is None; left out of ``to_json`` unless
            text was asked for by name.
        joined: whether it follows the piece before it without a space; left out likewise.
        attention: mean over layers, heads and queries of the weight it gets.
        attribution: integrated gradients towards the predicted class.
        box: left, top, right and bottom of a patch, in pixels; None for a token. What the patch
            shows is held nowhere.
    """

    placeholder: str | None
    word: str | None = field(repr=False)
    joined: bool
    attention: float
    attribution: float
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Example:
    """One held-out document, token by token, or patch by patch."""

    label: str
    predicted: str
    probability: float
    pieces: tuple[Piece, ...]


def examples(
    gradients: Gradients,
    spans: Sequence[Sequence[Span]],
    probabilities: Floats,
    attention: LiftAccumulator,
    most: int,
    detector: Detector | None = None,
) -> tuple[Example, ...]:
    """The documents with the most excess attention, worst first, with attention and attribution.

    Args:
        gradients: of the predicted classes of the held-out documents.
        spans: what they were prepared with.
        probabilities: of the classes, [documents, K].
        attention: that of all heads on the same documents, as ``measure_attention`` collects it.
        most: how many to show; those without sensitive tokens are never shown.
        detector: what it finds is hidden too, where the data set marks less.
    """
    worst = worst_documents(attention, most)
    data = gradients.documents.data
    found = [
        detector.detect(data.records[d]) if detector and data.kind == "text" else () for d in worst
    ]
    return tuple(
        _example(gradients, d, (*spans[d], *more), probabilities[d])
        for d, more in zip(worst, found, strict=True)
    )


def worst_documents(attention: LiftAccumulator, most: int) -> list[int]:
    """Documents by ``A_d - u_d`` of ``attnpriv.audit.lift``, largest first, of equals the earlier.

    A difference, since the ratio would favour texts with a single sensitive token, and the share
    alone those that hold little else.
    """
    excess = attention.mean_shares() - attention.uniform
    order = np.argsort(-excess, kind="stable")
    return [int(d) for d in order if attention.uniform[d] > 0][:most]


def _example(
    gradients: Gradients, document: int, spans: Sequence[Span], probabilities: Floats
) -> Example:
    model, documents = gradients.model, gradients.documents
    example, predicted = documents.embedded(model, document), gradients.targets[document]
    sample = documents.samples[document]
    of_image = isinstance(sample, Patched)
    pieces = partial(_patches, sample) if of_image else partial(_pieces, documents, document)
    with torch.inference_mode():
        seen = model.run(example.x, example.mask, need_maps=True)
        received = attention_received(seen.self_attention(), example.mask)[0].mean((0, 1))
    scores = gradients[document].scores[0]
    names = documents.data.label_names
    return Example(
        label=names[documents.data.labels[document]],
        predicted=names[predicted],
        probability=float(probabilities[predicted]),
        pieces=pieces(spans, received.tolist(), scores.tolist()),
    )


def _patches(
    sample: Patched, boxes: Sequence[Box], attention: Sequence[float], attribution: Sequence[float]
) -> tuple[Piece, ...]:
    """Patches in order, each with its own scores."""
    marks = [(box.entity_type, sample.marks([box])) for box in boxes]
    return tuple(
        Piece(
            placeholder="".join(
                dict.fromkeys(placeholder(name) for name, marked in marks if marked[patch])
            )
            or None,
            word=None,
            joined=False,
            attention=attention[patch],
            attribution=attribution[patch],
            box=place,
        )
        for patch, place in enumerate(sample.places)
    )


def _pieces(
    documents: Documents,
    document: int,
    spans: Sequence[Span],
    attention: Sequence[float],
    attribution: Sequence[float],
) -> tuple[Piece, ...]:
    """Tokens in order; those of one span become one piece with their mean scores.

    A mean, and one piece whatever the number of tokens, so that the value's length does not show.
    """
    places = documents.samples[document].places
    words = documents.samples[document].words(documents.data.records[document])
    groups: list[tuple[str | None, list[int]]] = []
    previous: Span | None = None
    for token, place in enumerate(places):
        span = next((s for s in spans if any(sensitive_tokens([place], [s]))), None)
        if span is not None and span is previous:
            groups[-1][1].append(token)
        else:
            added = words[token] if place is None else None
            groups.append((placeholder(span.entity_type) if span else added, [token]))
        previous = span
    return tuple(
        Piece(
            placeholder=name,
            word=None if name else words[tokens[0]],
            joined=_joined(places, tokens[0]),
            attention=sum(attention[t] for t in tokens) / len(tokens),
            attribution=sum(attribution[t] for t in tokens) / len(tokens),
        )
        for name, tokens in groups
    )


def _joined(places: Sequence[Place | None], token: int) -> bool:
    """Whether nothing stands between a token and the one before it."""
    before, own = (places[token - 1] if token else None), places[token]
    return before is not None and own is not None and before[1] == own[0]


def explains(subject: Subject, passed: Pass) -> list[int]:
    """The documents that ``run`` shows."""
    return worst_documents(passed.attention.content, subject.options.examples)


def run(
    subject: Subject, passed: Pass, progress: Progress, figures: Figures
) -> tuple[Example, ...]:
    """As a measure of an audit."""
    return examples(
        passed.gradients(subject),
        subject.spans_of(subject.rows.held_out),
        passed.held_out,
        passed.attention.content,
        subject.options.examples,
        passed.detector,
    )
