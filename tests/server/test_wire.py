"""The server over real sockets."""

from __future__ import annotations

import asyncio
import copy
import os
import re
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain

import grpc
import numpy as np
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import nn

from attnpriv.guarantees import weight_bounds
from attnpriv.models.text import pad_batch
from attnpriv.runs.folder import Run, load_run
from attnpriv.runs.prediction import encode_texts, predict_probabilities
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceStub
from attnpriv.visible import has_visible
from attnpriv_server.domain import Code, Deadline, ExplainRequest, RefusedError, Status
from attnpriv_server.policy import Policy
from attnpriv_server.queueing import Batching
from attnpriv_server.wire import Server, serve_until_stopped
from tests.server.conftest import answer_of

TEXTS = [
    "Where is my parcel?",
    "I was charged twice for the same order and nobody answers my mails, please help me soon.",
    "ok",
    "The new password does not work on my phone — ünïcödé 😀.",
    "Cancel my subscription " * 200,
]
SENSITIVE = "Call me on +44 7911 123456 or mail jane.doe@example.com, card 4111 1111 1111 1111 ok"
SECRETS = ("7911", "123456", "+44", "jane", "doe", "example", "4111", "1111")


def error_of(call) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code().name, caught.value.details()


def explain(stub: AttnprivServiceStub, text: str = SENSITIVE, **fields) -> pb.ExplainResponse:
    return stub.Explain(pb.ExplainRequest(model="private", text=text, **fields))


# What is answered


def test_predict_agrees_with_the_library(stub, models) -> None:
    run = models["private"]
    expected = predict_probabilities(run, TEXTS)

    response = stub.Predict(pb.PredictRequest(model="private", texts=TEXTS))

    assert tuple(response.label_names) == run.label_names
    found = np.array([prediction.probabilities for prediction in response.predictions])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert [p.label for p in response.predictions] == [
        run.label_names[i] for i in expected.argmax(1)
    ]
    assert [p.truncated for p in response.predictions] == [False, False, False, False, True]


def test_a_text_is_answered_the_same_alone_and_among_others(stub) -> None:
    together = stub.Predict(pb.PredictRequest(model="private", texts=TEXTS)).predictions

    for text, among in zip(TEXTS, together, strict=True):
        alone = stub.Predict(pb.PredictRequest(model="private", texts=[text])).predictions[0]
        assert alone.label == among.label
        np.testing.assert_allclose(alone.probabilities, among.probabilities, atol=1e-6)


def test_explain_accounts_for_all_attention_and_names_the_special_tokens(stub, models) -> None:
    response = explain(stub)

    rows = [*response.tokens, *response.special_tokens]
    assert [token.text for token in response.special_tokens] == ["[CLS]", "[SEP]"]
    for layer in range(models["private"].model.config.layers):
        total = sum(token.layer_attention[layer] for token in rows)
        assert total == pytest.approx(1.0, abs=1e-5)
    assert all(token.attention == token.layer_attention[-1] for token in rows)
    assert response.target_label == response.prediction.label


def test_explain_integrated_gradients_are_about_the_target(stub, models) -> None:
    first, second = (explain(stub, target_label=name) for name in models["private"].label_names[:2])

    assert first.prediction == second.prediction
    assert first.target_label != second.target_label
    assert [t.integrated_gradients for t in first.tokens] != [
        t.integrated_gradients for t in second.tokens
    ]


@pytest.mark.parametrize("text", [SENSITIVE, "card declined", "refund", "ok"])
def test_explain_integrated_gradients_add_up_to_a_difference_of_logits(stub, models, text) -> None:
    run = models["private"]
    ids, mask = pad_batch(encode_texts(run, [text]), run.tokenizer.pad_id)
    padding = ids.clone()
    padding[:, 1:-1] = run.tokenizer.pad_id
    with torch.no_grad():
        difference = (run.model(ids, mask) - run.model(padding, mask))[0, 1].item()

    response = explain(stub, text, target_label=run.label_names[1])

    total = sum(token.integrated_gradients for token in response.tokens)
    assert total == pytest.approx(difference, rel=1e-2, abs=1e-4)
    assert abs(total - difference) <= response.integrated_gradients_error + 1e-5
    assert not response.HasField("integrated_gradients_withheld")


def test_integrated_gradients_that_do_not_converge_are_withheld_with_the_reason(
    serve, make_core, models
) -> None:
    run = models["private"]
    model = copy.deepcopy(run.model)
    model.head = nn.Sequential(model.head, _Stairs())
    stub = AttnprivServiceStub(serve(make_core({"private": replace(run, model=model)})))

    response = explain(stub)

    assert not any(token.HasField("integrated_gradients") for token in response.tokens)
    assert all(token.HasField("attention") for token in response.tokens)
    assert response.integrated_gradients_error > 1
    assert "more than 5%" in response.integrated_gradients_withheld


