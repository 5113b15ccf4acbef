"""The errors of a call.

::

    AttnprivError
    ├── InputError                    a value that cannot be sent, or a file that cannot be used
    └── ServiceError                  the call failed for a reason that has no class of its own
        ├── InvalidRequestError       the request cannot be answered; `violations` name the fields
        ├── UnauthenticatedError      no valid token or client certificate
        ├── PermissionDeniedError     the caller lacks the role, or the policy withholds the answer
        ├── NotFoundError             no such model or version
        ├── OverloadedError           too much is waiting; `retry_after` says when to try again
        ├── DeadlineExceededError     no answer within the timeout
        ├── UnavailableError          no server, a broken connection, or a server that is not ready
        └── InternalError             a defect of the server, or an answer that makes no sense

UnavailableError and OverloadedError can pass. They are raised only after the client has tried again
as often as its timeout and its number of attempts allow.
"""

from __future__ import annotations

from dataclasses import dataclass

from attnpriv.errors import AttnprivError


@dataclass(frozen=True)
class Violation:
    """A field of the request that the server cannot use.

    Attributes:
        field: path of the field in the request, such as ``texts[3]``.
        description: what was expected and what was found.
    """

    field: str
    description: str


class ServiceError(AttnprivError):
    """A call failed.

    Attributes:
        code: the name of the gRPC status, such as ``NOT_FOUND`` or ``UNAVAILABLE``.
        message: the server's sentence, or gRPC's own where no server was reached.
        violations: the fields at fault, where the server names them.
        retry_after: seconds after which the same call may succeed, where the server says so.
    """

    def __init__(
        self,
        code: str,
        message: str,
        violations: tuple[Violation, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.violations = violations
        self.retry_after = retry_after


class InvalidRequestError(ServiceError):
    """INVALID_ARGUMENT: the request cannot be answered, and trying again will not help."""


class UnauthenticatedError(ServiceError):
    """UNAUTHENTICATED: the server wants a token or a client certificate that it knows."""


class PermissionDeniedError(ServiceError):
    """PERMISSION_DENIED: the caller may not ask this, or the policy withholds the answer."""


class NotFoundError(ServiceError):
    """NOT_FOUND: the server has no such model or version."""


class OverloadedError(ServiceError):
    """RESOURCE_EXHAUSTED with a time to try again; without one, a message was too large."""


class DeadlineExceededError(ServiceError):
    """DEADLINE_EXCEEDED: there was no answer within the timeout."""


class UnavailableError(ServiceError):
    """UNAVAILABLE: no server was reached, the connection broke, or the server is not ready."""


class InternalError(ServiceError):
    """INTERNAL: the server has a defect, or its answer is not one to this request."""
