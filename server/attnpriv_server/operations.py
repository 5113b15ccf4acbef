"""The HTTP endpoint for operators: metrics and probes, apart from the port that callers use."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from attnpriv.errors import InputError
from attnpriv_server.address import Address
from attnpriv_server.telemetry import Telemetry, log_defect

REQUEST_LINE = re.compile(rb"([A-Z]+) (/[!-~]*) HTTP/1\.[01]\r\n")
HEAD_BYTES = 8192
CONNECTIONS = 16
SECONDS = 5.0  # for a whole exchange, however slowly the other side sends or reads


class Operations:
    """Answers ``GET`` and ``HEAD`` of ``/metrics``, ``/livez`` and ``/readyz``.

    It runs in the event loop that serves the calls, so ``/livez`` answers only while that loop
    turns. Whoever reaches the port may read: it is meant for loopback or a network of operators.
    One request a connection, whose body is not read. A slow client holds no thread, loses its
    connection after some seconds, and before that once newer ones need the place, so it cannot keep
    a probe out. Not covered: floods of new connections.

    Args:
        telemetry: its metrics are shown.
        ready: whether calls are answered: the models are there, and the server is not stopping.
            Asked in the event loop, so it must not block.
    """

    def __init__(self, telemetry: Telemetry, ready: Callable[[], bool]) -> None:
        self._telemetry = telemetry
        self._ready = ready
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}  # in order of arrival
        self._server: asyncio.Server | None = None

    async def start(self, listen: Address) -> int:
        """Begin to answer there, and return the port: a free one for port 0.

        Raises:
            InputError: the address cannot be bound, for instance because it is in use.
        """
        try:
            self._server = await asyncio.start_server(
                self._accept, listen.host, listen.port, limit=HEAD_BYTES
            )
        except OSError:
            raise InputError(
                f"cannot listen on {listen}: in use, or not an address of this machine"
            ) from None
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Close the port and all connections."""
        if self._server is not None:
            self._server.close()
        for writer in self._open:
            writer.transport.abort()
        await asyncio.gather(*self._open.values())

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection; where there are too many, the oldest has to go."""
        if len(self._open) >= CONNECTIONS:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.transport.abort()
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._open[writer] = task
        task.add_done_callback(lambda _: self._open.pop(writer, None))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(SECONDS):
                writer.write(await self._exchange(reader))
                writer.close()
                await writer.wait_closed()
        except (OSError, EOFError):
            pass  # it went away or was too slow: not worth a log line, least of all with an address
        finally:
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        line = REQUEST_LINE.match(head)
        if line is None:
            return _response(HTTPStatus.BAD_REQUEST)
        method, target = (part.decode() for part in line.groups())
        if method not in ("GET", "HEAD"):
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, headers=("Allow: GET, HEAD",))
        return self._answer(target.partition("?")[0], with_body=method == "GET")

    def _answer(self, path: str, with_body: bool) -> bytes:
        try:
            match path:
                case "/metrics":
                    metrics = generate_latest(self._telemetry.registry)
                    return _response(HTTPStatus.OK, metrics, CONTENT_TYPE_LATEST, with_body)
                case "/livez":
                    status = HTTPStatus.OK
                case "/readyz":
                    ready = self._ready()
                    status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
                case _:
                    status = HTTPStatus.NOT_FOUND
        except Exception as error:
            log_defect(error)
            status = HTTPStatus.INTERNAL_SERVER_ERROR
        return _response(status, with_body=with_body)


def _response(
    status: HTTPStatus,
    body: bytes | None = None,
    content_type: str = "text/plain; charset=utf-8",
    with_body: bool = True,
    headers: tuple[str, ...] = (),
) -> bytes:
    """A whole answer; its body is the status in words where there is none."""
    body = f"{status.phrase}\n".encode() if body is None else body
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Date: {formatdate(usegmt=True)}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "Connection: close",
        *headers,
    )
    return "\r\n".join(head).encode() + b"\r\n\r\n" + (body if with_body else b"")
