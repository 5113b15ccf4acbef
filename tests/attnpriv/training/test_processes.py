"""Several processes that train one model: that of one process, to the order of float32 sums."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from attnpriv.runs.folder import LEDGER, WEIGHTS, load_run
from attnpriv.training.checkpoint import CHECKPOINT, training_folder, work_path

SEEDED = {"epsilon": 3.0, "noise_multiplier": 1.5, "noise_seed": 0}
STEPS = 16  # under torchrun, where the accountant starts from nothing in every process
LOST = "another process of this training has ended"


def rounded(value: Any) -> Any:
    """The same with nine digits: the accountant's last ones differ from process to process."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


def assert_same_run(run: Path, expected: Path) -> None:
    ours, theirs = load_file(run / WEIGHTS), load_file(expected / WEIGHTS)
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        of_no_effect = torch.zeros_like(weight, dtype=torch.bool)
        if name.endswith("qkv.bias"):
            # A key's bias adds the same to every logit of a row: its gradient is a rounding error,
            # which Adam makes as large as any other.
            of_no_effect.view(3, -1)[1] = True
        torch.testing.assert_close(
            weight.masked_fill(of_no_effect, 0),
            theirs[name].masked_fill(of_no_effect, 0),
            rtol=1e-5,
            atol=1e-5,
            msg=name,
        )
    cards = [load_run(folder).card.as_written for folder in (run, expected)]
    for card in cards:
        # One row more or less may be predicted correctly where two classes are as likely.
        accuracy = card["metrics"]["held_out"].pop("accuracy")
        assert abs(accuracy - cards[0]["metrics"]["held_out"].get("accuracy", accuracy)) < 0.02
    assert rounded(cards[0]) == rounded(cards[1])


def end(children: list[Any], code: int = 0) -> None:
    for child in children:
        assert child.wait() == code, [each.errors for each in children]


