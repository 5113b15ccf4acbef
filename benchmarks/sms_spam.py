"""F1 on SMS spam at ε = 3 with the command line's defaults, beside the same training without ε.

Needs the real data beside the checkout. The noise is drawn afresh in every run, so the F1 of a
single run varies; private and plain runs take turns.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from attnpriv.audit.utility import utility
from attnpriv.config import AttentionConfig, PrivacyConfig, TrainConfig
from attnpriv.data import Dataset, load_dataset
from attnpriv.runs.folder import load_run
from attnpriv.runs.prediction import predict_probabilities
from attnpriv.training import train

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "sms_spam.tsv"
RUNS = 3
TRAIN_ROWS = 4458


def main() -> None:
    """Train, score, and print medians, their ratio and every single figure."""
    if not DATA.is_file():
        sys.exit(f"this benchmark needs {DATA}")
    data = load_dataset(str(DATA))
    targets = {"private": PrivacyConfig(epsilon=3.0), "plain": None}
    f1: dict[str, list[float]] = {name: [] for name in targets}
    seconds: dict[str, list[float]] = {name: [] for name in targets}
    for _ in range(RUNS):
        for name, privacy in targets.items():
            started = time.monotonic()
            f1[name].append(spam_f1(data, privacy))
            seconds[name].append(time.monotonic() - started)
            print(f"{name}: F1 {f1[name][-1]:.4f} in {seconds[name][-1]:.0f} s", flush=True)
    medians = {name: statistics.median(values) for name, values in f1.items()}
    print(
        json.dumps(
            {
                "benchmark": "sms_spam",
                "encoder": "minilm",
                "trainable": "head",
                "epsilon": 3.0,
                "delta": 1e-5,
                "f1": f1,
                "f1_median": medians,
                "f1_ratio": medians["private"] / medians["plain"],
                "seconds_ratio": statistics.median(seconds["private"])
                / statistics.median(seconds["plain"]),
            }
        )
    )


def spam_f1(data: Dataset, privacy: PrivacyConfig | None) -> float:
    """F1 on spam over the held-out messages, after one training."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        config = TrainConfig(train_size=TRAIN_ROWS)
        attention = AttentionConfig()
        train(data, out, encoder="minilm", attention=attention, config=config, privacy=privacy)
        run = load_run(out)
        held_out = data.subset(run.split(data).held_out)
        scores = utility(
            held_out.labels, predict_probabilities(run, held_out.texts), run.label_names
        )
    value = {score.label: score.f1.value for score in scores.classes}["spam"]
    return value or 0.0


if __name__ == "__main__":
    main()
