"""Worker processes against the computation in this process, and what happens when they die."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attnpriv.config import AttentionConfig, ModelConfig
from attnpriv.data.text import Text
from attnpriv.data.tokenisation import HashTokenizer
from attnpriv.errors import RunFolderError
from attnpriv.models.shapes import VisionConfig
from attnpriv.models.text import TextClassifier
from attnpriv.models.vision import VisionClassifier
from attnpriv.runs.folder import Run
from attnpriv_server.backend import make_backend
from attnpriv_server.domain import Code, Precision, RefusedError
from attnpriv_server.link import Link, Message
from attnpriv_server.models.repository import Repository
from attnpriv_server.rows import ImageRefusedError
from attnpriv_server.shared_tensors import SharedTensors
from attnpriv_server.telemetry import Telemetry
from attnpriv_server.worker import Models
from attnpriv_server.workers import WorkerError, Workers
from tests.images import encoded

SECONDS = 120  # far beyond what anything here takes, on however slow a machine
LONGEST = 67
TEXTS = [tuple((7 * i + n) % 97 for i in range(n)) for n in (5, 1, LONGEST, 12, 12, 3)]


def run_of(seed: int = 0) -> Run:
    """A run with random weights and without files, each kind of weight among them."""
    torch.manual_seed(seed)
    attention = AttentionConfig(temperature=1.5, clip=2.0, temperature_floor=0.5)
    config = ModelConfig("scratch", 97, 112, 3, 7, 224, LONGEST, 5, "layers", attention=attention)
    model = TextClassifier(config)
    torch.nn.init.normal_(model.head.weight)
    model.requires_grad_(False).eval()
    text = Text(HashTokenizer(97), model.config.max_length)
    return Run(Path(), "run", model, text, tuple("abcde"), {}, {})


@pytest.fixture(scope="module")
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture(scope="module")
def workers(telemetry) -> Iterator[Workers]:
    with Workers(2, 1, telemetry) as found:
        yield found


def processes(workers: Workers) -> list[subprocess.Popen[bytes]]:
    return [each._process for each in workers._workers]


def deaths(telemetry: Telemetry) -> float:
    return telemetry.registry.get_sample_value("attnpriv_server_worker_deaths_total")


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


def is_back(worker: Any, before: subprocess.Popen[bytes], key: int) -> bool:
    return worker._process is not before and key in worker._loaded


@pytest.mark.exhaustive
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_bits_are_those_of_this_process(workers, precision: Precision) -> None:
    run = run_of()
    here, there = make_backend(run, precision), workers.backend(run, precision)

    for count in range(1, len(TEXTS) + 1):
        np.testing.assert_array_equal(there.classify(TEXTS[:count]), here.classify(TEXTS[:count]))


@pytest.mark.exhaustive
def test_each_model_answers_for_itself_in_every_worker(workers) -> None:
    runs = [run_of(seed) for seed in range(3)]
    here = [make_backend(run, "float32").classify(TEXTS).tobytes() for run in runs]
    there = [workers.backend(run, "float32") for run in runs]

    with ThreadPoolExecutor(8) as threads:
        found = threads.map(lambda n: there[n % 3].classify(TEXTS).tobytes(), range(120))

    assert len({*here}) == 3
    assert [*found] == here * 40


def image_run() -> Run:
    """The same for images."""
    torch.manual_seed(0)
    config = VisionConfig(height=5, width=7, channels=3, patch=2, num_labels=5)
    model = VisionClassifier(config)
    torch.nn.init.normal_(model.head.weight, std=0.1)
    model.requires_grad_(False).eval()
    return Run(Path(), "run", model, config.patches, tuple("abcde"), {}, {})


def test_images_are_decoded_and_classified_as_in_this_process(workers) -> None:
    run = image_run()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3), dtype=np.uint8)
    here, there = make_backend(run, "float32"), workers.backend(run, "float32")
    rows = [sample.values for sample in run.modality.read(pixels)]

    np.testing.assert_array_equal(there.decode([encoded(image) for image in pixels]), pixels)
    with pytest.raises(ImageRefusedError, match="whole and undamaged") as refused:
        there.decode([encoded(pixels[0]), b"secret"])
    assert refused.value.index == 1
    exact = here.classify(rows)
    np.testing.assert_array_equal(there.classify(rows), exact)
    rounded = make_backend(run, "bfloat16").classify(rows)
    assert 0 < np.abs(exact - rounded).max() < 0.02


def test_the_memory_is_that_of_what_is_not_shared(workers) -> None:
    run = run_of()
    blocks = sum(p.nbytes for p in run.model.blocks.parameters())
    temperatures = sum(t.nbytes for n, t in run.model.named_parameters() if "temperature" in n)

    whole, rounded = (workers.backend(run, each).memory_bytes for each in ("float32", "bfloat16"))

    assert whole == 0
    assert rounded == 2 * ((blocks - temperatures) // 2 + temperatures)


def test_two_batches_are_computed_at_once(workers) -> None:
    """One worker is stopped in the middle of a batch; the other goes on."""
    backend = workers.backend(run_of(), "float32")
    expected = backend.classify(TEXTS)
    halted, running = processes(workers)
    if workers._free[-1]._process is not halted:
        halted, running = running, halted  # the one that is used next

    with ThreadPoolExecutor(1) as threads:
        halted.send_signal(signal.SIGSTOP)
        held = threads.submit(backend.classify, TEXTS)
        until(lambda: len(workers._free) == 1)
        found = [backend.classify(TEXTS) for _ in range(3)]
        assert not held.done()
        halted.send_signal(signal.SIGCONT)
        found.append(held.result(SECONDS))

    assert all((each == expected).all() for each in found)


def test_an_error_is_told_and_the_worker_stays(workers, telemetry) -> None:
    backend = workers.backend(run_of(), "float32")
    before = {each.pid for each in processes(workers)}, deaths(telemetry)

    with pytest.raises(WorkerError, match="^InputError$"):
        backend.classify([range(LONGEST + 1)])

    assert backend.classify(TEXTS).shape == (len(TEXTS), 5)
    assert ({each.pid for each in processes(workers)}, deaths(telemetry)) == before


def test_what_it_cannot_hold_is_not_loaded(workers) -> None:
    run = run_of()
    wrong = replace(run.model.config, dim=224)
    run.model.config = wrong  # contradicts the weights

    with pytest.raises(WorkerError, match="^RuntimeError$"):
        workers.backend(run, "float32")


@pytest.mark.exhaustive
def test_a_worker_that_dies_is_replaced_and_nothing_is_lost(workers, telemetry) -> None:
    """Killed between batches and in the middle of them, each of them answers all the same."""
    backend = workers.backend(run_of(), "float32")
    expected, before = backend.classify(TEXTS), deaths(telemetry)
    ended = threading.Event()

    def ask() -> int:
        asked = 0
        while not ended.is_set():
            assert (backend.classify(TEXTS) == expected).all()
            asked += 1
        return asked

    with ThreadPoolExecutor(3) as threads:
        asking = [threads.submit(ask) for _ in range(3)]
        try:
            for kill in range(6):
                victim = workers._workers[kill % 2]
                before_it = victim._process
                before_it.kill()
                # A second death in the middle of the same batch would fail it.
                until(partial(is_back, victim, before_it, backend.key))
        finally:
            ended.set()
        assert all(each.result(SECONDS) for each in asking)

    assert deaths(telemetry) == before + 6


@pytest.mark.exhaustive
@pytest.mark.parametrize("what", ["reads", "answers"])
def test_a_worker_that_hangs_is_replaced_and_nothing_is_lost(telemetry, what) -> None:
    """It is halted before it reads a model, which is more than a socket holds, or a batch."""
    with Workers(1, 1, telemetry) as workers:
        backend, before = workers.backend(run_of(), "float32"), deaths(telemetry)
        expected = backend.classify(TEXTS)
        (halted,) = processes(workers)
        halted.send_signal(signal.SIGSTOP)
        workers._workers[0]._link.limit_waiting(1)  # its successor has longer, as it has to start

        if what == "reads":
            backend = workers.backend(run_of(), "float32")
        found = backend.classify(TEXTS)

    assert (found == expected).all()
    assert halted.poll() == -signal.SIGKILL
    assert deaths(telemetry) == before + 1


@contextmanager
def killing_whatever_computes(workers: Workers) -> Iterator[None]:
    over, seen = threading.Event(), set()

    def kill() -> None:
        while not over.is_set():
            for each in workers._workers:
                if each not in workers._free and each._process.pid not in seen:
                    seen.add(each._process.pid)
                    each._process.kill()

    with ThreadPoolExecutor(1) as threads:
        killing = threads.submit(kill)
        try:
            yield
        finally:
            over.set()
        killing.result(SECONDS)


def test_a_batch_that_kills_every_worker_fails_alone(workers, telemetry) -> None:
    backend, before = workers.backend(run_of(), "float32"), deaths(telemetry)
    expected = backend.classify(TEXTS)

    with killing_whatever_computes(workers), pytest.raises(RefusedError) as refused:
        backend.classify(TEXTS)

    assert refused.value.status.code == Code.UNAVAILABLE
    assert deaths(telemetry) >= before + 2
    assert (backend.classify(TEXTS) == expected).all()


@pytest.mark.exhaustive
def test_a_model_that_killed_the_workers_is_tried_again(workers, private_run, tmp_path) -> None:
    """It may have been want of memory, of which the folder says nothing."""
    for number in ("1", "2"):
        shutil.copytree(private_run, tmp_path / "tiny" / number)

    with Repository(tmp_path, "float32", workers=workers) as models:
        older = models.find("tiny", "1")  # loaded once it is asked for
        assert models.loaded(older) is None
        with killing_whatever_computes(workers), pytest.raises(RunFolderError, match="Refused"):
            models.load(older)

        assert models.load(older).backend.classify([(1, 2)]).shape[0] == 1


def test_workers_forget_what_nobody_holds(workers) -> None:
    def forgotten() -> list[list[int]]:
        return [each.forgotten for each in workers._workers]

    kept, dropped = (workers.backend(run_of(), "float32") for _ in range(2))
    key = dropped.key
    del dropped
    gc.collect()
    assert all(key in keys for keys in forgotten())

    workers.backend(run_of(), "float32")  # asks every worker something
    assert not any(key in each._loaded for each in workers._workers)
    assert all(kept.key in each._loaded for each in workers._workers)


def test_a_forgotten_model_is_gone_and_the_others_answer() -> None:
    run, models = run_of(), Models()
    weights, config = SharedTensors(run.model.state_dict()), run.model.config.to_dict()
    for key in (1, 2):
        how = {"config": config, "precision": "float32", "layout": weights.layout}
        file = os.dup(weights.descriptor)  # as if it had come with the message
        assert models.answer(Message({"load": key, **how}, file=file)) == (
            {"memory_bytes": 0},
            b"",
            None,
        )
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(file)
    ids = np.arange(5, dtype=np.int32).tobytes()

    assert models.answer(Message({"forget": [1, 7]})) == Message({})

    gone = models.answer(Message({"classify": 1, "lengths": [5]}, ids))
    assert gone == Message({"error": "KeyError"})
    found = models.answer(Message({"classify": 2, "lengths": [2, 3]}, ids))
    expected = make_backend(run, "float32").classify([(0, 1), (2, 3, 4)])
    assert found == Message({"shape": (2, 5)}, expected.tobytes())


@pytest.mark.parametrize(
    ("head", "error"),
    [
        ({}, "ValueError"),
        ({"load": 1, "config": {}, "precision": "float32", "layout": {}}, "ValueError"),
        ({"classify": 3, "lengths": [1]}, "KeyError"),
    ],
)
def test_a_message_that_makes_no_sense_is_answered_by_the_type_of_the_error(head, error) -> None:
    assert Models().answer(Message(head)) == Message({"error": error})


def test_a_link_carries_objects_bytes_and_files() -> None:
    one, other = (Link(each.detach()) for each in socket.socketpair())
    with tempfile.TemporaryFile() as file:
        file.write(b"a file")
        file.flush()
        for message in (Message({"a": [1]}, b"\0" * 9), Message({}, b"x", file.fileno())):
            one.send(message)
            found = other.receive()
            assert found[:2] == message[:2]
        assert found.file is not None
        assert os.pread(found.file, 9, 0) == b"a file"
        os.close(found.file)
    one.close()
    with pytest.raises(EOFError):
        other.receive()
    other.close()


# What they leave behind

SERVER = """
import sys, time
from attnpriv_server.rows import ImageRefusedError
from attnpriv_server.shared_tensors import SharedTensors
from attnpriv_server.telemetry import Telemetry
from attnpriv_server.workers import Workers
workers = Workers(2, 1, Telemetry())
print(*(each._process.pid for each in workers._workers), flush=True)
time.sleep(1000)
"""


def is_there(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.exhaustive
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_workers_end_with_a_server_that_was_killed() -> None:
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        pids = [int(pid) for pid in server.stdout.readline().split()]
        assert all(map(is_there, pids))
        server.kill()
    until(lambda: not any(map(is_there, pids)))


def test_workers_do_not_heed_what_a_terminal_sends(workers) -> None:
    backend = workers.backend(run_of(), "float32")
    expected = backend.classify(TEXTS)

    for process in processes(workers):
        assert os.getpgid(process.pid) != os.getpgid(0)  # Ctrl-C does not even reach them
        for number in (signal.SIGINT, signal.SIGTERM):
            process.send_signal(number)

    assert (backend.classify(TEXTS) == expected).all()
    assert [process.poll() for process in processes(workers)] == [None, None]


@pytest.mark.exhaustive
def test_closing_ends_the_processes_and_a_halted_one_too(monkeypatch) -> None:
    monkeypatch.setattr("attnpriv_server.workers.SECONDS_TO_END", 4)
    with Workers(2, 1, Telemetry()) as workers:
        backend = workers.backend(run_of(), "float32")
        assert backend.classify(TEXTS).shape == (len(TEXTS), 5)
        left = processes(workers)
        left[0].send_signal(signal.SIGSTOP)

    assert [process.poll() for process in left] == [-signal.SIGKILL, 0]


@pytest.mark.exhaustive
def test_a_worker_that_cannot_be_started_is_tried_again(monkeypatch) -> None:
    telemetry = Telemetry()
    with Workers(1, 1, telemetry) as workers:
        backend = workers.backend(run_of(), "float32")
        expected = backend.classify(TEXTS)
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socketpair", no_more_files)
            processes(workers)[0].kill()
            with pytest.raises(RefusedError):
                backend.classify(TEXTS)

        assert (backend.classify(TEXTS) == expected).all()


def no_more_files() -> None:
    raise OSError(24, "Too many open files")
