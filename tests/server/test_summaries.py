"""Summaries of many texts through a real server: right, noised, paid for once, or refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from uuid import uuid4

import numpy as np
import pytest

from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceStub
from attnpriv_client import (
    AsyncClient,
    Client,
    InvalidRequestError,
    PermissionDeniedError,
    ServiceError,
    Summary,
    UnavailableError,
)
from attnpriv_server.budget import database
from attnpriv_server.budget.charging import Budget
from attnpriv_server.limits import Limits
from attnpriv_server.policy import Role, read_policies
from attnpriv_server.telemetry import Telemetry
from tests.server.asking import error_of
from tests.server.conftest import listening

POLICY = """
[roles.everyone]
predict = { label = { read = "full" } }
budget = { epsilon = 2 }

[roles.everyone.summarize]
epsilon = 1
labels = { read = "full" }
attention = { read = "full" }
attribution = { read = "redacted" }
"""
# The noise of a summary at this ε is small enough to compare it with exact figures.
CLEAR = POLICY.replace("epsilon = 2", "epsilon = 1000").replace("epsilon = 1\n", "epsilon = 20\n")
EXPLAINED = """
[roles.everyone]
predict = { label = { read = "full" } }

[roles.everyone.explain]
tokens = { read = "redacted" }
label = { read = "full" }
attention = { read = "full" }
"""
TEXTS = [
    "Please call +44 7911 123456 because my parcel is late",
    "The parcel for jane.doe@example.com never came, please help",
    "I was charged twice, card 4111 1111 1111 1111",
    "Parcel! PARCEL! and a refund",
]


def role(content: str) -> Role:
    return read_policies(content.encode()).of("anybody")


Listen = Callable[..., str]


@pytest.fixture
def listen(make_core, models, tmp_path) -> Iterator[Listen]:
    """Start a server under a policy; its address."""
    with ExitStack() as stack:

        def start(policy: str, limits: Limits | None = None) -> str:
            budget = Budget.open(f"sqlite:///{tmp_path}/budget.db", Telemetry())
            core = make_core(models, role(policy), budget=budget, limits=limits)
            return stack.enter_context(listening(core))

        yield start


def ask(target: str, texts=TEXTS, figures=("labels", "attention"), **options) -> Summary:
    model = options.pop("model", "private")
    with Client(target, 120) as client:
        return client.summarize(model, texts, figures, **options)


def ask_async(target: str, texts=TEXTS, figures=("labels", "attention"), **options) -> Summary:
    async def call() -> Summary:
        async with AsyncClient(target, 120) as client:
            return await client.summarize("private", texts, figures, **options)

    return asyncio.run(call())


def explained_share(stub: AttnprivServiceStub, text: str, group: str) -> float:
    """The attention on a type or a word, out of an explanation of the whole text."""
    found = stub.Explain(pb.ExplainRequest(model="private", text=text))
    return sum(
        token.attention
        for token in found.tokens
        if list(token.entity_types[:1]) == [group]
        or (not token.entity_types and token.text.lower() == group)
    )


@pytest.mark.parametrize("client", [ask, ask_async])
def test_a_summary_tells_what_explanations_tell_one_by_one(
    listen, serve, make_core, models, client
):
    texts = TEXTS * 20
    stub = AttnprivServiceStub(serve(make_core(models, role(EXPLAINED))))
    predicted = stub.Predict(pb.PredictRequest(model="private", texts=TEXTS)).predictions
    labels = [each.label for each in predicted]

    found = client(listen(CLEAR), texts, words=["parcel", "please"], cap=1.0)

    assert found.texts == len(texts)
    assert found.micro_epsilon == 20_000_000
    assert [each.label for each in found.labels] == list(models["private"].label_names)
    for label in found.labels:
        assert abs(label.count.value - 20 * labels.count(label.label)) <= 6 * label.count.noise
        assert label.attention is None
    told = {group.name: group for group in found.groups}
    for name in ("PHONE_NUMBER", "EMAIL_ADDRESS", "CREDIT_CARD", "IBAN_CODE", "parcel", "please"):
        exact = np.mean([explained_share(stub, text, name) for text in TEXTS])
        assert abs(told[name].attention.value - exact) <= 6 * told[name].attention.noise, name
        assert told[name].attribution is None
        assert told[name].is_word == name.islower()
    assert told["PHONE_NUMBER"].attention.value > 6 * told["PHONE_NUMBER"].attention.noise


def test_means_are_told_by_label_where_enough_texts_have_it(listen) -> None:
    found = ask(listen(CLEAR), TEXTS[:1] * 20, by_label=True)

    assert sorted(label.attention is not None for label in found.labels)[-2:] == [False, True]
    (common,) = [label for label in found.labels if label.attention is not None]
    assert common.count.value >= 12
    assert common.attention.value > 6 * common.attention.noise
    assert common.attribution is None


def test_the_same_request_gets_the_same_summary_for_nothing(listen) -> None:
    target, request_id = listen(POLICY), str(uuid4())

    first = ask(target, request_id=request_id)
    again = [ask(target, request_id=request_id) for _ in range(3)]
    other = ask(target)

    assert again == [first] * 3
    assert other.labels != first.labels  # with noise of its own
    with pytest.raises(ServiceError, match="budget has not enough left for 1000000 micro-eps"):
        ask(target)
    assert ask_async(target, request_id=request_id) == first


@pytest.mark.parametrize(
    "change",
    [
        {"texts": [*TEXTS[:3], "another"]},
        {"texts": TEXTS[:3]},
        {"figures": ("labels",)},
        {"words": ["parcel"]},
        {"cap": 0.2},
    ],
)
def test_one_id_serves_for_one_summary(listen, change) -> None:
    target, request_id = listen(POLICY), str(uuid4())
    ask(target, request_id=request_id)

    with pytest.raises(ServiceError) as caught:
        ask(target, request_id=request_id, **change)

    assert caught.value.code == "ALREADY_EXISTS"


def test_summaries_and_draws_are_counted_apart(listen) -> None:
    drawn = POLICY.replace('label = { read = "full" }', 'label = { read = "full", epsilon = 2 }')
    target = listen(drawn)

    with Client(target) as client:
        client.predict("private", [TEXTS[0]])
        client.summarize("private", TEXTS, ["labels"])
        client.summarize("private", TEXTS, ["labels"])
        with pytest.raises(ServiceError):
            client.summarize("private", TEXTS, ["labels"])


@pytest.mark.parametrize(
    ("policy", "model", "figures", "message"),
    [
        (EXPLAINED, "private", ["labels"], "the policy withholds summaries"),
        (
            POLICY.replace('attention = { read = "full" }', 'attention = "deny"'),
            "private",
            ["labels", "attention"],
            "the policy withholds attention from summaries",
        ),
        (POLICY, "plain", ["attention"], "not trained privately"),
    ],
)
@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_what_the_policy_withholds_is_refused(listen, client, policy, model, figures, message):
    target = listen(policy)

    with pytest.raises(PermissionDeniedError, match=message):
        if client is Client:
            ask(target, TEXTS * 100, figures, model=model)
        else:
            asyncio.run(_summarize(target, model, TEXTS * 100, figures))


async def _summarize(target: str, model: str, texts: list[str], figures: list[str]) -> None:
    async with AsyncClient(target) as client:
        await client.summarize(model, texts, figures)


def test_a_model_without_privacy_tells_its_labels(listen) -> None:
    assert ask(listen(POLICY), figures=["labels"], model="plain").labels


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"texts": []}, "texts"),
        ({"texts": ["a", " "]}, "texts[1]"),
        ({"texts": ["a"] * 40 + ["x" * 65_537]}, "texts[40]"),
        ({"texts": ["a"] * 40 + ["\u200b\u2060"]}, "texts[40]"),
        ({"texts": ["a"] * 101}, "at most 100 texts"),
        ({"figures": []}, "figures"),
        ({"figures": [0]}, "figures[0]"),
        ({"figures": [1, 99]}, "figures[1]"),
        ({"figures": [1, 1]}, "figures[1]"),
        ({"figures": [1], "by_label": True}, "by_label"),
        ({"figures": [2], "by_label": True}, "by_label"),
        ({"cap": 0.0}, "cap"),
        ({"cap": float("nan")}, "cap"),
        ({"cap": 2.0}, "cap"),
        ({"words": [""]}, "words[0]"),
        ({"words": ["a", " b"]}, "words[1]"),
        ({"words": ["a", "A"]}, "words[1]"),
        ({"words": ["x" * 65]}, "words[0]"),
        ({"words": [f"w{n}" for n in range(101)]}, "words"),
        ({"request_id": "short"}, "request_id"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_not_charged(
    serve, make_core, models, tmp_path, fields, field
):
    budget = Budget.open(f"sqlite:///{tmp_path}/budget.db", Telemetry())
    limits = Limits(summary_texts=100)
    core = make_core(models, role(POLICY), budget=budget, limits=limits)
    stub = AttnprivServiceStub(serve(core))
    right = {"model": "private", "texts": TEXTS, "figures": [1, 2]}

    code, message = error_of(lambda: stub.Summarize(iter([pb.SummarizeRequest(**right | fields)])))

    assert code == "INVALID_ARGUMENT"
    assert field in message
    assert not budget._store.usage()


def test_requests_that_are_too_large_are_refused(listen) -> None:
    target = listen(POLICY, Limits(summary_bytes=1000, summary_texts=50))

    with pytest.raises(ServiceError, match="at most 1000 bytes"):
        ask(target, ["x" * 300] * 10)
    with pytest.raises(InvalidRequestError, match="at most 50 texts"):
        ask(target, ["a"] * 51)


def test_a_request_in_any_parts_is_one_request(serve, make_core, models, tmp_path) -> None:
    budget = Budget.open(f"sqlite:///{tmp_path}/budget.db", Telemetry())
    stub = AttnprivServiceStub(serve(make_core(models, role(POLICY), budget=budget)))
    question = pb.SummarizeRequest(model="private", figures=[1, 2], request_id=str(uuid4()))
    one_by_one = [pb.SummarizeRequest(texts=[text]) for text in TEXTS]
    whole = pb.SummarizeRequest()
    for part in (question, *one_by_one):
        whole.MergeFrom(part)

    first = stub.Summarize(iter([whole]))

    assert stub.Summarize(iter([question, *one_by_one])) == first
    assert stub.Summarize(iter([*one_by_one, question])) == first
    assert error_of(lambda: stub.Summarize(iter([])))[0] == "INVALID_ARGUMENT"


def test_more_texts_than_one_message_takes_are_summarised(listen, make_core, models) -> None:
    texts = ["my parcel " * 3000] * 200  # 6 MB

    found = ask(listen(CLEAR), texts, ["labels"])

    assert found.texts == 200
    assert max(label.count.value for label in found.labels) >= 195


def test_without_its_store_nothing_is_summarised(listen, tmp_path, monkeypatch) -> None:
    target = listen(POLICY)
    ask(target, figures=["labels"])
    monkeypatch.setattr(database, "WAIT_SECONDS", 0.1)

    with (
        Client(target, 120, attempts=1) as client,
        database._locked(tmp_path / "budget.db-lock"),
        pytest.raises(UnavailableError, match="so nothing is released"),
    ):
        client.summarize("private", TEXTS, ["labels"])

    assert ask(target, figures=["labels"]).labels
