from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch

from attnpriv.config import ModelConfig
from attnpriv.data import Dataset
from attnpriv.data.splits import Split, folded, split_indices, split_rule
from attnpriv.errors import RunFolderError
from attnpriv.models.text import TextClassifier
from attnpriv.runs.folder import (
    CARD,
    CONFIG,
    LEDGER,
    TOKENIZER,
    WEIGHTS,
    load_run,
    publish,
    write_json,
    write_model,
)
from attnpriv.runs.prediction import predict_probabilities


@pytest.fixture
def run_copy(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "copy"))


def test_a_run_reads_back_as_it_was_trained(tiny_run: Path, tickets: Dataset) -> None:
    run = load_run(tiny_run)
    assert run.name == "tiny"
    assert run.label_names == tickets.label_names
    assert not run.model.training
    assert not any(p.requires_grad for p in run.model.parameters())
    split = run.split(tickets)
    assert sorted(split.trained + split.held_out) == list(range(len(tickets)))
    assert split.unknown == []
    held_out = tickets.subset(split.held_out)
    predicted = predict_probabilities(run, held_out.texts).argmax(1)
    accuracy = float((predicted == np.array(held_out.labels)).mean())
    assert accuracy == run.card.metrics.held_out.accuracy


def test_a_changed_file_still_tells_trained_rows_from_the_rest(
    tiny_run: Path, tickets: Dataset
) -> None:
    run = load_run(tiny_run)
    known = run.split(tickets)
    for rows in ([*range(299)], [*range(1, 300)], [*range(300), 7], [*reversed(range(300))]):
        split = run.split(tickets.subset(rows))
        assert split.trained == [], "a row may have come since"
        assert {rows[row] for row in split.unknown} == {*rows} & {*known.trained}
        assert {rows[row] for row in split.held_out} == {*rows} & {*known.held_out}


def test_of_a_shuffled_split_nothing_is_known_in_another_file(
    tiny_run: Path, tickets: Dataset
) -> None:
    run = load_run(tiny_run)
    for train_size in (0.8, 240):  # as earlier versions wrote it, and as they still do
        data = replace(run.card.data, split={"train_size": train_size, "seed": 0})
        old = replace(run, card=replace(run.card, data=data))
        assert old.split(tickets) == Split(*split_indices(300, 240, 0), unknown=[])
        other = tickets.subset(range(299))
        assert old.split(other) == Split([], [], unknown=list(range(299)))


def test_a_run_folder_says_nothing_of_a_single_record(tiny_run: Path, tickets: Dataset) -> None:
    contents = [path.read_bytes() for path in tiny_run.iterdir()]
    assert load_run(tiny_run).card.data.split == split_rule(0.8, 0)
    for text in tickets.texts:
        for read in (text, folded(text)):
            hashes = [hash_(read.encode()).hexdigest() for hash_ in (sha256, blake2b)]
            for mark in (read, *hashes):
                assert not any(mark.encode() in content for content in contents)


def test_predictions_do_not_depend_on_the_batch(tiny_run: Path, tickets: Dataset) -> None:
    run, texts = load_run(tiny_run), tickets.texts[:40]
    together = predict_probabilities(run, texts)
    alone = np.concatenate([predict_probabilities(run, [text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "model_card.json", "privacy_ledger.jsonl"]
)
def test_a_changed_byte_or_a_missing_file_is_refused_by_name(run_copy: Path, name: str) -> None:
    content = bytearray((run_copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (run_copy / name).write_bytes(content)
    with pytest.raises(RunFolderError, match=f"{name} does not match the manifest"):
        load_run(run_copy)
    (run_copy / name).unlink()
    with pytest.raises(RunFolderError, match=name):
        load_run(run_copy)


def rewrite_manifest(run: Path, change: dict[str, str | None]) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    for name, value in change.items():
        if value is None:
            del manifest["sha256"][name]
        else:
            manifest["sha256"][name] = value
    (run / "manifest.json").write_text(json.dumps(manifest))


def test_a_manifest_that_leaves_a_file_out_is_refused(run_copy: Path) -> None:
    rewrite_manifest(run_copy, {"privacy_ledger.jsonl": None})
    with pytest.raises(RunFolderError, match=r"manifest\.json does not list privacy_ledger\.jsonl"):
        load_run(run_copy)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"sha256": 3}', '{"sha256": ["a"]}', pytest.param("[" * 10**5, id="deep")],
)
def test_a_manifest_that_is_none_is_refused(run_copy: Path, content: str) -> None:
    (run_copy / "manifest.json").write_text(content)
    with pytest.raises(RunFolderError, match="not a complete run folder"):
        load_run(run_copy)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "deep/file", "weights.pkl", "."])
