"""A folder of models, and repositories of it."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from attnpriv_server.models.repository import Repository
from attnpriv_server.telemetry import Telemetry
from tests.server.models.folders import NEVER, change_weights

Make = Callable[..., Repository]
Lock = Callable[..., None]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def repository(models: Path, telemetry: Telemetry) -> Iterator[Make]:
    """Makes and starts a repository of the folder ``models``."""
    made: list[Repository] = []

    def make(budget: int | None = None, refresh_seconds: float = NEVER) -> Repository:
        made.append(Repository(models, "float32", budget, telemetry, refresh_seconds))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def put(private_run: Path, models: Path) -> Callable[..., Path]:
    """Puts a run folder at a path below ``models``; another ``shift`` is another model."""

    def put(path: str, shift: float = 0.0) -> Path:
        folder = Path(shutil.copytree(private_run, models / path))
        change_weights(folder, lambda tensors: tensors["head.bias"][0].add_(shift))
        return folder

    return put


@contextmanager
def permission_bits_hold() -> Iterator[None]:
    """Have this thread refused what root otherwise may."""
    if os.geteuid() != 0:
        yield
        return
    library, header, found = ctypes.CDLL(None), struct.pack("Ii", 0x20080522, 0), bytearray(24)
    buffer = (ctypes.c_char * 24).from_buffer(found)
    assert library.capget(header, buffer) == 0
    before = bytes(found)
    found[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    assert library.capset(header, buffer) == 0
    try:
        yield
    finally:
        assert library.capset(header, before) == 0


@pytest.fixture
def lock() -> Iterator[Lock]:
    """Takes permissions away, from root too, until the end of the test."""
    locked: list[Path] = []

    def lock(path: Path, mode: int = 0) -> None:
        path.chmod(mode)
        locked.append(path)

    with permission_bits_hold():
        yield lock
    for path in reversed(locked):
        path.chmod(0o755)
