"""The database of the budget: SQLite or PostgreSQL, by URL, and only with durable commits.

Nothing outside ``attnpriv_server.budget`` knows that there is SQL.
"""

from __future__ import annotations

import fcntl
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    TimeoutError,
)

from attnpriv.errors import InputError
from attnpriv.replacing import sync_folder
from attnpriv_server.budget.schema import metadata

EXPECTED = "expected a budget URL such as sqlite:///budget.db or postgresql://USER@HOST/NAME"
WAIT_SECONDS = 10.0  # for a lock, a connection or a statement; then the store is down
TRIES = 3  # of a transaction that the database has ended
PAUSE_SECONDS = 0.05
COMMITS = 64  # after which SQLite's write-ahead log is moved into the database
OWNER_ONLY = 0o600

# What ends a transaction that may succeed the next time: connections cut, locks, deadlocks, and a
# request id that another process stored at the same moment.
ENDED = (OperationalError, InterfaceError, IntegrityError)

Result = TypeVar("Result")


class StoreDownError(Exception):
    """The store does not answer, or its answer cannot be relied on."""


class Database(ABC):
    """One database; safe in every thread.

    Claim: what ``write`` has returned from survives the end of this process, of the database's
    server and of the machine. Condition: the disk keeps what it was told to sync. Not covered: an
    operator who puts back an older copy, and a PostgreSQL standby that takes over without the last
    commits; either gives spent budget back.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def write(self, work: Callable[[sa.Connection], Result]) -> Result:
        """Run the work in a transaction of its own; it is durable when this returns.

        If the connection breaks in the commit, nobody knows whether that came through, so the work
        has to be such that doing it twice is doing it once.

        Raises:
            StoreDownError: it could not be done, or it is not known whether it was.
        """
        gives_up = time.monotonic() + WAIT_SECONDS
        for left in reversed(range(TRIES)):
            try:
                with self._writing() as connection:
                    result = work(connection)
            except ENDED as error:
                if not left or time.monotonic() >= gives_up:
                    raise _down(error) from None
                time.sleep(PAUSE_SECONDS)
            except (DBAPIError, TimeoutError) as error:
                raise _down(error) from None
            else:
                return result
        raise AssertionError("unreachable")

    def read(self, work: Callable[[sa.Connection], Result]) -> Result:
        """Run work that only reads.

        Raises:
            StoreDownError: the database does not answer.
        """
        try:
            with self._engine.connect().execution_options(reads=True) as connection:
                return work(connection)
        except (DBAPIError, TimeoutError) as error:
            raise _down(error) from None

    @abstractmethod
    def insert_missing(self, table: sa.Table) -> Any:
        """An INSERT that leaves a row alone that is there already."""

    @abstractmethod
    def _writing(self) -> AbstractContextManager[sa.Connection]:
        """A transaction that has to be the only one to write the accounts that it locks."""

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


class Sqlite(Database):
    """A database file. One process at a time writes it, under a lock file beside it.

    The lock is needed for more than turns: up to version 3.51.2 SQLite can lose commits if one
    connection moves the write-ahead log into the database while another begins the log anew
    (sqlite.org/wal.html, "The WAL-Reset Bug"). So both happen under the lock only.
    """

    def __init__(self, path: Path) -> None:
        # Query parameters would be SQLite's own; there are none that keep commits durable.
        url = sa.URL.create("sqlite", database=str(path))
        super().__init__(sa.create_engine(url, connect_args={"timeout": WAIT_SECONDS}))
        self._commits = 0
        self._lock = Path(f"{path}-lock")
        sa.event.listen(self._engine, "connect", _make_durable)
        sa.event.listen(self._engine, "begin", _begin)

    def insert_missing(self, table: sa.Table) -> Any:
        """An INSERT that leaves a row alone that is there already."""
        return sqlite.insert(table).on_conflict_do_nothing()

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with _locked(self._lock), self._engine.connect() as connection:
            with connection.begin():
                yield connection
            self._commits += 1
            if self._commits % COMMITS == 0:
                _move_log(connection.connection.dbapi_connection)


class Postgresql(Database):
    """A PostgreSQL database, for any number of servers."""

    def __init__(self, url: sa.URL) -> None:
        limit = round(WAIT_SECONDS * 1000)
        limits = ("statement_timeout", "idle_in_transaction_session_timeout")
        arguments = {
            "connect_timeout": round(WAIT_SECONDS),
            "tcp_user_timeout": limit,
            "options": " ".join(f"-c {name}={limit}" for name in limits),
        }
        named = url.set(drivername="postgresql+psycopg")
        super().__init__(
            sa.create_engine(named, connect_args=arguments, isolation_level="READ COMMITTED")
        )
        sa.event.listen(self._engine, "connect", _commit_durably)

    def insert_missing(self, table: sa.Table) -> Any:
        """An INSERT that leaves a row alone that is there already."""
        return postgresql.insert(table).on_conflict_do_nothing()

    def _writing(self) -> AbstractContextManager[sa.Connection]:
        return self._engine.begin()


def open_database(url: str, *, create: bool) -> Database:
    """The database that a URL names, with the tables that this version needs.

    Args:
        url: ``sqlite:///PATH`` or ``postgresql://USER@HOST/NAME``.
        create: make the file and the tables, or bring older tables up to date; otherwise both have
            to be there.

    Raises:
        InputError: the URL or what is there cannot be used, or the database does not answer. The
            message does not show the URL, which may hold a password.
    """
    database = _named(url, create)
    try:
        if create:
            database.write(lambda connection: _upgrade(database, connection))
        else:
            database.read(_check_tables)
    except StoreDownError as error:
        database.close()
        raise InputError(f"cannot use the budget database: {error}") from None
    except InputError:
        database.close()
        raise
    return database


def _named(url: str, create: bool) -> Database:
    try:
        parsed = sa.make_url(url)
    except (ArgumentError, ValueError):
        raise InputError(EXPECTED) from None
    if parsed.drivername == "sqlite":
        return _sqlite(parsed, create)
    if parsed.drivername != "postgresql":
        raise InputError(EXPECTED)
    try:
        return Postgresql(parsed)
    except (ImportError, NoSuchModuleError):
        raise InputError(
            "a budget in PostgreSQL needs its driver: install attnpriv[postgresql]"
        ) from None


def _sqlite(url: sa.URL, create: bool) -> Database:
    if not url.database or url.database == ":memory:" or url.query or url.host:
        raise InputError(f"{EXPECTED}; in SQLite a path and nothing else")
    path = Path(url.database)
    if create and not path.exists():
        # Its log gets the same permissions from SQLite.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, OWNER_ONLY))
        sync_folder(path.parent)
    if not path.is_file():
        raise InputError(f"there is no budget at {path}")
    return Sqlite(path.resolve())


def _make_durable(raw: Any, _: object) -> None:
    """Settings of a new connection to SQLite; refuse one that would not keep them.

    Raises:
        sqlalchemy's OperationalError: the file system cannot hold a write-ahead log.
    """
    raw.isolation_level = None  # BEGIN is ours to say
    for setting in ("synchronous=FULL", "fullfsync=ON", "foreign_keys=ON", "wal_autocheckpoint=0"):
        raw.execute(f"PRAGMA {setting}").fetchall()
    if raw.execute("PRAGMA journal_mode=WAL").fetchone() != ("wal",):
        raise OperationalError("PRAGMA journal_mode=WAL", None, Exception("no write-ahead log"))


def _move_log(raw: Any) -> None:
    """Move SQLite's write-ahead log into the database; what is committed is durable either way.

    The log keeps its size, because overwriting a file is faster than making it longer.
    """
    # Where a reader is in the way, or the disk, the next commit tries again.
    with suppress(raw.OperationalError):
        raw.execute("PRAGMA busy_timeout=0").fetchall()
        raw.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    raw.execute(f"PRAGMA busy_timeout={round(WAIT_SECONDS * 1000)}").fetchall()


def _begin(connection: sa.Connection) -> None:
    """Take SQLite's write lock at once: a reader that then writes may find that it must give up."""
    reads = connection.get_execution_options().get("reads")
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _commit_durably(raw: Any, _: object) -> None:
    """Refuse a PostgreSQL server that does not sync, and have commits wait for the sync."""
    settings = dict(
        raw.execute(
            "SELECT name, setting FROM pg_settings "
            "WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit')"
        ).fetchall()
    )
    for name in ("fsync", "full_page_writes"):
        if settings[name] != "on":
            raise OperationalError(name, None, Exception(f"the server has {name} off"))
    if settings["synchronous_commit"] == "off":
        raw.execute("SET synchronous_commit TO on")
    raw.commit()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file; the system lets go of it when the process ends, however that happens.

    Raises:
        StoreDownError: another process has held it for too long.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, OWNER_ONLY)
    try:
        gives_up = time.monotonic() + WAIT_SECONDS
        while not _try_lock(descriptor):
            if time.monotonic() >= gives_up:
                raise StoreDownError("another process holds its lock")
            time.sleep(0.0005)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _upgrade(database: Database, connection: sa.Connection) -> None:
    """Bring the tables up to date; servers that start together wait for each other.

    Raises:
        InputError: they were made by a newer version.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    if isinstance(database, Postgresql):
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(7305517311)"))
    try:
        command.upgrade(_migrations(Config, connection), "head")
    except CommandError:
        raise InputError("the budget database was made by another version of attnpriv") from None


def _migrations(config: Any, connection: sa.Connection) -> Any:
    made = config()
    made.set_main_option("script_location", "attnpriv_server.budget:migrations")
    made.attributes["connection"] = connection
    return made


def _check_tables(connection: sa.Connection) -> None:
    inspector = sa.inspect(connection)
    if not set(metadata.tables) <= set(inspector.get_table_names()):
        raise InputError("there is no budget in this database")


def _down(error: Exception) -> StoreDownError:
    """What may be said of it: the database's own words may quote a row."""
    cause = getattr(error, "orig", None) or error
    said = str(cause) if isinstance(error, OperationalError) else type(cause).__name__
    return StoreDownError(" ".join(said.split()))
