"""What somebody gets who installs the package without extras."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def pip(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def bare(tmp_path) -> Path:
    """The programs of a fresh environment with the base alone, from the package index."""
    source, environment = tmp_path / "source", tmp_path / "environment"
    for name in ("attnpriv", "client", "server"):
        skipped = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, source / name, ignore=skipped)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    done = pip("--python", environment / "bin" / "python", "install", source)
    if done.returncode and pip("download", "--no-deps", "--dest", tmp_path, "rich").returncode:
        pytest.skip("no package index answers")
    assert done.returncode == 0, done.stderr
    return environment / "bin"


@pytest.mark.exhaustive
def test_the_base_is_a_client_without_torch(bare, serve, echo, tmp_path) -> None:
    def output(*command: str | Path) -> str:
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    absent = "import importlib.util as i; print([i.find_spec(n) for n in ('torch', 'numpy')])"
    assert output(bare / "python", "-c", absent) == "[None, None]\n"
    output(bare / "python", "-W", "error", "-c", "from attnpriv_client import *")
    assert "explain" in output(bare / "attnpriv-client", "--help")
    asked = ("predict", "--target", serve(echo), "--model", "echo", "a text")
    assert "a text" in output(bare / "attnpriv-client", *asked)
