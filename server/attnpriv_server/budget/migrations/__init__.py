"""Versions of the budget store's tables, for Alembic."""
