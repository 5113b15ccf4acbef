"""The process that computes predictions: ``python -m attnpriv_server.worker``.

It answers the messages of the server that started it, one after the other, and ends with the
connection: should the server be killed, nothing is left behind. A message is an object in JSON and
then bytes, each a frame of the connection; nothing is pickled.

======================================  =====================  ================  ==================
message                                 its bytes              answer            its bytes
======================================  =====================  ================  ==================
``load`` a key, ``config``,             weights, safetensors   ``memory_bytes``
``precision``
``classify`` with a key, ``lengths``    ids, int32             ``shape``         class
                                                                                 probabilities,
                                                                                 float32
``forget`` keys                                                nothing
======================================  =====================  ================  ==================

What fails is answered by ``error``, the name of its type: a message could quote a request.
"""

from __future__ import annotations

import gc
import json
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import safetensors.torch
import torch

from attnpriv.config import ModelConfig
from attnpriv.models.building import build_model
from attnpriv_server.backend import EagerBackend, block_dtype
from attnpriv_server.memory import Returning, keep_freed_memory


def main() -> None:
    """Answer until the other end of the connection is closed."""
    descriptor, threads = map(int, sys.argv[1:])
    for number in (signal.SIGINT, signal.SIGTERM):  # the server drains, and then hangs up
        signal.signal(number, signal.SIG_IGN)
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
                case {"forget": keys}:
                    for key in keys:
                        self._backends.pop(key, None)
                    return {}, b""
                case _:
                    raise ValueError("expected load, classify or forget")
        except Exception as error:
            return {"error": type(error).__name__}, b""

    def _load(
        self, key: int, config: dict[str, Any], precision: Any, weights: bytes
    ) -> dict[str, Any]:
        model = build_model(ModelConfig.from_dict(config))
        model.load_state_dict(safetensors.torch.load(weights))
        backend = EagerBackend(model.requires_grad_(False).eval(), block_dtype(precision))
        for length in (1, model.config.max_length):  # kernels are made in the first pass
            backend.classify([[0] * length])
        self._backends[key] = backend
        return {"memory_bytes": sum(weight.nbytes for weight in backend.weights())}

    def _classify(self, key: int, lengths: list[int], body: bytes) -> tuple[dict[str, Any], bytes]:
        ids = torch.from_numpy(np.frombuffer(body, np.int32).astype(np.int64))
        rows = self._backends[key].classify_tokens(ids, lengths)
        return {"shape": rows.shape}, rows.tobytes()


if __name__ == "__main__":
    main()
