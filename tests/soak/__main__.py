"""``make soak``: ten times more than a server can answer, for minutes, and what becomes of it.

A real server on 127.0.0.1, its capacity, then callers of every kind (see ``callers``) at ten times
that. It prints one JSON object, and fails where the server crashed, its memory grew, an answer was
a defect or did not come, or where it is not the same server afterwards.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from socket import create_server
from typing import Any

from attnpriv_client import Client
from attnpriv_server.access import new_token
from tests.soak.callers import ANSWERED, EXPECTED, MODEL, Load, Outcome, capacity, send
from tests.soak.model import make_model
from tests.soak.watching import GROWTH_MEGABYTES, Sample, Watch

COMMAND = Path(sys.executable).with_name("attnpriv-server")
OVERLOAD = 10
PROCESSES = 2
CALLERS, CAPACITY_SECONDS = 32, 10.0  # of the capacity
PRINCIPALS = ("somebody-patient", "somebody-1", "somebody-2", "somebody-3")
SETTLE_SECONDS = 60.0
FILES = 8  # more or less, that a process holds open at any time
FEWEST_LOOKS = 8
WORD = "parcel"  # in texts of callers
TEXTS = ["Where is my parcel?", "I was charged twice for the same order."]


def main() -> None:
    """Run it; exit code 1 where something went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0, help="of overload (default: 3)")
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as folder:
        report = soak(Path(folder), 60 * minutes)
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    sys.exit(bool(report["failures"]))


@dataclass(frozen=True)
class Soaked:
    """What became of a server.

    Attributes:
        capacity: requests a second that it answered before.
        seconds: of overload.
        reports: of the callers.
        watch: what it took meanwhile.
        before: what it took when the overload began.
        settled: whether its queues emptied.
        same: whether it answers as it did before.
        after: what it took then.
        calls: how it ended calls, by method and status.
        code: with which it ended when it was told to.
        log: what it wrote.
    """

    capacity: float
    seconds: float
    reports: list[dict[str, Any]]
    watch: Watch
    before: Sample
    settled: bool
    same: bool
    after: Sample
    calls: dict[str, int]
    code: int
    log: str

    @cached_property
    def sent(self) -> int:
        """Requests."""
        return sum(report["sent"] for report in self.reports)

    @cached_property
    def ends(self) -> Counter[Outcome]:
        """How they ended."""
        found: Counter[Outcome] = Counter()
        for report in self.reports:
            found.update({(kind, code): count for kind, code, count in report["ends"]})
        return found


def soak(folder: Path, seconds: float) -> dict[str, Any]:
    """The report; the folder is for the model, the principals and the log."""
    make_model(folder / "models" / MODEL)
    tokens = make_principals(folder / "principals.toml")
    target, operations = free_address(), free_address()
    with (
        serving(folder, target, operations) as process,
        Client(target, token=tokens[0]) as client,
    ):
        answers = client.predict(MODEL, TEXTS)
        rate = capacity(target, tokens[0], CALLERS, CAPACITY_SECONDS)
        with Watch(process.pid, operations) as watch:
            before = watch.look()
            reports = overload(target, tokens, OVERLOAD * rate, seconds)
        if process.poll() is not None or len(watch.samples) < FEWEST_LOOKS:
            lost = "the server ended by itself, or could not be watched"
            return {"failures": [lost], "exit_code": process.returncode}
        settled = settle(watch)
        same = client.predict(MODEL, TEXTS) == answers
        after, calls = watch.look(), watch.calls()
        process.send_signal(signal.SIGTERM)
        code = process.wait(SETTLE_SECONDS)
    log = (folder / "log").read_text()
    soaked = Soaked(rate, seconds, reports, watch, before, settled, same, after, calls, code, log)
    return {"failures": failures(soaked, tokens), **figures(soaked)}


