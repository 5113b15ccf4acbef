"""Callers in a process of their own, which ask a server for more than it can do.

The loop is open: requests leave when they are due, whatever has become of those before. Each is
bounded by a deadline, so that the loop ends soon after its time is over.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import grpc

from attnpriv.inference import open_inference_pb2 as open_pb
from attnpriv.v1 import attnpriv_pb2 as pb

SERVICE = "/attnpriv.v1.AttnprivService"
INFER = "/inference.GRPCInferenceService/ModelInfer"
CHANNELS = 8  # of each process
MODEL = "private"
WORDS = ("where", "is", "my", "parcel", "the", "new", "password", "does", "not", "work", "4111")
MOST_TEXTS, MOST_WORDS = 96, 160  # of a request; of a text, which may be more than is read
PATIENCE = 60.0  # far beyond what a full queue takes
STREAMED = 8

# How many in a hundred are of each kind.
KINDS = {
    "patient": 10,  # not cancelled, with time enough: an answer or a refusal has to come
    "predict": 50,
    "cancelled": 10,
    "infer": 12,
    "explain": 5,
    "stream": 5,
    "malformed": 5,
    "stranger": 3,
}
# INTERNAL with these words is grpc.aio's own, and no server's: the call ended, by its deadline for
# instance, while a request was being written.
CORE_ERROR, WRITING = "Internal error from Core", "ENDED_WHILE_WRITING"
# By which statuses one of a kind may end.
BUSY = frozenset({"OK", "RESOURCE_EXHAUSTED"})
LATE = BUSY | {"DEADLINE_EXCEEDED"}
EXPECTED = {
    "patient": BUSY,
    "predict": LATE,
    "cancelled": LATE | {"CANCELLED"},
    "infer": LATE,
    "explain": LATE,
    "stream": LATE | {"CANCELLED", WRITING},
    "malformed": frozenset({"INVALID_ARGUMENT"}),
    "stranger": frozenset({"UNAUTHENTICATED"}),
}
# Some of them have to be answered. Streams wait instead of being refused, longer than they may.
ANSWERED = ("patient", "predict", "infer", "explain")

Outcome = tuple[str, str]  # kind and status


@dataclass(frozen=True)
class Load:
    """What one process is to send.

    Attributes:
        target: the server's address.
        tokens: those of the principals, who take turns; the first one is the patient one's.
        rate: requests a second on average, at random times.
        seconds: for how long.
        seed: of everything random.
    """

    target: str
    tokens: tuple[str, ...]
    rate: float
    seconds: float
    seed: int


def send(load: Load) -> dict[str, Any]:
    """Send it; how many were sent in the time, and how they ended."""
    return asyncio.run(_send(load))


def capacity(target: str, token: str, concurrency: int, seconds: float) -> float:
    """Predictions a second that are answered where nobody asks for more."""
    return asyncio.run(_closed_loop(target, token, concurrency, seconds))


async def _send(load: Load) -> dict[str, Any]:
    dice = random.Random(load.seed)
    kinds = dice.choices(list(KINDS), KINDS.values(), k=10_000)
    ends: Counter[Outcome] = Counter()
    open_calls: set[asyncio.Task[Outcome]] = set()

    def note(task: asyncio.Task[Outcome]) -> None:
        open_calls.discard(task)
        ends[task.result()] += 1

    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(_channel(load.target)) for _ in range(CHANNELS)]
        callers = [Caller(channel, load.tokens, dice) for channel in channels]
        begin = due = time.monotonic()
        for kind, caller in zip(itertools.cycle(kinds), itertools.cycle(callers), strict=False):
            due += dice.expovariate(load.rate)
            await asyncio.sleep(due - time.monotonic())
            if time.monotonic() >= begin + load.seconds:
                break
            open_calls.add(task := asyncio.create_task(caller.ask(kind)))
            task.add_done_callback(note)
        if open_calls:
            await asyncio.wait(open_calls, timeout=2 * PATIENCE)
        lost = len(open_calls)
    return {
        "sent": ends.total() + lost,
        "without_an_end": lost,
        "ends": [[kind, code, count] for (kind, code), count in sorted(ends.items())],
    }


async def _closed_loop(target: str, token: str, concurrency: int, seconds: float) -> float:
    answered = 0

    async def ask_on(caller: Caller, end: float) -> None:
        nonlocal answered
        while time.monotonic() < end:
            if await caller.ask("patient") == ("patient", "OK"):
                answered += 1

    async with _channel(target) as channel:
        caller, end = Caller(channel, (token,), random.Random(0)), time.monotonic() + seconds
        await asyncio.gather(*(ask_on(caller, end) for _ in range(concurrency)))
    return answered / seconds


class Caller:
    """Sends one request of a kind over a connection.

    Args:
        channel: the connection.
        tokens: see ``Load``.
        dice: decides on lengths, deadlines and principals.
    """

    def __init__(
        self, channel: grpc.aio.Channel, tokens: tuple[str, ...], dice: random.Random
    ) -> None:
        self._channel = channel
        self._tokens = tokens
        self._dice = dice
        self._asks: dict[str, Callable[[], Awaitable[None]]] = {
            "patient": lambda: self._unary("Predict", self._predict(), PATIENCE, tokens[0]),
            "predict": lambda: self._unary("Predict", self._predict()),
            "cancelled": self._cancelled,
            "infer": self._infer,
            "explain": lambda: self._unary("Explain", self._explain()),
            "stream": self._stream,
            "malformed": lambda: self._unary("Predict", b"\x0a\x07private\xff", PATIENCE),
            "stranger": lambda: self._unary("Predict", self._predict(), PATIENCE, "of-nobody"),
        }

    async def ask(self, kind: str) -> Outcome:
        """Send it and wait for its end."""
        try:
            await self._asks[kind]()
        except grpc.aio.AioRpcError as error:
            code = WRITING if error.details() == CORE_ERROR else error.code().name
            return kind, code if code in EXPECTED[kind] else f"{code}: {error.details()}"
        except asyncio.CancelledError:
            return kind, "CANCELLED"
        except Exception as error:  # a status of nobody's, so that it is found
            return kind, type(error).__name__
        return kind, "OK"

    async def _unary(
        self, method: str, raw: bytes, timeout: float | None = None, token: str | None = None
    ) -> None:
        path = method if method.startswith("/") else f"{SERVICE}/{method}"
        await self._channel.unary_unary(path)(
            raw, timeout=timeout or self._timeout(), metadata=self._metadata(token)
        )

    async def _cancelled(self) -> None:
        call = self._channel.unary_unary(f"{SERVICE}/Predict")(
            self._predict(), timeout=self._timeout(), metadata=self._metadata()
        )
        asyncio.get_running_loop().call_later(self._dice.uniform(0, 0.5), call.cancel)
        await call

    async def _infer(self) -> None:
        texts = self._texts()
        request = open_pb.ModelInferRequest(
            model_name=MODEL,
            inputs=[{"name": "text", "datatype": "BYTES", "shape": [len(texts)]}],
            raw_input_contents=[b"".join(len(t).to_bytes(4, "little") + t.encode() for t in texts)],
        )
        await self._unary(INFER, request.SerializeToString())

    async def _stream(self) -> None:
        """Half of them go away in the middle."""
        requests = (
            pb.PredictStreamRequest(
                number=number, request=pb.PredictRequest(model=MODEL, texts=self._texts()[:8])
            ).SerializeToString()
            for number in range(STREAMED)
        )
        call = self._channel.stream_stream(f"{SERVICE}/PredictStream")(
            requests, timeout=self._timeout(), metadata=self._metadata()
        )
        leaves = self._dice.random() < 0.5
        async for _ in call:
            if leaves:
                call.cancel()

    def _predict(self) -> bytes:
        return pb.PredictRequest(model=MODEL, texts=self._texts()).SerializeToString()

    def _explain(self) -> bytes:
        return pb.ExplainRequest(model=MODEL, text=self._texts()[0]).SerializeToString()

    def _texts(self) -> list[str]:
        """As many as few, and as long as short: both uniform in their logarithm."""
        count = round(MOST_TEXTS ** self._dice.random())
        lengths = (round(MOST_WORDS ** self._dice.random()) for _ in range(count))
        return [" ".join(self._dice.choices(WORDS, k=length)) for length in lengths]

    def _timeout(self) -> float:
        return self._dice.choice((0.2, 1.0, 5.0))

    def _metadata(self, token: str | None = None) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {token or self._dice.choice(self._tokens[1:])}"),)


def _channel(target: str) -> grpc.aio.Channel:
    # Without their own pools channels share one connection.
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
    return grpc.aio.insecure_channel(target, options)
