"""One owner for each character: spans with scores in, disjoint spans out."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import groupby

from attnpriv.data.records import Span

# What is left of a span is a fragment up to this many characters, too few to be a value of its own.
_FRAGMENT = 3


def resolve_overlaps(scored: Iterable[tuple[float, Span]]) -> tuple[Span, ...]:
    """Give every character to the best span that contains it; sorted and without overlaps.

    The best span is the one with the higher score, then the longer, then the earlier one. What is
    left of another span keeps its own type, but joins the span next to it if it is a mere fragment.
    Touching spans of the same type become one. Claim: the result covers what the given spans cover,
    no more and no less. Not covered: that a stretch has the right type.
    """
    ranked = [span for _, span in sorted(scored, key=_preference)]
    owners: list[str | None] = [None] * max((span.end for span in ranked), default=0)
    for span in reversed(ranked):
        owners[span.start : span.end] = [span.entity_type] * (span.end - span.start)
    runs: list[Span] = []
    for entity_type, run in groupby(range(len(owners)), key=owners.__getitem__):
        if entity_type is not None:
            positions = list(run)
            runs.append(Span(positions[0], positions[-1] + 1, entity_type))
    return tuple(_join_fragments(runs, whole=set(ranked)))


def _join_fragments(runs: Iterable[Span], whole: Collection[Span]) -> list[Span]:
    """The runs, with each fragment of a span added to the run that it touches."""
    joined: list[Span] = []
    for run in runs:
        last = joined[-1] if joined and joined[-1].end == run.start else None
        if last is not None and _is_fragment(run, whole):
            joined[-1] = replace(last, end=run.end)
        elif last is not None and _is_fragment(last, whole):
            joined[-1] = replace(run, start=last.start)
        else:
            joined.append(run)
    return joined


def _is_fragment(span: Span, whole: Collection[Span]) -> bool:
    return span.end - span.start <= _FRAGMENT and span not in whole


def _preference(scored: tuple[float, Span]) -> tuple[float, int, int, str]:
    score, span = scored
    return -score, span.start - span.end, span.start, span.entity_type
