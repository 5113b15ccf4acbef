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

Nothing is pickled. The manifest finds damage and careless edits; it is not a signature, and whoever
can write the folder can rewrite the manifest too.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError

from attnpriv.config import ModelConfig
from attnpriv.data.records import Dataset, split_indices
from attnpriv.data.tokenisation import HashTokenizer, Tokenizer, WordPieceTokenizer
from attnpriv.errors import InputError, RunFolderError
from attnpriv.models.text import TextClassifier
from attnpriv.replacing import replace_file, sync_folder

FORMAT = 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"
CARD, CARD_TEXT = "model_card.json", "model_card.md"
LEDGER, TOKENIZER, MANIFEST = "privacy_ledger.jsonl", "tokenizer.json", "manifest.json"
REQUIRED = (WEIGHTS, CONFIG, CARD, LEDGER)


@dataclass(frozen=True)
class Run:
    """A trained model with all that is needed to use it and to say what it promises.

    Attributes:
        path: the run folder.
        name: the folder's name, by which the server calls the model.
        model: in evaluation mode, float32, without gradients.
        tokenizer: the model's own.
        label_names: the K classes.
        card: the model card.
    """

    path: Path
    name: str
    model: TextClassifier
    tokenizer: Tokenizer
    label_names: tuple[str, ...]
    card: dict[str, Any]

    def split(self, data: Dataset) -> tuple[list[int] | None, list[int]]:
        """The rows of ``data`` that the model was trained on, and those it was not.

        Data with another fingerprint than the training data's counts as held out as a whole, and
        the first value is None. Not covered: other data that shares some rows with the training
        data passes for held out. The held-out rows of a search are those that its runs were scored
        on, with noise.
        """
        recorded = self.card["data"]
        if recorded["fingerprint"] != data.fingerprint():
            return None, list(range(len(data)))
        split = recorded["split"]
        if "salt" not in split:
            return split_indices(len(data), **split)
        from attnpriv.privacy.selection import assign_validation  # slow: it imports Opacus

        held_out = assign_validation(data.texts, split["validation_share"], split["salt"])
        rows = range(len(data))
        return [i for i in rows if not held_out[i]], [i for i in rows if held_out[i]]


def load_run(path: str | Path) -> Run:
    """Read a run folder, each file only after its hash was compared with the manifest.

    Raises:
        RunFolderError: the folder or a file is missing, differs from the manifest, or does not
            hold what its name says.
    """
    folder = Path(path)
    files = _verified_files(folder)
    try:
        config = json.loads(files[CONFIG])
        card = json.loads(files[CARD])
        if config["format"] != FORMAT:
            raise InputError(f"expected format {FORMAT}, got {config['format']!r}")
        model = TextClassifier(ModelConfig.from_dict(config["model"]))
        model.load_state_dict(safetensors.torch.load(files[WEIGHTS]))
        label_names = tuple(config["label_names"])
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise RunFolderError(f"{folder} is not a usable run folder: {error}") from error
    model.requires_grad_(False).eval()
    tokenizer: Tokenizer
    if TOKENIZER in files:
        tokenizer = WordPieceTokenizer.from_file(folder / TOKENIZER)
    else:
        tokenizer = HashTokenizer(model.config.vocab_size)
    return Run(folder, folder.resolve().name, model, tokenizer, label_names, card)


def list_runs(folder: str | Path) -> list[Path]:
    """The run folders directly inside a folder, sorted by name.

    Raises:
        RunFolderError: there is no such folder.
    """
    if not Path(folder).is_dir():
        raise RunFolderError(f"expected a folder of run folders, got {str(folder)!r}")
    return sorted(path.parent for path in Path(folder).glob(f"*/{MANIFEST}"))


def publish(staging: Path, target: Path) -> None:
    """Give a folder that holds all files of a run its manifest and its name.

    Anything else in the folder, such as what a crash left of a file, is removed before.

    Raises:
        OSError: the folder cannot be written or renamed; it is still where it was then.
    """
    files = [name for name in (*REQUIRED, TOKENIZER, CARD_TEXT) if (staging / name).exists()]
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
    model: TextClassifier,
    label_names: tuple[str, ...],
    training: dict[str, Any],
    tokenizer_file: Path | None,
) -> None:
    """Write weights, configuration and vocabulary into a folder that is to be a run folder."""
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
    """Write a value as readable JSON, on disk when the call returns."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    replace_file(path, (text + "\n").encode(), mode=0o644)


def _verified_files(folder: Path) -> dict[str, bytes]:
    if not folder.is_dir():
        raise RunFolderError(f"expected a run folder, got {str(folder)!r}")
    try:
        expected = json.loads((folder / MANIFEST).read_bytes())["sha256"]
        files = {name: (folder / Path(name).name).read_bytes() for name in expected}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{folder} is not a complete run folder: {error}") from error
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != expected[name]:
            raise RunFolderError(f"{folder / name} does not match the manifest")
    missing = [name for name in REQUIRED if name not in files]
    if missing:
        raise RunFolderError(f"{folder} is not a complete run folder: no {missing[0]} in manifest")
    return files
