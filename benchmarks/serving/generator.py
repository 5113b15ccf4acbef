"""The load generator: a process that sends prepared bytes and times the answers.

It runs in the environment of the server that it asks, and imports nothing of this project. It reads
a file of request bodies, then one command a line from stdin, and writes one line of JSON for each:

=========================================  =====================================================
command                                    does
=========================================  =====================================================
``{"ask": n, "mix": m}``                   sends the first n bodies at once; answers in base64,
                                           null for one that failed
``{"concurrency": c, "seconds": s, ...}``  closed loop: c callers, each waits for its answer
``{"rate": r, "seed": n, ...}``            open loop: Poisson arrivals, whatever comes back
=========================================  =====================================================

A latency of the closed loop begins when the request is sent, one of the open loop when it was due,
so that a slow server cannot slow its own load down. Timers are late by up to a millisecond, for
every server alike. The first half second of a loop counts for nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import math
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

RAMP = 0.5  # seconds
TIMEOUT = 10.0
PAUSE = 0.01  # after a failure, which may have come at once, and would be asked for again at once

Send = Callable[[bytes], Awaitable[bytes | None]]


def main() -> None:
    """Obey commands until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bodies", type=Path, help="JSON: for each mix, bodies in base64")
    parser.add_argument("--grpc", metavar="METHOD", help="its path; without it, HTTP")
    parser.add_argument("target", help="HOST:PORT for gRPC, else a URL")
    arguments = parser.parse_args()
    connect = _grpc(arguments.target, arguments.grpc) if arguments.grpc else _http(arguments.target)
    bodies = {
        mix: [base64.b64decode(body) for body in encoded]
        for mix, encoded in json.loads(arguments.bodies.read_text(encoding="utf-8")).items()
    }
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(asyncio.run(_obey(connect, command, bodies[command["mix"]]))), flush=True)


async def _obey(connect: Any, command: dict[str, Any], bodies: Sequence[bytes]) -> Any:
    async with connect() as send:
        if "ask" in command:
            answers = await asyncio.gather(*map(send, bodies[: command["ask"]]))
            return [answer and base64.b64encode(answer).decode() for answer in answers]
        loop = Loop(send, itertools.cycle(bodies), command["seconds"])
        wall, processor = time.monotonic(), time.process_time()
        if "rate" in command:
            await loop.open(command["rate"], command["seed"])
        else:
            await loop.closed(command["concurrency"])
        share = (time.process_time() - processor) / (time.monotonic() - wall)
        return {**loop.summary(), "client_cpu": share}


class Loop:
    """One measurement.

    Args:
        send: sends a body; its answer, or None where that failed.
        bodies: what to send, endlessly.
        seconds: how long to measure.
    """

    def __init__(self, send: Send, bodies: itertools.cycle[bytes], seconds: float) -> None:
        self._send = send
        self._bodies = bodies
        self._begin = time.monotonic() + RAMP
        self._end = self._begin + seconds
        self._last = self._end
        self._latencies: list[float] = []
        self._errors = 0

    async def closed(self, concurrency: int) -> None:
        """Keep that many requests under way; what is answered within the time counts."""
        await asyncio.gather(*(self._caller() for _ in range(concurrency)))

    async def open(self, rate: float, seed: int) -> None:
        """Send at that many requests a second on average; what is due within the time counts."""
        gaps, due, tasks = random.Random(seed), time.monotonic(), []
        while (due := due + gaps.expovariate(rate)) < self._end:
            await asyncio.sleep(due - time.monotonic())
            tasks.append(asyncio.create_task(self._arrival(due)))
        await asyncio.gather(*tasks)

    def summary(self) -> dict[str, Any]:
        """Answers a second, errors, and percentiles of the latency in milliseconds."""
        latencies = sorted(self._latencies)
        return {
            "throughput": len(latencies) / (self._last - self._begin),
            "errors": self._errors,
            **{f"p{percent}": _percentile(latencies, percent) for percent in (50, 95, 99)},
        }

    async def _caller(self) -> None:
        while (sent := time.monotonic()) < self._end:
            answered = await self._send(next(self._bodies)) is not None
            if self._begin <= time.monotonic() < self._end:
                self._record(sent, answered)
            if not answered:
                await asyncio.sleep(PAUSE)

    async def _arrival(self, due: float) -> None:
        answered = await self._send(next(self._bodies)) is not None
        if due >= self._begin:
            self._record(due, answered)
            self._last = max(self._last, time.monotonic())

    def _record(self, began: float, answered: bool) -> None:
        if answered:
            self._latencies.append(1e3 * (time.monotonic() - began))
        else:
            self._errors += 1


def _percentile(ordered: Sequence[float], percent: int) -> float | None:
    """The smallest value that this many per cent do not exceed."""
    return ordered[math.ceil(len(ordered) * percent / 100) - 1] if ordered else None


def _grpc(target: str, method: str) -> Any:
    import grpc

    @asynccontextmanager
    async def connect() -> AsyncIterator[Send]:
        # A pool of its own, or a new channel would wait for the next try of one that failed.
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
        async with grpc.aio.insecure_channel(target, options) as channel:
            call = channel.unary_unary(method)

            async def send(body: bytes) -> bytes | None:
                try:
                    return await call(body, timeout=TIMEOUT)
                except grpc.RpcError:
                    return None

            yield send

    return connect


def _http(url: str) -> Any:
    import aiohttp

    @asynccontextmanager
    async def connect() -> AsyncIterator[Send]:
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(TIMEOUT),
            headers={"Content-Type": "application/json"},
        ) as session:

            async def send(body: bytes) -> bytes | None:
                try:
                    async with session.post(url, data=body) as response:
                        answer = await response.read()
                        return answer if response.status == 200 else None
                except (aiohttp.ClientError, TimeoutError):
                    return None

            yield send

    return connect


if __name__ == "__main__":
    main()
