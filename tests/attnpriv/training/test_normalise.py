"""Runs that read texts in one spelling, and what that undoes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnpriv.audit.robustness.text_edits import apply_edits, lookalikes, places_of, zero_width
from attnpriv.config import TrainConfig
from attnpriv.data import Dataset
from attnpriv.data.normalisation import NormalisingTokenizer
from attnpriv.data.text import Text
from attnpriv.runs.folder import Run, load_run
from attnpriv.runs.prediction import predict_probabilities
from attnpriv.sensitive.redaction import Part, Redacted
from attnpriv.spans import Span
from attnpriv.training import train


@pytest.fixture(scope="module")
def run(tickets: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("normalised") / "run"
    config = TrainConfig(trainable="all", steps=25)
    train(tickets, out, config=config, privacy=None, normalise=True)
    return load_run(out)


def edited(text: str, seed: int) -> str:
    """Each word with a lookalike letter, or with a character that is not seen."""
    draw = np.random.default_rng(seed)
    kinds = (lookalikes, zero_width)
    found = []
    for place in places_of(text, len(text)):
        kind = kinds[int(draw.integers(2))]
        found += list(kind(text, place, draw))[:1]
    return apply_edits(text, found)


def answers(run: Run, texts: list[str]) -> np.ndarray:
    return predict_probabilities(run, texts).argmax(1)


def test_the_run_keeps_it(run: Run) -> None:
    assert run.model.config.normalise
    assert isinstance(run.tokenizer, NormalisingTokenizer)
    config = json.loads((run.path / "config.json").read_text(encoding="utf-8"))
    assert config["model"]["normalise"] is True


def test_it_restores_what_lookalikes_and_zero_width_characters_broke(
    run: Run, tickets: Dataset
) -> None:
    texts = [*tickets.records[:80]]
    changed = [edited(text, seed) for seed, text in enumerate(texts)]
    assert isinstance(run.tokenizer, NormalisingTokenizer)
    without = replace(run, modality=Text(run.tokenizer.inner, run.model.config.max_length))
    before = answers(without, texts)
    broken = answers(without, changed) != before
    assert broken.sum() >= 20  # or there is nothing to restore
    restored = answers(run, changed) == before
    assert restored[broken].mean() >= 0.95
    assert (answers(run, texts) == before).all()


def test_personal_data_is_marked_in_the_text_as_it_was_sent(run: Run) -> None:
    text = "mу e-mail is c\u200bat@violet.example.com ﬁne"
    start = text.index("c\u200bat")
    encoding = run.tokenizer.encode(text, 64)
    marked = encoding.marks([Span(start, start + 4, "NAME")])
    (word,) = [text[slice(*place)] for place, on in zip(encoding.places, marked, strict=True) if on]
    assert word == "c\u200bat"
    assert encoding.words(text)[1] == "mу"


def test_what_is_hidden_stays_hidden(run: Run) -> None:
    shown = Redacted("call [NAME] nоw\u200b", (Part(5, 11, ("NAME",)),))
    encoding = shown.encode(run.tokenizer, 16)
    plain = Redacted("call [NAME] now", (Part(5, 11, ("NAME",)),))
    assert encoding.ids == plain.encode(run.tokenizer, 16).ids
    assert (5, 11) in encoding.places


def test_earlier_runs_read_as_before(tiny_run: Path) -> None:
    run = load_run(tiny_run)
    assert not run.model.config.normalise
    assert not isinstance(run.tokenizer, NormalisingTokenizer)


def test_the_command_takes_it_and_a_student_cannot(run: Run, tmp_path: Path, command: Any) -> None:
    usual = ("train", "--data", "tickets:rows=40", "--epsilon", "none", "--steps", 1, "--normalise")
    assert command(*usual, "--out", tmp_path / "run").code == 0
    assert load_run(tmp_path / "run").model.config.normalise
    outcome = command(*usual, "--out", tmp_path / "student", "--distil-from", run.path)
    assert outcome.code == 2
    assert "normalisation" in outcome.err
