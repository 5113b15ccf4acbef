"""The standard health service: whether the server, each service and each model answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import NoReturn

from grpc_health.v1 import health_pb2, health_pb2_grpc

from attnpriv_server.calls import Call
from attnpriv_server.domain import Code, RefusedError


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # it is not typed
    """Tells callers and watchers which names are served; use it in one event loop.

    The servicer that comes with gRPC holds a lock while it writes to a watcher: one that reads
    nothing keeps it for good, and with it every later change and the end of the server. Its
    watchers also outlast the end of service, and make a stopping server wait for them.
    """

    def __init__(self) -> None:
        self._names: dict[str, bool] = {}
        self._changed = asyncio.Event()
        self._stopping = False

    def tell(self, names: Mapping[str, bool]) -> None:
        """Say which names are served; of those told before, the others are not any more."""
        if not self._stopping:
            self._set(dict.fromkeys(self._names, False) | dict(names))

    def stop(self) -> None:
        """Say that nothing is served any more, and let the watchers go once they know."""
        self._stopping = True
        self._set(dict.fromkeys(self._names, False))

    async def Check(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, call: Call
    ) -> health_pb2.HealthCheckResponse:
        """Whether a name is served now."""
        if request.service not in self._names:
            raise RefusedError(Code.NOT_FOUND, "unknown service")
        return self._answer(request.service)

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, call: Call
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Whether a name is served now, and whenever that changes."""
        told = None
        while True:
            changed, stopping, answer = self._changed, self._stopping, self._answer(request.service)
            if answer != told:
                yield answer
                told = answer
            if stopping:
                return
            await changed.wait()

    async def List(self, request: health_pb2.HealthListRequest, call: Call) -> NoReturn:  # noqa: N802
        """Refused: it would name the models to callers that may not list them."""
        raise RefusedError(Code.UNIMPLEMENTED, "ListModels names the models")

    def _answer(self, name: str) -> health_pb2.HealthCheckResponse:
        status = {
            True: health_pb2.HealthCheckResponse.SERVING,
            False: health_pb2.HealthCheckResponse.NOT_SERVING,
            None: health_pb2.HealthCheckResponse.SERVICE_UNKNOWN,
        }
        return health_pb2.HealthCheckResponse(status=status[self._names.get(name)])

    def _set(self, names: dict[str, bool]) -> None:
        if names != self._names or self._stopping:
            self._names = names
            self._changed.set()
            self._changed = asyncio.Event()
