"""Asks a server what its users ask through kserve's gRPC client. JSON on stdin, JSON on stdout.

It runs in an environment of its own: kserve's messages and attnpriv's have the same names, so one
process cannot hold both.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import sys

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest
from kserve.protocol.grpc import grpc_predict_v2_pb2
from kserve.protocol.infer_type import RequestedOutput


class Asker:
    def __init__(self, client: InferenceGRPCClient, question: dict) -> None:
        self.client = client
        self.headers = (("authorization", f"Bearer {question['token']}"),)
        self.models = question["models"]
        self.texts = question["texts"]

    async def answers(self) -> dict:
        client, headers, first = self.client, self.headers, self.models[0]
        return {
            "descriptor": base64.b64encode(grpc_predict_v2_pb2.DESCRIPTOR.serialized_pb).decode(),
            "live": await client.is_server_live(headers=headers),
            "ready": await client.is_server_ready(headers=headers),
            "models_ready": [
                await client.is_model_ready(name, headers=headers) for name in self.models
            ],
            "predictions": {
                "raw": {name: await self.infer(name, raw=True) for name in self.models},
                "typed": {name: await self.infer(name) for name in self.models},
            },
            "one output": await self.infer(first, outputs=["truncated"]),
            "failures": {
                "unknown model": await self.failure("nobody"),
                "unknown version": await self.failure(first, version="999"),
                "no text": await self.failure(first, texts=[]),
                "an empty text": await self.failure(first, texts=[" "]),
                "unknown input": await self.failure(first, name="image"),
                "unknown output": await self.failure(first, outputs=["logits"]),
                "unknown parameter": await self.failure(first, parameters={"priority": 1}),
                "no token": await self.failure(first, headers=()),
            },
            "withheld": {
                name: await self.failure(name, outputs=["probabilities"]) for name in self.models
            },
        }

    async def infer(
        self,
        model: str,
        texts: list[str] | None = None,
        name: str = "text",
        outputs: tuple[str, ...] = (),
        raw: bool = False,
        version: str | None = None,
        parameters: dict | None = None,
        headers=None,
    ) -> dict:
        texts = self.texts if texts is None else texts
        data = np.array(texts, dtype=np.object_) if raw else list(texts)
        response = await self.client.infer(
            InferRequest(
                model,
                [InferInput(name, [len(texts)], "BYTES", data)],
                request_id="7",
                parameters=parameters,
                request_outputs=[RequestedOutput(output) for output in outputs],
                model_version=version,
            ),
            headers=self.headers if headers is None else headers,
        )
        return {
            "id": response.id,
            "model_name": response.model_name,
            "model_version": response.model_version,
            "outputs": {output.name: plain(output.as_numpy()) for output in response.outputs},
        }

    async def failure(self, model: str, **options) -> str | None:
        """The status that a request ends with; None where it succeeds."""
        try:
            await self.infer(model, **options)
        except grpc.RpcError as error:
            return error.code().name
        return None


def plain(values: np.ndarray) -> list:
    if values.dtype == np.object_:
        return [value.decode() for value in values.tolist()]
    return values.tolist()


async def main() -> None:
    question = json.load(sys.stdin)
    root = question["root_certificates"]
    async with InferenceGRPCClient(
        question["target"], use_ssl=root is not None, root_certificates=root
    ) as client:
        json.dump(await Asker(client, question).answers(), sys.stdout)


if __name__ == "__main__":
    logging.disable()  # it logs every failed call with a traceback
    asyncio.run(main())
