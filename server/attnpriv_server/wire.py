"""The gRPC server: which services it has, how it begins and ends, and how it reads a stream.

Who may ask what, and what is answered, is for the core to say.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from attnpriv.errors import InputError
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv_server import convert, open_inference
from attnpriv_server.calls import Call, StreamCall
from attnpriv_server.convert import to_domain, to_streamed, to_wire
from attnpriv_server.core import Core
from attnpriv_server.domain import Code, RefusedError, Role
from attnpriv_server.guard import VALUES, Guard, Method
from attnpriv_server.health import Health
from attnpriv_server.limits import Limits
from attnpriv_server.methods import HEALTH, OPEN_INFERENCE, REFLECTION, SERVICE, methods_of
from attnpriv_server.transport import channel_options

SERVICES = (SERVICE.full_name, OPEN_INFERENCE.full_name)


def _methods(service: Any, role: Callable[[str], Role | None]) -> dict[str, Method]:
    return {
        path: Method(role(method.name), method.input_type)
        for path, method in methods_of(service).items()
    }


# Every method that is served, by its path.
GUARDED = {
    **_methods(SERVICE, lambda name: convert.REQUESTS[name].role),
    **_methods(OPEN_INFERENCE, lambda name: open_inference.REQUESTS[name].role),
    **_methods(HEALTH, lambda _: None),
    **_methods(REFLECTION, lambda _: Role.MODELS),
}
STREAM = "PredictStream"
UPLOAD = "Summarize"
# Requests of one stream that are under way at once; it is read no further until one is answered.
STREAM_WINDOW = 16
LEAVE_SECONDS = 1.0  # that callers have at most to leave by themselves, once health says so
HEALTH_SECONDS = 0.5  # how often the health service is told which models are there


class Server:
    """A gRPC server around a core, with both contracts, health and reflection.

    Make it and use it inside a running event loop.

    Args:
        core: answers the requests.
        listen: ``HOST:PORT``; port 0 takes a free one.
        credentials: of TLS; None serves plain text.

    Raises:
        InputError: the address cannot be bound, for instance because it is in use.
    """

    def __init__(
        self, core: Core, listen: str, credentials: grpc.ServerCredentials | None = None
    ) -> None:
        self._core = core
        self._health = Health()
        self._stopping = False
        self._guard = Guard(core, GUARDED)
        self._server = grpc.aio.server(
            interceptors=[self._guard],
            options=[
                *channel_options(core.limits),
                # Without this two servers share a port in silence, each with half of the requests.
                ("grpc.so_reuseport", 0),
            ],
        )
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(*each) for each in handlers(core.limits).items()]
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*SERVICES, HEALTH.full_name, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self.port = self._bind(listen, credentials)

    def ready(self) -> bool:
        """Whether requests are answered: the models are there, and the server is not stopping."""
        return not self._stopping and self._core.repository.ready()

    async def start(self) -> None:
        """Begin to answer."""
        self._tell_health()
        await self._server.start()
        self._watch = asyncio.create_task(self._watch_health())

    async def stop(self, grace: float) -> None:
        """Take no more requests, finish those begun within ``grace`` seconds, cancel the rest.

        No call is refused. Health says that this server is going, and whoever heeds that may leave
        while calls are answered as ever. Then gRPC tells every connection to take its next call
        elsewhere (GOAWAY). Streams are read no further and end once what was read is answered.

        Not covered: a call that gRPC has received by then and not yet handed over is CANCELLED
        (grpc/grpc#41785). Our clients try it again, as they do UNAVAILABLE.
        """
        self._stopping = True
        self._health.stop()
        await self._guard.quiet(min(grace, LEAVE_SECONDS))
        stopped = asyncio.create_task(self._server.stop(grace))
        await asyncio.sleep(0)  # or streams would end before their clients know to go elsewhere
        self._core.stop_streams()
        await stopped
        self._watch.cancel()
        await asyncio.to_thread(self._core.close)

    def _bind(self, listen: str, credentials: grpc.ServerCredentials | None) -> int:
        try:
            if credentials is None:
                return int(self._server.add_insecure_port(listen))
            return int(self._server.add_secure_port(listen, credentials))
        except RuntimeError:
            raise InputError(
                f"cannot listen on {listen}: in use, or not an address of this machine"
            ) from None

    async def _watch_health(self) -> None:
        while True:
            await asyncio.sleep(HEALTH_SECONDS)
            self._tell_health()

    def _tell_health(self) -> None:
        self._health.tell(served_names(self._core))


def served_names(core: Core) -> dict[str, bool]:
    """What health says of the server, of each service, and of each model by its name."""
    names = dict.fromkeys(("", *SERVICES), core.repository.ready())
    return names | dict.fromkeys(core.repository.models(), True)


def handlers(limits: Limits) -> dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]]:
    """The methods of both contracts, by service and name, for ``guard`` to stand before."""
    return {
        SERVICE.full_name: {each.name: _handler(each, limits) for each in SERVICE.methods},
        OPEN_INFERENCE.full_name: open_inference.handlers(limits.texts),
    }


def _handler(method: Any, limits: Limits) -> Any:
    parse = GetMessageClass(method.input_type).FromString
    serialize = GetMessageClass(method.output_type).SerializeToString
    if method.name == UPLOAD:
        return grpc.stream_unary_rpc_method_handler(partial(_summarize, limits), parse, serialize)
    if method.name == STREAM:
        return grpc.stream_stream_rpc_method_handler(_stream, parse, serialize)
    return grpc.unary_unary_rpc_method_handler(_answer, parse, serialize)


async def _answer(message: Message, call: Call) -> Message:
    return to_wire(await call.answer(to_domain(message)))


async def _summarize(
    limits: Limits, parts: AsyncIterator[pb.SummarizeRequest], call: Call
) -> Message:
    return to_wire(await call.answer(to_domain(await _merged(parts, limits))))


async def _merged(parts: AsyncIterator[pb.SummarizeRequest], limits: Limits) -> pb.SummarizeRequest:
    """One request in parts; no more of it is held than the limits allow."""
    whole, size = pb.SummarizeRequest(), 0
    async for part in parts:
        size += part.ByteSize()
        whole.MergeFrom(part)
        if size > limits.summary_bytes:
            raise RefusedError(
                Code.RESOURCE_EXHAUSTED, f"expected at most {limits.summary_bytes} bytes in all"
            )
        if (
            len(whole.texts) > limits.summary_texts
            or len(whole.words) + len(whole.figures) > VALUES
        ):
            raise RefusedError(
                Code.INVALID_ARGUMENT,
                f"expected at most {limits.summary_texts} texts and {VALUES} other values",
            )
    return whole


async def _stream(
    requests: AsyncIterator[pb.PredictStreamRequest], call: StreamCall
) -> AsyncIterator[pb.PredictStreamResponse]:
    # At most STREAM_WINDOW of them wait in here.
    answers: asyncio.Queue[pb.PredictStreamResponse | None] = asyncio.Queue()
    room = asyncio.Semaphore(STREAM_WINDOW)
    reader = asyncio.create_task(_read_stream(requests, call, room, answers))
    try:
        while (answer := await answers.get()) is not None:
            yield answer
            room.release()
        await reader
    finally:
        reader.cancel()


async def _read_stream(
    requests: AsyncIterator[pb.PredictStreamRequest],
    call: StreamCall,
    room: asyncio.Semaphore,
    answers: asyncio.Queue[pb.PredictStreamResponse | None],
) -> None:
    async def answer(message: pb.PredictStreamRequest) -> None:
        found = await call.answer_when_free(to_domain(message.request))
        answers.put_nowait(to_streamed(message.number, found))

    tasks: set[asyncio.Task[None]] = set()
    try:
        async for message in requests:
            await room.acquire()
            tasks.add(task := asyncio.create_task(answer(message)))
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
    finally:
        for task in tuple(tasks):
            task.cancel()
        answers.put_nowait(None)


async def serve_until_stopped(server: Server, grace: float, ready: Callable[[int], None]) -> None:
    """Serve until SIGTERM or SIGINT, then stop with grace; ``ready`` is told the port."""
    stopping, loop = asyncio.Event(), asyncio.get_running_loop()

    def stop(*_: object) -> None:
        with suppress(RuntimeError):  # the loop is closed already
            loop.call_soon_threadsafe(stopping.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        # A handler of the loop's own would lose a signal that comes while its pipe is full, as it
        # is under load.
        signal.signal(number, stop)
    await server.start()
    ready(server.port)
    await stopping.wait()
    await server.stop(grace)
