"""A server without a network: its handlers, called as gRPC would call them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple, NoReturn
from unittest import mock

import grpc

from attnpriv_server.core import Core
from attnpriv_server.wire import Server

METADATA = (("user-agent", "fuzz"),)


class Details(NamedTuple):
    """What gRPC knows of a call before it is begun."""

    method: str
    invocation_metadata: tuple[tuple[str, str], ...] = METADATA


class GrpcServer(grpc.aio.Server):
    """In place of gRPC's server; it only keeps what is registered with it."""

    stop = wait_for_termination = add_secure_port = None

    def __init__(self, interceptors: list[grpc.aio.ServerInterceptor], options: Any) -> None:
        self.interceptor = interceptors[0]
        self.handlers: list[grpc.GenericRpcHandler] = []

    async def start(self) -> None:
        pass

    def add_insecure_port(self, address: str) -> int:
        return 0

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Any) -> None:
        self.handlers += generic_rpc_handlers


class Call:
    """What gRPC hands to a handler beside the bytes; its caller leaves after the first answer."""

    def __init__(self, serialize: Callable[[Any], bytes]) -> None:
        self.answers: list[bytes] = []
        self.details = ""
        self._serialize = serialize
        self._code = grpc.StatusCode.OK

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return METADATA

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

    def peer(self) -> str:
        return "fuzz"

    def time_remaining(self) -> None:
        return None

    def code(self) -> grpc.StatusCode:
        return self._code

    async def abort(self, code: grpc.StatusCode, details: str, metadata: Any = ()) -> NoReturn:
        self._code, self.details = code, details
        raise grpc.aio.AbortError

    async def write(self, answer: Any) -> NoReturn:
        self.answer(answer)
        raise grpc.aio.InternalError  # as gRPC says that the caller is gone

    def answer(self, answer: Any) -> None:
        """Take an answer to where gRPC puts it into bytes."""
        self.answers.append(self._serialize(answer))


class Wire:
    """Everything that stands between bytes and a core; use it in one event loop."""

    def __init__(self, grpc_server: GrpcServer) -> None:
        self._grpc = grpc_server

    @classmethod
    async def around(cls, core: Core) -> Wire:
        """A started server around a core."""
        made: list[GrpcServer] = []

        def make(**options: Any) -> GrpcServer:
            made.append(GrpcServer(**options))
            return made[0]

        with mock.patch("grpc.aio.server", make):
            await Server(core, "127.0.0.1:0").start()
        return cls(made[0])

    async def ask(self, method: str, raw: bytes) -> Call:
        """Have a call of one message end."""
        handler = await self._grpc.interceptor.intercept_service(self._find, Details(method))
        call = Call(handler.response_serializer)
        try:
            if handler.response_streaming:
                await handler.stream_stream(_once(raw), call)
            else:
                call.answer(await handler.stream_unary(_once(raw), call))
        except grpc.aio.AbortError:
            pass
        except asyncio.CancelledError:
            assert call.answers
        return call

    async def _find(self, details: Details) -> Any:
        found = (handler.service(details) for handler in self._grpc.handlers)
        return next(handler for handler in found if handler is not None)


async def _once(raw: bytes) -> AsyncIterator[bytes]:
    yield raw
