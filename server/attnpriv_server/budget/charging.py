"""How the server's core pays for an answer: charge, draw, keep, in this order."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import NoReturn

from attnpriv_server.budget.batching import Batches
from attnpriv_server.budget.database import StoreDownError, open_database
from attnpriv_server.budget.requests import Charge, Receipt
from attnpriv_server.budget.store import Reason, Store
from attnpriv_server.domain import Code, RefusedError
from attnpriv_server.telemetry import Telemetry, log_defect


class Budget:
    """The budget of a server; use it from one event loop, which it never blocks.

    Claim: no answer is returned whose charge was not durable before the answer was drawn, nothing
    is refunded, and equal requests under one id get the same bytes for one charge. Condition: what
    is released was returned by ``answer``. Not covered: see ``Store`` and ``Charge``.

    Args:
        store: where it is kept; closed with the budget.
        telemetry: told of charges, without who is charged.
        clock: seconds since 1970.
    """

    def __init__(
        self, store: Store, telemetry: Telemetry, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._telemetry = telemetry
        # One thread, so that a charge waits for one commit at most before its own.
        self._writer = ThreadPoolExecutor(1, "budget")
        self._charges = Batches[Charge, Receipt | Reason](
            lambda charges: store.charge_all(charges, int(clock())), self._writer
        )
        self._answers = Batches[tuple[Charge, bytes], bytes](store.keep_all, self._writer)
        self._clock = clock

    @classmethod
    def open(cls, url: str, telemetry: Telemetry, clock: Callable[[], float] = time.time) -> Budget:
        """The budget in the database that a URL names, which is made if need be.

        Raises:
            InputError: it cannot be used.
        """
        return cls(Store(open_database(url, create=True)), telemetry, clock)

    def close(self) -> None:
        """Finish the transaction under way, and close the store."""
        self._writer.shutdown()
        self._store.close()

    async def answer(self, charge: Charge, draw: Callable[[], Awaitable[bytes]]) -> bytes:
        """The answer to a request, charged once however often it is asked for.

        Args:
            charge: the request and its price.
            draw: computes the answer with fresh noise. Called only once the charge is durable, and
                not at all where an answer is kept. What it returns may be thrown away, if the same
                request was answered meanwhile.

        Returns:
            The answer that is kept, the only one that may be released.

        Raises:
            RefusedError: as ``charge`` does; and whatever ``draw`` raises, after which the charge
                stands and asking again costs nothing.
        """
        receipt = await self.charge(charge)
        if receipt.answer is not None:
            return receipt.answer
        drawn = await draw()
        try:
            return await self._answers.settle((charge, drawn))
        except StoreDownError as error:
            self._refuse_without_store(error)

    async def charge(self, charge: Charge) -> Receipt:
        """Charge a request; the charge is durable when this returns, and is never taken back.

        Raises:
            RefusedError: RESOURCE_EXHAUSTED where the window has not enough left; ALREADY_EXISTS
                where the request id was used for something else; UNAVAILABLE where the store does
                not answer, or counts the account in the other unit.
        """
        started = time.monotonic()
        outcome = Reason.STORE.value
        try:
            result = await self._charges.settle(charge)
            if isinstance(result, Reason):
                outcome = result.value
                self._refuse(charge, result)
            outcome = "repeated" if result.repeated else "charged"
            return result
        except StoreDownError as error:
            self._refuse_without_store(error)
        finally:
            self._telemetry.charge_finished(outcome, time.monotonic() - started)

    def _refuse(self, charge: Charge, reason: Reason) -> NoReturn:
        unit = charge.allowance.unit.value
        match reason:
            case Reason.EXHAUSTED:
                # No more than that: a remainder would tell whether a text was asked about before.
                ends = charge.allowance.window(int(self._clock())).ends
                until = "which has no end" if ends is None else f"which ends {_moment(ends)}"
                raise RefusedError(
                    Code.RESOURCE_EXHAUSTED,
                    f"the privacy budget has not enough left for {charge.cost} {unit} "
                    f"in this period, {until}",
                )
            case Reason.CONFLICT:
                raise RefusedError(
                    Code.ALREADY_EXISTS, "this request id was used before, for another request"
                )
            case _:
                raise RefusedError(
                    Code.UNAVAILABLE, f"this budget is not counted in {unit}; tell the operator"
                )

    def _refuse_without_store(self, error: StoreDownError) -> NoReturn:
        log_defect(error)
        raise RefusedError(
            Code.UNAVAILABLE, "the privacy budget cannot be charged now, so nothing is released"
        ) from None


def _moment(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat().replace("+00:00", "Z")
