"""The ``attnpriv`` command, as tests call it, and a small model with random weights."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from attnpriv import cli, progress
from attnpriv.config import AttentionConfig, ModelConfig
from attnpriv.data import Dataset
from attnpriv.models.text import TextClassifier

VOCABULARY = 4096
MakeModel = Callable[[AttentionConfig], TextClassifier]


class Outcome(NamedTuple):
    """What a command ended with."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Call the command in this process, as its console script does."""
    # On a slow machine a command may take long enough to say how far it is.
    monkeypatch.setattr(progress, "EVERY", 3600.0)

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["attnpriv", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
            sys.exit(0)
        captured = capsys.readouterr()
        return Outcome(int(exit_.value.code or 0), captured.out, captured.err)

    return call


class Interrupted(NamedTuple):
    """What a process left that was interrupted."""

    code: int
    out: bytes
    shown: bytes  # on its terminal, which is where its stderr went


@pytest.fixture
def interrupted() -> Callable[..., Interrupted]:
    """Call the command in a process on a terminal, and send Ctrl-C once it shows something."""

    def call(awaited: bytes, *arguments: object) -> Interrupted:
        terminal, stderr = pty.openpty()
        process = subprocess.Popen(
            [Path(sys.executable).with_name("attnpriv"), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        )
        os.close(stderr)
        shown = b""
        while awaited not in shown:
            shown += os.read(terminal, 1024)
        process.send_signal(signal.SIGINT)
        rest: list[bytes] = []
        # Bars on a terminal that nobody reads would hold the process up before it has ended.
        reader = threading.Thread(target=lambda: rest.append(_read_rest(terminal)), daemon=True)
        reader.start()
        said, _ = process.communicate(timeout=60)  # until its own processes have ended too
        reader.join(timeout=60)
        return Interrupted(process.returncode, said, shown + b"".join(rest))

    return call


def _read_rest(terminal: int) -> bytes:
    """What a process that has ended left on its terminal."""
    rest = b""
    try:
        while more := os.read(terminal, 4096):
            rest += more
    except OSError:  # the other end is closed, and all is read
        pass
    os.close(terminal)
    return rest


@pytest.fixture(scope="session")
def make_model(tickets: Dataset) -> MakeModel:
    def make(attention: AttentionConfig) -> TextClassifier:
        torch.manual_seed(0)
        model = TextClassifier(
            ModelConfig(
                encoder="scratch",
                vocab_size=VOCABULARY,
                dim=15,
                layers=2,
                heads=3,
                hidden_dim=22,
                max_length=64,
                num_labels=len(tickets.label_names),
                attention=attention,
            )
        )
        for parameter in model.parameters():
            if parameter.ndim == 2:  # large enough that attention is far from uniform
                torch.nn.init.normal_(parameter, std=0.6)
        return model.eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def model(make_model: MakeModel) -> TextClassifier:
    return make_model(AttentionConfig())
