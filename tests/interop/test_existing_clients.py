"""Clients of the Open Inference Protocol, as they are, get what attnpriv's own client gets."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

import attnpriv
from attnpriv.inference import open_inference_pb2
from attnpriv_client import Client, Tls

MODELS = ["private", "plain"]
TEXTS = [
    "Where is my parcel?",
    "ok",
    "The new password does not work — ünïcödé 😀.",
    "Cancel my subscription " * 200,
]
HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def own(served):
    with Client(served.target, token=served.token, tls=Tls(ca=served.certificate)) as client:
        yield client


@pytest.fixture(scope="session")
def expected(own) -> dict:
    """What each model answers by attnpriv's own protocol, as the tensors of this one."""
    return {model: tensors(own, model) for model in MODELS}


def tensors(own: Client, model: str) -> dict:
    summary = own.model_card(model).summary
    predictions = own.predict(model, TEXTS)
    found = {
        "label": [each.label for each in predictions],
        "truncated": [each.truncated for each in predictions],
        "label_names": list(summary.label_names),
    }
    if predictions[0].probabilities is not None:
        found["probabilities"] = [list(each.probabilities.values()) for each in predictions]
    return {"model_name": model, "model_version": summary.version, "outputs": found}


@pytest.fixture(scope="session", params=["tritonclient", "kserve"])
def asked(request, served, environments) -> dict:
    """All that a client was told, in a process and an environment of its own."""
    question = {
        "target": served.target,
        "token": served.token,
        "root_certificates": str(served.certificate),
        "models": MODELS,
        "texts": TEXTS,
    }
    done = subprocess.run(
        [environments / request.param / "bin" / "python", HERE / f"ask_{request.param}.py"],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_same(found: dict, expected: dict) -> None:
    assert found["id"] == "7"
    names = ("model_name", "model_version")
    assert [found[name] for name in names] == [expected[name] for name in names]
    outputs = {**found["outputs"]}
    wanted = {**expected["outputs"]}
    np.testing.assert_allclose(
        outputs.pop("probabilities", []), wanted.pop("probabilities", []), atol=1e-6
    )
    assert outputs == wanted


def test_the_two_models_differ_in_what_is_released(expected) -> None:
    released = {model: "probabilities" in expected[model]["outputs"] for model in MODELS}

    assert released == {"private": True, "plain": False}
    assert {each["model_version"] for each in expected.values()} == {"1", "2"}
    assert expected["private"]["outputs"]["truncated"] == [False, False, False, True]


def test_its_messages_are_ours(asked) -> None:
    theirs = fields_of(FileDescriptorProto.FromString(base64.b64decode(asked["descriptor"])))
    descriptor = FileDescriptorProto()
    open_inference_pb2.DESCRIPTOR.CopyToProto(descriptor)
    ours = fields_of(descriptor)

    messages = {message for message, _ in ours}
    common = {field: theirs[field] for field in theirs if field[0] in messages}
    # kserve has these two not yet; the published protocol does.
    newer = {("InferParameter", 4), ("InferParameter", 5)}
    assert ours.keys() - common.keys() <= newer
    assert common == {field: ours[field] for field in common}


def fields_of(file: FileDescriptorProto) -> dict:
    """Every field by its message and number."""
    found = {}
    left = [(message.name, message) for message in file.message_type]
    for path, message in left:
        left += [(f"{path}.{nested.name}", nested) for nested in message.nested_type]
        for field in message.field:
            found[path, field.number] = (field.name, field.type, field.label, field.type_name)
    return found


def test_it_is_told_that_all_is_ready(asked) -> None:
    assert (asked["live"], asked["ready"]) == (True, True)
    assert asked["models_ready"] == [True, True]


def test_it_gets_the_same_predictions(asked, expected) -> None:
    for answers in asked["predictions"].values():
        assert answers.keys() == expected.keys()
        for model, answer in answers.items():
            assert_same(answer, expected[model])


def test_it_gets_only_what_it_asks_for(asked, expected) -> None:
    outputs = asked["one output"]["outputs"]

    assert outputs == {"truncated": expected[MODELS[0]]["outputs"]["truncated"]}


def test_it_is_refused_as_others_are(asked) -> None:
    assert asked["failures"] == {
        "unknown model": "NOT_FOUND",
        "unknown version": "NOT_FOUND",
        "no text": "INVALID_ARGUMENT",
        "an empty text": "INVALID_ARGUMENT",
        "unknown input": "INVALID_ARGUMENT",
        "unknown output": "INVALID_ARGUMENT",
        "unknown parameter": "INVALID_ARGUMENT",
        "no token": "UNAUTHENTICATED",
    }
    assert asked["withheld"] == {"private": None, "plain": "PERMISSION_DENIED"}


@pytest.mark.parametrize("asked", ["tritonclient"], indirect=True)
def test_metadata(asked, own) -> None:
    assert asked["server"] == {"name": "attnpriv-server", "version": attnpriv.__version__}
    for summary in own.models():
        metadata = asked["metadata"][summary.name]
        assert metadata["name"] == summary.name
        assert metadata["versions"] == list(summary.versions)
        shapes = {each["name"]: each["shape"] for each in metadata["outputs"]}
        assert shapes["probabilities"] == ["-1", str(len(summary.label_names))]


@pytest.fixture(scope="session")
def grpcurl(served, environments):
    """A call of grpcurl; it knows no .proto file and asks the server's reflection."""
    program = environments / "grpcurl" / "bin" / "grpcurl"
    token = f"authorization: Bearer {served.token}"

    def call(*words: str, data: dict | None = None) -> subprocess.CompletedProcess[str]:
        options = ["-cacert", served.certificate, "-H", token]
        options += [] if data is None else ["-d", json.dumps(data)]
        line = [program, *options, served.target, *words]
        return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)

    return call


