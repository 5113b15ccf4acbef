"""Servers with and without certificates, and who is let in."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import grpc
import pytest

from attnpriv_server import access as access_module
from attnpriv_server.core import Core
from attnpriv_server.wire import Server
from tests.server.transport.callers import Principals
from tests.server.transport.certificates import Files, Pair, new_pair

Serve = Callable[..., int]


@pytest.fixture(scope="module")
def authority() -> Pair:
    return new_pair("authority")


@pytest.fixture(scope="module")
def foreign() -> Pair:
    """Another authority by the same name."""
    return new_pair("authority")


@pytest.fixture(scope="module")
def server_pair(authority) -> Pair:
    return new_pair("localhost", authority)


@pytest.fixture
def files(tmp_path, server_pair, authority) -> Files:
    names = ("server.pem", "server.key", "clients.pem", "client.pem")
    files = Files(*(tmp_path / name for name in names))
    files.write(server_pair, authority.pem)
    return files


@pytest.fixture
def serve(make_core) -> Iterator[Serve]:
    """Starts servers without models and returns their ports."""
    with ExitStack() as stack:

        def start(credentials=None, **kwargs) -> int:
            return stack.enter_context(serving(make_core({}, **kwargs), credentials))

        yield start


@contextmanager
def serving(core: Core, credentials: grpc.ServerCredentials | None) -> Iterator[int]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)

    async def start() -> Server:
        server = Server(core, "127.0.0.1:0", credentials)
        await server.start()
        return server

    try:
        server = run(start())
        try:
            yield server.port
        finally:
            run(server.stop(grace=0))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def principals(tmp_path, monkeypatch) -> Principals:
    monkeypatch.setattr(access_module, "CHECK_SECONDS", 0.0)
    return Principals(tmp_path / "principals.toml")
