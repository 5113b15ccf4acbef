"""Many requests over one stream."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import BadRequest

from attnpriv.runs.prediction import predict_probabilities
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceStub
from attnpriv_server.queueing import Batching


def asked(number: int, *texts: str, model: str = "private") -> pb.PredictStreamRequest:
    request = pb.PredictRequest(model=model, texts=texts)
    return pb.PredictStreamRequest(number=number, request=request)


def answers(stub, requests) -> dict[int, pb.PredictStreamResponse]:
    found = list(stub.PredictStream(iter(requests), timeout=60))
    by_number = {each.number: each for each in found}
    assert len(by_number) == len(found)
    return by_number


def test_every_request_is_answered_under_its_number(stub, models) -> None:
    texts = [[f"message {i}", "again " * (i % 40)] if i % 40 else [f"{i}"] for i in range(100)]

    found = answers(stub, [asked(7 * i, *each) for i, each in enumerate(texts)])

    assert sorted(found) == [7 * i for i in range(100)]
    for i, each in enumerate(texts):
        expected = predict_probabilities(models["private"], each)
        got = [p.probabilities for p in found[7 * i].response.predictions]
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_a_request_that_fails_ends_nothing_else(stub) -> None:
    requests = [asked(1, "a"), asked(2), asked(3, "b", model="nobody"), asked(4, "c")]

    found = answers(stub, requests)

    assert [found[number].WhichOneof("result") for number in (1, 2, 3, 4)] == [
        "response",
        "error",
        "error",
        "response",
    ]
    assert [found[n].error.code for n in (2, 3)] == [
        code_pb2.INVALID_ARGUMENT,
        code_pb2.NOT_FOUND,
    ]
    fields = BadRequest()
    assert found[2].error.details[0].Unpack(fields)
    assert fields.field_violations[0].field == "texts"


def test_an_empty_stream_is_answered_by_an_empty_one(stub) -> None:
    assert answers(stub, []) == {}


def test_where_the_server_is_full_a_stream_waits(serve, make_core, models) -> None:
    full = make_core(models, batching=Batching(token_budget=1, capacity=2))
    stub = AttnprivServiceStub(serve(full))

    found = answers(stub, [asked(number, "a", "b") for number in range(20)])

    assert {each.WhichOneof("result") for each in found.values()} == {"response"}
    assert len(found) == 20


def test_malformed_bytes_end_the_stream(channel) -> None:
    call = channel.stream_stream("/attnpriv.v1.AttnprivService/PredictStream")

    with pytest.raises(grpc.RpcError) as caught:
        list(call(iter([asked(1, "a").SerializeToString(), b"\xff\xff"])))

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "malformed request"
