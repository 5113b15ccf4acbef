"""What the application can be asked to serve."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

from attnpriv.errors import InputError
from attnpriv_server.ray_serve.app import Arguments
from attnpriv_server.ray_serve.proxy import METHODS
from attnpriv_server.wire import GUARDED

DIGEST = "0f" * 32
FILE = Path(__file__).parents[3] / "deploy" / "ray-serve.yaml"


def test_a_budget_in_a_file_is_refused() -> None:
    with pytest.raises(InputError, match="expected budget postgresql://"):
        Arguments(models="m", budget="sqlite:///budget.db").settings()


@pytest.mark.parametrize("given", [{}, {"front": DIGEST}, {"principals": "p.toml"}])
def test_serving_strangers_has_to_be_asked_for(given: dict[str, str]) -> None:
    with pytest.raises(InputError, match="refusing to serve without front and principals"):
        Arguments(models="m", **given).checked_front()
    assert Arguments(models="m", insecure=True, **given).checked_front().sha256 == given.get(
        "front"
    )


def test_a_secret_in_place_of_its_digest_is_not_quoted() -> None:
    with pytest.raises(InputError) as raised:
        Arguments(models="m", principals="p.toml", front="a secret").checked_front()
    assert "a secret" not in str(raised.value).replace("not a secret", "")


def test_unknown_arguments_are_refused() -> None:
    with pytest.raises(ValidationError, match="workers"):
        Arguments(models="m", workers=2)


def test_the_configuration_fits_its_schemas() -> None:
    configuration = ServeDeploySchema.model_validate(yaml.safe_load(FILE.read_text()))
    (application,) = configuration.applications
    arguments = Arguments(**application.args)
    assert arguments.settings().models == Path("/models")
    assert arguments.checked_front().sha256 == "0" * 64
    assert not configuration.grpc_options.enable_reflection
    assert application.import_path == "attnpriv_server.ray_serve.app:app"


def test_every_method_is_served_that_one_replica_can_answer() -> None:
    left_out = {path for path in GUARDED if path not in METHODS}
    assert set(METHODS) <= set(GUARDED)
    assert left_out == {
        "/grpc.health.v1.Health/List",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    }
    assert len({method.name for method in METHODS.values()}) == len(METHODS)
