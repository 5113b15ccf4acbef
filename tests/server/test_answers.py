"""What Predict, Explain and the models' cards answer, over real sockets."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from attnpriv.data.text import pad_batch
from attnpriv.guarantees import weight_bounds
from attnpriv.runs.prediction import encode_texts, predict_probabilities
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceStub
from attnpriv_server.policy.files import Switches
from tests.server.asking import SENSITIVE, TEXTS, explain


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
def test_explain_integrated_gradients_add_up_to_a_difference_of_logits(
    serve, make_core, models, text
) -> None:
    run = models["private"]
    whole = Switches(redact_sensitive_tokens=False).role()
    stub = AttnprivServiceStub(serve(make_core(models, whole)))
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
    assert card.statement == models["private"].card.statement
    assert tuple(card.not_covered) == models["private"].card.not_covered
    assert models["private"].card.data.fingerprint not in card.json
    assert '"rows_train"' in card.json
