"""Summaries of many texts, from domain to wire and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attnpriv.errors import InputError
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv_client.convert import byte_size, redaction, unicode_only
from attnpriv_client.domain import GroupSummary, LabelSummary, NoisedNumber, Summary

# Parts of a summary's upload: far below what a server takes in one message.
PART_TEXTS = 128
PART_BYTES = 1 << 20

SECONDS_A_TEXT = 1.0  # that a server may take for a text, gradients included

FIGURES = {
    "labels": pb.FIGURE_LABELS,
    "attention": pb.FIGURE_ATTENTION,
    "attribution": pb.FIGURE_ATTRIBUTION,
}


def requests(
    model: str,
    texts: Sequence[str],
    figures: Sequence[str],
    by_label: bool,
    words: Sequence[str],
    cap: float | None,
    version: str | None,
    request_id: str,
) -> tuple[pb.SummarizeRequest, ...]:
    """Ask what many texts have in common: the question, then the texts in parts of 1 MiB at most.

    Raises:
        InputError: a single string was given instead of a sequence, a string is not valid Unicode
            or too long for a message, or a figure is unknown.
    """
    if isinstance(texts, str) or isinstance(words, str):
        raise InputError("expected sequences of texts and words, got a single string")
    with unicode_only():
        question = pb.SummarizeRequest(
            model=model,
            figures=[_figure(each) for each in figures],
            by_label=by_label,
            words=words,
            cap=cap,
            version=version,
            request_id=request_id,
        )
        parts = (pb.SummarizeRequest(texts=part) for part in _parts(texts))
        return (question, *parts)


def _parts(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in messages that a server takes."""
    part: list[str] = []
    size = 0
    for number, text in enumerate(texts, start=1):
        own = byte_size(text)
        if own > PART_BYTES:
            raise InputError(f"text {number}: expected at most {PART_BYTES} bytes, got {own}")
        if part and (len(part) == PART_TEXTS or size + own > PART_BYTES):
            yield part
            part, size = [], 0
        part.append(text)
        size += own
    if part:
        yield part


def _figure(name: str) -> pb.Figure.ValueType:
    if name not in FIGURES:
        raise InputError(f"expected figures among {', '.join(FIGURES)}, got {name!r}")
    return FIGURES[name]


def summary(response: pb.SummarizeResponse) -> Summary:
    """What many texts have in common."""
    return Summary(
        version=response.version,
        texts=response.texts,
        labels=tuple(map(_label_summary, response.labels)),
        groups=tuple(map(_group_summary, response.groups)),
        redaction=redaction(response.redaction) if response.HasField("redaction") else None,
        micro_epsilon=response.micro_epsilon,
    )


def _label_summary(summary: pb.LabelSummary) -> LabelSummary:
    return LabelSummary(
        label=summary.label,
        count=_number(summary.count),
        attention=_number(summary.attention) if summary.HasField("attention") else None,
        attribution=_number(summary.attribution) if summary.HasField("attribution") else None,
    )


def _group_summary(summary: pb.GroupSummary) -> GroupSummary:
    is_word = summary.HasField("word")
    return GroupSummary(
        name=summary.word if is_word else summary.entity_type,
        is_word=is_word,
        attention=_number(summary.attention) if summary.HasField("attention") else None,
        attribution=_number(summary.attribution) if summary.HasField("attribution") else None,
    )


def _number(number: pb.NoisedNumber) -> NoisedNumber:
    return NoisedNumber(number.value, number.low, number.high, number.noise)
