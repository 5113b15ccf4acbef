"""Trainings that take a second, in this process and in others, which may be killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from attnpriv.config import AttentionConfig, PrivacyConfig, TrainConfig
from attnpriv.data import Dataset
from attnpriv.privacy.ledger import Ledger
from attnpriv.training import TrainingResult, train
from attnpriv.training.checkpoint import CHECKPOINT, training_folder, work_path

DATA, ROWS = "tickets:rows=300", 240  # that of the fixture, and how many are trained on
SCHEDULE: dict[str, Any] = {
    "steps": 40,
    "batch_size": 30,
    "micro_batch_tokens": 1024,
    "train_size": ROWS,
}
PRIVACY: dict[str, Any] = {"epsilon": 3.0, "noise_multiplier": 1.5, "noise_seed": 0}
SERVER = Path(__file__).with_name("fork_server.py")


def write_encoder(folder: Path, texts: tuple[str, ...]) -> Path:
    """A BERT of 20,000 random weights, in the layout of a pretrained one."""
    torch.manual_seed(7)
    split = pre_tokenizers.BertPreTokenizer()
    words = {word for text in texts for word, _ in split.pre_tokenize_str(text.lower())}
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted(words)]
    tokenizer = Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = split
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "vocab_size": len(vocabulary),
        "hidden_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 7,
        "max_position_embeddings": 23,
        "layer_norm_eps": 1e-12,
    }
    (folder / "config.json").write_text(json.dumps(config))

    def linear(name: str, outputs: int, inputs: int) -> dict[str, torch.Tensor]:
        weight = torch.randn(outputs, inputs) / inputs**0.5
        return {f"{name}.weight": weight, f"{name}.bias": torch.randn(outputs) / 10}

    def norm(name: str) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": torch.ones(12), f"{name}.bias": torch.zeros(12)}

    weights = {
        "embeddings.word_embeddings.weight": torch.randn(len(vocabulary), 12),
        "embeddings.position_embeddings.weight": torch.randn(23, 12) / 10,
        "embeddings.token_type_embeddings.weight": torch.zeros(2, 12),
        **norm("embeddings.LayerNorm"),
    }
    for layer in range(2):
        block = f"encoder.layer.{layer}"
        for projection in ("query", "key", "value"):
            weights |= linear(f"{block}.attention.self.{projection}", 12, 12)
        weights |= linear(f"{block}.attention.output.dense", 12, 12)
        weights |= norm(f"{block}.attention.output.LayerNorm")
        weights |= linear(f"{block}.intermediate.dense", 7, 12)
        weights |= linear(f"{block}.output.dense", 12, 7) | norm(f"{block}.output.LayerNorm")
    save_file(weights, folder / "model.safetensors")
    return folder


@dataclass(frozen=True)
class Child:
    """A process of the fork server."""

    server: ForkServer
    pid: int
    log: Path

    @contextmanager
    def steps(self) -> Iterator[Iterator[int]]:
        """The steps that it takes, as it takes them; after its death, those it had taken."""
        with self.log.with_suffix(".steps").open() as pipe:
            yield map(int, pipe)

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, at_most: float = 60.0) -> int:
        """Its exit code, or minus the signal that ended it."""
        code = self.server.ask({"wait": self.pid, "at_most": at_most})["code"]
        assert code is not None, f"still at work after {at_most} s: {self.errors}"
        return int(code)

    @property
    def errors(self) -> str:
        """What it has written to stderr."""
        return Path(f"{self.log}.err").read_text()

    @property
    def rows(self) -> int:
        """Of how many records it has computed gradients."""
        return int(Path(f"{self.log}.rows").read_text())


class ForkServer:
    """Starts processes without the seconds that importing torch takes."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._numbers = count()
        self._process = subprocess.Popen(
            [sys.executable, SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        )

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def account(self, steps: int, batch_size: int, privacy: dict[str, Any]) -> None:
        """Let the server compute ε, which its children then need not."""
        known = {name: value for name, value in privacy.items() if name != "noise_seed"}
        schedule = {"delta": 1e-5, "sample_rate": batch_size / ROWS, "steps": steps}
        self.ask({"account": {**known, **schedule}})

    def start(
        self, *, environment: dict[str, str] | None = None, reports: bool = False, **request: Any
    ) -> Child:
        """Start a process; see ``fork_server.run_child``. One that reports waits for a listener."""
        log = self._logs / str(next(self._numbers))
        if reports:
            os.mkfifo(log.with_suffix(".steps"))
            request["steps"] = str(log.with_suffix(".steps"))
        child = {"data": DATA, "log": str(log), "environment": environment or {}, **request}
        return Child(self, self.ask({"start": child})["pid"], log)

    def close(self) -> None:
        self._process.communicate(timeout=10)


class Trainings:
    """One small training, with variations, in this process or in others."""

    def __init__(self, data: Dataset, encoder: Path, server: ForkServer) -> None:
        self.data = data
        self.encoder = encoder
        self.server = server

    def run(
        self,
        out: Path,
        trainable: str = "all",
        *,
        privacy: dict[str, Any] | None = PRIVACY,
        interrupt_at: int | None = None,
        data: Dataset | None = None,
        encoder: Path | None = None,
        resume: bool = False,
        canaries: int | None = None,
        on_step: Any = None,
        **config: Any,
    ) -> TrainingResult:
        """Train in this process."""

        def interrupt(step: int, steps: int, epsilon: float | None) -> None:
            if on_step is not None:
                on_step(step, steps, epsilon)
            if step == interrupt_at:
                raise KeyboardInterrupt

        return train(
            data or self.data,
            out,
            encoder=str(encoder or self.encoder),
            attention=AttentionConfig(),
            config=TrainConfig(trainable=trainable, **{**SCHEDULE, **config}),
            privacy=None if privacy is None else PrivacyConfig(**privacy),
            canaries=canaries,
            resume=resume,
            on_step=interrupt,
        )

    def start(
        self,
        out: Path,
        trainable: str = "all",
        *,
        privacy: dict[str, Any] | None = PRIVACY,
        interrupt_at: int | None = None,
        resume: bool = False,
        shard: bool = False,
        config: dict[str, Any] | None = None,
        **request: Any,
    ) -> Child:
        """Train in another process."""
        training = {
            "out": str(out),
            "encoder": str(self.encoder),
            "config": asdict(TrainConfig(trainable=trainable, **{**SCHEDULE, **(config or {})})),
            "privacy": None if privacy is None else asdict(PrivacyConfig(**privacy)),
            "resume": resume,
            "interrupt_at": interrupt_at,
            "shard": shard,
        }
        return self.server.start(training=training, **request)

    def start_together(
        self, out: Path, *arguments: Any, count: int = 2, **options: Any
    ) -> list[Child]:
        """Train in several processes that share the work, as torchrun would start them."""
        shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1"}
        shared["MASTER_PORT"] = str(self.free_port())
        reports = options.pop("reports", False)
        return [
            self.start(
                out,
                *arguments,
                environment={**shared, "RANK": str(rank)},
                reports=reports and rank == 0,  # the only one that has something to report
                **options,
            )
            for rank in range(count)
        ]

    def spent(self, out: Path) -> int:
        """The steps that the ledger of an unfinished training states."""
        spent = Ledger(training_folder(out, {}).ledger).noised_steps()
        return 0 if spent is None else spent.steps

    def saved(self, out: Path) -> int:
        """The steps after which its state was saved."""
        with safe_open(work_path(out) / CHECKPOINT, "pt") as file:
            assert all(file.get_tensor(name).isfinite().all() for name in file.keys())  # noqa: SIM118
            return int(json.loads(file.metadata()["state"])["steps_taken"])

    def arguments(self, out: Path) -> list[str]:
        """Those of the ``attnpriv`` command for the same training."""
        options: dict[str, Any] = {
            "--data": DATA,
            "--out": out,
            "--encoder": self.encoder,
            "--trainable": "all",
            "--epsilon": PRIVACY["epsilon"],
            "--noise-multiplier": PRIVACY["noise_multiplier"],
            "--noise-seed": PRIVACY["noise_seed"],
            "--steps": SCHEDULE["steps"],
            "--batch-size": SCHEDULE["batch_size"],
            "--micro-batch-tokens": SCHEDULE["micro_batch_tokens"],
            "--train-size": SCHEDULE["train_size"],
        }
        return ["train", *(str(part) for option in options.items() for part in option)]

    def command(self, out: Path, *options: str, **request: Any) -> Child:
        """The ``attnpriv`` command in another process; further options overrule."""
        return self.server.start(arguments=[*self.arguments(out), *options], **request)

    def free_port(self) -> int:
        """A port that nobody listens at, for processes to meet."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory, tickets: Dataset) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"), tickets.texts)


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    server = ForkServer(tmp_path_factory.mktemp("processes"))
    server.account(SCHEDULE["steps"], SCHEDULE["batch_size"], PRIVACY)
    yield server
    server.close()


@pytest.fixture(scope="session")
def trainings(tickets: Dataset, tiny_encoder: Path, fork_server: ForkServer) -> Trainings:
    return Trainings(tickets, tiny_encoder, fork_server)


@pytest.fixture(scope="session")
def uninterrupted(trainings: Trainings, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run folders of trainings that nothing stopped, by what is trained and whether privately."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    done: dict[tuple[str, bool], Path] = {}

    def of(trainable: str = "all", private: bool = True) -> Path:
        if (trainable, private) not in done:
            out = folder / f"{trainable}-{private}" / "run"
            privacy = PRIVACY if private else None
            done[trainable, private] = trainings.run(out, trainable, privacy=privacy).path
        return done[trainable, private]

    return of
