"""Answers that are paid for, through gRPC: charged once, however they are asked for again."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from uuid import uuid4

import grpc
import pytest
from google.rpc import code_pb2

from attnpriv.inference import open_inference_pb2 as oip
from attnpriv.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceStub
from attnpriv_client import AsyncClient, Client
from attnpriv_server.budget.charging import Budget
from attnpriv_server.policy import Role, read_policies
from attnpriv_server.telemetry import Telemetry
from tests.server.asking import error_of
from tests.server.conftest import listening

# A draw takes half of the budget: what was charged shows by what is left.
POLICY = """
[roles.everyone]
predict = { label = { read = "full", epsilon = 1 } }
budget = { epsilon = 2 }

[roles.everyone.explain]
tokens = { read = "redacted" }
attention = { read = "redacted" }
key = { epsilon = 1 }
"""
TEXT = "Please call +44 7911 123456 because my parcel is late"


def role(content: str = POLICY) -> Role:
    return read_policies(content.encode()).of("anybody")


def explain(**fields) -> pb.ExplainRequest:
    return pb.ExplainRequest(model="private", text=TEXT, **fields)


def predict(*texts: str, **fields) -> pb.PredictRequest:
    return pb.PredictRequest(model="private", texts=texts or (TEXT,), **fields)


def charges_left(stub) -> int:
    """How many more draws the budget pays for; it is exhausted then."""
    left = 0
    while True:
        try:
            stub.Explain(explain())
        except grpc.RpcError:
            break
        left += 1
    code, message = error_of(lambda: stub.Explain(explain()))
    assert (code, "budget has not enough left" in message) == ("RESOURCE_EXHAUSTED", True)
    return left


@pytest.fixture
def core(make_core, models, tmp_path):
    budget = Budget.open(f"sqlite:///{tmp_path}/budget.db", Telemetry())
    core = make_core(models, role(), budget=budget)
    yield core
    core.close()


@pytest.fixture
def paid(serve, core) -> AttnprivServiceStub:
    return AttnprivServiceStub(serve(core))


def test_equal_requests_at_one_time_are_charged_once(paid) -> None:
    request = explain(request_id=str(uuid4()))

    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda _: paid.Explain(request), range(20)))

    assert len({each.SerializeToString() for each in found}) == 1
    assert charges_left(paid) == 1


def test_a_rule_that_changed_is_not_answered_by_a_second_draw(serve, make_core, models, tmp_path):
    content = [POLICY]
    budget = Budget.open(f"sqlite:///{tmp_path}/budget.db", Telemetry())
    core = make_core(models, lambda: role(content[0]), budget=budget)
    stub = AttnprivServiceStub(serve(core))
    request = explain(request_id=str(uuid4()))
    first = stub.Explain(request)

    for old, new in (
        ("key = { epsilon = 1 }", "key = { epsilon = 0.5 }"),
        ("attention", "rollout"),
    ):
        content[0] = POLICY.replace(old, new, 1)
        assert error_of(lambda: stub.Explain(request))[0] == "ALREADY_EXISTS"
    content[0] = POLICY

    assert stub.Explain(request) == first
    assert charges_left(stub) == 1
    core.close()


def test_one_id_serves_for_one_kind_of_request(paid) -> None:
    request_id = str(uuid4())
    paid.Explain(explain(request_id=request_id))

    code, _ = error_of(lambda: paid.Predict(predict(request_id=request_id)))

    assert code == "ALREADY_EXISTS"


def test_an_exhausted_budget_ends_no_other_request_of_a_stream(paid) -> None:
    requests = [
        pb.PredictStreamRequest(number=n, request=predict(request_id=f"{n}-{uuid4()}"))
        for n in range(4)
    ] + [pb.PredictStreamRequest(number=4, request=pb.PredictRequest(model="none", texts=["a"]))]

    found = {each.number: each for each in paid.PredictStream(iter(requests), timeout=60)}
    again = {each.number: each for each in paid.PredictStream(iter(requests), timeout=60)}

    codes = sorted(each.error.code for each in found.values())
    exhausted = code_pb2.RESOURCE_EXHAUSTED
    assert codes == sorted([0, 0, exhausted, exhausted, code_pb2.NOT_FOUND])
    assert again == found


def test_the_open_inference_protocol_pays_once_for_a_long_id(serve, core) -> None:
    channel = serve(core)
    stub = GRPCInferenceServiceStub(channel)
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1]}
    contents = {"bytes_contents": [TEXT.encode()]}

    def infer(request_id: str) -> oip.ModelInferResponse:
        inputs = [oip.ModelInferRequest.InferInputTensor(**tensor, contents=contents)]
        return stub.ModelInfer(
            oip.ModelInferRequest(model_name="private", id=request_id, inputs=inputs)
        )

    request_id = str(uuid4())
    found = [infer(request_id) for _ in range(5)]

    assert all(each == found[0] for each in found)
    assert error_of(lambda: infer("x" * 129))[0] == "INVALID_ARGUMENT"
    infer("7")  # such an id may be anybody's: it is charged each time
    assert error_of(lambda: infer("7"))[0] == "RESOURCE_EXHAUSTED"


# Connections that break once the answer is on its way


@contextmanager
def losing(address: str, marker: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """An address that passes everything on, but breaks off at the first answer with a marker.

    What it withheld is in the list.
    """
    host, port = address.split(":")
    lost: list[bytes] = []

    def passed_on(source: socket.socket, target: socket.socket, breaks: bool) -> None:
        with suppress(OSError):
            while chunk := source.recv(65536):
                if breaks and marker in chunk and not lost:
                    lost.append(chunk)
                    break
                target.sendall(chunk)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def accepted() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection((host, int(port)))
            sockets.extend((client, server))
            for pair in ((client, server, False), (server, client, True)):
                threads.append(threading.Thread(target=passed_on, args=pair))
                threads[-1].start()

    sockets: list[socket.socket] = []
    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accepted)
        accepting.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}", lost
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for each in sockets:  # closing alone wakes no thread that waits for bytes
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()
            for each in sockets:
                each.close()


def explained(target: str) -> None:
    with Client(target) as client:
        client.explain("private", TEXT)


def explained_async(target: str) -> None:
    async def ask() -> None:
        async with AsyncClient(target) as client:
            await client.explain("private", TEXT)

    asyncio.run(ask())


def streamed(target: str) -> None:
    with Client(target) as client:
        assert len(list(client.predict_stream("private", [TEXT]))) == 1


@pytest.mark.parametrize("ask", [explained, explained_async, streamed])
def test_an_answer_that_was_lost_on_its_way_is_charged_once(core, models, ask) -> None:
    marker = models["private"].label_names[0].encode()
    with listening(core) as address:
        with losing(address, marker) as (target, lost):
            ask(target)
            assert lost
        with Client(address) as client:
            client.explain("private", TEXT)
            with pytest.raises(Exception, match="budget has not enough left"):
                client.explain("private", TEXT)
