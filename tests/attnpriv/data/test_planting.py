"""Planted secrets: how many there are, where, and how they are told from other records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from attnpriv.data import Dataset, load_dataset
from attnpriv.data.planting import plant
from attnpriv.errors import InputError
from attnpriv.planted import LENGTH, WORDS, is_planted, other_secrets


def test_each_secret_stands_in_the_data_as_often_as_asked(tickets: Dataset) -> None:
    planted = plant(tickets, 7, (1, 3, 5), seed=2)
    assert planted.texts[:300] == tickets.texts
    own = Counter(zip(planted.texts[300:], planted.labels[300:], strict=True))
    assert Counter(own.values()) == {1: 7, 3: 7, 5: 7}
    assert len({text for text, _ in own}) == 21
    assert all(is_planted(text) for text, _ in own)
    assert not any(map(is_planted, tickets.texts))
    assert len({label for _, label in own}) > 3
    assert planted == plant(tickets, 7, (1, 3, 5), seed=2)
    assert planted != plant(tickets, 7, (1, 3, 5), seed=3)


def test_spans_mark_the_secret_itself(tickets: Dataset) -> None:
    planted = plant(tickets, 2, (1,))
    assert planted.spans is not None
    for text, spans in zip(planted.texts[300:], planted.spans[300:], strict=True):
        (span,) = spans
        words = text[span.start : span.end].split()
        assert len(words) == LENGTH
        assert {*words} <= {*WORDS}


def test_candidates_differ_in_the_secret_alone(tickets: Dataset) -> None:
    (text,) = plant(tickets, 1, (1,)).texts[300:]
    others = other_secrets(text, 99, Random(0))
    assert len({text, *others}) == 100
    assert all(map(is_planted, others))
    assert {other.rsplit(" ", LENGTH)[0] for other in others} == {text.rsplit(" ", LENGTH)[0]}
    with pytest.raises(InputError, match="expected a planted record"):
        other_secrets(tickets.texts[0], 3, Random(0))


@pytest.mark.parametrize(
    ("expected", "arguments"),
    [
        ("secrets and repetitions", (0, (1,))),
        ("secrets and repetitions", (3, (0,))),
        ("different numbers of repetitions", (3, (2, 2))),
        ("different numbers of repetitions", (3, ())),
        ("at most 10000 planted records, got 10001", (1, (10_001,))),
    ],
)
def test_numbers_out_of_range_are_named(
    expected: str, arguments: tuple[int, tuple[int, ...]], tickets: Dataset
) -> None:
    with pytest.raises(InputError, match=expected):
        plant(tickets, *arguments)


def test_the_command_writes_the_data_and_plants_only_once(
    command: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "planted.jsonl"
    done = command("data", "plant", "tickets:rows=60", "--out", out, "--repetitions", "1,2")
    assert (done.code, done.err) == (0, "")
    assert "60 planted records, 120 in all" in done.out
    written = load_dataset(str(out))
    assert written.texts == plant(load_dataset("tickets:rows=60"), 20, (1, 2)).texts
    again = command("data", "plant", out, "--out", tmp_path / "twice.jsonl")
    assert (again.code, again.err.count("\n")) == (2, 1)
    assert "has planted secrets already" in again.err
    wrong = command("data", "plant", out, "--out", tmp_path / "x.jsonl", "--repetitions", "1;2")
    assert wrong.code == 2
    assert "whole numbers with commas between them, got '1;2'" in wrong.err
