"""From spans of characters to the tokens that carry them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attnpriv.data.records import Span


def sensitive_tokens(offsets: Sequence[tuple[int, int]], spans: Iterable[Span]) -> tuple[bool, ...]:
    """For each token, whether it overlaps a span of personal data.

    A token ``[s, e)`` overlaps a span if ``s < end and e > start and e > s``. The last condition
    leaves out special tokens, whose offsets are (0, 0).

    >>> sensitive_tokens([(0, 0), (0, 2), (3, 6), (0, 0)], [Span(3, 4, "PERSON")])
    (False, False, True, False)
    """
    spans = tuple(spans)
    return tuple(
        any(s < span.end and e > span.start and e > s for span in spans) for s, e in offsets
    )
