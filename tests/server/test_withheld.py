"""What answers leave out, over real sockets."""

from __future__ import annotations

from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceStub
from attnpriv_server.policy.files import Switches
from tests.server.asking import SECRETS, SENSITIVE, TEXTS, error_of, explain


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
    assert response.redaction.detector == "presidio-en_core_web_sm"
    assert "PHONE_NUMBER" in response.redaction.entity_types
    assert "AGE" in response.redaction.cannot_see


def test_names_are_not_in_the_answer_either(stub) -> None:
    response = explain(stub, "Regards, Karen Fletcher from London")

    assert response.tokens[-1].text == "[LOCATION]"
    assert "[PERSON]" in [token.text for token in response.tokens]
    assert not {"karen", "fletcher", "london"} & {token.text.lower() for token in response.tokens}


def test_a_number_cut_by_the_model_is_still_recognised(stub, models) -> None:
    limit = models["private"].model.config.max_length
    text = "a " * (limit - 3) + "+44 7911 123456 thanks"

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
    stub = AttnprivServiceStub(
        serve(make_core(models, Switches(reveal_probabilities=False).role()))
    )

    response = stub.Predict(pb.PredictRequest(model="private", texts=["hello"]))

    assert response.predictions[0].label in response.label_names
    assert not response.predictions[0].probabilities
    assert not explain(stub).prediction.probabilities


def test_attention_can_be_withheld(serve, make_core, models) -> None:
    response = explain(
        AttnprivServiceStub(serve(make_core(models, Switches(reveal_attention=False).role())))
    )

    for token in [*response.tokens, *response.special_tokens]:
        assert not token.HasField("attention")
        assert not token.layer_attention
        assert token.HasField("integrated_gradients")
    assert not response.HasField("weight_bound")


def test_integrated_gradients_can_be_withheld(serve, make_core, models) -> None:
    policy = Switches(reveal_integrated_gradients=False).role()
    response = explain(AttnprivServiceStub(serve(make_core(models, policy))))

    for token in [*response.tokens, *response.special_tokens]:
        assert not token.HasField("integrated_gradients")
        assert token.HasField("attention")


def test_with_both_withheld_there_is_no_explanation(serve, make_core, models) -> None:
    policy = Switches(reveal_attention=False, reveal_integrated_gradients=False).role()
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
    stub = AttnprivServiceStub(
        serve(make_core(models, Switches(restrict_non_private_models=False).role()))
    )

    response = stub.Predict(pb.PredictRequest(model="plain", texts=["hello"]))

    assert response.predictions[0].probabilities
    assert stub.Explain(pb.ExplainRequest(model="plain", text="hello")).tokens
