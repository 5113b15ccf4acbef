"""What changes on disk while the server runs."""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from attnpriv.runs.folder import MANIFEST, WEIGHTS
from attnpriv_server.models.repository import Repository
from attnpriv_server.models.versions import UnknownModelError
from attnpriv_server.telemetry import Telemetry
from tests.server.models.folders import (
    NEVER,
    answer,
    change_weights,
    failures,
    flip,
    is_loaded,
    memory_of,
    metric,
    names,
    reference,
    replace,
)


def test_a_replaced_folder_takes_over_at_once(models, put, repository) -> None:
    run = put("mail")
    served = repository()
    old = served.find("mail")
    held = served.loaded(old)
    expected = answer(held)

    replace(run, put(".new", shift=1.0))
    assert served.find("mail") is old
    served.refresh()

    new = served.find("mail")
    assert new is not old
    assert served.loaded(new).version is new
    assert served.loaded(old) is served.load(old) is served.loaded(new)  # of a request in between
    assert answer(held) == expected != answer(served.loaded(new))


def test_a_folder_that_only_looks_changed_is_left_alone(put, repository, telemetry) -> None:
    run = put("mail")
    served = repository()
    version, loaded = served.find("mail"), served.loaded(served.find("mail"))

    os.utime(run / WEIGHTS)
    shutil.copytree(run, run.parent / ".copy")
    replace(run, run.parent / ".copy")
    served.refresh()

    assert served.find("mail") is version
    assert served.loaded(version) is loaded
    assert metric(telemetry, "model_load_seconds_count", model="mail") == 1


def test_a_broken_folder_leaves_the_last_good_one_in_its_place(
    put, repository, telemetry, caplog
) -> None:
    run = put("mail")
    served = repository()
    version = served.find("mail")
    expected = answer(served.loaded(version))

    broken = put(".new", shift=1.0)
    flip(broken / WEIGHTS)
    replace(run, broken)
    for _ in range(3):
        served.refresh()

    assert served.find("mail") is version
    assert answer(served.loaded(version)) == expected
    (failure,) = failures(caplog)
    told = {"model": "mail", "version": "1", "folder": str(run), "error": "RunFolderError"}
    assert failure == told
    assert metric(telemetry, "model_load_failures_total", model="mail") == 1

    flip(run / WEIGHTS)  # whole again
    served.refresh()
    assert served.find("mail") is not version
    assert answer(served.loaded(served.find("mail"))) != expected

    change_weights(run, lambda tensors: tensors["head.bias"].fill_(math.nan))
    served.refresh()
    assert len(failures(caplog)) == 2
    assert is_loaded(served, "mail")


def test_tampering_with_the_files_of_a_loaded_model_is_told_once(put, repository, caplog) -> None:
    run = put("mail")
    served = repository()
    flip(run / WEIGHTS)
    (run / "extra.pkl").write_bytes(b"")
    for _ in range(2):
        served.refresh()
    assert len(failures(caplog)) == 1
    assert is_loaded(served, "mail")


def test_a_new_folder_that_is_refused_hides_nothing(models, put, repository, caplog) -> None:
    put("mail/1")
    served = repository()

    put("mail/2", shift=2.0)
    flip(put("mail/3", shift=3.0) / WEIGHTS)
    put("mail/v4")
    put("two\nlines")
    put("spam")
    for _ in range(2):
        served.refresh()

    assert names(served) == {"mail": ["1", "2"], "spam": ["1"]}
    assert is_loaded(served, "mail", "2")
    told = {(each["model"], each["version"]) for each in failures(caplog)}
    assert told == {("mail", "3"), ("mail", "v4"), ("'two\\nlines'", "1")}
    assert len(failures(caplog)) == 3


def test_a_removed_version_makes_way_for_the_one_before(models, put, repository) -> None:
    put("mail/1", shift=1.0)
    put("mail/2", shift=2.0)
    served = repository()
    newest = served.find("mail")
    held, expected = served.loaded(newest), answer(served.loaded(newest))

    shutil.rmtree(models / "mail" / "2")
    served.refresh()
    assert served.find("mail") is newest  # it may come back at the next look
    served.refresh()

    assert names(served) == {"mail": ["1"]}
    assert is_loaded(served, "mail", "1")
    assert answer(held) == expected
    assert served.loaded(newest) is None
    with pytest.raises(UnknownModelError):
        served.load(newest)

    shutil.rmtree(models / "mail")
    for _ in range(2):
        served.refresh()
    assert served.models() == {}


