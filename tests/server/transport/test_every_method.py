"""What stands before every method of every service."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from attnpriv_server.access import new_token
from attnpriv_server.domain import Role
from tests.server.transport.callers import EVERY_ROLE, SECONDS, bearer, code_of, plain, table
from tests.server.transport.frames import PREFACE, SETTINGS, headers


def ask_reflection(channel: grpc.Channel, token: str, **question: str):
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    requests = iter([reflection_pb2.ServerReflectionRequest(**question)])
    return next(stub.ServerReflectionInfo(requests, timeout=SECONDS, metadata=bearer(token)))


def every_method(channel: grpc.Channel, token: str) -> Iterator[tuple[str, bool]]:
    """The path of each method of each service, and whether answers come as a stream."""
    listed = ask_reflection(channel, token, list_services="").list_services_response.service
    for service in listed:
        found = ask_reflection(channel, token, file_containing_symbol=service.name)
        for raw in found.file_descriptor_response.file_descriptor_proto:
            file = FileDescriptorProto.FromString(raw)
            for each in file.service:
                if f"{file.package}.{each.name}" == service.name:
                    for method in each.method:
                        yield f"/{service.name}/{method.name}", method.server_streaming


def call_raw(
    channel: grpc.Channel, path: str, streaming: bool, token: str | None, raw: bytes
) -> str:
    """How a call that sends some bytes ends; a stream is not read past its first answer."""
    metadata = None if token is None else bearer(token)
    if streaming:
        call = channel.stream_stream(path)(iter([raw]), SECONDS, metadata)
        return code_of(lambda: next(call))
    return code_of(lambda: channel.unary_unary(path)(raw, SECONDS, metadata))


@pytest.fixture
def guarded(serve, principals) -> Iterator[tuple[grpc.Channel, str, str]]:
    """A channel, a token that may do everything, and one that may do nothing."""
    mighty, idle = new_token()[0], new_token()[0]
    principals.write(table("mighty", EVERY_ROLE, mighty), table("idle", "", idle))
    with plain(serve(access=principals.access())) as channel:
        yield channel, mighty, idle


def test_no_method_of_any_service_answers_a_stranger(guarded) -> None:
    channel, mighty, _ = guarded
    methods = list(every_method(channel, mighty))
    assert {path.split("/")[1] for path, _ in methods} >= {
        "attnpriv.v1.AttnprivService",
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert len(methods) >= 14

    for path, streaming in methods:
        for token in (None, "", mighty[:-1]):
            for raw in (b"", b"\xff\xff"):
                assert call_raw(channel, path, streaming, token, raw) == "UNAUTHENTICATED", path
        assert call_raw(channel, path, streaming, mighty, b"") != "UNAUTHENTICATED", path


def test_a_stranger_is_refused_before_its_message_is_read(serve, principals) -> None:
    principals.write(table("bot", "models"))
    begun = headers("/attnpriv.v1.AttnprivService/Predict")[:-1]
    with socket.create_connection(
        ("127.0.0.1", serve(access=principals.access())), SECONDS
    ) as connection:
        connection.sendall(PREFACE + SETTINGS + begun)
        answer = b""
        while b"grpc-status" not in answer:
            part = connection.recv(65536)
            assert part
            answer += part

    assert b"this needs a valid bearer token" in answer


def test_a_principal_without_roles_learns_only_how_the_server_is(guarded) -> None:
    channel, mighty, idle = guarded

    allowed = {
        path.rpartition("/")[2]
        for path, streaming in every_method(channel, mighty)
        if call_raw(channel, path, streaming, idle, b"") == "OK"
    }

    assert allowed <= {
        "Check",
        "Watch",
        "ServerLive",
        "ServerReady",
        "ServerMetadata",
        "ModelReady",
    }


@pytest.mark.parametrize(
    ("role", "method"),
    [
        ("predict", "/attnpriv.v1.AttnprivService/Predict"),
        ("predict", "/attnpriv.v1.AttnprivService/PredictStream"),
        ("predict", "/inference.GRPCInferenceService/ModelInfer"),
        ("explain", "/attnpriv.v1.AttnprivService/Explain"),
        ("models", "/attnpriv.v1.AttnprivService/ListModels"),
        ("models", "/attnpriv.v1.AttnprivService/GetModel"),
        ("models", "/inference.GRPCInferenceService/ModelMetadata"),
        ("models", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
    ],
)
def test_each_method_asks_for_its_role_before_it_reads_the_request(
    serve, principals, role, method
) -> None:
    others = " ".join(other for other in Role if other != role)
    holder, other = new_token()[0], new_token()[0]
    principals.write(table("holder", role, holder), table("other", others, other))
    with plain(serve(access=principals.access())) as channel:
        stream = method.endswith(("Stream", "Info"))
        for raw in (b"", b"\xff\xff"):
            assert call_raw(channel, method, stream, other, raw) == "PERMISSION_DENIED"
        found = call_raw(channel, method, stream, holder, b"")
        assert found in ("OK", "INVALID_ARGUMENT", "NOT_FOUND")
