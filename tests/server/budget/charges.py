"""Charges for tests, as the server's core would make them."""

from __future__ import annotations

import hashlib
import uuid

from attnpriv_server.budget.accounts import Account, Allowance, Relation, Unit
from attnpriv_server.budget.requests import Charge

BOT = Account("bot", "mail", Relation.SPAN)
HUNDRED = Allowance(100, Unit.EPSILON)


def charge(
    cost: int = 1,
    account: Account = BOT,
    allowance: Allowance = HUNDRED,
    request_id: str | None = None,
    content: str = "",
) -> Charge:
    digest = hashlib.sha256(content.encode()).digest()
    return Charge(account, allowance, cost, request_id or str(uuid.uuid4()), digest)
