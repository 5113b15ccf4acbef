"""What is said, and what is refused, where an encoder does not know the words of the texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attnpriv.config import AttentionConfig, PrivacyConfig, TrainConfig
from attnpriv.data import Dataset, Texts
from attnpriv.errors import InputError
from attnpriv.training import train, tune
from attnpriv.training.candidates import Candidate
from attnpriv.training.preparation import build_classifier, check_known
from tests.attnpriv.training.conftest import write_encoder

CHINESE = ("包裹在哪里", "订单还没有送到")
KNOWN = ("where is my parcel", "my order is late")
ROWS = 40
UNKNOWN = tuple(f"{'包' * (i + 1)} {CHINESE[i % 2]}" for i in range(ROWS))
HEAD = TrainConfig(trainable="head", steps=2)


def dataset(texts: tuple[str, ...]) -> Dataset:
    return Texts("mail", texts, tuple(i % 2 for i in range(len(texts))), ("a", "b"))


def mixed(chinese: int) -> Dataset:
    """So many rows that end in Chinese, the others in English."""
    words = [(CHINESE if i < chinese else KNOWN)[i % 2] for i in range(ROWS)]
    return dataset(tuple(f"my order {'again ' * (i % 7)}{word}" for i, word in enumerate(words)))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"), (*KNOWN, "my order again message"))


def write(data: Dataset, path: Path) -> Path:
    rows = [
        f"{data.label_names[label]}\t{text}\n"
        for text, label in zip(data.texts, data.labels, strict=True)
    ]
    path.write_text("".join(rows), encoding="utf-8")
    return path


def test_exact_shares_decide(encoder: Path) -> None:
    """Of two texts with 100 characters in all."""
    classifier = build_classifier(str(encoder), AttentionConfig(), "mean", False, 2)
    told: list[str] = []

    def check(unknown: int) -> None:
        data = dataset(("is " * ((100 - unknown) // 2), "哪" * unknown))
        whole = replace(classifier.modality, max_length=200).read(data.records)
        check_known(classifier, data, whole, told.append)

    check(0)
    assert told == []
    check(2)
    assert len(told) == 1
    assert f"encoder {encoder.name} cannot read all of the training texts: 2.0 %" in told[0]
    assert "1 of 2 texts" in told[0]
    check(50)
    assert "50.0 %" in told[1]
    with pytest.raises(InputError, match=r"encoder .* can read, but 52\.0 % .*--encoder scratch"):
        check(52)
    assert len(told) == 2


def test_texts_that_are_mostly_unknown_are_refused_and_nothing_is_written(
    encoder: Path, tmp_path: Path
) -> None:
    data, out = dataset(UNKNOWN), tmp_path / "run"
    shared: Any = {
        "encoder": str(encoder),
        "attention": AttentionConfig(),
        "privacy": PrivacyConfig(epsilon=3.0),
    }
    with pytest.raises(InputError, match=r"but 100\.0 % of their characters"):
        train(data, out, config=HEAD, **shared)
    with pytest.raises(InputError, match=r"but 100\.0 % of their characters"):
        tune(data, out, candidates=[Candidate(HEAD)], **shared)
    assert [*tmp_path.iterdir()] == []


def test_a_warning_is_shown_and_its_figures_are_in_no_file(
    command: Callable[..., Any], encoder: Path, tmp_path: Path
) -> None:
    file, out = write(mixed(8), tmp_path / "mail.tsv"), tmp_path / "run"
    options = ["--data", file, "--encoder", encoder, "--steps", 2, "--epsilon", "none"]
    trained = command("train", *options, "--classes", 2, "--out", out)
    assert trained.code == 0, trained.err
    (warning,) = [line for line in trained.err.splitlines() if line.startswith("warning: ")]
    assert "private data" in warning
    share = warning.split(": ")[2].split(" %")[0]
    assert 1 < float(share) < 50
    for path in out.iterdir():
        assert share.encode() + b" %" not in path.read_bytes()
        assert b"cannot tell apart" not in path.read_bytes()
    evaluated = command("evaluate", out, "--data", file, "--all-rows")
    assert "warning: run cannot read all of the texts of mail: " in evaluated.err
    audited = command("audit", out, "--data", file, "--out", file / "no folder")
    assert audited.code == 2  # after the warning
    assert "warning: run cannot read all of the texts of mail: " in audited.err
    known = write(mixed(0), tmp_path / "known.tsv")
    assert "cannot read" not in command("evaluate", out, "--data", known, "--all-rows").err


def test_the_command_ends_with_2_and_names_what_would_read_the_texts(
    command: Callable[..., Any], encoder: Path, tmp_path: Path
) -> None:
    file = write(dataset(UNKNOWN), tmp_path / "mail.tsv")
    options = ["--data", file, "--steps", 2, "--epsilon", "none", "--classes", 2]
    refused = command("train", *options, "--encoder", encoder, "--out", tmp_path / "run")
    assert refused.code == 2
    assert refused.err.count("error: ") == 1
    assert "--encoder scratch" in refused.err
    assert not (tmp_path / "run").exists()
    assert command("train", *options, "--out", tmp_path / "run").code == 0
