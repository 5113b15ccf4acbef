"""The client, once blocking and once for asyncio.

Texts travel unencrypted: use it towards the same machine, or through a tunnel that encrypts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import grpc

from attnpriv.errors import AttnprivError
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceStub
from attnpriv_client import convert
from attnpriv_client.domain import Explanation, ModelCard, ModelSummary, Prediction

DEFAULT_TIMEOUT = 30.0
# Nothing is sent twice behind the caller's back, and no text goes to a proxy that the environment
# happens to name.
_OPTIONS = (("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0))


class ServiceError(AttnprivError):
    """A request failed.

    Attributes:
        code: the name of the gRPC status, such as ``NOT_FOUND`` or ``UNAVAILABLE``.
        message: the server's sentence, or gRPC's own where no server was reached.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Client:
    """Asks one server, and blocks until it answers. A context manager; safe to share by threads.

    Args:
        target: ``HOST:PORT``.
        timeout: seconds after which a call fails with DEADLINE_EXCEEDED.

    Every method raises ServiceError where the call fails, InputError where a string cannot be sent,
    and never tries again by itself.
    """

    def __init__(self, target: str, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._timeout = timeout
        self._channel = grpc.insecure_channel(target, _OPTIONS)
        self._stub = AttnprivServiceStub(self._channel)

    def predict(self, model: str, texts: Sequence[str]) -> tuple[Prediction, ...]:
        """Classify texts; one prediction each, in their order."""
        request = convert.predict_request(model, texts)
        with _service_errors():
            return convert.predictions(self._stub.Predict(request, timeout=self._timeout))

    def explain(self, model: str, text: str, target_label: str | None = None) -> Explanation:
        """Say what the answer on a text rests on; the predicted label is the default target."""
        request = convert.explain_request(model, text, target_label)
        with _service_errors():
            return convert.explanation(self._stub.Explain(request, timeout=self._timeout))

    def models(self) -> tuple[ModelSummary, ...]:
        """List the models that the server answers for."""
        with _service_errors():
            response = self._stub.ListModels(pb.ListModelsRequest(), timeout=self._timeout)
            return convert.models(response)

    def model_card(self, name: str) -> ModelCard:
        """Read the card of one model."""
        request = convert.model_request(name)
        with _service_errors():
            return convert.model_card(self._stub.GetModel(request, timeout=self._timeout))

    def close(self) -> None:
        """Close the connection; calls under way fail with CANCELLED."""
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


class AsyncClient:
    """The same as ``Client`` for asyncio. Make it and use it inside a running event loop.

    Cancelling a call cancels it on the server too.
    """

    def __init__(self, target: str, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._timeout = timeout
        self._channel = grpc.aio.insecure_channel(target, _OPTIONS)
        self._stub = AttnprivServiceStub(self._channel)

    async def predict(self, model: str, texts: Sequence[str]) -> tuple[Prediction, ...]:
        """Classify texts; one prediction each, in their order."""
        request = convert.predict_request(model, texts)
        with _service_errors():
            return convert.predictions(await self._stub.Predict(request, timeout=self._timeout))

    async def explain(self, model: str, text: str, target_label: str | None = None) -> Explanation:
        """Say what the answer on a text rests on; the predicted label is the default target."""
        request = convert.explain_request(model, text, target_label)
        with _service_errors():
            return convert.explanation(await self._stub.Explain(request, timeout=self._timeout))

    async def models(self) -> tuple[ModelSummary, ...]:
        """List the models that the server answers for."""
        with _service_errors():
            response = await self._stub.ListModels(pb.ListModelsRequest(), timeout=self._timeout)
            return convert.models(response)

    async def model_card(self, name: str) -> ModelCard:
        """Read the card of one model."""
        request = convert.model_request(name)
        with _service_errors():
            return convert.model_card(await self._stub.GetModel(request, timeout=self._timeout))

    async def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
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


@contextmanager
def _service_errors() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        code, details = error.code(), error.details()
        raise ServiceError(code.name, details or "no details") from None
