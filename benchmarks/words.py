"""What the encoder ``words`` gives up in score, and what it can certify, by its clip.

For each ε, ratio c/τ and seed: a training on the SMS spam data, F1 of spam on the rows held out,
and how many of its answers withstand substitutions. Needs the real data beside the checkout. One
JSON line at the end; every cell goes into a file, from which the next call continues.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from attnpriv.audit.utility import utility
from attnpriv.config import AttentionConfig, PrivacyConfig, TrainConfig
from attnpriv.data import Dataset, load_dataset
from attnpriv.models.edits import EditRadii
from attnpriv.runs.edits import certified_substitutions, certify_texts
from attnpriv.runs.folder import Run, load_run
from attnpriv.runs.prediction import encode_texts, predict_probabilities
from attnpriv.training import train

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "sms_spam.tsv"
TRAIN_ROWS = 4458
KEYS = ("epsilon", "clip", "trainable", "steps", "seed")


def main() -> None:
    """Measure the cells that are missing, and print means over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.words")
    parser.add_argument("--results", type=Path, default=Path("docs/words.jsonl"))
    parser.add_argument("--epsilons", default="inf,3", help="(%(default)s)")
    parser.add_argument("--clips", default="inf,2,0.97,0.5,0.25", help="c at τ = 1 (%(default)s)")
    parser.add_argument("--trainable", default="all", help="all or head (%(default)s)")
    parser.add_argument("--steps", type=int, default=100, help="(%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="(%(default)s)")
    options = parser.parse_args()
    if not DATA.is_file():
        sys.exit(f"this benchmark needs {DATA}")
    data = load_dataset(str(DATA))
    done = _read(options.results)
    for seed in range(options.seeds):
        for epsilon in map(float, options.epsilons.split(",")):
            for clip in map(float, options.clips.split(",")):
                cell = (epsilon, clip, options.trainable, options.steps, seed)
                if cell not in done:
                    done[cell] = _measure(data, *cell)
                    row = {**dict(zip(KEYS, map(_plain, cell), strict=True)), **done[cell]}
                    with options.results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
                    print(row, flush=True)
    print(json.dumps({"benchmark": "words", "rows": _summary(done)}))


def _measure(
    data: Dataset, epsilon: float, clip: float, trainable: str, steps: int, seed: int
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        private = epsilon < float("inf")
        train(
            data,
            out,
            encoder="words",
            attention=AttentionConfig(clip=None if clip == float("inf") else clip),
            config=TrainConfig(trainable=trainable, steps=steps, train_size=TRAIN_ROWS, seed=seed),
            privacy=PrivacyConfig(epsilon=epsilon) if private else None,
        )
        run = load_run(out)
        return _score(run, data.subset(run.split(data).held_out))


def _score(run: Run, held_out: Dataset) -> dict[str, Any]:
    probabilities = predict_probabilities(run, held_out.texts)
    scores = utility(held_out.labels, probabilities, run.label_names).classes
    radii = certify_texts(run, held_out.texts)
    right = [e for e, label in zip(radii, held_out.labels, strict=True) if e.label == label]
    spam = [each for each in right if run.label_names[each.label] == "spam"]
    encodings = encode_texts(run, held_out.texts)
    started = time.perf_counter()
    for encoding in encodings:
        certified_substitutions(run, encoding)
    seconds = time.perf_counter() - started
    assert run.edit_certifier is not None
    return {
        "f1": {score.label: score.f1.value for score in scores}["spam"],
        "accuracy": len(right) / len(radii),
        "certified_of_right": _shares(right),
        "certified_of_right_spam": _shares(spam),
        "any_edit_of_right": sum(each.edits > 0 for each in right) / max(len(right), 1),
        "slack": run.edit_certifier.slack,
        "milliseconds_a_text": 1000 * seconds / len(encodings),
    }


def _shares(radii: list[EditRadii]) -> dict[str, float]:
    """By the number of substitutions, the share of texts that withstand so many."""
    total = max(len(radii), 1)
    return {str(m): sum(each.substitutions >= m for each in radii) / total for m in (1, 2, 3, 5)}


def _plain(value: Any) -> Any:
    return "inf" if value == float("inf") else value


def _read(path: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    return {
        (float(row["epsilon"]), float(row["clip"]), *(row[key] for key in KEYS[2:])): {
            name: value for name, value in row.items() if name not in KEYS
        }
        for row in rows
    }


def _summary(done: dict[tuple[Any, ...], dict[str, Any]]) -> list[dict[str, Any]]:
    cells: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for cell, result in done.items():
        cells.setdefault(cell[:-1], []).append(result)
    return [
        {
            **dict(zip(KEYS, map(_plain, cell), strict=False)),
            "seeds": len(results),
            "f1": statistics.mean(each["f1"] or 0.0 for each in results),
            "certified_of_right": {
                m: statistics.mean(each["certified_of_right"][m] for each in results)
                for m in results[0]["certified_of_right"]
            },
        }
        for cell, results in cells.items()
    ]


if __name__ == "__main__":
    main()
