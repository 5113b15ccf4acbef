"""The whole line through the three commands, each in its own process, over a real socket."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import torch

from attnpriv.data import load_dataset
from attnpriv.runs.folder import load_run
from attnpriv.runs.prediction import predict_probabilities

Serving = Callable[..., AbstractContextManager[str]]

COMMANDS = Path(sys.executable).parent  # where the installation puts its console scripts
MESSAGES = 200
SKIPPED = (  # tests of their own, on smaller models
    *("conductance", "faithfulness", "memorisation", "explanation_attacks", "inversion"),
    *("attention_attacks", "text_attacks", "checklist"),
)
GATES = """
[[gate]]
name = "ε"
measure = "card.epsilon"
operator = "at most"
threshold = 3
"""


def run(program: str, *arguments: object) -> str:
    """The standard output of a command that must succeed."""
    command = [COMMANDS / program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_train_evaluate_audit_serve_and_ask(serving: Serving, tmp_path: Path) -> None:
    out, data = tmp_path / "runs" / "tickets", "tickets:rows=400"
    hardening = ["--temperature", 2, "--clip", 4, "--clip-mode", "norm"]
    schedule = ["--trainable", "head", "--steps", 3]
    trained = run(
        "attnpriv", "train", "--data", data, "--epsilon", 3, *hardening, *schedule, "--out", out
    )
    assert "differential privacy" in trained
    scores = json.loads(run("attnpriv", "evaluate", out, "--data", data, "--json"))
    card = json.loads((out / "model_card.json").read_text(encoding="utf-8"))
    assert scores["accuracy"]["value"] == card["metrics"]["held_out"]["accuracy"]

    report, gates = tmp_path / "report", tmp_path / "gates.toml"
    gates.write_text(GATES, encoding="utf-8")
    asked = ["--data", data, "--depth", "quick", "--gates", gates, "--out", report]
    left_out = [f"--skip={measure}" for measure in SKIPPED]
    table = run("attnpriv", "audit", out, *asked, *left_out)
    assert "tickets" in table
    assert re.search(r"^PASS +ε \(tickets\): .* is at most 3$", table, re.MULTILINE)
    assert ET.parse(report / "gates.xml").getroot().get("tests") == "1"
    again = json.loads(run("attnpriv", "gate", report / "audit.json", gates, "--json"))
    assert [outcome["verdict"] for outcome in again["outcomes"]] == ["PASS"]
    audit = json.loads((report / "audit.json").read_text(encoding="utf-8"))
    (result,) = audit["results"]
    assert result["utility"]["accuracy"]["value"] == scores["accuracy"]["value"]
    assert result["attention"]["certificate"]["holds"] is True
    assert (report / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")

    with serving(tmp_path / "runs") as target:
        listed = json.loads(run("attnpriv-client", "models", "--target", target, "--json"))
        assert "tickets" in json.dumps(listed)
        explained = run(
            "attnpriv-client", "explain", "--target", target, "--model", "tickets", "--json",
            "Please write to maria.keller@example.com about my refund",
        )  # fmt: skip
        assert "[EMAIL_ADDRESS]" in explained
        assert "maria" not in explained


@pytest.mark.exhaustive
def test_the_server_and_evaluate_agree_on_real_messages(
    serving: Serving, shared_data: Path, tmp_path: Path
) -> None:
    source, out = shared_data / "sms_spam.tsv", tmp_path / "runs" / "sms"
    schedule = ["--trainable", "head", "--steps", 5]
    run("attnpriv", "train", "--data", source, "--epsilon", 3, *schedule, "--out", out)
    loaded, data = load_run(out), load_dataset(str(source))
    texts = data.subset(loaded.split(data).held_out[:MESSAGES]).texts
    expected = predict_probabilities(loaded, texts).argmax(1)
    file = tmp_path / "messages.txt"
    file.write_text("\n".join(texts) + "\n", encoding="utf-8")
    with serving(tmp_path / "runs") as target:
        options = ["--target", target, "--model", "sms", "--file", file, "--json"]
        answer: dict[str, Any] = json.loads(run("attnpriv-client", "predict", *options))
    labels = [prediction["label"] for prediction in answer["predictions"]]
    assert labels == [loaded.label_names[number] for number in expected]
    assert len(labels) == MESSAGES


@pytest.mark.exhaustive
def test_two_processes_of_torchrun_train_what_one_trains(tmp_path: Path) -> None:
    training = [
        "train", "--data", "tickets:rows=400", "--epsilon", 3, "--noise-multiplier", 2,
        "--noise-seed", 0, "--trainable", "head", "--steps", 4,
    ]  # fmt: skip
    alone = run("attnpriv", *training, "--out", tmp_path / "alone" / "tickets")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    together = run(
        "torchrun", "--nproc-per-node", 2, "--master-addr", "127.0.0.1", "--master-port", port,
        "-m", "attnpriv.cli", *training, "--out", tmp_path / "tickets",
    )  # fmt: skip
    assert together.count("run folder:") == alone.count("run folder:") == 1
    one, two = load_run(tmp_path / "alone" / "tickets"), load_run(tmp_path / "tickets")
    torch.testing.assert_close(two.model.head.weight, one.model.head.weight, rtol=1e-5, atol=1e-6)
    assert one.model.head.weight.abs().max() > 0.01
    assert two.card == one.card
    ledgers = [(loaded.path / "privacy_ledger.jsonl").read_text() for loaded in (one, two)]
    assert ledgers[0] == ledgers[1]
