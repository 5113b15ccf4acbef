"""Stands before every method of every service, so that no Python text and no stranger gets by."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError

from attnpriv_server.calls import Call, Incoming, StreamCall
from attnpriv_server.core import Core
from attnpriv_server.counting import has_more_values
from attnpriv_server.domain import Code, Credentials, Deadline, RefusedError, Role
from attnpriv_server.status import to_code, to_metadata
from attnpriv_server.transport import certificate_names

BEARER = "bearer "
QUIET_SECONDS = 0.05  # without a call, after which none is on its way any more
VALUES = 1000  # of one message, beside its texts; far more than any request has


@dataclass(frozen=True)
class Method:
    """What stands before a method: the role that it asks for, if any, and its request's type."""

    role: Role | None
    request: Descriptor


class Guard(grpc.aio.ServerInterceptor):
    """Opens the core's call around every handler, and parses requests.

    Requests are parsed in here: left to gRPC, malformed bytes would be answered with the name and
    the text of a Python exception. First comes what costs nothing: who calls, and with which role;
    then how many values the message has; only then is it parsed. Handlers get the core's call where
    gRPC would give them its context, and refuse by RefusedError.

    Args:
        core: admits callers and answers.
        methods: all that are served, by their paths.
    """

    def __init__(self, core: Core, methods: Mapping[str, Method]) -> None:
        self._core = core
        self._methods = methods
        self._begun = 0

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
        return self.guarded(handler, handler_call_details.method)

    def guarded(self, handler: Any, method: str) -> Any:
        """The same handler, fed with bytes; those of streams are asynchronous generators.

        Whatever calls it gives a context that does what gRPC's own does, as far as it is used here.

        It takes a stream in any case: gRPC would keep a single request in memory, whole or not,
        before anybody has asked who sends it.
        """
        parse = self._parser(handler.request_deserializer, self._methods[method].request)

        async def unary(raw: AsyncIterator[bytes], context: Any) -> Any:
            async with self._call(method, context) as call:
                return await handler.unary_unary(parse(await _first(raw)), call)

        async def stream_unary(raw: AsyncIterator[bytes], context: Any) -> Any:
            # Not as a stream that ends when the server stops: half a request is none.
            async with self._call(method, context) as call:
                return await handler.stream_unary(_parsed(raw, parse), call)

        async def unary_stream(raw: AsyncIterator[bytes], context: Any) -> None:
            async with self._stream(method, context) as call:
                request = parse(await _first(raw))
                await _respond(handler.unary_stream(request, call), context)

        async def stream_stream(raw: AsyncIterator[bytes], context: Any) -> None:
            async with self._stream(method, context) as call:
                requests = (parse(each) async for each in call.requests(raw))
                await _respond(handler.stream_stream(requests, call), context)

        serialize = handler.response_serializer
        if handler.unary_unary:
            return grpc.stream_unary_rpc_method_handler(unary, None, serialize)
        if handler.stream_unary:
            return grpc.stream_unary_rpc_method_handler(stream_unary, None, serialize)
        if handler.unary_stream:
            return grpc.stream_stream_rpc_method_handler(unary_stream, None, serialize)
        return grpc.stream_stream_rpc_method_handler(stream_stream, None, serialize)

    async def quiet(self, seconds: float) -> None:
        """Wait until no call came for a moment, for some seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                before = -1
                while before != self._begun:
                    before = self._begun
                    await asyncio.sleep(QUIET_SECONDS)

    def _parser(self, parse: Callable[[bytes], Any], kind: Descriptor) -> Callable[[bytes], Any]:
        texts = self._core.limits.texts

        def checked(raw: bytes) -> Any:
            if has_more_values(raw, kind, texts + VALUES):
                raise RefusedError(
                    Code.INVALID_ARGUMENT,
                    f"expected at most {texts} texts and {VALUES} other values",
                )
            return parse(raw)

        return checked

    @asynccontextmanager
    async def _call(self, method: str, context: Any) -> AsyncIterator[Call]:
        incoming = self._incoming(method, context)
        async with _refusing(context), self._core.call(incoming) as call:
            self._begun += 1
            with _in_our_words():
                yield call

    @asynccontextmanager
    async def _stream(self, method: str, context: Any) -> AsyncIterator[StreamCall]:
        incoming = self._incoming(method, context)
        async with _refusing(context), self._core.stream(incoming) as call:
            self._begun += 1
            with _in_our_words():
                yield call

    def _incoming(self, method: str, context: Any) -> Incoming:
        return Incoming(
            method,
            self._methods[method].role,
            lambda: self._credentials(context),
            Deadline(context.time_remaining()),
            _trace_parent(context),
        )

    def _credentials(self, context: Any) -> Credentials:
        """What the caller shows of itself.

        Raises:
            RefusedError: there is more metadata than the limit, which gRPC refuses only to clients
                that acknowledge its settings.
        """
        metadata = tuple(context.invocation_metadata())
        limit = self._core.limits.metadata_bytes
        if sum(len(key) + len(value) + 32 for key, value in metadata) > limit:
            raise RefusedError(
                Code.RESOURCE_EXHAUSTED, f"expected at most {limit} bytes of metadata"
            )
        names = certificate_names(context.auth_context())
        return Credentials(_bearer_token(metadata), names, context.peer())


@asynccontextmanager
async def _refusing(context: Any) -> AsyncIterator[None]:
    """End a gRPC call with the status of a refusal, and with its details."""
    try:
        yield
    except RefusedError as refusal:
        status = refusal.status
        await context.abort(to_code(status), status.message, to_metadata(status))


@contextmanager
def _in_our_words() -> Iterator[None]:
    """Raise what protobuf and gRPC raise as the core knows it."""
    try:
        yield
    except DecodeError:
        raise RefusedError(Code.INVALID_ARGUMENT, "malformed request") from None
    except grpc.aio.InternalError:  # the caller went away in the middle of an answer
        raise asyncio.CancelledError from None


def _bearer_token(metadata: Iterable[tuple[str, Any]]) -> str | None:
    token = None
    for key, value in metadata:
        if key == "authorization" and value[: len(BEARER)].lower() == BEARER:
            token = value[len(BEARER) :].strip()
    return token


def _trace_parent(context: Any) -> dict[str, str]:
    """The W3C trace context among the metadata."""
    wanted = ("traceparent", "tracestate")
    return {key: value for key, value in context.invocation_metadata() if key in wanted}


async def _first(requests: AsyncIterator[bytes]) -> bytes:
    async for request in requests:
        return request
    raise DecodeError("no request")


async def _parsed(
    requests: AsyncIterator[bytes], parse: Callable[[bytes], Any]
) -> AsyncIterator[Any]:
    async for request in requests:
        yield parse(request)


async def _respond(responses: AsyncGenerator[Any], context: Any) -> None:
    """Send what a handler of a stream gives; gRPC would not close a generator that it leaves."""
    async with aclosing(responses):
        async for response in responses:
            await context.write(response)
