"""What ``make lint`` asks of the protos: it catches an edit that would break a released client."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

PROTO = Path(__file__).resolve().parents[2] / "proto"
BUF = Path(sys.executable).with_name("buf")

Check = Callable[..., tuple[int, str]]


@pytest.fixture
def buf(tmp_path: Path) -> Check:
    """Check a copy of the protos in which one place was replaced."""

    def check(old: str, new: str, *command: str) -> tuple[int, str]:
        folder = shutil.copytree(PROTO, tmp_path / "proto")
        edited = folder / "attnpriv" / "v1" / "attnpriv.proto"
        before = edited.read_text()
        assert before.count(old) == 1
        edited.write_text(before.replace(old, new))
        image = compiled(folder)
        line = [BUF, command[0], image, *command[1:], "--config", PROTO / "buf.yaml"]
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
        return done.returncode, done.stdout + done.stderr

    return check


def compiled(folder: Path) -> Path:
    image = folder / "protos.binpb"
    line = [sys.executable, "-m", "grpc_tools.protoc", "-I", folder, "--include_imports"]
    line += ["-I", sysconfig.get_path("purelib"), "-o", image, *folder.glob("attnpriv/*/*.proto")]
    subprocess.run(line, check=True, timeout=60)
    return image


AGAINST = ("breaking", "--against", str(PROTO / "released.txtpb"))
TEXTS = (
    "// For a model of texts: at least one, each with a visible character.\n"
    "  repeated string texts = 2;"
)


def test_what_is_added_is_compatible(buf) -> None:
    assert buf(TEXTS, f"{TEXTS} bool added = 99;", *AGAINST) == (0, "")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (TEXTS, "repeated string texts = 98;", 'field "2" with name "texts"'),
        (TEXTS, "repeated string inputs = 2;", 'Field "2" with name "inputs"'),
        (TEXTS, "repeated bytes texts = 2;", 'Field "2" with name "texts"'),
        (
            "rpc GetModel(GetModelRequest)",
            "rpc GetCard(GetModelRequest)",
            'RPC "GetModel"',
        ),
    ],
)
def test_what_breaks_a_released_client_is_caught(buf, old, new, said) -> None:
    code, output = buf(old, new, *AGAINST)

    assert code == 100
    assert said in output


def test_names_out_of_style_are_caught(buf) -> None:
    code, output = buf(TEXTS, f"{TEXTS} bool addedField = 99;", "lint")

    assert code == 100
    assert "added_field" in output
