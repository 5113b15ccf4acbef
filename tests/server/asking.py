"""What the tests of the server ask, and a gate that holds its answers back."""

from __future__ import annotations

import threading

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from attnpriv.runs.folder import Run
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceStub
from attnpriv_server.calls import Incoming
from attnpriv_server.core import Core
from attnpriv_server.domain import Credentials, Deadline, Request, Response

TEXTS = [
    "Where is my parcel?",
    "I was charged twice for the same order and nobody answers my mails, please help me soon.",
    "ok",
    "The new password does not work on my phone — ünïcödé 😀.",
    "Cancel my subscription " * 200,
]
SENSITIVE = "Call me on +44 7911 123456 or mail jane.doe@example.com, card 4111 1111 1111 1111 ok"
SECRETS = ("7911", "123456", "+44", "jane", "doe", "example", "4111", "1111")


async def answer_of(core: Core, request: Request, deadline: Deadline | None = None) -> Response:
    """A core's answer to somebody who shows nothing, without any transport."""
    incoming = Incoming("test", request.role, Credentials, deadline or Deadline())
    async with core.call(incoming) as call:
        return await call.answer(request)


def error_of(call) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code().name, caught.value.details()


def explain(stub: AttnprivServiceStub, text: str = SENSITIVE, **fields) -> pb.ExplainResponse:
    return stub.Explain(pb.ExplainRequest(model="private", text=text, **fields))


def predict_of(text: str) -> pb.PredictRequest:
    return pb.PredictRequest(model="private", texts=[text])


def health_check(channel, service: str = "") -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status


QUEUE = 64


class Gate:
    """Holds every forward pass of a model until it is opened, and counts them."""

    def __init__(self, run: Run) -> None:
        self.entered, self.opened, self.passes = threading.Event(), threading.Event(), 0
        run.model.head.register_forward_pre_hook(self._hold)

    def _hold(self, module, args) -> None:
        self.passes += 1
        self.entered.set()
        assert self.opened.wait(30)
