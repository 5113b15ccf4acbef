"""Drawn answers and summaries audited through gRPC: what many answers to two inputs can prove.

A lower bound above the ε that was charged refutes it. The pairs are the worst that there are: two
hidden values of which each makes another label certain, and two lists of one text. As controls, the
same draws at twice the ε, which is what halved noise would be, must be caught by the same audit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import grpc
import numpy as np
import pytest
import torch

from attnpriv.runs.folder import Run
from attnpriv.sensitive import read_redacted
from attnpriv.spans import Span
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceStub
from attnpriv_server.access import new_token
from attnpriv_server.budget.charging import Budget
from attnpriv_server.policy import read_policies
from attnpriv_server.telemetry import Telemetry
from tests.attnpriv.release.empirical import Outcomes
from tests.attnpriv.release.empirical import epsilon_lower_bound as lower_bound
from tests.server.conftest import serving
from tests.server.transport.callers import Principals, bearer, table

# The server's draws have no seed, so a correct one must pass nearly always.
epsilon_lower_bound = partial(lower_bound, confidence=0.9999)
TIGHT = 0.8
AT_ONCE = 128  # texts of a request
# Requests for each of two inputs.
LABELS = [10, pytest.param(400, marks=pytest.mark.exhaustive)]
TOGETHER = [10, pytest.param(100, marks=pytest.mark.exhaustive)]
KEYS = [50, pytest.param(1_000, marks=pytest.mark.exhaustive)]
SUMMARIES = [100, pytest.param(1_000, marks=pytest.mark.exhaustive)]
ENOUGH = 50_000  # draws from which on a tight mechanism must come near its ε
ENOUGH_SUMMARIES = 1_000  # from which on half of the noise is caught nearly always
ENOUGH_TOGETHER = 10_000  # draws from which on two principals must show more than one may learn

HIDDEN = ("refund", "password password password")
POLICY = """
[roles.everyone]
predict = {{ label = {{ read = "full", epsilon = {epsilon} }} }}
summarize = {{ epsilon = {epsilon}, labels = {{ read = "full" }} }}
budget = {{ epsilon = 1000000 }}

