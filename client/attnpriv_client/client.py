"""The client that blocks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing, suppress
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self, TypeVar

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
from attnpriv_client.errors import DeadlineExceededError, ServiceError, UnavailableError
from attnpriv_client.status import from_call
from attnpriv_client.summaries import SECONDS_A_TEXT
from attnpriv_client.window import FINISH_SECONDS, Answer, StreamAnswer, Text, Window, batches

WAIT_SECONDS = 0.2

_Response = TypeVar("_Response")


class Client:
    """A client of one server that blocks until it has an answer.

    It is a context manager, and threads may share it.

    Args:
        target: ``HOST:PORT``. Calls take turns among all addresses of the host. Without TLS, whose
            certificate is for one name, several can be given as ``ipv4:ADDRESS:PORT,ADDRESS:PORT``.
        timeout: seconds for a call, with all its attempts and the pauses between them; for a
            stream, seconds without any answer.
        token: sent to the server with every call. Without TLS it is refused, since anybody on the
            way could read it, unless the target is a loopback address.
        tls: how to encrypt; without it, others can read texts and answers on their way.
        insecure: send the token even without TLS, for example inside an encrypting tunnel.
        attempts: how often a call is tried in all, if that can help (see ``retries``); 1 means that
            no call is tried again.

    Every method raises ServiceError, or its subclass that fits, if the call fails, and InputError
    if a value cannot be sent.
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
            self._channel = grpc.insecure_channel(target, CHANNEL_OPTIONS)
        else:
            self._channel = grpc.secure_channel(target, tls.credentials(), CHANNEL_OPTIONS)
        self._stub = AttnprivServiceStub(self._channel)
        self._health = HealthStub(self._channel)

    def predict(
        self,
        model: str,
        texts: Sequence[str],
        version: str | None = None,
        request_id: str | None = None,
        sensitive: Sequence[Sequence[SensitiveSpan]] = (),
    ) -> tuple[Prediction, ...]:
        """Classify texts; one prediction each, in their order.

        As in all methods, the newest version of the model answers if none is named. Where the
        server draws answers at random, each call is charged to your privacy budget once, under
        ``request_id``: 16 to 128 characters that nobody can guess. Asking again under the same id
        gets the same answer for nothing. By default every call has a new one. ``sensitive`` has,
        for each text, what you know to be personal data in it: the server hides it wherever it
        hides what it finds itself.
        """
        request = convert.predict_request(
            model, texts, version, request_id or convert.new_request_id(), sensitive
        )
        return convert.predictions(self._ask(self._stub.Predict, request))

    def predict_images(
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
        return convert.predictions(self._ask(self._stub.Predict, request))

    def predict_stream(
        self, model: str, texts: Iterable[Text], version: str | None = None
    ) -> Generator[Answer, None, None]:
        """Classify any number of texts, in constant memory; the answers in their order.

        Up to 512 texts are read ahead of their answers, so their source should not wait for the
        answers. A stream that breaks is opened again and continues where it was.

        Args:
            model: name of the model.
            texts: read in the thread that asks for the answers. An InvalidRequestError among them
                stands for a text that the source could not read, and is returned as its answer.
            version: version of the model.

        Yields:
            A prediction for each text, or an InvalidRequestError for a text that the server
            refuses, for example because it is empty, or that cannot be sent because it is not
            valid Unicode or is longer than 1 MiB. Any other error is raised and ends the stream.
        """
        window, source = Window(), batches(texts)
        with closing(_Stream(self._stub, self._connection)) as stream:
            while True:
                while window.has_room and (batch := next(source, None)):
                    window.add(batch)
                if window.empty:
                    return stream.finish()
                if window.waiting:
                    stream.exchange(window, model, version)
                yield from window.ready()

    def explain(
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
        return convert.explanation(self._ask(self._stub.Explain, request))

    def explain_image(
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
        return convert.explanation(self._ask(self._stub.Explain, request))

    def summarize(
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
        """Say what many texts have in common: label counts, and means of what answers rest on.

        All numbers have noise, so that no single text shows, and each call is charged to your
        privacy budget once, under ``request_id``; see ``predict``. The number of texts is told, and
        so are the words.

        Args:
            model: name of the model.
            texts: at most as many as the server takes, 10,000 by default. The call has a second
                more than ``timeout`` for each.
            figures: among ``labels``, ``attention`` and ``attribution``; the fewer, the smaller the
                noise.
            by_label: tell the means for the texts of each label, too.
            words: of which the means are told beside those of types of personal data.
            cap: the most that one text may add to all means together, from 0.01 to 1. Noise is
                proportional to it. It must not be chosen by looking at the texts. Default: the
                server's, 0.25.
            version: version of the model.
            request_id: 16 to 128 characters that nobody can guess.
        """
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
        return summaries.summary(self._ask(self._summarize, parts, SECONDS_A_TEXT * len(texts)))

    def models(self) -> tuple[ModelSummary, ...]:
        """List the models that the server serves, each with its newest version."""
        return convert.models(self._ask(self._stub.ListModels, pb.ListModelsRequest()))

    def model_card(self, name: str, version: str | None = None) -> ModelCard:
        """Read the card of one model."""
        request = convert.model_request(name, version)
        return convert.model_card(self._ask(self._stub.GetModel, request))

    def health(self, model: str | None = None) -> bool:
        """Whether the server, or one model, answers requests now."""
        return convert.is_serving(self._ask(self._health.Check, convert.health_request(model)))

    def close(self) -> None:
        """Close the connection; calls in progress fail with CANCELLED."""
        self._connection.closed.set()
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _summarize(
        self, parts: Sequence[pb.SummarizeRequest], timeout: float, metadata: Metadata
    ) -> pb.SummarizeResponse:
        return self._stub.Summarize(iter(parts), timeout=timeout, metadata=metadata)

    def _ask(
        self, method: Callable[..., _Response], request: object, more_seconds: float = 0.0
    ) -> _Response:
        attempts, metadata = self._connection.begin(more_seconds), self._connection.metadata
        while True:
            try:
                return method(request, timeout=attempts.remaining, metadata=metadata)
            except grpc.RpcError as error:
                failure = from_call(error)
            time.sleep(attempts.pause(failure))


class _Stream:
    """PredictStream, opened when there is something to send, and again after it breaks."""

    def __init__(self, stub: AttnprivServiceStub, connection: Connection) -> None:
        self._stub = stub
        self._connection = connection
        self._call: _StreamCall | None = None

    def exchange(self, window: Window, model: str, version: str | None) -> None:
        """Send what is waiting, and take in one answer."""
        attempts = self._connection.begin()
        while True:
            try:
                return self._exchange_once(window, model, version, attempts.remaining)
            except ServiceError as error:
                failure = error
            pause = attempts.pause(failure)
            self.close()
            window.send_again()
            time.sleep(pause)

    def finish(self) -> None:
        """Let the call end by itself: it has nothing more to answer."""
        if self._call is not None:
            self._call.finish()

    def close(self) -> None:
        """Cancel the call."""
        if self._call is not None:
            self._call.close()
            self._call = None

    def _exchange_once(
        self, window: Window, model: str, version: str | None, timeout: float
    ) -> None:
        if self._call is None:
            self._call = _StreamCall(self._stub, self._connection.metadata)
        for number, texts in window.to_send():
            self._call.send(convert.stream_request(number, model, texts, version, window.id))
        window.accept(*self._call.receive(timeout))


class _StreamCall:
    """One call. A thread reads its answers, so that waiting for one can time out."""

    def __init__(self, stub: AttnprivServiceStub, metadata: Metadata) -> None:
        self._requests: SimpleQueue[pb.PredictStreamRequest | None] = SimpleQueue()
        self._answers: SimpleQueue[pb.PredictStreamResponse | ServiceError] = SimpleQueue()
        self._call = stub.PredictStream(iter(self._requests.get, None), metadata=metadata)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def send(self, request: pb.PredictStreamRequest) -> None:
        self._requests.put(request)

    def receive(self, timeout: float) -> StreamAnswer:
        answer = self._next_answer(timeout)
        if isinstance(answer, ServiceError):
            raise answer
        return convert.stream_answer(answer)

    def _next_answer(self, timeout: float) -> pb.PredictStreamResponse | ServiceError:
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            # Ctrl-C just before a wait is noticed only after it, so no wait is long.
            with suppress(Empty):
                return self._answers.get(timeout=min(left, WAIT_SECONDS))
        return DeadlineExceededError("DEADLINE_EXCEEDED", "no answer within the timeout")

    def finish(self) -> None:
        self._requests.put(None)
        self._reader.join(FINISH_SECONDS)

    def close(self) -> None:
        self._call.cancel()
        self._requests.put(None)

    def _read(self) -> None:
        try:
            for response in self._call:
                self._answers.put(response)
            self._answers.put(UnavailableError("UNAVAILABLE", "the server ended the stream"))
        except grpc.RpcError as error:
            self._answers.put(from_call(error))
