"""How much leakage an audit can measure in a given time.

The sizes of the leakage measures are chosen so that the passes through the model, timed on some of
the records, fill the time; the sizes of all other measures stay those of the depth. The intervals
of the leakage measures shrink with the square root of their sizes, so the whole time that is left
buys the best ones. The sizes that were chosen are options like any others: an audit with these
options gives the same bits, however fast the machine is.

Not covered: finding personal data, fitting attack models and writing the report, which come on top;
a machine that is busier, or less so, than while it was timed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

from attnpriv.audit.subject import LEAST, AuditOptions, Spans, Subject, choose_rows
from attnpriv.audit.tasks import ATTENTION, MEMBERS, expected_passes
from attnpriv.audit.work import kept_identity
from attnpriv.data.records import Dataset, Span
from attnpriv.errors import InputError
from attnpriv.jobs.threads import one_thread
from attnpriv.runs.folder import Run

SIZES = (
    "documents", "members", "memorisation_documents", "explanation_documents",
    "inversion_documents",
)  # fmt: skip
LEAKAGE = (
    ATTENTION, MEMBERS, "memorisation", "exposure", "membership", "canaries",
    "explanation_attacks", "inversion",
)  # fmt: skip
TIMED = 12  # records whose pass through the model is timed, after one that is not
ROUNDS = 4  # how often sizes are corrected for records that there are not
MOST_AT_ONCE = 16.0  # times by which a round makes sizes larger
CLOSE = 0.1  # share of the time that may be left over


@dataclass(frozen=True)
class Plan:
    """What fits into the time.

    Attributes:
        options: with the sizes that were chosen.
        milliseconds: of one record's pass through the model.
        other_minutes: that the other measures take.
        leakage_minutes: that the leakage measures take.
        all_records: whether they take all records that there are, so that no time buys more.
    """

    options: AuditOptions
    milliseconds: float
    other_minutes: float
    leakage_minutes: float
    all_records: bool


def plan(
    runs: Sequence[Run], data: Dataset, options: AuditOptions, minutes: float, processes: int = 1
) -> Plan:
    """Choose the sizes of the leakage measures so that the audit takes about so many minutes.

    Args:
        runs: that are audited.
        data: that they are audited on.
        options: of the depth; its sizes are scaled up or down.
        minutes: for the whole audit.
        processes: that share the work.

    Raises:
        InputError: minutes is not positive.
    """
    if not minutes > 0:
        raise InputError(f"expected budget minutes > 0, got {minutes}")
    spans = data.regions or ((Span(0, 1, "ANY"),),) * len(data)  # as if each record had some
    marked: Spans = dict(enumerate(spans))

    def subjects(chosen: AuditOptions) -> list[Subject]:
        return [Subject(run, data, choose_rows(run, data, chosen), marked, chosen) for run in runs]

    def minutes_of(chosen: AuditOptions) -> tuple[float, float]:
        leakage = other = 0.0
        for subject in subjects(chosen):
            for stage, passes in expected_passes(subject).items():
                leakage += passes * (stage in LEAKAGE)
                other += passes * (stage not in LEAKAGE)
        scale = seconds / (60 * processes)
        return leakage * scale, other * scale

    with one_thread():
        seconds = _seconds_of_a_pass(subjects(options)[0])
    leakage, other = minutes_of(options)
    left, exhausted = max(minutes - other, 0.0), False
    for _ in range(ROUNDS):
        if not leakage or abs(leakage - left) <= CLOSE * left:
            break
        options = _scaled(options, min(left / leakage, MOST_AT_ONCE))
        before, (leakage, other) = leakage, minutes_of(options)
        exhausted = leakage == before < left
        if exhausted:
            break
    return Plan(replace(options, budget_minutes=minutes), 1000 * seconds, other, leakage, exhausted)


def _scaled(options: AuditOptions, factor: float) -> AuditOptions:
    sizes: dict[str, Any] = {
        name: max(2 * LEAST, round(factor * getattr(options, name))) for name in SIZES
    }
    return replace(options, **sizes)


@torch.inference_mode()
def _seconds_of_a_pass(subject: Subject) -> float:
    """The median over some held-out records, one at a time, as an audit computes them."""
    model, documents, taken = subject.run.model, subject.documents, []
    for number in range(min(TIMED + 1, len(documents))):
        begun = perf_counter()
        example = documents.embedded(model, number)
        model.run(example.x, example.mask, need_maps=True)
        taken.append(perf_counter() - begun)
    return median(taken[1:] or taken)


def kept_options(out: Path) -> AuditOptions | None:
    """The options of an unfinished audit in a folder, which goes on with its own sizes."""
    identity = kept_identity(out)
    return None if identity is None else _options(identity)


def _options(identity: Mapping[str, Any]) -> AuditOptions | None:
    names = [each.name for each in fields(AuditOptions)]
    if any(name not in identity for name in names):
        return None
    kept = {name: identity[name] for name in names}
    return AuditOptions(**{**kept, "skip": tuple(kept["skip"])})


def sizes_in_words(options: AuditOptions) -> str:
    """The sizes that were chosen."""
    chosen = asdict(options)
    return json.dumps({name: chosen[name] for name in SIZES})[1:-1].replace('"', "")
