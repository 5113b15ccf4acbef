"""Memory and time of a process that trains a large model alone, in two, and in two that share it.

Every training is a private one as ``attnpriv train --trainable all`` makes it: two steps, the saved
state after them (put together, but not written), and the whole model at the end. Memory is counted
twice: by the tensors that a process keeps between steps (weights, clipped sums, Adam's state, the
average of the weights), and as its largest resident size less that before the model was made. At
the default size it takes 8 GiB in all.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor

from attnpriv.config import ModelConfig, PrivacyConfig, TrainConfig
from attnpriv.data import load_dataset
from attnpriv.data.splits import split_rule
from attnpriv.data.text import Text
from attnpriv.data.tokenisation import HashTokenizer
from attnpriv.models.text import TextClassifier
from attnpriv.privacy.shards import held, whole
from attnpriv.randomness import StepKeys
from attnpriv.training.checkpoint import state_content
from attnpriv.training.loop import Training
from attnpriv.training.plan import cut, plan_training
from attnpriv.training.preparation import Classifier
from attnpriv.training.processes import Processes, join_processes
from benchmarks.machine import own_memory, processor

GIB = 2**30
STEPS, BATCH, LENGTH, VOCABULARY = 2, 4, 16, 1000
CASES = {"alone": 1, "records": 2, "model": 2}  # what is shared, and by how many processes


def main() -> None:
    """Measure each case in processes of its own; print a line for each and JSON at the end."""
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.sharded_training")
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["alone", "model"])
    parser.add_argument("--one", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        torch.set_num_threads(1)
        print(json.dumps(_measure(arguments.dim, arguments.layers, arguments.one == "model")))
        return
    cases = {}
    for case in arguments.cases:
        cases[case] = _of_processes(case, arguments.dim, arguments.layers)
        print(case, cases[case], flush=True)
    result = {"dim": arguments.dim, "layers": arguments.layers, "cases": cases}
    print(json.dumps({"processor": processor(), **result}))


def _of_processes(case: str, dim: int, layers: int) -> list[dict[str, float]]:
    count = CASES[case]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", "benchmarks.sharded_training", "--one", case]
    command += ["--dim", str(dim), "--layers", str(layers)]
    children = [
        subprocess.Popen(
            command,
            env={**os.environ, **together, "WORLD_SIZE": str(count), "RANK": str(rank)},
            stdout=subprocess.PIPE,
        )
        for rank in range(count)
    ]
    answers = [child.communicate()[0] for child in children]
    assert not any(child.returncode for child in children)
    return [json.loads(answer) for answer in answers]


def _measure(dim: int, layers: int, shard: bool) -> dict[str, float]:
    dataset = load_dataset("tickets:rows=100")
    imports = own_memory("VmRSS")
    config = TrainConfig(
        trainable="all", steps=STEPS, batch_size=BATCH, micro_batch_tokens=2 * LENGTH
    )
    privacy = PrivacyConfig(8.0, noise_multiplier=2.0, noise_seed=0)
    parts = cut(dataset, split_rule(config.train_size, config.seed))
    build = partial(_classifier, dim, layers, len(dataset.label_names))
    with join_processes(shard=shard) as processes:
        plan = plan_training(parts, build, config, privacy)
        samples = plan.classifier.read(parts.rows)
        training = plan.begin(samples, StepKeys.from_seed(0), processes)
        started = time.monotonic()
        while training.steps_taken < plan.schedule.steps:
            training.step()
        seconds = (time.monotonic() - started) / STEPS
        kept = _kept(training)
        _put_together(training, processes)
        training.finish()
    return {
        "kept_gib": round(kept / GIB, 3),
        "peak_gib": round((own_memory("VmHWM") - imports) / GIB, 3),
        "seconds_a_step": round(seconds, 1),
    }


def _classifier(dim: int, layers: int, labels: int) -> Classifier:
    shape = ModelConfig(
        encoder="scratch",
        vocab_size=VOCABULARY,
        dim=dim,
        layers=layers,
        heads=dim // 64,
        hidden_dim=4 * dim,
        max_length=LENGTH,
        num_labels=labels,
    )
    return Classifier(TextClassifier(shape), Text(HashTokenizer(VOCABULARY), LENGTH))


def _kept(training: Training) -> int:
    tensors, _ = training.state()  # weights, their average, Adam's two
    weights = [tensor for name, tensor in tensors.items() if name.startswith("weight.")]
    return _size(tensors.values()) + _size(weights)  # and as many clipped sums


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(held(tensor).numel() * tensor.itemsize for tensor in tensors)


def _put_together(training: Training, processes: Processes) -> None:
    tensors, key = training.state()
    if processes.rank == 0:
        for _ in state_content({"key": key.hex()}, tensors):
            pass
    elif processes.sharded:
        for tensor in tensors.values():
            whole(tensor)


if __name__ == "__main__":
    main()
