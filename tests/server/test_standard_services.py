"""Health, reflection and the log of calls, over real sockets."""

from __future__ import annotations

from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from attnpriv.v1 import attnpriv_pb2 as pb
from tests.server.asking import error_of, explain, health_check


def test_health(channel) -> None:
    assert health_check(channel) == health_pb2.HealthCheckResponse.SERVING
    service = "attnpriv.v1.AttnprivService"
    assert health_check(channel, service) == health_pb2.HealthCheckResponse.SERVING
    assert error_of(lambda: health_check(channel, "nobody"))[0] == "NOT_FOUND"


def test_health_can_be_watched(channel) -> None:
    request = health_pb2.HealthCheckRequest(service="attnpriv.v1.AttnprivService")
    watch = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=10)

    assert next(iter(watch)).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


def test_reflection_lists_the_services(channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")

    responses = list(stub.ServerReflectionInfo(iter([request]), timeout=10))

    assert {service.name for service in responses[0].list_services_response.service} == {
        "attnpriv.v1.AttnprivService",
        "grpc.health.v1.Health",
        "inference.GRPCInferenceService",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def test_log_lines_hold_method_code_and_time_alone(stub, caplog) -> None:
    caplog.set_level("INFO", "attnpriv_server")
    error_of(lambda: stub.GetModel(pb.GetModelRequest(name="unheard-of")))
    explain(stub)

    calls = [record.fields for record in caplog.records if record.msg == "call"]

    assert [(c["method"].rsplit("/")[-1], c["code"]) for c in calls] == [
        ("GetModel", "NOT_FOUND"),
        ("Explain", "OK"),
    ]
    assert all(set(c) == {"method", "code", "seconds"} for c in calls)
