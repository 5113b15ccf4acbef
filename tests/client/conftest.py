from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from attnpriv.run_folder import Run, load_run


@pytest.fixture(scope="session")
def run(private_run: Path) -> Run:
    return load_run(private_run)


@pytest.fixture(scope="session")
def target(private_run: Path, tmp_path_factory) -> Iterator[str]:
    """The address of a server in a process of its own."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(private_run, folder / "models" / private_run.name)
    command = [Path(sys.executable).with_name("attnpriv-server"), "--models", folder / "models"]
    with subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        line = process.stdout.readline()
        assert line.startswith("listening on ")
        yield line.removeprefix("listening on ").strip()
        process.terminate()
