"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Sequence,
)
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import grpc
from grpc_health.v1.health_pb2_grpc import HealthStub

from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceStub
from attnpriv_client import convert, summaries
from attnpriv_client.connection import (
    CHANNEL_OPTIONS,
    DEFAULT_ATTEMPTS,
    DEFAULT_TIMEOUT,
    Connection,
    Metadata,
    Tls,
)
from attnpriv_client.domain import (
    Explanation,
    Image,
    ModelCard,
    ModelSummary,
    Prediction,
    SensitiveSpan,
    Summary,
)
from attnpriv_client.errors import (
    DeadlineExceededError,
    InternalError,
    ServiceError,
    UnavailableError,
)
from attnpriv_client.retries import Attempts
from attnpriv_client.status import from_call
from attnpriv_client.summaries import SECONDS_A_TEXT
from attnpriv_client.window import (
    FINISH_SECONDS,
    Answer,
    StreamAnswer,
    Text,
    Window,
    async_batches,
)

if TYPE_CHECKING:
    from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceAsyncStub  # there for types alone

_Response = TypeVar("_Response")


class AsyncClient:
    """``Client`` for asyncio; see there for the arguments and methods.

    Make and use it inside a running event loop. Cancelling a call cancels it on the server too.
    """

    def __init__(
        self,
        target: str,
        timeout: float = DEFAULT_TIMEOUT,
        *,
        token: str | None = None,
        tls: Tls | None = None,
        insecure: bool = False,
        attempts: int = DEFAULT_ATTEMPTS,
    ) -> None:
        self._connection = Connection(target, timeout, token, tls, insecure, attempts)
        if tls is None:
            self._channel = grpc.aio.insecure_channel(target, CHANNEL_OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(target, tls.credentials(), CHANNEL_OPTIONS)
        self._stub = AttnprivServiceStub(self._channel)
        self._health = HealthStub(self._channel)

    async def predict(
        self,
        model: str,
        texts: Sequence[str],
        version: str | None = None,
        request_id: str | None = None,
        sensitive: Sequence[Sequence[SensitiveSpan]] = (),
    ) -> tuple[Prediction, ...]:
        """Classify texts; one prediction each, in their order."""
        request = convert.predict_request(
            model, texts, version, request_id or convert.new_request_id(), sensitive
        )
        return convert.predictions(await self._ask(self._stub.Predict, request))

    async def predict_images(
        self,
        model: str,
        images: Sequence[Image],
        version: str | None = None,
        request_id: str | None = None,
    ) -> tuple[Prediction, ...]:
        """Classify images; one prediction each, in their order. Otherwise as ``predict``."""
        request = convert.predict_images_request(
            model, images, version, request_id or convert.new_request_id()
        )
        return convert.predictions(await self._ask(self._stub.Predict, request))

    async def predict_stream(
        self,
        model: str,
        texts: Iterable[Text] | AsyncIterable[Text],
        version: str | None = None,
    ) -> AsyncGenerator[Answer, None]:
        """Classify any number of texts, in constant memory; the answers in their order.

        To stop before the end, use ``contextlib.aclosing``, which ends the call.
        """
        window, source = Window(), async_batches(texts)
        stream = _AsyncStream(self._stub, self._connection)
        try:
            while True:
                while window.has_room and (batch := await anext(source, None)):
                    window.add(batch)
                if window.empty:
                    break
                if window.waiting:
                    await stream.exchange(window, model, version)
                for answer in window.ready():
                    yield answer
            await stream.finish()
        finally:
            stream.close()

    async def explain(
        self,
        model: str,
        text: str,
        target_label: str | None = None,
        version: str | None = None,
        request_id: str | None = None,
        sensitive: Sequence[SensitiveSpan] = (),
    ) -> Explanation:
        """Explain the answer to a text by its tokens; the default target is the predicted label."""
        request = convert.explain_request(
            model, text, target_label, version, request_id or convert.new_request_id(), sensitive
        )
        return convert.explanation(await self._ask(self._stub.Explain, request))

    async def explain_image(
        self,
        model: str,
        image: Image,
        target_label: str | None = None,
        version: str | None = None,
        request_id: str | None = None,
    ) -> Explanation:
        """Explain the answer to an image by its patches. Otherwise as ``explain``."""
        request = convert.explain_image_request(
            model, image, target_label, version, request_id or convert.new_request_id()
        )
        return convert.explanation(await self._ask(self._stub.Explain, request))

    async def summarize(
        self,
        model: str,
        texts: Sequence[str],
        figures: Sequence[str] = ("labels", "attention"),
        *,
        by_label: bool = False,
        words: Sequence[str] = (),
        cap: float | None = None,
        version: str | None = None,
        request_id: str | None = None,
    ) -> Summary:
        """Say what many texts have in common: label counts, and means of what answers rest on."""
        parts = summaries.requests(
            model,
            texts,
            figures,
            by_label,
            words,
            cap,
            version,
            request_id or convert.new_request_id(),
        )
        return summaries.summary(
            await self._ask(self._summarize, parts, SECONDS_A_TEXT * len(texts))
        )

    async def models(self) -> tuple[ModelSummary, ...]:
        """List the models that the server serves, each with its newest version."""
        return convert.models(await self._ask(self._stub.ListModels, pb.ListModelsRequest()))

    async def model_card(self, name: str, version: str | None = None) -> ModelCard:
        """Read the card of one model."""
        request = convert.model_request(name, version)
        return convert.model_card(await self._ask(self._stub.GetModel, request))

    async def health(self, model: str | None = None) -> bool:
        """Whether the server, or one model, answers requests now."""
        request = convert.health_request(model)
        return convert.is_serving(await self._ask(self._health.Check, request))

    async def close(self) -> None:
        """Close the connection; calls in progress are cancelled."""
        self._connection.closed.set()
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _summarize(
        self, parts: Sequence[pb.SummarizeRequest], timeout: float, metadata: Metadata
    ) -> Awaitable[pb.SummarizeResponse]:
        return self._stub.Summarize(iter(parts), timeout=timeout, metadata=metadata)

    async def _ask(
        self,
        method: Callable[..., Awaitable[_Response]],
        request: object,
        more_seconds: float = 0.0,
    ) -> _Response:
        attempts = self._connection.begin(more_seconds)
        return await _call(method, request, self._connection.metadata, attempts)


async def _call(
    method: Callable[..., Awaitable[_Response]],
    request: object,
    metadata: Metadata,
    attempts: Attempts,
) -> _Response:
    while True:
        try:
            return await method(request, timeout=attempts.remaining, metadata=metadata)
        except grpc.RpcError as error:
            failure = from_call(error)
        await asyncio.sleep(attempts.pause(failure))


class _AsyncStream:
    """PredictStream, opened when there is something to send, and again after it breaks."""

    def __init__(self, stub: AttnprivServiceAsyncStub, connection: Connection) -> None:
        self._stub = stub
        self._connection = connection
        self._call: _AsyncStreamCall | None = None

    async def exchange(self, window: Window, model: str, version: str | None) -> None:
        """Send what is waiting, and take in one answer."""
        attempts = self._connection.begin()
        while True:
            try:
                return await self._exchange_once(window, model, version, attempts)
            except ServiceError as error:
                failure = error
            pause = attempts.pause(failure)
            self._restart(window)
            await asyncio.sleep(pause)

    async def finish(self) -> None:
        """Let the call end by itself: it has nothing more to answer."""
        if self._call is not None:
            await self._call.finish()

    def close(self) -> None:
        """Cancel the call."""
        if self._call is not None:
            self._call.close()
            self._call = None

    async def _exchange_once(
        self, window: Window, model: str, version: str | None, attempts: Attempts
    ) -> None:
        if self._call is None:
            self._call = _AsyncStreamCall(self._stub, self._connection.metadata)
        for number, texts in window.to_send():
            self._call.send(convert.stream_request(number, model, texts, version, window.id))
        try:
            answer = await self._call.receive(attempts.remaining)
        except InternalError:
            # If the server ends the call while a request is being written, gRPC for asyncio reports
            # INTERNAL instead of the server's status (grpc/grpc#36066). A call without a stream
            # gets the true status, or an answer.
            self._restart(window)
            answer = await self._predict_oldest(window, model, version, attempts)
        window.accept(*answer)

    async def _predict_oldest(
        self, window: Window, model: str, version: str | None, attempts: Attempts
    ) -> StreamAnswer:
        number, texts = next(window.to_send())
        request_id = convert.streamed_id(window.id, number, texts)
        request = convert.predict_request(model, texts, version, request_id)
        metadata = self._connection.metadata
        try:
            response = await _call(self._stub.Predict, request, metadata, attempts)
        except ServiceError as error:
            return number, error
        return number, convert.predictions(response)

    def _restart(self, window: Window) -> None:
        self.close()
        window.send_again()


class _AsyncStreamCall:
    """One call, whose requests are sent by a task of gRPC."""

    def __init__(self, stub: AttnprivServiceAsyncStub, metadata: Metadata) -> None:
        self._requests: asyncio.Queue[pb.PredictStreamRequest | None] = asyncio.Queue()
        self._call = stub.PredictStream(self._each_request(), metadata=metadata)

    def send(self, request: pb.PredictStreamRequest) -> None:
        self._requests.put_nowait(request)

    async def receive(self, timeout: float) -> StreamAnswer:
        try:
            answer: Any = await asyncio.wait_for(self._call.read(), timeout)
        except TimeoutError:
            answer = DeadlineExceededError("DEADLINE_EXCEEDED", "no answer within the timeout")
        except grpc.RpcError as error:
            answer = from_call(error)
        if answer is grpc.aio.EOF:
            answer = UnavailableError("UNAVAILABLE", "the server ended the stream")
        if isinstance(answer, ServiceError):
            raise answer
        return convert.stream_answer(answer)

    async def finish(self) -> None:
        self._requests.put_nowait(None)
        with suppress(TimeoutError, grpc.RpcError):
            await asyncio.wait_for(self._call.read(), FINISH_SECONDS)

    def close(self) -> None:
        self._call.cancel()
        self._requests.put_nowait(None)  # the sender of a call that has ended would wait for ever

    async def _each_request(self) -> AsyncIterator[pb.PredictStreamRequest]:
        while (request := await self._requests.get()) is not None:
            yield request
