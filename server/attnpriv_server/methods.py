"""Every method that the server has, by its path; it imports no more than their descriptions."""

from __future__ import annotations

from typing import Any

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from attnpriv.inference import open_inference_pb2
from attnpriv.v1 import attnpriv_pb2

SERVICE = attnpriv_pb2.DESCRIPTOR.services_by_name["AttnprivService"]
OPEN_INFERENCE = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]
REFLECTION = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]


def methods_of(service: Any) -> dict[str, Any]:
    """The descriptors of a service's methods, by path."""
    return {f"/{service.full_name}/{method.name}": method for method in service.methods}


METHODS = tuple(
    path
    for service in (SERVICE, OPEN_INFERENCE, HEALTH, REFLECTION)
    for path in methods_of(service)
)