def failures(soaked: Soaked, tokens: tuple[str, ...]) -> list[str]:
    """What went wrong."""
    watch, ends = soaked.watch, soaked.ends
    offered = soaked.sent / soaked.seconds
    checks = {
        "it did not end with code 0": soaked.code != 0,
        "it could not be watched to the end": watch.samples[-1].seconds < 0.9 * soaked.seconds,
        "its memory grew": watch.growth() > GROWTH_MEGABYTES,
        "it kept files open": soaked.after.files > soaked.before.files + FILES,
        "its queues did not empty": not soaked.settled,
        "it answers differently": not soaked.same,
        "it was not overloaded": offered < 0.9 * OVERLOAD * soaked.capacity,
        "calls without an end": any(report["without_an_end"] for report in soaked.reports),
        "statuses that must not be": any(code not in EXPECTED[kind] for kind, code in ends),
        "kinds that were never answered": any((kind, "OK") not in ends for kind in ANSWERED),
        "defects": any("INTERNAL" in name or "UNKNOWN" in name for name in soaked.calls),
        "its log says too much": any(each in soaked.log for each in (WORD, *PRINCIPALS, *tokens)),
    }
    return [what for what, failed in checks.items() if failed]


def figures(soaked: Soaked) -> dict[str, Any]:
    """What was measured; memory in megabytes."""
    answered = sum(soaked.ends[kind, "OK"] for kind in ANSWERED)
    return {
        "seconds": soaked.seconds,
        "capacity_per_second": round(soaked.capacity, 1),
        "offered_per_second": round(soaked.sent / soaked.seconds, 1),
        "answered_per_second": round(answered / soaked.seconds, 1),
        "overload": round(soaked.sent / soaked.seconds / soaked.capacity, 1),
        "sent": soaked.sent,
        "ends": {kind: by_code(soaked.ends, kind) for kind in EXPECTED},
        "memory_growth": round(soaked.watch.growth(), 1),
        "memory_growth_allowed": GROWTH_MEGABYTES,
        "process": soaked.watch.summary(),
        "open_files": {"before": soaked.before.files, "after": soaked.after.files},
        "server_calls": soaked.calls,
    }


def by_code(ends: Counter[Outcome], kind: str) -> dict[str, int]:
    """How the calls of a kind ended."""
    return {code: count for (found, code), count in sorted(ends.items()) if found == kind}


def make_principals(path: Path) -> tuple[str, ...]:
    """Write the file of principals; their tokens."""
    made = {name: new_token() for name in PRINCIPALS}
    path.write_text(
        "".join(
            f'[[principal]]\nname = "{name}"\nroles = ["predict", "explain"]\n'
            f'tokens = [{{ sha256 = "{digest}" }}]\n'
            for name, (_, digest) in made.items()
        )
    )
    return tuple(token for token, _ in made.values())


@contextmanager
def serving(folder: Path, target: str, operations: str) -> Iterator[subprocess.Popen[str]]:
    """The command, once it answers."""
    options = ["--models", folder / "models", "--principals", folder / "principals.toml"]
    addresses = ["--listen", target, "--operations-listen", operations]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [COMMAND, *options, *addresses],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"listening on {target}\n"
            yield process
        finally:
            process.kill()


def overload(target: str, tokens: tuple[str, ...], rate: float, seconds: float) -> list[Any]:
    """Have callers send more than can be answered; what they report."""
    loads = [Load(target, tokens, rate / PROCESSES, seconds, seed) for seed in range(PROCESSES)]
    with ProcessPoolExecutor(PROCESSES, get_context("spawn")) as pool:
        return list(pool.map(send, loads))


def settle(watch: Watch) -> bool:
    """Whether the queues empty once nobody asks any more."""
    end = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < end:
        sample = watch.look()
        if not sample.predict_rows and not sample.explain_rows:
            return True
        time.sleep(0.2)
    return False


def free_address() -> str:
    """A port of this machine that nobody listens on."""
    with create_server(("127.0.0.1", 0)) as found:
        return f"127.0.0.1:{found.getsockname()[1]}"


if __name__ == "__main__":
    main()
