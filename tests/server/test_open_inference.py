"""The Open Inference Protocol: what its messages mean here, and that the server speaks it."""

from __future__ import annotations

from dataclasses import replace

import grpc
import numpy as np
import pytest
from google.rpc.error_details_pb2 import BadRequest
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st

from attnpriv.inference import open_inference_pb2 as pb
from attnpriv.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from attnpriv.v1 import attnpriv_pb2 as v1
from attnpriv_server.access import Access, new_token
from attnpriv_server.domain import (
    Code,
    GetModelRequest,
    Model,
    Prediction,
    Predictions,
    PredictRequest,
    Readiness,
    ReadinessRequest,
    RefusedError,
)
from attnpriv_server.methods import OPEN_INFERENCE
from attnpriv_server.open_inference import to_domain, to_wire, unpack

SECRET = "sesame"
MOST = 128  # texts of a request
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PARAMETER = {"key": SECRET, "value": {"bool_param": True}}

ANSWER = Predictions(
    version="2",
    label_names=("calm", "ürgent"),
    predictions=(
        Prediction("ürgent", (0.25, 0.75), False),
        Prediction("calm", (0.875, 0.125), True),
        Prediction("calm", (0.5, 0.5), False),
    ),
)
LABELS_ALONE = Predictions(
    version="2",
    label_names=ANSWER.label_names,
    predictions=tuple(Prediction(each.label, None, False) for each in ANSWER.predictions),
)


def pack(texts) -> bytes:
    elements = [text.encode() for text in texts]
    return b"".join(len(each).to_bytes(4, "little") + each for each in elements)


def typed(texts=("one", "two"), request=None, **tensor) -> pb.ModelInferRequest:
    contents = {"bytes_contents": [text.encode() for text in texts]}
    text = {"name": "text", "datatype": "BYTES", "shape": [len(texts)], "contents": contents}
    return pb.ModelInferRequest(**{"model_name": "m", "inputs": [text | tensor], **(request or {})})


def raw(texts=("one", "two"), request=None, **tensor) -> pb.ModelInferRequest:
    content = {"raw_input_contents": [pack(texts)]}
    return typed(texts, content | (request or {}), **({"contents": None} | tensor))


def size(count: int) -> list[dict]:
    """The parameter by which kserve states the size of raw contents."""
    return [{"key": "binary_data_size", "value": {"int64_param": count}}]


def refusal(request: pb.ModelInferRequest) -> tuple[str, str]:
    """The field at fault and the message."""
    with pytest.raises(RefusedError) as caught:
        to_domain(request, MOST)
    status = caught.value.status
    assert status.code is Code.INVALID_ARGUMENT
    (violation,) = status.violations
    assert status.message == f"{violation.field}: {violation.description}"
    return violation.field, status.message


# Requests


@given(st.lists(TEXT, max_size=3), st.booleans())
def test_typed_and_raw_requests_mean_the_same(texts, column) -> None:
    shape = [len(texts), 1] if column else [len(texts)]
    expected = PredictRequest("m", tuple(texts))

    assert to_domain(typed(texts, shape=shape), MOST) == expected
    assert to_domain(raw(texts, shape=shape), MOST) == expected


def test_an_empty_version_stands_for_the_newest() -> None:
    ready = pb.ModelReadyRequest(name="m", version="3")

    assert to_domain(typed(request={"model_version": "3"}), MOST) == PredictRequest(
        "m", ("one", "two"), "3"
    )
    assert to_domain(ready, MOST) == ReadinessRequest("m", "3")
    assert to_domain(pb.ModelReadyRequest(name="m"), MOST) == ReadinessRequest("m")
    assert to_domain(pb.ModelMetadataRequest(name="m"), MOST) == GetModelRequest("m")
    assert to_domain(pb.ModelMetadataRequest(name="m", version="3"), MOST) == GetModelRequest(
        "m", "3"
    )


@given(st.binary(max_size=40))
def test_raw_content_is_read_whole_or_refused(content) -> None:
    try:
        elements = unpack(content, MOST)
    except RefusedError:
        return
    assert b"".join(len(each).to_bytes(4, "little") + each for each in elements) == content


