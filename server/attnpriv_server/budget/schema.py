"""The tables of the budget store; ``migrations`` makes them.

::

    accounts    who may spend: principal, model, relation, and the unit, for good
    windows     what an account has spent in each period
    requests    what was charged: the keyed marks of the request, cost, time, sealed answer

Times are seconds since 1970. Whoever holds the row of an account locked may write its windows and
requests, nobody else.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

from attnpriv_server.budget.accounts import LONGEST_NAME

metadata = MetaData()

accounts = Table(
    "accounts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("principal", String(LONGEST_NAME), nullable=False),
    Column("model", String(LONGEST_NAME), nullable=False),
    Column("relation", String(16), nullable=False),
    Column("unit", String(16), nullable=False),
    UniqueConstraint("principal", "model", "relation", name="accounts_name"),
)

windows = Table(
    "windows",
    metadata,
    Column("account_id", Integer, ForeignKey("accounts.id"), primary_key=True),
    Column("starts", BigInteger, primary_key=True),
    Column("seconds", BigInteger, primary_key=True),
    Column("allowed", BigInteger, nullable=False),  # at the last charge
    Column("spent", BigInteger, nullable=False),
    Column("charges", BigInteger, nullable=False),
)

requests = Table(
    "requests",
    metadata,
    Column("key", LargeBinary(32), primary_key=True),
    Column("tag", LargeBinary(32), nullable=False),
    Column("account_id", Integer, ForeignKey("accounts.id"), nullable=False),
    Column("cost", BigInteger, nullable=False),
    Column("charged_at", BigInteger, nullable=False),
    Column("answer", LargeBinary),
    Index("requests_of_account", "account_id", "charged_at"),
)
