"""Metrics, traces and logs: what they say, and what they never say."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from queue import Queue

import grpc
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import generate_latest

import attnpriv
from attnpriv.errors import InputError
from attnpriv.inference.open_inference_pb2 import ModelInferRequest
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv_server.access import Access, new_token
from attnpriv_server.core import Core
from attnpriv_server.limits import Limits
from attnpriv_server.methods import METHODS
from attnpriv_server.models.repository import Repository
from attnpriv_server.policy import Policies
from attnpriv_server.queueing import Batching
from attnpriv_server.telemetry import JsonLines, Telemetry, log_defect

METHOD = "/attnpriv.v1.AttnprivService/Predict"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
MARK = "tell-tale"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def telemetry(exporter: InMemorySpanExporter) -> Telemetry:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Telemetry([METHOD], provider)


def value(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    return telemetry.registry.get_sample_value(f"attnpriv_server_{name}", labels)


def series(telemetry: Telemetry) -> int:
    return sum(len(metric.samples) for metric in telemetry.registry.collect())


def spans(exporter: InMemorySpanExporter) -> str:
    return "".join(span.to_json() for span in exporter.get_finished_spans())


# Metrics


def test_calls_are_counted_by_method_and_code(telemetry) -> None:
    telemetry.call_finished(METHOD, "OK", 0.25)
    telemetry.call_finished(METHOD, "OK", 0.5)
    telemetry.call_finished(METHOD, "NOT_FOUND", 0.125)

    assert value(telemetry, "calls_total", method=METHOD, code="OK") == 2
    assert value(telemetry, "calls_total", method=METHOD, code="NOT_FOUND") == 1
    assert value(telemetry, "call_seconds_sum", method=METHOD) == 0.875
    assert value(telemetry, "call_seconds_bucket", method=METHOD, le="0.25") == 2
    assert value(telemetry, "build_info", version=attnpriv.__version__) == 1


def test_batches_are_counted_with_what_they_held(telemetry) -> None:
    telemetry.model_loaded("mail", "1", 2.0, 4096)
    telemetry.batch_finished("predict", "mail", rows=3, tokens=21, seconds=0.5)
    telemetry.batch_finished("predict", "mail", rows=1, tokens=7, seconds=0.5)

    assert value(telemetry, "batch_tokens_sum", lane="predict") == 28
    assert value(telemetry, "batch_rows_sum", lane="predict") == 4
    assert value(telemetry, "batch_seconds_count", lane="predict", model="mail") == 2


def test_a_queue_is_asked_when_metrics_are_read(telemetry) -> None:
    waiting = [3]
    telemetry.watch_queue("explain", lambda: waiting[0])
    assert value(telemetry, "queue_rows", lane="explain") == 3

    waiting[0] = 5
    telemetry.waited("explain", 0.5)
    telemetry.refused("explain")
    telemetry.dropped("explain", "deadline")

    assert value(telemetry, "queue_rows", lane="explain") == 5
    assert value(telemetry, "wait_seconds_sum", lane="explain") == 0.5
    assert value(telemetry, "refused_total", lane="explain") == 1
    assert value(telemetry, "dropped_total", lane="explain", reason="deadline") == 1


def test_an_unloaded_model_leaves_no_memory_behind(telemetry) -> None:
    telemetry.model_loaded("mail", "1", 2.0, 4096)
    telemetry.model_loaded("mail", "2", 3.0, 8192)
    telemetry.model_unloaded("mail", "1")
    telemetry.load_failed("mail")

    assert value(telemetry, "models_loaded") == 1
    assert value(telemetry, "model_memory_bytes", model="mail", version="1") is None
    assert value(telemetry, "model_memory_bytes", model="mail", version="2") == 8192
    assert value(telemetry, "model_load_seconds_sum", model="mail") == 5
    assert value(telemetry, "model_load_failures_total", model="mail") == 1


def test_charges_are_counted_by_outcome(telemetry) -> None:
    telemetry.charge_finished("charged", 0.25)
    telemetry.charge_finished("exhausted", 0.5)
    telemetry.charge_finished("exhausted", 0.5)

    assert value(telemetry, "budget_charges_total", outcome="charged") == 1
    assert value(telemetry, "budget_charges_total", outcome="exhausted") == 2
    assert value(telemetry, "budget_charge_seconds_sum", outcome="exhausted") == 1


def test_servers_in_one_process_count_apart(telemetry) -> None:
    other = Telemetry([METHOD])
    telemetry.call_finished(METHOD, "OK", 0.5)

    assert value(other, "calls_total", method=METHOD, code="OK") is None


def test_threads_lose_no_count(telemetry) -> None:
    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(lambda: [telemetry.call_finished(METHOD, "OK", 0.5) for _ in range(250)])

    assert value(telemetry, "calls_total", method=METHOD, code="OK") == 2000


def everything_made_up(telemetry: Telemetry, text: str) -> None:
    """Have a caller's text in every place that takes a string, as no correct server would."""
    telemetry.call_finished(f"/{text}/Method", text, 0.5)
    telemetry.batch_finished(text, text, 1, 2, 0.5)
    telemetry.waited(text, 0.5)
    telemetry.refused(text)
    telemetry.dropped(text, text)
    telemetry.charge_finished(text, 0.5)
    metadata = {"authorization": text, "tracestate": f"a={text}", "baggage": f"b={text}"}
    with telemetry.span(f"/{text}/Method", metadata | {"traceparent": TRACEPARENT}, model=text):
        telemetry.call_finished(METHOD, text, 0.5)
    with telemetry.span("call", metadata | {"traceparent": text}, method=text, principal=text):
        pass
    with pytest.raises(InputError), telemetry.span("batch"):
        raise InputError(text)


