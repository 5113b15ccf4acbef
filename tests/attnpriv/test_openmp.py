"""How the commands' threads wait, which is decided when torch is loaded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from attnpriv.openmp import CHOICES

WHEN_TORCH_IS_LOADED = """
import os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print({each: os.environ[each] for each in %r if each in os.environ}, flush=True)
            os._exit(0)

sys.meta_path.insert(0, Watch())
import %s
import torch
"""


@pytest.mark.parametrize("module", ["attnpriv.cli", "attnpriv_server.cli"])
@pytest.mark.parametrize(
    ("chosen", "expected"),
    [({}, {"OMP_WAIT_POLICY": "PASSIVE"})]
    + [({name: "7"}, {name: "7"}) for name in CHOICES[1:]]
    + [({CHOICES[0]: "ACTIVE"}, {CHOICES[0]: "ACTIVE"})],
)
def test_a_command_lets_threads_sleep_unless_the_user_says_how_they_wait(
    module: str, chosen: dict[str, str], expected: dict[str, str]
) -> None:
    others = {name: value for name, value in os.environ.items() if name not in CHOICES}
    found = subprocess.run(
        [sys.executable, "-c", WHEN_TORCH_IS_LOADED % (CHOICES, module)],
        env=others | chosen,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == repr(expected)
