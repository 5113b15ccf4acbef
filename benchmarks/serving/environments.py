"""An environment for each peer: its packages would not all go together, nor with ours."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

from benchmarks.serving.contenders import Service

ROOT = Path(__file__).resolve().parents[2]


class EnvironmentFailedError(Exception):
    """The packages of a service cannot be installed; the message is the installer's last line."""


def python_of(service: Service, folder: Path) -> Path:
    """The interpreter that runs a service; its environment is made on demand, once.

    Args:
        service: whose packages are needed.
        folder: of environments.

    Raises:
        EnvironmentFailedError: they cannot be installed.
    """
    if not service.packages:
        return Path(sys.executable)
    environment = folder / service.name
    python, done = environment / "bin" / "python", environment / "packages.txt"
    wanted = "\n".join(service.packages)
    if not done.is_file() or done.read_text() != wanted:
        print(f"installing {', '.join(service.packages)} into {environment}", flush=True)
        venv.create(environment, clear=True, with_pip=True)
        constraints = ROOT / "constraints.txt"
        _install(python, "-c", str(constraints), "-e", f"{ROOT}[train]")
        _install(python, _torch_of(constraints), *service.packages)
        done.write_text(wanted)
    return python


def _torch_of(constraints: Path) -> str:
    """The pinned torch alone: some peers want other versions of much else, and may have them."""
    return next(line for line in constraints.read_text().splitlines() if line.startswith("torch=="))


def _install(python: Path, *arguments: str) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EnvironmentFailedError(done.stderr.strip().splitlines()[-1])
