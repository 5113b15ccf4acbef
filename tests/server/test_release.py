"""What leaves the server under a policy: redacted readings, rounding, and drawn answers."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections import Counter
from decimal import Decimal
from uuid import uuid4

import numpy as np
import pytest

from attnpriv.data.tokenisation import HashTokenizer
from attnpriv.randomness import Stream
from attnpriv.sensitive import PresidioDetector, read_redacted
from attnpriv.sensitive.stand_ins import stand_ins
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceStub
from attnpriv_server import release
from attnpriv_server.budget.charging import Budget
from attnpriv_server.domain import ExplainRequest, PredictRequest
from attnpriv_server.explain import Scored
from attnpriv_server.policy import Role, read_policies
from attnpriv_server.release import Classified, Sight
from attnpriv_server.telemetry import Telemetry
from tests.server.asking import answer_of, error_of

REDACTED = """
[roles.everyone]
predict = { label = { read = "redacted" }, probabilities = { read = "redacted" } }

[roles.everyone.explain]
tokens = { read = "redacted" }
label = { read = "redacted" }
probabilities = { read = "redacted" }
attention = { read = "redacted" }
layer_attention = { read = "redacted" }
head_attention = { read = "redacted" }
rollout = { read = "redacted" }
integrated_gradients = { read = "redacted" }
"""
SUBSTITUTED = REDACTED.replace("redacted", "substituted").replace(
    'tokens = { read = "substituted" }', 'tokens = { read = "redacted" }'
)
HIDING = pytest.mark.parametrize("policy", [REDACTED, SUBSTITUTED], ids=["masks", "values"])
DRAWN = """
[roles.everyone]
predict = { label = { read = "full", epsilon = 1 }, probabilities = { read = "redacted" } }
budget = { epsilon = 4 }

