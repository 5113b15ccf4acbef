"""What a loss of power leaves of a SQLite budget; run as a module, with JSON as its argument.

SQLite reaches files through a table of functions (sqlite.org/vfs.html). Here its own table is put
behind one that notes each write, truncation and sync. A crash at some moment keeps what was synced
by then and a random part of what was not; what SQLite makes of that is compared with the answers
that had been given.
"""

from __future__ import annotations

import _sqlite3
import ctypes as c
import json
import os
import random
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from attnpriv_server.budget import database as databases
from attnpriv_server.budget.database import open_database
from attnpriv_server.budget.store import Store
from tests.server.budget.charges import charge
from tests.server.budget.processes import PLENTY

COMMITS = 40
COMMITS_BETWEEN_MOVES = 7  # so that the log is moved into the database several times
SECTOR = 512  # a write may be torn there
POINTER = c.sizeof(c.c_void_p)
WRITE, TRUNCATE, SYNC = (POINTER * number for number in (3, 4, 5))  # places in sqlite3_io_methods
METHODS_BYTES = POINTER * 19
VFS_BYTES = 24 + POINTER * 20
NAME, OPEN, DELETE = 24, 40, 48  # places in sqlite3_vfs

# Names as addresses: SQLite keeps them, and what stands behind them.
Open = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_void_p, c.c_void_p, c.c_int, c.POINTER(c.c_int))
Delete = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_char_p, c.c_int)
Write = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_void_p, c.c_int, c.c_int64)
Truncate = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_int64)
Sync = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_int)


class Event(NamedTuple):
    """Something that happened to a file: bytes at an offset, a new size, its end, or a sync."""

    name: str
    data: bytes | None = None
    offset: int = 0
    size: int | None = None
    gone: bool = False


class Recorder:
    """Notes what SQLite does to the files of this process."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._names: dict[int, str] = {}
        self._kept: list[Any] = []  # what C points to
        library = c.CDLL(_sqlite3.__file__)
        library.sqlite3_vfs_find.restype = c.c_void_p
        own = library.sqlite3_vfs_find(None)
        vfs = c.create_string_buffer(c.string_at(own, VFS_BYTES), VFS_BYTES)
        self._open = Open(_pointer(own, OPEN))
        _put(vfs, NAME, self._keep(c.create_string_buffer(b"recorder")))
        _put(vfs, OPEN, self._keep(Open(self._opened)))
        self._delete = Delete(_pointer(own, DELETE))
        _put(vfs, DELETE, self._keep(Delete(self._deleted)))
        assert library.sqlite3_vfs_register(c.byref(self._keep_it(vfs)), 1) == 0

    def _opened(self, vfs: int, name: int | None, file: int, flags: int, out: Any) -> int:
        code = self._open(vfs, name, file, flags, out)
        if code == 0 and name is not None:
            self._names[file] = Path(c.string_at(name).decode()).name
            methods = c.c_void_p.from_address(file)
            assert methods.value is not None
            own = c.string_at(methods.value, METHODS_BYTES)
            ours = self._keep_it(c.create_string_buffer(own, METHODS_BYTES))
            for place, kind, method in (
                (WRITE, Write, self._wrote),
                (TRUNCATE, Truncate, self._truncated),
                (SYNC, Sync, self._synced),
            ):
                original = kind(int.from_bytes(own[place : place + POINTER], sys.byteorder))
                _put(ours, place, self._keep(kind(_bound(method, original))))
            methods.value = c.addressof(ours)
        return int(code)

    def _deleted(self, vfs: int, name: bytes, sync: int) -> int:
        self.events.append(Event(Path(name.decode()).name, gone=True))
        return int(self._delete(vfs, name, sync))

    def _wrote(self, original: Any, file: int, data: int, size: int, offset: int) -> int:
        self.events.append(Event(self._names[file], c.string_at(data, size), offset))
        return int(original(file, data, size, offset))

    def _truncated(self, original: Any, file: int, size: int) -> int:
        self.events.append(Event(self._names[file], size=size))
        return int(original(file, size))

    def _synced(self, original: Any, file: int, flags: int) -> int:
        code = int(original(file, flags))
        self.events.append(Event(self._names[file]))
        return code

    def _keep(self, value: Any) -> int:
        self._kept.append(value)
        found = c.cast(value, c.c_void_p).value
        assert found is not None
        return found

    def _keep_it(self, value: Any) -> Any:
        self._kept.append(value)
        return value


def _bound(method: Any, original: Any) -> Any:
    return lambda *arguments: method(original, *arguments)


def _pointer(address: int, place: int) -> int:
    return c.c_size_t.from_address(address + place).value


def _put(buffer: Any, place: int, value: int) -> None:
    c.c_size_t.from_buffer(buffer, place).value = value


def left_over(events: list[Event], chance: random.Random) -> dict[str, bytes]:
    """The files after a crash behind these events."""
    files: dict[str, bytearray] = {}
    waiting: dict[str, list[Event]] = {}
    for event in events:
        if event.gone:  # SQLite deletes a rollback journal once, before the log exists
            files.pop(event.name, None)
            waiting.pop(event.name, None)
        elif event.data is None and event.size is None:
            for each in waiting.pop(event.name, []):
                _apply(files, each)
        else:
            waiting.setdefault(event.name, []).append(event)
    share = chance.choice((0.0, 0.5, 0.9, 1.0))
    for late in waiting.values():
        for each in late:
            for part in _torn(each):
                if chance.random() < share:
                    _apply(files, part)
    return {name: bytes(content) for name, content in files.items()}


def _torn(event: Event) -> Iterator[Event]:
    if event.data is None:
        yield event
        return
    for start in range(0, len(event.data), SECTOR):
        yield event._replace(data=event.data[start : start + SECTOR], offset=event.offset + start)


def _apply(files: dict[str, bytearray], event: Event) -> None:
    content = files.setdefault(event.name, bytearray())
    if event.data is None:
        assert event.size is not None
        del content[event.size :]
        content.extend(bytes(max(0, event.size - len(content))))
        return
    content.extend(bytes(max(0, event.offset + len(event.data) - len(content))))
    content[event.offset : event.offset + len(event.data)] = event.data


def found_in(folder: Path, files: dict[str, bytes]) -> tuple[set[bytes], int, bool]:
    """The keys and what was spent as SQLite finds them, and whether the file is whole."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    uri = f"file:{folder / 'budget.db'}?vfs=unix"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        keys = {key for (key,) in connection.execute("SELECT key FROM requests")}
        spent = connection.execute("SELECT coalesce(sum(spent), 0) FROM windows").fetchone()[0]
        whole = connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return keys, spent, whole


