"""``make fuzz``: bytes that a fuzzer made go through guard, parsing, conversion, core and model.

An input is one byte for the method, of any service of both contracts, and the bytes of a request.
It takes the way that gRPC would send it, without a network (see ``wire``). libFuzzer makes the
inputs from valid requests, guided by the branches of our own code that they reach.

A finding is a call that ends by a fault that is not the request's, an answer that cannot be sent,
an input that takes longer than ``MOST_SECONDS``, or memory beyond ``MOST_MEGABYTES``. Its input is
kept in ``build/fuzz``, the exit code is not 0, and ``python -m tests.fuzz FILE`` tries it again.
Inputs that reach new branches are kept there too, and a later run goes on from them. Prints one
JSON object last.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NoReturn

import atheris

with atheris.instrument_imports(include=["attnpriv", "attnpriv_server"]):
    from attnpriv.runs.folder import load_run
    from attnpriv_server.core import Core
    from attnpriv_server.methods import METHODS
    from attnpriv_server.telemetry import configure_logging
    from tests.fuzz.mutation import mutate
    from tests.fuzz.wire import Wire
    from tests.server.conftest import new_core
    from tests.server.test_any_input import VALID, check, told
    from tests.soak.model import make_model

FOLDER = Path("build/fuzz")
INPUTS = 30_000
MOST_SECONDS = 60  # of one input, on however slow a machine
MOST_BYTES = 8192
MOST_MEGABYTES = 2048


def main() -> None:
    """Run it, or one input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=INPUTS, help=f"at most (default: {INPUTS})")
    parser.add_argument("--minutes", type=float, default=10.0, help="at most (default: 10)")
    parser.add_argument("kept", type=Path, nargs="?", help="one input, which an earlier run kept")
    options = parser.parse_args()
    configure_logging()
    logging.disable(logging.INFO)  # but a defect is told, with its place
    target = Target(make_core(), options.inputs, 60 * options.minutes)
    if options.kept is not None:
        target(options.kept.read_bytes())
        target.end()
    limits = (
        f"-max_len={MOST_BYTES}",
        f"-timeout={MOST_SECONDS}",
        f"-rss_limit_mb={MOST_MEGABYTES}",
    )
    flags = (*limits, f"-artifact_prefix={FOLDER}/", str(begin_corpus()))
    atheris.Setup([sys.argv[0], *flags], target, custom_mutator=mutated)
    atheris.Fuzz()


def begin_corpus() -> Path:
    """The folder of inputs to begin with; it has at least a valid one for every method."""
    folder = FOLDER / "corpus"
    folder.mkdir(parents=True, exist_ok=True)
    for number, method in enumerate(METHODS):
        request = VALID.get(method.rpartition("/")[2])
        raw = request.SerializeToString() if request else b""
        (folder / f"valid-{number}").write_bytes(bytes([number]) + raw)
    return folder


def split(data: bytes) -> tuple[str, bytes]:
    """The method of an input, and its request."""
    return METHODS[data[0] % len(METHODS)] if data else METHODS[0], data[1:]


def mutated(data: bytes, most: int, seed: int) -> bytes:
    """Another input; one in ten is the same request to another method."""
    method, raw = split(data)
    if seed % 10 == 0:
        return bytes([seed // 10 % len(METHODS)]) + raw
    return data[:1] + mutate(method, raw, most - 1, seed)


def make_core() -> Core:
    """A core around a small model."""
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder) / "private")
        return new_core({"private": load_run(Path(folder) / "private")})


class Target:
    """What libFuzzer calls with every input; it ends the process after enough of them.

    Args:
        core: answers.
        inputs: how many are enough.
        seconds: after which it is enough in any case.
    """

    def __init__(self, core: Core, inputs: int, seconds: float) -> None:
        self._loop = asyncio.new_event_loop()
        self._wire = self._loop.run_until_complete(Wire.around(core))
        self._inputs = inputs
        self._seconds = seconds
        self._begin = time.monotonic()
        self._ends: Counter[tuple[str, str]] = Counter()

    def __call__(self, data: bytes) -> None:
        """Have one input answered.

        Raises:
            Exception: it is a finding.
        """
        method, raw = split(data)
        try:
            code = self._ask(method, raw)
        except Exception:
            self._report(findings=1)
            raise
        self._ends[method, code] += 1
        enough = self._ends.total() >= self._inputs
        if enough or time.monotonic() - self._begin > self._seconds:
            self.end()

    def end(self) -> NoReturn:
        """End the process without a finding."""
        self._report(findings=0)
        os._exit(0)  # libFuzzer catches an exit, and would end otherwise after its own limits only

    def _ask(self, method: str, raw: bytes) -> str:
        call = self._loop.run_until_complete(self._wire.ask(method, raw))
        answers = [told(method, answer) for answer in call.answers]
        code, details = (answers or [(call.code().name, call.details)])[0]
        check(method, code, details)
        return code

    def _report(self, findings: int) -> None:
        ends: dict[str, dict[str, int]] = {}
        for (method, code), count in sorted(self._ends.items()):
            ends.setdefault(method, {})[code] = count
        report = {
            "findings": findings,
            "inputs": self._ends.total(),
            "seconds": round(time.monotonic() - self._begin, 1),
            "ends": ends,
        }
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