def test_no_text_of_a_caller_is_written_and_none_adds_a_series(telemetry, exporter) -> None:
    telemetry.model_loaded("mail", "1", 2.0, 4096)
    everything_made_up(telemetry, "first")
    before = series(telemetry)

    for number in range(100):
        everything_made_up(telemetry, f"{MARK}{number}")

    assert series(telemetry) == before
    assert MARK not in generate_latest(telemetry.registry).decode()
    assert len(exporter.get_finished_spans()) == 303
    assert MARK not in spans(exporter)
    assert value(telemetry, "calls_total", method="other", code="other") == 101


# A whole server


def test_a_server_tells_nothing_of_its_callers(
    private_run, tmp_path, serving_block, exporter, caplog
) -> None:
    caplog.set_level(logging.DEBUG)
    token, digest = new_token()
    principals = tmp_path / "principals.toml"
    principals.write_text(
        f"""
        [[principal]]
        name = "{MARK}"
        roles = ["predict", "explain", "models"]
        tokens = [{{ sha256 = "{digest}" }}]
        """
    )
    (tmp_path / "models").mkdir()
    shutil.copytree(private_run, tmp_path / "models" / "mail")
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry = Telemetry(METHODS, provider)

    with Repository(tmp_path / "models", "float32", None, telemetry) as repository:
        access = Access.from_file(principals)
        core = Core(repository, access, Policies, Limits(), Batching(), telemetry)
        with serving_block(core) as channel:
            call_in_every_way(channel, token)
        metrics = generate_latest(telemetry.registry).decode()

    told = metrics + spans(exporter) + "".join(map(JsonLines().format, caplog.records))
    assert [each for each in (MARK, token, digest, "127.0.0.1") if each in told] == []
    found = {
        sample.labels["method"].rpartition("/")[2]: sample.value
        for family in telemetry.registry.collect()
        for sample in family.samples
        if sample.name == "attnpriv_server_call_seconds_count"
    }
    expected = {"Predict": 5, "Explain": 2, "PredictStream": 1, "ModelInfer": 1, "Check": 1}
    assert found == {**expected, "other": 2}
    assert value(telemetry, "batch_seconds_count", lane="explain", model="mail") == 1
    assert value(telemetry, "models_loaded") == 1
    assert len(exporter.get_finished_spans()) == 10


