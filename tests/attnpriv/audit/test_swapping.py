from __future__ import annotations

import numpy as np
import pytest

from attnpriv.audit.documents import Documents, prepare
from attnpriv.audit.swapping import (
    WORD,
    Entity,
    Pool,
    Swapper,
    entity_keys,
    entity_values,
    find_entities,
    find_words,
    without,
)
from attnpriv.data.records import Span, Texts
from attnpriv.data.text import Text
from attnpriv.data.tokenisation import HashTokenizer

TOKENIZER = HashTokenizer(4096)


def _marked(*texts: str, most: int = 32) -> Documents:
    """Texts in which ``<...>`` marks a person."""
    plain, spans = [], []
    for text in texts:
        found, out = [], ""
        for part in text.replace(">", "<").split("<"):
            if len(out) != len(text) and text.count("<") and part and f"<{part}>" in text:
                found.append(Span(len(out), len(out) + len(part), "PERSON"))
            out += part
        plain.append(out)
        spans.append(tuple(found))
    data = Texts("made", tuple(plain), (0,) * len(texts), ("a",), tuple(spans))
    return prepare(Text(TOKENIZER, most), data, spans)


def _entities(documents: Documents, document: int) -> list[Entity]:
    return find_entities(documents, document, (documents.data.spans or ())[document])


def test_all_mentions_of_a_value_are_one_entity() -> None:
    documents = _marked("ask <anna> or <bob> or <anna> now")
    anna, bob = _entities(documents, 0)
    assert (anna.value, anna.mentions, anna.tokens, anna.size) == ("anna", (4, 19), (2, 6), 1)
    assert (bob.value, bob.mentions, bob.tokens) == ("bob", (12,), (4,))
    assert anna.key == ("PERSON", "anna")


def test_what_the_model_does_not_see_in_full_is_no_entity() -> None:
    text = "ask <anna> or <bob>"
    assert [e.value for e in _entities(_marked(text, most=6), 0)] == ["anna", "bob"]
    assert [e.value for e in _entities(_marked(text, most=5), 0)] == ["anna"]
    assert _entities(_marked(text, most=2), 0) == []
    assert _entities(_marked("ask <anna> or <anna>", most=5), 0) == []  # one of two mentions


def test_words_are_what_stands_between_spaces_and_is_not_sensitive() -> None:
    documents = _marked("reimbursement for <anna>'s e-mail, please!")
    words = find_words(documents, 0)
    assert [w.value for w in words] == ["reimbursement", "for", "e-mail,", "please!"]
    assert [w.size for w in words] == [3, 1, 4, 2]
    assert all(w.kind == WORD for w in words)
    assert words[0].tokens == (1, 2, 3)


def test_words_cut_by_the_models_length_and_texts_without_words() -> None:
    assert [w.value for w in find_words(_marked("for reimbursement", most=4), 0)] == ["for"]
    assert find_words(_marked("<anna>"), 0) == []
    assert find_words(_marked(""), 0) == []


def test_candidates_have_the_kind_and_tokens_and_come_nearest_in_length_first() -> None:
    def entity(value: str, kind: str = "PERSON", size: int = 1) -> Entity:
        return Entity(kind, value, (0,), (1,), size)

    others = ["bo", "eve", "ann", "anna", "emily", "ANNA"]
    pool = Pool([*map(entity, others), entity("nina", kind="CITY"), entity("anna lee", size=2)])
    found = list(pool.candidates(entity("anna"), np.random.default_rng(0)))
    assert sorted(found[:2]) == ["ann", "eve"]
    assert found[2:] == ["emily", "bo"]
    assert list(Pool([]).candidates(entity("anna"), np.random.default_rng(0))) == []


def test_a_swap_changes_the_entitys_tokens_and_no_other() -> None:
    documents = _marked("ask <anna> or <bob> or <anna> now", "<emma> and <dora>", "<nina>")
    pool = Pool(e for d in range(3) for e in _entities(documents, d))
    swapper, rng = Swapper(TOKENIZER, 32, pool), np.random.default_rng(0)
    anna, before = _entities(documents, 0)[0], documents.samples[0].ids
    after = swapper.swap(documents, 0, anna, rng)
    assert after is not None
    changed = [t for t in range(len(before)) if before[t] != after[t]]
    assert tuple(changed) == anna.tokens
    new = {TOKENIZER.encode(name, 8).ids[1] for name in ("emma", "dora", "nina")}
    assert {after[t] for t in anna.tokens} <= new
    assert len({after[t] for t in anna.tokens}) == 1


def test_no_fitting_value_means_no_swap() -> None:
    documents = _marked("ask <anna> now", "ask <reimbursement> now", "ask <Anna> now")
    pool = Pool(e for d in range(3) for e in _entities(documents, d))
    swapper = Swapper(TOKENIZER, 32, pool)
    assert swapper.swap(documents, 0, _entities(documents, 0)[0], np.random.default_rng(0)) is None


def test_a_value_that_melts_into_its_neighbours_does_not_count() -> None:
    """ "x" beside the entity would join a replacement that ends in a letter into other tokens."""
    documents = _marked("<12>x", "<ab> cd")
    pool = Pool([Entity("PERSON", "ab", (0,), (1,), 1)])
    entity = _entities(documents, 0)[0]
    swapper = Swapper(TOKENIZER, 32, pool)
    assert swapper.swap(documents, 0, entity, np.random.default_rng(0)) is None


@pytest.mark.parametrize("tokens", [1, 2, 3, 4])
def test_words_of_just_so_many_tokens_are_swapped(tokens: int) -> None:
    documents = _marked("ask for reimbursement", "or the cancellations now")
    words = [find_words(documents, d) for d in range(2)]
    swapper = Swapper(TOKENIZER, 32, Pool(w for found in words for w in found))
    swapped = [
        swapper.swap_words(documents, 0, words[0], tokens, np.random.default_rng(seed))
        for seed in range(9)
    ]
    assert any(swapped)
    for found in swapped:
        if found is not None:
            ids, where = found
            assert len(where) == tokens
            pairs = enumerate(zip(ids, documents.samples[0].ids, strict=True))
            assert {t for t, (a, b) in pairs if a != b} == set(where)


def test_too_few_words_mean_no_null() -> None:
    documents = _marked("ask <anna>", "or <bob>")
    words = [find_words(documents, d) for d in range(2)]
    swapper = Swapper(TOKENIZER, 32, Pool(w for found in words for w in found))
    assert swapper.swap_words(documents, 0, words[0], 2, np.random.default_rng(0)) is None
    assert swapper.swap_words(documents, 0, [], 1, np.random.default_rng(0)) is None


def test_keys_tell_the_same_value_whatever_its_case() -> None:
    texts, spans = ("Anna", "anna"), ((Span(0, 4, "PERSON"),), (Span(0, 4, "CITY"),))
    keys = entity_keys(texts, spans)
    assert keys == {("PERSON", "anna"), ("CITY", "anna")}
    mine = [Entity("PERSON", "ANNA", (0,), (1,), 1), Entity("PERSON", "bob", (0,), (1,), 1)]
    assert without(mine, keys) == mine[1:]
    assert entity_values("Anna", [*spans[0], *spans[0]]) == {("PERSON", "Anna")}
