"""Another value in the place of an entity, such that nothing else of the tokens changes.

A replacement is written into the text, which is then tokenised again; it counts only if the text
has as many tokens as before and all tokens beside the entity's are what they were. So positions,
length and context stay, and whatever the model does differently it does because of the value.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from attnpriv.audit.documents import Documents
from attnpriv.data.records import Span
from attnpriv.data.tokenisation import Tokenizer
from attnpriv.explain.removal import ROWS_AT_ONCE
from attnpriv.modality import Place
from attnpriv.models.classifier import AttentionClassifier

WORD = ""  # the kind of words that are not sensitive; no entity type is empty
TRIES = 8  # replacements that are tokenised before an entity is left out

Ids = tuple[int, ...]
Key = tuple[str, str]


@dataclass(frozen=True)
class Entity:
    """A value in one document, with all its mentions; or a word that is not sensitive.

    Attributes:
        kind: entity type, or ``WORD``.
        value: the text of each mention.
        mentions: where they start, in characters.
        tokens: positions of all their tokens.
        size: tokens of one mention.
    """

    kind: str
    value: str
    mentions: tuple[int, ...]
    tokens: tuple[int, ...]
    size: int

    @property
    def key(self) -> Key:
        """What makes it the same entity elsewhere: its kind, and its value whatever the case."""
        return self.kind, self.value.casefold()


def find_entities(documents: Documents, document: int, spans: Sequence[Span]) -> list[Entity]:
    """The entities of a document whose mentions all lie within what the model sees of it.

    Tokens belong to a span by the rule of ``attnpriv.data.spans``.
    """
    text, encoding = documents.data.records[document], documents.samples[document]
    mentions: dict[tuple[str, str], list[Span]] = defaultdict(list)
    for span in spans:
        mentions[span.entity_type, text[span.start : span.end]].append(span)
    found = []
    for (kind, value), group in mentions.items():
        tokens = [np.flatnonzero(encoding.marks([span])) for span in group]
        sizes = {len(each) for each in tokens}
        if len(sizes) == 1 and min(sizes) and all(span.end <= encoding.end for span in group):
            starts = tuple(span.start for span in group)
            positions = tuple(np.concatenate(tokens).tolist())
            found.append(Entity(kind, value, starts, positions, sizes.pop()))
    return found


def find_words(documents: Documents, document: int) -> list[Entity]:
    """The words between white space that hold no sensitive token, each mention for itself."""
    text = documents.data.records[document]
    found = []
    for run, start, end in _runs(documents.samples[document].places, text):
        alone = text[start - 1 : start].strip() == "" == text[end : end + 1].strip()
        if alone and not documents.sensitive[document][run].any():
            found.append(Entity(WORD, text[start:end], (start,), tuple(run), len(run)))
    return found


def _runs(places: Sequence[Place | None], text: str) -> list[tuple[list[int], int, int]]:
    """Tokens with nothing between them: their positions, their first character and their end.

    Some tokenisers have tokens for white space, which part words as white space does.
    """
    runs: list[tuple[list[int], int, int]] = []
    for token, place in enumerate(places):
        if place is None or text[slice(*place)].isspace():
            continue
        start, end = place
        if runs and start <= runs[-1][2]:
            before, start, _ = runs.pop()
            runs.append(([*before, token], start, end))
        else:
            runs.append(([token], start, end))
    return runs


def class_logits(model: AttentionClassifier, values: Tensor, mask: Tensor) -> Tensor:
    """Class logits [N, K] of values [N, T] or [N, T, P] under masks [N, T], some rows at a time."""
    parts = zip(torch.split(values, ROWS_AT_ONCE), torch.split(mask, ROWS_AT_ONCE), strict=True)
    return torch.cat([model(*part) for part in parts])


class Pool:
    """Values to put in the place of others: by kind, number of tokens and number of characters."""

    def __init__(self, entities: Iterable[Entity]) -> None:
        values: dict[tuple[str, int], dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        for entity in entities:
            values[entity.kind, entity.size][len(entity.value)].add(entity.value)
        self._values = {
            key: {length: sorted(same) for length, same in lengths.items()}
            for key, lengths in values.items()
        }

    def candidates(self, entity: Entity, rng: np.random.Generator) -> Iterator[str]:
        """Other values of its kind and number of tokens, the nearest in length first."""
        lengths = self._values.get((entity.kind, entity.size), {})
        for length in sorted(lengths, key=lambda n: (abs(n - len(entity.value)), n)):
            for i in rng.permutation(len(lengths[length])):
                value = lengths[length][i]
                if value.casefold() != entity.value.casefold():
                    yield value


class Swapper:
    """Writes replacements into the documents of one tokeniser."""

    def __init__(self, tokenizer: Tokenizer, max_length: int, pool: Pool) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._pool = pool

    def swap(
        self, documents: Documents, document: int, entity: Entity, rng: np.random.Generator
    ) -> Ids | None:
        """The document's token ids with another value for the entity; None if none fits."""
        for value in islice(self._pool.candidates(entity, rng), TRIES):
            ids = self._rewrite(documents, document, [(entity, value)])
            if ids is not None:
                return ids
        return None

    def swap_words(
        self,
        documents: Documents,
        document: int,
        words: Sequence[Entity],
        tokens: int,
        rng: np.random.Generator,
    ) -> tuple[Ids, tuple[int, ...]] | None:
        """The ids with words of so many tokens in total replaced, and where; None if too few."""
        chosen: list[tuple[Entity, str]] = []
        left = tokens
        for i in rng.permutation(len(words)):
            value = next(self._pool.candidates(words[i], rng), None)
            if words[i].size <= left and value is not None:
                chosen.append((words[i], value))
                left -= words[i].size
        ids = self._rewrite(documents, document, chosen) if not left else None
        return None if ids is None else (ids, sum((word.tokens for word, _ in chosen), ()))

    def _rewrite(
        self, documents: Documents, document: int, values: Sequence[tuple[Entity, str]]
    ) -> Ids | None:
        edits = [(start, entity, value) for entity, value in values for start in entity.mentions]
        text = documents.data.records[document]
        for start, entity, value in sorted(edits, key=lambda edit: edit[0], reverse=True):
            text = text[:start] + value + text[start + len(entity.value) :]
        before = documents.samples[document].ids
        after = self._tokenizer.encode(text, self._max_length).ids
        if len(after) != len(before):
            return None
        changed = {t for t, pair in enumerate(zip(before, after, strict=True)) if len({*pair}) > 1}
        allowed = {token for entity, _ in values for token in entity.tokens}
        return after if changed and changed <= allowed else None


def entity_values(text: str, spans: Iterable[Span]) -> set[tuple[str, str]]:
    """The type and the value of each entity of a text, however often it is mentioned."""
    return {(span.entity_type, text[span.start : span.end]) for span in spans}


def entity_keys(texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> frozenset[Key]:
    """The type and the value of every entity in the texts, to tell later which were seen."""
    return frozenset(
        (kind, value.casefold())
        for text, found in zip(texts, spans, strict=True)
        for kind, value in entity_values(text, found)
    )


def without(entities: Iterable[Entity], seen: Collection[Key]) -> list[Entity]:
    """Those whose value is not among the given ones."""
    return [entity for entity in entities if entity.key not in seen]
