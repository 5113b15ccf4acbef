"""The attnpriv-server command, as a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which

import grpc
import pytest

from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceStub
from attnpriv_server.cli import default_workers
from attnpriv_server.cores import usable_cores

EXAMPLES = Path(__file__).parents[2] / "examples" / "policies"
DRAWING = "drawing.toml"
DRAWN = """
[roles.everyone]
explain = { tokens = { read = "redacted" }, key = { epsilon = 1 } }
budget = { epsilon = 2, period = "1 day" }
"""
COMMAND = [Path(sys.executable).with_name("attnpriv-server")]


@pytest.fixture(scope="module")
def models_folder(private_run: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(private_run, folder / "tiny")
    return folder


def refusal(*arguments: str | Path) -> str:
    """What a start that must fail says on stderr."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    return done.stderr


def assert_one_line(error: str) -> None:
    assert error.startswith("error: "), error
    assert error.count("\n") == 1, error


@contextmanager
def started(*arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("listening on "), process.stderr.read()
            yield process, line.removeprefix("listening on ").strip()
        finally:
            process.kill()


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.exhaustive)]
)
def test_it_serves_until_told_to_stop(models_folder, number) -> None:
    with started("--models", models_folder, "--listen", "127.0.0.1:0") as (process, target):
        with grpc.insecure_channel(target) as channel:
            name = AttnprivServiceStub(channel).ListModels(pb.ListModelsRequest()).models[0].name
            request = pb.PredictRequest(model=name, texts=["a tell-tale text"])
            assert AttnprivServiceStub(channel).Predict(request).predictions
        process.send_signal(number)
        out, err = process.communicate(timeout=60)

    assert process.returncode == 0
    assert out == ""
    calls = [json.loads(line) for line in err.splitlines()]
    assert [call["code"] for call in calls] == ["OK", "OK"]
    assert "tell-tale" not in err


def handles_sigterm(process: int) -> bool:
    """Python itself handles SIGINT alone."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines()
    )
    return bool(int(status["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1)


# The first process of a namespace, as in a container: it gets no signal that it does not handle.
FIRST = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("prefix", [[], FIRST], ids=["any process", "the first process"])
def test_a_signal_during_the_start_ends_it(models_folder, number, prefix) -> None:
    if prefix and (not which(prefix[0]) or subprocess.run([*prefix, "true"]).returncode):
        pytest.skip("no namespaces here")
    command = [*prefix, *COMMAND, "--models", models_folder, "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as outer:
        server = outer.pid
        try:
            while prefix and server == outer.pid:
                children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text()
                server = int(children or outer.pid)
            while not handles_sigterm(server):
                time.sleep(0.001)
            os.kill(server, number)
            out, err = outer.communicate(timeout=60)
        finally:
            outer.kill()

    assert (outer.returncode, out, err) == (0, "", "")


@pytest.mark.exhaustive
def test_a_port_in_use_is_not_shared_with_a_second_server(models_folder) -> None:
    with started("--models", models_folder, "--listen", "127.0.0.1:0") as (_, target):
        error = refusal("--models", models_folder, "--listen", target)

    assert_one_line(error)
    assert f"cannot listen on {target}" in error


@pytest.mark.exhaustive
def test_a_tampered_run_folder_stops_the_start(models_folder, tmp_path) -> None:
    shutil.copytree(models_folder, tmp_path / "models")
    weights = tmp_path / "models" / "tiny" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)

    error = refusal("--models", tmp_path / "models")

    assert_one_line(error)
    assert str(tmp_path / "models" / "tiny") in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--listen", "50051"], "from 0 to 65535, got '50051'"),
        (["--operations-listen", "9464"], "expected --operations-listen HOST:PORT, "),
        (
            ["--operations-listen", "127.0.0.1:50051"],
            "--listen must differ, both are 127.0.0.1:50051",
        ),
        (["--operations-listen", "192.0.2.1:0"], "cannot listen on 192.0.2.1:0"),
        (["--listen", "0.0.0.0:0"], "refusing to listen on 0.0.0.0:0 without encryption"),
        (["--listen", "[::]:0"], "refusing to listen on [::]:0 without encryption"),
        (
            ["--policy", "/does/not/exist"],
            "policy /does/not/exist: cannot read exist: ",
        ),
        (
            ["--policy", EXAMPLES / "help-desk.toml"],
            "no principal of the name that stands",
        ),
        (["--policy", DRAWING], "answers drawn, which a budget must pay for: --budget URL"),
        (["--policy", DRAWING, "--budget", "mysql://x"], "expected "),
    ],
)
def test_bad_options(tmp_path, arguments, message) -> None:
    (tmp_path / "drawing.toml").write_text(DRAWN)
    arguments = [tmp_path / DRAWING if each is DRAWING else each for each in arguments]
    error = refusal("--models", tmp_path, *arguments)

    assert_one_line(error)
    assert message in error


def test_drawn_answers_are_charged_to_the_budget_that_is_named(models_folder, tmp_path) -> None:
    (tmp_path / DRAWING).write_text(DRAWN)
    budget = f"sqlite:///{tmp_path}/budget.db"
    options = ("--policy", tmp_path / DRAWING, "--budget", budget, "--workers", "0")
    listen = ("--listen", "127.0.0.1:0")
    request = pb.ExplainRequest(model="tiny", text="Where is my parcel?")
    with (
        started("--models", models_folder, *listen, *options) as (_, target),
        grpc.insecure_channel(target) as channel,
    ):
        answer = AttnprivServiceStub(channel).Explain(request)
        shown = subprocess.run(
            [*COMMAND, "budget", "show", "--budget", budget, "--json"],
            capture_output=True,
            text=True,
            check=True,
        )

    assert answer.micro_epsilon == 1_000_000
    (account,) = json.loads(shown.stdout)["budgets"]
    assert (account["principal"], account["model"]) == ("anonymous", "tiny")
    assert (account["spent"], account["allowed"]) == (1_000_000, 2_000_000)


def test_a_process_on_one_core_takes_no_workers() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [min(before)])
    try:
        assert default_workers() == 0
    finally:
        os.sched_setaffinity(0, before)
    assert default_workers() == (2 if usable_cores() > 1 else 0)
