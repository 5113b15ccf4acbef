"""From a gRPC status, with the details of the google.rpc error model, to an error of the client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from attnpriv_client.errors import (
    DeadlineExceededError,
    InternalError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ServiceError,
    UnauthenticatedError,
    UnavailableError,
    Violation,
)

_CLASSES: Mapping[str, type[ServiceError]] = {
    "INVALID_ARGUMENT": InvalidRequestError,
    "UNAUTHENTICATED": UnauthenticatedError,
    "PERMISSION_DENIED": PermissionDeniedError,
    "NOT_FOUND": NotFoundError,
    "DEADLINE_EXCEEDED": DeadlineExceededError,
    "UNAVAILABLE": UnavailableError,
    "INTERNAL": InternalError,
}


def from_call(error: grpc.RpcError) -> ServiceError:
    """The error for a call that failed; details that cannot be read are ignored."""
    call: Any = error  # an RpcError is also the call that failed, though its type does not say so
    try:
        status = rpc_status.from_call(call)
    except (DecodeError, ValueError):  # not a Status, or one that contradicts the call's own
        status = None
    return _error(error.code().name, error.details(), status or Status())


def from_status(status: Status) -> ServiceError:
    """The error for one request of a stream."""
    known = status.code in Code.values()
    return _error(Code.Name(status.code) if known else "UNKNOWN", status.message, status)


def _error(code: str, message: str | None, status: Status) -> ServiceError:
    retry_after = _retry_after(status)
    kind = _CLASSES.get(code, ServiceError)
    if code == "RESOURCE_EXHAUSTED" and retry_after is not None:
        kind = OverloadedError
    return kind(code, message or "no details", _violations(status), retry_after)


def _violations(status: Status) -> tuple[Violation, ...]:
    request = BadRequest()
    _find(status, request)
    return tuple(Violation(each.field, each.description) for each in request.field_violations)


def _retry_after(status: Status) -> float | None:
    retry = RetryInfo()
    if not _find(status, retry):
        return None
    delay = retry.retry_delay
    seconds: float = delay.seconds + delay.nanos / 1e9
    return max(0.0, seconds)


def _find(status: Status, wanted: Message) -> bool:
    """Fill a message from the first detail of its type that can be read."""
    return any(_unpack(packed, wanted) for packed in status.details)


def _unpack(packed: AnyMessage, wanted: Message) -> bool:
    try:
        return packed.Unpack(wanted)
    except DecodeError:
        return False
