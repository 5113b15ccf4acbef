"""Asks a server what its users ask through tritonclient. JSON on stdin, JSON on stdout.

It runs in an environment of its own: tritonclient's messages and attnpriv's have the same names, so
one process cannot hold both.
"""

from __future__ import annotations

import base64
import json
import sys

import numpy as np
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException


class Asker:
    def __init__(self, question: dict) -> None:
        root = question["root_certificates"]
        self.client = triton.InferenceServerClient(
            question["target"], ssl=root is not None, root_certificates=root
        )
        self.headers = {"authorization": f"Bearer {question['token']}"}
        self.models = question["models"]
        self.texts = question["texts"]

    def answers(self) -> dict:
        client, headers = self.client, self.headers
        return {
            "descriptor": base64.b64encode(service_pb2.DESCRIPTOR.serialized_pb).decode(),
            "live": client.is_server_live(headers),
            "ready": client.is_server_ready(headers),
            "models_ready": [client.is_model_ready(name, headers=headers) for name in self.models],
            "server": client.get_server_metadata(headers, as_json=True),
            "metadata": {
                name: client.get_model_metadata(name, headers=headers, as_json=True)
                for name in self.models
            },
            "predictions": {
                "raw": {name: self.infer(name) for name in self.models},
                "raw column": {name: self.infer(name, column=True) for name in self.models},
            },
            "one output": self.infer(self.models[0], outputs=["truncated"]),
            "failures": {
                "unknown model": self.failure("nobody"),
                "unknown version": self.failure(self.models[0], version="999"),
                "no text": self.failure(self.models[0], texts=[]),
                "an empty text": self.failure(self.models[0], texts=[" "]),
                "unknown input": self.failure(self.models[0], name="image"),
                "unknown output": self.failure(self.models[0], outputs=["logits"]),
                "unknown parameter": self.failure(self.models[0], priority=1),
                "no token": self.failure(self.models[0], headers={}),
            },
            "withheld": {
                name: self.failure(name, outputs=["probabilities"]) for name in self.models
            },
        }

    def infer(
        self, model, texts=None, name="text", outputs=(), column=False, headers=None, **options
    ) -> dict:
        elements = np.array(self.texts if texts is None else texts, dtype=np.object_)
        if column:
            elements = elements.reshape(-1, 1)
        tensor = triton.InferInput(name, elements.shape, "BYTES").set_data_from_numpy(elements)
        result = self.client.infer(
            model,
            [tensor],
            model_version=options.pop("version", ""),
            outputs=[triton.InferRequestedOutput(output) for output in outputs] or None,
            request_id="7",
            headers=self.headers if headers is None else headers,
            **options,
        )
        response = result.get_response()
        return {
            "id": response.id,
            "model_name": response.model_name,
            "model_version": response.model_version,
            "outputs": {
                output.name: plain(result.as_numpy(output.name)) for output in response.outputs
            },
        }

    def failure(self, model: str, **options) -> str | None:
        """The status that a request ends with; None where it succeeds."""
        try:
            self.infer(model, **options)
        except InferenceServerException as error:
            return error.status().removeprefix("StatusCode.")
        return None


def plain(values: np.ndarray) -> list:
    if values.dtype == np.object_:
        return [value.decode() for value in values.tolist()]
    return values.tolist()


if __name__ == "__main__":
    json.dump(Asker(json.load(sys.stdin)).answers(), sys.stdout)