def test_a_manifest_names_files_of_a_run_and_no_others(run_copy: Path, name: str) -> None:
    (run_copy.parent / "secret").write_text("{}")
    rewrite_manifest(run_copy, {name: hashlib.sha256(b"{}").hexdigest()})
    with pytest.raises(RunFolderError, match=f"manifest.json lists {name!r}, which is not"):
        load_run(run_copy)


@pytest.mark.parametrize("name", [CONFIG, "manifest.json"])
def test_links_pipes_and_folders_are_no_files_of_a_run(run_copy: Path, name: str) -> None:
    file = run_copy / name
    file.rename(run_copy.parent / name)
    file.symlink_to(run_copy.parent / name)
    with pytest.raises(RunFolderError, match=f"{name} must be a regular file, not a link"):
        load_run(run_copy)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(RunFolderError, match=f"{name} must be a regular file, not a link"):
        load_run(run_copy)
    file.unlink()
    file.mkdir()
    with pytest.raises(RunFolderError, match=f"{name} must be a regular file, not a link"):
        load_run(run_copy)


def test_a_file_that_is_too_large_is_refused_unread(run_copy: Path) -> None:
    os.truncate(run_copy / WEIGHTS, 2**40)  # a hole: it takes no room on the disk
    with pytest.raises(RunFolderError, match=r"at most \d+ bytes in model.safetensors, got 1099"):
        load_run(run_copy)


def reseal(run: Path) -> None:
    """Make the manifest say what the files are, as somebody would who may write all of them."""
    names = json.loads((run / "manifest.json").read_text())["sha256"]
    rewrite_manifest(
        run, {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in names}
    )


