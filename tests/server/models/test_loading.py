"""What is loaded when, and what has to go for it."""

from __future__ import annotations

import resource
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from attnpriv.errors import RunFolderError
from attnpriv.runs.folder import WEIGHTS
from attnpriv_server.models.repository import Repository
from attnpriv_server.models.versions import Loaded
from tests.server.models.folders import (
    answer,
    failures,
    flip,
    is_loaded,
    memory_of,
    metric,
    replace,
)


def test_the_newest_versions_are_in_memory_from_the_start_on(
    models, put, repository, telemetry
) -> None:
    put("mail/1", shift=1.0)
    put("mail/2", shift=2.0)
    put("spam")
    unstarted = Repository(models, "float32")
    assert not unstarted.ready()

    served = repository()

    assert served.ready()
    assert is_loaded(served, "mail", "2")
    assert is_loaded(served, "spam")
    assert not is_loaded(served, "mail", "1")
    assert metric(telemetry, "models_loaded") == 2
    older = served.load(served.find("mail", "1"))
    assert older is served.loaded(served.find("mail", "1"))
    assert answer(older) != answer(served.loaded(served.find("mail")))
    served.close()
    assert not served.ready()


def test_many_threads_that_need_a_model_load_it_once(put, repository, telemetry) -> None:
    put("mail/1")
    put("mail/2")
    served = repository()
    together = threading.Barrier(8)

    def load(_: int) -> Loaded:
        together.wait()
        return served.load(served.find("mail", "1"))

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(load, range(8)))) == 1
    assert metric(telemetry, "model_load_seconds_count", model="mail") == 2  # one a version


def test_memory_is_that_of_the_weights(put, repository) -> None:
    run = put("mail")
    served = repository()
    assert served.load(served.find("mail")).memory_bytes == memory_of(run)


def test_the_least_recently_used_model_makes_room(put, repository, telemetry) -> None:
    size = memory_of(put("a"))
    for shift, name in enumerate("bc", start=1):
        put(name, shift=shift)
    served = repository(budget=2 * size + 1)
    a, b, c = (served.find(name) for name in "abc")
    assert served.ready()
    assert [served.loaded(v) is not None for v in (c, b, a)] == [False, True, True]

    held = served.loaded(b)
    expected = answer(held)
    assert served.loaded(a) is not None  # now b is the least recently used
    served.load(c)

    assert [served.loaded(v) is not None for v in (b, a, c)] == [False, True, True]
    assert answer(held) == expected
    assert metric(telemetry, "models_loaded") == 2
    assert metric(telemetry, "model_memory_bytes", model="c", version="1") == size
    assert metric(telemetry, "model_memory_bytes", model="b", version="1") is None
    again = served.load(b)
    assert again is not held
    assert answer(again) == expected


def test_a_model_beyond_the_budget_stops_the_start(put, repository) -> None:
    size = memory_of(put("mail"))
    message = f"refusing .*mail: it takes {size} bytes of memory, the budget is {size - 1}"
    with pytest.raises(RunFolderError, match=message):
        repository(budget=size - 1)


def test_want_of_file_descriptors_passes(put, repository, caplog) -> None:
    put("mail/1")
    put("mail/2")
    served = repository()
    older = served.find("mail", "1")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        for _ in range(2):
            with pytest.raises(RunFolderError, match="Too many open files"):
                served.load(older)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(failures(caplog)) == 1
    assert answer(served.load(older))


def test_an_evicted_model_is_refused_while_its_folder_is_tampered_with(
    put, repository, telemetry, caplog
) -> None:
    size = memory_of(put("a"))
    run = put("b", shift=1.0)
    served = repository(budget=size)
    b = served.find("b")
    assert served.loaded(b) is None

    flip(run / WEIGHTS)
    for _ in range(3):
        with pytest.raises(RunFolderError, match="does not match the manifest"):
            served.load(b)
    served.refresh()
    assert len(failures(caplog)) == 1
    assert metric(telemetry, "model_load_failures_total", model="b") == 1

    flip(run / WEIGHTS)
    assert served.load(b).version is b
    replace(run, put(".new", shift=2.0))
    served.load(served.find("a"))  # b is evicted again
    loaded = served.load(b)  # before anybody has looked
    assert loaded.version is served.find("b") is not b


def test_a_folder_that_is_being_replaced_is_waited_for(put, repository) -> None:
    size = memory_of(put("a"))
    run = put("b")
    served = repository(budget=size)
    run.rename(run.parent / ".away")
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(served.load, served.find("b"))
        (run.parent / ".away").rename(run)
        assert loading.result().name == "b"
