"""What a run answers to every text of a file of any size, in this process or in others."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attnpriv.data.files import MAX_TEXT_BYTES
from attnpriv.data.streams import count_rows, stream_rows
from attnpriv.errors import InputError
from attnpriv.jobs import Executor, Note, Told
from attnpriv.labels import utf8_size
from attnpriv.runs.answer_writer import Answers, check_writable, writing
from attnpriv.runs.folder import Run
from attnpriv.runs.packing import FolderOfRun
from attnpriv.runs.prediction import probabilities_of
from attnpriv.visible import has_visible
from attnpriv.work_folder import WorkFolder, open_work_folder

ROWS = 1024  # in a piece
WINDOW = 32  # pieces that are in memory at a time
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Columns:
    """Where a file has what.

    Attributes:
        text: the name of the column of texts, as in ``data.streams.stream_rows``.
        identifier: likewise.
    """

    text: str | None = None
    identifier: str | None = None


ALL_DEFAULTS = Columns()


@dataclass(frozen=True)
class Answered:
    """What came of it.

    Attributes:
        rows: of the file.
        unread: rows without an answer: their text is missing, empty, too long, or has no token that
            the model knows.
    """

    rows: int
    unread: int


def answer_file(
    run: Run,
    source: Path,
    out: Path,
    columns: Columns = ALL_DEFAULTS,
    *,
    executor: Executor | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Answered:
    """Classify every text of a file, and write the labels and probabilities to another.

    The rows of both are the same, in the same order. No text is written. Memory does not grow with
    the file; beside ``out``, disk holds four bytes for each row and class until the end.

    Args:
        run: reads texts.
        source: as in ``data.streams.stream_rows``.
        out: ends in ``.csv``, ``.jsonl`` or ``.parquet``; it is replaced at the end, at once.
        columns: of ``source``.
        executor: other processes that share the work.
        resume: go on with what was interrupted, with the same run, source and columns.
        progress: called with the rows that have answers, and about how many there are.

    Raises:
        InputError: the run reads images, a file cannot be read or written, or, to resume, there is
            nothing or something else.
    """
    if run.kind != "text":
        raise InputError(f"{run.name} reads {run.kind}s: expected a model of texts")
    check_writable(out, columns.identifier)
    identity = {"run": run.hashes, "source": _sha256(source), "columns": str(columns)}
    job = f"prediction in {out}"
    with open_work_folder(_partial(out), identity, job=job, resume=resume) as work:
        return _Answering(run, source, columns, work, progress).write(out, executor)


def has_begun(out: Path) -> bool:
    """Whether there is an unfinished prediction to go on with."""
    return WorkFolder(_partial(out), {}).has_begun


@dataclass(frozen=True)
class Piece:
    """Some rows on their way to the process that answers them."""

    number: int
    texts: tuple[str | None, ...]

    @property
    def file(self) -> str:
        """Where its answers are kept."""
        return f"{self.number:08d}.npy"


@dataclass(frozen=True)
class AnswerJob:
    """What a process needs to answer pieces."""

    resumable = True
    run: FolderOfRun

    def packed(self) -> AnswerJob:
        """As ``jobs.Job.packed``."""
        return replace(self, run=self.run.packed())

    def begin(self) -> Callable[[Piece, Told], bytes]:
        """As ``jobs.Job.begin``."""
        torch.set_num_threads(1)
        return partial(_answer, self.run.load())


def _answer(run: Run, piece: Piece, told: Told) -> bytes:
    answers = np.full((len(piece.texts), len(run.label_names)), np.nan, np.float32)
    texts = {row: text for row, text in enumerate(piece.texts) if text is not None}
    read = zip(texts, run.modality.read([*texts.values()]), strict=True)
    seen = {row: sample for row, sample in read if run.modality.sees(sample)}
    if seen:
        answers[[*seen]] = probabilities_of(run, [*seen.values()], progress=told)
    buffer = io.BytesIO()
    np.save(buffer, answers, allow_pickle=False)
    return buffer.getvalue()


@dataclass(frozen=True)
class _Answering:
    run: Run
    source: Path
    columns: Columns
    work: WorkFolder
    progress: Progress | None

    def write(self, out: Path, executor: Executor | None) -> Answered:
        rows = self._answer_all(executor)
        unread = 0
        with writing(out, self.run.label_names, self.columns.identifier) as writer:
            for number, found in enumerate(self._batches()):
                content = self.work.read(Piece(number, ()).file)
                assert content is not None
                answers: Answers = np.load(io.BytesIO(content), allow_pickle=False)
                unread += int(np.isnan(answers[:, 0]).sum())
                writer([identifier for _, identifier in found], answers)
        return Answered(rows, unread)

    def _answer_all(self, executor: Executor | None) -> int:
        rows, about = 0, count_rows(self.source)
        with self._crew(executor) as crew:
            pieces = self._pieces()
            while window := [*islice(pieces, WINDOW)]:
                missing = [piece for piece in window if self.work.read(piece.file) is None]
                begun = rows + sum(len(piece.texts) for piece in {*window} - {*missing})
                for piece, content in crew(missing, partial(self._note, {}, begun, about)):
                    self.work.write(piece.file, content)
                rows += sum(len(piece.texts) for piece in window)
        return rows

    def _note(
        self, parts: dict[Piece, int], begun: int, about: int, piece: Piece, done: int, _: int
    ) -> None:
        parts[piece] = done
        if self.progress:
            rows = begun + sum(parts.values())
            self.progress(rows, max(rows, about))

    @contextmanager
    def _crew(self, executor: Executor | None) -> Iterator[Any]:
        if executor is None:
            yield self._here
            return
        with executor.crew(AnswerJob(FolderOfRun.of(self.run))) as crew:
            yield crew

    def _here(self, pieces: Sequence[Piece], note: Note[Piece]) -> Iterator[tuple[Piece, bytes]]:
        for piece in pieces:
            yield piece, _answer(self.run, piece, partial(note, piece))

    def _pieces(self) -> Iterator[Piece]:
        for number, found in enumerate(self._batches()):
            yield Piece(number, tuple(_readable(text) for text, _ in found))

    def _batches(self) -> Iterator[list[Any]]:
        rows = stream_rows(self.source, self.columns.text, self.columns.identifier)
        while batch := [*islice(rows, ROWS)]:
            yield batch


def _readable(cell: Any) -> str | None:
    if not isinstance(cell, str) or not has_visible(cell) or utf8_size(cell) > MAX_TEXT_BYTES:
        return None
    return cell


def _partial(out: Path) -> Path:
    return out.with_name(f".{out.name}.partial")


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
