"""Hiding sensitive parts of a text before a model reads it.

Each part becomes one mask token, whatever stood there and however long it was, and the stretches
between the parts are tokenised each by itself. So what the model reads is a function of the
redacted text alone::

    "Call Ann Lee, 555 0199"  ──►  "Call [PERSON], [PHONE_NUMBER]"  ──►  Call <mask> , <mask>
                                                                    or  Call John Smith , +44 20 ...

A public value of its type can be read in place of the mask token, the same for all that it hides.

Claim: two texts with equal ``Redacted`` give the same token ids, and so the same of all that is
computed from these ids. Not covered: how many parts are hidden, of which types and where; what the
detector misses; whether it finds the same parts in both texts, since it reads the hidden values,
and since their lengths move the place where its search of a long text ends.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from attnpriv.data.tokenisation import Encoding, Tokenizer, wrap
from attnpriv.modality import Place, Sample
from attnpriv.sensitive.detector import Detector, placeholder
from attnpriv.sensitive.stand_ins import stand_ins
from attnpriv.spans import Span

# The detector reads a little beyond what is shown, so that a number cut there is recognised.
CONTEXT = 256
# Characters that are searched at first, for each token that the model reads; more where these do
# not fill it. Long hostile texts take the detector seconds.
CHARACTERS = 8
GROWTH = 4


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a text, ``text[start:end]``, that is hidden as a whole, and what it is."""

    start: int
    end: int
    entity_types: tuple[str, ...]

    @property
    def placeholder(self) -> str:
        """What is shown in its place."""
        return "".join(map(placeholder, self.entity_types))


@dataclass(frozen=True)
class Redacted:
    """A text with placeholders in it; it holds nothing of what they hide, not even the length.

    Attributes:
        text: what is shown.
        parts: where the placeholders stand in ``text``, in order.
    """

    text: str
    parts: tuple[Part, ...]

    def encode(
        self, tokenizer: Tokenizer, max_length: int, values: Mapping[str, str] | None = None
    ) -> Encoding:
        """Tokenise it, with one mask token for each part; places are those in ``self.text``.

        Args:
            tokenizer: the model's.
            max_length: ids at most, the two special ones included.
            values: public ones, by type, whose tokens stand for a part in place of the mask token;
                a part that was found to be several things is read as the first of them.

        Raises:
            InputError: as ``Tokenizer.encode``.
        """
        stretches = list(self._visible())
        texts = [self.text[start:end] for start, end in stretches]
        found = zip(stretches, tokenizer.encode_batch(texts, max_length), strict=True)
        tokens = [
            (token, (start + place[0], start + place[1]))
            for (start, _), encoding in found
            for token, place in zip(encoding.ids, encoding.places, strict=True)
            if place is not None
        ]
        for part in self.parts:
            value = (values or {}).get(part.entity_types[0], "")
            stands = _tokens(tokenizer, value, max_length) or [tokenizer.mask_id]
            tokens += [(token, (part.start, part.end)) for token in stands]
        # Sorting is stable, so tokens that share a place stay in their order.
        kept = sorted(tokens, key=lambda token: token[1][0])[: max_length - 2]
        first, last = tokenizer.encode("", 2).ids
        return wrap(first, [token for token, _ in kept], [place for _, place in kept], last)

    def types_at(self, place: Place | None) -> tuple[str, ...]:
        """What a token with this place hides; empty for one that is shown or was added."""
        return () if place is None else self._types.get(place, ())

    @property
    def _types(self) -> dict[Place, tuple[str, ...]]:
        return {(part.start, part.end): part.entity_types for part in self.parts}

    def _visible(self) -> Iterator[Place]:
        start = 0
        for part in self.parts:
            yield start, part.start
            start = part.end
        yield start, len(self.text)


def _tokens(tokenizer: Tokenizer, value: str, max_length: int) -> list[int]:
    """The tokens of a value, without the two special ones."""
    return list(tokenizer.encode(value, max_length).ids[1:-1]) if value else []


def hidden_parts(spans: Iterable[Span]) -> tuple[Part, ...]:
    """The disjoint parts of a text that hide all spans; those that overlap become one."""
    parts: list[Part] = []
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        if span.start >= span.end:
            continue
        if parts and span.start < parts[-1].end:
            last = parts.pop()
            types = dict.fromkeys((*last.entity_types, span.entity_type))
            parts.append(Part(last.start, max(last.end, span.end), tuple(types)))
        else:
            parts.append(Part(span.start, span.end, (span.entity_type,)))
    return tuple(parts)


def redact(text: str, parts: Sequence[Part]) -> Redacted:
    """Put placeholders in the place of parts of a text.

    Args:
        text: the text.
        parts: disjoint and in order, as ``hidden_parts`` gives them.
    """
    shown, moved, length, start = [], [], 0, 0
    for part in parts:
        shown += [text[start : part.start], part.placeholder]
        begins = length + part.start - start
        length = begins + len(part.placeholder)
        moved.append(Part(begins, length, part.entity_types))
        start = part.end
    return Redacted("".join([*shown, text[start:]]), tuple(moved))


