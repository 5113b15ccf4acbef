"""How many substitutions an answer withstands: what Predict says of it, and to whom."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import torch

from attnpriv.config import AttentionConfig, ModelConfig
from attnpriv.models.words import WordsClassifier
from attnpriv.runs.edits import certified_substitutions
from attnpriv.runs.prediction import encode_texts
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv_server.domain import Prediction, PredictRequest
from attnpriv_server.policy import SAFE, Role, read_policies
from tests.server.asking import answer_of

TEMPLATE = "Please write to {} because my parcel is late and nobody answers any of my mails"
ADDRESSES = ("a@b.de", *(f"{'x' * n}.{'long.' * n}name@mail.example.org" for n in (1, 3, 6, 9)))
TEXTS = ("ok", "Where is my parcel?", TEMPLATE.format(ADDRESSES[0]))
ONE_READING = """[roles.everyone]
predict = {{ label = {{ read = "{0}" }}, certified_substitutions = {{ read = "{0}" }} }}"""


@pytest.fixture(scope="module")
def words(models):
    """The models with a pooling of isolated tokens in the place of each one's encoder."""
    torch.manual_seed(0)
    shape = models["private"].model.config
    config = ModelConfig(
        encoder="words",
        vocab_size=shape.vocab_size,
        dim=8,
        layers=1,
        heads=1,
        hidden_dim=1,
        max_length=shape.max_length,
        num_labels=shape.num_labels,
        attention=AttentionConfig(clip=0.5),
        isolated=True,
    )
    model = WordsClassifier(config)
    vectors = torch.nn.functional.normalize(torch.randn(shape.vocab_size, 8), dim=-1)
    model.words.weight.data.copy_(vectors)
    model.head.weight.data.normal_()
    model.head.bias.data[0] = 2.0  # all texts are of one class, some of them by far
    model.requires_grad_(False).eval()
    return {name: replace(run, model=model) for name, run in models.items()}


def predicted(core, *texts: str, model: str = "private") -> tuple[Prediction, ...]:
    return asyncio.run(answer_of(core, PredictRequest(model, texts))).predictions


def role(content: str) -> Role:
    return read_policies(content.encode()).of("anybody")


def test_each_answer_says_how_many_substitutions_it_withstands(make_core, words) -> None:
    found = predicted(make_core(words), *TEXTS)

    run = words["private"]
    radii = [certified_substitutions(run, each) for each in encode_texts(run, TEXTS)]
    assert [each.certified_substitutions for each in found] == radii
    assert max(radii) > 1


def test_it_travels_to_the_client(serve, make_core, words) -> None:
    channel = serve(make_core(words))
    call = channel.unary_unary(
        "/attnpriv.v1.AttnprivService/Predict",
        request_serializer=pb.PredictRequest.SerializeToString,
        response_deserializer=pb.PredictResponse.FromString,
    )

    (found,) = call(pb.PredictRequest(model="private", texts=[TEXTS[2]])).predictions

    assert found.certified_substitutions > 1


@pytest.mark.parametrize("reads", ["redacted", "substituted"])
def test_of_a_hiding_reading_it_is_the_same_for_all_hidden_values(make_core, words, reads) -> None:
    core = make_core(words, role(ONE_READING.format(reads)))
    full = make_core(words, role(ONE_READING.format("full")))
    texts = [TEMPLATE.format(address) for address in ADDRESSES]

    hidden, open_ = (
        {predicted(each, text)[0].certified_substitutions for text in texts}
        for each in (core, full)
    )

    assert len(hidden) == 1
    assert None not in hidden
    assert len(open_) > 1  # the control: the values do move it where they are read


@pytest.mark.parametrize(
    ("policy", "model"),
    [
        (SAFE, "plain"),  # as probabilities do, it helps who tests for membership
        (role('[roles.everyone]\npredict = { label = { read = "full" } }'), "private"),
    ],
    ids=["not trained privately", "not in the policy"],
)
def test_it_is_withheld(make_core, words, policy, model) -> None:
    (found,) = predicted(make_core(words, policy), TEXTS[2], model=model)

    assert found.certified_substitutions is None
    assert found.label


def test_where_nothing_is_proved_it_is_absent(make_core, models, words) -> None:
    unclipped = words["private"]
    other = WordsClassifier(replace(unclipped.model.config, attention=AttentionConfig()))
    other.load_state_dict(unclipped.model.state_dict())
    other.blocks[0].query.weight.data.fill_(1e4)
    runs = {"private": replace(unclipped, model=other.eval())}

    for core in (make_core(models), make_core(runs)):
        (found,) = predicted(core, TEXTS[2])
        assert found.certified_substitutions is None