def model_is(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["model"].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (model_is(dim=64), "not a usable run folder"),
        (model_is(dim="64"), "not a usable run folder"),
        (model_is(dim=float("nan")), "expected JSON, got NaN"),
        (model_is(layers=10**15), "expected at least .* bytes in model.safetensors"),
        (model_is(vocab_size=2**50), "expected at least .* bytes in model.safetensors"),
        (model_is(hidden_dim=10**400), "expected at least .* bytes in model.safetensors"),
        (model_is(layers=1), "not a usable run folder"),
        (model_is(attention=3), "model configuration is not usable"),
        (lambda config: config.update(format=2), "expected format 1, got 2"),
        (lambda config: config.pop("model"), "config.json: model is missing"),
        (lambda config: config["label_names"].pop(), "expected 10 different label_names, got 9"),
        (
            lambda config: config["label_names"].__setitem__(0, config["label_names"][1]),
            "different",
        ),
        (lambda config: config["label_names"].__setitem__(0, 7), "a list of strings"),
        (lambda config: config.update(label_names="ab"), "a list of strings"),
    ],
)
def test_a_configuration_that_the_weights_do_not_bear_out_is_refused(
    run_copy: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    config = json.loads((run_copy / CONFIG).read_text())
    change(config)
    (run_copy / CONFIG).write_text(json.dumps(config))
    reseal(run_copy)
    with pytest.raises(RunFolderError, match=message) as caught:
        load_run(run_copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ('"private": "no"', "model_card.json: expected private to be true or false, got 'no'"),
        ('"private": true', "model_card.json: expected epsilon >= 0, got None"),
        ('"private": NaN', "model_card.json: expected JSON, got NaN"),
        ('"private": 1e999', "model_card.json: expected numbers that a float can hold, got 1e999"),
        ('"was": false', "model_card.json: private is missing"),
    ],
)
def test_a_card_that_cannot_be_read_is_refused_with_the_name_of_its_field(
    run_copy: Path, written: str, message: str
) -> None:
    text = (run_copy / CARD).read_text(encoding="utf-8")
    assert text.count('"private": false') == 1
    (run_copy / CARD).write_text(text.replace('"private": false', written), encoding="utf-8")
    reseal(run_copy)
    with pytest.raises(RunFolderError, match=f"not a usable run folder: {message}") as caught:
        load_run(run_copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (CARD, b"[]"),
        (CARD, b"\xff"),
        (CONFIG, b"[]"),
        (WEIGHTS, b"\x80\x02}q\x00."),
        (WEIGHTS, b""),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(
    run_copy: Path, name: str, content: bytes
) -> None:
    (run_copy / name).write_bytes(content)
    reseal(run_copy)
    with pytest.raises(RunFolderError, match="not a usable run folder"):
        load_run(run_copy)


@pytest.fixture
def word_run(staging: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a small run with a vocabulary of its own: each of its words is a token."""

    def make(name: str, words: tuple[str, ...], vocab_size: int = 8) -> Path:
        ids = {word: number for number, word in enumerate(("[PAD]", "[CLS]", "[SEP]", *words))}
        vocabulary = tokenizers.Tokenizer(tokenizers.models.WordPiece(ids, unk_token="[PAD]"))
        vocabulary.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        vocabulary.save(str(tmp_path / "vocabulary.json"))
        config = ModelConfig("words", vocab_size, 4, 1, 1, 4, 6, 2)
        model = TextClassifier(config)
        torch.nn.init.constant_(model.head.bias, len(words))
        folder = Path(shutil.copytree(staging, tmp_path / f"{name}-staging"))
        write_model(folder, model, ("no", "yes"), {}, tmp_path / "vocabulary.json")
        publish(folder, tmp_path / name)
        return tmp_path / name

    return make


def test_the_vocabulary_is_verified_like_any_file(word_run: Callable[..., Path]) -> None:
    run = word_run("run", ("one", "two"))
    assert load_run(run).tokenizer.encode("two one", 6).ids == (1, 4, 3, 2)
    for content in (
        b"{}",
        b"\xff",
        tokenizers.Tokenizer(tokenizers.models.BPE()).to_str().encode(),
    ):
        (run / TOKENIZER).write_bytes(content)
        with pytest.raises(RunFolderError, match="tokenizer.json does not match the manifest"):
            load_run(run)
        reseal(run)
        with pytest.raises(RunFolderError, match="not a usable run folder: expected a") as caught:
            load_run(run)
        assert "\n" not in str(caught.value)


def test_a_vocabulary_without_a_token_for_the_unknown_is_refused(
    word_run: Callable[..., Path],
) -> None:
    run = word_run("run", ("one",))
    content = json.loads((run / TOKENIZER).read_text())
    content["model"]["unk_token"] = "[UNK]"
    (run / TOKENIZER).write_text(json.dumps(content))
    reseal(run)
    with pytest.raises(RunFolderError, match="expected a token for unknown words in"):
        load_run(run)


def test_a_vocabulary_beyond_the_embedding_is_refused(word_run: Callable[..., Path]) -> None:
    words = ("one", "two", "three")
    assert load_run(word_run("fits", words, vocab_size=6)).tokenizer.vocab_size == 6
    with pytest.raises(RunFolderError, match="expected token ids below 5, got 5"):
        load_run(word_run("short", words, vocab_size=5))


def test_a_run_that_is_replaced_while_it_is_read_is_of_one_piece(
    word_run: Callable[..., Path], tmp_path: Path
) -> None:
    folders = [word_run("first", ("one",)), word_run("second", ("two", "one"))]
    link, done = tmp_path / "current", threading.Event()
    link.symlink_to(folders[0])

    def replace() -> None:
        for folder in itertools.cycle(folders[::-1]):
            (tmp_path / "next").symlink_to(folder)
            (tmp_path / "next").replace(link)
            if done.wait(0.002):
                return

    replacing = threading.Thread(target=replace)
    replacing.start()
    found = []
    try:
        while len(found) < 30:
            with suppress(RunFolderError):  # it saw a file of each
                run = load_run(link)
                found.append((run.tokenizer.encode("one", 6).ids, run.model.head.bias[0].item()))
    finally:
        done.set()
        replacing.join()
    assert set(found) <= {((1, 3, 2), 1.0), ((1, 4, 2), 2.0)}


def test_missing_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="expected a run folder, got .*nowhere"):
        load_run(tmp_path / "nowhere")


@pytest.fixture
def staging(tiny_run: Path, tmp_path: Path) -> Path:
    """A run that is about to be published."""
    run, folder = load_run(tiny_run), tmp_path / "staging"
    folder.mkdir(mode=0o700)
    write_model(folder, run.model, run.label_names, {}, None)
    write_json(folder / CARD, run.card.as_written)
    shutil.copy(tiny_run / LEDGER, folder / LEDGER)
    return folder


def test_publishing_gives_a_manifest_a_name_and_rights_to_read(
    staging: Path, tmp_path: Path
) -> None:
    (staging / LEDGER).chmod(0o600)
    (staging / ".model.safetensors.x7").write_bytes(b"half of a file")
    publish(staging, tmp_path / "run")
    assert not staging.exists()
    published = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "run").iterdir()}
    assert published == dict.fromkeys(
        (
            "config.json",
            "manifest.json",
            "model.safetensors",
            "model_card.json",
            "privacy_ledger.jsonl",
        ),
        0o644,
    )
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o755
    run = load_run(tmp_path / "run")
    manifest = json.loads((run.path / "manifest.json").read_text())["sha256"]
    assert set(manifest) == set(published) - {"manifest.json"}


def test_a_run_folder_that_is_there_is_not_replaced(staging: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(OSError, match="not empty"):
        publish(staging, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]
    publish(staging, tmp_path / "other")  # it was where it was, and is complete
    assert load_run(tmp_path / "other").model is not None


def test_a_number_that_is_no_json_is_refused_and_leaves_the_file(tmp_path: Path) -> None:
    write_json(tmp_path / "card.json", {"epsilon": 3.0})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "card.json", {"epsilon": float("nan")})
    assert json.loads((tmp_path / "card.json").read_text()) == {"epsilon": 3.0}
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]