[roles.everyone.explain]
tokens = {{ read = "redacted" }}
attention = {{ read = "redacted" }}
key = {{ epsilon = {epsilon} }}
"""


class Nothing:
    """Finds nothing, at once: what is hidden is what the caller names."""

    name, entity_types, cannot_see = "nothing", ("SECRET",), ()

    def detect(self, text: str) -> tuple[Span, ...]:
        return ()

    def detect_all(self, texts) -> list[tuple[Span, ...]]:
        return [() for _ in texts]


def text_with(value: str) -> tuple[str, Span]:
    start = len("my ")
    return f"my {value} please", Span(start, start + len(value), "SECRET")


@pytest.fixture(scope="module")
def certain(models) -> Run:
    """A model that is sure of the first label for one hidden value, and of the second for the
    other, and has no preference where neither is read.
    """
    run = models["private"]
    model = copy.deepcopy(run.model)
    texts, spans = zip(*map(text_with, HIDDEN), strict=True)
    reading = read_redacted(
        Nothing(), texts[:1], run.tokenizer, model.config.max_length, [spans[:1]]
    )[0]
    encodings = [reading.encoding, *(run.tokenizer.encode(text, 64) for text in texts)]
    with torch.no_grad():
        seen = torch.cat([_features(run, each) for each in encodings])  # [3, F]
        wanted = torch.zeros(3, model.head.out_features)
        wanted[1, 0] = wanted[2, 1] = 9.0
        model.head.weight.copy_((torch.linalg.pinv(seen) @ wanted).T)
        if model.head.bias is not None:
            model.head.bias.zero_()
    return replace(run, model=model)


def _features(run: Run, encoding) -> torch.Tensor:
    inputs = run.modality.collate([encoding])
    return run.model.run(run.model.embed(inputs.values), inputs.mask, need_maps=False).features


Serve = Callable[..., grpc.Channel]


@pytest.fixture
def serve_at(make_core, certain, tmp_path) -> Iterator[Serve]:
    with ExitStack() as stack:

        def serve(epsilon: float, access=None) -> grpc.Channel:
            policy = read_policies(POLICY.format(epsilon=epsilon).encode())
            budget = Budget.open(f"sqlite:///{tmp_path}/{epsilon}.db", Telemetry())
            core = make_core(
                {"private": certain},
                policy.of("anybody"),
                budget=budget,
                detector=Nothing(),
                access=access,
            )
            return stack.enter_context(serving(core))

        yield serve


def labels(stub: AttnprivServiceStub, value: str, requests: int, metadata=None) -> Outcomes:
    """The numbers of drawn labels."""
    text, span = text_with(value)
    known = pb.SensitiveSpans(
        spans=[pb.SensitiveSpan(start=span.start, end=span.end, entity_type=span.entity_type)]
    )
    request = pb.PredictRequest(
        model="private", texts=[text] * AT_ONCE, sensitive=[known] * AT_ONCE
    )
    found: list[int] = []
    for _ in range(requests):
        answer = stub.Predict(request, metadata=metadata)
        assert answer.micro_epsilon > 0
        names = list(answer.label_names)
        found += [names.index(each.label) for each in answer.predictions]
    return np.array(found)


def keys(stub: AttnprivServiceStub, value: str, requests: int) -> Outcomes:
    """The places of drawn tokens."""
    text, span = text_with(value)
    known = [pb.SensitiveSpan(start=span.start, end=span.end, entity_type=span.entity_type)]
    request = pb.ExplainRequest(model="private", text=text, sensitive=known)
    return np.array([stub.Explain(request).drawn_token for _ in range(requests)])


def counts(stub: AttnprivServiceStub, value: str, requests: int) -> Outcomes:
    """Whether the first label is counted, and the second, in a summary of one text: 0 to 3."""
    text, _ = text_with(value)
    request = pb.SummarizeRequest(model="private", texts=[text], figures=[pb.FIGURE_LABELS])
    found = []
    for _ in range(requests):
        first, second, *_ = stub.Summarize(iter([request])).labels
        found.append(2 * (first.count.value > 0) + (second.count.value > 0))
    return np.array(found)


@pytest.mark.parametrize("requests", LABELS)
def test_drawn_labels_use_up_their_epsilon_and_no_more(serve_at, requests) -> None:
    stub = AttnprivServiceStub(serve_at(1))
    bound = epsilon_lower_bound(*(labels(stub, value, requests) for value in HIDDEN))

    assert bound <= 1
    if requests * AT_ONCE >= ENOUGH:
        assert bound >= TIGHT
    broken = AttnprivServiceStub(serve_at(2))
    caught = epsilon_lower_bound(*(labels(broken, value, requests) for value in HIDDEN))
    assert caught > 1  # draws at 2 that are charged 1


@pytest.mark.parametrize("requests", KEYS)
def test_drawn_keys_tell_no_more_than_their_epsilon(serve_at, requests) -> None:
    stub = AttnprivServiceStub(serve_at(1))

    assert epsilon_lower_bound(*(keys(stub, value, requests) for value in HIDDEN)) <= 1


@pytest.mark.parametrize("requests", SUMMARIES)
def test_summaries_tell_no_more_than_their_epsilon(serve_at, requests) -> None:
    stub = AttnprivServiceStub(serve_at(1))

    assert epsilon_lower_bound(*(counts(stub, value, requests) for value in HIDDEN)) <= 1
    if requests >= ENOUGH_SUMMARIES:
        broken = AttnprivServiceStub(serve_at(2))
        assert lower_bound(*(counts(broken, value, requests) for value in HIDDEN)) > 1


@pytest.mark.parametrize("requests", TOGETHER)
def test_two_principals_learn_the_sum_of_what_each_may_and_no_more(
    serve_at, requests, tmp_path
) -> None:
    """Budgets are apart: principals that show each other their answers have both ε together."""
    tokens = [new_token()[0] for _ in range(2)]
    principals = Principals(tmp_path / "principals.toml")
    principals.write(*(table(f"p{n}", "predict", token) for n, token in enumerate(tokens)))
    stub = AttnprivServiceStub(serve_at(1, principals.access()))

    joint = []
    for value in HIDDEN:
        one, other = (labels(stub, value, requests, bearer(token)) for token in tokens)
        joint.append(one * 100 + other)
    bound = epsilon_lower_bound(*joint)

    assert bound <= 2
    if requests * AT_ONCE >= ENOUGH_TOGETHER:
        assert bound > 1  # more than either may learn alone
