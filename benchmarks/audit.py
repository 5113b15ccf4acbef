"""What the audit's measures cost beside the passes of the model that they need.

``attention`` times predictions, attention, flow and their nulls, controls included, against the
bare forward pass with weights of the same documents, one at a time too. ``integrated_gradients``
times the attribution against one forward and backward pass over as many interpolated inputs as it
begins with; it also passes over both ends of each piece of a path, to know its error. Both take
turns in one process and one thread; the ratio is the median over the rounds. ``memory`` is how
far the peak of a process of its own grows with the number of documents; the weights of one
document's attention are shown beside it.

The model has MiniLM's shape and random weights, the documents are synthetic tickets with their gold
spans, cut like MiniLM's at 128 tokens.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from attnpriv.audit.attention import measure_attention
from attnpriv.audit.attribution import measure_attribution
from attnpriv.audit.documents import Documents, prepare
from attnpriv.audit.gradients import Gradients
from attnpriv.audit.subject import AuditOptions
from attnpriv.config import AttentionConfig, ModelConfig
from attnpriv.data import load_dataset
from attnpriv.data.text import Text
from attnpriv.data.tokenisation import HashTokenizer
from attnpriv.jobs.threads import one_thread
from attnpriv.models.text import TextClassifier
from benchmarks.machine import own_memory

LIMITS = {"attention": 1.3, "integrated_gradients": 1.4}
OPTIONS = AuditOptions()
VOCABULARY, LONGEST = 30522, 128
Contender = Callable[[], object]


def main() -> None:
    """Measure; print a line for each and JSON at the end."""
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.audit")
    parser.add_argument("--documents", type=int, default=64, help="in each round of the first")
    parser.add_argument("--ig-documents", type=int, default=4, help="in each round of the second")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--memory-documents", type=int, default=500, help="N; 4N is taken too")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        print(_peak_memory(arguments.memory_of))
        return
    model = _model()
    with one_thread():
        rows = {
            "attention": _attention(model, arguments.documents, arguments.rounds),
            "integrated_gradients": _gradients(model, arguments.ig_documents, arguments.rounds),
        }
    for name, row in rows.items():
        row |= {"limit": LIMITS[name], "within_limit": row["ratio"] <= LIMITS[name]}
        print(name, row, flush=True)
    memory = _memory(arguments.memory_documents)
    print("memory", memory, flush=True)
    held = all(row["within_limit"] for row in rows.values())
    result = {"benchmark": "audit", "threads": 1, "rounds": arguments.rounds, "held": held}
    options = {name: getattr(OPTIONS, name) for name in ("permutations", "ig_steps")}
    print(json.dumps({**result, **options, **rows, "memory": memory}))


def _model() -> TextClassifier:
    torch.manual_seed(0)
    config = ModelConfig(
        encoder="scratch",
        vocab_size=VOCABULARY,
        dim=384,
        layers=6,
        heads=12,
        hidden_dim=1536,
        max_length=LONGEST,
        num_labels=10,  # of the tickets
        attention=AttentionConfig(),
    )
    return TextClassifier(config).eval().requires_grad_(False)


def _documents(count: int) -> Documents:
    data = load_dataset(f"tickets:rows={count}")
    assert data.spans is not None
    return prepare(Text(HashTokenizer(VOCABULARY), LONGEST), data, data.spans)


def _attention(model: TextClassifier, count: int, rounds: int) -> dict[str, float]:
    documents = _documents(count)

    @torch.inference_mode()
    def bare() -> None:
        for d in range(count):
            inputs = documents.inputs([d])
            model.run(model.embed(inputs.values), inputs.mask, need_maps=True)

    def audit() -> None:
        spans = documents.data.spans
        measure_attention(model, documents, OPTIONS.permutations, OPTIONS.seed, None, spans)

    return _row(bare, audit, count, rounds)


def _gradients(model: TextClassifier, count: int, rounds: int) -> dict[str, float]:
    documents = _documents(8 * count)
    some = [d for d, flags in enumerate(documents.sensitive) if flags.any()][:count]
    documents = Documents(
        documents.data.subset(some),
        documents.modality,
        tuple(documents.samples[d] for d in some),
        tuple(documents.sensitive[d] for d in some),
    )
    shares = torch.linspace(0, 1, OPTIONS.ig_steps)[:, None, None]

    def bare() -> None:
        for d in range(count):
            example = documents.embedded(model, d)
            start = example.baseline
            path = (start + shares * (example.x - start)).requires_grad_()
            logits = model.run(path, example.mask.expand(len(path), -1)).outputs
            torch.autograd.grad(logits[:, 0].sum(), path)

    def audit() -> None:
        measure_attribution(
            Gradients(model, documents, [0] * count, OPTIONS.ig_steps),
            most=count,
            permutations=OPTIONS.permutations,
            resamples=OPTIONS.resamples,
            seed=OPTIONS.seed,
        )

    return _row(bare, audit, count, rounds)


def _row(bare: Contender, audit: Contender, count: int, rounds: int) -> dict[str, float]:
    """Both by turns, after one that does not count."""
    times = [(_seconds(bare), _seconds(audit)) for _ in range(rounds + 1)][1:]
    ratios = [audited / plain for plain, audited in times]
    return {
        "documents": count,
        "bare_documents_per_second": round(count / statistics.median(t for t, _ in times), 2),
        "audit_documents_per_second": round(count / statistics.median(t for _, t in times), 2),
        "ratio": round(statistics.median(ratios), 3),
    }


def _seconds(contender: Contender) -> float:
    started = time.perf_counter()
    contender()
    return time.perf_counter() - started


def _memory(count: int) -> dict[str, float]:
    """Megabytes of peak memory at N and 4N documents, each in a process of its own."""
    few, many = (_in_a_process(size) for size in (count, 4 * count))
    return {
        "documents": count,
        "megabytes": round(few / 1e6, 1),
        "megabytes_at_four_times": round(many / 1e6, 1),
        "kilobytes_per_further_document": round((many - few) / (3 * count) / 1e3, 2),
        "kilobytes_of_weights_of_a_document": round(6 * 12 * LONGEST**2 * 4 / 1e3, 1),
    }


def _in_a_process(count: int) -> int:
    command = [sys.executable, "-m", "benchmarks.audit", "--memory-of", str(count)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _peak_memory(count: int) -> int:
    """Bytes of this process at its peak, after an attention pass over so many documents."""
    documents, model = _documents(count), _model()
    with one_thread():
        measure_attention(
            model, documents, OPTIONS.permutations, OPTIONS.seed, None, documents.data.spans
        )
    return own_memory("VmHWM")


if __name__ == "__main__":
    main()