@dataclass(frozen=True)
class Reading:
    """What a model reads of a redacted text.

    Attributes:
        redacted: the text, as far as it was searched.
        encoding: what the model reads of it.
        truncated: whether there is more of the text than the model reads.
        parts: what is hidden, by its place in the original text. It is secret, as the lengths are.
        substituted: what the model reads where public values stand for what is hidden. It may end
            sooner, as a value can take more tokens than a mask.
    """

    redacted: Redacted
    encoding: Encoding
    truncated: bool
    parts: tuple[Part, ...]
    substituted: Encoding

    @property
    def words(self) -> list[str]:
        """What is shown at each position of ``encoding``."""
        return self.encoding.words(self.redacted.text)

    def types_at(self, place: Place | None) -> tuple[str, ...]:
        """What a position with this place hides; empty for one that is shown or was added."""
        return self.redacted.types_at(place)

    @property
    def substituted_truncated(self) -> bool:
        """Whether there is more of the text than the model reads with public values in it."""
        return self.truncated or self.substituted.end < self.encoding.end

    def substituted_positions(self) -> list[int | None]:
        """Where each token of ``substituted`` belongs among those of ``encoding``."""
        position = 0
        found: list[int | None] = [position]
        for before, place in pairwise(self.substituted.places[:-1]):
            if place != before or not self.redacted.types_at(place):
                position += 1
            found.append(position)
        return [*found, self.encoding.size - 1]

    def positions(self, full: Sample) -> list[int | None]:
        """Where each token of the original text belongs among those of the redacted one.

        Args:
            full: the original text, read by the same tokeniser.

        Returns:
            For each token of ``full``, a position of ``self.encoding``: of the mask token that
            hides any of it, or else of what holds its first character; None beyond what is read.
        """
        starts = [place[0] for place in self.encoding.places if place is not None]
        end = self.encoding.end
        found: list[int | None] = []
        repeats = 0  # tokens before this one that share its place
        for number, place in enumerate(full.places):
            repeats = repeats + 1 if number and place == full.places[number - 1] else 0
            if place is None:
                found.append(0 if number == 0 else self.encoding.size - 1)
                continue
            moved = self._moved(place)
            last = max(bisect_right(starts, moved), 1)  # the position, as [CLS] is no start
            first = bisect_left(starts, starts[last - 1]) + 1 if starts else 0
            found.append(min(first + repeats, last) if moved < end else None)
        return found

    def _moved(self, place: Place) -> int:
        """Where in the redacted text the first character of a place is."""
        shift = 0
        for before, after in zip(self.parts, self.redacted.parts, strict=True):
            if before.start < place[1] and place[0] < before.end:
                return after.start
            if before.end <= place[0]:
                shift = after.end - before.end
        return place[0] + shift


def read_redacted(
    detector: Detector,
    texts: Sequence[str],
    tokenizer: Tokenizer,
    max_length: int,
    known: Sequence[Sequence[Span]] = (),
) -> list[Reading]:
    """Hide what a detector finds in texts or is known of them, and tokenise what is left.

    Of a long text no more is searched than fills the model's input with whole words: where the
    search ends depends on the lengths of hidden values, so a word that is cut there must not be
    read.

    Args:
        detector: finds what to hide.
        texts: in any number.
        tokenizer: the model's.
        max_length: ids that the model reads at most.
        known: for each text what else is to be hidden; or nothing. It gives its own type to what
            is found within.

    Raises:
        DetectionError: a text could not be searched.
        InputError: as ``Tokenizer.encode``.
    """
    readings: dict[int, Reading] = {}
    window = CHARACTERS * max_length + CONTEXT
    while missing := [i for i in range(len(texts)) if i not in readings]:
        found = detector.detect_all([texts[i][:window] for i in missing])
        for i, spans in zip(missing, found, strict=True):
            hidden = _with_known(spans, known[i] if known else ())
            reading = _read(texts[i], window, hidden, tokenizer, max_length)
            if window >= len(texts[i]) or _is_settled(reading, max_length):
                readings[i] = reading
        window *= GROWTH
    return [readings[i] for i in range(len(texts))]


def _with_known(found: Iterable[Span], known: Sequence[Span]) -> list[Span]:
    """What is known, and what was found anywhere else."""
    own = [
        span
        for span in found
        if not any(each.start <= span.start and span.end <= each.end for each in known)
    ]
    return [*own, *known]


def _is_settled(reading: Reading, max_length: int) -> bool:
    """Whether more of the text would change nothing that is read: white space ends every word."""
    rest = reading.redacted.text[reading.encoding.end :]
    return reading.encoding.size == max_length and any(map(str.isspace, rest))


def _read(
    text: str, window: int, spans: Iterable[Span], tokenizer: Tokenizer, max_length: int
) -> Reading:
    cut = len(text) if window >= len(text) else window - CONTEXT
    parts = tuple(part for part in hidden_parts(spans) if part.start < cut)
    end = max([cut, *(part.end for part in parts)])
    redacted = redact(text[:end], parts)
    encoding = redacted.encode(tokenizer, max_length)
    beyond = redacted.text[encoding.end :] + text[end:]
    truncated = encoding.size == max_length and bool(beyond.strip())
    substituted = redacted.encode(tokenizer, max_length, stand_ins())
    return Reading(redacted, encoding, truncated, parts, substituted)
