"""Teaching a copy of an encoder to work under a bound, on small encoders with random weights."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from attnpriv.config import AttentionConfig, BoundingConfig
from attnpriv.data.pretrained import PretrainedTokenizer
from attnpriv.errors import InputError
from attnpriv.models.pretrained import load_pretrained, read_encoder
from attnpriv.runs.card_builder import bounded_from
from attnpriv.training import bound_encoder
from attnpriv.training.bounding import Bounding, Comparison, Texts
from attnpriv.training.encoders import OwnLayers
from attnpriv.training.processes import Processes
from tests.attnpriv.models.encoders import (
    LETTERS,
    letters_tokenizer,
    lines_of_letters,
    random_encoder,
)

ATTENTION = AttentionConfig(clip=0.5)
CONFIG = BoundingConfig(steps=12, batch_tokens=200, learning_rate=3e-3, max_length=24)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT whose words are letters."""
    folder = tmp_path_factory.mktemp("encoders") / "letters"
    random_encoder("bert", folder, wide=32)
    letters_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = lines_of_letters()
    path = tmp_path_factory.mktemp("texts") / "public.txt"
    path.write_text("\n".join(["", *lines, lines[0], "  "]) + "\n", encoding="utf-8")
    return path


Bounds = Callable[..., Any]


@pytest.fixture
def bounds(encoder: Path, texts: Path) -> Bounds:
    def run(out: Path, steps: list[int] | None = None, **change: Any) -> Any:
        options: dict[str, Any] = {"attention": ATTENTION, "config": CONFIG}
        if steps is not None:
            options["on_step"] = lambda step, total, loss: steps.append(step)
        return bound_encoder(str(encoder), [texts], out, **{**options, **change})

    return run


