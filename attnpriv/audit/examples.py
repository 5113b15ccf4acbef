"""The worst documents token by token or patch by patch, personal data behind placeholders.

Worst is by selection: those on whose sensitive tokens attention exceeds their share of the tokens
by most, or, of a model without attention between positions, integrated gradients do. They show what
the model can do, not what it does on the average; that is what the lifts are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from attnpriv.audit import attribution
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
from attnpriv.explain.gradients import grad_cam
from attnpriv.modality import Place
from attnpriv.models.classifier import AttentionClassifier
from attnpriv.sensitive import Detector, placeholder


@dataclass(frozen=True)
class Piece:
    """A token of an example, all tokens of one sensitive span under its placeholder, or a patch.

    Attributes:
        placeholder: ``[TYPE]`` for personal data, ``[CLS]`` and the like for special tokens.
        word: the text itself, only where ``placeholder`` is None; left out of ``to_json`` unless
            text was asked for by name.
        joined: whether it follows the piece before it without a space; left out likewise.
        attention: mean over layers, heads and queries of the weight it gets; None of a model
            without attention between positions.
        attribution: integrated gradients towards the predicted class.
        gates: its share of the spatial gates, mean over layers; None of a model without.
        gradcam: GradCAM towards the predicted class; None of a model without feature maps.
        hirescam: HiResCAM likewise.
        box: left, top, right and bottom of a patch, in pixels; None for a token. What the patch
            shows is held nowhere.
    """

    placeholder: str | None
    word: str | None = field(repr=False)
    joined: bool
    attention: float | None
    attribution: float
    gates: float | None = None
    gradcam: float | None = None
    hirescam: float | None = None
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
    model: AttentionClassifier,
    spans: Sequence[Sequence[Span]],
    probabilities: Floats,
    worst: Sequence[int],
    detector: Detector | None = None,
) -> tuple[Example, ...]:
    """Documents with all maps that the model has.

    Args:
        gradients: of the predicted classes of the held-out documents.
        model: that they are of.
        spans: what they were prepared with.
        probabilities: of the classes, [documents, K].
        worst: the documents to show.
        detector: what it finds is hidden too, where the data set marks less.
    """
    data = gradients.documents.data
    found = [
        detector.detect(data.records[d]) if detector and data.kind == "text" else () for d in worst
    ]
    return tuple(
        _example(gradients, model, d, (*spans[d], *more), probabilities[d])
        for d, more in zip(worst, found, strict=True)
    )


def worst_documents(scores: LiftAccumulator, most: int) -> list[int]:
    """Documents by ``A_d - u_d`` of ``attnpriv.audit.lift``, largest first, of equals the earlier.

    A difference, since the ratio would favour texts with a single sensitive token, and the share
    alone those that hold little else. Those without sensitive tokens are never among them.
    """
    excess = scores.mean_shares() - scores.uniform
    order = np.argsort(-excess, kind="stable")
    return [int(d) for d in order if scores.uniform[d] > 0][:most]


def by_attribution(gradients: Gradients, chosen: Sequence[int], seed: int) -> LiftAccumulator:
    """|Integrated gradients| of the chosen documents; the others count as without any."""
    documents = gradients.documents
    scores = LiftAccumulator(len(documents), 1, 0, seed)
    for d in chosen:
        own = documents.of_content(d, gradients[d].scores.abs().double().numpy())
        scores.add(d, own, documents.of_content(d, documents.sensitive[d]))
    return scores


@dataclass(frozen=True)
class _Maps:
    """What a record's pieces are shaded by, each one number a position, or None."""

    attention: list[float] | None
    attribution: list[float]
    gates: list[float] | None
    gradcam: list[float] | None
    hirescam: list[float] | None

    def of(self, positions: Sequence[int]) -> dict[str, Any]:
        """The means over positions, by the names of a piece's fields."""
        return {
            name: None if values is None else sum(values[t] for t in positions) / len(positions)
            for name, values in vars(self).items()
        }


def _maps(gradients: Gradients, model: AttentionClassifier, document: int) -> _Maps:
    example = gradients.documents.embedded(model, document)
    with torch.inference_mode():
        seen = model.run(example.x, example.mask, need_maps=True)
    weights, gates = seen.self_attention(), seen.spatial_gates()
    target, layer = torch.tensor([gradients.targets[document]]), model.feature_maps

    def cam(by_place: bool) -> list[float] | None:
        if layer is None:
            return None
        found: list[float] = grad_cam(model, layer, example, target, by_place)[0].tolist()
        return found

    return _Maps(
        attention=attention_received(weights, example.mask)[0].mean((0, 1)).tolist()
        if weights
        else None,
        attribution=gradients[document].scores[0].tolist(),
        gates=torch.stack([each[0] / each[0].sum() for each in gates]).mean(0).tolist()
        if gates
        else None,
        gradcam=cam(by_place=False),
        hirescam=cam(by_place=True),
    )


def _example(
    gradients: Gradients,
    model: AttentionClassifier,
    document: int,
    spans: Sequence[Span],
    probabilities: Floats,
) -> Example:
    documents, predicted = gradients.documents, gradients.targets[document]
    sample = documents.samples[document]
    of_image = isinstance(sample, Patched)
    pieces = partial(_patches, sample) if of_image else partial(_pieces, documents, document)
    names = documents.data.label_names
    return Example(
        label=names[documents.data.labels[document]],
        predicted=names[predicted],
        probability=float(probabilities[predicted]),
        pieces=pieces(spans, _maps(gradients, model, document)),
    )


def _patches(sample: Patched, boxes: Sequence[Box], maps: _Maps) -> tuple[Piece, ...]:
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
            box=place,
            **maps.of([patch]),
        )
        for patch, place in enumerate(sample.places)
    )


def _pieces(
    documents: Documents, document: int, spans: Sequence[Span], maps: _Maps
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
            **maps.of(tokens),
        )
        for name, tokens in groups
    )


def _joined(places: Sequence[Place | None], token: int) -> bool:
    """Whether nothing stands between a token and the one before it."""
    before, own = (places[token - 1] if token else None), places[token]
    return before is not None and own is not None and before[1] == own[0]


def explains(subject: Subject, passed: Pass) -> list[int]:
    """The documents that ``run`` shows; without attention, those that it chooses from."""
    if not subject.lack(("self-attention",)):
        return worst_documents(passed.attention.content, subject.options.examples)
    return attribution.explains(subject, passed)


def run(
    subject: Subject, passed: Pass, progress: Progress, figures: Figures
) -> tuple[Example, ...]:
    """As a measure of an audit."""
    gradients, worst = passed.gradients(subject), explains(subject, passed)
    if subject.lack(("self-attention",)):
        scores = by_attribution(gradients, worst, subject.options.seed)
        worst = worst_documents(scores, subject.options.examples)
    return examples(
        gradients,
        subject.run.model,
        subject.spans_of(subject.rows.held_out),
        passed.held_out,
        worst,
        passed.detector,
    )
