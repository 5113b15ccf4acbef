"""How well and how fast personal data is found: patterns alone, and with each language model.

For each type of gold span: ``hidden`` is the share of gold spans of which every letter and digit is
in some span, ``recall`` the same for spans of the right type, ``precision`` the share of the spans
of that type that touch a gold span of it, and F2 puts recall four times as high as precision. Times
are of the processor, so that busy neighbours count little. The generated sentences beside the
checkout are divided by the template that they were made from: the patterns were tuned to what they
missed in one half, not in the half ``held_out``.
"""

from __future__ import annotations

import json
import random
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attnpriv.data import Span, make_tickets
from attnpriv.errors import InputError
from attnpriv.sensitive import PresidioDetector, Rules

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "pii_spans.json"
CONFIGURATIONS = ("none", "en_core_web_sm", "en_core_web_md")
TICKETS = 1000
TOGETHER = 32
# What a type of gold span is called by the detector; what is not here has the same name.
OURS = {
    "DOMAIN_NAME": ("URL",),
    "GPE": ("LOCATION",),
    "LOCATION": ("LOCATION", "STREET_ADDRESS"),
}
Texts = Sequence[tuple[str, tuple[Span, ...]]]


def main() -> None:
    """Measure every configuration that is installed on every set of texts."""
    sets = _sets()
    results: dict[str, Any] = {}
    for model in CONFIGURATIONS:
        try:
            before, started = _megabytes(), time.process_time()
            detector = PresidioDetector(Rules.model_validate({"language_model": model}))
        except InputError as error:
            results[model] = {"not_run": str(error)}
            continue
        results[model] = {
            "start_seconds": round(time.process_time() - started, 1),
            "start_megabytes": round(_megabytes() - before),
            **{name: measured(detector, texts) for name, texts in sets.items()},
        }
        for name in sets:
            _print(model, name, results[model][name])
    print(json.dumps({"benchmark": "detection", "configurations": results}))


def measured(detector: PresidioDetector, texts: Texts) -> dict[str, Any]:
    """Quality by type, and the time for a text, alone and with others."""
    plain = [text for text, _ in texts]
    detector.detect_all(plain[:TOGETHER])
    started = time.process_time()
    for text in plain[:200]:
        detector.detect(text)
    alone = (time.process_time() - started) / len(plain[:200])
    started = time.process_time()
    found = [
        spans
        for at in range(0, len(plain), TOGETHER)
        for spans in detector.detect_all(plain[at : at + TOGETHER])
    ]
    together = (time.process_time() - started) / len(plain)
    gold = [spans for _, spans in texts]
    kinds = sorted({span.entity_type for spans in gold for span in spans})
    spans = sum(map(len, found))
    right = sum(_touch(span, own) for own, each in zip(gold, found, strict=True) for span in each)
    return {
        "texts": len(plain),
        "ms_alone": round(alone * 1000, 2),
        "ms_together": round(together * 1000, 2),
        "found": spans,
        "precision_any_type": _share(right, spans),
        "types": {kind: _quality(kind, plain, gold, found) for kind in kinds},
    }


def _quality(
    kind: str,
    texts: Sequence[str],
    gold: Sequence[Sequence[Span]],
    found: Sequence[Sequence[Span]],
) -> dict[str, Any]:
    names = OURS.get(kind, (kind,))
    total = hidden = whole = claimed = right = 0
    for text, own, each in zip(texts, gold, found, strict=True):
        real = [span for span in own if span.entity_type == kind]
        typed = [span for span in each if span.entity_type in names]
        total += len(real)
        hidden += sum(_covered(text, span, each) for span in real)
        whole += sum(_covered(text, span, typed) for span in real)
        claimed += len(typed)
        right += sum(_touch(span, real) for span in typed)
    recall, precision = _share(whole, total), _share(right, claimed)
    f2 = None
    if recall is not None and precision is not None:
        f2 = round(5 * precision * recall / max(4 * precision + recall, 1e-9), 3)
    return {
        "gold": total,
        "hidden": _share(hidden, total),
        "recall": recall,
        "precision": precision,
        "f2": f2,
    }


def _covered(text: str, span: Span, spans: Sequence[Span]) -> bool:
    places = {place for each in spans for place in range(each.start, each.end)}
    return all(
        place in places or not text[place].isalnum() for place in range(span.start, span.end)
    )


def _touch(span: Span, others: Sequence[Span]) -> bool:
    return any(span.start < other.end and other.start < span.end for other in others)


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 3) if whole else None


def _sets() -> dict[str, Texts]:
    tickets = make_tickets(TICKETS, seed=0)
    assert tickets.spans is not None
    sets: dict[str, Texts] = {"tickets": list(zip(tickets.texts, tickets.spans, strict=True))}
    if DATA.is_file():
        rows = json.loads(DATA.read_text(encoding="utf-8"))
        templates = sorted({row["template_id"] for row in rows})
        random.Random(0).shuffle(templates)
        seen = set(templates[: len(templates) // 2])
        sets["pii_spans"] = [_row(row) for row in rows]
        sets["pii_spans held_out"] = [_row(row) for row in rows if row["template_id"] not in seen]
    return sets


def _row(row: dict[str, Any]) -> tuple[str, tuple[Span, ...]]:
    spans = row["spans"]
    return row["full_text"], tuple(
        Span(span["start_position"], span["end_position"], span["entity_type"]) for span in spans
    )


def _megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _print(model: str, name: str, result: dict[str, Any]) -> None:
    print(
        f"{model}, {name}: {result['ms_alone']} ms a text alone, {result['ms_together']} ms with "
        f"others; of {result['found']} spans {result['precision_any_type']} touch gold ones",
        flush=True,
    )
    for kind, row in result["types"].items():
        print(
            f"  {kind:18}" + "  ".join(f"{key} {value}" for key, value in row.items()), flush=True
        )


if __name__ == "__main__":
    main()
