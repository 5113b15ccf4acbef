"""What a server takes: memory, threads, files, and how long its queues are."""

from __future__ import annotations

import threading
import time
import urllib.request
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Self

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
# Memory grows while caches and the allocator's arenas fill; from the second quarter on it must not.
GROWTH_MEGABYTES = 16.0


@dataclass(frozen=True)
class Sample:
    """One look at a server and its workers; memory in megabytes, queues in rows."""

    seconds: float
    rss: float
    pss: float
    threads: int
    files: int
    predict_rows: int
    explain_rows: int


class Watch:
    """Looks at a server every second, in a thread; a context manager.

    Args:
        process: the number of the server's, whose children are its workers.
        operations: ``HOST:PORT`` of its metrics.

    Attributes:
        samples: in order of time; none comes any more once the process has ended.
    """

    def __init__(self, process: int, operations: str) -> None:
        self.samples: list[Sample] = []
        self._process = Path("/proc") / str(process)
        self._operations = operations
        self._begin = time.monotonic()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._look_on)

    def look(self) -> Sample:
        """How it is now."""
        metrics, members = self._metrics(), self._members()
        rollups = [_fields(member / "smaps_rollup") for member in members]
        return Sample(
            seconds=time.monotonic() - self._begin,
            rss=sum(int(rollup["Rss"].split()[0]) for rollup in rollups) / 1024,
            pss=sum(int(rollup["Pss"].split()[0]) for rollup in rollups) / 1024,
            threads=sum(int(_fields(member / "status")["Threads"]) for member in members),
            files=sum(len(list((member / "fd").iterdir())) for member in members),
            predict_rows=int(metrics['attnpriv_server_queue_rows{lane="predict"}']),
            explain_rows=int(metrics['attnpriv_server_queue_rows{lane="explain"}']),
        )

    def calls(self) -> dict[str, int]:
        """How many calls it has ended, by method and status."""
        return {name: int(n) for name, n in self._metrics().items() if "calls_total" in name}

    def growth(self) -> float:
        """Megabytes by which the median of the last quarter exceeds that of the second."""
        rss = [sample.rss for sample in self.samples]
        quarter = len(rss) // 4
        return median(rss[3 * quarter :]) - median(rss[quarter : 2 * quarter])

    def summary(self) -> dict[str, dict[str, float]]:
        """Smallest, median and largest of everything."""
        columns = [asdict(sample) for sample in self.samples]
        return {
            name: {
                "min": round(min(column[name] for column in columns), 1),
                "median": round(median(column[name] for column in columns), 1),
                "max": round(max(column[name] for column in columns), 1),
            }
            for name in columns[0]
            if name != "seconds"
        }

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()

    def _look_on(self) -> None:
        with suppress(OSError):
            while not self._closing.wait(1):
                self.samples.append(self.look())

    def _members(self) -> list[Path]:
        threads = (self._process / "task").iterdir()
        children = [pid for thread in threads for pid in (thread / "children").read_text().split()]
        return [self._process, *(self._process.parent / pid for pid in children)]

    def _metrics(self) -> dict[str, float]:
        with DIRECT.open(f"http://{self._operations}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}


def _fields(path: Path) -> dict[str, str]:
    pairs = (line.partition(":") for line in path.read_text().splitlines())
    return {name: value.strip() for name, _, value in pairs}
