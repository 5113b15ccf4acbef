"""Trainings and commands in processes of their own that need not import torch each.

It imports what they need once, and then reads requests and writes answers, one JSON object a line::

    {"account": {...}}                  fill the accountant's cache         {}
    {"start": {...}}                    fork a child, see ``run_child``     {"pid": 123}
    {"wait": 123, "at_most": seconds}   until it has ended                  {"code": 2}

The code of a child that a signal ended is minus the signal's number; that of a child that did not
end in time, and was killed for it, is null.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
import traceback
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # the first step of an optimizer would import it, in each child anew

from attnpriv.config import AttentionConfig, PrivacyConfig, TrainConfig
from attnpriv.data import Dataset, load_dataset
from attnpriv.errors import InputError
from attnpriv.models.text import TextClassifier
from attnpriv.privacy import epsilon_spent
from attnpriv.privacy.accounting import steps_within
from attnpriv.training import train
from attnpriv.training.loop import Schedule

CHANGES = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate"}


def serve() -> None:
    for line in sys.stdin:
        match json.loads(line):
            case {"account": schedule}:
                answer = account(**schedule)
            case {"start": request}:
                load(request["data"])
                answer = {"pid": fork(request)}
            case {"wait": pid, "at_most": seconds}:
                answer = {"code": wait(pid, seconds)}
        print(json.dumps(answer), flush=True)  # noqa: T201


def account(
    epsilon: float, noise_multiplier: float, delta: float, sample_rate: float, steps: int
) -> dict[str, int]:
    steps_within(epsilon, noise_multiplier, delta, sample_rate, steps)
    schedule, count = Schedule(1, 1, steps), 0
    while count < steps:
        count = schedule.stretch_end(count)
        epsilon_spent(noise_multiplier, delta, sample_rate, count)
    epsilon_spent(noise_multiplier, delta, sample_rate, steps, "rdp")
    return {}


@cache
def load(data: str) -> Dataset:
    return load_dataset(data)


def fork(request: dict[str, Any]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = run_child(**request)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return pid


def wait(pid: int, seconds: float) -> int | None:
    end = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.002)


def run_child(
    *,
    data: str,
    log: str,
    environment: dict[str, str],
    arguments: list[str] | None = None,
    training: dict[str, Any] | None = None,
    steps: str | None = None,
    largest_file: int | None = None,
    dies_before_change: int | None = None,
) -> int:
    """Do what a request says, and return its exit code.

    Args:
        data: name of the data set.
        log: path of what goes to stdout and stderr, less ``.out`` and ``.err``.
        environment: is added to the parent's.
        arguments: of the command, or None.
        training: arguments of ``train``, as JSON, or None.
        steps: a pipe for the number of each step that was taken.
        largest_file: bytes that a file may have; a longer one fails as on a full disk.
        dies_before_change: kill this process when it is about to change the run folder's
            surroundings for that many times.
    """
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, f"{log}.out", os.O_WRONLY | os.O_CREAT),
        (2, f"{log}.err", os.O_WRONLY | os.O_CREAT),
    ):
        os.dup2(os.open(path, flags), number)
    os.environ.update(environment)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    try:
        if arguments is not None:
            from attnpriv.cli import main

            sys.argv = ["attnpriv", *arguments]
            main()
        if training is not None:
            if dies_before_change is not None:
                die_before_change(dies_before_change, str(Path(training["out"]).parent))
            run_training(data, log, steps, **training)
    except SystemExit as ended:
        return int(ended.code or 0)
    except KeyboardInterrupt:
        return 130
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def run_training(
    data: str,
    log: str,
    steps: str | None,
    *,
    out: str,
    encoder: str,
    config: dict[str, Any],
    privacy: dict[str, Any] | None,
    resume: bool,
    interrupt_at: int | None,
    shard: bool,
) -> None:
    rows = 0

    def count_rows(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], _: object) -> None:
        nonlocal rows
        if isinstance(module, TextClassifier) and torch.is_grad_enabled():
            rows += len(inputs[0])

    torch.nn.modules.module.register_module_forward_hook(count_rows)
    pipe = None if steps is None else os.open(steps, os.O_WRONLY)

    def on_step(step: int, _: int, __: float | None) -> None:
        if pipe is not None:
            os.write(pipe, b"%d\n" % step)
        if step == interrupt_at:
            raise KeyboardInterrupt

    train(
        load(data),
        Path(out),
        encoder=encoder,
        attention=AttentionConfig(),
        config=TrainConfig(**config),
        privacy=None if privacy is None else PrivacyConfig(**privacy),
        shard=shard,
        resume=resume,
        on_step=on_step,
    )
    assert Path(out, "manifest.json").exists(), "a run folder, whichever process has written it"
    Path(f"{log}.rows").write_text(str(rows))


def die_before_change(count: int, folder: str) -> None:
    left = count

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event not in CHANGES or not concerns(arguments[0]):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def concerns(path: object) -> bool:
        # shutil.rmtree, and nothing else here, names files relative to a folder's descriptor.
        text = str(path)
        return isinstance(path, str | Path) and (text[0] != "/" or text.startswith(folder))

    sys.addaudithook(hook)


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve()