def ids_of(lengths: list[int]) -> list[Any]:
    return [np.full(length, 5, dtype=np.int32) for length in lengths]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_pass_has_every_text_once_in_batches_that_fit(seed: int) -> None:
    chance = np.random.default_rng(seed)
    lengths = chance.integers(2, 25, size=5000)
    texts = Texts(
        ids_of(list(lengths)), 0, BoundingConfig(batch_tokens=200, max_length=24, seed=seed)
    )
    held_out = np.concatenate(texts.held_out())
    assert len(held_out) == 500
    seen: list[int] = []
    batches = texts.batches()
    while len(seen) < 4500:
        batch = next(batches)
        assert lengths[batch].max() * len(batch) <= 200
        seen += batch.tolist()
    assert sorted(seen + held_out.tolist()) == list(range(5000))
    again, second = list(islice(texts.batches(), 3)), [next(batches) for _ in range(3)]
    assert all(np.array_equal(a, b) for a, b in zip(again, islice(texts.batches(), 3), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(again, second, strict=True))


def test_batches_waste_little_on_padding() -> None:
    lengths = np.random.default_rng(0).integers(2, 25, size=3000)
    texts = Texts(ids_of(list(lengths)), 0, BoundingConfig(batch_tokens=200, max_length=24))
    batches = list(islice(texts.batches(), 100))
    filled = sum(lengths[batch].sum() for batch in batches)
    assert filled / sum(lengths[batch].max() * len(batch) for batch in batches) > 0.9


def test_a_copy_comes_nearer_and_leaves_the_words_alone(
    bounds: Bounds, encoder: Path, texts: Path, tmp_path: Path
) -> None:
    steps: list[int] = []
    made = bounds(tmp_path / "calm", steps, config=BoundingConfig(60, 200, 3e-3, max_length=24))
    assert steps == list(range(1, 61))
    assert made.after.loss < 0.5 * made.before.loss
    assert made.after.cosine < 0.5 * made.before.cosine
    plain, copy = read_encoder(encoder), read_encoder(made.path)
    same = {name for name in plain.state if torch.equal(plain.state[name], copy.state[name])}
    assert "embeddings.word_embeddings.weight" in same
    assert {name for name in same if name.startswith("encoder.")} == set()
    assert copy.bound is not None
    assert copy.bound.attention == ATTENTION
    content = texts.read_bytes()
    assert copy.bound.provenance == {
        "encoder": "letters",
        "encoder_sha256": hashlib.sha256((encoder / "model.safetensors").read_bytes()).hexdigest(),
        "texts": [
            {
                "name": "public.txt",
                "sha256": hashlib.sha256(content).hexdigest(),
                "lines": len(content.splitlines()),
            }
        ],
        "taught": {
            "steps": 60, "batch_tokens": 200, "learning_rate": 3e-3, "precision": "float32",
            "max_length": 24, "seed": 0,
        },
        "held_out": {
            "before": {"loss": made.before.loss, "cosine": made.before.cosine},
            "after": {"loss": made.after.loss, "cosine": made.after.cosine},
        },
    }  # fmt: skip
    assert {**copy.values, "attnpriv": None} == {**plain.values, "attnpriv": None}
    assert not list(tmp_path.glob(".*"))


def test_the_distance_is_what_the_folders_models_are_apart(
    bounds: Bounds, encoder: Path, texts: Path, tmp_path: Path
) -> None:
    """The figures by another way: the pooled features of the finished folder, text by text."""
    made = bounds(tmp_path / "calm")
    plain, copy = load_pretrained(encoder, 2), load_pretrained(made.path, 2)
    lines = [line for line in dict.fromkeys(texts.read_text().splitlines()) if line.strip()]
    tokenizer = PretrainedTokenizer.from_file(encoder / "tokenizer.json")
    ids = [np.array(each.ids, dtype=np.int32) for each in tokenizer.encode_batch(lines, 24)]
    rows = np.concatenate(Texts(ids, tokenizer.pad_id, CONFIG).held_out())
    apart = []
    for row in rows:
        alone, mask = torch.from_numpy(ids[row]).long()[None], torch.ones(1, len(ids[row])).bool()
        with torch.no_grad():
            features = [m.run(m.embed(alone), mask).features for m in (plain, copy)]
        apart.append(1 - float((features[0] * features[1]).sum()))
    assert made.after.cosine == pytest.approx(np.mean(apart), abs=1e-5)


def test_it_loads_in_transformers(bounds: Bounds, tmp_path: Path) -> None:
    import transformers

    made = bounds(tmp_path / "calm")
    theirs = transformers.AutoModel.from_pretrained(made.path, add_pooling_layer=False)
    assert theirs.config.attnpriv["attention"]["clip"] == 0.5
    state = load_file(made.path / "model.safetensors")
    weight = theirs.encoder.layer[0].attention.self.query.weight
    assert torch.equal(weight, state["encoder.layer.0.attention.self.query.weight"])


def test_what_was_interrupted_ends_with_the_same_bits(
    bounds: Bounds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attnpriv.training.bounded_encoder.SAVED_EVERY", 4)
    whole = bounds(tmp_path / "whole")

    def stop(step: int, total: int, loss: float) -> None:
        if step == 7:
            raise KeyboardInterrupt

    out = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        bounds(out, on_step=stop)
    assert not out.exists()
    with pytest.raises(InputError, match="go on with --resume"):
        bounds(out)
    with pytest.raises(InputError, match="its attention is"):
        bounds(out, attention=AttentionConfig(clip=0.6), resume=True)
    steps: list[int] = []
    again = bounds(out, steps, resume=True)
    assert steps == list(range(5, 13))
    assert (again.before, again.after) == (whole.before, whole.after)
    left, right = ((made.path / "model.safetensors").read_bytes() for made in (whole, again))
    assert left == right


def test_a_copy_begins_with_another_copys_weights(
    bounds: Bounds, encoder: Path, texts: Path, tmp_path: Path
) -> None:
    first = bounds(tmp_path / "first", config=BoundingConfig(60, 200, 3e-3, max_length=24))
    tighter = AttentionConfig(clip=0.1)
    second = bounds(tmp_path / "second", attention=tighter, start_from=str(first.path))
    alone = bounds(tmp_path / "alone", attention=tighter)
    assert second.after.loss < alone.after.loss
    same = bounds(tmp_path / "same", start_from=str(first.path))
    # Where the bound is the same too, nothing is changed before the first step.
    assert same.before.loss == pytest.approx(first.after.loss, rel=1e-6)
    bound, begun = read_encoder(second.path).bound, read_encoder(first.path).bound
    assert bound is not None
    assert begun is not None
    assert bound.attention == tighter
    digest = hashlib.sha256((first.path / "model.safetensors").read_bytes()).hexdigest()
    started = {"name": "first", "sha256": digest, **begun.entry()}
    assert bound.provenance["started_from"] == started
    plain = hashlib.sha256((encoder / "model.safetensors").read_bytes()).hexdigest()
    assert bound.provenance["encoder_sha256"] == plain
    said = bounded_from(bound)
    assert "copy of letters" in said
    assert f"beginning with the weights of first (SHA-256 {digest})" in said
    assert "beginning" not in bounded_from(begun)


def test_a_start_that_is_no_copy_of_the_encoder_is_refused(
    bounds: Bounds, encoder: Path, tmp_path: Path
) -> None:
    first = bounds(tmp_path / "first")
    foreign = bounds(tmp_path / "foreign")
    values = json.loads((foreign.path / "config.json").read_text())
    values["attnpriv"]["encoder_sha256"] = "0" * 64
    (foreign.path / "config.json").write_text(json.dumps(values))
    for start, message in (
        (encoder, "letters is not bounded"),
        (foreign.path, "foreign is a copy of 'letters' \\(0{64}\\)"),
        (tmp_path / "none", "expected encoder scratch"),
    ):
        with pytest.raises(InputError, match=message):
            bounds(tmp_path / "new", start_from=str(start))
    assert not (tmp_path / "new").exists()

    def stop(step: int, total: int, loss: float) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        patch.setattr("attnpriv.training.bounded_encoder.SAVED_EVERY", 1)
        bounds(tmp_path / "new", start_from=str(first.path), on_step=stop)
    with pytest.raises(InputError, match="its started_from is"):
        bounds(tmp_path / "new", resume=True)
    assert bounds(tmp_path / "new", start_from=str(first.path), resume=True).path.exists()


class Second(Processes):
    """One of two processes, with the gradients of the other given."""

    def __init__(self, rank: int, others: list[torch.Tensor]) -> None:
        self.rank, self.count, self.others = rank, 2, others

    def sum(self, tensors: list[torch.Tensor]) -> None:
        self.others += [tensor.clone() for tensor in tensors]


def test_two_processes_have_the_gradient_of_one_between_them(encoder: Path) -> None:
    texts = Texts(
        [np.array(row) for row in np.random.default_rng(0).integers(5, 50, size=(150, 9))],
        0,
        CONFIG,
    )

    def gradients(rank: int, count: int) -> list[torch.Tensor]:
        found: list[torch.Tensor] = []
        processes = Second(rank, found)
        processes.count = count
        teacher = OwnLayers(load_pretrained(encoder, 2), False)
        student = OwnLayers(load_pretrained(encoder, 2, ATTENTION), True)
        Bounding(Comparison(teacher, student, texts), processes).step()
        return found

    alone, first, second = gradients(0, 1), gradients(0, 2), gradients(1, 2)
    assert len(alone) > 20
    for whole, one, other in zip(alone, first, second, strict=True):
        torch.testing.assert_close(one + other, whole, rtol=1e-4, atol=1e-5)
        assert float(one.abs().max()) > 0


@pytest.mark.exhaustive
def test_torchrun_teaches_what_one_process_teaches(
    bounds: Bounds, encoder: Path, texts: Path, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
        "--master-addr", "127.0.0.1", "--master-port", str(port), "-m", "attnpriv.cli",
        "encoder", "bound", "--encoder", encoder, "--texts", texts, "--clip", "0.5",
        "--batch-tokens", "200", "--max-length", "24", "--steps", "12",
        "--learning-rate", "3e-3", "--out", tmp_path / "together",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("folder:") == 1
    alone = load_file(bounds(tmp_path / "alone").path / "model.safetensors")
    together = load_file(tmp_path / "together" / "model.safetensors")
    for name, tensor in alone.items():
        torch.testing.assert_close(together[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        (AttentionConfig(), "without one nothing is bounded"),
        (AttentionConfig(2.0, 1.0, temperature_floor=1.0), "bounded at one temperature"),
        (AttentionConfig(clip=1.0, score="additive"), "score dot_product"),
    ],
)
def test_an_attention_that_bounds_nothing_is_refused(
    bounds: Bounds, tmp_path: Path, attention: AttentionConfig, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        bounds(tmp_path / "calm", attention=attention)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_stands_for_its_text_files(
    bounds: Bounds, encoder: Path, texts: Path, tmp_path: Path
) -> None:
    lines = texts.read_text(encoding="utf-8").splitlines()
    folder = tmp_path / "texts"
    folder.mkdir()
    for name, part in (("b.txt", lines[200:]), ("a.txt", lines[:200]), ("other.md", ["no"] * 99)):
        (folder / name).write_text("\n".join(part), encoding="utf-8")
    made = bound_encoder(
        str(encoder), [folder], tmp_path / "calm", attention=ATTENTION, config=CONFIG
    )
    described = json.loads((made.path / "config.json").read_text())["attnpriv"]["texts"]
    assert [each["name"] for each in described] == ["a.txt", "b.txt"]
    assert made.after == bounds(tmp_path / "one").after


def test_bad_texts_and_folders_are_refused(bounds: Bounds, encoder: Path, tmp_path: Path) -> None:
    made = bounds(tmp_path / "calm")
    with pytest.raises(InputError, match="calm is bounded already"):
        bound_encoder(str(made.path), [], tmp_path / "new", attention=ATTENTION, config=CONFIG)
    with pytest.raises(InputError, match="expected a new folder"):
        bounds(tmp_path / "calm")
    few, latin = tmp_path / "few.txt", tmp_path / "latin.txt"
    few.write_text("a b\n" * 500)
    latin.write_bytes(b"caf\xe9\n")
    for path, message in (
        (few, "at least 100 different texts, got 1"),
        (latin, "texts in UTF-8"),
        (tmp_path / "none.txt", "texts in UTF-8"),
    ):
        with pytest.raises(InputError, match=message):
            bound_encoder(
                str(encoder), [path], tmp_path / "new", attention=ATTENTION, config=CONFIG
            )
    assert not (tmp_path / "new").exists()


def test_the_command(
    command: Callable[..., Any], encoder: Path, texts: Path, tmp_path: Path
) -> None:
    options = ["--texts", texts, "--batch-tokens", 200, "--max-length", 24, "--steps", 3]
    made = command(
        "encoder",
        "bound",
        "--encoder",
        encoder,
        *options,
        "--clip",
        0.5,
        "--out",
        tmp_path / "calm",
    )
    assert made.code == 0, made.err
    assert "the cosine distance of a text's vector from" in made.out
    values = json.loads((tmp_path / "calm" / "config.json").read_text())
    assert values["attnpriv"]["attention"]["clip"] == 0.5
    rows = "".join(
        f"{'ab cd' if i % 2 else 'xy z'} {LETTERS[i % 26]}\tn{i % 2}\n" for i in range(200)
    )
    (tmp_path / "data.tsv").write_text(rows)
    train = ["train", "--data", tmp_path / "data.tsv", "--encoder", tmp_path / "calm", "--steps", 3]
    trained = command(*train, "--epsilon", 3, "--out", tmp_path / "run")
    assert trained.code == 0, trained.err
    card = json.loads((tmp_path / "run" / "model_card.json").read_text())
    assert card["attention"]["clip"] == 0.5
    assert card["encoder"] == "calm"
    assert "from public texts alone (public.txt)" in card["limits"]["bounded_encoder"]
    assert command(*train, "--epsilon", 3, "--clip", 0.5, "--out", tmp_path / "same").code == 0
    for other in (["--clip", 0.7], ["--clip", "none"], ["--temperature-floor", 0.5]):
        refused = command(*train, "--epsilon", 3, *other, "--out", tmp_path / "other")
        assert refused.code == 2
        assert "encoder calm was taught with clip 0.5 by clamp" in refused.err
    refused = command(
        "encoder", "bound", "--encoder", "scratch", *options, "--out", tmp_path / "no"
    )
    assert refused.code == 2