DIMENSION = st.sampled_from([0, 1, 2, -1, 2**40, 2**63 - 1, -(2**63)])
CONTENTS = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "bytes_contents": st.lists(st.binary(max_size=4), max_size=3),
        "fp32_contents": st.lists(st.just(1.0), max_size=2),
    },
)
VALUES = [{}, {"int64_param": 7}, {"string_param": "7"}, {"bool_param": True}]
PARAMETERS = st.lists(
    st.fixed_dictionaries(
        {
            "key": st.sampled_from(["binary_data_size", "priority"]),
            "value": st.sampled_from(VALUES),
        }
    ),
    max_size=2,
)
TENSOR = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["text", "", "label"]),
        "datatype": st.sampled_from(["BYTES", "FP32", ""]),
        "shape": st.lists(DIMENSION, max_size=3),
        "contents": CONTENTS,
        "parameters": PARAMETERS,
    }
)
REQUEST = st.fixed_dictionaries(
    {
        "inputs": st.lists(TENSOR, max_size=2),
        "outputs": st.lists(
            st.fixed_dictionaries(
                {"name": st.sampled_from(["label", "probabilities", ""]), "parameters": PARAMETERS}
            ),
            max_size=3,
        ),
        "raw_input_contents": st.lists(st.binary(max_size=12), max_size=2),
        "parameters": PARAMETERS,
    }
)


@given(REQUEST)
def test_whatever_is_sent_is_read_or_refused(fields) -> None:
    try:
        request = to_domain(pb.ModelInferRequest(**fields), MOST)
    except RefusedError:
        return
    assert isinstance(request, PredictRequest)
    assert [*fields["inputs"][0]["shape"]] in ([len(request.texts)], [len(request.texts), 1])


def test_the_size_that_kserve_states_is_accepted() -> None:
    request = raw(["one"], parameters=size(len(pack(["one"]))))

    assert to_domain(request, MOST) == PredictRequest("m", ("one",))


OTHER_TENSOR = {"name": SECRET, "datatype": "BYTES", "shape": [1]}
REFUSED = {
    "no input": (pb.ModelInferRequest(model_name=SECRET), "inputs"),
    "another input": (typed(name=SECRET), "inputs"),
    "two inputs": (typed(request={"inputs": [OTHER_TENSOR] * 2}), "inputs"),
    "another datatype": (typed(datatype=SECRET), "inputs[0].datatype"),
    "no shape": (typed(shape=[]), "inputs[0].shape"),
    "a wrong shape": (typed(shape=[3]), "inputs[0].shape"),
    "a wrong raw shape": (raw(shape=[1]), "inputs[0].shape"),
    "a negative dimension": (typed(shape=[-1]), "inputs[0].shape"),
    "more texts than are taken": (typed(["a"] * (MOST + 1)), "inputs[0].shape"),
    "more raw texts than are taken": (raw(["a"] * (MOST + 1)), "inputs[0].shape"),
    "more raw texts, of which none is looked at any more": (
        raw(request={"raw_input_contents": [pack(["a"] * MOST) + b"cut off"]}, shape=[MOST]),
        "inputs[0].shape",
    ),
    "two negative dimensions": (typed(["one"], shape=[-1, -1]), "inputs[0].shape"),
    "a huge dimension": (raw(shape=[2**62, 2**62]), "inputs[0].shape"),
    "a row for a column": (typed(shape=[1, 2]), "inputs[0].shape"),
    "a cube": (typed(["one"], shape=[1, 1, 1]), "inputs[0].shape"),
    "contents of another type": (
        typed(contents={"bytes_contents": [b"a"], "fp32_contents": [1.0]}),
        "inputs[0].contents",
    ),
    "both contents": (typed(request={"raw_input_contents": [pack(["a"])]}), "inputs[0].contents"),
    "raw contents for two": (raw(request={"raw_input_contents": [b"", b""]}), "raw_input_contents"),
    "a cut length": (raw(request={"raw_input_contents": [b"\1\0\0"]}), "raw_input_contents[0]"),
    "a cut element": (
        raw(request={"raw_input_contents": [pack([SECRET])[:-1]]}),
        "raw_input_contents[0]",
    ),
    "a length beyond all": (
        raw(request={"raw_input_contents": [b"\xff\xff\xff\xff" + SECRET.encode()]}),
        "raw_input_contents[0]",
    ),
    "trailing bytes": (
        raw([SECRET], request={"raw_input_contents": [pack([SECRET]) + b"\0"]}),
        "raw_input_contents[0]",
    ),
    "no UTF-8": (
        typed(["one"], contents={"bytes_contents": [SECRET.encode() + b"\xff"]}),
        "inputs[0]",
    ),
    "a surrogate": (typed(["one"], contents={"bytes_contents": [b"\xed\xa0\x80"]}), "inputs[0]"),
    "no raw UTF-8": (raw(["one"], request={"raw_input_contents": [b"\1\0\0\0\xff"]}), "inputs[0]"),
    "another output": (typed(request={"outputs": [{"name": SECRET}]}), "outputs[0].name"),
    "an output twice": (
        typed(request={"outputs": [{"name": "label"}, {"name": "label"}]}),
        "outputs[1].name",
    ),
    "a parameter": (typed(request={"parameters": [PARAMETER]}), "parameters"),
    "a parameter of the input": (typed(parameters=[PARAMETER]), "inputs[0].parameters"),
    "a wrong size": (
        raw(parameters=size(1)),
        "inputs[0].parameters",
    ),
    "a size without raw contents": (
        typed(parameters=size(14)),
        "inputs[0].parameters",
    ),
    "a parameter of an output": (
        typed(request={"outputs": [{"name": "label", "parameters": [PARAMETER]}]}),
        "outputs[0].parameters",
    ),
}


