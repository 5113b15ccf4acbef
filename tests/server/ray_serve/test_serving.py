"""Two replicas behind Envoy, which is asked as a server of ours would be."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from attnpriv.inference import open_inference_pb2 as inference
from attnpriv.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from attnpriv.runs.folder import load_run
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceStub
from attnpriv_server.budget.database import open_database
from attnpriv_server.budget.store import Store
from attnpriv_server.policy import load_policies
from tests.server.conftest import MakeCore, Serve
from tests.server.ray_serve.conftest import ALLOWED, SECRET, TOKEN, Serving, wait_until

pytestmark = [pytest.mark.exhaustive, pytest.mark.filterwarnings("ignore::FutureWarning")]
TEXTS = ["the parcel never came", "refund"]
NUMBER = "a number of mine"
LATE = 60.0  # seconds
PREDICT = pb.PredictRequest(model="mail", texts=TEXTS)
# What Ray would say of itself.
INNER = ("ray", "actor", "traceback", "127.0.0.1", ".py", "replica", "application")


def refusal(call: Callable[[], object]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    said = raised.value.details().lower()
    assert not any(word in said for word in INNER), said
    return raised.value


def code(call: Callable[[], object]) -> str:
    return refusal(call).code().name


def test_both_contracts_answer_as_our_own_server_does(
    serving: Serving, stub: AttnprivServiceStub, make_core: MakeCore, serve: Serve
) -> None:
    runs = {"mail": load_run(serving.models / "mail" / "1")}
    role = load_policies(serving.folder / "policy.toml").of("reports")
    own = AttnprivServiceStub(serve(make_core(runs, role))).Predict(PREDICT, LATE)
    expected = [value for each in own.predictions for value in each.probabilities]
    request = inference.ModelInferRequest(model_name="mail")
    tensor = request.inputs.add(name="text", datatype="BYTES", shape=[2])
    tensor.contents.bytes_contents.extend(text.encode() for text in TEXTS)
    with serving.channel() as channel:
        answer = GRPCInferenceServiceStub(channel).ModelInfer(request, LATE)
        health = health_pb2_grpc.HealthStub(channel)
        asked = [health_pb2.HealthCheckRequest(service=name) for name in ("", "mail")]
        assert {health.Check(each, LATE).status for each in asked} == {1}
    predictions = stub.Predict(PREDICT, LATE).predictions
    found = [value for each in predictions for value in each.probabilities]
    assert found == pytest.approx(expected, abs=0.01)  # where a processor has bfloat16
    assert list(answer.outputs[1].contents.fp32_contents) == pytest.approx(found, abs=1e-6)


def test_streams_and_uploads_pass(stub: AttnprivServiceStub) -> None:
    numbered = (pb.PredictStreamRequest(number=n, request=PREDICT) for n in range(50))
    found = list(stub.PredictStream(numbered, LATE))
    assert sorted(each.number for each in found) == list(range(50))
    assert all(len(each.response.predictions) == 2 for each in found)
    parts = iter([pb.SummarizeRequest(model="mail", texts=TEXTS)] * 2)
    assert "figures" in refusal(lambda: stub.Summarize(parts, LATE)).details()


def test_refusals_arrive_in_the_words_and_details_of_the_core(stub: AttnprivServiceStub) -> None:
    error = refusal(lambda: stub.Predict(pb.PredictRequest(model="mail"), LATE))
    details = BadRequest()
    assert rpc_status.from_call(error).details[0].Unpack(details)
    assert details.field_violations[0].field == "texts"
    unknown = pb.PredictRequest(model="nothing", texts=TEXTS)
    assert code(lambda: stub.Predict(unknown, LATE)) == "NOT_FOUND"
    large = pb.PredictRequest(model="mail", texts=["x" * 60_000] * 100)
    assert code(lambda: stub.Predict(large, LATE)) == "RESOURCE_EXHAUSTED"


def test_tokens_and_certificates_reach_the_core(
    serving: Serving, token: tuple[tuple[str, str], ...]
) -> None:
    def predict(certificate: str | None, *metadata: tuple[str, str]) -> None:
        with serving.channel(certificate) as channel:
            AttnprivServiceStub(channel).Predict(PREDICT, LATE, metadata)

    predict("reports")
    predict("reports", ("application", "other"), ("request_id", "mine"))
    predict("reports", ("x-attnpriv-front", "forged"), ("x-forwarded-client-cert", "DNS=script"))
    assert code(lambda: predict("stranger")) == "UNAUTHENTICATED"
    forged = ("x-forwarded-client-cert", "DNS=reports")
    assert code(lambda: predict("stranger", forged)) == "UNAUTHENTICATED"
    # A certificate of one principal and the token of another.
    assert code(lambda: predict("reports", *token)) == "UNAUTHENTICATED"
    with pytest.raises(grpc.RpcError, match="UNAVAILABLE"):  # in gRPC's own words: nobody answers
        predict(None)


def test_ray_itself_lets_nobody_in_but_the_front(
    serving: Serving, token: tuple[tuple[str, str], ...]
) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{serving.proxy}") as channel:
        direct = AttnprivServiceStub(channel)
        assert code(lambda: direct.Predict(PREDICT, LATE, token)) == "UNAUTHENTICATED"
        assert direct.Predict(PREDICT, LATE, (*token, ("x-attnpriv-front", SECRET))).predictions


@pytest.mark.parametrize(
    "path",
    [
        "/attnpriv.v1.AttnprivService/Nothing",
        "/grpc.health.v1.Health/List",
        "/ray.serve.RayServeAPIService/ListApplications",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ],
)
def test_nothing_else_is_there(serving: Serving, path: str) -> None:
    with serving.channel() as channel:
        assert code(lambda: channel.unary_unary(path)(b"", LATE)) == "UNIMPLEMENTED"


@contextmanager
def calling(serving: Serving, callers: int = 4) -> Iterator[Counter[str]]:
    """Predictions all the while, each asked once; counts how they end, by the version too."""
    ends, over = Counter[str](), threading.Event()

    def call() -> None:
        with serving.channel() as channel:
            stub = AttnprivServiceStub(channel)
            while not over.is_set():
                try:
                    ends[f"version {stub.Predict(PREDICT, LATE).version}"] += 1
                except grpc.RpcError as error:
                    ends[f"{error.code().name}: {error.details()}"] += 1

    with ThreadPoolExecutor(callers) as pool:
        for _ in range(callers):
            pool.submit(call)
        try:
            yield ends
        finally:
            over.set()


def test_models_reload_without_a_lost_request(serving: Serving) -> None:
    with calling(serving) as ends:
        wait_until(lambda: ends["version 1"] > 20)
        shutil.copytree(serving.models / "mail" / "1", serving.models / ".new")
        (serving.models / ".new").rename(serving.models / "mail" / "2")
        wait_until(lambda: ends["version 2"] > 20)
        time.sleep(5)  # until both replicas have looked at the folder
        ends.clear()
        wait_until(lambda: ends["version 2"] > 50)
        assert set(ends) == {"version 2"}
        shutil.move(serving.models / "mail" / "2", serving.models / ".old")
        time.sleep(8)
        ends.clear()
        wait_until(lambda: ends["version 1"] > 50)
    assert set(ends) == {"version 1"}


def test_replicas_are_replaced_without_a_lost_request(serving: Serving) -> None:
    before = set(serving.replicas())
    with calling(serving) as ends:
        wait_until(lambda: ends["version 1"] > 20)
        serving.deploy(queue_rows=500)
        wait_until(lambda: not before & set(serving.replicas()) and len(serving.replicas()) == 2)
        now = ends["version 1"]
        wait_until(lambda: ends["version 1"] > now + 20)
    assert set(ends) == {"version 1"}


def test_a_budget_is_not_overspent_where_a_replica_is_killed(serving: Serving) -> None:
    answers: dict[str, bytes] = {}
    lost = Counter[str]()
    killed = threading.Event()

    def spend(caller: int) -> None:
        with serving.channel() as channel:
            stub, number = AttnprivServiceStub(channel), 0
            while True:
                name = f"a request that nobody guesses {caller} {number}"
                request = pb.ExplainRequest(model="mail", text=TEXTS[0], request_id=name)
                try:
                    answers[name] = stub.Explain(request, LATE).SerializeToString()
                    number += 1
                except grpc.RpcError as error:
                    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                        return
                    lost[f"{error.code().name}: {error.details()}"] += 1
                    time.sleep(0.1)  # and ask the same again
                if len(answers) >= ALLOWED // 4 and not killed.is_set():
                    killed.set()
                    os.kill(serving.replicas()[0], signal.SIGKILL)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(spend, range(6)))
    store = Store(open_database(serving.database, create=False))
    (usage,) = store.usage()
    store.close()
    assert killed.is_set()
    assert usage.account.principal == "reports"
    assert usage.spent == usage.allowed == ALLOWED * 10**6
    assert ALLOWED - 6 <= len(answers) <= ALLOWED, "a caller may have been refused what it had paid"
    assert all("ask again" in each for each in lost), lost
    wait_until(lambda: len(serving.replicas()) == 2)


def test_no_log_of_ray_has_a_text_a_token_or_a_name(
    serving: Serving, stub: AttnprivServiceStub, token: tuple[tuple[str, str], ...]
) -> None:
    stub.Predict(PREDICT, LATE, (("request_id", NUMBER), ("x-of-mine", TOKEN)))
    with grpc.insecure_channel(f"127.0.0.1:{serving.proxy}") as channel:
        direct = AttnprivServiceStub(channel)
        direct.Predict(PREDICT, LATE, (*token, ("x-attnpriv-front", SECRET)))

    def written() -> bytes:
        files = [each for each in serving.session.rglob("logs/**/*") if each.is_file()]
        return b"".join(each.read_bytes() for each in files)

    wait_until(lambda: written().count(b"attnpriv.v1.AttnprivService/Predict") > 1)
    for private in (TEXTS[0], SECRET, TOKEN, NUMBER):
        assert private.encode() not in written(), private
