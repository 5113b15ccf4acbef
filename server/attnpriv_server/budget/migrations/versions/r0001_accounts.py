"""Accounts, their windows, and the requests that were charged."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "accounts",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("principal", sa.String(255), nullable=False),
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("relation", sa.String(16), nullable=False),
        sa.Column("unit", sa.String(16), nullable=False),
        sa.UniqueConstraint("principal", "model", "relation", name="accounts_name"),
    )
    op.create_table(
        "windows",
        sa.Column("account_id", sa.Integer, sa.ForeignKey("accounts.id"), primary_key=True),
        sa.Column("starts", sa.BigInteger, primary_key=True),
        sa.Column("seconds", sa.BigInteger, primary_key=True),
        sa.Column("allowed", sa.BigInteger, nullable=False),
        sa.Column("spent", sa.BigInteger, nullable=False),
        sa.Column("charges", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "requests",
        sa.Column("key", sa.LargeBinary(32), primary_key=True),
        sa.Column("tag", sa.LargeBinary(32), nullable=False),
        sa.Column("account_id", sa.Integer, sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("cost", sa.BigInteger, nullable=False),
        sa.Column("charged_at", sa.BigInteger, nullable=False),
        sa.Column("answer", sa.LargeBinary),
    )
    op.create_index("requests_of_account", "requests", ["account_id", "charged_at"])
