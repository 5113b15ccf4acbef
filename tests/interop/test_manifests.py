"""The manifests of deploy/ fit the schemas of Kubernetes and of KServe."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

HERE = Path(__file__).parent
DEPLOY = HERE.parents[1] / "deploy"


def read(name: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / f"{name}.yaml").read_text()))


def complaint(environments: Path, name: str, documents: list[Any]) -> str:
    """What the schemas have against the documents; empty where that is nothing."""
    done = subprocess.run(
        [environments / name / "bin" / "python", HERE / f"check_{name}.py"],
        input=json.dumps(documents),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr


@pytest.mark.parametrize("name", ["kubernetes", "kserve"])
def test_manifests_fit_the_schemas(environments: Path, name: str) -> None:
    assert complaint(environments, name, read(name)) == ""


@pytest.mark.parametrize(
    ("name", "number", "path"),
    [
        ("kubernetes", 1, ["spec", "template", "spec", "containers", 0]),
        ("kserve", 0, ["spec", "containers", 0, "securityContext"]),
        ("kserve", 1, ["spec", "predictor", "model"]),
    ],
)
def test_a_misspelt_field_is_found(
    environments: Path, name: str, number: int, path: list[str | int]
) -> None:
    documents = read(name)
    place = documents[number]
    for step in path:
        place = place[step]
    place["misspelt"] = 1
    assert "misspelt" in complaint(environments, name, documents)
