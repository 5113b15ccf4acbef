from __future__ import annotations

import shutil

import pytest

from attnpriv.errors import InputError
from attnpriv_server.core import load_models


def test_a_renamed_folder_is_served_under_its_new_name(private_run, tmp_path) -> None:
    shutil.copytree(private_run, tmp_path / "renamed")

    assert set(load_models(tmp_path)) == {"renamed"}


def test_a_folder_without_models_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="expected run folders in"):
        load_models(tmp_path)


def test_two_models_of_one_name_are_refused(private_run, tmp_path) -> None:
    (tmp_path / "models").mkdir()
    for place in ("a", "b"):
        shutil.copytree(private_run, tmp_path / place / "same")
        (tmp_path / "models" / place).symlink_to(tmp_path / place / "same")

    with pytest.raises(InputError, match="both hold a model 'same'"):
        load_models(tmp_path / "models")
