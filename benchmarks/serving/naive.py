"""What one writes first: a gRPC server that runs the float32 model once for each request.

As many forward passes run at a time as the other servers have workers, on as many threads.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv.v1.attnpriv_pb2_grpc import (
    AttnprivServiceServicer,
    add_AttnprivServiceServicer_to_server,
)
from benchmarks.serving.classifier import Classifier, workers


class Service(AttnprivServiceServicer):
    """``Predict`` and nothing else."""

    def __init__(self) -> None:
        self._classifier = Classifier()

    def Predict(  # noqa: N802
        self, request: pb.PredictRequest, context: grpc.ServicerContext
    ) -> pb.PredictResponse:
        """Label the texts."""
        labels = self._classifier(request.texts)
        return pb.PredictResponse(predictions=[pb.Prediction(label=label) for label in labels])


def main() -> None:
    """Serve until SIGTERM."""
    server = grpc.server(ThreadPoolExecutor(max_workers=workers()))
    add_AttnprivServiceServicer_to_server(Service(), server)
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
