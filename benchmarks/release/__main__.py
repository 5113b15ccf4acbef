"""Does the release policy protect what a text hides, and what is left of the answer?

Two attackers see nothing but answers. The strong one has the model and the visible text, and tries
which of 100 public values fits (``exact``). The other learns from the numbers of answers whose
secret it knows (``learned``). Beside each policy stands how much of the full answer it shows. Then
follow what an answer from the redacted text costs in accuracy and faithfulness (``faithfulness``),
and whether a drawn answer is worth its ε (``drawn``).

Findings are appended to a file of results, one line for each model and question; what is there is
not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.release.drawing import plot
from benchmarks.release.models import Trained
from benchmarks.release.questions import attack, cost, draws, substituted

MODELS = [
    Trained(data, encoder, epsilon)
    for data in ("tickets", "sms")
    for encoder, epsilon in (("minilm-bounded", 3.0), ("minilm", None), ("scratch", None))
]
Found = dict[tuple[str, str], dict[str, Any]]


def main() -> None:
    """Measure what is missing, draw it, and print JSON at the end."""
    options = _options()
    done = _read(options.results)
    for model in (each for each in MODELS if each.name in (options.models or each.name).split(",")):
        for question in _questions(model):
            if (model.name, question.__name__) not in done:
                started = time.monotonic()
                done[model.name, question.__name__] = question(model, options)
                _append(options.results, model.name, question.__name__, done)
                about = f"{model.name}, {question.__name__}: {time.monotonic() - started:.0f} s"
                print(about, file=sys.stderr, flush=True)
    if options.plot:
        plot(
            {name: found for (name, asked), found in done.items() if asked == "attack"},
            options.plot,
        )
    print(json.dumps({"benchmark": "release", "rows": [_row(*key, done) for key in done]}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.release")
    parser.add_argument("--results", type=Path, default=Path("docs/release.jsonl"))
    parser.add_argument("--runs", type=Path, default=Path("build/release"), help="(%(default)s)")
    parser.add_argument("--models", help="such as tickets-scratch-plain, with commas (all)")
    parser.add_argument("--secrets", type=int, default=15, help="texts a type (%(default)s)")
    parser.add_argument("--explained", type=int, default=1, help="with gradients (%(default)s)")
    parser.add_argument("--texts", type=int, default=600, help="to learn from (%(default)s)")
    parser.add_argument("--documents", type=int, default=800, help="not trained on (%(default)s)")
    parser.add_argument("--gradients", type=int, default=60, help="of these (%(default)s)")
    parser.add_argument("--draws", type=int, default=200, help="of these (%(default)s)")
    parser.add_argument("--plot", type=Path, help="draw protection against faithfulness here")
    return parser.parse_args()


def _questions(model: Trained) -> list[Callable[[Trained, argparse.Namespace], dict[str, Any]]]:
    """Tickets have gold spans, without which neither attacks nor draws can be measured."""
    free = [cost, substituted]
    return [attack, draws, *free] if model.data == "tickets" else free


def _row(name: str, question: str, done: Found) -> dict[str, Any]:
    return {"model": name, "question": question, **done[name, question]}


def _read(path: Path) -> Found:
    if not path.is_file():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {(row.pop("model"), row.pop("question")): row for row in rows}


def _append(path: Path, name: str, question: str, done: Found) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(_row(name, question, done), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
