from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from attnpriv.errors import InputError
from attnpriv.runs.prediction import predict_probabilities
from attnpriv_client import AsyncClient, Client, ServiceError

TEXTS = ["Where is my parcel?", "I was charged twice.", "Mail jane.doe@example.com at once"]
NOBODY = "127.0.0.1:1"


def test_predictions_agree_with_the_library(target, run) -> None:
    expected = predict_probabilities(run, TEXTS)

    with Client(target) as client:
        found = client.predict(run.name, TEXTS)

    for prediction, row in zip(found, expected, strict=True):
        assert prediction.label == run.label_names[row.argmax()]
        assert prediction.probabilities == pytest.approx(
            dict(zip(run.label_names, row.tolist(), strict=True)), abs=1e-6
        )


def test_the_explanation_is_whole_and_redacted(target, run) -> None:
    with Client(target) as client:
        explanation = client.explain(run.name, TEXTS[2], target_label=run.label_names[1])

    assert explanation.target_label == run.label_names[1]
    hidden = [token for token in explanation.tokens if token.entity_types]
    assert [token.text for token in hidden] == ["[EMAIL_ADDRESS]"]
    rows = (*explanation.tokens, *explanation.special_tokens)
    assert sum(token.attention for token in rows) == pytest.approx(1, abs=1e-5)
    assert all(token.offsets is None for token in rows)
    assert "AGE" in explanation.redaction.cannot_see
    assert explanation.weight_bound < 1


def test_models_and_cards(target, run) -> None:
    with Client(target) as client:
        summaries = client.models()
        card = client.model_card(run.name)

    assert [summary.name for summary in summaries] == [run.name]
    assert card.summary == summaries[0]
    assert card.summary.label_names == run.label_names
    assert card.statement == run.card.statement
    assert card.clip == run.card.attention.clip
    assert card.raw["attention"] == run.card.as_written["attention"]


def parts(answer: Any, number: Callable[[float], Any]) -> Any:
    """An answer as lists and dictionaries, with something made of each of its numbers."""
    if isinstance(answer, float):
        return number(answer)
    if isinstance(answer, dict):
        return {key: parts(value, number) for key, value in answer.items()}
    if isinstance(answer, list | tuple):
        return [parts(value, number) for value in answer]
    if dataclasses.is_dataclass(answer):
        return [type(answer), parts(vars(answer), number)]
    return answer


def rounded(value: float) -> Any:
    """Equal to what another batch gives: in other shapes float32 sums come in another order."""
    return pytest.approx(value, rel=1e-5, abs=1e-5)


def test_the_asynchronous_client_gives_the_same(target, run) -> None:
    async def ask():
        async with AsyncClient(target) as client:
            return await asyncio.gather(
                client.predict(run.name, TEXTS),
                client.explain(run.name, TEXTS[0]),
                client.models(),
                client.model_card(run.name),
            )

    with Client(target) as client:
        expected = [
            client.predict(run.name, TEXTS),
            client.explain(run.name, TEXTS[0]),
            client.models(),
            client.model_card(run.name),
        ]
    assert parts(asyncio.run(ask()), float) == parts(expected, rounded)


def test_errors_are_of_one_type(target, run) -> None:
    with Client(target) as client, pytest.raises(ServiceError) as caught:
        client.predict("nobody", TEXTS)
    assert caught.value.code == "NOT_FOUND"
    assert str(caught.value).startswith("NOT_FOUND: unknown model")
    with Client(target, timeout=0) as client, pytest.raises(ServiceError) as caught:
        client.predict(run.name, TEXTS)
    assert caught.value.code == "DEADLINE_EXCEEDED"
    with Client(NOBODY) as client, pytest.raises(ServiceError) as caught:
        client.models()
    assert caught.value.code == "UNAVAILABLE"


def test_errors_of_the_asynchronous_client_too() -> None:
    async def ask():
        async with AsyncClient(NOBODY) as client:
            await client.models()

    with pytest.raises(ServiceError) as caught:
        asyncio.run(ask())
    assert caught.value.code == "UNAVAILABLE"


def test_strings_that_cannot_be_meant_are_refused_before_anything_is_sent() -> None:
    with Client(NOBODY) as client:
        with pytest.raises(InputError, match="got a single string"):
            client.predict("model", "a text, not a list of texts")
        with pytest.raises(InputError, match="expected valid Unicode"):
            client.predict("model", ["\udcff"])


def test_importing_it_loads_nothing_heavy() -> None:
    code = (
        "import sys, attnpriv_client, attnpriv_client.cli; "
        "print(*{'torch', 'numpy', 'presidio_analyzer', 'captum'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == ""
