"""Our server under load, beside the limit, a naive server and other servers, in one run.

The texts are real SMS messages (synthetic tickets where there is no file of them), and the same
joined to log-normal lengths up to the model's longest. The loads are closed loops of 1 to 128
callers, then Poisson arrivals at shares of the best of these. Generators are processes of their own
on the same processor; their share of a core is reported. The limit is the raw forward pass of the
same backend on the same texts, sorted and batched at best; the naive server passes every request
through the float32 model on its own.

LitServe, Ray Serve, BentoML and MLServer batch as they are made to, and are asked over HTTP with
connections kept open. They serve the same run folder through the same library, in the precision of
our server so that the comparison is fair, and at the compared concurrency also in float32, which is
what their users get. Each has as many replicas as ours has workers, of as many threads; so has the
limit. kserve's Python server is left out, as it does not batch itself. All servers log every
request, as is their default. All are started at the beginning, and all but the one that is measured
are stopped by a signal meanwhile.

Figures are medians over interleaved rounds, ratios medians of the ratios within a round.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from attnpriv.attention.scores import has_native_bfloat16
from benchmarks.serving.contenders import SERVICES
from benchmarks.serving.report import summarise, tables
from benchmarks.serving.rounds import Plan, measure

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "sms_spam.tsv"
CACHE = Path.home() / ".cache" / "attnpriv-benchmarks"


def main() -> None:
    """Measure, print tables, and JSON at the end."""
    plan = _plan()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the servers too
    with tempfile.TemporaryDirectory(prefix="serving-") as scratch:
        found = measure(plan, Path(scratch))
    summary = summarise(found, plan.precision)
    console = Console(width=120)
    for table in tables(summary):
        console.print(table)
    about = {name: getattr(plan, name) for name in ("rounds", "seconds", "workers", "threads")}
    peers = {service.name: service.packages for service in SERVICES if service.packages}
    print(json.dumps({"benchmark": "serving", **about, "packages": peers, **summary}))


def _plan() -> Plan:
    names = [service.name for service in SERVICES]
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.serving")
    parser.add_argument("--data", type=Path, default=DATA, help="label, text; tab separated")
    parser.add_argument("--environments", type=Path, default=CACHE, help="of the peers, made once")
    parser.add_argument("--only", nargs="+", choices=names, default=[], help="servers to measure")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.5, help="of a load (%(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="of every server (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of a forward pass (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="one short round: does it work?")
    arguments = parser.parse_args()
    return Plan(
        data=arguments.data,
        environments=arguments.environments,
        precision="bfloat16" if has_native_bfloat16() else "float32",
        only=arguments.only,
        rounds=1 if arguments.quick else arguments.rounds,
        seconds=0.5 if arguments.quick else arguments.seconds,
        workers=arguments.workers,
        threads=arguments.threads,
    )


if __name__ == "__main__":
    main()
