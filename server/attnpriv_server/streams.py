"""Calls that stay open: they end once their caller may not ask any more, or with the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

from attnpriv_server.domain import Code, Credentials, RefusedError, Role
from attnpriv_server.telemetry import log_defect

# How often the callers of open streams are checked. The principals file is read again at most
# ``access.CHECK_SECONDS`` after a change; both together keep the promise of one second.
CHECK_SECONDS = 0.25

Owner = tuple[Credentials, Role | None]


@dataclass(eq=False)
class Stream:
    """One open call.

    Attributes:
        ending: cancels whatever its handler waits for.
        reading: cancels the wait for its next request, while there is one.
        refusal: why the handler was cancelled.
        cut_off: the server stopped to read its requests before they ended.
    """

    ending: asyncio.Timeout
    reading: asyncio.Timeout | None = None
    refusal: RefusedError | None = None
    cut_off: bool = False


class Streams:
    """The open streams of one event loop; while there are any, their callers are checked.

    Args:
        admit: raises RefusedError where a caller may not use a method that asks for a role.
    """

    def __init__(self, admit: Callable[[Credentials, Role | None], None]) -> None:
        self._admit = admit
        self._open: dict[Owner, set[Stream]] = {}
        self._watch: asyncio.Task[None] | None = None  # while a stream is open
        self._stopping = False

    @asynccontextmanager
    async def opened(self, credentials: Credentials, role: Role | None) -> AsyncIterator[Stream]:
        """Keep a stream open while the block runs.

        Raises:
            RefusedError: the caller is not admitted any more, or the server is stopping.
        """
        # Connections do not matter: whoever opens thousands of streams is checked once.
        owner = replace(credentials, connection=""), role
        try:
            async with asyncio.timeout(None) as ending:
                stream = Stream(ending)
                with self._registered(owner, stream):
                    yield stream
        except TimeoutError:
            if stream.refusal is None:
                raise
            raise stream.refusal from None
        if stream.cut_off:
            raise RefusedError(Code.UNAVAILABLE, "the server is stopping")

    async def requests(self, raw: AsyncIterator[bytes], stream: Stream) -> AsyncIterator[bytes]:
        """The requests of a stream, until its client ends them or the server stops."""
        received = aiter(raw)
        while not self._stopping:
            try:
                async with asyncio.timeout(None) as stream.reading:
                    request = await anext(received, None)
            except TimeoutError:
                break
            finally:
                stream.reading = None
            if request is None:
                return
            yield request
        stream.cut_off = True

    def stop(self) -> None:
        """Read no more requests; each stream ends once those that were read are answered."""
        self._stopping = True
        for streams in self._open.values():
            for stream in streams:
                if stream.reading is not None:
                    stream.reading.reschedule(0)

    async def _check_all(self) -> None:
        """End the streams of callers that are not admitted any more; runs until it is cancelled."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            for owner in tuple(self._open):
                self._check(owner)

    def _check(self, owner: Owner) -> None:
        try:
            self._admit(*owner)
        except RefusedError as refusal:
            for stream in self._open[owner]:
                _end(stream, refusal)
        except Exception as error:  # or nobody would be checked any more
            log_defect(error)

    @contextmanager
    def _registered(self, owner: Owner, stream: Stream) -> Iterator[None]:
        self._open.setdefault(owner, set()).add(stream)
        if self._watch is None:
            self._watch = asyncio.create_task(self._check_all())
        try:
            yield
        finally:
            self._open[owner].remove(stream)
            if not self._open[owner]:
                del self._open[owner]
            if not self._open:
                self._watch.cancel()
                self._watch = None


def _end(stream: Stream, refusal: RefusedError) -> None:
    if stream.refusal is None:
        stream.refusal = refusal
        stream.ending.reschedule(0)
