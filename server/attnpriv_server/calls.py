"""One call, from its admission to its last metric; free of any transport.

A transport opens a call before it has read anything of a request. Inside, it reads, and has each
request answered by the ``Call`` that it was given: there is no other way to an answer, so no
transport can leave out admission, validation, policy or telemetry.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from attnpriv_server.access import Access
from attnpriv_server.domain import (
    Code,
    Credentials,
    Deadline,
    RefusedError,
    Request,
    Response,
    Role,
    Status,
)
from attnpriv_server.streams import Stream, Streams
from attnpriv_server.telemetry import Telemetry, log_defect

logger = logging.getLogger(__name__)

# A request of a stream that found the server full is tried again no sooner than this.
SHORTEST_WAIT = 0.05

Answer = Callable[[Request, Credentials, Deadline], Awaitable[Response]]


@dataclass(frozen=True)
class Incoming:
    """What a transport knows of a call before it has read a request.

    Attributes:
        method: its name in metrics, such as ``/package.Service/Method``.
        role: what the caller must be allowed to do; None lets every known caller in.
        credentials: returns what the caller shows of itself, or raises RefusedError where that
            cannot be read. Called once the call is being counted.
        deadline: when the answer is of no use any more.
        trace: the caller's W3C trace context, by header.
    """

    method: str
    role: Role | None
    credentials: Callable[[], Credentials]
    deadline: Deadline = field(default_factory=Deadline)
    trace: Mapping[str, str] = field(default_factory=dict)


class Call:
    """An admitted call: what answers its requests, until the call is over.

    Args:
        answer: computes the answer, or raises.
        credentials: of the caller, who is authenticated again for every answer.
        deadline: of the whole call.
    """

    def __init__(self, answer: Answer, credentials: Credentials, deadline: Deadline) -> None:
        self._answer = answer
        self._credentials = credentials
        self._deadline = deadline

    async def answer(self, request: Request) -> Response:
        """Answer one request.

        Raises:
            RefusedError: why there is no answer. A defect is logged and becomes INTERNAL.
        """
        try:
            return await self._answer(request, self._credentials, self._deadline)
        except RefusedError:
            raise
        except Exception as error:
            raise _internal(error) from None


class StreamCall(Call):
    """A call that stays open and whose requests come one by one.

    Args:
        streams: those that are open, among them this one.
        stream: this one.
        answer: as for ``Call``, like the others.
        credentials: of the caller.
        deadline: of the whole call.
    """

    def __init__(
        self,
        streams: Streams,
        stream: Stream,
        answer: Answer,
        credentials: Credentials,
        deadline: Deadline,
    ) -> None:
        super().__init__(answer, credentials, deadline)
        self._streams = streams
        self._stream = stream

    def requests(self, raw: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The requests, until the client ends them or the server stops."""
        return self._streams.requests(raw, self._stream)

    async def answer_when_free(self, request: Request) -> Response | Status:
        """Answer one request, or say why not; wait while the server is full.

        A refusal that names no time to wait is the answer, whatever its code: trying again at once
        would keep the event loop busy and change nothing.
        """
        while True:
            try:
                return await self.answer(request)
            except RefusedError as refusal:
                status = refusal.status
            if status.code is not Code.RESOURCE_EXHAUSTED or status.retry_after is None:
                return status
            await asyncio.sleep(max(status.retry_after, SHORTEST_WAIT))


class Calls:
    """The calls of one event loop.

    Args:
        access: says who a caller is.
        telemetry: told of every call.
        answer: computes answers.
    """

    def __init__(self, access: Access, telemetry: Telemetry, answer: Answer) -> None:
        self._access = access
        self._telemetry = telemetry
        self._answer = answer
        self.streams = Streams(self._admit)

    @asynccontextmanager
    async def call(self, incoming: Incoming) -> AsyncIterator[Call]:
        """Let a caller in for one call; see ``Core.call``."""
        async with self._counted(incoming) as credentials:
            yield Call(self._answer, credentials, incoming.deadline)

    @asynccontextmanager
    async def stream(self, incoming: Incoming) -> AsyncIterator[StreamCall]:
        """Let a caller in for a call that stays open; see ``Core.stream``."""
        async with (
            self._counted(incoming) as credentials,
            self.streams.opened(credentials, incoming.role) as stream,
        ):
            yield StreamCall(self.streams, stream, self._answer, credentials, incoming.deadline)

    @asynccontextmanager
    async def _counted(self, incoming: Incoming) -> AsyncIterator[Credentials]:
        """Admit the caller, and tell of the call however it ends."""
        with self._telemetry.span(incoming.method, incoming.trace):
            started, code = time.monotonic(), "CANCELLED"
            try:
                credentials = incoming.credentials()
                self._admit(credentials, incoming.role)
                yield credentials
                # A transport may end a late call without a word.
                late = incoming.deadline.remaining() == 0
                code = "DEADLINE_EXCEEDED" if late else "OK"
            except RefusedError as refusal:
                code = refusal.status.code.value
                raise
            except Exception as error:
                code = "INTERNAL"
                raise _internal(error) from None
            finally:
                incoming.deadline.cancel()  # nobody waits for an answer any more
                self._tell(incoming.method, code, time.monotonic() - started)

    def _admit(self, credentials: Credentials, role: Role | None) -> None:
        self._access.authenticate(credentials).check(role)

    def _tell(self, method: str, code: str, seconds: float) -> None:
        """Count and log a call by method, status and time, and by nothing else."""
        self._telemetry.call_finished(method, code, seconds)
        fields = {"method": method, "code": code, "seconds": round(seconds, 4)}
        logger.info("call", extra={"fields": fields})


def _internal(error: Exception) -> RefusedError:
    """What a caller is told of a defect, once it was logged."""
    log_defect(error)
    return RefusedError(Code.INTERNAL, "internal error")
