"""The Open Inference Protocol, version 2: wire to domain and back, and its handlers.

The only place in the server that knows these messages. It decides how the protocol's tensors become
texts or images, and refuses those that cannot; whatever else its clients ask is for the same core
as all calls. ``docs/open-inference.md`` has the mapping.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, NoReturn, assert_never

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

import attnpriv
from attnpriv.inference import open_inference_pb2 as pb
from attnpriv_server.budget.requests import SHORTEST_ID
from attnpriv_server.calls import Call
from attnpriv_server.domain import (
    Code,
    GetModelRequest,
    ImageFile,
    Model,
    Predictions,
    PredictRequest,
    Readiness,
    ReadinessRequest,
    RefusedError,
    Request,
    Response,
    Violation,
)
from attnpriv_server.methods import OPEN_INFERENCE

# As the protocol writes platforms, project and format.
PLATFORM = "pytorch_safetensors"
TEXT, IMAGE = "text", "image"
OUTPUTS = ("label", "probabilities", "truncated", "label_names")
# What each method asks.
REQUESTS: dict[str, type[Request]] = {
    "ServerLive": ReadinessRequest,
    "ServerReady": ReadinessRequest,
    "ServerMetadata": ReadinessRequest,
    "ModelReady": ReadinessRequest,
    "ModelMetadata": GetModelRequest,
    "ModelInfer": PredictRequest,
}

Datatype = Literal["BYTES", "FP32", "BOOL"]


def handlers(most: int) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    """The service's methods by name, for ``guard`` to stand before.

    Args:
        most: texts or images of a request.
    """

    async def answer(message: Message, call: Call) -> Message:
        return to_wire(message, await call.answer(to_domain(message, most)))

    return {
        method.name: grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )
        for method in OPEN_INFERENCE.methods
    }


def to_domain(message: Message, most: int) -> Request:
    """What a request message asks for.

    What is asked about the server itself becomes a question too, since only the core tells who may
    know.

    Args:
        message: the request.
        most: texts or images of a request. The core refuses more as well, but here they need not
            even be read: a raw tensor can hold a million in four megabytes.

    Raises:
        RefusedError: the tensors, outputs or parameters are not those of the model's metadata.
        TypeError: it is not one of the service's request messages.
    """
    match message:
        case pb.ServerLiveRequest() | pb.ServerReadyRequest() | pb.ServerMetadataRequest():
            return ReadinessRequest()
        case pb.ModelReadyRequest():
            return ReadinessRequest(message.name, message.version or None)
        case pb.ModelMetadataRequest():
            return GetModelRequest(message.name, message.version or None)
        case pb.ModelInferRequest():
            _check_parameters("parameters", message)
            _check_outputs(message)
            elements = _elements(message, most)
            is_text = message.inputs[0].name == TEXT
            return PredictRequest(
                message.model_name,
                tuple(map(_text, count(), elements)) if is_text else (),
                message.model_version or None,
                _request_id(message),
                images=() if is_text else tuple(map(ImageFile, elements)),
            )
        case _:
            raise TypeError(f"not a request: {type(message).__name__}")


def to_wire(message: Message, response: Response) -> Message:
    """The message that carries the answer to a request message.

    Raises:
        RefusedError: an output was asked for by name that the policy withholds.
        TypeError: the answer is to another request.
    """
    match message, response:
        case pb.ServerLiveRequest(), Readiness():
            return pb.ServerLiveResponse(live=True)
        case pb.ServerReadyRequest(), Readiness():
            return pb.ServerReadyResponse(ready=response.ready)
        case pb.ModelReadyRequest(), Readiness():
            return pb.ModelReadyResponse(ready=response.ready)
        case pb.ServerMetadataRequest(), Readiness():
            return pb.ServerMetadataResponse(name="attnpriv-server", version=attnpriv.__version__)
        case pb.ModelMetadataRequest(), Model():
            return _metadata(response)
        case pb.ModelInferRequest(), Predictions():
            return _inferred(message, response)
        case _:
            found = f"{type(message).__name__} and {type(response).__name__}"
            raise TypeError(f"not a request and its answer: {found}")


# Requests


def _elements(message: pb.ModelInferRequest, most: int) -> Sequence[bytes]:
    """The texts, in UTF-8, or the files of images."""
    if [tensor.name for tensor in message.inputs[:2]] not in ([TEXT], [IMAGE]):
        _refuse("inputs", f"expected one tensor, named {TEXT} or {IMAGE}")
    tensor = message.inputs[0]
    if tensor.datatype != "BYTES":
        _refuse("inputs[0].datatype", "expected BYTES")
    raw = bool(message.raw_input_contents)
    elements = _raw_elements(message, most) if raw else _typed_elements(tensor, most)
    found = len(elements)
    if tuple(tensor.shape) not in ((found,), (found, 1)):
        _refuse("inputs[0].shape", f"expected [{found}] or [{found}, 1] for {found} elements")
    return elements


def _request_id(message: pb.ModelInferRequest) -> str | None:
    """The id, where it may be one that nobody can guess: many clients count, or send none."""
    return message.id if len(message.id) >= SHORTEST_ID else None


def _typed_elements(tensor: pb.ModelInferRequest.InferInputTensor, most: int) -> Sequence[bytes]:
    _check_parameters("inputs[0].parameters", tensor)
    if any(field.name != "bytes_contents" for field, _ in tensor.contents.ListFields()):
        _refuse("inputs[0].contents", "expected bytes_contents alone")
    elements = tensor.contents.bytes_contents
    if len(elements) > most:
        _refuse_texts(most)
    return elements


def _raw_elements(message: pb.ModelInferRequest, most: int) -> list[bytes]:
    tensor, found = message.inputs[0], len(message.raw_input_contents)
    if found != 1:
        _refuse("raw_input_contents", f"expected one for each input, got {found}")
    if tensor.HasField("contents"):
        _refuse("inputs[0].contents", "expected none beside raw_input_contents")
    raw = message.raw_input_contents[0]
    _check_parameters("inputs[0].parameters", tensor, binary_data_size=len(raw))
    return unpack(raw, most)


def unpack(raw: bytes, most: int) -> list[bytes]:
    """The elements of a raw BYTES tensor, each behind its length as four bytes, the lowest first.

    Raises:
        RefusedError: an element or a length is cut off, or there are more than ``most``.
    """
    elements: list[bytes] = []
    position = 0
    while position < len(raw):
        if len(elements) == most:
            _refuse_texts(most)
        start = position + 4
        end = start + int.from_bytes(raw[position:start], "little")
        if end > len(raw):
            _refuse("raw_input_contents[0]", f"expected {end} bytes or more, got {len(raw)}")
        elements.append(raw[start:end])
        position = end
    return elements


def _refuse_texts(most: int) -> NoReturn:
    _refuse("inputs[0].shape", f"expected 1 to {most} elements, got more")


def _text(number: int, element: bytes) -> str:
    try:
        return element.decode()
    except UnicodeDecodeError:
        _refuse("inputs[0]", f"expected UTF-8 in element {number}")


def _check_outputs(message: pb.ModelInferRequest) -> None:
    left = set(OUTPUTS)
    for number, output in enumerate(message.outputs):
        if output.name not in left:
            names = ", ".join(OUTPUTS)
            _refuse(f"outputs[{number}].name", f"expected one of {names}, each at most once")
        _check_parameters(f"outputs[{number}].parameters", output)
        left.remove(output.name)


def _check_parameters(
    field: str,
    owner: pb.ModelInferRequest
    | pb.ModelInferRequest.InferInputTensor
    | pb.ModelInferRequest.InferRequestedOutputTensor,
    **known: int,
) -> None:
    """Refuse parameters that are not known: a caller would take them for granted."""
    found = ((entry.key, entry.value.int64_param) for entry in owner.parameters)
    if any(known.get(name) != value for name, value in found):
        expected = "".join(f", or {name}={value}" for name, value in known.items())
        _refuse(field, f"expected none{expected}")


def _refuse(field: str, expected: str) -> NoReturn:
    violation = Violation(field, expected)
    raise RefusedError(Code.INVALID_ARGUMENT, f"{field}: {expected}", (violation,))


# Answers


@dataclass(frozen=True)
class _Tensor:
    """The elements of an output, row by row."""

    datatype: Datatype
    shape: tuple[int, ...]
    elements: Sequence[Any]

    def typed(self) -> pb.InferTensorContents:
        match self.datatype:
            case "BYTES":
                return pb.InferTensorContents(bytes_contents=self.elements)
            case "FP32":
                return pb.InferTensorContents(fp32_contents=self.elements)
            case "BOOL":
                return pb.InferTensorContents(bool_contents=self.elements)
        assert_never(self.datatype)

    def raw(self) -> bytes:
        match self.datatype:
            case "BYTES":
                return b"".join(len(each).to_bytes(4, "little") + each for each in self.elements)
            case "FP32":
                return struct.pack(f"<{len(self.elements)}f", *self.elements)
            case "BOOL":
                return bytes(self.elements)
        assert_never(self.datatype)


def _inferred(message: pb.ModelInferRequest, answer: Predictions) -> pb.ModelInferResponse:
    """Raw where the request was, since a client reads what it writes."""
    response = pb.ModelInferResponse(
        model_name=message.model_name, model_version=answer.version, id=message.id
    )
    tensors = _tensors(answer)
    released = [name for name in OUTPUTS if name in tensors]
    for name in [output.name for output in message.outputs] or released:
        tensor = tensors.get(name)
        if tensor is None:
            raise RefusedError(Code.PERMISSION_DENIED, f"the policy withholds {name}")
        output = response.outputs.add(name=name, datatype=tensor.datatype, shape=tensor.shape)
        if message.raw_input_contents:
            response.raw_output_contents.append(tensor.raw())
        else:
            output.contents.CopyFrom(tensor.typed())
    return response


def _tensors(answer: Predictions) -> dict[str, _Tensor]:
    """Every output that the policy releases, by name."""
    rows, classes = len(answer.predictions), len(answer.label_names)
    tensors = {
        "label": _Tensor("BYTES", (rows,), [each.label.encode() for each in answer.predictions]),
        "truncated": _Tensor("BOOL", (rows,), [each.truncated for each in answer.predictions]),
        "label_names": _Tensor("BYTES", (classes,), [each.encode() for each in answer.label_names]),
    }
    released = [each.probabilities for each in answer.predictions if each.probabilities is not None]
    if len(released) == rows:
        probabilities = [value for row in released for value in row]
        tensors["probabilities"] = _Tensor("FP32", (rows, classes), probabilities)
    return tensors


def _metadata(model: Model) -> pb.ModelMetadataResponse:
    classes = len(model.card.label_names)
    tensor = pb.ModelMetadataResponse.TensorMetadata
    return pb.ModelMetadataResponse(
        name=model.card.name,
        versions=model.versions,
        platform=PLATFORM,
        inputs=[tensor(name=IMAGE if model.pixels else TEXT, datatype="BYTES", shape=[-1])],
        outputs=[
            tensor(name="label", datatype="BYTES", shape=[-1]),
            tensor(name="probabilities", datatype="FP32", shape=[-1, classes]),
            tensor(name="truncated", datatype="BOOL", shape=[-1]),
            tensor(name="label_names", datatype="BYTES", shape=[classes]),
        ],
    )
