"""Small edits of a text that leave it readable: what attacks on texts choose from.

An edit replaces one word, or adds one at an end of the text, so that edits of different places
never overlap.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from attnpriv.audit.statistics import Floats
from attnpriv.data.lookalikes import LOOKALIKES
from attnpriv.data.normalisation import NormalisingTokenizer
from attnpriv.data.pretrained import PretrainedTokenizer
from attnpriv.models.text import TextModel
from attnpriv.runs.folder import Run
from attnpriv.spans import Place

ZERO_WIDTH = "\u200b"
ADDED = ("hello", "please", "thanks", "ok", "today", "sorry")  # before or after a text
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LONG = 4  # letters of a word that stays readable with two of them swapped or one dropped
NEIGHBOURS = 4  # of a word that may take its place
NEAR = 0.4  # their cosine at least
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, order=True)
class Edit:
    """Other characters in the place of those from ``start`` up to ``end``."""

    start: int
    end: int
    text: str


Draw = np.random.Generator
Family = Callable[[str, Place, Draw], Iterator[Edit]]
"""A text, the place of a word in it, and what draws letters, to a few edits of that word.

An empty place is an end of the text.
"""


def apply_edits(text: str, edits: Sequence[Edit]) -> str:
    """The text with edits of different places."""
    pieces, at = [], 0
    for edit in sorted(edits):
        pieces += [text[at : edit.start], edit.text]
        at = edit.end
    return "".join([*pieces, text[at:]])


def places_of(text: str, end: int) -> list[Place]:
    """The words that begin before ``end``, and both ends of the text."""
    words = [match.span() for match in _WORD.finditer(text) if match.start() < end]
    return [*words, (0, 0), (len(text), len(text))]


def choices_at(
    kinds: Iterable[Family], text: str, places: Sequence[Place], seed: int
) -> list[list[Edit]]:
    """The edits of each place; the same for a place whatever its rank."""
    return [
        [
            edit
            for kind in kinds
            for edit in kind(text, place, np.random.default_rng([seed, *place]))
        ]
        for place in places
    ]


def families(run: Run) -> dict[str, Family]:
    """All kinds of edits by their names; neighbouring words where the model knows words."""
    found: dict[str, Family] = {
        "typing errors": typing_errors,
        "lookalikes": lookalikes,
        "zero width": zero_width,
        "case and spacing": case_and_spacing,
        "added words": added_words,
    }
    tokenizer = run.tokenizer
    if isinstance(tokenizer, NormalisingTokenizer):
        tokenizer = tokenizer.inner
    if isinstance(tokenizer, PretrainedTokenizer) and isinstance(run.model, TextModel):
        found["neighbouring words"] = Neighbours(run.model, tokenizer).edits
    return found


def typing_errors(text: str, place: Place, draw: Draw) -> Iterator[Edit]:
    """Two letters swapped, one dropped, one added, all after the first letter."""
    start, end = place
    if end - start < LONG:
        return
    at = start + int(draw.integers(1, end - start - 1))
    yield Edit(start, end, text[start:at] + text[at + 1] + text[at] + text[at + 2 : end])
    yield Edit(start, end, text[start:at] + text[at + 1 : end])
    yield Edit(start, end, text[start:at] + str(draw.choice(list(LETTERS))) + text[at:end])


def lookalikes(text: str, place: Place, draw: Draw) -> Iterator[Edit]:
    """One letter replaced by one that looks like it, twice."""
    start, end = place
    letters = [i for i in range(start, end) if text[i] in LOOKALIKES]
    for at in sorted(draw.permutation(letters).tolist()[:2]):
        other = str(draw.choice(list(LOOKALIKES[text[at]])))
        yield Edit(start, end, text[start:at] + other + text[at + 1 : end])


def zero_width(text: str, place: Place, draw: Draw) -> Iterator[Edit]:
    """A character that is not seen between two letters."""
    start, end = place
    if end - start > 1:
        at = start + int(draw.integers(1, end - start))
        yield Edit(start, end, text[start:at] + ZERO_WIDTH + text[at:end])


def case_and_spacing(text: str, place: Place, draw: Draw) -> Iterator[Edit]:
    """Capitals and small letters exchanged, the word in two, or joined with the next."""
    start, end = place
    if start == end:
        return
    word = text[start:end]
    if word.swapcase() != word:
        yield Edit(start, end, word.swapcase())
    if len(word) > 1:
        at = int(draw.integers(1, len(word)))
        yield Edit(start, end, f"{word[:at]} {word[at:]}")
    if text[end : end + 1] == " ":
        yield Edit(start, end + 1, word)


def added_words(text: str, place: Place, draw: Draw) -> Iterator[Edit]:
    """A common word before or after the text."""
    start, end = place
    if start == end:
        for word in ADDED:
            yield Edit(start, end, f"{word} " if start == 0 else f" {word}")


class Neighbours:
    """Words whose vectors in the encoder's table are nearest to a word's.

    Not covered: whether they mean the same. The table is public unless all of it was trained.
    """

    def __init__(self, model: TextModel, tokenizer: PretrainedTokenizer) -> None:
        self._number = {word: i for i, word in enumerate(tokenizer.words)}
        self._words = list(tokenizer.words)
        table: Floats = model.words.weight.double().numpy()[list(tokenizer.words.values())]
        self._vectors = table / np.linalg.norm(table, axis=1, keepdims=True).clip(min=1e-12)

    def edits(self, text: str, place: Place, draw: Draw) -> Iterator[Edit]:
        """The nearest words in the place of one."""
        number = self._number.get(text[slice(*place)].lower())
        if number is None:
            return
        cosines = self._vectors @ self._vectors[number]
        cosines[number] = -1
        for other in np.argsort(-cosines, kind="stable")[:NEIGHBOURS].tolist():
            if cosines[other] >= NEAR:
                yield Edit(*place, self._words[other])
