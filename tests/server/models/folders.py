"""Run folders that tests damage and replace, and what a repository says of them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from attnpriv.data.text import pad_batch
from attnpriv.runs.folder import MANIFEST, WEIGHTS, load_run
from attnpriv.runs.prediction import encode_texts, predict_probabilities
from attnpriv_server.models.repository import Repository
from attnpriv_server.models.versions import Loaded
from attnpriv_server.telemetry import Telemetry

TEXTS = ["the parcel never came", "refund"]
NEVER = 3600.0  # seconds: the tests themselves say when to look


def change_weights(run: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = safetensors.torch.load((run / WEIGHTS).read_bytes())
    change(tensors)
    (run / WEIGHTS).write_bytes(safetensors.torch.save(tensors))
    reseal(run)


def change_json(run: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads((run / name).read_text())
    change(content)
    (run / name).write_text(json.dumps(content))
    reseal(run)


def reseal(run: Path) -> None:
    """Make the manifest say what the files are, as somebody would who may write all of them."""
    manifest = json.loads((run / MANIFEST).read_text())
    for name in manifest["sha256"]:
        manifest["sha256"][name] = hashlib.sha256((run / name).read_bytes()).hexdigest()
    (run / MANIFEST).write_text(json.dumps(manifest))


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def replace(old: Path, new: Path) -> None:
    """What an operator does: move the old folder out of sight, then the new one in its place."""
    old.rename(old.parent / f".old-{time.monotonic_ns()}")
    new.rename(old)


def answer(loaded: Loaded) -> bytes:
    ids, mask = pad_batch(encode_texts(loaded.run, TEXTS), loaded.run.tokenizer.pad_id)
    return loaded.backend.probabilities(ids, mask).tobytes()


def reference(run: Path) -> bytes:
    """What the library itself answers from a folder."""
    return predict_probabilities(load_run(run), TEXTS).tobytes()


def memory_of(run: Path) -> int:
    return sum(t.nbytes for t in safetensors.torch.load((run / WEIGHTS).read_bytes()).values())


def is_loaded(repository: Repository, name: str, version: str | None = None) -> bool:
    return repository.loaded(repository.find(name, version)) is not None


def names(repository: Repository) -> dict[str, list[str]]:
    return {name: [v.version for v in found] for name, found in repository.models().items()}


def metric(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    return telemetry.registry.get_sample_value(f"attnpriv_server_{name}", labels)


def failures(caplog: pytest.LogCaptureFixture) -> list[dict[str, str]]:
    return [record.fields for record in caplog.records if record.msg == "load"]
