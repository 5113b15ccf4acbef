"""The gRPC adapter: carries bytes to the core and its answers back, and adds no decision."""

from __future__ import annotations

import asyncio
import inspect
import logging
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from attnpriv.errors import InputError
from attnpriv.v1 import attnpriv_pb2
from attnpriv_server.convert import to_domain, to_wire
from attnpriv_server.core import Core, log_defect
from attnpriv_server.domain import (
    ANONYMOUS,
    Code,
    Deadline,
    ExplainRequest,
    Request,
    Response,
    Status,
)

logger = logging.getLogger(__name__)

SERVICE = attnpriv_pb2.DESCRIPTOR.services_by_name["AttnprivService"]
# More requests than this at once are turned away: most would wait past their deadlines.
MAX_IN_FLIGHT = 64
GRACE_SECONDS = 10.0


class Server:
    """A gRPC server around a core, with health and reflection.

    Worker threads compute, so the event loop stays free to accept, refuse and time out. There are
    two, each with one request at a time: explanations, which can take seconds, and all the rest,
    which must not wait behind them. Make it and use it inside a running event loop.

    Args:
        core: answers the requests.
        listen: ``HOST:PORT``; port 0 takes a free one.

    Raises:
        InputError: the address cannot be bound, for instance because it is in use.
    """

    def __init__(self, core: Core, listen: str) -> None:
        self._core = core
        self._worker = ThreadPoolExecutor(max_workers=1)
        self._explainer = ThreadPoolExecutor(max_workers=1)
        self._in_flight = 0
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(
            interceptors=[Guard()],
            options=[
                ("grpc.max_receive_message_length", core.limits.message_bytes),
                # Without this two servers share a port in silence, each with half of the requests.
                ("grpc.so_reuseport", 0),
            ],
        )
        self._server.add_generic_rpc_handlers([self._handlers()])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self.port = self._bind(listen)

    async def start(self) -> None:
        """Begin to answer."""
        await self._health.set(SERVICE.full_name, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Take no more requests, finish those begun within ``grace`` seconds, cancel the rest."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace)
        self._worker.shutdown(cancel_futures=True)
        self._explainer.shutdown(cancel_futures=True)

    def _bind(self, listen: str) -> int:
        try:
            return int(self._server.add_insecure_port(listen))
        except RuntimeError:
            raise InputError(f"cannot listen on {listen}: in use, or not an address here") from None

    def _handlers(self) -> grpc.GenericRpcHandler:
        methods = {
            method.name: grpc.unary_unary_rpc_method_handler(
                self._answer,
                request_deserializer=GetMessageClass(method.input_type).FromString,
                response_serializer=GetMessageClass(method.output_type).SerializeToString,
            )
            for method in SERVICE.methods
        }
        return grpc.method_handlers_generic_handler(SERVICE.full_name, methods)

    async def _answer(
        self, message: Message, context: grpc.aio.ServicerContext[Any, Any]
    ) -> Message:
        answer = await self._admit(to_domain(message), Deadline(context.time_remaining()))
        if isinstance(answer, Status):
            await context.abort(grpc.StatusCode[answer.code.name], answer.message)
        return to_wire(answer)

    async def _admit(self, request: Request, deadline: Deadline) -> Response | Status:
        if self._in_flight >= MAX_IN_FLIGHT:
            return Status(Code.RESOURCE_EXHAUSTED, "too many requests are waiting; try again later")
        self._in_flight += 1
        try:
            worker = self._explainer if isinstance(request, ExplainRequest) else self._worker
            return await asyncio.get_running_loop().run_in_executor(
                worker, self._core.handle, request, ANONYMOUS, deadline
            )
        except asyncio.CancelledError:
            deadline.cancel()
            raise
        finally:
            self._in_flight -= 1


async def serve_until_stopped(core: Core, listen: str, ready: Callable[[int], None]) -> None:
    """Serve until SIGTERM or SIGINT, then stop with grace; ``ready`` is told the port.

    Raises:
        InputError: the address cannot be bound.
    """
    server = Server(core, listen)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await server.start()
    ready(server.port)
    await stopping.wait()
    await server.stop(GRACE_SECONDS)


class Guard(grpc.aio.ServerInterceptor):
    """Stands before every method, health and reflection too, so that no Python text gets out.

    Requests are parsed in here: left to gRPC, malformed bytes would be answered with the name and
    the text of a Python exception. Each call is logged by method, status and time, nothing else.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the handler of a known method; an unknown one is UNIMPLEMENTED by gRPC itself."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        return _guarded(handler, handler_call_details.method)


def _guarded(handler: Any, method: str) -> Any:
    """The same handler, fed with bytes; streams may be written as coroutines or generators."""
    parse = handler.request_deserializer

    async def unary(raw: bytes, context: Any) -> Any:
        async with _one_call(method, context):
            return await handler.unary_unary(parse(raw), context)

    async def unary_stream(raw: bytes, context: Any) -> AsyncIterator[Any]:
        async with _one_call(method, context):
            async for response in _responses(handler.unary_stream(parse(raw), context)):
                yield response

    async def stream_stream(raw: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
        async with _one_call(method, context):
            requests = (parse(each) async for each in raw)
            async for response in _responses(handler.stream_stream(requests, context)):
                yield response

    serialize = handler.response_serializer
    if handler.unary_unary:
        return grpc.unary_unary_rpc_method_handler(unary, None, serialize)
    if handler.unary_stream:
        return grpc.unary_stream_rpc_method_handler(unary_stream, None, serialize)
    return grpc.stream_stream_rpc_method_handler(stream_stream, None, serialize)


async def _responses(result: Any) -> AsyncIterator[Any]:
    if inspect.isawaitable(result):
        await result  # a coroutine writes to the context itself
    else:
        async for response in result:
            yield response


@asynccontextmanager
async def _one_call(method: str, context: Any) -> AsyncIterator[None]:
    """Turn what goes wrong in a call into a plain status, and log the call."""
    started = time.monotonic()
    code = grpc.StatusCode.OK
    try:
        yield
    except asyncio.CancelledError:
        code = grpc.StatusCode.CANCELLED
        raise
    except grpc.aio.AbortError:
        code = context.code()
        raise
    except DecodeError:
        code = grpc.StatusCode.INVALID_ARGUMENT
        await context.abort(code, "malformed request")
    except Exception as error:
        log_defect(error)
        code = grpc.StatusCode.INTERNAL
        await context.abort(code, "internal error")
    finally:
        seconds = round(time.monotonic() - started, 4)
        fields = {"method": method, "code": code.name, "seconds": seconds}
        logger.info("call", extra={"fields": fields})
