"""The named depths of an audit, and samples that shrink where documents are long."""

from __future__ import annotations

import dataclasses
from typing import get_args

import pytest

from attnpriv.audit.subject import SIZES, AuditOptions, Rows, Subject
from attnpriv.config import Depth
from attnpriv.data import Texts
from attnpriv.runs.folder import Run


def test_every_depth_measures_at_least_as_much_as_the_one_before() -> None:
    quick, standard, thorough = (AuditOptions.at(depth) for depth in get_args(Depth))
    assert standard == AuditOptions()
    for less, more in ((quick, standard), (standard, thorough)):
        for name in {*SIZES["quick"], *SIZES["thorough"]}:
            assert getattr(less, name) <= getattr(more, name), name
        assert less != more


def test_a_given_number_replaces_that_of_the_depth() -> None:
    options = AuditOptions.at("quick", documents=70, seed=3)
    assert (options.depth, options.documents, options.seed) == ("quick", 70, 3)
    assert dataclasses.replace(options, documents=200, seed=0) == AuditOptions.at("quick")


@pytest.mark.parametrize(
    ("words", "full", "expected"),
    [
        (10, 64, 32),  # with [CLS] and [SEP] 12 tokens, which is less than 64: the whole sample
        (62, 64, 32),
        (62, 32, 16),
        (62, 1, 1),  # never none
    ],
)
def test_samples_shrink_in_proportion_where_documents_are_long(
    run: Run, words: int, full: int, expected: int
) -> None:
    data = Texts("long", ("word " * words,) * 40, (0,) * 40, run.label_names, ((),) * 40)
    options = AuditOptions(full_sample_tokens=full)
    rows = Rows(None, tuple(range(40)), frozenset())
    subject = Subject(run, data, rows, dict.fromkeys(range(40), ()), options)
    length = len(subject.documents.samples[0].ids)
    assert length == min(words + 2, run.model.config.max_length)
    assert subject.affordable(32) == expected
    assert subject.taken(10_000) <= 40
