"""What each stage of an audit costs, for documents of 16, 64 and 256 tokens.

The model is a head on frozen MiniLM, trained without privacy on synthetic tickets; the documents are
tickets put end to end and cut by the tokeniser. Each stage runs in one thread on a few documents.
``seconds_per_document`` times the documents that a depth takes of that length is
``seconds_at_depth``, what the stage adds to an audit of one run on the given number of held-out rows
and as many members. Several processes share that out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from attnpriv.audit.measures import ALONE
from attnpriv.audit.subject import Answers, AuditOptions, Rows, Subject
from attnpriv.audit.tasks import ATTENTION, GRADIENTS, MEMBERS, Task, one_thread
from attnpriv.config import AttentionConfig, TrainConfig
from attnpriv.data import Dataset, load_dataset
from attnpriv.data.records import Span
from attnpriv.runs.folder import Run, load_run
from attnpriv.training import train

LENGTHS = (16, 64, 256)
ROWS = 12  # documents of each length, and as many members
SAMPLES = {
    "attribution": "ig_documents",
    "conductance": "ig_documents",
    "occlusion": "ig_documents",
    "faithfulness": "faithfulness_documents",
    "sensitivity": "sensitivity_documents",
    "counterfactual": "counterfactual_documents",
    "memorisation": "memorisation_documents",
    "robustness": "pgd_documents",
}
"""Which of the options says how many documents a measure takes."""
LONG_ONES = ("attribution", "conductance", "occlusion", "faithfulness", "sensitivity", "robustness")
"""The measures that take fewer documents where these are long."""


def main() -> None:
    """Measure; print a line for each length and JSON at the end."""
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.audit_stages")
    parser.add_argument("--run", type=Path, help="a run on tickets; default: one trained here")
    parser.add_argument("--rows", type=int, default=300, help="held-out rows, and members")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, one_thread():
        run = load_run(arguments.run or _trained(Path(folder) / "run"))
        lengths = {}
        for length in LENGTHS:
            lengths[length] = _measure(run, length, arguments.rows)
            print(length, lengths[length], flush=True)
    print(json.dumps({"benchmark": "audit_stages", "rows": arguments.rows, "lengths": lengths}))


def _trained(folder: Path) -> Path:
    data = load_dataset("tickets:rows=600")
    config = TrainConfig(trainable="head", steps=200)
    options = {"privacy": None, "encoder": "minilm", "pooling": "mean"}
    train(data, folder, attention=AttentionConfig(), config=config, **options)
    return folder


def _measure(run: Run, length: int, rows: int) -> dict[str, dict[str, float]]:
    run.model.config = replace(run.model.config, max_length=length)
    data = _tickets(length, run.label_names)
    own = Rows(tuple(range(ROWS, 2 * ROWS)), tuple(range(ROWS)), frozenset())
    few = AuditOptions(
        ig_documents=2,
        faithfulness_documents=2,
        sensitivity_documents=1,
        counterfactual_documents=4,
        memorisation_documents=4,
        pgd_documents=2,
        full_sample_tokens=512,
    )
    subject = Subject(run, data, own, dict(enumerate(data.spans or ())), few)
    assert {len(each.ids) for each in subject.documents.encodings} == {length}
    seconds = {name: _seconds(subject, task) / count for name, (task, count) in _tasks(few).items()}
    taken = {ATTENTION: rows, MEMBERS: rows, "membership": min(400, rows)}
    taken |= {name: _taken(name, length, rows) for name in SAMPLES}
    taken[GRADIENTS] = taken["attribution"] + taken["faithfulness"]
    standard = {name: round(seconds[name] * taken[name], 1) for name in seconds}
    return {
        "seconds_per_document": {name: round(each, 4) for name, each in seconds.items()},
        "seconds_at_standard": {**standard, "all": round(sum(standard.values()), 1)},
    }


def _tasks(few: AuditOptions) -> dict[str, tuple[Task, int]]:
    """Each stage on a few documents, and on how many."""
    answers = Answers(np.eye(10)[[0] * ROWS], np.eye(10)[[0] * ROWS])
    documents = range(ROWS)
    tasks = {
        ATTENTION: (Task(0, ATTENTION, documents), ROWS),
        MEMBERS: (Task(0, MEMBERS, documents), ROWS),
        GRADIENTS: (Task(0, GRADIENTS, (0, 1), answers), 2),
    }
    for measure in ALONE:
        count = ROWS if measure.name == "membership" else getattr(few, SAMPLES[measure.name])
        tasks[measure.name] = Task(0, measure.name, answers=answers), count
    return tasks


def _taken(name: str, length: int, rows: int) -> int:
    """How many documents ``--depth standard`` takes of so many rows of one length."""
    options = AuditOptions()
    most: int = getattr(options, SAMPLES[name])
    if name in LONG_ONES:
        most = max(1, min(most, most * options.full_sample_tokens // length))
    return min(most, rows)


def _seconds(subject: Subject, task: Task) -> float:
    started = time.perf_counter()
    task.perform(subject, lambda done, total: None)
    return time.perf_counter() - started


def _tickets(length: int, label_names: tuple[str, ...]) -> Dataset:
    """Documents that are longer than a number of tokens, with their spans."""
    source = load_dataset("tickets:rows=1200,seed=1", label_names=label_names)
    assert source.spans is not None
    texts, spans = [], []
    row = 0
    while len(texts) < 2 * ROWS:
        text, found = "", list[Span]()
        while len(text) < 6 * length:
            shift = len(text)
            found += [
                Span(s.start + shift, s.end + shift, s.entity_type) for s in source.spans[row]
            ]
            text += f"{source.texts[row]} "
            row += 1
        texts.append(text)
        spans.append(tuple(found))
    labels = tuple(source.labels[: len(texts)])
    return Dataset("long tickets", tuple(texts), labels, label_names, tuple(spans))


if __name__ == "__main__":
    main()
