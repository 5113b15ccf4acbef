"""LitServe: an HTTP process, and worker processes that batch."""

from __future__ import annotations

import sys

import litserve

from benchmarks.serving.classifier import Classifier, workers
from benchmarks.serving.peers import MAX_BATCH, MAX_WAIT


class Labels(litserve.LitAPI):
    """``POST /predict`` of a text, answered by its label."""

    def setup(self, device: str) -> None:
        """Load the model, in the worker."""
        self._classifier = Classifier()

    def decode_request(self, request):  # an annotation would be taken for a scheme
        """The text."""
        return request["text"]

    def predict(self, x: list[str]) -> list[str]:
        """Labels of a batch."""
        return self._classifier(x)

    def encode_response(self, output: str) -> dict[str, str]:
        """The answer to one request."""
        return {"label": output}


def main() -> None:
    """Serve until SIGTERM."""
    api = Labels(max_batch_size=MAX_BATCH, batch_timeout=MAX_WAIT)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=workers())
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)


if __name__ == "__main__":
    main()
