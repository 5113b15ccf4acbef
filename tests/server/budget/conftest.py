from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from attnpriv_server.budget.database import open_database
from attnpriv_server.budget.store import Store
from tests.server.budget.postgres import PostgresServer, fast_folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer(fast_folder())
    yield server
    server.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """For databases: syncs that many tests wait for would take minutes on a busy disk."""
    with tempfile.TemporaryDirectory(prefix="attnpriv-budget-", dir=fast_folder()) as made:
        yield Path(made)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, folder: Path) -> str:
    """Where an empty budget can be made, in each kind of database."""
    if request.param == "sqlite":
        return f"sqlite:///{folder}/budget.db"
    server = request.getfixturevalue("postgres")
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return str(server.url)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    made = Store(open_database(url, create=True))
    yield made
    made.close()