def call_in_every_way(channel: grpc.Channel, token: str) -> None:
    """Calls that bring a mark along wherever a caller can put one, some of them answered."""
    metadata = [
        ("authorization", f"Bearer {token}"),
        ("traceparent", TRACEPARENT),
        ("tracestate", f"a={MARK}"),
        ("baggage", f"b={MARK}"),
        ("x-anything", MARK),
    ]
    service, text = "/attnpriv.v1.AttnprivService", f"Where is the {MARK}?"

    def ask(method: str, request: Message | bytes, metadata=tuple(metadata)) -> bytes:
        raw = request if isinstance(request, bytes) else request.SerializeToString()
        return channel.unary_unary(method)(raw, metadata=metadata, timeout=60)

    asked = pb.PredictRequest(model="mail", texts=[text])
    assert ask(f"{service}/Predict", asked)
    assert ask(f"{service}/Explain", pb.ExplainRequest(model="mail", text=text))
    stream = channel.stream_stream(f"{service}/PredictStream")
    streamed = pb.PredictStreamRequest(number=1, request=asked).SerializeToString()
    assert list(stream(iter([streamed]), metadata=metadata, timeout=60))
    for method, request in [
        (f"{service}/Predict", pb.PredictRequest(model=MARK, texts=[text])),
        (f"{service}/Predict", pb.PredictRequest(model="mail", version=MARK, texts=[text])),
        (f"{service}/Predict", b"\xff" + MARK.encode()),
        (f"{service}/Explain", pb.ExplainRequest(model="mail", text="a", target_label=MARK)),
        (f"{service}/{MARK}", asked),
        (f"/{MARK}/{MARK}", asked),
        ("/inference.GRPCInferenceService/ModelInfer", ModelInferRequest(model_name=MARK)),
        ("/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest(service=MARK)),
    ]:
        with pytest.raises(grpc.RpcError):
            ask(method, request)
    with pytest.raises(grpc.RpcError):
        ask(f"{service}/Predict", asked, [("authorization", f"Bearer {MARK}")])


# Traces


def test_spans_nest_under_the_callers(telemetry, exporter) -> None:
    with telemetry.span(METHOD, {"traceparent": TRACEPARENT, "tracestate": "a=b"}):
        with telemetry.span("batch", rows=3, lane="predict"):
            pass
        telemetry.call_finished(METHOD, "INTERNAL", 0.5)

    batch, call = exporter.get_finished_spans()
    assert f"{call.context.trace_id:032x}" == TRACE
    assert f"{call.parent.span_id:016x}" == PARENT
    assert call.name == METHOD
    assert call.kind is trace.SpanKind.SERVER
    assert call.attributes == {"rpc.response.status_code": "INTERNAL"}
    assert call.status.status_code is trace.StatusCode.ERROR
    assert not call.context.trace_state
    assert batch.parent.span_id == call.context.span_id
    assert batch.attributes == {"rows": 3, "lane": "predict"}


@pytest.mark.parametrize("metadata", [{}, {"traceparent": "00-nonsense"}, {"traceparent": "é" * 9}])
def test_a_call_without_a_usable_parent_begins_a_trace(telemetry, exporter, metadata) -> None:
    with telemetry.span("around"), telemetry.span(METHOD, metadata):
        pass

    assert exporter.get_finished_spans()[0].parent is None


def test_an_exception_leaves_its_type_alone_in_the_span(telemetry, exporter) -> None:
    with pytest.raises(InputError), telemetry.span("load", model="mail"):
        raise InputError(MARK)

    (span,) = exporter.get_finished_spans()
    assert span.attributes["error.type"] == "InputError"
    assert not span.events
    assert span.status.description is None


def test_without_a_collector_nothing_is_recorded(monkeypatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    telemetry = Telemetry([METHOD])

    with telemetry.span(METHOD, {"traceparent": TRACEPARENT}):
        assert not trace.get_current_span().is_recording()
        telemetry.call_finished(METHOD, "INTERNAL", 0.5)
    telemetry.close()


def test_a_collector_alone_has_no_spans_sent_where_the_environment_wants_none(monkeypatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    telemetry = Telemetry([METHOD])

    with telemetry.span(METHOD, {"traceparent": TRACEPARENT}):
        assert not trace.get_current_span().is_recording()
    telemetry.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [("OTEL_BSP_MAX_QUEUE_SIZE", "0"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")],
)
def test_a_variable_that_cannot_be_used_is_bad_input(monkeypatch, name, value) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv(name, value)

    with pytest.raises(InputError, match="cannot use the OTEL_ environment variables: "):
        Telemetry([METHOD])


class Collector(TraceServiceServicer):
    def __init__(self) -> None:
        self.requests = Queue()

    def Export(self, request, context):  # noqa: N802
        self.requests.put(request)
        return ExportTraceServiceResponse()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, {"service.name": "attnpriv-server"}),
        ({"OTEL_SERVICE_NAME": ""}, {"service.name": "attnpriv-server"}),
        (
            {"OTEL_RESOURCE_ATTRIBUTES": "service.name=mail%20desk,service.namespace=shop"},
            {"service.name": "mail desk", "service.namespace": "shop"},
        ),
        (
            {"OTEL_RESOURCE_ATTRIBUTES": "service.name=no,a=b", "OTEL_SERVICE_NAME": "yes"},
            {"service.name": "yes", "a": "b"},
        ),
    ],
)
def test_spans_are_exported_to_the_collector_of_the_environment(
    monkeypatch, environment, expected
) -> None:
    collector, server = Collector(), grpc.server(ThreadPoolExecutor(1))
    add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    for name, each in environment.items():
        monkeypatch.setenv(name, each)

    telemetry = Telemetry([METHOD])
    with telemetry.span(METHOD, {"traceparent": TRACEPARENT}):
        pass
    telemetry.close()
    found = collector.requests.get(timeout=30).resource_spans[0]
    server.stop(None).wait()

    names = {each.key: each.value.string_value for each in found.resource.attributes}
    assert names.items() >= expected.items()
    assert found.scope_spans[0].spans[0].name == METHOD


# Logs

LOGS = f"""
import gc, logging, threading, warnings
from attnpriv_server.telemetry import configure_logging, log_defect

def fail():
    raise ValueError({MARK!r})

class Failing:
    def __del__(self):
        fail()

configure_logging()
logging.getLogger("attnpriv_server.wire").info("{MARK}", extra={{"fields": {{"code": "OK"}}}})
logging.getLogger("attnpriv_server.wire").info("{MARK}", extra={{"fields": {{"bad": object()}}}})
logging.getLogger("library").error("%s", {MARK!r}, extra={{"fields": {{"text": {MARK!r}}}}})
try:
    fail()
except ValueError as error:
    log_defect(error)
    logging.getLogger("library").exception({MARK!r})
warnings.warn({MARK!r})
thread = threading.Thread(target=fail)
thread.start()
thread.join()
Failing()
gc.collect()
"""


def test_every_line_on_stderr_is_json_without_messages() -> None:
    done = subprocess.run([sys.executable, "-c", LOGS], capture_output=True, text=True, timeout=120)

    assert MARK not in done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    found = [(line["logger"], line.get("code") or line.get("error")) for line in lines]
    assert found == [
        ("attnpriv_server.wire", "OK"),
        ("library", None),
        ("attnpriv_server.telemetry", "ValueError"),
        ("library", "ValueError"),
        ("py.warnings", None),
        ("attnpriv_server.telemetry", "ValueError"),
        ("attnpriv_server.telemetry", "ValueError"),
    ]
    assert lines[2]["at"] == "<string>:6"


def test_a_defect_is_logged_by_place(caplog) -> None:
    log_defect(ValueError(MARK))

    assert caplog.records[0].fields == {"error": "ValueError", "at": "unknown"}
