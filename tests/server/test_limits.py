"""How large requests may be: the file of limits."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

import pytest

from attnpriv.errors import InputError
from attnpriv_server.limits import Limits, load_limits


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "limits.toml"


def test_a_file_of_limits_changes_what_it_names(path) -> None:
    path.write_text("connections = 3\n")

    assert asdict(load_limits(path)) == {**asdict(Limits()), "connections": 3}


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "true", "2_147_483_648", "inf"])
def test_limits_out_of_range_are_refused(path, value) -> None:
    for knob in (field.name for field in fields(Limits)):
        path.write_text(f"{knob} = {value}\n")
        with pytest.raises(InputError, match=f"expected limit {knob} to be a whole number from 1"):
            load_limits(path)


def test_an_unknown_limit_is_refused(path) -> None:
    path.write_text("text = 3\n")

    with pytest.raises(InputError, match="unknown 'text', expected message_bytes, "):
        load_limits(path)


def test_a_missing_file_of_limits_is_refused(path) -> None:
    with pytest.raises(InputError, match="cannot read limits"):
        load_limits(path)
