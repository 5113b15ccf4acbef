"""What commands load before they know that they need it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "numpy", "pyarrow", "spacy", "captum", "faker", "matplotlib", "ray", "sklearn")


@pytest.mark.parametrize(
    "module",
    ["attnpriv.cli", "attnpriv_client.cli", "attnpriv_server.cli", "attnpriv_server.policy"],
)
def test_a_command_that_only_answers_for_its_options_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.exhaustive
def test_finding_personal_data_needs_no_transformers() -> None:
    """It is installed for the tests, and Presidio would import it."""
    code = (
        "import sys; from attnpriv.sensitive import PresidioDetector; PresidioDetector(None); "
        "print('transformers' in sys.modules); import transformers; print(transformers.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\ntransformers\n"


def test_a_server_starts_its_workers_before_it_loads_pytorch() -> None:
    """Both then load it at the same time, each on a core."""
    code = (
        "import sys, attnpriv_server.assembly, attnpriv_server.methods, attnpriv_server.workers; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.exhaustive
def test_every_benchmark_finds_what_it_imports() -> None:
    """But for those of other servers, which have environments of their own."""
    code = (
        "import importlib, pkgutil, benchmarks\n"
        "for each in pkgutil.walk_packages(benchmarks.__path__, 'benchmarks.'):\n"
        "    if not each.name.endswith('__main__') and '.peers' not in each.name:\n"
        "        importlib.import_module(each.name)\n"
    )
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=root)
