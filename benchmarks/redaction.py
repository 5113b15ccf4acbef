"""What hiding personal data before the model costs the server, and what its timing still tells.

Two servers hold one model: one reads texts in full, the other finds personal data first and reads
mask tokens in its place. Their throughputs are measured in turns on the same stream of texts. Then
each is asked, one text at a time and in random order, about two texts that differ in nothing but a
hidden value; the AUC says how well the time of an answer tells which of the two it was, 0.5 being
not at all. Values of one length and of two lengths are told apart, since a longer value is more to
send and to search whatever the model reads.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from attnpriv.audit.statistics import auc
from attnpriv.config import TrainConfig
from attnpriv.data import load_dataset
from attnpriv.training import train
from attnpriv_client import Client

SMS = Path(__file__).resolve().parents[2] / "shared" / "data" / "sms_spam.tsv"
POLICY = """
[roles.everyone]
restrict_non_private_models = false
predict = {{ label = {{ read = "{read}" }}, probabilities = {{ read = "{read}" }} }}
"""
READINGS = ("full", "redacted")
TEXT = "Hello, I cannot log in any more. Please write to {} and tell me what to do about it."
PAIRS = {
    "one length": ("anna.weber@example.org", "paul.young@example.org"),
    "two lengths": ("a@example.org", "maximiliane.von.hohenfels@department.example.org"),
}


def main() -> None:
    """Measure both in turns, and print JSON at the end."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="redaction-") as scratch, ExitStack() as open_:
        _train(Path(scratch) / "runs" / "model")
        clients = {
            read: open_.enter_context(Client(open_.enter_context(_serving(Path(scratch), read))))
            for read in READINGS
        }
        found = {
            "throughput": _throughput(clients, options),
            "timing": {read: _timing(client, options) for read, client in clients.items()},
        }
    print(json.dumps({"benchmark": "redaction", **found}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.redaction")
    parser.add_argument("--rounds", type=int, default=7, help="of each server (%(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of a round (%(default)s)")
    parser.add_argument("--calls", type=int, default=3000, help="a text and server (%(default)s)")
    return parser.parse_args()


def _train(out: Path) -> None:
    out.parent.mkdir()
    train(
        load_dataset("tickets:rows=400"),
        out,
        encoder="minilm-bounded",
        config=TrainConfig(steps=5),
        privacy=None,
    )


@contextmanager
def _serving(scratch: Path, read: str) -> Iterator[str]:
    """Serve the model and yield the address; the server stops with the block."""
    policy = scratch / f"{read}.toml"
    policy.write_text(POLICY.format(read=read), encoding="utf-8")
    program = Path(sys.executable).with_name("attnpriv-server")
    options = ["--models", scratch / "runs", "--policy", policy, "--listen", "127.0.0.1:0"]
    with (scratch / f"{read}.log").open("w") as log:
        server = subprocess.Popen(
            [program, *options, "--workers", "1", "--threads", "1"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert server.stdout is not None
        yield server.stdout.readline().split()[-1]
    finally:
        server.terminate()
        server.wait(timeout=60)


def _texts() -> Sequence[str]:
    return load_dataset(str(SMS)).texts if SMS.is_file() else load_dataset("tickets").texts


def _throughput(clients: dict[str, Client], options: argparse.Namespace) -> dict[str, Any]:
    texts = list(_texts())
    found: dict[str, list[float]] = {read: [] for read in clients}
    for round_ in range(options.rounds + 1):
        for read, client in clients.items():
            rate = _rate(client, texts, options.seconds)
            if round_:  # the first one warms up
                found[read].append(rate)
    ratios = [hidden / full for full, hidden in zip(*found.values(), strict=True)]
    medians = {read: round(statistics.median(rates), 1) for read, rates in found.items()}
    return {"texts_a_second": medians, "ratio": round(statistics.median(ratios), 3)}


def _rate(client: Client, texts: Sequence[str], seconds: float) -> float:
    """Texts a second of a stream that goes on for some seconds."""
    started = time.perf_counter()

    def source() -> Iterator[str]:
        for text in cycle(texts):
            if time.perf_counter() - started > seconds:
                return
            yield text

    answered = sum(1 for _ in client.predict_stream("model", source()))
    return answered / (time.perf_counter() - started)


def _timing(client: Client, options: argparse.Namespace) -> dict[str, Any]:
    return {name: _told_apart(client, pair, options.calls) for name, pair in PAIRS.items()}


def _told_apart(client: Client, pair: tuple[str, str], calls: int) -> dict[str, Any]:
    """How well the time of an answer tells which value the text had; the order is random."""
    texts = [TEXT.format(value) for value in pair]
    answers = [client.predict("model", [text]) for text in texts]
    seconds: tuple[list[float], list[float]] = ([], [])
    order = [0, 1] * calls
    random.Random(0).shuffle(order)
    for which in order:
        started = time.perf_counter()
        client.predict("model", [texts[which]])
        seconds[which].append(time.perf_counter() - started)
    area = auc(np.array(seconds[1]), np.array(seconds[0]))
    medians = [round(1000 * statistics.median(each), 3) for each in seconds]
    return {
        "same_answer": answers[0] == answers[1],
        "auc": (area.value, area.low, area.high),
        "median_ms": medians,
    }


if __name__ == "__main__":
    main()