[roles.everyone.explain]
tokens = { read = "redacted" }
label = { read = "redacted" }
attention = { read = "redacted" }
key = { epsilon = 1.5 }
"""
TEMPLATE = "Please call {phone} or write to {mail} because my parcel is late"
VALUES = [
    {"phone": "+44 7911 123456", "mail": "jane.doe@example.com"},
    {"phone": "+49 30 901820 15", "mail": "a@b.de"},
    {"phone": "(212) 555-0199", "mail": "the.longest.address.of.them.all@mail.example.org"},
    {"phone": "+44 7911 654321", "mail": "x_9@example.net"},
]
TEXTS = [TEMPLATE.format(**values) for values in VALUES]


def role(content: str) -> Role:
    return read_policies(content.encode()).of("anybody")


@pytest.fixture
def budget(tmp_path):
    telemetry = Telemetry()
    return Budget.open(f"sqlite:///{tmp_path}/budget.db", telemetry)


@pytest.fixture
def drawing(make_core, models, budget):
    core = make_core(models, role(DRAWN), budget=budget)
    yield core
    core.close()


def raw(channel, method, request) -> bytes:
    call = channel.unary_unary(
        f"/attnpriv.v1.AttnprivService/{method}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=None,
    )
    return call(request)


# The redacted reading


@HIDING
def test_hidden_values_change_no_byte_of_an_answer(
    serve, make_core, models, caplog, policy
) -> None:
    core = make_core(models, role(policy))
    channel = serve(core)
    seen = set()
    with caplog.at_level(logging.INFO):
        for text in TEXTS:
            caplog.clear()
            found = (
                raw(channel, "Explain", pb.ExplainRequest(model="private", text=text)),
                raw(channel, "Predict", pb.PredictRequest(model="private", texts=[text])),
            )
            lines = tuple(
                json.dumps({**record.fields, "seconds": None}, sort_keys=True)
                for record in caplog.records
                if hasattr(record, "fields")
            )
            seen.add((*found, lines))

    assert len(seen) == 1
    answer = pb.ExplainResponse.FromString(seen.pop()[0])
    assert answer.redaction.hidden_from_model
    assert [token.text for token in answer.tokens].count("[EMAIL_ADDRESS]") == 1
    assert len(answer.tokens[0].head_attention[0].heads) > 1
    assert answer.tokens[0].HasField("rollout")


def test_the_full_reading_does_depend_on_hidden_values(make_core, models) -> None:
    """The control: what the test above measures is there to be found."""
    core = make_core(models, role(REDACTED.replace('"redacted"', '"full"')))

    found = {
        asyncio.run(answer_of(core, PredictRequest("private", (text,)))).predictions[0]
        for text in TEXTS
    }

    assert len(found) == len(TEXTS)


def test_public_values_are_read_and_placeholders_shown(make_core, models) -> None:
    """The answer is that of the text with these values written in it."""
    values = stand_ins()
    written = TEMPLATE.format(phone=values["PHONE_NUMBER"], mail=values["EMAIL_ADDRESS"])
    full = REDACTED.replace('"redacted"', '"full"')
    asked = [(SUBSTITUTED, TEXTS[0]), (full, written), (REDACTED, TEXTS[0])]
    shown, exact, masked = (
        asyncio.run(answer_of(make_core(models, role(policy)), ExplainRequest("private", text)))
        for policy, text in asked
    )

    assert [token.text for token in shown.tokens] == [token.text for token in masked.tokens]
    assert shown.redaction.hidden_from_model
    assert shown.prediction.probabilities == pytest.approx(exact.prediction.probabilities, abs=1e-5)
    assert shown.prediction != masked.prediction
    alike = [token for token in exact.tokens if token.text == "parcel"]
    (own,) = [token for token in shown.tokens if token.text == "parcel"]
    for name in ("attention", "rollout", "integrated_gradients"):
        assert getattr(own, name) == pytest.approx(getattr(alike[0], name), abs=1e-4)
        whole = sum(getattr(token, name) for token in [*shown.tokens, *shown.special_tokens])
        parts = sum(getattr(token, name) for token in [*exact.tokens, *exact.special_tokens])
        assert whole == pytest.approx(parts, abs=1e-4)
    predicted = asyncio.run(
        answer_of(make_core(models, role(SUBSTITUTED)), PredictRequest("private", (TEXTS[0],)))
    )
    assert predicted.predictions[0].probabilities == pytest.approx(
        exact.prediction.probabilities, abs=1e-5
    )


@HIDING
@pytest.mark.exhaustive
def test_ten_thousand_swaps_of_hidden_values_change_nothing_that_is_read(
    make_core, models, policy
) -> None:
    chance = np.random.default_rng(11)
    core = make_core(models, role(policy))
    texts = [
        TEMPLATE.format(
            phone="+44 7911 " + "".join(map(str, chance.integers(0, 10, 6))),
            mail="".join(chance.choice(list("abcxyz"), chance.integers(3, 20))) + "@example.com",
        )
        for _ in range(10_000)
    ]
    tokenizer = HashTokenizer()

    readings = read_redacted(PresidioDetector(), texts, tokenizer, 64)
    answers = {
        asyncio.run(answer_of(core, PredictRequest("private", (text,)))).predictions[0]
        for text in texts[:500]
    }

    read = {(reading.redacted, reading.encoding, reading.substituted) for reading in readings}
    assert len(read) == 1
    assert len(answers) == 1


def test_scores_of_the_full_text_are_added_up_at_placeholders(make_core, models) -> None:
    content = REDACTED.replace('attention = { read = "redacted" }', 'attention = { read = "full" }')
    core = make_core(models, role(content))
    answer = asyncio.run(answer_of(core, ExplainRequest("private", TEXTS[0])))

    everything = [*answer.tokens, *answer.special_tokens]
    assert not answer.redaction.hidden_from_model
    assert sum(token.attention for token in everything) == pytest.approx(1, abs=1e-5)
    assert sum(token.rollout for token in everything) == pytest.approx(1, abs=1e-5)
    assert all(token.offsets is None for token in everything)


def test_rounding_and_the_largest_tokens_alone(make_core, models) -> None:
    content = REDACTED.replace(
        'attention = { read = "redacted" }', 'attention = { read = "redacted", top = 2 }', 1
    ).replace(
        'probabilities = { read = "redacted" }', 'probabilities = { read = "redacted", digits = 1 }'
    )
    answer, plain = (
        asyncio.run(answer_of(make_core(models, role(each)), ExplainRequest("private", TEXTS[0])))
        for each in (content, REDACTED)
    )

    shown = [token.attention for token in answer.tokens if token.attention is not None]
    everything = sorted((token.attention for token in plain.tokens), reverse=True)
    assert sorted(shown, reverse=True) == everything[:2]
    assert all(token.attention is None for token in answer.special_tokens)
    for value in answer.prediction.probabilities:
        assert value == pytest.approx(round(value, 1), abs=1e-6)


def test_a_label_that_is_withheld_is_not_told_as_the_target_either(make_core, models) -> None:
    content = """[roles.everyone.explain]
    tokens = { read = "redacted" }
    attention = { read = "redacted" }"""
    core = make_core(models, role(content))
    name = models["private"].label_names[0]

    silent = asyncio.run(answer_of(core, ExplainRequest("private", TEXTS[0])))
    named = asyncio.run(answer_of(core, ExplainRequest("private", TEXTS[0], name)))

    assert (silent.prediction, silent.target_label) == (None, None)
    assert named.target_label == name


# What the client knows to be personal data


def spans(*found: tuple[int, int, str]) -> list[pb.SensitiveSpan]:
    return [pb.SensitiveSpan(start=s, end=e, entity_type=kind) for s, e, kind in found]


def test_what_the_client_names_is_hidden_like_what_is_found(serve, make_core, models) -> None:
    channel = serve(make_core(models, role(REDACTED)))
    seen = set()
    for value in ("K-17", "K-998877665544", "no number at all"):
        text = f"My contract {value} ends"
        found = spans((12, 12 + len(value), "CONTRACT"))
        explain = pb.ExplainRequest(model="private", text=text, sensitive=found)
        several = [pb.SensitiveSpans(spans=found), pb.SensitiveSpans()]
        predict = pb.PredictRequest(model="private", texts=[text, "hello"], sensitive=several)
        seen.add((raw(channel, "Explain", explain), raw(channel, "Predict", predict)))

    assert len(seen) == 1
    answer = pb.ExplainResponse.FromString(seen.pop()[0])
    assert [token.text for token in answer.tokens] == ["My", "contra", "ct", "[CONTRACT]", "ends"]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ((3, 3, "X"), "sensitive[0]: expected start < end, and both within the text"),
        ((0, 6, "X"), "sensitive[0]: expected start < end, and both within the text"),
        ((0, 2, "name"), "sensitive[0].entity_type: expected 1 to 64 capital letters"),
        ((0, 2, ""), "sensitive[0].entity_type: expected 1 to 64 capital letters"),
    ],
)
def test_spans_that_cannot_be_meant_are_refused(stub, found, message) -> None:
    request = pb.ExplainRequest(model="private", text="hello", sensitive=spans(found))

    code, said = error_of(lambda: stub.Explain(request))

    assert code == "INVALID_ARGUMENT"
    assert said.startswith(message)


def test_spans_for_some_of_the_texts_are_refused(stub) -> None:
    request = pb.PredictRequest(
        model="private", texts=["one", "two"], sensitive=[pb.SensitiveSpans()]
    )

    assert error_of(lambda: stub.Predict(request)) == (
        "INVALID_ARGUMENT",
        "sensitive: expected none, or one for each of 2 texts, got 1",
    )


# Drawn answers


def test_a_drawn_answer_is_charged_once_for_each_request_id(drawing, serve) -> None:
    channel = serve(drawing)
    request = pb.ExplainRequest(model="private", text=TEXTS[0], request_id=str(uuid4()))

    first = raw(channel, "Explain", request)
    answer = pb.ExplainResponse.FromString(first)

    assert answer.micro_epsilon == 1_500_000
    assert answer.HasField("drawn_token")
    assert answer.redaction.hidden_from_model
    assert {raw(channel, "Explain", request) for _ in range(5)} == {first}
    stub = AttnprivServiceStub(channel)
    other = pb.ExplainRequest(model="private", text=TEXTS[1], request_id=request.request_id)
    assert error_of(lambda: stub.Explain(other))[0] == "ALREADY_EXISTS"


def test_an_exhausted_budget_refuses_and_says_nothing_of_what_is_left(drawing, serve) -> None:
    stub = AttnprivServiceStub(serve(drawing))

    def ask() -> pb.ExplainResponse:
        return stub.Explain(pb.ExplainRequest(model="private", text=TEXTS[0]))

    ask(), ask()  # 3 of 4
    code, message = error_of(ask)

    assert code == "RESOURCE_EXHAUSTED"
    assert message == (
        "the privacy budget has not enough left for 1500000 micro-epsilon in this period, "
        "which has no end"
    )
    stub.Predict(pb.PredictRequest(model="private", texts=["no personal data"]))


@pytest.mark.parametrize("request_id", ["short", "x" * 129, ""])
def test_a_request_id_that_cannot_be_used_is_refused_where_it_counts(
    drawing, serve, stub, request_id
) -> None:
    request = pb.ExplainRequest(model="private", text=TEXTS[0], request_id=request_id)

    code, message = error_of(lambda: AttnprivServiceStub(serve(drawing)).Explain(request))

    assert code == "INVALID_ARGUMENT"
    assert message.startswith("request_id: expected a request id of 16 to 128 characters")
    assert stub.Explain(request).micro_epsilon == 0


def test_without_a_budget_nothing_is_drawn(serve, make_core, models) -> None:
    stub = AttnprivServiceStub(serve(make_core(models, role(DRAWN))))

    code, _ = error_of(lambda: stub.Explain(pb.ExplainRequest(model="private", text=TEXTS[0])))

    assert code == "UNAVAILABLE"


def test_a_denied_method_is_refused(serve, make_core, models) -> None:
    stub = AttnprivServiceStub(serve(make_core(models, Role())))

    for call in (
        lambda: stub.Predict(pb.PredictRequest(model="private", texts=["hello"])),
        lambda: stub.Explain(pb.ExplainRequest(model="private", text="hello")),
    ):
        code, message = error_of(call)
        assert code == "PERMISSION_DENIED"
        assert message.startswith("the policy withholds")


# The draws themselves, on pairs of texts that differ in hidden values alone


def classified(*probabilities: float) -> Classified:
    return Classified(np.array(probabilities, np.float32), truncated=False)


def test_the_chances_of_a_drawn_label_stay_within_epsilon() -> None:
    rules = role(DRAWN).predict
    redacted = classified(0.4, 0.35, 0.25)
    chance = Stream(bytes(range(32)))
    counts = [Counter(), Counter()]
    for count, full in zip(counts, (classified(1, 0, 0), classified(0, 1, 0)), strict=True):
        for _ in range(20_000):
            found = {"full": full, "redacted": redacted}
            count[release.prediction(rules, found, "abc", False, chance).label] += 1

    ratios = [counts[0][label] / counts[1][label] for label in "abc"]
    assert max(ratios) <= math.e * 1.1
    assert max(ratios) >= math.e * 0.9  # the bound is used up
    assert min(ratios) >= math.exp(-1) * 0.9


def sight(attention: list[float]) -> Sight:
    encoding = HashTokenizer().encode("one two three", 16)
    scores = np.array([[[0.0, *attention, 0.0]]])
    return Sight([], encoding, Scored(attention=scores))


@pytest.mark.exhaustive
def test_the_chances_of_a_drawn_token_stay_within_epsilon() -> None:
    rules = role(DRAWN).explain
    redacted = sight([0.5, 0.3, 0.2])
    (reading,) = read_redacted(PresidioDetector(), ["one two three"], HashTokenizer(), 16)
    mechanism = release.key_mechanism(rules, redacted)
    chance = Stream(bytes(range(32)))
    counts = [Counter(), Counter()]
    for count, full in zip(counts, (sight([1, 0, 0]), sight([0, 0, 1])), strict=True):
        for _ in range(20_000):
            sights = {"full": full, "redacted": redacted}
            count[release.drawn_token(mechanism, sights, reading, chance)] += 1

    ratios = [counts[0][token] / counts[1][token] for token in range(3)]
    assert mechanism.cost.micro_epsilon == release.micro_epsilon(Decimal("1.5")) == 1_500_000
    assert max(ratios) <= math.exp(1.5) * 1.1
    assert min(ratios) >= math.exp(-1.5) * 0.9
    assert max(max(ratios), 1 / min(ratios)) >= math.exp(1.5) * 0.8


def test_a_text_without_words_has_no_token_to_draw() -> None:
    encoding = HashTokenizer().encode("", 16)
    empty = Sight([], encoding, Scored(attention=np.zeros((1, 1, 2))))

    assert release.key_mechanism(role(DRAWN).explain, empty) is None
