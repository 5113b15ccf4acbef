"""A refusal as the google.rpc error model carries it."""

from __future__ import annotations

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status as StatusMessage

from attnpriv_server.domain import Status

# Where gRPC clients look for details (grpcio-status reads the same).
DETAILS_KEY = "grpc-status-details-bin"


def to_message(status: Status) -> StatusMessage:
    """The status with its details: fields at fault, and when to try again."""
    details: list[Message] = []
    if status.violations:
        fields = [
            BadRequest.FieldViolation(field=each.field, description=each.description)
            for each in status.violations
        ]
        details.append(BadRequest(field_violations=fields))
    if status.retry_after is not None:
        retry = RetryInfo()
        retry.retry_delay.FromMicroseconds(round(status.retry_after * 1e6))
        details.append(retry)
    return StatusMessage(
        code=to_code(status).value[0], message=status.message, details=map(_packed, details)
    )


def to_code(status: Status) -> grpc.StatusCode:
    """GRPC's own code."""
    return grpc.StatusCode[status.code.name]


def to_metadata(status: Status) -> tuple[tuple[str, bytes], ...]:
    """The trailing metadata that carry the details; empty where there are none."""
    if not status.violations and status.retry_after is None:
        return ()
    return ((DETAILS_KEY, to_message(status).SerializeToString()),)


def _packed(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed
