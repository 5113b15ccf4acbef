"""Search for a few edits of a text that change the answer.

Words are tried in the order of what leaving them out does to the answer (Jin et al. 2020,
arXiv:1907.11932). A beam of width 1 is the greedy search; a wider one keeps several texts after
each edit (Ebrahimi et al. 2018, arXiv:1712.06751).

Shapes: N texts, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from attnpriv.audit.robustness.text_edits import Edit, apply_edits
from attnpriv.audit.statistics import Floats
from attnpriv.spans import Place

WORDS_AT_ONCE = 6  # most telling words that are tried before each edit, besides the ends

Answer = Callable[[Sequence[str]], Floats]
"""N texts to class logits [N, K]."""


State = tuple[tuple[int, Edit], ...]
"""Edits with the numbers of their places, in order."""


@dataclass(frozen=True)
class Target:
    """A text that is answered rightly, and its words in the order in which they are tried.

    Attributes:
        answer: the classifier.
        text: as it stands in the data.
        label: what it is answered.
        places: of its words, the most telling first, and of its two ends.
        queries: texts that were answered to find their order.
    """

    answer: Answer
    text: str
    label: int
    places: tuple[Place, ...]
    queries: int

    @classmethod
    def of(cls, answer: Answer, text: str, label: int, places: Sequence[Place]) -> Target:
        """Rank the words of a text."""
        words = [place for place in places if not is_end(place)]
        without = [apply_edits(text, [Edit(*place, "")]) for place in words]
        order = rank(answer(without), label) if without else []
        ends = filter(is_end, places)
        return cls(answer, text, label, (*(words[i] for i in order), *ends), len(words))


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        edits: the number of edits that changed the answer; None where none did.
        text: the text with them.
        queries: texts that were answered on the way.
    """

    edits: int | None
    text: str
    queries: int


def is_end(place: Place) -> bool:
    """Whether a place is an end of the text, where there is no word."""
    return place[0] == place[1]


def rank(logits: Floats, label: int) -> list[int]:
    """The rows of logits [N, K] by how little the label leads, wrong answers first."""
    lead = logits[:, label] - np.delete(logits, label, axis=1).max(1)
    order: list[int] = np.lexsort((lead, logits.argmax(1) == label)).tolist()
    return order


def search(target: Target, choices: Sequence[Sequence[Edit]], most: int, width: int) -> Found:
    """The fewest edits that change the answer, as far as the search finds them.

    Args:
        target: what is attacked.
        choices: edits of each of its places.
        most: edits at most.
        width: texts that are kept after each edit.
    """
    beam: list[State] = [()]
    queries = target.queries
    for edits in range(1, most + 1):
        states = sorted({state for each in beam for state in _with_one_more(target, choices, each)})
        if not states:
            break
        texts = [apply_edits(target.text, [edit for _, edit in state]) for state in states]
        logits = target.answer(texts)
        queries += len(texts)
        best = rank(logits, target.label)
        if logits[best[0]].argmax() != target.label:
            return Found(edits, texts[best[0]], queries)
        beam = [states[i] for i in best[:width]]
    return Found(None, target.text, queries)


def _with_one_more(
    target: Target, choices: Sequence[Sequence[Edit]], state: State
) -> Iterator[State]:
    taken = {number for number, _ in state}
    free = [i for i, edits in enumerate(choices) if edits and i not in taken]
    words = [i for i in free if not is_end(target.places[i])]
    ends = [i for i in free if is_end(target.places[i])]
    for number in (*words[:WORDS_AT_ONCE], *ends):
        for edit in choices[number]:
            yield tuple(sorted((*state, (number, edit))))


def token_distance(one: Sequence[int], other: Sequence[int]) -> int:
    """The fewest substitutions, insertions and deletions from one text's tokens to another's.

    >>> token_distance((1, 2, 3), (1, 4, 3, 5))
    2

    Source: Wagner and Fischer 1974.
    """
    before = list(range(len(other) + 1))
    for i, token in enumerate(one, start=1):
        now = [i]
        for j, wanted in enumerate(other, start=1):
            now.append(min(before[j] + 1, now[-1] + 1, before[j - 1] + (token != wanted)))
        before = now
    return before[-1]
