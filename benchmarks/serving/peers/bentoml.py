"""BentoML: processes whose adaptive batching learns how long to wait."""

from __future__ import annotations

import os
import sys

import bentoml

from benchmarks.serving.classifier import Classifier, workers
from benchmarks.serving.peers import MAX_BATCH


@bentoml.service(workers=workers())
class Labels:
    """``POST /predict`` of a list of texts, answered by the list of their labels."""

    def __init__(self) -> None:
        self._classifier = Classifier()

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH)
    def predict(self, texts: list[str]) -> list[str]:
        """Labels of a batch."""
        return self._classifier(texts)


def main() -> None:
    """Become BentoML's own command, which serves until SIGTERM."""
    command = ["-m", "bentoml", "serve", "benchmarks.serving.peers.bentoml:Labels"]
    where = ["--host", "127.0.0.1", "--port", sys.argv[1]]
    os.execv(sys.executable, [sys.executable, *command, *where])


if __name__ == "__main__":
    main()