@pytest.mark.parametrize(("request_", "field"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_used_is_refused_by_its_field(request_, field) -> None:
    found, message = refusal(request_)

    assert found == field
    assert SECRET not in message
    assert "\\" not in message


# Answers


def contents(response: pb.ModelInferResponse) -> dict[str, list]:
    """Every output as its rows, whichever way it came."""
    return {
        output.name: _elements(response, number).reshape(output.shape).tolist()
        for number, output in enumerate(response.outputs)
    }


def _elements(response: pb.ModelInferResponse, number: int) -> np.ndarray:
    output = response.outputs[number]
    if not response.raw_output_contents:
        field = {"BYTES": "bytes_contents", "FP32": "fp32_contents", "BOOL": "bool_contents"}
        return np.array(getattr(output.contents, field[output.datatype]))
    assert not output.HasField("contents")
    content = response.raw_output_contents[number]
    if output.datatype == "BYTES":
        return np.array(unpack(content, MOST))
    return np.frombuffer(content, {"FP32": "<f4", "BOOL": "?"}[output.datatype])


@pytest.mark.parametrize("make", [typed, raw])
def test_an_answer_comes_as_its_request_did(make) -> None:
    request = make(request={"id": "7", "model_version": ""})

    response = to_wire(request, ANSWER)

    assert (response.model_name, response.model_version, response.id) == ("m", "2", "7")
    assert bool(response.raw_output_contents) == (make is raw)
    assert contents(response) == {
        "label": ["ürgent".encode(), b"calm", b"calm"],
        "truncated": [False, True, False],
        "label_names": [b"calm", "ürgent".encode()],
        "probabilities": [[0.25, 0.75], [0.875, 0.125], [0.5, 0.5]],
    }


@pytest.mark.parametrize("make", [typed, raw])
def test_outputs_come_in_the_order_asked_for(make) -> None:
    request = make(request={"outputs": [{"name": "probabilities"}, {"name": "label"}]})

    response = to_wire(request, ANSWER)

    assert list(contents(response)) == ["probabilities", "label"]


@pytest.mark.parametrize("make", [typed, raw])
def test_what_the_policy_withholds_is_left_out_or_refused(make) -> None:
    response = to_wire(make(), LABELS_ALONE)
    with pytest.raises(RefusedError) as caught:
        to_wire(make(request={"outputs": [{"name": "probabilities"}]}), LABELS_ALONE)

    assert list(contents(response)) == ["label", "truncated", "label_names"]
    assert caught.value.status.code is Code.PERMISSION_DENIED


def test_metadata_name_every_output_as_it_comes(models) -> None:
    card = replace(models["private"].card, name="m", label_names=("calm", "ürgent"))
    model = Model(card, "1", ("1", "2"))

    metadata = to_wire(pb.ModelMetadataRequest(name="m", version="1"), model)

    assert (metadata.name, list(metadata.versions)) == ("m", ["1", "2"])
    assert [(each.name, each.datatype) for each in metadata.inputs] == [("text", "BYTES")]
    sizes = {output.name: list(output.shape) for output in metadata.outputs}
    answered = {output.name: list(output.shape) for output in to_wire(typed(), ANSWER).outputs}
    rows = len(ANSWER.predictions)
    assert answered == {name: [rows if n == -1 else n for n in sizes[name]] for name in sizes}


@pytest.mark.parametrize("ready", [True, False])
def test_readiness(ready) -> None:
    answer = Readiness(ready)

    assert to_wire(pb.ServerLiveRequest(), answer).live
    assert to_wire(pb.ServerReadyRequest(), answer).ready is ready
    assert to_wire(pb.ModelReadyRequest(name="m"), answer).ready is ready
    assert not to_wire(pb.ServerMetadataRequest(), answer).extensions


# Over a real socket


@pytest.fixture(scope="session")
def open_stub(channel: grpc.Channel) -> GRPCInferenceServiceStub:
    return GRPCInferenceServiceStub(channel)


def error_of(method, request, **options) -> tuple[str, list[str]]:
    """The status that a call ends with, and the fields that its details name."""
    with pytest.raises(grpc.RpcError) as caught:
        method(request, **options)
    details = BadRequest()
    status = rpc_status.from_call(caught.value)
    assert status is None or status.details[0].Unpack(details)
    return caught.value.code().name, [each.field for each in details.field_violations]


@pytest.mark.parametrize("make", [typed, raw])
@pytest.mark.parametrize("model", ["private", "plain"])
def test_both_contracts_give_the_same_predictions(open_stub, stub, make, model) -> None:
    texts = ["Where is my parcel?", "Cancel my subscription " * 200]
    expected = stub.Predict(v1.PredictRequest(model=model, texts=texts))

    response = open_stub.ModelInfer(make(texts, {"model_name": model}))

    found = contents(response)
    assert response.model_version == expected.version
    assert found["label"] == [each.label.encode() for each in expected.predictions]
    assert found["truncated"] == [each.truncated for each in expected.predictions]
    assert found["label_names"] == [name.encode() for name in expected.label_names]
    if model == "plain":
        assert "probabilities" not in found
    else:
        probabilities = [list(each.probabilities) for each in expected.predictions]
        np.testing.assert_allclose(found["probabilities"], probabilities, atol=1e-6)


def test_a_server_says_what_it_is_and_has(open_stub, models) -> None:
    metadata = open_stub.ModelMetadata(pb.ModelMetadataRequest(name="private"))

    assert open_stub.ServerLive(pb.ServerLiveRequest()).live
    assert open_stub.ServerReady(pb.ServerReadyRequest()).ready
    assert open_stub.ModelReady(pb.ModelReadyRequest(name="private")).ready
    assert open_stub.ServerMetadata(pb.ServerMetadataRequest()).name == "attnpriv-server"
    shapes = {each.name: list(each.shape) for each in metadata.outputs}
    assert shapes["probabilities"] == [-1, len(models["private"].label_names)]


def test_refusals_reach_the_caller(open_stub) -> None:
    infer, ready = open_stub.ModelInfer, open_stub.ModelReady
    wrong = typed(request={"model_name": "private"}, shape=[2**62])
    nothing = typed([], request={"model_name": "private"})
    withheld = typed(request={"model_name": "plain", "outputs": [{"name": "probabilities"}]})

    assert error_of(infer, wrong) == ("INVALID_ARGUMENT", ["inputs[0].shape"])
    assert error_of(infer, nothing) == ("INVALID_ARGUMENT", ["texts"])
    assert error_of(infer, withheld) == ("PERMISSION_DENIED", [])
    assert error_of(infer, typed(request={"model_name": SECRET})) == ("NOT_FOUND", [])
    assert error_of(ready, pb.ModelReadyRequest(name="private", version="9")) == ("NOT_FOUND", [])


def test_every_method_asks_who_calls(make_core, models, serve, tmp_path) -> None:
    token, digest = new_token()
    file = tmp_path / "principals.toml"
    file.write_text(
        f'[[principal]]\nname = "one"\nroles = ["predict"]\ntokens = [{{ sha256 = "{digest}" }}]\n'
    )
    stub = GRPCInferenceServiceStub(serve(make_core(models, access=Access.from_file(file))))
    requests = {
        "ServerLive": pb.ServerLiveRequest(),
        "ServerReady": pb.ServerReadyRequest(),
        "ModelReady": pb.ModelReadyRequest(name="private"),
        "ServerMetadata": pb.ServerMetadataRequest(),
        "ModelMetadata": pb.ModelMetadataRequest(name="private"),
        "ModelInfer": typed(request={"model_name": "private"}),
    }
    metadata = [("authorization", f"Bearer {token}")]

    assert requests.keys() == {method.name for method in OPEN_INFERENCE.methods}
    for name, request in requests.items():
        method = getattr(stub, name)
        assert error_of(method, request) == ("UNAUTHENTICATED", [])
        if name == "ModelMetadata":
            assert error_of(method, request, metadata=metadata) == ("PERMISSION_DENIED", [])
        else:
            method(request, metadata=metadata)
