"""Whatever is sent, to whichever method, no answer is a defect."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from attnpriv.data.text import Text
from attnpriv.data.tokenisation import Encoding, HashTokenizer
from attnpriv.inference import open_inference_pb2 as open_pb
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv_server.methods import METHODS

SECONDS = 60
# What a request can be at fault for; gRPC's own UNIMPLEMENTED is for methods that are not there.
REFUSALS = {"INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED"}
STREAMS = {"PredictStream", "ServerReflectionInfo", "Watch"}
CODES = {code.value[0]: code.name for code in grpc.StatusCode}


@pytest.fixture(autouse=True)
def _no_defect(caplog) -> Iterator[None]:
    yield
    assert not [record for record in caplog.get_records("call") if record.msg == "defect"]


def outcome(channel: grpc.Channel, method: str, raw: bytes) -> tuple[str, str]:
    """How a call ends; of a stream, no more than the first answer is read."""
    if method.rpartition("/")[2] not in STREAMS:
        call = channel.unary_unary(method).future(raw, SECONDS)
        return call.code().name, call.details()
    call = channel.stream_stream(method)(iter([raw]), SECONDS)
    try:
        answer = next(call, b"")
    except grpc.RpcError as error:
        return error.code().name, error.details()
    call.cancel()
    return told(method, answer)


def told(method: str, answer: bytes) -> tuple[str, str]:
    """The status that an answer has within: one request of a stream may fail on its own."""
    if not method.endswith("/PredictStream"):
        return "OK", ""
    error = pb.PredictStreamResponse.FromString(answer).error
    return CODES[error.code], error.message


def check(method: str, code: str, details: str) -> None:
    """Fail where a call ended by a fault that is not the request's, or shows Python's text."""
    hidden = method.endswith("Health/List")  # but parsed, as everything is
    wanted = {"UNIMPLEMENTED", "INVALID_ARGUMENT"} if hidden else {"OK", *REFUSALS}
    assert code in wanted, (method, code, details)
    assert "Error" not in details
    assert "Traceback" not in details


def checked(channel: grpc.Channel, method: str, raw: bytes) -> str:
    """The code by which a call ends, once it was checked."""
    code, details = outcome(channel, method, raw)
    check(method, code, details)
    return code


def predict(text: str) -> pb.PredictRequest:
    return pb.PredictRequest(model="private", texts=["fine", text])


def infer(text: str) -> open_pb.ModelInferRequest:
    contents = open_pb.InferTensorContents(bytes_contents=[b"fine", text.encode()])
    tensor = open_pb.ModelInferRequest.InferInputTensor(
        name="text", datatype="BYTES", shape=[2], contents=contents
    )
    return open_pb.ModelInferRequest(model_name="private", inputs=[tensor])


ASKING: dict[str, Callable[[str], Message]] = {
    "/attnpriv.v1.AttnprivService/Predict": predict,
    "/attnpriv.v1.AttnprivService/PredictStream": lambda text: pb.PredictStreamRequest(
        request=predict(text)
    ),
    "/attnpriv.v1.AttnprivService/Explain": lambda text: pb.ExplainRequest(
        model="private", text=text
    ),
    "/inference.GRPCInferenceService/ModelInfer": infer,
}


@pytest.mark.parametrize("method", ASKING)
@pytest.mark.parametrize("text", ["\x00", "\u200b\ufeff", "\u0301", " \u00a0"])
def test_a_text_without_a_visible_character_gets_no_label(channel, method, text) -> None:
    assert outcome(channel, method, ASKING[method]("?").SerializeToString())[0] == "OK"
    code, details = outcome(channel, method, ASKING[method](text).SerializeToString())
    assert code == "INVALID_ARGUMENT"
    assert "nothing but white space or invisible characters" in details


@pytest.mark.parametrize("method", ASKING)
def test_a_text_that_the_tokeniser_drops_gets_no_label(method, serve, make_core, models) -> None:
    run = models["private"]
    text = Text(_Deaf(run.tokenizer.vocab_size), run.model.config.max_length)
    channel = serve(make_core({"private": replace(run, modality=text)}))
    code, details = outcome(channel, method, ASKING[method]("\ufffd").SerializeToString())
    assert code == "INVALID_ARGUMENT"
    assert "nothing that the model reads" in details


class _Deaf(HashTokenizer):
    """Drops the replacement character, as the tokeniser of BERT does."""

    def encode_batch(self, texts: Sequence[str], max_length: int) -> list[Encoding]:
        return super().encode_batch([text.replace("\ufffd", "") for text in texts], max_length)


@pytest.mark.parametrize("method", ASKING)
def test_a_text_of_unknown_words_alone_gets_no_label(method, serve, make_core, models) -> None:
    run = models["private"]
    tokenizer = HashTokenizer(run.tokenizer.vocab_size)
    tokenizer.unknown_id = tokenizer.encode("中", 8).ids[1]
    text = Text(tokenizer, run.model.config.max_length)
    channel = serve(make_core({"private": replace(run, modality=text)}))
    code, details = outcome(channel, method, ASKING[method]("中 中").SerializeToString())
    assert code == "INVALID_ARGUMENT"
    assert "nothing that the model reads" in details
    assert outcome(channel, method, ASKING[method]("中 文").SerializeToString())[0] == "OK"


# Bytes

VALID = {
    "Predict": pb.PredictRequest(model="private", texts=["a b", "c"], version="1"),
    "PredictStream": pb.PredictStreamRequest(
        number=7, request=pb.PredictRequest(model="private", texts=["a"])
    ),
    "Explain": pb.ExplainRequest(model="private", text="a", target_label="billing"),
    "Summarize": pb.SummarizeRequest(model="private", texts=["a"], figures=[1], words=["b"]),
    "GetModel": pb.GetModelRequest(name="private", version="1"),
    "ModelInfer": open_pb.ModelInferRequest(
        model_name="private",
        inputs=[{"name": "text", "datatype": "BYTES", "shape": [1]}],
        raw_input_contents=[b"\x01\x00\x00\x00a"],
        outputs=[{"name": "label"}],
    ),
    "ModelReady": open_pb.ModelReadyRequest(name="private"),
    "ModelMetadata": open_pb.ModelMetadataRequest(name="private"),
    "Check": health_pb2.HealthCheckRequest(service="private"),
    "Watch": health_pb2.HealthCheckRequest(service="private"),
    "ServerReflectionInfo": reflection_pb2.ServerReflectionRequest(
        file_containing_symbol="attnpriv.v1.AttnprivService"
    ),
}


@st.composite
def damaged(draw: st.DrawFn, method: str) -> bytes:
    """A valid request of which a piece was replaced."""
    message = VALID.get(method.rpartition("/")[2])
    raw = message.SerializeToString() if message else b""
    start = draw(st.integers(0, len(raw)))
    end = draw(st.integers(start, len(raw)))
    return raw[:start] + draw(st.binary(max_size=8)) + raw[end:]


CALLS = st.sampled_from(METHODS).flatmap(
    lambda method: st.tuples(st.just(method), damaged(method) | st.binary(max_size=40))
)


@settings(max_examples=300)
@given(CALLS)
def test_no_bytes_are_a_defect(channel, call) -> None:
    checked(channel, *call)


# Messages

TEXT = st.text(max_size=30) | st.sampled_from(["private", "plain", "1", "", "\x00", "\u202e", "😀"])
WHOLE = st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 3)
FLOAT = st.floats() | st.sampled_from([math.nan, -0.0, math.inf, 5e-324])
MODEL = st.just("private") | st.sampled_from(["private", "plain", "nobody", ""])
VERSION = st.none() | st.just("1") | st.sampled_from(["01", "", "2"]) | TEXT
TEXTS = st.lists(TEXT, max_size=4) | st.sampled_from([["a"] * 128, ["a"] * 129, ["x" * 65_537]])

PREDICT = st.builds(pb.PredictRequest, model=MODEL, texts=TEXTS, version=VERSION)
STREAM = st.builds(
    pb.PredictStreamRequest, number=st.integers(0, 2**64 - 1), request=st.none() | PREDICT
)
EXPLAIN = st.builds(
    pb.ExplainRequest, model=MODEL, text=TEXT, target_label=st.none() | TEXT, version=VERSION
)

PARAMETER = st.one_of(
    st.builds(open_pb.InferParameter, bool_param=st.booleans()),
    st.builds(open_pb.InferParameter, int64_param=WHOLE),
    st.builds(open_pb.InferParameter, string_param=TEXT),
    st.builds(open_pb.InferParameter, double_param=FLOAT),
    st.just(open_pb.InferParameter()),
)
PARAMETERS = st.lists(
    st.fixed_dictionaries(
        {"key": st.sampled_from(["binary_data_size", "priority", ""]), "value": PARAMETER}
    ),
    max_size=3,
)


def altered(fields: dict[str, Any], **others: st.SearchStrategy) -> st.SearchStrategy:
    """The fields of a valid message, any of them replaced; with none replaced first."""
    return st.fixed_dictionaries({}, optional=others).map(lambda drawn: fields | drawn)


CONTENTS = st.none() | st.one_of(
    st.builds(open_pb.InferTensorContents, bytes_contents=st.lists(st.binary(max_size=9))),
    st.builds(open_pb.InferTensorContents, fp32_contents=st.lists(st.floats(width=32))),
    st.builds(open_pb.InferTensorContents, int64_contents=st.lists(WHOLE)),
)
TENSOR = altered(
    {"name": "text", "datatype": "BYTES", "shape": [1]},
    name=TEXT,
    datatype=st.sampled_from(["FP32", "bytes", "", "\x00"]),
    shape=st.lists(WHOLE, max_size=3) | st.sampled_from([[2], [1, 1], [2**40], [-1]]),
    contents=CONTENTS,
    parameters=PARAMETERS,
)
OUTPUT = altered(
    {"name": "label"},
    name=st.sampled_from(["probabilities", "truncated", "label_names", "logits", ""]),
    parameters=PARAMETERS,
)
RAW = st.binary(max_size=20) | st.lists(st.binary(max_size=9), max_size=3).map(
    lambda parts: b"".join(len(part).to_bytes(4, "little") + part for part in parts)
)
INFER = altered(
    {
        "model_name": "private",
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [1]}],
        "raw_input_contents": [b"\x01\x00\x00\x00a"],
    },
    model_name=MODEL,
    model_version=TEXT,
    id=TEXT,
    inputs=st.lists(TENSOR, max_size=2),
    outputs=st.lists(OUTPUT, max_size=3),
    raw_input_contents=st.lists(RAW, max_size=2),
    parameters=PARAMETERS,
).map(lambda fields: open_pb.ModelInferRequest(**fields))

EXTENSION = st.builds(
    reflection_pb2.ExtensionRequest,
    containing_type=TEXT,
    extension_number=st.integers(-(2**31), 2**31 - 1),
)
REFLECTION = st.one_of(
    st.builds(reflection_pb2.ServerReflectionRequest, host=TEXT, list_services=TEXT),
    st.builds(reflection_pb2.ServerReflectionRequest, file_by_filename=TEXT),
    st.builds(reflection_pb2.ServerReflectionRequest, file_containing_symbol=TEXT),
    st.builds(reflection_pb2.ServerReflectionRequest, all_extension_numbers_of_type=TEXT),
    st.builds(reflection_pb2.ServerReflectionRequest, file_containing_extension=EXTENSION),
)

MESSAGES = [
    ("/attnpriv.v1.AttnprivService/Predict", PREDICT),
    ("/attnpriv.v1.AttnprivService/PredictStream", STREAM),
    ("/attnpriv.v1.AttnprivService/Explain", EXPLAIN),
    ("/inference.GRPCInferenceService/ModelInfer", INFER),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", REFLECTION),
]


@pytest.mark.parametrize(("method", "requests"), MESSAGES)
def test_no_message_is_a_defect(channel, method, requests) -> None:
    codes = set()

    @given(requests)
    def check(request) -> None:
        codes.add(checked(channel, method, request.SerializeToString()))

    check()
    assert "OK" in codes  # some of them got all the way