class _Stairs(nn.Module):
    """Logits that jump and are flat in between, so that gradients say nothing of them."""

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return (100 * logits).round()


def test_the_certified_bound_holds_and_tells_no_hidden_length(stub, models) -> None:
    attention = models["private"].model.config.attention
    response = explain(stub)
    longer = explain(stub, SENSITIVE.replace("jane.doe", "jane.antoinette.doe.of.nowhere"))

    rows = [*response.tokens, *response.special_tokens]
    bound = weight_bounds(attention.clip, attention.temperature, len(rows))[1]
    assert response.weight_bound == bound
    assert max(t.attention for t in rows if not t.entity_types) <= bound
    assert longer.weight_bound == response.weight_bound


def test_list_and_get_models_carry_the_card_without_the_fingerprint(stub, models) -> None:
    listed = stub.ListModels(pb.ListModelsRequest()).models
    card = stub.GetModel(pb.GetModelRequest(name="private")).model

    assert [(m.name, m.private, m.HasField("epsilon")) for m in listed] == [
        ("plain", False, False),
        ("private", True, True),
    ]
    assert card.summary.epsilon == 3.0
    assert card.statement == models["private"].card["statement"]
    assert list(card.not_covered) == models["private"].card["not_covered"]
    assert models["private"].card["data"]["fingerprint"] not in card.json
    assert '"rows_train"' in card.json


# What is withheld


def test_no_sensitive_text_is_in_the_answer(channel) -> None:
    call = channel.unary_unary(
        "/attnpriv.v1.AttnprivService/Explain",
        request_serializer=pb.ExplainRequest.SerializeToString,
        response_deserializer=None,
    )

    raw = call(pb.ExplainRequest(model="private", text=SENSITIVE))

    assert [secret for secret in SECRETS if secret.encode() in raw] == []
    response = pb.ExplainResponse.FromString(raw)
    texts = [token.text for token in response.tokens]
    for placeholder in ("[PHONE_NUMBER]", "[EMAIL_ADDRESS]", "[CREDIT_CARD]"):
        assert texts.count(placeholder) == 1
    assert not any(token.HasField("offsets") for token in response.tokens)
    assert response.redaction.detector == "presidio-patterns"
    assert "PHONE_NUMBER" in response.redaction.entity_types
    assert "PERSON" in response.redaction.cannot_see


def test_a_number_cut_by_the_model_is_still_recognised(stub, models) -> None:
    limit = models["private"].model.config.max_length
    text = "a " * (limit - 5) + "+44 7911 123456 thanks"

    response = explain(stub, text)

    assert response.prediction.truncated
    assert response.tokens[-1].text == "[PHONE_NUMBER]"


def test_without_redaction_tokens_and_offsets_are_shown(serve, open_core) -> None:
    response = explain(AttnprivServiceStub(serve(open_core)))

    assert not response.HasField("redaction")
    for token in response.tokens:
        assert token.text == SENSITIVE[token.offsets.start : token.offsets.end]
        assert not token.entity_types
    assert not any(token.HasField("offsets") for token in response.special_tokens)
    assert "4111" in "".join(token.text for token in response.tokens)


def test_probabilities_can_be_withheld(serve, make_core, models) -> None:
    stub = AttnprivServiceStub(serve(make_core(models, Policy(reveal_probabilities=False))))

    response = stub.Predict(pb.PredictRequest(model="private", texts=["hello"]))

    assert response.predictions[0].label in response.label_names
    assert not response.predictions[0].probabilities
    assert not explain(stub).prediction.probabilities


def test_attention_can_be_withheld(serve, make_core, models) -> None:
    response = explain(
        AttnprivServiceStub(serve(make_core(models, Policy(reveal_attention=False))))
    )

    for token in [*response.tokens, *response.special_tokens]:
        assert not token.HasField("attention")
        assert not token.layer_attention
        assert token.HasField("integrated_gradients")
    assert not response.HasField("weight_bound")


def test_integrated_gradients_can_be_withheld(serve, make_core, models) -> None:
    policy = Policy(reveal_integrated_gradients=False)
    response = explain(AttnprivServiceStub(serve(make_core(models, policy))))

    for token in [*response.tokens, *response.special_tokens]:
        assert not token.HasField("integrated_gradients")
        assert token.HasField("attention")


def test_with_both_withheld_there_is_no_explanation(serve, make_core, models) -> None:
    policy = Policy(reveal_attention=False, reveal_integrated_gradients=False)
    stub = AttnprivServiceStub(serve(make_core(models, policy)))

    assert error_of(lambda: explain(stub)) == (
        "PERMISSION_DENIED",
        "the policy withholds all explanations",
    )


