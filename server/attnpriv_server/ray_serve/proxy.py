"""The methods that a proxy of Ray Serve takes and hands to replicas; cheap to import.

A proxy is to pass requests on as the bytes that they are: parsing, and whatever comes before it, is
for the replica's core.
"""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from attnpriv.inference import open_inference_pb2
from attnpriv.v1 import attnpriv_pb2

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]
# Of the health service only what one replica can answer for all.
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for service in (
        attnpriv_pb2.DESCRIPTOR.services_by_name["AttnprivService"],
        open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
        HEALTH,
    )
    for method in service.methods
    if service is not HEALTH or method.name == "Check"
}


def add_services(_: object, server: Any) -> None:
    """Add all methods to a proxy's gRPC server; named in ``grpc_servicer_functions``."""
    for service in dict.fromkeys(method.containing_service for method in METHODS.values()):
        handlers = {
            method.name: _handler(method)
            for method in METHODS.values()
            if method.containing_service is service
        }
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service.full_name, handlers),)
        )


def _handler(method: Any) -> Any:
    """Says how a method streams; Ray puts itself in the place of the behaviour."""
    if not method.client_streaming:
        return grpc.unary_unary_rpc_method_handler(_never)
    if not method.server_streaming:
        return grpc.stream_unary_rpc_method_handler(_never)
    return grpc.stream_stream_rpc_method_handler(_never)


def _never(*_: object) -> Any:
    raise AssertionError("Ray Serve calls a replica")
