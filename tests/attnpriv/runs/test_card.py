"""A card is read field by field, and what is wrong with it is named."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest

from attnpriv.config import AttentionConfig, ModelConfig, PrivacyConfig, TrainConfig
from attnpriv.errors import InputError
from attnpriv.privacy.ledger import NoisedSteps
from attnpriv.runs.card import CardAttention, ModelCard
from attnpriv.runs.card_builder import NOT_COVERED, build_card

GIVEN = PrivacyConfig(epsilon=5.0, noise_multiplier=1.6)


def make_card(privacy: PrivacyConfig | None = GIVEN) -> ModelCard:
    attention = AttentionConfig(clip=2.25, temperature=1.75)
    return build_card(
        name="run-a",
        model=ModelConfig("scratch", 101, 6, 1, 2, 7, 13, 3, attention=attention),
        temperatures=[[1.75, 1.75]],
        label_names=("bill", "refund", "other"),
        config=TrainConfig(steps=17, batch_size=59),
        privacy=privacy,
        spent=None if privacy is None else NoisedSteps(1.6, 59 / 241, 17, 0.1),
        data={
            "name": "tickets",
            "rows_train": 241,
            "fingerprint": "ab" * 32,
            "split": {"train_size": 0.8, "seed": 0},
        },
        held_out={"rows": 61, "accuracy": 45 / 61},
        not_covered=NOT_COVERED,
    )


def without(card: dict[str, Any], *path: str) -> dict[str, Any]:
    """A copy of the card that lacks one field."""
    changed = copy.deepcopy(card)
    *sections, last = path
    section = changed
    for name in sections:
        section = section[name]
    del section[last]
    return changed


def with_value(card: dict[str, Any], value: Any, *path: str) -> dict[str, Any]:
    """A copy of the card with another value in one field."""
    changed = without(card, *path)
    *sections, last = path
    section = changed
    for name in sections:
        section = section[name]
    section[last] = value
    return changed


@pytest.mark.parametrize("privacy", [GIVEN, None])
def test_a_card_reads_back_as_it_was_written(privacy: PrivacyConfig | None) -> None:
    card = make_card(privacy)
    text = json.dumps(card.as_written, ensure_ascii=False)
    read = ModelCard.from_json(json.loads(text))
    assert read == card
    assert json.dumps(read.as_written, ensure_ascii=False) == text


@pytest.mark.parametrize(
    "path",
    [
        *[(name,) for name in ("name", "statement", "warnings", "private", "epsilon", "delta")],
        *[(name,) for name in ("privacy", "not_covered", "encoder", "trainable", "attention")],
        *[(name,) for name in ("label_names", "data", "metrics")],
        *[("data", name) for name in ("name", "rows_train", "fingerprint", "split")],
        *[("privacy", name) for name in ("noise_multiplier", "steps", "target_epsilon", "epsilon")],
        *[("training", name) for name in ("steps", "learning_rate", "precision")],
        ("metrics", "held_out", "accuracy"),
    ],
    ids=".".join,
)
def test_a_field_that_is_missing_is_named(path: tuple[str, ...]) -> None:
    card = without(make_card().as_written, *path)
    with pytest.raises(InputError, match=f"^{re.escape('.'.join(path))} is missing$"):
        ModelCard.from_json(card)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("private",), "no", "expected private to be true or false, got 'no'"),
        (("private",), 1, "expected private to be true or false, got 1"),
        (("name",), None, "expected name to be a string, got None"),
        (("epsilon",), "3", "expected epsilon to be a number or null, got '3'"),
        (("epsilon",), True, "expected epsilon to be a number or null, got True"),
        (("epsilon",), None, "expected epsilon >= 0, got None"),
        (("delta",), -1e-5, "expected delta >= 0, got -1e-05"),
        (("delta",), 10**400, "expected delta to be a number or null, got 1000"),
        (("privacy",), [], r"expected privacy to be an object, got \[\]"),
        (("privacy", "steps"), 1.5, "expected privacy.steps to be a whole number, got 1.5"),
        (("warnings",), "none", "expected warnings to be a list, got 'none'"),
        (("not_covered",), ["a", 1], r"expected not_covered\[1\] to be a string, got 1"),
        (("attention", "clip"), 0, "attention: expected clip > 0 and finite, got 0"),
        (("attention", "clip_mode"), "cut", "expected attention.clip_mode to be one of clamp, "),
        (("attention", "temperatures"), [1.75], r"expected attention.temperatures\[0\] to be a l"),
        (("data", "split", "seed"), None, "data: split has no usable seed, got None"),
        (("data", "split"), {"salt": "a"}, "data: split has no usable validation_share, got None"),
        (("limits", "attention"), 3, "expected limits.attention to be a string, got 3"),
        (("teacher",), {"name": "a"}, "teacher.attention is missing"),
    ],
)
def test_a_value_of_another_kind_is_named_with_what_was_expected(
    path: tuple[str, ...], value: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        ModelCard.from_json(with_value(make_card().as_written, value, *path))


@pytest.mark.parametrize("value", [None, [], "card", 3])
def test_a_card_is_an_object(value: Any) -> None:
    with pytest.raises(InputError, match="expected the whole to be an object"):
        ModelCard.from_json(value)


def test_cards_of_earlier_versions_lack_what_came_later() -> None:
    """As the first version wrote them, with and without privacy."""
    later = {
        "": ("terms", "limits", "training", "teacher"),
        "attention": ("score", "temperature_floor", "temperatures"),
        "privacy": (
            *("trust_model", "query_model", "noise_multiplier_from", "clipping", "clipping_engine"),
            *("repeated_steps", "accountant_library", "epsilon_by", "epsilon_prv"),
            *("largest_guess_accuracy", "groups"),
        ),
    }
    for privacy in (GIVEN, None):
        old = make_card(privacy).as_written
        for section, names in later.items():
            for name in names if old.get(section, old) is not None else ():
                old = without(old, *filter(None, (section, name)))
        card = ModelCard.from_json(old)
        assert card.as_written == old, "nothing is added to what is passed on"
        assert card.data == make_card(privacy).data
        assert (card.training, card.teacher, card.limits) == (None, None, {})
        assert card.attention == CardAttention(1.75, 2.25)
        if card.privacy is not None:
            assert card.privacy.epsilon == make_card().epsilon
            assert card.privacy.trust_model == "not stated"
            assert card.privacy.largest_guess_accuracy == 1, "which bounds nothing"


def test_what_a_later_version_adds_is_passed_on_unread() -> None:
    card = make_card().as_written | {"signature": "abc"}
    assert ModelCard.from_json(card).as_written == card


def test_a_card_under_another_name_says_so_in_both_forms() -> None:
    card = make_card().named("renamed")
    assert (card.name, card.as_written["name"]) == ("renamed", "renamed")
    assert card.as_written | {"name": "run-a"} == make_card().as_written