@pytest.mark.parametrize("private", [True, False], ids=["private", "plain"])
def test_two_processes_train_what_one_trains(
    trainings: Any, uninterrupted: Any, tmp_path: Path, private: bool
) -> None:
    privacy = SEEDED if private else None
    alone = trainings.start(tmp_path / "alone" / "run", privacy=privacy)
    together = trainings.start_together(tmp_path / "run", privacy=privacy)
    end([alone, *together])
    assert all(child.rows > alone.rows // 3 for child in together), "each did its share"
    assert sum(child.rows for child in together) == alone.rows
    assert_same_run(tmp_path / "run", uninterrupted("all", private))
    entries = [
        [json.loads(line) for line in (folder / LEDGER).read_text().splitlines()]
        for folder in (tmp_path / "run", uninterrupted("all", private))
    ]
    assert rounded(entries[0]) == rounded(entries[1])


@pytest.mark.parametrize("privacy", [SEEDED, None], ids=["private", "plain"])
def test_the_gradient_of_one_step(trainings: Any, tmp_path: Path, privacy: Any) -> None:
    """Adam's average of the gradients is, after one step, a tenth of the gradient."""
    config = {"steps": 2}  # its second stretch begins with saving the state after one step
    alone = trainings.start(tmp_path / "alone", privacy=privacy, config=config, interrupt_at=2)
    assert alone.wait() == 130
    together = trainings.start_together(
        tmp_path / "together", privacy=privacy, config=config, interrupt_at=2
    )
    assert [child.wait() for child in together] == [130, 2]
    states = [load_file(work_path(tmp_path / name) / CHECKPOINT) for name in ("alone", "together")]
    gradients = [
        {name: 10 * value for name, value in state.items() if name.endswith("exp_avg")}
        for state in states
    ]
    assert len(gradients[0]) == len(gradients[1]) > 20
    assert any(gradient.abs().max() > 1e-3 for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-6, atol=1e-6)


@pytest.mark.every_value
@pytest.mark.parametrize("trainable", ["head", "all"])
@pytest.mark.parametrize("privacy", [SEEDED, None], ids=["private", "plain"])
def test_empty_shares_and_empty_batches(
    trainings: Any, tmp_path: Path, trainable: str, privacy: Any
) -> None:
    """At an expected batch of one, a third of the batches are empty, a third have one row."""
    config = {"batch_size": 1, "steps": 8}
    trainings.server.account(**config, privacy=SEEDED)
    options = {"privacy": privacy, "config": config}
    alone = trainings.start(tmp_path / "alone" / "run", trainable, **options)
    together = trainings.start_together(tmp_path / "run", trainable, **options)
    end([alone, *together])
    assert_same_run(tmp_path / "run", tmp_path / "alone" / "run")


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_process_ends_the_other_and_one_goes_on(
    trainings: Any, uninterrupted: Any, tmp_path: Path, lost: int
) -> None:
    out = tmp_path / "run"
    together = trainings.start_together(out, reports=True)
    with together[0].steps() as steps:
        begun = [next(steps) for _ in range(5)]
        together[lost].send(signal.SIGKILL)
        begun += steps
    assert together[lost].wait() == -signal.SIGKILL
    assert together[1 - lost].wait(at_most=20) == 2
    assert LOST in together[1 - lost].errors
    assert "Traceback" not in together[1 - lost].errors
    assert 5 <= begun[-1] <= trainings.spent(out)
    assert not out.exists()
    trainings.run(out, resume=True)
    assert_same_run(out, uninterrupted())


@pytest.mark.exhaustive
def test_two_go_on_where_one_or_two_were_interrupted(
    trainings: Any, uninterrupted: Any, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert trainings.start(out, interrupt_at=9).wait() == 130
    together = trainings.start_together(out, resume=True, interrupt_at=21)
    assert [child.wait() for child in together] == [130, 2]
    end(trainings.start_together(out, resume=True))
    assert_same_run(out, uninterrupted())


def test_a_refused_command_ends_both(trainings: Any, tmp_path: Path) -> None:
    together = trainings.start_together(tmp_path / "run", resume=True)
    end(together, code=2)
    assert "expected an unfinished training" in together[0].errors
    assert list(tmp_path.iterdir()) == []


def test_an_environment_that_does_not_say_where_the_others_are(
    trainings: Any, tmp_path: Path
) -> None:
    child = trainings.start(tmp_path / "run", environment={"WORLD_SIZE": "2", "RANK": "0"})
    assert child.wait() == 2
    assert "cannot reach the other processes of this training" in child.errors
    assert "Traceback" not in child.errors
    assert list(tmp_path.iterdir()) == []


def torchrun(trainings: Any, out: Path) -> list[str]:
    """A command line that starts two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(trainings.free_port())]
    # The agent waits for this long before it ends the processes that are left.
    command += ["--monitor-interval", "3", "-m", "attnpriv.cli"]
    return [*command, *trainings.arguments(out), "--steps", str(STEPS)]


def ranks(agent: int) -> dict[str, int]:
    """The process of each rank that the agent has started."""
    found = {}
    for child in Path(f"/proc/{agent}/task/{agent}/children").read_text().split():
        environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        for variable in environment:
            name, _, value = variable.decode().partition("=")
            if name == "RANK":
                found[value] = int(child)
    return found


@pytest.mark.exhaustive
def test_torchrun_ends_with_a_process_that_is_killed(trainings: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    ledger, processes = training_folder(out, {}).ledger, dict[str, int]()
    with subprocess.Popen(
        torchrun(trainings, out), env=environment, stderr=subprocess.PIPE, text=True
    ) as agent:
        while not (ledger.exists() and len(processes) == 2):
            assert agent.poll() is None, agent.communicate()
            processes = processes if len(processes) == 2 else ranks(agent.pid)
            time.sleep(0.01)
        os.kill(processes["1"], signal.SIGKILL)
        _, errors = agent.communicate(timeout=60)
    assert agent.returncode != 0
    assert LOST in errors
    assert not out.exists()
    assert trainings.spent(out) >= max(1, trainings.saved(out))
    trainings.run(out, steps=STEPS, resume=True)
    assert_same_run(out, trainings.run(tmp_path / "uninterrupted" / "run", steps=STEPS).path)
