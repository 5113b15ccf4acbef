"""From spans of characters to the tokens that carry them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attnpriv.data.records import Span
from attnpriv.spans import Place


def sensitive_tokens(places: Sequence[Place | None], spans: Iterable[Span]) -> tuple[bool, ...]:
    """For each token, whether it overlaps a span of personal data.

    A token at ``(s, e)`` overlaps a span if ``s < end and e > start and e > s``. A special token,
    which the model added, has no place (None) and overlaps none.

    >>> sensitive_tokens([None, (0, 2), (3, 6), None], [Span(3, 4, "PERSON")])
    (False, False, True, False)
    """
    spans = tuple(spans)
    return tuple(place is not None and _overlaps(place, spans) for place in places)


def _overlaps(place: Place, spans: tuple[Span, ...]) -> bool:
    s, e = place
    return any(s < span.end and e > span.start and e > s for span in spans)
