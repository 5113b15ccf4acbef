"""The process that computes predictions: ``python -m attnpriv_server.worker``.

It answers the messages of the server that started it, one after the other, and ends with the
connection: should the server be killed, nothing is left behind. A message is an object in JSON and
then bytes, each a frame of the connection; nothing is pickled.

======================================  =====================  ================  ==================
message                                 its bytes              answer            its bytes
======================================  =====================  ================  ==================
``load`` a key, ``config``,             weights, safetensors   ``memory_bytes``
``precision``
``classify`` with a key, ``lengths``    ids, int32, or         ``shape``         class
                                        patches, float32                         probabilities,
                                                                                 float32
``decode`` with a key, ``sizes``        files, one after the   ``shape``; or     pixels, uint8
                                        other                  ``refused`` and
                                                               ``reason``
``forget`` keys                                                nothing
======================================  =====================  ================  ==================

What fails is answered by ``error``, the name of its type: a message could quote a request. Images
are decoded here, so that a file that brings its decoder down takes no more than this process.
"""

from __future__ import annotations

import gc
import json
import signal
import sys
import warnings
from itertools import accumulate
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import safetensors.torch
import torch

from attnpriv.models.building import build_model
from attnpriv.models.shapes import read_shape
from attnpriv.models.text import TextModel
from attnpriv_server.backend import EagerBackend, ImageRefusedError, blank_rows, block_dtype
from attnpriv_server.memory import Returning, keep_freed_memory


def main() -> None:
    """Answer until the other end of the connection is closed."""
    descriptor, threads = map(int, sys.argv[1:])
    for number in (signal.SIGINT, signal.SIGTERM):  # the server drains, and then hangs up
        signal.signal(number, signal.SIG_IGN)
    warnings.simplefilter("ignore")  # of hostile images; they would stand among the server's logs
    torch.set_num_threads(threads)
    keep_freed_memory()
    models, freed = Models(), Returning()
    gc.freeze()  # the modules, as the server does
    with Connection(descriptor) as link:
        while True:
            try:
                send(link, *models.answer(*receive(link)))
            except (EOFError, OSError):
                return
            freed.when_due()


def send(link: Connection, head: dict[str, Any], body: bytes = b"") -> None:
    """Write a message."""
    link.send_bytes(json.dumps(head).encode())
    link.send_bytes(body)


def receive(link: Connection) -> tuple[dict[str, Any], bytes]:
    """Read a message.

    Raises:
        EOFError, OSError: the other end is gone.
    """
    head = json.loads(link.recv_bytes())
    return head, link.recv_bytes()


class Models:
    """What a worker holds."""

    def __init__(self) -> None:
        self._backends: dict[int, EagerBackend] = {}

    def answer(self, head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        """The answer to a message."""
        try:
            match head:
                case {"load": key, "config": config, "precision": precision}:
                    return self._load(key, config, precision, body), b""
                case {"classify": key, "lengths": lengths}:
                    return self._classify(key, lengths, body)
                case {"decode": key, "sizes": sizes}:
                    return self._decode(key, sizes, body)
                case {"forget": keys}:
                    for key in keys:
                        self._backends.pop(key, None)
                    return {}, b""
                case _:
                    raise ValueError("expected load, classify, decode or forget")
        except Exception as error:
            return {"error": type(error).__name__}, b""

    def _load(
        self, key: int, config: dict[str, Any], precision: Any, weights: bytes
    ) -> dict[str, Any]:
        model = build_model(read_shape(config))
        model.load_state_dict(safetensors.torch.load(weights))
        backend = EagerBackend(model.requires_grad_(False).eval(), block_dtype(precision))
        for row in blank_rows(model.config):  # kernels are made in the first pass
            backend.classify([row])
        self._backends[key] = backend
        return {"memory_bytes": sum(weight.nbytes for weight in backend.weights())}

    def _classify(self, key: int, lengths: list[int], body: bytes) -> tuple[dict[str, Any], bytes]:
        backend = self._backends[key]
        kind = np.int32 if isinstance(backend.model, TextModel) else np.float32
        rows = backend.classify_flat(np.frombuffer(body, kind), lengths)
        return {"shape": rows.shape}, rows.tobytes()

    def _decode(self, key: int, sizes: list[int], body: bytes) -> tuple[dict[str, Any], bytes]:
        ends = list(accumulate(sizes))
        files = [body[end - size : end] for size, end in zip(sizes, ends, strict=True)]
        try:
            images = self._backends[key].decode(files)
        except ImageRefusedError as refusal:
            return {"refused": refusal.index, "reason": refusal.reason}, b""
        return {"shape": images.shape}, images.tobytes()


if __name__ == "__main__":
    main()
