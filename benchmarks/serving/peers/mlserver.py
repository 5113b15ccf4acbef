"""MLServer: an HTTP process that batches, and worker processes that compute."""

from __future__ import annotations

import asyncio
import sys

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.serving.classifier import Classifier, workers
from benchmarks.serving.peers import MAX_BATCH, MAX_WAIT


class Labels(MLModel):
    """``POST /v2/models/labels/infer`` of texts, answered by their labels."""

    async def load(self) -> bool:
        """Load the model, in the worker."""
        self._classifier = Classifier()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Labels of a batch."""
        labels = self._classifier(StringCodec.decode_input(payload.inputs[0]))
        output = StringCodec.encode_output("labels", labels)
        return InferenceResponse(model_name=self.name, outputs=[output])


async def main() -> None:
    """Serve until SIGTERM."""
    port = int(sys.argv[1])
    settings = Settings(
        host="127.0.0.1", http_port=port, grpc_port=0, metrics_port=0, parallel_workers=workers()
    )
    model = ModelSettings(
        name="labels",
        implementation="benchmarks.serving.peers.mlserver.Labels",
        max_batch_size=MAX_BATCH,
        max_batch_time=MAX_WAIT,
    )
    await MLServer(settings).start([model])


if __name__ == "__main__":
    asyncio.run(main())
