from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import torch

from attnpriv.run_folder import Run, load_run
from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceStub
from attnpriv_server.core import Core
from attnpriv_server.policy import Policy
from attnpriv_server.wire import Server

Serve = Callable[[Core], grpc.Channel]


@pytest.fixture(scope="session")
def models(private_run: Path) -> dict[str, Run]:
    """The same weights twice: once with a private card, once with one that is not."""
    torch.set_num_threads(1)
    run = load_run(private_run)
    private = {**run.card, "name": "private", "private": True, "epsilon": 3.0, "delta": 1e-5}
    plain = {**run.card, "name": "plain", "private": False, "epsilon": None, "delta": None}
    return {
        "private": replace(run, name="private", card=private),
        "plain": replace(run, name="plain", card=plain),
    }


@pytest.fixture(scope="session")
def core(models: dict[str, Run]) -> Core:
    return Core(models)


@pytest.fixture(scope="session")
def open_core(models: dict[str, Run]) -> Core:
    """A core that redacts nothing."""
    return Core(models, Policy(redact_sensitive_tokens=False))


@pytest.fixture(scope="session")
def channel(core: Core) -> Iterator[grpc.Channel]:
    with serving(core) as found:
        yield found


@pytest.fixture(scope="session")
def stub(channel: grpc.Channel) -> AttnprivServiceStub:
    return AttnprivServiceStub(channel)


@pytest.fixture
def serving_block() -> Callable[[Core], AbstractContextManager[grpc.Channel]]:
    return serving


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:
        yield lambda core: stack.enter_context(serving(core))


@contextmanager
def serving(core: Core) -> Iterator[grpc.Channel]:
    """A real server on a free port, in an event loop of its own thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)

    async def start() -> Server:
        server = Server(core, "127.0.0.1:0")
        await server.start()
        return server

    try:
        server = run(start())
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            try:
                yield channel
            finally:
                run(server.stop(grace=30))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
