"""Many callers of an event loop, one transaction: what arrives during a commit waits for the next.

A commit waits for the disk, so a hundred charges in one cost little more than one in one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST = 256  # items of a batch


class Batches(Generic[Item, Result]):
    """Calls ``settle`` with everything that waits, one batch at a time, outside the event loop.

    Use it from one event loop.

    Args:
        settle: computes the result of each item of a batch; what it raises ends them all.
        executor: runs it.
    """

    def __init__(
        self, settle: Callable[[Sequence[Item]], Sequence[Result]], executor: Executor
    ) -> None:
        self._settle = settle
        self._executor = executor
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._busy = False

    async def settle(self, item: Item) -> Result:
        """The item's result.

        Whoever is cancelled while the item waits takes it along; once its batch has begun, it is
        settled all the same.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if not self._busy:
            self._begin_soon()
        return await future

    def _begin_soon(self) -> None:
        # After those that the last batch woke: begun at once, the next would hold the first of them
        # alone, and all others would wait for two commits.
        self._busy = True
        asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        while self._waiting and len(batch) < MOST:
            item, future = self._waiting.popleft()
            if not future.done():
                batch.append((item, future))
        self._busy = bool(batch)
        if batch:
            items, futures = zip(*batch, strict=True)
            loop = asyncio.get_running_loop()
            done = loop.run_in_executor(self._executor, self._settle, items)
            done.add_done_callback(lambda done: self._finish(futures, done))

    def _finish(
        self,
        futures: Sequence[asyncio.Future[Result]],
        done: asyncio.Future[Sequence[Result]],
    ) -> None:
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        for number, future in enumerate(futures):
            if future.done():
                continue  # its caller has gone
            if error is None:
                future.set_result(done.result()[number])
            else:
                future.set_exception(error)
        self._begin_soon()
