"""Is what a folder holds what the command is about to go on with?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attnpriv.errors import InputError


def check_same(path: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Raise InputError at the first name whose values differ; the message says both."""
    for name in {**theirs, **ours}:
        if theirs.get(name) != ours.get(name):
            raise InputError(
                f"cannot resume {path}: its {name} is {theirs.get(name)!r}, "
                f"this command's is {ours.get(name)!r}"
            )
