"""The process that computes predictions: ``python -m attnpriv_server.worker``.

It answers the messages of the server that started it, one after the other, and ends with the
connection: should the server be killed, nothing is left behind.

======================================  =====================  ================  ==================
message                                 its bytes              answer            its bytes
======================================  =====================  ================  ==================
``load`` a key, ``config``,             nothing; a file of     ``memory_bytes``
``precision``, ``layout``               ``SharedTensors``
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
import os
import signal
import sys
import warnings
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from attnpriv.models.building import build_model
from attnpriv.models.shapes import read_shape
from attnpriv.models.text import TextModel
from attnpriv_server.backend import EagerBackend, blank_rows, block_dtype
from attnpriv_server.domain import Precision
from attnpriv_server.link import Link, Message
from attnpriv_server.memory import Returning, keep_freed_memory
from attnpriv_server.rows import ImageRefusedError
from attnpriv_server.shared_tensors import Layout, mapped_tensors


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
    link = Link(descriptor)
    while True:
        try:
            link.send(models.answer(link.receive()))
        except (EOFError, OSError):
            return
        freed.when_due()


class Models:
    """What a worker holds."""

    def __init__(self) -> None:
        self._backends: dict[int, EagerBackend] = {}

    def answer(self, message: Message) -> Message:
        """The answer to a message."""
        try:
            return self._answer(message)
        except Exception as error:
            return Message({"error": type(error).__name__})
        finally:
            if message.file is not None:
                os.close(message.file)

    def _answer(self, message: Message) -> Message:
        match message.head:
            case {"load": key, **how} if message.file is not None:
                return self._load(key, message.file, **how)
            case {"classify": key, "lengths": lengths}:
                return self._classify(key, lengths, message.body)
            case {"decode": key, "sizes": sizes}:
                return self._decode(key, sizes, message.body)
            case {"forget": keys}:
                for key in keys:
                    self._backends.pop(key, None)
                return Message({})
            case _:
                raise ValueError("expected load, classify, decode or forget")

    def _load(
        self, key: int, file: int, config: dict[str, Any], precision: Precision, layout: Layout
    ) -> Message:
        model = build_model(read_shape(config))
        model.load_state_dict(mapped_tensors(file, layout), assign=True)
        backend = EagerBackend(model.requires_grad_(False).eval(), block_dtype(precision))
        for row in blank_rows(model.config):  # kernels are made in the first pass
            backend.classify([row])
        self._backends[key] = backend
        return Message({"memory_bytes": backend.memory_bytes})

    def _classify(self, key: int, lengths: list[int], body: bytes) -> Message:
        backend = self._backends[key]
        kind = np.int32 if isinstance(backend.model, TextModel) else np.float32
        rows = backend.classify_flat(np.frombuffer(body, kind), lengths)
        return Message({"shape": rows.shape}, rows.tobytes())

    def _decode(self, key: int, sizes: list[int], body: bytes) -> Message:
        ends = list(accumulate(sizes))
        files = [body[end - size : end] for size, end in zip(sizes, ends, strict=True)]
        try:
            images = self._backends[key].decode(files)
        except ImageRefusedError as refusal:
            return Message({"refused": refusal.index, "reason": refusal.reason})
        return Message({"shape": images.shape}, images.tobytes())


if __name__ == "__main__":
    main()
