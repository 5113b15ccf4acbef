"""The run folder: the unit that moves between training, serving and audit.

======================  ==========================================================
file                    holds
======================  ==========================================================
model.safetensors       every weight, float32
config.json             the model's shape, its classes, how it was trained
model_card.json         the privacy statement, for programs and for ``GetModel``
model_card.md           the same for people
privacy_ledger.jsonl    what looked at the private data, and the ε it cost
tokenizer.json          the public vocabulary; pretrained encoders only
manifest.json           the SHA-256 of each of these
======================  ==========================================================

Nothing is pickled. The manifest finds damage and careless edits. It is not a signature: whoever can
write to the folder can rewrite the manifest too. So the reader also checks what the files claim
before it allocates memory for it, follows no link, and never waits for a pipe.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import safetensors.torch
from safetensors import SafetensorError

from attnpriv.config import Kind, ModelConfig
from attnpriv.data.modalities import AnyModality
from attnpriv.data.normalisation import NormalisingTokenizer
from attnpriv.data.pretrained import PretrainedTokenizer
from attnpriv.data.records import Dataset
from attnpriv.data.splits import Split, split_rows, tells_rows_apart
from attnpriv.data.text import Text
from attnpriv.data.tokenisation import HashTokenizer, Tokenizer
from attnpriv.errors import InputError, RunFolderError
from attnpriv.models.building import build_model, matrix_weights
from attnpriv.models.classifier import AttentionClassifier
from attnpriv.models.edits import EditCertifier
from attnpriv.models.shapes import Shape, read_shape
from attnpriv.models.words import WordsClassifier
from attnpriv.replacing import replace_file, sync_folder
from attnpriv.runs.card import ModelCard
from attnpriv.tasks import CLASSIFY

FORMAT = 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"
CARD, CARD_TEXT = "model_card.json", "model_card.md"
LEDGER, TOKENIZER, MANIFEST = "privacy_ledger.jsonl", "tokenizer.json", "manifest.json"
REQUIRED = (WEIGHTS, CONFIG, CARD, LEDGER)
FILES = (*REQUIRED, TOKENIZER, CARD_TEXT)  # all that a manifest may name
LARGEST_WEIGHTS, LARGEST_OTHER = 8 * 2**30, 64 * 2**20  # bytes of a file; more is not read

UNUSABLE = (ValueError, KeyError, TypeError, OverflowError, RuntimeError, SafetensorError)


@dataclass(frozen=True)
class Run:
    """A trained model, with everything needed to use it and to say what it promises.

    Attributes:
        path: the run folder.
        name: the folder's name; the server lists the model under it.
        model: in evaluation mode, float32, without gradients.
        modality: how the model reads records.
        label_names: the K classes.
        card: the model card.
        hashes: the SHA-256 of each of its files, as in the manifest.
    """

    path: Path
    name: str
    model: AttentionClassifier
    modality: AnyModality
    label_names: tuple[str, ...]
    card: ModelCard
    hashes: dict[str, str]

    @property
    def kind(self) -> Kind:
        """What the model reads."""
        return self.model.config.kind

    @property
    def text(self) -> Text:
        """How a model of texts reads them.

        Raises:
            InputError: the model reads another kind of record.
        """
        if not isinstance(self.modality, Text):
            raise InputError(f"expected a run that reads texts, got {self.name!r}: {self.kind}s")
        return self.modality

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokeniser of a model of texts."""
        return self.text.tokenizer

    @cached_property
    def edit_certifier(self) -> EditCertifier | None:
        """What certifies answers against edits; None where tokens are read in their context."""
        return EditCertifier(self.model) if isinstance(self.model, WordsClassifier) else None

    def split(self, data: Dataset) -> Split:
        """Which rows of ``data`` the model was trained on, as far as that can be known.

        If ``data`` is the training data, which its fingerprint tells, this is known of every row.
        In other data it depends on the split: rows on the held-out side of a split by content were
        not trained on, whatever file they are in, and the rest may have been; after a shuffled
        split nothing is known. A search scored its runs on the held-out rows, with noise.

        Not covered: a text that was changed by more than ``attnpriv.data.splits.folded`` undoes
        counts as another text.
        """
        recorded = self.card.data
        rule = recorded.split
        if recorded.fingerprint == data.fingerprint():
            return Split(*split_rows(data.keys, rule), unknown=[])
        if not tells_rows_apart(rule):
            return Split([], [], unknown=list(range(len(data))))
        may_be_trained, held_out = split_rows(data.keys, rule)
        return Split([], held_out, unknown=may_be_trained)


def load_run(path: str | Path, detectors: bool = False) -> Run:
    """Read a run folder; each file is read once, and used only if it matches the manifest.

    Args:
        path: the folder.
        detectors: whether the caller can do something with models that find objects.

    Claim: all parts of the run belong to one manifest, even if somebody replaces the folder or its
    files while they are read. Not covered: weights that are not finite load like any others.

    Raises:
        RunFolderError: the folder or a file is missing, a file is a link, is too large, differs
            from the manifest or does not hold what its name says, or files contradict each other;
            or it is of a detector, and the caller works on classifiers.
    """
    folder = Path(path)
    files, hashes = _verified_files(folder)
    try:
        config, card = _read_config(files[CONFIG]), _read_card(files[CARD])
        model = _build_model(read_shape(config["model"]), files[WEIGHTS])
        label_names = _check_label_names(config["label_names"], model.config.num_labels)
        modality = _modality(model.config, files.get(TOKENIZER))
    except UNUSABLE as error:
        raise RunFolderError(f"{folder} is not a usable run folder: {_one_line(error)}") from error
    if model.task is not CLASSIFY and not detectors:
        raise RunFolderError(
            f"{folder} holds a detector of objects, which attnpriv evaluate and certify take: "
            "expected a classifier here"
        )
    return Run(folder, folder.resolve().name, model, modality, label_names, card, hashes)


