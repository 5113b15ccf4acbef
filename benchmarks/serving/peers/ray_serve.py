"""Ray Serve: an HTTP proxy process, and a replica process that batches."""

from __future__ import annotations

import signal
import sys

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.serving.classifier import Classifier, workers
from benchmarks.serving.peers import MAX_BATCH, MAX_WAIT


@serve.deployment(num_replicas=workers(), max_ongoing_requests=1000)
class Labels:
    """``POST /`` of a text, answered by its label."""

    def __init__(self) -> None:
        self._classifier = Classifier()

    async def __call__(self, request: Request) -> dict[str, str]:
        """Answer one request."""
        return {"label": await self._label((await request.json())["text"])}

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=MAX_WAIT)
    async def _label(self, texts: list[str]) -> list[str]:
        return self._classifier(texts)


def main() -> None:
    """Serve until SIGTERM."""
    ray.init("local", include_dashboard=False, object_store_memory=100 * 2**20)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Labels.bind())
    signal.sigwait({signal.SIGTERM})
    ray.shutdown()


if __name__ == "__main__":
    main()
