"""The detector that is loaded while the server answers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet

import pytest

from attnpriv.errors import InputError
from attnpriv.sensitive import PresidioDetector, Rules, names
from attnpriv_server.detecting import LateDetector

TEXT = "Write to ann@example.com or call 0171 234 5678."
RULES = Rules(language_model="none", deny={"PROJECT": ["Bluebird"]})


def test_who_asks_before_it_is_loaded_waits_and_gets_the_same() -> None:
    late, own = LateDetector(RULES), PresidioDetector(RULES)
    assert late.name == own.name
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(late.detect, TEXT)
        with pytest.raises(NotYet):
            asked.result(0.05)
        late.load()
        assert asked.result(60) == own.detect(TEXT) != ()
    assert late.detect_all([TEXT, "Bluebird"]) == own.detect_all([TEXT, "Bluebird"])
    assert (late.entity_types, late.cannot_see) == (own.entity_types, own.cannot_see)


def test_a_model_that_is_not_there_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match="pip install"):
        LateDetector(Rules(language_model="en_core_web_md"))


def test_an_error_of_loading_is_one_of_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise MemoryError

    late = LateDetector(RULES)
    monkeypatch.setattr("attnpriv_server.detecting.PresidioDetector", fail)
    late.load()
    for _ in range(2):
        with pytest.raises(MemoryError):
            late.detect(TEXT)
