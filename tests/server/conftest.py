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

from attnpriv.runs.card import ModelCard
from attnpriv.runs.folder import Run, load_run
from attnpriv.sensitive import Detector
from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceStub
from attnpriv_server.access import Access
from attnpriv_server.backend import make_backend
from attnpriv_server.budget.charging import Budget
from attnpriv_server.core import Core
from attnpriv_server.limits import Limits
from attnpriv_server.models.versions import Loaded, UnknownModelError, Version
from attnpriv_server.policy import EVERYONE, SAFE, Policies, Role
from attnpriv_server.policy.files import Switches
from attnpriv_server.queueing import Batching
from attnpriv_server.telemetry import Telemetry
from attnpriv_server.wire import Server

Serve = Callable[[Core], grpc.Channel]
MakeCore = Callable[..., Core]


class GivenRuns:
    """A repository of runs that are there already, for models that no folder would let through."""

    def __init__(self, runs: dict[str, Run]) -> None:
        self._versions = {
            name: Version(
                name, "1", run.path, run.card, run.label_names, {}, run.model.config.pixels
            )
            for name, run in runs.items()
        }
        self._loaded = {
            name: Loaded(self._versions[name], run, make_backend(run, "float32"))
            for name, run in runs.items()
        }

    def models(self) -> dict[str, tuple[Version, ...]]:
        return {name: (self._versions[name],) for name in sorted(self._versions)}

    def find(self, name: str, version: str | None) -> Version:
        if name not in self._versions or version not in (None, "1"):
            raise UnknownModelError(name)
        return self._versions[name]

    def loaded(self, version: Version) -> Loaded:
        return self._loaded[version.name]

    def ready(self) -> bool:
        return True


def new_core(
    runs: dict[str, Run],
    policy: Role | Callable[[], Role] = SAFE,
    limits: Limits | None = None,
    batching: Batching | None = None,
    access: Access | None = None,
    detector: Detector | None = None,
    budget: Budget | None = None,
) -> Core:
    role = policy if callable(policy) else lambda: policy
    return Core(
        GivenRuns(runs),
        access or Access.anonymous(),
        lambda: Policies({EVERYONE: role()}),
        limits or Limits(),
        batching or Batching(),
        Telemetry(),
        detector=detector,
        budget=budget,
    )


@pytest.fixture(scope="session")
def make_core() -> MakeCore:
    return new_core


@pytest.fixture(scope="session")
def models(private_run: Path) -> dict[str, Run]:
    """The same weights twice: once with a private card, once with one that is not."""
    torch.set_num_threads(1)
    run = load_run(private_run)
    card = run.card.as_written
    private = {**card, "name": "private", "private": True, "epsilon": 3.0, "delta": 1e-5}
    plain = {**card, "name": "plain", "private": False, "epsilon": None, "delta": None}
    return {
        "private": replace(run, name="private", card=ModelCard.from_json(private)),
        "plain": replace(run, name="plain", card=ModelCard.from_json(plain)),
    }


@pytest.fixture(scope="session")
def core(models: dict[str, Run]) -> Core:
    return new_core(models)


@pytest.fixture(scope="session")
def open_core(models: dict[str, Run]) -> Core:
    """A core that redacts nothing."""
    return new_core(models, Switches(redact_sensitive_tokens=False).role())


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
    """A channel to a real server, which stops before the channel is closed."""
    with ExitStack() as closing, listening(core) as target:
        yield closing.enter_context(grpc.insecure_channel(target))


@contextmanager
def listening(core: Core) -> Iterator[str]:
    """The address of a real server on a free port, in an event loop of its own thread."""
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
        try:
            yield f"127.0.0.1:{server.port}"
        finally:
            run(server.stop(grace=30))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