def publish(staging: Path, target: Path) -> None:
    """Turn a folder that holds all files of a run into a run folder: add the manifest, rename it.

    Other files in it, such as what a crash left of one, are removed first.

    Raises:
        OSError: the folder cannot be written to or renamed; it then stays where it was.
    """
    files = [name for name in FILES if (staging / name).exists()]
    for path in staging.iterdir():
        if path.name not in files:
            path.unlink()
    hashes = {name: hashlib.sha256((staging / name).read_bytes()).hexdigest() for name in files}
    write_json(staging / MANIFEST, {"sha256": hashes})
    for name in (*files, MANIFEST):
        (staging / name).chmod(0o644)
    staging.chmod(0o755)
    sync_folder(staging)
    staging.rename(target)
    sync_folder(target.parent)


def write_model(
    staging: Path,
    model: AttentionClassifier,
    label_names: tuple[str, ...],
    training: dict[str, Any],
    tokenizer_file: Path | None,
) -> None:
    """Write weights, configuration and vocabulary into a folder that will become a run folder."""
    tensors = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    replace_file(staging / WEIGHTS, safetensors.torch.save(tensors), mode=0o644)
    config = {
        "format": FORMAT,
        "model": model.config.to_dict(),
        "label_names": list(label_names),
        "training": training,
    }
    write_json(staging / CONFIG, config)
    if tokenizer_file is not None:
        replace_file(staging / TOKENIZER, tokenizer_file.read_bytes(), mode=0o644)


def write_json(path: Path, value: Any) -> None:
    """Write a value as readable JSON; it is on disk when the call returns."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    replace_file(path, (text + "\n").encode(), mode=0o644)


def _verified_files(folder: Path) -> tuple[dict[str, bytes], dict[str, str]]:
    """The files that the manifest lists, and their hashes, which were checked."""
    if not folder.is_dir():
        raise RunFolderError(f"expected a run folder, got {str(folder)!r}")
    try:
        hashes = _hashes(_read_file(folder / MANIFEST))
        files = {name: _read_file(folder / name) for name in hashes}
    except (OSError, *UNUSABLE) as error:
        raise RunFolderError(
            f"{folder} is not a complete run folder: {_one_line(error)}"
        ) from error
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != hashes[name]:
            raise RunFolderError(f"{folder / name} does not match the manifest")
    return files, hashes


def _hashes(manifest: bytes) -> dict[str, str]:
    hashes = _parse(manifest)["sha256"]
    if not isinstance(hashes, dict):
        raise InputError(f"expected {MANIFEST} to hold an object named sha256")
    for name in hashes:
        if name not in FILES:  # no path either
            raise InputError(f"{MANIFEST} lists {name!r}, which is not a file of a run folder")
    for name in REQUIRED:
        if name not in hashes:
            raise InputError(f"{MANIFEST} does not list {name}")
    return hashes


def _read_file(path: Path) -> bytes:
    """The bytes of a regular file: a link may lead anywhere, and a pipe may never end."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path.name} must be a regular file, not a link, a pipe or a folder")
    largest = LARGEST_WEIGHTS if path.name == WEIGHTS else LARGEST_OTHER
    if status.st_size > largest:
        raise InputError(f"expected at most {largest} bytes in {path.name}, got {status.st_size}")
    # If the file was replaced since, its hash will tell.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(status.st_size)


def _parse(content: bytes) -> Any:
    return json.loads(content, parse_constant=_refuse_constant, parse_float=_finite)


def _read_config(content: bytes) -> dict[str, Any]:
    config = _parse(content)
    if not isinstance(config, dict):
        raise InputError(f"expected {CONFIG} to hold an object")
    for name in ("format", "model", "label_names"):
        if name not in config:
            raise InputError(f"{CONFIG}: {name} is missing")
    if config["format"] != FORMAT:
        raise InputError(f"{CONFIG}: expected format {FORMAT}, got {config['format']!r}")
    return config


def _read_card(content: bytes) -> ModelCard:
    try:
        return ModelCard.from_json(_parse(content))
    except ValueError as error:
        raise InputError(f"{CARD}: {error}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise InputError(f"expected JSON, got {name}")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise InputError(f"expected numbers that a float can hold, got {digits}")
    return number


def _build_model(config: Shape, weights: bytes) -> AttentionClassifier:
    """The model with its weights, built only if the file is large enough to hold them."""
    size = 4 * matrix_weights(config)
    if size > len(weights):
        raise InputError(f"expected at least {size} bytes in {WEIGHTS}, got {len(weights)}")
    model = build_model(config)
    model.load_state_dict(safetensors.torch.load(weights))
    return model.requires_grad_(False).eval()


def _check_label_names(names: Any, classes: int) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError("expected label_names to be a list of strings")
    if len(names) != classes or len(set(names)) != classes:
        raise InputError(f"expected {classes} different label_names, got {len(set(names))}")
    return tuple(names)


def _modality(config: Shape, vocabulary: bytes | None) -> AnyModality:
    if not isinstance(config, ModelConfig):
        return config.patches
    tokenizer = _build_tokenizer(vocabulary, config.vocab_size)
    if config.normalise:
        tokenizer = NormalisingTokenizer(tokenizer)
    return Text(tokenizer, config.max_length)


def _build_tokenizer(vocabulary: bytes | None, vocab_size: int) -> Tokenizer:
    if vocabulary is None:
        return HashTokenizer(vocab_size)
    tokenizer = PretrainedTokenizer.from_bytes(vocabulary, TOKENIZER)
    tokenizer.check_ids(vocab_size)
    return tokenizer


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
