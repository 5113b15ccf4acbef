"""What the server writes is what the client reads, whatever it is."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attnpriv_client.convert as client
import attnpriv_server.convert as server
from attnpriv.config import ClipMode, Score
from attnpriv.runs.card import ModelCard
from attnpriv.spans import Span
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv_client import SensitiveSpan
from attnpriv_server.domain import (
    Code,
    ExplainRequest,
    Explanation,
    GetModelRequest,
    ListModelsRequest,
    Model,
    Models,
    Prediction,
    Predictions,
    PredictRequest,
    Redaction,
    Status,
    Token,
    Violation,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
FLOAT = st.floats(width=32, allow_nan=False, allow_infinity=False)
DOUBLE = st.floats(allow_nan=False, allow_infinity=False)
AMOUNT = st.floats(0, allow_infinity=False)
POSITIVE = st.floats(0, exclude_min=True, allow_infinity=False)
COUNT = st.integers(0, 2**32 - 1)


def maybe(strategy):
    return st.none() | strategy


HEADS = st.lists(FLOAT, min_size=1, max_size=3).map(tuple)
TOKENS = st.lists(
    st.builds(
        Token,
        text=TEXT,
        entity_types=TEXTS,
        attention=maybe(FLOAT),
        layer_attention=maybe(st.lists(FLOAT, min_size=1, max_size=4).map(tuple)),
        head_attention=maybe(st.lists(HEADS, min_size=1, max_size=3).map(tuple)),
        rollout=maybe(FLOAT),
        integrated_gradients=maybe(FLOAT),
        offsets=maybe(st.tuples(COUNT, COUNT)),
        box=maybe(st.tuples(COUNT, COUNT, COUNT, COUNT)),
    ),
    max_size=4,
).map(tuple)


@st.composite
def predictions(draw) -> Predictions:
    names = draw(st.lists(TEXT, min_size=1, max_size=4, unique=True).map(tuple))
    values = st.lists(FLOAT, min_size=len(names), max_size=len(names)).map(tuple)
    prediction = st.builds(Prediction, TEXT, maybe(values), st.booleans(), maybe(COUNT))
    return Predictions(draw(TEXT), names, tuple(draw(st.lists(prediction, min_size=1, max_size=3))))


def as_read(prediction: Prediction, answer: Predictions) -> dict:
    values = prediction.probabilities
    pairs = None if values is None else dict(zip(answer.label_names, values, strict=True))
    read = {**asdict(prediction), "probabilities": pairs, "version": answer.version}
    return {**read, "micro_epsilon": answer.micro_epsilon / len(answer.predictions)}


def token_as_read(token: Token) -> dict:
    return {
        **asdict(token),
        "layer_attention": token.layer_attention or (),
        "head_attention": token.head_attention or (),
    }


@given(predictions())
def test_predictions(answer) -> None:
    message = pb.PredictResponse.FromString(server.to_wire(answer).SerializeToString())

    read = [asdict(prediction) for prediction in client.predictions(message)]

    assert read == [as_read(each, answer) for each in answer.predictions]


EXPLAINED = st.tuples(
    predictions(),
    TEXT,
    TOKENS,
    TOKENS,
    maybe(st.builds(Redaction, TEXT, TEXTS, TEXTS, st.booleans())),
    maybe(DOUBLE),
    maybe(DOUBLE),
    maybe(TEXT),
    st.booleans(),
    maybe(COUNT),
    st.integers(0, 2**63),
)


@settings(max_examples=15)  # each takes a third of a second to draw
@given(EXPLAINED)
def test_explanations(drawn) -> None:
    check_explanation(*drawn)


@pytest.mark.exhaustive
@given(EXPLAINED)
def test_more_explanations(drawn) -> None:
    check_explanation(*drawn)


def check_explanation(
    answer, target, tokens, special, redaction, bound, error, reason, shows, drawn, cost
) -> None:
    names, prediction = answer.label_names, answer.predictions[0] if shows else None
    explanation = Explanation(
        answer.version,
        names,
        prediction,
        target,
        tokens,
        special,
        redaction,
        bound,
        error,
        reason,
        drawn,
        cost,
    )
    message = pb.ExplainResponse.FromString(server.to_wire(explanation).SerializeToString())

    read = asdict(client.explanation(message))

    assert read == {
        "version": answer.version,
        "prediction": None if prediction is None else as_read(prediction, answer),
        "target_label": target,
        "tokens": tuple(map(token_as_read, tokens)),
        "special_tokens": tuple(map(token_as_read, special)),
        "redaction": None if redaction is None else asdict(redaction),
        "weight_bound": bound,
        "integrated_gradients_error": error,
        "integrated_gradients_withheld": reason,
        "drawn_token": drawn,
        "micro_epsilon": cost,
    }


@st.composite
def cards(draw) -> dict:
    private, temperature = draw(st.booleans()), draw(POSITIVE)
    below = st.floats(0, temperature, exclude_min=True, exclude_max=True)
    return {
        "name": draw(TEXT),
        "statement": draw(TEXT),
        "warnings": draw(TEXTS.map(list)),
        "private": private,
        "epsilon": draw(AMOUNT if private else maybe(AMOUNT)),
        "delta": draw(AMOUNT if private else maybe(AMOUNT)),
        "privacy": None,
        "not_covered": draw(TEXTS.map(list)),
        "encoder": draw(TEXT),
        "trainable": draw(TEXT),
        "attention": {
            "temperature": temperature,
            "clip": draw(maybe(POSITIVE)),
            "clip_mode": draw(st.sampled_from(get_args(ClipMode))),
            "score": draw(st.sampled_from(get_args(Score))),
            "temperature_floor": draw(maybe(below)) if temperature > 1e-300 else None,
            "temperatures": draw(st.lists(st.lists(DOUBLE))),
        },
        "label_names": draw(TEXTS.map(list)),
        "data": {
            "name": draw(TEXT),
            "rows_train": draw(COUNT),
            "fingerprint": "f" * 64,
            "split": {"train_size": 0.8, "seed": draw(COUNT)},
        },
        "metrics": {"held_out": {"rows": 1, "accuracy": 1.0}, "covered_by_epsilon": False},
    }


@given(cards(), TEXT)
def test_cards(card, version) -> None:
    model = Model(ModelCard.from_json(card), version, ("1", version))
    message = server.to_wire(model).SerializeToString()
    listed = server.to_wire(Models((model,))).SerializeToString()

    read = client.model_card(pb.GetModelResponse.FromString(message))

    assert client.models(pb.ListModelsResponse.FromString(listed)) == (read.summary,)
    assert b"f" * 64 not in message
    assert (read.summary.version, read.summary.versions) == (version, ("1", version))
    summary = ("name", "private", "epsilon", "delta")
    assert {key: getattr(read.summary, key) for key in summary} == {k: card[k] for k in summary}
    assert list(read.summary.label_names) == card["label_names"]
    attention = {key: v for key, v in card["attention"].items() if key != "temperatures"}
    assert {key: getattr(read, key) for key in attention} == attention
    assert (read.encoder, read.statement) == (card["encoder"], card["statement"])
    assert [list(read.not_covered), list(read.warnings)] == [card["not_covered"], card["warnings"]]
    data = {name: value for name, value in card["data"].items() if name != "fingerprint"}
    assert read.raw == json.loads(json.dumps({**card, "data": data}))


SPANS = st.lists(
    st.builds(SensitiveSpan, st.integers(0, 9), st.integers(10, 2**32 - 1), TEXT), max_size=3
)


@given(TEXT, TEXTS, maybe(TEXT), maybe(TEXT), TEXT, SPANS)
def test_requests(model, texts, label, version, request_id, spans) -> None:
    read_spans = tuple(Span(each.start, each.end, each.entity_type) for each in spans)
    text = "".join(texts)

    predict = client.predict_request(model, texts, version, request_id, [spans, ()])
    assert server.to_domain(predict) == PredictRequest(
        model, texts, version, request_id, (read_spans, ())
    )
    explain = client.explain_request(model, text, label, version, request_id, spans)
    assert server.to_domain(explain) == ExplainRequest(
        model, text, label, version, request_id, read_spans
    )
    read = server.to_domain(client.model_request(model, version))
    assert read == GetModelRequest(model, version)
    assert server.to_domain(pb.ListModelsRequest()) == ListModelsRequest()


@given(predictions(), COUNT)
def test_answers_of_a_stream(answer, number) -> None:
    message = server.to_streamed(number, answer).SerializeToString()

    read = client.stream_answer(pb.PredictStreamResponse.FromString(message))

    assert read == (number, client.predictions(server.to_wire(answer)))


@given(TEXT, st.lists(st.builds(Violation, TEXT, TEXT)).map(tuple), maybe(st.floats(0.001, 1e5)))
def test_refusals_of_a_stream(message, violations, retry_after) -> None:
    status = Status(Code.INVALID_ARGUMENT, message, violations, retry_after)
    streamed = server.to_streamed(1, status).SerializeToString()

    _, error = client.stream_answer(pb.PredictStreamResponse.FromString(streamed))

    assert (error.code, error.message) == ("INVALID_ARGUMENT", message or "no details")
    assert [(each.field, each.description) for each in error.violations] == [
        (each.field, each.description) for each in violations
    ]
    assert error.retry_after == (None if retry_after is None else pytest.approx(retry_after, 1e-3))
