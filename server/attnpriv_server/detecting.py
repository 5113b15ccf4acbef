"""A detector that is loaded while the server answers already."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from concurrent.futures import Future
from importlib import import_module
from threading import Thread

from attnpriv.sensitive import Detector, PresidioDetector, Rules
from attnpriv.spans import Span


class LateDetector:
    """``PresidioDetector``, which is loaded by ``load``; whoever needs more than its name waits.

    Args:
        rules: as there.

    Attributes:
        name: of the detector.

    Raises:
        InputError: the language model is not installed, or is not the one that is pinned.
    """

    def __init__(self, rules: Rules) -> None:
        rules.check_model()
        self.name = rules.detector_name
        self._rules = rules
        self._detector: Future[Detector] = Future()

    def load(self) -> None:
        """Load it; an error in that becomes one of all calls."""
        try:
            self._detector.set_result(PresidioDetector(self._rules))
        except Exception as error:
            self._detector.set_exception(error)

    @property
    def entity_types(self) -> tuple[str, ...]:
        """As ``Detector.entity_types``."""
        return self._detector.result().entity_types

    @property
    def cannot_see(self) -> tuple[str, ...]:
        """As ``Detector.cannot_see``."""
        return self._detector.result().cannot_see

    def detect(self, text: str) -> tuple[Span, ...]:
        """As ``Detector.detect``."""
        return self._detector.result().detect(text)

    def detect_all(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        """As ``Detector.detect_all``."""
        return self._detector.result().detect_all(texts)


def load_the_rest(detector: LateDetector) -> None:
    """Load what predictions do not need, in a thread: the detector, and Captum for explanations."""

    def load() -> None:
        detector.load()
        import_module("captum.attr")
        gc.freeze()  # see ``assembly``

    Thread(target=load, daemon=True).start()
