"""Where the entries of an explanation stand in the text that was asked about.

Offsets are released only if the server redacts nothing. Otherwise the shown tokens are searched in
the text, which the caller has, one run after the other; a placeholder covers what lies between.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby

from attnpriv_client.audit.rows import Span
from attnpriv_client.domain import TokenExplanation

Extent = tuple[int, int]


def align(
    text: str, tokens: Sequence[TokenExplanation], truncated: bool
) -> tuple[Extent, ...] | None:
    """The extent of each entry, ``text[start:end]``; None if the entries do not fit the text.

    Adjacent placeholders share one extent. Not covered: if hidden text contains a shown run too,
    the earlier place is taken for it.

    Args:
        text: the text that was asked about.
        tokens: the entries.
        truncated: whether the model read only a part of the text, so that the entries need not
            reach its end.
    """
    offsets = [token.offsets for token in tokens if token.offsets is not None]
    if len(offsets) == len(tokens):
        fits = all(0 <= start <= end <= len(text) for start, end in offsets)
        return tuple(offsets) if fits else None
    return _find(text, tokens, truncated)


def overlaps(extent: Extent, spans: Iterable[Span]) -> bool:
    """Whether an entry overlaps a span, by the rule of ``attnpriv.data.spans``."""
    start, end = extent
    return any(start < span.end and end > span.start and end > start for span in spans)


def _find(
    text: str, tokens: Sequence[TokenExplanation], truncated: bool
) -> tuple[Extent, ...] | None:
    runs = [(hidden, list(run)) for hidden, run in groupby(tokens, lambda t: bool(t.entity_types))]
    if truncated and runs and runs[-1][0]:
        return None  # it is unknown where the last placeholder ends
    extents: list[Extent] = []
    at, pending = 0, 0
    for number, (hidden, run) in enumerate(runs, start=1):
        if hidden:
            pending = len(run)
            continue
        last = number == len(runs) and not truncated
        found = _locate(text, run, at, last, after_hidden=pending > 0)
        if found is None:
            return None
        extents += [_strip(text, at, found[0][0])] * pending + found
        at, pending = found[-1][1], 0
    extents += [_strip(text, at, len(text))] * pending
    return tuple(extents) if all(start < end for start, end in extents) else None


def _locate(
    text: str, run: Sequence[TokenExplanation], at: int, last: bool, after_hidden: bool
) -> list[Extent] | None:
    """The extents of a run of shown tokens, with nothing but white space between them."""
    if not all(token.text.strip() for token in run):
        return None
    pattern = r"\s*".join(f"({re.escape(token.text)})" for token in run)
    if last:
        pattern += r"\s*\Z"
    before = r"\s*\S.*?" if after_hidden else r"\s*"
    match = re.compile(before + pattern, re.DOTALL).match(text, at)
    return None if match is None else [match.span(i) for i in range(1, len(run) + 1)]


def _strip(text: str, start: int, end: int) -> Extent:
    """The extent without the white space at its ends."""
    inner = text[start:end]
    return start + len(inner) - len(inner.lstrip()), end - len(inner) + len(inner.rstrip())
