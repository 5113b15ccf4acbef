"""What a core gives at best: the raw forward pass, in a process without a server.

It reads texts, ``{mix: [text, ...]}``, from a file, then a mix a line from stdin, and writes one
line of JSON for each. All texts are sorted by length and cut into batches of the size, in tokens,
that turned out best: a server does not know what will be asked next, so it cannot quite get there.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from attnpriv.data import Encoding
from attnpriv.data.text import pad_batch
from attnpriv.runs.prediction import encode_texts
from attnpriv_server.memory import keep_freed_memory
from benchmarks.serving.classifier import Classifier

BUDGETS = (128, 256, 512, 1024, 2048)  # tokens of a batch, padding included
SAMPLE = 4  # one batch of so many is enough to choose by
SINGLES = 64

Batch = tuple[Tensor, Tensor]


def main() -> None:
    """Measure the mixes that are asked for until stdin ends."""
    keep_freed_memory()  # as the server does
    classifier, seconds = Classifier(), float(sys.argv[2])
    mixes = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    limits = {mix: Limit(classifier, texts, seconds) for mix, texts in mixes.items()}
    for line in sys.stdin:
        print(json.dumps(limits[json.loads(line)["mix"]].measure()), flush=True)


class Limit:
    """The forward pass on one mix.

    Args:
        classifier: the model.
        texts: of the mix.
        seconds: how long to measure each figure.
    """

    def __init__(self, classifier: Classifier, texts: Sequence[str], seconds: float) -> None:
        self._classifier = classifier
        self._texts = texts
        self._seconds = seconds
        self._encodings = encode_texts(classifier.run, texts)

    @cached_property
    def _budget(self) -> int:
        """The best size of a batch in tokens, found when it is this process's turn."""
        return max(BUDGETS, key=self._rate)

    def measure(self) -> dict[str, Any]:
        """Texts a second without and with tokenisation, and the time of a text on its own."""
        budget, seconds, count = self._budget, self._seconds, len(self._texts)
        batches = self._batches(self._encodings, budget)
        singles = self._batches(self._encodings[:SINGLES], 1)
        return {
            "budget": budget,
            "forward": count / _median_time(lambda: self._run(batches), seconds),
            "tokenised": count / _median_time(self._tokenise_and_run, seconds),
            "single_ms": 1e3 * _median_time(lambda: self._run(singles), seconds / 2) / SINGLES,
        }

    def _rate(self, budget: int) -> float:
        """Tokens a second on a sample of the batches."""
        batches = self._batches(self._encodings, budget)[SAMPLE // 2 :: SAMPLE]
        self._run(batches[:1])
        tokens = sum(int(mask.sum()) for _, mask in batches)
        return tokens / _median_time(lambda: self._run(batches), self._seconds / 4)

    def _tokenise_and_run(self) -> None:
        self._run(self._batches(encode_texts(self._classifier.run, self._texts), self._budget))

    def _run(self, batches: Sequence[Batch]) -> None:
        for ids, mask in batches:
            self._classifier.backend.probabilities(ids, mask)

    def _batches(self, encodings: Sequence[Encoding], budget: int) -> list[Batch]:
        """Padded batches of at most so many tokens, or of a single text."""
        batches: list[list[Encoding]] = [[]]
        for encoding in sorted(encodings, key=lambda encoding: len(encoding.ids)):
            if batches[-1] and (len(batches[-1]) + 1) * len(encoding.ids) > budget:
                batches.append([])
            batches[-1].append(encoding)
        return [pad_batch(batch, self._classifier.run.tokenizer.pad_id) for batch in batches]


def _median_time(work: Callable[[], None], at_least: float) -> float:
    """The median time of one piece of work that is done until the time is over."""
    times, end = [], time.monotonic() + at_least
    while not times or time.monotonic() < end:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


if __name__ == "__main__":
    main()