SERVICE = "inference.GRPCInferenceService"


def test_grpcurl_lists_what_there_is(grpcurl) -> None:
    services = grpcurl("list").stdout.split()
    methods = grpcurl("list", SERVICE).stdout.split()

    assert {SERVICE, "attnpriv.v1.AttnprivService", "grpc.health.v1.Health"} <= {*services}
    ours = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert sorted(methods) == sorted(method.full_name for method in ours.methods)
    assert "repeated string texts = 2;" in grpcurl("describe", "attnpriv.v1.PredictRequest").stdout


@pytest.mark.parametrize("service", ["", SERVICE, "attnpriv.v1.AttnprivService"])
def test_grpcurl_reads_health(grpcurl, service) -> None:
    answer = grpcurl("grpc.health.v1.Health/Check", data={"service": service})

    assert json.loads(answer.stdout) == {"status": "SERVING"}


def test_grpcurl_gets_the_same_predictions(grpcurl, expected) -> None:
    elements = [base64.b64encode(text.encode()).decode() for text in TEXTS]
    text = {"name": "text", "datatype": "BYTES", "shape": [len(TEXTS)]}
    request = {
        "model_name": "private",
        "id": "7",
        "inputs": [{**text, "contents": {"bytes_contents": elements}}],
    }

    answer = json.loads(grpcurl(f"{SERVICE}/ModelInfer", data=request).stdout)

    outputs = {each["name"]: decoded(each) for each in answer["outputs"]}
    assert_same({**answer, "outputs": outputs}, expected["private"])


def decoded(output: dict) -> list:
    contents = output["contents"]
    if output["datatype"] == "BYTES":
        return [base64.b64decode(each).decode() for each in contents["bytes_contents"]]
    field = {"FP32": "fp32_contents", "BOOL": "bool_contents"}[output["datatype"]]
    shape = [int(size) for size in output["shape"]]
    return np.array(contents[field]).reshape(shape).tolist()


def test_grpcurl_is_told_the_field_at_fault(grpcurl) -> None:
    answer = grpcurl(f"{SERVICE}/ModelInfer", data={"model_name": "private"})

    assert answer.returncode != 0
    assert "Code: InvalidArgument" in answer.stderr
    assert '"field":"inputs"' in answer.stderr.replace(" ", "")


def test_grpcurl_is_told_that_a_model_is_unknown(grpcurl) -> None:
    answer = grpcurl(f"{SERVICE}/ModelReady", data={"name": "nobody"})

    assert "Code: NotFound" in answer.stderr
