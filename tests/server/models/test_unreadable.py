"""What the server may not or cannot read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from attnpriv.errors import RunFolderError
from attnpriv.runs.folder import WEIGHTS
from tests.server.models.folders import answer, failures, is_loaded, metric, names

Lock = Callable[..., None]


def lead_nowhere(folder: Path, lock: Lock) -> None:
    """A folder that nobody can look into: a link whose target has too long a name."""
    folder.symlink_to("x" * 300)


def close(folder: Path, lock: Lock) -> None:
    (folder / "something").mkdir(parents=True)
    lock(folder, 0)


def close_by_name(folder: Path, lock: Lock) -> None:
    """It can be listed, but nobody can look at what is in it."""
    (folder / "something").mkdir(parents=True)
    lock(folder, 0o444)


@pytest.mark.parametrize("path", ["foreign", "mail/foreign", "mail/3"])
@pytest.mark.parametrize("hide", [close, close_by_name, lead_nowhere])
def test_an_unreadable_folder_is_refused_and_the_rest_goes_on(
    models, put, repository, telemetry, caplog, lock, path, hide
) -> None:
    put("mail/1", shift=1.0)
    put("spam")
    hide(models / path, lock)

    served = repository()
    put("mail/2", shift=2.0)
    put("late")
    shutil.rmtree(models / "spam")
    for _ in range(3):
        served.refresh()

    assert names(served) == {"late": ["1"], "mail": ["1", "2"]}
    assert served.ready()
    assert [failure["folder"] for failure in failures(caplog)] == [str(models / path)]
    model = path.partition("/")[0]
    assert metric(telemetry, "model_load_failures_total", model=model) == 1


@pytest.mark.parametrize("path", ["mail", "mail/2", "mail/2/manifest.json", f"mail/2/{WEIGHTS}"])
def test_what_is_served_stays_while_its_folder_cannot_be_read(
    models, put, repository, caplog, lock, path
) -> None:
    put("mail/1", shift=1.0)
    put("mail/2", shift=2.0)
    served = repository()
    expected = answer(served.loaded(served.find("mail")))

    lock(models / path)
    os.utime(models / path)
    put("spam")
    for _ in range(3):
        served.refresh()

    assert names(served) == {"mail": ["1", "2"], "spam": ["1"]}
    assert answer(served.loaded(served.find("mail"))) == expected
    (failure,) = failures(caplog)
    assert failure["error"] == "PermissionError"
    assert (models / path).is_relative_to(failure["folder"])

    (models / path).chmod(0o755)
    shutil.rmtree(models / "mail" / "1")
    for _ in range(2):
        served.refresh()
    assert names(served) == {"mail": ["2"], "spam": ["1"]}


def test_a_models_folder_that_cannot_be_read_any_more_takes_no_model_with_it(
    models, put, repository, telemetry, caplog, lock
) -> None:
    put("mail")
    served = repository()

    lock(models)
    for _ in range(3):
        served.refresh()

    assert is_loaded(served, "mail")
    assert served.ready()
    assert [record.fields for record in caplog.records] == [
        {"folder": str(models), "error": "PermissionError"}
    ]
    assert metric(telemetry, "models_look_failures_total") == 3


def test_the_start_names_what_cannot_be_read_where_nothing_else_is_there(
    models, repository, lock
) -> None:
    close(models / "mail", lock)
    message = f"expected run folders in {models}, found none; cannot read {models / 'mail'}: Perm"
    with pytest.raises(RunFolderError, match=message):
        repository()
    for closed in (models, models.parent):
        lock(closed)
        with pytest.raises(RunFolderError, match=f"cannot read {models}: Permission denied"):
            repository()
