"""What becomes of calls when the server stops."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from attnpriv.runs.folder import load_run
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceStub
from attnpriv_server.policy.files import Switches
from attnpriv_server.wire import Server, serve_until_stopped
from tests.server.asking import Gate, error_of, predict_of


def test_stopping_finishes_what_was_begun(serving_block, make_core, private_run) -> None:
    run = load_run(private_run)
    gate = Gate(run)
    with serving_block(
        make_core({"private": run}, Switches(redact_sensitive_tokens=False).role())
    ) as channel:
        begun = AttnprivServiceStub(channel).Predict.future(predict_of("begun"))
        assert gate.entered.wait(30)
        threading.Timer(0.2, gate.opened.set).start()
        # Leaving the block stops the server first and closes the channel then.
    assert begun.result(30).predictions


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_heard_however_much_the_event_loop_has_to_do(make_core, models, number) -> None:
    async def run() -> None:
        loop, server = asyncio.get_running_loop(), Server(make_core(models), "127.0.0.1:0")

        def signal_while_busy(port: int) -> None:
            for _ in range(10_000):  # more than the pipe holds that wakes the loop
                loop.call_soon_threadsafe(lambda: None)
            os.kill(os.getpid(), number)

        async with asyncio.timeout(60):
            await serve_until_stopped(server, 0, signal_while_busy)

    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        asyncio.run(run())
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test_stopping_ends_streams_once_what_was_read_is_answered(
    serving_block, make_core, private_run
) -> None:
    """Not after the grace of half a minute, and not by a status that says all is well."""
    run = load_run(private_run)
    gate = Gate(run)
    left = threading.Event()

    def requests():
        yield pb.PredictStreamRequest(number=7, request=predict_of("read"))
        left.wait(60)

    def read(call) -> tuple[int, tuple[str, str]]:
        answers = []
        end = error_of(lambda: answers.extend(call))
        return len(answers), end

    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with (
        ThreadPoolExecutor() as pool,
        serving_block(make_core({"private": run})) as channel,
    ):
        predicting = AttnprivServiceStub(channel).PredictStream(requests(), timeout=60)
        reflecting = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            chain([request], iter(lambda: left.wait(60), True)), timeout=60
        )
        told = [pool.submit(read, call) for call in (predicting, reflecting)]
        assert gate.entered.wait(30)
        threading.Timer(0.2, gate.opened.set).start()
        # Leaving the block stops the server first and closes the channel then.
    left.set()

    assert [each.result(30) for each in told] == [
        (1, ("UNAVAILABLE", "the server is stopping"))
    ] * 2
