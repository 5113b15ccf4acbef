"""Blocks on a pool of threads: one wait a call, and not one an operation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from attnpriv.attention import attend, blockwise, functional, threads
from attnpriv.attention.scores import shorten
from attnpriv.attention.threads import divide, threads_for
from attnpriv.config import AttentionConfig, ClipMode

MODES: tuple[ClipMode, ...] = ("clamp", "tanh", "relative", "norm")
CPU = torch.device("cpu")


@pytest.fixture(params=[2, 3])
def several(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def _inputs(tokens: int = 67) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(3, 5, tokens, 7, requires_grad=True) for _ in range(3)]


def _attend(qkv: list[Tensor], mode: ClipMode) -> Tensor:
    mask = torch.ones(3, qkv[0].shape[2], dtype=torch.bool)
    mask[1, 11:] = False
    return attend(*qkv, mask, AttentionConfig(temperature=2.0, clip=1.0, clip_mode=mode))[0]


def _passes(mode: ClipMode) -> list[Tensor]:
    qkv = _inputs()
    out = _attend(qkv, mode)
    return [out.detach(), *torch.autograd.grad(out.square().sum(), qkv)]


@pytest.mark.parametrize("mode", MODES)
def test_the_threads_change_no_bit(
    monkeypatch: pytest.MonkeyPatch, several: int, mode: ClipMode
) -> None:
    monkeypatch.setattr(blockwise, "BLOCK_BYTES", 1 << 15)  # more groups than threads
    shared_out = _passes(mode)
    monkeypatch.setattr(threads, "WORTH_IT", 1 << 30)
    torch.set_num_threads(1)
    assert all(map(torch.equal, shared_out, _passes(mode)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("inference", [False, True])
def test_without_gradients_too(
    monkeypatch: pytest.MonkeyPatch, several: int, mode: ClipMode, inference: bool
) -> None:
    monkeypatch.setattr(functional, "FUSED_KEYS", 1)  # where ``norm`` is computed in pieces
    monkeypatch.setattr(functional, "PIECE_BYTES", 1)
    with torch.inference_mode(inference), torch.no_grad():
        measured = _attend([x * 1 for x in _inputs()], mode)
    torch.testing.assert_close(measured, _attend(_inputs(), mode).detach())


def test_vectors_are_shortened_text_by_text(several: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 7, 101, 11, requires_grad=True)
    assert threads_for(x.numel(), CPU) == several
    whole = x * (2.0 / x.norm(dim=-1, keepdim=True).clamp(min=2.0))
    pieces = shorten(x, 2.0)
    torch.testing.assert_close(pieces, whole)
    gradients = [torch.autograd.grad(y.square().sum(), x)[0] for y in (pieces * x, whole * x)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("mode", MODES)
def test_no_operation_in_the_blocks_waits_for_another_thread(
    monkeypatch: pytest.MonkeyPatch, several: int, mode: ClipMode
) -> None:
    """The cliff beside a busy neighbour: libgomp's threads wait at the end of each operation."""
    seen = []
    forward, backward = blockwise._Group.forward, blockwise._Group.backward

    def note() -> None:
        seen.append((threading.current_thread().name, torch.get_num_threads()))

    monkeypatch.setattr(blockwise._Group, "forward", lambda *given: (note(), forward(*given))[1])
    monkeypatch.setattr(
        blockwise._Group, "backward", lambda *given, **named: (note(), backward(*given, **named))[1]
    )
    _passes(mode)
    assert len(seen) >= 2 * several
    assert {number for _, number in seen} == {1}
    assert all(name.startswith("attention") for name, _ in seen)
    assert torch.get_num_threads() == several  # as the caller set it


def test_each_piece_is_taken_once_by_threads_that_work_at_the_same_time(several: int) -> None:
    together, taken = threading.Barrier(several), []

    def work(pieces: Iterator[int]) -> None:
        together.wait(60)  # would time out if one thread came after the other
        taken.extend(pieces)

    divide(work, range(100), several)
    assert sorted(taken) == list(range(100))


def test_what_goes_wrong_in_a_thread_is_raised(several: int) -> None:
    def work(pieces: Iterator[int]) -> None:
        raise MemoryError(next(pieces))

    with pytest.raises(MemoryError, match="0"):
        divide(work, range(100), several)


def test_threads_that_ask_at_the_same_time_share_one_pool(several: int) -> None:
    threads._pool.cache_clear()
    together, seen = threading.Barrier(8), []

    def ask() -> None:
        torch.get_num_threads()
        together.wait(60)
        _passes("clamp")
        seen.append(torch.get_num_threads())

    askers = [threading.Thread(target=ask) for _ in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert seen == [several] * 8
    assert threads._pool.cache_info().misses == 1


@pytest.mark.exhaustive
@pytest.mark.parametrize("before", ["attend_once()", "pass"])
def test_a_thread_that_outlives_the_main_one_computes_on(before: str) -> None:
    """A pool takes no more work from the moment the main thread ends."""
    script = f"""
import concurrent.futures.thread, threading, time
import torch
from attnpriv.attention import attend
from attnpriv.config import AttentionConfig

def attend_once():
    q = torch.zeros(2, 4, 128, 32)
    return attend(q, q, q, None, AttentionConfig(clip=1.0))[0].any()

def go_on():
    while not concurrent.futures.thread._shutdown:
        time.sleep(0.01)
    print("ends", attend_once().item())

torch.set_num_threads(2)
{before}
threading.Thread(target=go_on).start()
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("ends False\n", "")


def test_where_no_thread_can_be_started_the_caller_does_the_work(
    monkeypatch: pytest.MonkeyPatch, several: int
) -> None:
    expected, start, started = _passes("clamp"), threading.Thread.start, []

    def start_one(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    threads._pool.cache_clear()
    monkeypatch.setattr(threading.Thread, "start", start_one)
    assert all(map(torch.equal, expected, _passes("clamp")))
    started[0].join(60)
    assert not started[0].is_alive()
    assert torch.get_num_threads() == several


def test_new_threads_compute_with_as_many_as_before(several: int) -> None:
    _passes("clamp")
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [several]


def test_a_fork_gets_threads_of_its_own(several: int) -> None:
    expected = _passes("relative")
    child = os.fork()
    if not child:
        signal.alarm(60)  # a fork that waits for its parent's threads waits for ever
        os._exit(not all(map(torch.equal, expected, _passes("relative"))))
    assert os.waitpid(child, 0)[1] == 0


def test_who_records_operations_sees_all_of_them(several: int) -> None:
    class Recorded(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            names.add(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    names: set[str] = set()
    with Recorded(), torch.no_grad():
        _attend(_inputs(), "clamp")
    assert {"bmm", "exp2"} <= names


def test_little_work_stays_with_its_caller(several: int) -> None:
    assert threads_for(threads.WORTH_IT, CPU) == 1
    assert threads_for(threads.WORTH_IT + 1, CPU) == several
    assert threads_for(1 << 30, torch.device("meta")) == 1
