"""What stops the start."""

from __future__ import annotations

import math
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from attnpriv.errors import RunFolderError
from attnpriv.runs.folder import CARD, CONFIG, MANIFEST, TOKENIZER, WEIGHTS
from attnpriv_server.models.repository import Repository
from tests.server.models.folders import change_json, change_weights, flip


def test_there_must_be_run_folders(models, tmp_path, repository) -> None:
    with pytest.raises(RunFolderError, match=f"expected run folders in {models}, found none"):
        repository()
    (models / "empty").mkdir()
    with pytest.raises(RunFolderError, match="found none"):
        repository()
    with pytest.raises(RunFolderError, match="expected a folder of run folders, got .*nowhere"):
        Repository(tmp_path / "nowhere", "float32").start()


def spoil_card(**values: Any) -> Callable[[Path], None]:
    return lambda run: change_json(run, CARD, lambda card: card.update(values))


def spoil_model(**values: Any) -> Callable[[Path], None]:
    return lambda run: change_json(run, CONFIG, lambda config: config["model"].update(values))


def spoil_weights(value: float, name: str = "head.bias") -> Callable[[Path], None]:
    return lambda run: change_weights(run, lambda tensors: tensors[name].fill_(value))


def share_a_block(run: Path) -> None:
    """Claim, at no cost in bytes, that one block is applied a million times."""

    def keep_one(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith("blocks.")]:
            if not name.startswith("blocks.0."):
                del tensors[name]
        labels, dim = len(tensors["head.bias"]), len(tensors["embedding_norm.bias"])
        tensors["head.weight"] = torch.zeros(labels, 3 * dim)

    change_weights(run, keep_one)
    spoil_model(share_layers=True, layers=10**6)(run)


def leave_no_room(run: Path) -> None:
    change_weights(
        run,
        lambda tensors: tensors.update(
            {"positions.weight": tensors["positions.weight"][:1].clone()}
        ),
    )
    spoil_model(max_length=1)(run)


def link_out(run: Path) -> None:
    outside = run.parent.parent / "outside"
    run.rename(outside)
    run.symlink_to(outside)


def link_file(run: Path) -> None:
    (run / CONFIG).rename(run.parent / ".config.json")
    (run / CONFIG).symlink_to(run.parent / ".config.json")


def pipe(run: Path) -> None:
    (run / WEIGHTS).unlink()
    os.mkfifo(run / WEIGHTS)


def undecodable(run: Path) -> None:
    os.rename(run, os.fsencode(run.parent) + b"/\xff")  # noqa: PTH104


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: flip(run / WEIGHTS), "does not match the manifest"),
        (lambda run: (run / WEIGHTS).unlink(), "not a complete run folder"),
        (lambda run: (run / MANIFEST).write_text("{"), "not a complete run folder"),
        (lambda run: (run / "model.pkl").write_bytes(pickle.dumps(0)), "model.pkl is not in the"),
        (lambda run: (run / TOKENIZER).write_text("{}"), "tokenizer.json is not in the manifest"),
        (lambda run: shutil.copytree(run, run / "2"), "2 is not in the manifest"),
        (lambda run: os.mkfifo(run / "pipe"), "pipe is not in the manifest"),
        (pipe, "model.safetensors must be a regular file"),
        (lambda run: os.truncate(run / WEIGHTS, 2**40), "expected at most .* bytes"),
        (link_file, "config.json must be a regular file"),
        (link_out, "leads out of"),
        (lambda run: run.chmod(0o777), "everybody may write to .*: run chmod o-w"),
        (lambda run: (run / CARD).chmod(0o646), "everybody may write to .*model_card.json"),
        (lambda run: run.parent.chmod(0o777), "everybody may write to .*models:"),
        (lambda run: run.rename(run.parent / "two\nlines"), r"printable model name, got 'two\\n"),
        (undecodable, r"printable model name, got '\\udcff'"),
        (spoil_weights(math.nan), "some in head.bias are infinite or not a number"),
        (spoil_weights(-math.inf, "words.weight"), "expected finite weights"),
        (spoil_weights(3e38, "blocks.0.output_norm.weight"), "it cannot answer .ArithmeticError"),
        (spoil_model(norm_eps="tiny"), "it cannot answer .TypeError"),
        (spoil_model(vocab_size=2**50), "expected at least .* bytes in model.safetensors"),
        (spoil_model(attention={"temperature": 9.0}), "temperature in the model card differs"),
        (share_a_block, "expected at most 1024 layers, got 1000000"),
        (leave_no_room, "expected max_length from 2 to 8192, got 1"),
        (
            spoil_card(label_names=["a", "b"]),
            "label_names in the model card differs from the configuration",
        ),
        (spoil_card(encoder="minilm"), "encoder in the model card differs from the configuration"),
        (spoil_card(private="no"), "model_card.json: expected private to be true or false"),
        (spoil_card(private=True, epsilon=None), "json: expected epsilon >= 0, got None"),
        (spoil_card(delta=10**400), "expected delta to be a number or null, got 1000"),
        (spoil_card(epsilon=math.nan), "expected JSON, got NaN"),
        (spoil_card(warnings=[1]), r"expected warnings\[0\] to be a string, got 1"),
        (spoil_card(statement="\ud800"), "surrogates not allowed"),
    ],
)
def test_a_folder_that_cannot_be_trusted_stops_the_start(
    models, put, repository, spoil, message
) -> None:
    spoil(put("mail"))

    with pytest.raises(RunFolderError, match=message) as caught:
        repository()

    assert str(models) in str(caught.value) or "printable" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", ["v2", "0", "01", "-1", "1.5", "١", "9" * 40])
def test_a_version_that_is_no_number_stops_the_start(put, repository, version) -> None:
    put("mail/1")
    put(f"mail/{version}")

    with pytest.raises(RunFolderError, match=f"mail named 1, 2, ..., got '{version}'"):
        repository()
