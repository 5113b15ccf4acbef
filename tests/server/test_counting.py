"""How many values a message has is known before it is parsed, and no more of it is read."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import example, given
from hypothesis import strategies as st

from attnpriv.inference import open_inference_pb2 as open_pb
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv_server.counting import has_more_values
from attnpriv_server.guard import VALUES
from attnpriv_server.limits import Limits
from attnpriv_server.wire import GUARDED

MALFORMED = b"\xff"
PACKED_HEADER = 2  # a tag and a length, where the numbers take less than 128 bytes
MANY = Limits().texts + VALUES + 1


def values_of(message: Message) -> int:
    """The same number from the parsed message."""
    total = 0
    for field, value in message.ListFields():
        if field.message_type is not None:
            each = value if field.is_repeated else [value]
            total += sum(1 + values_of(inner) for inner in each)
        elif field.is_packed:
            total += type(message)(**{field.name: value}).ByteSize() - PACKED_HEADER
        else:
            total += len(value) if field.is_repeated else 1
    return total


TEXTS = st.lists(st.text(max_size=3), max_size=5)
CONTENTS = st.builds(
    open_pb.InferTensorContents,
    bytes_contents=st.lists(st.binary(max_size=3), max_size=4),
    int64_contents=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
    fp64_contents=st.lists(st.floats(), max_size=4),
    bool_contents=st.lists(st.booleans(), max_size=4),
)
PARAMETERS = st.lists(
    st.fixed_dictionaries({"key": st.text(max_size=3), "value": st.just({"int64_param": 7})}),
    max_size=3,
)
MESSAGES = st.one_of(
    st.builds(pb.PredictRequest, model=st.text(max_size=3), texts=TEXTS),
    st.builds(pb.PredictStreamRequest, request=st.builds(pb.PredictRequest, texts=TEXTS)),
    st.builds(
        open_pb.ModelInferRequest,
        parameters=PARAMETERS,
        inputs=st.lists(
            st.builds(
                open_pb.ModelInferRequest.InferInputTensor,
                name=st.text(max_size=3),
                shape=st.lists(st.integers(-1, 300), max_size=4),
                parameters=PARAMETERS,
                contents=st.none() | CONTENTS,
            ),
            max_size=3,
        ),
        raw_input_contents=st.lists(st.binary(max_size=3), max_size=3),
    ),
)


@given(MESSAGES)
def test_all_values_are_counted_at_every_depth(message) -> None:
    raw, count = message.SerializeToString(), values_of(message)

    assert not has_more_values(raw, message.DESCRIPTOR, count)
    assert count == 0 or has_more_values(raw, message.DESCRIPTOR, count - 1)


@given(st.sampled_from(sorted(GUARDED)), st.binary(max_size=30))
@example("/attnpriv.v1.AttnprivService/Predict", b"\x7b\x12\x00\x7c\x12\x00")  # an unknown group
@example("/attnpriv.v1.AttnprivService/Predict", b"\x92\x00\x80\x00")  # numbers longer than needed
def test_what_can_be_parsed_can_be_counted(method, raw) -> None:
    kind = GUARDED[method].request
    try:
        GetMessageClass(kind).FromString(raw)
    except DecodeError:
        return
    assert not has_more_values(raw, kind, len(raw))


def field(number: int, content: bytes = b"") -> bytes:
    """A field of bytes, or a message; its length in three bytes."""
    size = len(content)
    return bytes([8 * number + 2, size & 127 | 128, size >> 7 & 127 | 128, size >> 14]) + content


# Where a request of each method can hold many values: none of them needs more than a byte or two.
HOSTILE = {
    "texts": ("attnpriv.v1.AttnprivService/Predict", field(2) * MANY),
    "one name again and again": ("attnpriv.v1.AttnprivService/GetModel", field(1) * MANY),
    "unknown fields": ("attnpriv.v1.AttnprivService/ListModels", b"\x78\x01" * MANY),
    "fields of an unknown group": (
        "attnpriv.v1.AttnprivService/Explain",
        b"\x7b" + b"\x08\x01" * MANY,
    ),
    "streamed texts": ("attnpriv.v1.AttnprivService/PredictStream", field(2, field(2) * MANY)),
    "streamed requests": ("attnpriv.v1.AttnprivService/PredictStream", field(2) * MANY),
    "a shape": ("inference.GRPCInferenceService/ModelInfer", field(5, field(3, b"\x01" * MANY))),
    "a shape, unpacked": (
        "inference.GRPCInferenceService/ModelInfer",
        field(5, b"\x18\x01" * MANY),
    ),
    "bytes_contents": (
        "inference.GRPCInferenceService/ModelInfer",
        field(5, field(5, field(8) * MANY)),
    ),
    "bool_contents": (
        "inference.GRPCInferenceService/ModelInfer",
        field(5, field(5, field(1, bytes(MANY)))),
    ),
    "inputs": ("inference.GRPCInferenceService/ModelInfer", field(5) * MANY),
    "outputs": ("inference.GRPCInferenceService/ModelInfer", field(6) * MANY),
    "raw contents": ("inference.GRPCInferenceService/ModelInfer", field(7) * MANY),
    "parameters": ("inference.GRPCInferenceService/ModelInfer", field(4) * MANY),
    "parameters of an input": (
        "inference.GRPCInferenceService/ModelInfer",
        field(5, field(4) * MANY),
    ),
    "parameters of an output": (
        "inference.GRPCInferenceService/ModelInfer",
        field(6, field(2) * MANY),
    ),
    "extensions": (
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        field(5) * MANY,
    ),
    "services": ("grpc.health.v1.Health/Watch", field(1) * MANY),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_message_of_too_many_values_is_refused_before_it_is_read_to_its_end(
    channel, name
) -> None:
    """Parsing it would find that its end is malformed."""
    method, raw = HOSTILE[name]

    call = channel.stream_stream(f"/{method}")(iter([raw + MALFORMED]), timeout=60)
    with pytest.raises(grpc.RpcError) as refused:
        next(call)

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details() == f"expected at most 128 texts and {VALUES} other values"
