"""Stands before every method of every service, so that no Python text and no stranger gets by."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError

from attnpriv_server.core import Core
from attnpriv_server.counting import has_more_values
from attnpriv_server.domain import Code, Credentials, RefusedError, Role, Status
from attnpriv_server.status import to_code, to_metadata
from attnpriv_server.streams import Stream, Streams
from attnpriv_server.telemetry import log_defect
from attnpriv_server.transport import certificate_names

logger = logging.getLogger(__name__)

BEARER = "bearer "
QUIET_SECONDS = 0.05  # without a call, after which none is on its way any more
VALUES = 1000  # of one message, beside its texts; far more than any request has


@dataclass(frozen=True)
class Method:
    """What stands before a method: the role that it asks for, if any, and its request's type."""

    role: Role | None
    request: Descriptor


class Guard(grpc.aio.ServerInterceptor):
    """Authenticates calls, parses requests, and turns what goes wrong into a plain status.

    Requests are parsed in here: left to gRPC, malformed bytes would be answered with the name and
    the text of a Python exception. First comes what costs nothing: who calls, and with which role;
    then how many values the message has; only then is it parsed. Each call is logged by method,
    status and time, nothing else.

    Args:
        core: says who may call.
        methods: all that are served, by their paths.
    """

    def __init__(self, core: Core, methods: Mapping[str, Method]) -> None:
        self._core = core
        self._methods = methods
        self._begun = 0
        self.streams = Streams(core.admit)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the handler of a known method; an unknown one is UNIMPLEMENTED by gRPC itself."""
        handler = await continuation(handler_call_details)
        if handler is None:
            self._core.telemetry.call_finished(handler_call_details.method, "UNIMPLEMENTED", 0.0)
            return None
        return self._guarded(handler, handler_call_details.method)

    async def quiet(self, seconds: float) -> None:
        """Wait until no call came for a moment, for some seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                before = -1
                while before != self._begun:
                    before = self._begun
                    await asyncio.sleep(QUIET_SECONDS)

    def _guarded(self, handler: Any, method: str) -> Any:
        """The same handler, fed with bytes; streams may be written as coroutines or generators.

        It takes a stream in any case: gRPC would keep a single request in memory, whole or not,
        before anybody has asked who sends it.
        """
        parse = self._parser(handler.request_deserializer, self._methods[method].request)

        async def unary(raw: AsyncIterator[bytes], context: Any) -> Any:
            async with self._one_call(method, context):
                return await handler.unary_unary(parse(await _first(raw)), context)

        async def unary_stream(raw: AsyncIterator[bytes], context: Any) -> None:
            async with self._one_stream(method, context):
                request = parse(await _first(raw))
                await _respond(handler.unary_stream(request, context), context)

        async def stream_stream(raw: AsyncIterator[bytes], context: Any) -> None:
            async with self._one_stream(method, context) as stream:
                requests = (parse(each) async for each in self.streams.requests(raw, stream))
                await _respond(handler.stream_stream(requests, context), context)

        serialize = handler.response_serializer
        if handler.unary_unary:
            return grpc.stream_unary_rpc_method_handler(unary, None, serialize)
        if handler.unary_stream:
            return grpc.stream_stream_rpc_method_handler(unary_stream, None, serialize)
        return grpc.stream_stream_rpc_method_handler(stream_stream, None, serialize)

    def _parser(self, parse: Callable[[bytes], Any], kind: Descriptor) -> Callable[[bytes], Any]:
        texts = self._core.limits.texts

        def checked(raw: bytes) -> Any:
            if has_more_values(raw, kind, texts + VALUES):
                raise RefusedError(
                    Code.INVALID_ARGUMENT,
                    f"expected at most {texts} texts, and {VALUES} values beside them",
                )
            return parse(raw)

        return checked

    @asynccontextmanager
    async def _one_call(self, method: str, context: Any) -> AsyncIterator[None]:
        """Let a caller in, turn what goes wrong into a plain status, and tell of the call."""
        with self._core.telemetry.span(method, _trace_parent(context)):
            started = time.monotonic()
            code = grpc.StatusCode.OK
            try:
                self._check_metadata(context)
                self._core.admit(credentials_of(context), self._methods[method].role)
                self._begun += 1
                yield
                if context.time_remaining() == 0:  # gRPC ends a late stream without a word
                    code = grpc.StatusCode.DEADLINE_EXCEEDED
            except asyncio.CancelledError:
                code = grpc.StatusCode.CANCELLED
                raise
            except grpc.aio.AbortError:
                code = context.code()
                raise
            except grpc.aio.InternalError:  # the caller went away in the middle of an answer
                code = grpc.StatusCode.CANCELLED
                raise asyncio.CancelledError from None
            except DecodeError:
                code = grpc.StatusCode.INVALID_ARGUMENT
                await context.abort(code, "malformed request")
            except RefusedError as error:
                code = to_code(error.status)
                await abort(context, error.status)
            except Exception as error:
                log_defect(error)
                code = grpc.StatusCode.INTERNAL
                await context.abort(code, "internal error")
            finally:
                self._tell(method, code.name, time.monotonic() - started)

    @asynccontextmanager
    async def _one_stream(self, method: str, context: Any) -> AsyncIterator[Stream]:
        """The same for a call that may stay open for as long as its caller may ask."""
        owner = credentials_of(context), self._methods[method].role
        async with self._one_call(method, context), self.streams.opened(*owner) as stream:
            yield stream

    def _check_metadata(self, context: Any) -> None:
        """Refuse what gRPC refuses only to clients that acknowledge its settings."""
        size = sum(len(key) + len(value) + 32 for key, value in context.invocation_metadata())
        limit = self._core.limits.metadata_bytes
        if size > limit:
            raise RefusedError(
                Code.RESOURCE_EXHAUSTED, f"expected at most {limit} bytes of metadata"
            )

    def _tell(self, method: str, code: str, seconds: float) -> None:
        self._core.telemetry.call_finished(method, code, seconds)
        fields = {"method": method, "code": code, "seconds": round(seconds, 4)}
        logger.info("call", extra={"fields": fields})


def credentials_of(context: Any) -> Credentials:
    """What the caller of a call shows of itself."""
    token = None
    for key, value in context.invocation_metadata():
        if key == "authorization" and value[: len(BEARER)].lower() == BEARER:
            token = value[len(BEARER) :].strip()
    return Credentials(token, certificate_names(context.auth_context()), context.peer())


async def abort(context: Any, status: Status) -> NoReturn:
    """End a call with a refusal and its details."""
    await context.abort(to_code(status), status.message, to_metadata(status))
    raise AssertionError("abort returned")


def _trace_parent(context: Any) -> dict[str, str]:
    """The W3C trace context among the metadata."""
    wanted = ("traceparent", "tracestate")
    return {key: value for key, value in context.invocation_metadata() if key in wanted}


async def _first(requests: AsyncIterator[bytes]) -> bytes:
    async for request in requests:
        return request
    raise DecodeError("no request")


async def _respond(result: Any, context: Any) -> None:
    """Send what a handler of a stream gives; gRPC would not close a generator that it leaves."""
    if inspect.isawaitable(result):
        await result  # a coroutine writes to the context itself
        return
    async with aclosing(result) as responses:
        async for response in responses:
            await context.write(response)
