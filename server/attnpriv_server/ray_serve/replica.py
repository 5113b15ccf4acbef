"""A replica of Ray Serve: a core, and a method for each that a proxy may ask for."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from attnpriv import openmp  # noqa: F401  # before anything loads torch
from attnpriv_server.assembly import Rulebook, Settings, opened, read_detection
from attnpriv_server.calls import Call
from attnpriv_server.guard import Guard
from attnpriv_server.health import Health
from attnpriv_server.ray_serve.front import OURS, Front
from attnpriv_server.ray_serve.proxy import HEALTH, METHODS
from attnpriv_server.wire import GUARDED, handlers, served_names

PATHS = {method.name: path for path, method in METHODS.items()}  # Ray gives the name alone


class Replica:
    """Answers what proxies of Ray Serve hand over; the same core as in our own server.

    Ray runs everything here in one event loop. A call's deadline stays with the proxy, which
    cancels the call once it has passed.

    Args:
        settings: what the core is made of.
        front: who may call.

    Raises:
        InputError: a file, the models or the database cannot be used.
    """

    def __init__(self, settings: Settings, front: Front) -> None:
        gc.disable()  # ``opened`` enables it
        self._front = front
        with ExitStack() as stack:
            book, rules = Rulebook.read(settings), read_detection(settings)
            self._core = stack.enter_context(opened(settings, book, rules))
            stack.callback(self._core.close)
            self._closing = stack.pop_all()
        self._health = Health()
        guard = Guard(self._core, GUARDED)
        services = {**handlers(self._core.limits), HEALTH.full_name: {"Check": self._checked()}}
        self._handlers = {
            path: guard.guarded(services[method.containing_service.full_name][method.name], path)
            for path, method in METHODS.items()
        }

    def check_health(self) -> None:
        """Ray's own question; it restarts a replica where this raises."""
        if not self._core.repository.ready():
            raise RuntimeError("the models are not there")

    def __del__(self) -> None:
        """What Ray calls once the calls under way have ended."""
        if hasattr(self, "_closing"):
            self._closing.close()

    async def answer(self, name: str, requests: AsyncIterator[bytes], passed: Any) -> Message:
        """Answer a call with one answer; a refusal is left with the context."""
        try:
            context = _Context(passed, self._front)
            answer: Message = await self._handlers[PATHS[name]].stream_unary(requests, context)
            return answer
        except _RefusedError:
            return Empty()  # Ray wants something to send, and gRPC does not send it

    async def answers(
        self, name: str, requests: AsyncIterator[bytes], passed: Any
    ) -> AsyncIterator[Message]:
        """Answer a call with a stream of answers, one waiting at most."""
        context = _StreamContext(passed, self._front)

        async def run() -> None:
            try:
                await self._handlers[PATHS[name]].stream_stream(requests, context)
            finally:
                context.written.put_nowait(None)

        call = asyncio.create_task(run())
        try:
            while (message := await context.written.get()) is not None:
                yield message
                context.room.release()
            await call
        finally:
            call.cancel()

    def _checked(self) -> Any:
        async def check(request: health_pb2.HealthCheckRequest, call: Call) -> Any:
            self._health.tell(served_names(self._core))
            return await self._health.Check(request, call)

        return grpc.unary_unary_rpc_method_handler(
            check,
            health_pb2.HealthCheckRequest.FromString,
            health_pb2.HealthCheckResponse.SerializeToString,
        )


class _RefusedError(Exception):
    """Ends a call whose status the context has."""


class _Context:
    """What ``guard`` asks of gRPC's context, by what Ray passes on of it."""

    def __init__(self, passed: Any, front: Front) -> None:
        self._passed = passed
        self._front = front

    def time_remaining(self) -> None:
        return None

    def invocation_metadata(self) -> Any:
        return self._passed.invocation_metadata()

    def auth_context(self) -> Mapping[str, list[bytes]]:
        names = self._front.names(self._passed.invocation_metadata())
        return {"x509_subject_alternative_name": [name.encode() for name in names]}

    def peer(self) -> str:
        return str(self._passed.peer())

    async def abort(
        self, code: grpc.StatusCode, message: str, metadata: tuple[tuple[str, bytes], ...]
    ) -> None:
        self._passed.set_code(code)
        self._passed.set_details(message)
        self._passed.set_trailing_metadata([*metadata, OURS])
        raise _RefusedError


class _StreamContext(_Context):
    """As the other, for a call with a stream of answers."""

    def __init__(self, passed: Any, front: Front) -> None:
        super().__init__(passed, front)
        self.written: asyncio.Queue[Message | None] = asyncio.Queue()
        self.room = asyncio.Semaphore(1)

    async def write(self, message: Message) -> None:
        await self.room.acquire()
        self.written.put_nowait(message)


async def _one(request: bytes) -> AsyncIterator[bytes]:
    yield request


def _method(method: Any) -> Any:
    """What Ray calls for a method; it gives the context to whom has a parameter of that name."""
    name = method.name

    async def unary(self: Replica, request: bytes, grpc_context: Any) -> Message:
        return await self.answer(name, _one(request), grpc_context)

    async def upload(self: Replica, requests: AsyncIterator[bytes], grpc_context: Any) -> Message:
        return await self.answer(name, requests, grpc_context)

    async def stream(
        self: Replica, requests: AsyncIterator[bytes], grpc_context: Any
    ) -> AsyncIterator[Message]:
        async for message in self.answers(name, requests, grpc_context):
            yield message

    if method.server_streaming:
        return stream
    return upload if method.client_streaming else unary


for _each in METHODS.values():
    setattr(Replica, _each.name, _method(_each))
