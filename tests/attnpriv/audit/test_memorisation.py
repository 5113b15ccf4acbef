from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.stats import binom

from attnpriv.audit import memorisation
from attnpriv.audit.documents import Documents, prepare
from attnpriv.audit.memorisation import MemorisationResult, measure_memorisation
from attnpriv.data import Dataset, Texts
from attnpriv.data.records import Span
from attnpriv.data.text import Text
from attnpriv.data.tickets import make_tickets
from attnpriv.data.tokenisation import HashTokenizer
from attnpriv.runs.folder import Run

SETTINGS = {"most": 60, "permutations": 199, "resamples": 100, "seed": 0}


def _swaps(drops: list[float], documents: list[int], members: int) -> list[memorisation._Swap]:
    """Entities of documents, the first so many of which are training documents."""
    return [
        memorisation._Swap(document, document < members, drop, (number,), (-1,))
        for number, (drop, document) in enumerate(zip(drops, documents, strict=True))
    ]


def _result(swaps: list[memorisation._Swap], permutations: int, seed: int) -> MemorisationResult:
    return memorisation._result(swaps, 0, None, permutations, 20, seed)


def test_the_p_value_is_that_of_all_divisions_of_the_documents() -> None:
    rng = np.random.default_rng(0)
    documents = [0, 0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8]
    drops = rng.normal(size=12) + np.where(np.array(documents) < 4, 0.4, 0)
    rows = np.array(documents)

    def gap(members: tuple[int, ...]) -> float:
        inside = np.isin(rows, members)
        return float(drops[inside].mean() - drops[~inside].mean())

    observed = gap((0, 1, 2, 3))
    exact = np.mean([gap(m) >= observed - 1e-9 for m in combinations(range(9), 4)])
    result = _result(_swaps(drops.tolist(), documents, 4), 8000, seed=0)
    assert 0.02 < exact < 0.5
    assert result.p_value == pytest.approx(exact, abs=4 * (exact / 8000) ** 0.5)
    assert result.difference.value == pytest.approx(observed)
    assert result.member_drop.value == pytest.approx(drops[rows < 4].mean())
    assert (result.member_documents, result.held_out_documents) == (4, 5)
    assert (result.member_entities, result.held_out_entities) == (6, 6)


def test_ties_that_rounding_turns_leave_the_p_value() -> None:
    rng = np.random.default_rng(3)
    exact = np.array([2.0, 2.0, -1.0, 0.0, 0.0, 2.0, -1.0, 0.0, -1.0])  # many gaps are alike
    expected = _result(_swaps(exact.tolist(), list(range(9)), 4), 1000, seed=0).p_value
    for _ in range(10):
        rounded = exact + 2.0**-22 * rng.integers(-1, 2, 9)
        result = _result(_swaps(rounded.tolist(), list(range(9)), 4), 1000, seed=0)
        assert result.p_value == expected


@pytest.mark.exhaustive
def test_without_memorisation_it_is_flagged_as_seldom_as_stated() -> None:
    """Entities of a document are lost together, and members have more of them."""
    flagged = 0
    for draw in range(100):
        rng = np.random.default_rng(draw)
        documents = np.repeat(np.arange(40), rng.integers(1, 6, 40))
        drops = rng.exponential(size=40)[documents]
        result = _result(_swaps(drops.tolist(), documents.tolist(), 20), 199, seed=draw)
        flagged += result.flagged
    assert flagged <= binom.isf(0.005, 100, 0.05)  # 11


def _prepare(run: Run, data: Dataset) -> Documents:
    assert data.spans is not None
    return prepare(run.modality, data, data.spans)


def _measure(
    run: Run, members: Documents, held_out: Documents, **others: list[str]
) -> MemorisationResult:
    spans = members.data.spans or (), held_out.data.spans or ()
    return measure_memorisation(run, members, spans[0], held_out, spans[1], **others, **SETTINGS)


