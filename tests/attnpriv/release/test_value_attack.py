"""Does whoever has the model and the visible text find a hidden value by the model's answers?

The attacker tries every candidate and keeps those that fit the answer best. Against answers from
the whole text it must win, or the attack would show nothing about the others.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from attnpriv.data import Span, make_tickets
from attnpriv.data.text import Text
from attnpriv.data.tokenisation import Encoding, HashTokenizer
from attnpriv.explain.attention import attention_received
from attnpriv.explain.gradients import integrated_gradients
from attnpriv.modality import embed
from attnpriv.release import BoundedDraw, RandomisedResponse
from attnpriv.release.cost import MICRO
from attnpriv.sensitive import hidden_parts, redact

TOKENIZER, MAX_LENGTH = HashTokenizer(4096), 64
BEFORE, AFTER = "Hello, my name is ", ". I was charged twice, call 0800 1696031."


@pytest.fixture(scope="module")
def values() -> list[str]:
    """Values of several types, scripts and lengths, in characters and in tokens."""
    data = make_tickets(60, seed=5)
    found = (
        text[span.start : span.end]
        for text, spans in zip(data.texts, data.spans, strict=True)
        for span in spans
    )
    return [*dict.fromkeys(found), "王小明", "🧑‍⚕️", "x", "##ing", "[PAD]", "[PERSON]", " "]


def whole(value: str) -> Encoding:
    return TOKENIZER.encode(BEFORE + value + AFTER, MAX_LENGTH)


def redacted(value: str) -> Encoding:
    spans = [Span(len(BEFORE), len(BEFORE) + len(value), "PERSON")]
    return redact(BEFORE + value + AFTER, hidden_parts(spans)).encode(TOKENIZER, MAX_LENGTH)


def answers(model, encodings: list[Encoding]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [N, K], and the attention [N, 64] that each position gets in the last layer."""
    inputs = Text(TOKENIZER, MAX_LENGTH).collate(encodings)
    with torch.no_grad():
        seen = model.run(model.embed(inputs.values), inputs.mask, need_maps=True)
        received = attention_received(seen.self_attention(), inputs.mask)[:, -1].mean(1)
    rows = torch.nn.functional.pad(received, (0, MAX_LENGTH - received.shape[1]))
    return seen.outputs.softmax(-1).numpy(), rows.numpy()


def explained(model, encoding: Encoding) -> bytes:
    """Integrated gradients of one text."""
    example = embed(model, Text(TOKENIZER, MAX_LENGTH).collate([encoding]))
    return integrated_gradients(model, example, torch.tensor([3])).scores.numpy().tobytes()


def share_found(served: np.ndarray, tried: np.ndarray) -> float:
    """How often the nearest candidate is the true one; of several, any is named."""
    distances = ((served[:, None] - tried[None]) ** 2).sum(-1)
    nearest = distances == distances.min(1, keepdims=True)
    return float((np.diag(nearest) / nearest.sum(1)).mean())


def share_found_drawn(chances: list[list[int]]) -> float:
    """The same for answers that are drawn, each candidate being the true one equally often."""
    shares = np.array([[weight / sum(weights) for weight in weights] for weights in chances])
    return float(shares.max(0).sum() / len(shares))


def test_the_value_is_found_by_answers_from_the_whole_text(model, values) -> None:
    alone = [answers(model, [whole(value)]) for value in values]
    tried = answers(model, [whole(value) for value in values])

    for part in (0, 1):
        assert share_found(np.concatenate([each[part] for each in alone]), tried[part]) > 0.95


def test_the_value_is_guessed_by_chance_from_the_redacted_text(model, values) -> None:
    alone = [answers(model, [redacted(value)]) for value in values]
    tried = answers(model, [redacted(value) for value in values])

    for part in (0, 1):
        found = share_found(np.concatenate([each[part] for each in alone]), tried[part])
        assert found == pytest.approx(1 / len(values))
    assert len(values) > 100
    assert len({tuple(part.tobytes() for part in each) for each in alone}) == 1


def test_nothing_that_the_model_reads_or_explains_depends_on_the_value(model, values) -> None:
    encodings = [redacted(value) for value in values]
    gradients = {explained(model, encoding) for encoding in encodings[::10]}

    assert len(set(encodings)) == 1
    assert len(gradients) == 1
    assert gradients != {explained(model, whole(values[0]))}


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
def test_drawn_answers_give_away_no_more_than_their_epsilon(model, values, epsilon) -> None:
    micro = round(epsilon * MICRO)
    labels, rows = answers(model, [whole(value) for value in values])
    free_labels, free_rows = answers(model, [redacted("any")])
    response = RandomisedResponse(free_labels[0].tolist(), micro)
    draw = BoundedDraw(free_rows[0].tolist(), micro)

    found = (
        share_found_drawn([response.weights(int(label)) for label in labels.argmax(1)]),
        share_found_drawn([draw.weights(row.tolist()) for row in rows]),
    )

    assert len(set(labels.argmax(1))) > 1
    assert 1 / len(values) <= min(found) <= max(found) <= math.exp(epsilon) / len(values)
    assert max(found) > 1.2 / len(values)
