"""What is refused, and in which words, over real sockets."""

from __future__ import annotations

import asyncio
import re

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from attnpriv.runs.folder import load_run
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceStub
from attnpriv.visible import has_visible
from attnpriv_server.domain import Code, ExplainRequest, RefusedError
from attnpriv_server.policy.files import Switches
from tests.server.asking import answer_of, error_of, explain


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "expected 1 to 128 texts, got 0"),
        (["a"] * 129, "expected 1 to 128 texts, got 129"),
        (["fine", ""], "texts[1]: expected a text, got nothing but white space"),
        ([" \n\t "], "texts[0]: expected a text, got nothing but white space"),
        (["fine", "\u200b\x00\ufeff"], "texts[1]: expected a text, got nothing but white space or"),
        (["e\u0301", " \u0301"], "texts[1]: expected a text, got nothing but white space or invis"),
        (["x" * 1_000_000], "texts[0]: expected at most 65536 bytes, got 1000000"),
        (["ü" * 40_000], "texts[0]: expected at most 65536 bytes, got 80000"),
    ],
)
def test_texts_that_cannot_be_answered(stub, texts, message) -> None:
    request = pb.PredictRequest(model="private", texts=texts)

    code, details = error_of(lambda: stub.Predict(request))

    assert code == "INVALID_ARGUMENT"
    assert message in details


def test_the_same_checks_stand_before_explain(stub) -> None:
    for text in ("", "\u200b", "x" * 1_000_000):
        code, _ = error_of(lambda text=text: explain(stub, text))
        assert code == "INVALID_ARGUMENT"
    code, details = error_of(lambda: explain(stub, target_label="secret label"))
    assert code == "INVALID_ARGUMENT"
    assert "secret" not in details


def test_a_message_above_the_limit(stub) -> None:
    request = pb.PredictRequest(model="private", texts=["x" * 1_000_000] * 5)

    assert error_of(lambda: stub.Predict(request))[0] == "RESOURCE_EXHAUSTED"


def test_unknown_models(stub) -> None:
    for call in (
        lambda: stub.Predict(pb.PredictRequest(model="../secret", texts=["a"])),
        lambda: stub.Explain(pb.ExplainRequest(text="a")),
        lambda: stub.GetModel(pb.GetModelRequest(name="../secret")),
    ):
        code, details = error_of(call)
        assert code == "NOT_FOUND"
        assert details == "unknown model or version; ListModels names those served"


@pytest.mark.parametrize(
    "method",
    [
        "attnpriv.v1.AttnprivService/Predict",
        "attnpriv.v1.AttnprivService/Explain",
        "attnpriv.v1.AttnprivService/ListModels",
        "attnpriv.v1.AttnprivService/GetModel",
        "grpc.health.v1.Health/Check",
    ],
)
@pytest.mark.parametrize("raw", [b"\xff\xff\xff", b"\x0a\x7f", b"\x08"])
def test_malformed_bytes(channel, method, raw) -> None:
    call = channel.unary_unary(f"/{method}", request_serializer=None, response_deserializer=None)

    assert error_of(lambda: call(raw)) == ("INVALID_ARGUMENT", "malformed request")


def test_a_string_that_is_not_utf8_is_malformed(channel) -> None:
    call = channel.unary_unary("/attnpriv.v1.AttnprivService/Predict")

    assert error_of(lambda: call(b"\x0a\x02\xff\xfe")) == ("INVALID_ARGUMENT", "malformed request")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["Predict", "Explain", "ListModels", "GetModel"]),
    raw=st.binary(max_size=40) | st.binary(max_size=20).map(lambda tail: b"\x0a\x07private" + tail),
)
def test_no_bytes_are_a_defect(channel, method, raw) -> None:
    call = channel.unary_unary(f"/attnpriv.v1.AttnprivService/{method}").future(raw)

    assert call.code().name in ("OK", "INVALID_ARGUMENT", "NOT_FOUND")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=60))
@example("\u200b")  # no token at all
def test_every_text_with_a_visible_character_is_explained(core, text) -> None:
    asked = answer_of(core, ExplainRequest("private", text))

    if has_visible(text):
        answer = asyncio.run(asked)
        rows = [*answer.tokens, *answer.special_tokens]
        assert sum(token.attention for token in rows) == pytest.approx(1, abs=1e-5)
    else:
        with pytest.raises(RefusedError) as caught:
            asyncio.run(asked)
        assert caught.value.status.code == Code.INVALID_ARGUMENT


def test_malformed_bytes_in_streams(channel) -> None:
    watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
    reflect = channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    )

    expected = ("INVALID_ARGUMENT", "malformed request")
    assert error_of(lambda: list(watch(b"\xff\xff"))) == expected
    assert error_of(lambda: list(reflect(iter([b"\xff\xff"])))) == expected


def test_unimplemented_method(channel) -> None:
    call = channel.unary_unary("/attnpriv.v1.AttnprivService/Train")

    assert error_of(lambda: call(b"")) == ("UNIMPLEMENTED", "Method not found!")


def test_a_model_that_yields_nan_answers_internal_alone(
    serve, make_core, private_run, caplog
) -> None:
    run = load_run(private_run)
    with torch.no_grad():
        run.model.head.bias.fill_(float("nan"))
    stub = AttnprivServiceStub(serve(make_core({"broken": run}, Switches().role())))

    predict = error_of(lambda: stub.Predict(pb.PredictRequest(model="broken", texts=["tell-tale"])))

    assert predict == ("INTERNAL", "internal error")
    defects = [record for record in caplog.records if record.msg == "defect"]
    assert defects[0].fields["error"] == "ArithmeticError"
    assert re.fullmatch(r"lane\.py:\d+", defects[0].fields["at"])
    assert "tell-tale" not in caplog.text + str([r.__dict__ for r in caplog.records])


def test_an_unexpected_exception_in_the_model_is_internal(serve, make_core, private_run) -> None:
    run = load_run(private_run)
    run.model.words.weight.data = run.model.words.weight.data[:3]  # every token id out of range
    stub = AttnprivServiceStub(serve(make_core({"broken": run}, Switches().role())))

    request = pb.PredictRequest(model="broken", texts=["hello"])
    assert error_of(lambda: stub.Predict(request)) == ("INTERNAL", "internal error")
