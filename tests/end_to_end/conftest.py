from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

Serving = Callable[..., AbstractContextManager[str]]


@pytest.fixture(scope="session")
def serving() -> Serving:
    """Starts the server's command on a folder of models, and gives its address."""
    command = Path(sys.executable).with_name("attnpriv-server")

    @contextmanager
    def serve(models: Path, *options: object) -> Iterator[str]:
        server = subprocess.Popen(
            [command, "--models", models, "--listen", "127.0.0.1:0", *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert server.stdout is not None
            found = re.search(r"listening on (\S+)", server.stdout.readline())
            assert found
            yield found.group(1)
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=30)
        assert server.returncode == 0

    return serve
