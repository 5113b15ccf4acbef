"""What the server writes is what the client reads, whatever it is."""

from __future__ import annotations

import json
from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st

import attnpriv_client.convert as client
import attnpriv_server.convert as server
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv_server.domain import (
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
    Token,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
FLOAT = st.floats(width=32, allow_nan=False, allow_infinity=False)
DOUBLE = st.floats(allow_nan=False, allow_infinity=False)
COUNT = st.integers(0, 2**32 - 1)


def maybe(strategy):
    return st.none() | strategy


TOKENS = st.lists(
    st.builds(
        Token,
        text=TEXT,
        entity_types=TEXTS,
        attention=maybe(st.lists(FLOAT, min_size=1, max_size=4).map(tuple)),
        integrated_gradients=maybe(FLOAT),
        offsets=maybe(st.tuples(COUNT, COUNT)),
    ),
    max_size=4,
).map(tuple)


@st.composite
def predictions(draw) -> Predictions:
    names = draw(st.lists(TEXT, min_size=1, max_size=4, unique=True).map(tuple))
    values = st.lists(FLOAT, min_size=len(names), max_size=len(names)).map(tuple)
    prediction = st.builds(Prediction, TEXT, maybe(values), st.booleans())
    return Predictions(names, tuple(draw(st.lists(prediction, min_size=1, max_size=3))))


def as_read(prediction: Prediction, names: tuple[str, ...]) -> dict:
    values = prediction.probabilities
    pairs = None if values is None else dict(zip(names, values, strict=True))
    return {**asdict(prediction), "probabilities": pairs}


def token_as_read(token: Token) -> dict:
    layers = token.attention or ()
    attention = layers[-1] if layers else None
    return {**asdict(token), "attention": attention, "layer_attention": layers}


@given(predictions())
def test_predictions(answer) -> None:
    message = pb.PredictResponse.FromString(server.to_wire(answer).SerializeToString())

    read = [asdict(prediction) for prediction in client.predictions(message)]

    assert read == [as_read(each, answer.label_names) for each in answer.predictions]


@given(
    predictions(),
    TEXT,
    TOKENS,
    TOKENS,
    maybe(st.builds(Redaction, TEXT, TEXTS, TEXTS)),
    maybe(DOUBLE),
)
def test_explanations(answer, target, tokens, special, redaction, bound) -> None:
    names, prediction = answer.label_names, answer.predictions[0]
    explanation = Explanation(names, prediction, target, tokens, special, redaction, bound)
    message = pb.ExplainResponse.FromString(server.to_wire(explanation).SerializeToString())

    read = asdict(client.explanation(message))

    assert read == {
        "prediction": as_read(prediction, names),
        "target_label": target,
        "tokens": tuple(map(token_as_read, tokens)),
        "special_tokens": tuple(map(token_as_read, special)),
        "redaction": None if redaction is None else asdict(redaction),
        "weight_bound": bound,
    }


@given(
    st.fixed_dictionaries(
        {
            "name": TEXT,
            "private": st.booleans(),
            "epsilon": maybe(DOUBLE),
            "delta": maybe(DOUBLE),
            "label_names": TEXTS.map(list),
            "encoder": TEXT,
            "attention": st.fixed_dictionaries(
                {
                    "temperature": DOUBLE,
                    "clip": maybe(DOUBLE),
                    "clip_mode": TEXT,
                    "score": TEXT,
                    "temperature_floor": maybe(DOUBLE),
                    "temperatures": st.lists(st.lists(DOUBLE)),
                }
            ),
            "data": st.fixed_dictionaries({"name": TEXT, "fingerprint": st.just("f" * 64)}),
            "statement": TEXT,
            "not_covered": TEXTS.map(list),
            "warnings": TEXTS.map(list),
        }
    )
)
def test_cards(card) -> None:
    message = server.to_wire(Model(card)).SerializeToString()
    listed = server.to_wire(Models((card,))).SerializeToString()

    read = client.model_card(pb.GetModelResponse.FromString(message))

    assert client.models(pb.ListModelsResponse.FromString(listed)) == (read.summary,)
    assert b"f" * 64 not in message
    summary = ("name", "private", "epsilon", "delta")
    assert {key: getattr(read.summary, key) for key in summary} == {k: card[k] for k in summary}
    assert list(read.summary.label_names) == card["label_names"]
    attention = {key: v for key, v in card["attention"].items() if key != "temperatures"}
    assert {key: getattr(read, key) for key in attention} == attention
    assert (read.encoder, read.statement) == (card["encoder"], card["statement"])
    assert [list(read.not_covered), list(read.warnings)] == [card["not_covered"], card["warnings"]]
    assert read.raw == json.loads(json.dumps({**card, "data": {"name": card["data"]["name"]}}))


@given(TEXT, TEXTS, maybe(TEXT))
def test_requests(model, texts, label) -> None:
    text = "".join(texts)

    assert server.to_domain(client.predict_request(model, texts)) == PredictRequest(model, texts)
    assert server.to_domain(client.explain_request(model, text, label)) == ExplainRequest(
        model, text, label
    )
    assert server.to_domain(client.model_request(model)) == GetModelRequest(model)
    assert server.to_domain(pb.ListModelsRequest()) == ListModelsRequest()