def test_a_model_that_learnt_random_labels_by_heart_is_flagged(
    train_quickly: Callable[[Dataset, int], Run],
) -> None:
    """Nothing but memory tells these labels."""
    data = make_tickets(160, seed=0)
    labels = tuple(np.random.default_rng(0).permutation(data.labels).tolist())
    data = replace(data, labels=labels)
    members = data.subset(range(60))
    run = train_quickly(members, 100)
    result = _measure(run, _prepare(run, members), _prepare(run, data.subset(range(60, 160))))
    assert result.flagged
    assert result.valid
    assert (result.difference.low or 0) > 0
    assert (result.member_drop.low or 0) > (result.held_out_drop.high or 9)


def test_what_all_of_a_class_share_is_not_memorised(
    leaky_run: Run, leaky_members: Documents, leaky_documents: Documents
) -> None:
    """The domain tells the label: swapping it costs much, in both groups alike."""
    result = _measure(leaky_run, leaky_members, leaky_documents)
    assert not result.flagged
    assert result.valid
    assert (result.member_drop.low or 0) > 0.1
    assert (result.held_out_drop.low or 0) > 0.1
    assert result == _measure(leaky_run, leaky_members, leaky_documents)


def _documents(*texts: str) -> Documents:
    """Texts whose last word is a value, of the type that the first word names."""
    spans = tuple((Span(text.rindex(" ") + 1, len(text), text.split()[0]),) for text in texts)
    data = Texts("made", texts, (0,) * len(texts), tuple("abcdefghij"), spans)
    return prepare(Text(HashTokenizer(4096), 64), data, spans)


def _log_odds(run: Run, text: str) -> float:
    inputs = _documents(text).inputs([0])
    logits = run.model(inputs.values, inputs.mask)[0].double()
    return float(logits[0] - torch.logsumexp(logits[1:], 0))


def test_drops_are_those_of_the_true_labels_log_odds(run: Run) -> None:
    """One unseen name and two unseen cities: it is known what takes the place of what."""
    members, held_out = ("name anna", "name bob"), ("name emma", "city rome", "city oslo")
    result = _measure(run, _documents(*members), _documents(*held_out))
    values = {text: _log_odds(run, text) for text in (*members, *held_out)}
    fallen = (values["name anna"] + values["name bob"]) / 2 - values["name emma"]
    assert result.member_drop.value == pytest.approx(fallen, abs=1e-5)
    assert result.held_out_drop.value == pytest.approx(0, abs=1e-5)  # there and back
    assert result.difference.value == pytest.approx(fallen, abs=1e-5)
    assert (result.member_entities, result.held_out_entities, result.left_out) == (2, 2, 1)


def test_values_without_an_unseen_counterpart_are_left_out(run: Run) -> None:
    result = _measure(run, _documents("name anna", "city rome"), _documents("name emma"))
    assert (result.member_entities, result.held_out_entities, result.left_out) == (1, 0, 2)
    assert (result.p_value, result.difference.value, result.valid) == (None, None, False)


def test_entities_in_several_documents_are_left_out(run: Run) -> None:
    members = _documents("name anna", "name ANNA", "name bob", "name carl")
    held_out = _documents("name emma", "name eve", "name carl")
    result = _measure(run, members, held_out)
    assert (result.member_entities, result.held_out_entities) == (1, 2)
    assert (result.member_documents, result.held_out_documents) == (1, 2)


def test_a_value_that_another_training_text_holds_was_seen(run: Run) -> None:
    members = _documents("name anna", "name bob")
    held_out = _documents("name emma", "name eve", "name mary")
    result = _measure(run, members, held_out, trained_on=["we know Eve", "and BOB"])
    assert (result.member_entities, result.held_out_entities) == (1, 2)


def test_no_documents_give_no_number(run: Run) -> None:
    nothing = _documents()
    for members, held_out in ((nothing, nothing), (_documents("name anna"), nothing)):
        result = _measure(run, members, held_out)
        assert (result.member_entities, result.held_out_entities) == (0, 0)
        assert (result.p_value, result.flagged, result.valid) == (None, False, False)


def test_too_few_documents_are_admitted(run: Run) -> None:
    result = _measure(run, _documents("name anna", "name bob"), _documents("name emma", "name eve"))
    assert result.p_value is not None
    assert not result.positive.passed
    assert not result.valid