def main(folder: str, crashes: int, synchronous: str) -> dict[str, Any]:
    try:
        recorder = Recorder()
    except AttributeError:
        return {"missing": "this Python's SQLite cannot be reached from outside"}
    databases.COMMITS = COMMITS_BETWEEN_MOVES
    path = Path(folder) / "budget.db"
    store = Store(open_database(f"sqlite:///{path}", create=True))
    set_to = sa.text(f"PRAGMA synchronous={synchronous}")
    # Outside a transaction, where alone it holds, on the one connection that the pool will lend.
    with store._database._engine.connect() as connection:
        raw = connection.connection.dbapi_connection
        assert raw is not None
        raw.execute(str(set_to))
    began, answered = len(recorder.events), []
    for number in range(COMMITS):
        charges = [charge(allowance=PLENTY) for _ in range(1 + number % 3)]
        store.charge_all(charges, 0)
        answered.append((len(recorder.events), {each.key for each in charges}))
    return _crash(recorder.events, began, answered, Path(folder) / "left", crashes)


def _crash(
    events: list[Event],
    began: int,
    answered: list[tuple[int, set[bytes]]],
    folder: Path,
    crashes: int,
) -> dict[str, Any]:
    chance = random.Random(0)
    counts = dict.fromkeys(("crashes", "lost", "uneven", "damaged", "stranded"), 0)
    for _ in range(crashes):
        moment = chance.randint(began, len(events))
        promised = [keys for told, keys in answered if told <= moment]
        paid = set().union(*promised)
        keys, spent, whole = found_in(folder, left_over(events[:moment], chance))
        under_way = answered[len(promised)][1] if len(promised) < len(answered) else set()
        counts["crashes"] += 1
        counts["lost"] += not paid <= keys
        counts["uneven"] += spent != len(keys) or not keys <= paid | under_way
        counts["damaged"] += not whole
        counts["stranded"] += bool(keys - paid)
    return counts


if __name__ == "__main__":
    json.dump(main(**json.loads(sys.argv[1])), sys.stdout)
    sys.stdout.flush()
    os._exit(0)  # connections that end later would call functions that are gone