def test_a_model_trained_without_privacy_gives_labels_only(stub) -> None:
    plain = stub.Predict(pb.PredictRequest(model="plain", texts=TEXTS)).predictions
    private = stub.Predict(pb.PredictRequest(model="private", texts=TEXTS)).predictions

    assert [p.label for p in plain] == [p.label for p in private]  # the same weights
    assert not any(p.probabilities for p in plain)
    code, _ = error_of(lambda: stub.Explain(pb.ExplainRequest(model="plain", text="hello")))
    assert code == "PERMISSION_DENIED"


def test_the_restriction_of_models_without_privacy_can_be_lifted(serve, make_core, models) -> None:
    stub = AttnprivServiceStub(serve(make_core(models, Policy(restrict_non_private_models=False))))

    response = stub.Predict(pb.PredictRequest(model="plain", texts=["hello"]))

    assert response.predictions[0].probabilities
    assert stub.Explain(pb.ExplainRequest(model="plain", text="hello")).tokens


# What is refused


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
        assert sum(token.attention[-1] for token in rows) == pytest.approx(1, abs=1e-5)
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
    stub = AttnprivServiceStub(serve(make_core({"broken": run}, Policy())))

    predict = error_of(lambda: stub.Predict(pb.PredictRequest(model="broken", texts=["tell-tale"])))

    assert predict == ("INTERNAL", "internal error")
    defects = [record for record in caplog.records if record.msg == "defect"]
    assert defects[0].fields["error"] == "ArithmeticError"
    assert re.fullmatch(r"lane\.py:\d+", defects[0].fields["at"])
    assert "tell-tale" not in caplog.text + str([r.__dict__ for r in caplog.records])


def test_an_unexpected_exception_in_the_model_is_internal(serve, make_core, private_run) -> None:
    run = load_run(private_run)
    run.model.words.weight.data = run.model.words.weight.data[:3]  # every token id out of range
    stub = AttnprivServiceStub(serve(make_core({"broken": run}, Policy())))

    request = pb.PredictRequest(model="broken", texts=["hello"])
    assert error_of(lambda: stub.Predict(request)) == ("INTERNAL", "internal error")


# Deadlines, cancellation, load


QUEUE = 64


class Gate:
    """Holds every forward pass of a model until it is opened, and counts them."""

    def __init__(self, run: Run) -> None:
        self.entered, self.opened, self.passes = threading.Event(), threading.Event(), 0
        run.model.head.register_forward_pre_hook(self._hold)

    def _hold(self, module, args) -> None:
        self.passes += 1
        self.entered.set()
        assert self.opened.wait(30)


@pytest.fixture
def gated(serve, make_core, private_run):
    """A channel to a server whose only model waits at a gate."""
    run = load_run(private_run)
    gate = Gate(run)
    policy = Policy(redact_sensitive_tokens=False)
    core = make_core({"private": run}, policy, batching=Batching(token_budget=1, capacity=QUEUE))
    yield gate, serve(core)
    gate.opened.set()


def predict_of(text: str) -> pb.PredictRequest:
    return pb.PredictRequest(model="private", texts=[text])


def health_check(channel, service: str = "") -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status


def test_an_expired_deadline(stub) -> None:
    code, _ = error_of(lambda: stub.Predict(predict_of("late"), timeout=0.0))

    assert code == "DEADLINE_EXCEEDED"


def test_requests_that_expire_or_are_cancelled_in_the_queue_are_never_computed(gated) -> None:
    gate, channel = gated
    stub = AttnprivServiceStub(channel)
    first = stub.Predict.future(predict_of("first"))
    assert gate.entered.wait(30)

    expires = stub.Predict.future(predict_of("expires"), timeout=0.2)
    cancelled = stub.Predict.future(predict_of("cancelled"))
    assert error_of(expires.result)[0] == "DEADLINE_EXCEEDED"
    cancelled.cancel()
    # The event loop is free while the model computes; and this answer comes after the server has
    # read the cancellation, which went before it on the same connection.
    assert health_check(channel) == health_pb2.HealthCheckResponse.SERVING
    gate.opened.set()

    assert first.result(30).predictions
    assert stub.Predict(predict_of("last")).predictions
    assert gate.passes == 2


def test_work_stops_between_steps_once_nobody_waits(core, models) -> None:
    deadline = Deadline(None)
    run = models["private"]
    hook = run.model.head.register_forward_hook(lambda *_: deadline.cancel())

    with pytest.raises(RefusedError) as caught:
        asyncio.run(answer_of(core, ExplainRequest("private", SENSITIVE), deadline))
    hook.remove()

    assert caught.value.status == Status(Code.CANCELLED, "the request was cancelled")