def test_a_folder_that_is_away_for_one_look_is_not_missed(put, repository, caplog) -> None:
    run = put("mail")
    served = repository()
    for _ in range(3):
        run.rename(run.parent / ".away")
        served.refresh()
        assert is_loaded(served, "mail")
        (run.parent / ".away").rename(run)
        served.refresh()
    assert failures(caplog) == []


def test_a_disk_that_is_gone_takes_no_model_with_it(
    models, put, repository, telemetry, caplog
) -> None:
    put("mail")
    served = repository()
    expected = answer(served.loaded(served.find("mail")))

    models.rename(models.parent / "gone")
    for _ in range(3):
        served.refresh()
    models.mkdir()  # the empty folder on which the disk was mounted
    for _ in range(3):
        served.refresh()
    assert answer(served.loaded(served.find("mail"))) == expected
    assert [record.msg for record in caplog.records] == ["refresh"]
    assert caplog.records[0].fields == {"folder": str(models), "error": "FileNotFoundError"}
    assert metric(telemetry, "models_look_failures_total") == 6

    models.rmdir()
    (models.parent / "gone").rename(models)
    put("spam")
    served.refresh()
    assert list(served.models()) == ["mail", "spam"]


def test_a_folder_that_goes_away_during_the_start_takes_no_other_with_it(
    models, put, telemetry
) -> None:
    put("a")
    put("b", shift=1.0)
    put("c", shift=2.0)

    class Moving(Telemetry):
        """Has the next folder moved away once the first one is loaded."""

        def model_loaded(self, model: str, *rest: Any) -> None:
            super().model_loaded(model, *rest)
            if model == "a":
                (models / "b").rename(models / ".b")

    with Repository(models, "float32", None, Moving(), NEVER) as served:
        assert list(served.models()) == ["a", "c"]
        (models / ".b").rename(models / "b")
        served.refresh()
        assert list(served.models()) == ["a", "b", "c"]


def test_want_of_memory_for_one_folder_keeps_no_other_out(put, repository, caplog) -> None:
    put("mail")
    served = repository()
    os.truncate(put("huge") / WEIGHTS, 4 * 2**30)
    put("spam")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**30, hard))
    try:
        for _ in range(2):
            served.refresh()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

    assert list(served.models()) == ["mail", "spam"]
    assert [failure["error"] for failure in failures(caplog)] == ["MemoryError"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("budget_in_models", [None, 1.5])
def test_no_request_is_lost_while_a_model_is_replaced_twenty_times(
    models, put, repository, budget_in_models
) -> None:
    blue, green = put(".blue"), put(".green", shift=1.0)
    link = models / "mail"
    link.symlink_to(blue.name)
    put("spam", shift=2.0)
    budget = budget_in_models and int(budget_in_models * memory_of(blue))
    served = repository(budget, refresh_seconds=0.01)
    hashes = {
        folder: json.loads((folder / MANIFEST).read_text())["sha256"] for folder in (blue, green)
    }
    expected = {str(hashes[folder]): reference(folder) for folder in (blue, green)}
    done, computing, answers = threading.Event(), threading.Lock(), [0]

    def ask() -> None:
        while not done.is_set():
            for name in ("mail", "spam"):
                version = served.find(name)
                loaded = served.loaded(version) or served.load(version)
                with computing:  # as a lane does: a backend is called from one thread at a time
                    got = answer(loaded)
                    answers[0] += 1
                if name == "mail":
                    assert got == expected[str(loaded.version.hashes)]

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        try:
            for turn in range(20):
                target = (green, blue)[turn % 2]
                (models / ".next").symlink_to(target.name)
                (models / ".next").replace(link)
                wait_for(lambda target=target: served.find("mail").hashes == hashes[target])
        finally:
            done.set()
    for each in asking:
        each.result()
    assert answers[0] > 20


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)
