"""Making a bounded copy of an encoder: read public texts, teach, write a folder.

::

    .NAME.partial/                  as in ``attnpriv.work_folder``
        before.json                 the distance before the first step
        checkpoint.safetensors      the saved state
        encoder/                    the folder in the making, which moves to NAME as it is
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from attnpriv.attention.bound import ENTRY, Bound
from attnpriv.config import AttentionConfig, BoundingConfig
from attnpriv.data.pretrained import PretrainedTokenizer
from attnpriv.errors import InputError
from attnpriv.models.pretrained import Encoder, classifier_of, file_sha256
from attnpriv.replacing import replace_file, sync_folder
from attnpriv.runs.folder import CONFIG, TOKENIZER, WEIGHTS
from attnpriv.training.bounding import Bounding, Comparison, Distance, Texts
from attnpriv.training.checkpoint import (
    CHECKPOINT,
    load_state,
    require_new,
    state_content,
    work_path,
)
from attnpriv.training.encoders import OwnLayers, Source, open_source
from attnpriv.training.processes import Processes, join_processes
from attnpriv.training.release import writing_is_possible
from attnpriv.work_folder import WorkFolder, open_work_folder

BEFORE, STAGING = "before.json", "encoder"
SAVED_EVERY = 100  # steps
RESUMABLE = "--resume goes on from the last saved state, where there is one"

OnStep = Callable[[int, int, float], None]


@dataclass(frozen=True)
class BoundedEncoder:
    """A finished copy.

    Attributes:
        path: its folder.
        before: how far the encoder is from itself under the bound, before anything is learned.
        after: how far the copy is from the encoder, with its weights as they are in the folder.
    """

    path: Path
    before: Distance
    after: Distance


def bound_encoder(
    encoder: str,
    texts: Sequence[Path],
    out: Path,
    *,
    attention: AttentionConfig,
    config: BoundingConfig,
    start_from: str | None = None,
    resume: bool = False,
    on_step: OnStep | None = None,
) -> BoundedEncoder:
    """Teach a copy of an encoder to work under bounded attention, and write its folder.

    The folder is in Hugging Face layout, like the encoder's own. Its ``config.json`` carries the
    attention and where the copy comes from: the SHA-256 of the encoder and of each file of texts,
    how it was taught, and its distance to the encoder before and after on texts held out.

    Args:
        encoder: as in ``attnpriv train``, but not ``scratch``, and not bounded already.
        texts: files of public texts in UTF-8, one a line, or folders of such files with the suffix
            ``.txt``. They are no part of the folder, and no ε covers them: private texts do not
            belong here.
        out: the folder to make.
        attention: with a clip and a fixed temperature.
        config: how the copy is taught.
        start_from: a bounded copy of the encoder whose weights this one begins with, in place of
            the encoder's own. Its bound may be another one. What the copy is taught to give is in
            any case what the encoder gives.
        resume: go on with the unfinished copy of this folder.
        on_step: called after each step with the step, the number of steps and the step's loss.

    Raises:
        InputError: the encoder, the texts or the options cannot be used, or the unfinished copy is
            another one. Nothing is written then.

    Claim: whatever is trained later on the copy under this attention, every weight of every row of
    every layer lies within ``guarantees.weight_bounds``. Not covered: how close the copy is to the
    encoder on other texts than those held out.
    """
    require_new(out, "folder")
    _check(attention)
    source = open_source(encoder)
    if source.bound is not None:
        raise InputError(f"expected an encoder without a bound, {encoder} is bounded already")
    digest = file_sha256(source.folder / WEIGHTS)
    start = None if start_from is None else _open_start(start_from, encoder, digest)
    texts = _files(texts)
    teacher, copy = source.copy(AttentionConfig(), False), source.copy(attention, True)
    read = _read_texts(texts, source.folder, copy.vocab_size, config)
    provenance = {
        "encoder": source.name,
        "encoder_sha256": digest,
        "texts": [_described(path) for path in texts],
        "taught": asdict(config),
    }
    if start is not None:
        copy.from_file(start.weights)
        provenance["started_from"] = start.provenance
    identity = {"attention": asdict(attention), **provenance}
    comparison = Comparison(teacher, copy, read)
    with join_processes() as processes:
        bounding = Bounding(comparison, processes)
        with (
            writing_is_possible(out, RESUMABLE),
            _work_folder(out, identity, processes, resume) as work,
        ):
            processes.wait()  # until rank 0 has the folder
            before = _begin(bounding, comparison, work, processes, resume)
            _learn(bounding, work, processes, on_step)
            state, held_out = copy.to_file(), {"before": asdict(before)}
            if _is_rounded(state):
                held_out["before_rounding"] = asdict(comparison.distance())
            copy.from_file(state)  # as whoever loads the folder has it
            after = comparison.distance()
            held_out["after"] = asdict(after)
            bound = Bound(attention, {**provenance, "held_out": held_out})
            if processes.rank == 0:
                _write(work.path / STAGING, source, state, bound)
                (work.path / STAGING).rename(out)
                sync_folder(out.parent)
        processes.wait()  # until there is the folder
    return BoundedEncoder(out, before, after)


@dataclass(frozen=True)
class _Start:
    """The bounded copy that another one begins with.

    Attributes:
        weights: as in its file.
        provenance: its name, the SHA-256 of its weights, and how it was made.
    """

    weights: dict[str, Tensor]
    provenance: dict[str, Any]


def _open_start(start_from: str, encoder: str, encoder_sha256: str) -> _Start:
    """Read the copy to begin with; raises InputError where it is none of that encoder."""
    start = open_source(start_from)
    if start.bound is None:
        raise InputError(
            f"expected --start-from as a bounded copy of {encoder}, {start_from} is not bounded"
        )
    made = start.bound.provenance
    if made.get("encoder_sha256") != encoder_sha256:
        raise InputError(
            f"expected --start-from as a bounded copy of {encoder} (sha256 {encoder_sha256}), "
            f"{start_from} is a copy of {made.get('encoder')!r} ({made.get('encoder_sha256')})"
        )
    # minilm-bounded has no file of weights: the hash of its difference stands for them.
    digest = made.get("difference_sha256") or file_sha256(start.folder / WEIGHTS)
    weights = start.copy(start.bound.attention, False).to_file()
    return _Start(weights, {"name": start.name, "sha256": digest, **start.bound.entry()})


def distance_between(
    encoder: Encoder, copy: Encoder, texts: Sequence[Path], config: BoundingConfig
) -> Distance:
    """How far a bounded copy is from its encoder, on what a teaching with these texts held out."""
    read = _read_texts(_files(texts), encoder.folder, encoder.values["vocab_size"], config)
    ours, theirs = (OwnLayers(classifier_of(each, 2), False) for each in (encoder, copy))
    return Comparison(ours, theirs, read).distance()


def _check(attention: AttentionConfig) -> None:
    if attention.clip is None:
        raise InputError("expected clip as a number: without one nothing is bounded, got none")
    if attention.temperature_floor is not None:
        raise InputError(
            "expected no temperature_floor: an encoder is bounded at one temperature, "
            f"got {attention.temperature_floor}"
        )


def _files(paths: Sequence[Path]) -> list[Path]:
    """The files, and those in the folders by their names."""
    folders = [sorted(path.glob("*.txt")) if path.is_dir() else [path] for path in paths]
    return list(chain.from_iterable(folders))


def _read_texts(
    paths: Sequence[Path], folder: Path, vocab_size: int, config: BoundingConfig
) -> Texts:
    """Every different line of the files that is not empty, tokenised as the encoder does."""
    tokenizer = PretrainedTokenizer.from_file(folder / TOKENIZER)
    tokenizer.check_ids(vocab_size)
    lines: dict[str, None] = {}
    for path in paths:
        try:
            lines |= dict.fromkeys(path.read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"expected texts in UTF-8, one a line, in {path}: {error}") from error
    kept = [line for line in lines if line.strip()]
    encodings = tokenizer.encode_batch(kept, config.max_length)
    ids = [np.array(each.ids, dtype=np.int32) for each in encodings]
    return Texts(ids, tokenizer.pad_id, config)


def _described(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {
        "name": path.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "lines": len(content.splitlines()),
    }


@contextmanager
def _work_folder(
    out: Path, identity: dict[str, Any], processes: Processes, resume: bool
) -> Iterator[WorkFolder]:
    """The work folder, locked by rank 0; the others only read from it."""
    path = work_path(out)
    with (
        open_work_folder(path, identity, job=f"bounding of {out}", resume=resume)
        if processes.rank == 0
        else nullcontext(WorkFolder(path, identity)) as work
    ):
        yield work


def _begin(
    bounding: Bounding,
    comparison: Comparison,
    work: WorkFolder,
    processes: Processes,
    resume: bool,
) -> Distance:
    """Leave the copy before its next step; its distance before the first one."""
    saved = work.read(BEFORE) if resume else None
    if saved is not None:
        before = Distance(**json.loads(saved))
    else:
        before = comparison.distance()
        if processes.rank == 0:
            work.write(BEFORE, json.dumps(asdict(before)).encode())
    path = work.path / CHECKPOINT
    if resume and path.exists():
        steps, tensors = load_state(path, lambda state, found: (int(state["steps_taken"]), found))
        bounding.load_state(tensors, steps)
    processes.wait()  # until all have read it, before rank 0 replaces it
    return before


def _learn(
    bounding: Bounding, work: WorkFolder, processes: Processes, on_step: OnStep | None
) -> None:
    steps = bounding.config.steps
    while bounding.steps_taken < steps:
        loss = bounding.step()
        if processes.rank == 0:
            if bounding.steps_taken % SAVED_EVERY == 0 or bounding.steps_taken == steps:
                taken = {"steps_taken": bounding.steps_taken}
                work.write(CHECKPOINT, state_content(taken, bounding.state()))
            if on_step is not None:
                on_step(bounding.steps_taken, steps, loss)


def _is_rounded(state: dict[str, Tensor]) -> bool:
    """Whether a file holds some of its weights in less than float32."""
    return any(each.is_floating_point() and each.dtype != torch.float32 for each in state.values())


def _write(staging: Path, source: Source, state: dict[str, Tensor], bound: Bound) -> None:
    """Write a copy of the encoder's folder with other weights and the bound in its config."""
    if staging.exists():  # what a crash left
        shutil.rmtree(staging)
    staging.mkdir()
    for path in (*source.folder.glob("*.json"), *source.folder.glob("*.txt")):
        shutil.copyfile(path, staging / path.name)
    values = json.dumps({**source.values, ENTRY: bound.entry()}, indent=2)
    replace_file(staging / CONFIG, f"{values}\n".encode(), mode=0o644)
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    replace_file(staging / WEIGHTS, safetensors.torch.save(tensors, {"format": "pt"}), mode=0o644)
    sync_folder(staging)