def test_too_many_waiting_requests_are_turned_away(gated) -> None:
    gate, channel = gated
    stub = AttnprivServiceStub(channel)
    answered = threading.Semaphore(0)
    calls = [stub.Predict.future(predict_of("wait")) for _ in range(QUEUE + 4)]
    for call in calls:
        call.add_done_callback(lambda _: answered.release())
    assert all(answered.acquire(timeout=30) for _ in range(3))
    assert health_check(channel) == health_pb2.HealthCheckResponse.SERVING
    gate.opened.set()

    codes = Counter(call.code().name for call in calls)
    assert codes == {"OK": QUEUE + 1, "RESOURCE_EXHAUSTED": 3}


def test_predictions_do_not_wait_behind_explanations(gated) -> None:
    gate, channel = gated
    stub = AttnprivServiceStub(channel)
    explaining = stub.Explain.future(pb.ExplainRequest(model="private", text="a"))
    assert gate.entered.wait(30)

    assert stub.ListModels(pb.ListModelsRequest(), timeout=10).models
    gate.opened.set()
    assert explaining.result(30).tokens


def test_stopping_finishes_what_was_begun(serving_block, make_core, private_run) -> None:
    run = load_run(private_run)
    gate = Gate(run)
    with serving_block(
        make_core({"private": run}, Policy(redact_sensitive_tokens=False))
    ) as channel:
        begun = AttnprivServiceStub(channel).Predict.future(predict_of("begun"))
        assert gate.entered.wait(30)
        threading.Timer(0.2, gate.opened.set).start()
        # Leaving the block stops the server first and closes the channel then.
    assert begun.result(30).predictions


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_heard_however_much_the_event_loop_has_to_do(make_core, models, number) -> None:
    async def run() -> None:
        loop, server = asyncio.get_running_loop(), Server(make_core(models), "127.0.0.1:0")

        def signal_while_busy(port: int) -> None:
            for _ in range(10_000):  # more than the pipe holds that wakes the loop
                loop.call_soon_threadsafe(lambda: None)
            os.kill(os.getpid(), number)

        async with asyncio.timeout(60):
            await serve_until_stopped(server, 0, signal_while_busy)

    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        asyncio.run(run())
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test_stopping_ends_streams_once_what_was_read_is_answered(
    serving_block, make_core, private_run
) -> None:
    """Not after the grace of half a minute, and not by a status that says all is well."""
    run = load_run(private_run)
    gate = Gate(run)
    left = threading.Event()

    def requests():
        yield pb.PredictStreamRequest(number=7, request=predict_of("read"))
        left.wait(60)

    def read(call) -> tuple[int, tuple[str, str]]:
        answers = []
        end = error_of(lambda: answers.extend(call))
        return len(answers), end

    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with (
        ThreadPoolExecutor() as pool,
        serving_block(make_core({"private": run})) as channel,
    ):
        predicting = AttnprivServiceStub(channel).PredictStream(requests(), timeout=60)
        reflecting = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            chain([request], iter(lambda: left.wait(60), True)), timeout=60
        )
        told = [pool.submit(read, call) for call in (predicting, reflecting)]
        assert gate.entered.wait(30)
        threading.Timer(0.2, gate.opened.set).start()
        # Leaving the block stops the server first and closes the channel then.
    left.set()

    assert [each.result(30) for each in told] == [
        (1, ("UNAVAILABLE", "the server is stopping"))
    ] * 2


# Standard services


def test_health(channel) -> None:
    assert health_check(channel) == health_pb2.HealthCheckResponse.SERVING
    service = "attnpriv.v1.AttnprivService"
    assert health_check(channel, service) == health_pb2.HealthCheckResponse.SERVING
    assert error_of(lambda: health_check(channel, "nobody"))[0] == "NOT_FOUND"


def test_health_can_be_watched(channel) -> None:
    request = health_pb2.HealthCheckRequest(service="attnpriv.v1.AttnprivService")
    watch = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=10)

    assert next(iter(watch)).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


def test_reflection_lists_the_services(channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")

    responses = list(stub.ServerReflectionInfo(iter([request]), timeout=10))

    assert {service.name for service in responses[0].list_services_response.service} == {
        "attnpriv.v1.AttnprivService",
        "grpc.health.v1.Health",
        "inference.GRPCInferenceService",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def test_log_lines_hold_method_code_and_time_alone(stub, caplog) -> None:
    caplog.set_level("INFO", "attnpriv_server")
    error_of(lambda: stub.GetModel(pb.GetModelRequest(name="unheard-of")))
    explain(stub)

    calls = [record.fields for record in caplog.records if record.msg == "call"]

    assert [(c["method"].rsplit("/")[-1], c["code"]) for c in calls] == [
        ("GetModel", "NOT_FOUND"),
        ("Explain", "OK"),
    ]
    assert all(set(c) == {"method", "code", "seconds"} for c in calls)
