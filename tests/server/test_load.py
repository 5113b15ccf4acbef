"""Deadlines, cancellation and full queues over real sockets."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import pytest
from grpc_health.v1 import health_pb2

from attnpriv.runs.folder import load_run
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceStub
from attnpriv_server.domain import Code, Deadline, ExplainRequest, RefusedError, Status
from attnpriv_server.policy.files import Switches
from attnpriv_server.queueing import Batching
from tests.server.asking import (
    QUEUE,
    SENSITIVE,
    Gate,
    answer_of,
    error_of,
    health_check,
    predict_of,
)


@pytest.fixture
def gated(serve, make_core, private_run):
    """A channel to a server whose only model waits at a gate."""
    run = load_run(private_run)
    gate = Gate(run)
    policy = Switches(redact_sensitive_tokens=False).role()
    core = make_core({"private": run}, policy, batching=Batching(token_budget=1, capacity=QUEUE))
    yield gate, serve(core)
    gate.opened.set()


def test_an_expired_deadline(stub) -> None:
    code, _ = error_of(lambda: stub.Predict(predict_of("late"), timeout=0.0))

    assert code == "DEADLINE_EXCEEDED"


def test_requests_that_expire_or_are_cancelled_in_the_queue_are_never_computed(gated) -> None:
    gate, channel = gated
    stub = AttnprivServiceStub(channel)
    first = stub.Predict.future(predict_of("first"))
    assert gate.entered.wait(30)

    expires = stub.Predict.future(predict_of("expires"), timeout=0.2)
    cancelled = stub.Predict.future(predict_of("cancelled"))
    assert error_of(expires.result)[0] == "DEADLINE_EXCEEDED"
    cancelled.cancel()
    # The event loop is free while the model computes; and this answer comes after the server has
    # read the cancellation, which went before it on the same connection.
    assert health_check(channel) == health_pb2.HealthCheckResponse.SERVING
    gate.opened.set()

    assert first.result(30).predictions
    assert stub.Predict(predict_of("last")).predictions
    assert gate.passes == 2


def test_work_stops_between_steps_once_nobody_waits(core, models) -> None:
    deadline = Deadline(None)
    run = models["private"]
    hook = run.model.head.register_forward_hook(lambda *_: deadline.cancel())

    with pytest.raises(RefusedError) as caught:
        asyncio.run(answer_of(core, ExplainRequest("private", SENSITIVE), deadline))
    hook.remove()

    assert caught.value.status == Status(Code.CANCELLED, "the request was cancelled")


def test_too_many_waiting_requests_are_turned_away(gated) -> None:
    gate, channel = gated
    stub = AttnprivServiceStub(channel)
    answered = threading.Semaphore(0)
    calls = [stub.Predict.future(predict_of("wait")) for _ in range(QUEUE + 4)]
    for call in calls:
        call.add_done_callback(lambda _: answered.release())
    assert all(answered.acquire(timeout=30) for _ in range(3))
    assert health_check(channel) == health_pb2.HealthCheckResponse.SERVING
    gate.opened.set()

    codes = Counter(call.code().name for call in calls)
    assert codes == {"OK": QUEUE + 1, "RESOURCE_EXHAUSTED": 3}


def test_predictions_do_not_wait_behind_explanations(gated) -> None:
    gate, channel = gated
    stub = AttnprivServiceStub(channel)
    explaining = stub.Explain.future(pb.ExplainRequest(model="private", text="a"))
    assert gate.entered.wait(30)

    assert stub.ListModels(pb.ListModelsRequest(), timeout=10).models
    gate.opened.set()
    assert explaining.result(30).tokens
