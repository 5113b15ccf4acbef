"""The radii of a pooling head against every text that few edits can make; integers are exact."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from attnpriv import guarantees as g
from attnpriv.errors import InputError

MOST = 3  # edits that are tried
Text = tuple[int, ...]
Edits = Callable[[Text, list[int]], Iterator[Text]]


def substituted(text: Text, vocabulary: list[int]) -> Iterator[Text]:
    for place, word in itertools.product(range(len(text)), vocabulary):
        yield (*text[:place], word, *text[place + 1 :])


def deleted(text: Text, vocabulary: list[int]) -> Iterator[Text]:
    for place in range(len(text)):
        yield (*text[:place], *text[place + 1 :])


def inserted(text: Text, vocabulary: list[int]) -> Iterator[Text]:
    for place, word in itertools.product(range(len(text) + 1), vocabulary):
        yield (*text[:place], word, *text[place:])


def edited(text: Text, vocabulary: list[int]) -> Iterator[Text]:
    for edits in substituted, deleted, inserted:
        yield from edits(text, vocabulary)


def withstood(text: Text, vocabulary: list[int], edits: Edits, most: int, fixed: int) -> int:
    """The radius by trying every text that differs in 1, 2, ... up to ``most`` edits."""
    reached = {text}
    for number in range(most + 1):
        if any(sum(each) + fixed <= 0 for each in reached):
            return max(number - 1, 0)
        reached = {new for each in reached for new in edits(each, vocabulary)} or reached
    return most


def cases(count: int) -> Iterator[tuple[Text, list[int], int]]:
    """Small whole numbers, of which many sums are exactly zero."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        vocabulary = rng.integers(rng.integers(-6, 3), 7, 3).tolist()
        tokens = rng.choice(vocabulary, rng.integers(0, 5)).tolist()
        yield tuple(tokens), vocabulary, int(rng.integers(-2, 5))


def test_substitution_radius_is_that_of_an_exhaustive_search() -> None:
    found = []
    for tokens, vocabulary, fixed in cases(600):
        expected = withstood(tokens, vocabulary, substituted, len(tokens), fixed)
        assert g.substitution_radius(tokens, min(vocabulary), fixed) == expected
        found.append(expected)
    assert set(found) == {0, 1, 2, 3, 4}


def test_deletion_radius_is_that_of_an_exhaustive_search() -> None:
    found = []
    for tokens, vocabulary, fixed in cases(600):
        expected = withstood(tokens, vocabulary, deleted, len(tokens), fixed)
        assert g.deletion_radius(tokens, fixed) == expected
        found.append(expected)
    assert set(found) == {0, 1, 2, 3, 4}


def test_insertion_radius_is_that_of_an_exhaustive_search() -> None:
    found = []
    for tokens, vocabulary, fixed in cases(150):
        expected = withstood(tokens, vocabulary, inserted, MOST, fixed)
        assert g.insertion_radius(tokens, min(vocabulary), MOST, fixed) == expected
        found.append(expected)
    assert set(found) == {0, 1, 2, 3}


def test_edit_radius_is_that_of_an_exhaustive_search_over_mixtures() -> None:
    found = []
    for tokens, vocabulary, fixed in cases(300):
        expected = withstood(tokens, vocabulary, edited, 2, fixed)
        assert g.edit_radius(tokens, min(vocabulary), 2, fixed) == expected
        found.append(expected)
    assert set(found) == {0, 1, 2}


def test_edit_radius_holds_where_a_model_reads_only_the_beginning() -> None:
    for tokens, vocabulary, fixed in cases(200):
        room = max(1, len(tokens) - 2)
        radius = g.edit_radius(tokens[:room], min(vocabulary), 2, fixed)
        reached = {tokens}
        for _ in range(radius):
            reached |= {new for each in reached for new in edited(each, vocabulary)}
        assert radius == 0 or all(sum(each[:room]) + fixed > 0 for each in reached)


def test_no_mixture_of_edits_is_weaker_than_one_kind_alone() -> None:
    for tokens, vocabulary, fixed in cases(600):
        least, most = min(vocabulary), len(tokens)
        alone = (
            g.substitution_radius(tokens, least, fixed),
            g.deletion_radius(tokens, fixed),
            g.insertion_radius(tokens, least, most, fixed),
        )
        assert g.edit_radius(tokens, least, most, fixed) <= min(alone)


def test_substitution_radius_counts_only_what_the_vocabulary_can_lower() -> None:
    # The text has a token that is below every word of the vocabulary: nobody substitutes it.
    assert g.substitution_radius([5.0, -1.0], 0.0) == 0
    assert g.substitution_radius([5.0, 3.0, -1.0], 0.0) == 1


def test_substitution_radius_keeps_the_sign_of_sums_that_nearly_cancel() -> None:
    tokens = [1e16, 1.0, -1e16, 1.0]
    assert g.substitution_radius([*tokens, -1.0], -1e16) == 0
    assert g.substitution_radius([1e16, 1.0, -1e16], -1e16) == 0
    assert g.substitution_radius(tokens, 1.0) == 0
    assert g.substitution_radius([], 1.0) == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_radii_refuse_numbers_that_are_not_finite(value: float) -> None:
    calls = (
        lambda: g.substitution_radius([1.0, value], 0.0),
        lambda: g.substitution_radius([1.0, 2.0], value),
        lambda: g.deletion_radius([1.0], value),
        lambda: g.insertion_radius([1.0], value, 3),
        lambda: g.edit_radius([1.0], 0.0, 3, value),
    )
    for call in calls:
        with pytest.raises(InputError, match=f"expected finite contributions, got {value}"):
            call()


@pytest.mark.parametrize("most", [-1, 2.5, 2**60])
def test_radii_refuse_a_number_of_edits_that_nobody_can_make(most: float) -> None:
    for radius in g.insertion_radius, g.edit_radius:
        with pytest.raises(InputError, match="expected most as a whole number"):
            radius([1.0], 0.0, most)  # type: ignore[arg-type]
