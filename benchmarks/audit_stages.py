"""What each stage of an audit costs, for documents of 16, 64 and 256 tokens.

The model is a head on frozen MiniLM, trained without privacy on synthetic tickets; the documents
are tickets put end to end and cut by the tokeniser. Each stage runs in one thread on a few of them.
``seconds_at_standard`` is what a stage adds to an audit of one run at ``--depth standard``, on the
given number of held-out rows and as many members: its seconds per document, times the documents
that it takes there. Several processes share that out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from attnpriv.audit.attribution import sample_sensitive
from attnpriv.audit.gradients import explained
from attnpriv.audit.infidelity import sample_with_content
from attnpriv.audit.measures import ALONE
from attnpriv.audit.subject import Answers, AuditOptions, Rows, Subject
from attnpriv.audit.tasks import ATTENTION, GRADIENTS, MEMBERS, Task, to_arrays
from attnpriv.config import AttentionConfig, TrainConfig
from attnpriv.data import Dataset, Texts, load_dataset
from attnpriv.data.records import Span
from attnpriv.jobs.threads import one_thread
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
    "explanation_attacks": "explanation_documents",
    "inversion": "inversion_documents",
    "robustness": "pgd_documents",
    "attention_attacks": "ig_documents",
    "text_attacks": "text_attack_documents",
}
"""Which of the options says how many documents a measure takes. Those that need shadow models,
planted records or another kind of model are not measured."""


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
    run = replace(run, modality=replace(run.text, max_length=length))
    data = _tickets(length, run.label_names)
    own = Rows(tuple(range(ROWS, 2 * ROWS)), tuple(range(ROWS)), frozenset())
    few = AuditOptions(
        ig_documents=2,
        faithfulness_documents=2,
        sensitivity_documents=1,
        counterfactual_documents=4,
        memorisation_documents=4,
        pgd_documents=2,
        text_attack_documents=2,
        explanation_documents=ROWS,
        inversion_documents=ROWS,
        full_sample_tokens=512,
    )
    subject = Subject(run, data, own, dict(enumerate(data.spans or ())), few)
    assert {len(each.ids) for each in subject.documents.samples} == {length}
    seconds = _all_stages(subject)
    taken = {ATTENTION: rows, MEMBERS: rows, "membership": min(400, rows)}
    taken |= {name: _taken(name, length, rows) for name in SAMPLES}
    taken[GRADIENTS] = taken["attribution"] + taken["faithfulness"]
    standard = {name: round(seconds[name] * taken[name], 1) for name in seconds}
    return {
        "seconds_per_document": {name: round(each, 4) for name, each in seconds.items()},
        "seconds_at_standard": {**standard, "all": round(sum(standard.values()), 1)},
    }


def _all_stages(subject: Subject) -> dict[str, float]:
    """Seconds a document of each stage."""
    classes = len(subject.data.label_names)
    first = np.eye(classes)[[0] * ROWS]
    answers, options = Answers(first, first), subject.options
    sampled = {
        *sample_sensitive(subject.documents, options.ig_documents, options.seed),
        *sample_with_content(subject.documents, options.faithfulness_documents, options.seed),
    }
    seconds = {
        stage: _perform(subject, Task(0, stage, range(ROWS)))[0] / ROWS
        for stage in (ATTENTION, MEMBERS)
    }
    spent, content = _perform(subject, Task(0, GRADIENTS, tuple(sorted(sampled)), answers))
    seconds[GRADIENTS] = spent / len(sampled)
    answers = replace(answers, explained=explained(to_arrays(content)))
    for name in (each.name for each in ALONE if each.name in ("membership", *SAMPLES)):
        count = ROWS if name == "membership" else getattr(options, SAMPLES[name])
        seconds[name] = _perform(subject, Task(0, name, answers=answers))[0] / count
    return seconds


def _taken(name: str, length: int, rows: int) -> int:
    """How many documents ``--depth standard`` takes of so many rows of one length."""
    options = AuditOptions()
    most: int = getattr(options, SAMPLES[name])
    most = max(1, min(most, most * options.full_sample_tokens // length))
    return min(most, rows)


def _perform(subject: Subject, task: Task) -> tuple[float, bytes]:
    """The seconds that a task takes, and its result."""
    started = time.perf_counter()
    content = task.perform(subject, lambda done, total: None)
    return time.perf_counter() - started, content


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
            for span in source.spans[row]:
                found.append(Span(span.start + shift, span.end + shift, span.entity_type))
            text += f"{source.texts[row]} "
            row += 1
        texts.append(text)
        spans.append(tuple(found))
    labels = tuple(source.labels[: len(texts)])
    return Texts("long tickets", tuple(texts), labels, label_names, tuple(spans))


if __name__ == "__main__":
    main()
