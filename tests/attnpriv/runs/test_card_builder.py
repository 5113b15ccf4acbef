from __future__ import annotations

import contextlib
import io
import json
import math
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from attnpriv.config import Accountant, AttentionConfig, ModelConfig, PrivacyConfig, TrainConfig
from attnpriv.privacy import epsilon_spent
from attnpriv.privacy.ledger import NoisedSteps
from attnpriv.runs.card import CardLibrary, CardTraining, ModelCard
from attnpriv.runs.card_builder import NOT_COVERED, build_card
from attnpriv.runs.card_text import card_text

GOLDEN = Path(__file__).parent / "golden"
GIVEN = PrivacyConfig(epsilon=5.0, noise_multiplier=1.6)
SHAPE: dict[str, Any] = {
    "vocab_size": 101,
    "dim": 6,
    "layers": 1,
    "heads": 2,
    "hidden_dim": 7,
    "max_length": 13,
    "num_labels": 3,
}
CONFIG = TrainConfig(steps=17, batch_size=59)


class Stated(NoisedSteps):
    """Steps whose ε is 3 by PRV, and 3.5 by RDP."""

    def epsilon(self, delta: float, accountant: Accountant) -> float:
        return {"prv": 3.0, "rdp": 3.5}[accountant]


class FellBack(NoisedSteps):
    """Steps for which no bound is lower than RDP's, so that ``epsilon_spent`` returns it."""

    def epsilon(self, delta: float, accountant: Accountant) -> float:
        return 3.5


def stating(epsilon: float) -> Callable[..., NoisedSteps]:
    class Steps(NoisedSteps):
        def epsilon(self, delta: float, accountant: Accountant) -> float:
            return epsilon if accountant == "prv" else 2 * epsilon

    return Steps


def make_card(
    privacy: PrivacyConfig | None = GIVEN,
    *,
    encoder: str = "scratch",
    attention: AttentionConfig | None = None,
    config: TrainConfig = CONFIG,
    noise_multiplier: float = 1.6,
    label_names: tuple[str, ...] = ("bill", "refund", "other"),
    data_name: str = "tickets",
    steps: Callable[..., NoisedSteps] = NoisedSteps,
) -> ModelCard:
    attention = attention or AttentionConfig(clip=2.25, temperature=1.75)
    spent = None
    if privacy is not None:
        spent = steps(noise_multiplier, 59 / 241, 17, privacy.max_grad_norm)
    return build_card(
        name="run-a",
        model=ModelConfig(encoder=encoder, attention=attention, **SHAPE),
        temperatures=[[1.75, 1.75]],
        label_names=label_names,
        config=config,
        privacy=privacy,
        spent=spent,
        data={
            "name": data_name,
            "rows_train": 241,
            "fingerprint": "ab" * 32,
            "split": {"train_size": 0.8, "seed": 0},
        },
        held_out={"rows": 61, "accuracy": 45 / 61},
        not_covered=NOT_COVERED,
    )


@pytest.fixture(autouse=True)
def library_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attnpriv.runs.card_builder.__version__", "0.1.0")


def row(text: str, name: str) -> list[str]:
    """The cells after the first of the table row of that name."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
    return line.removesuffix(" |").split(" | ")[1:]


def commands(text: str) -> list[str]:
    """The programs of the ``python -c`` commands in the text."""
    programs = []
    for line in text.splitlines():
        if line.startswith("python -c "):
            _, _, program = shlex.split(line)
            programs.append(program)
    return programs


def run_program(program: str) -> float:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(program, {})
    return float(out.getvalue())


@pytest.mark.parametrize(
    ("name", "privacy"), [("private", GIVEN), ("seeded", None), ("not_private", None)]
)
def test_text_is_as_agreed(name: str, privacy: PrivacyConfig | None) -> None:
    if name == "seeded":
        privacy = PrivacyConfig(epsilon=5.0, noise_multiplier=1.6, noise_seed=7)
    path = GOLDEN / f"model_card_{name}.md"
    assert card_text(make_card(privacy)) == path.read_text(encoding="utf-8")


def test_the_programs_that_read_cards_find_their_keys() -> None:
    keys = {
        *("name", "statement", "warnings", "private", "epsilon", "delta", "privacy"),
        *("not_covered", "encoder", "trainable", "attention", "label_names", "data", "metrics"),
    }
    for privacy in (GIVEN, None):
        card = make_card(privacy).as_written
        assert keys <= card.keys()
        assert json.loads(json.dumps(card, allow_nan=False)) == card, "plain JSON values only"


def test_a_private_card_states_the_mechanism() -> None:
    card = make_card(PrivacyConfig(epsilon=5.0, clipping="automatic", clipping_engine="ghost"))
    privacy = card.privacy
    assert card.private
    assert card.warnings == ()
    assert privacy.epsilon == card.epsilon == epsilon_spent(1.6, 1e-5, 59 / 241, 17)
    assert privacy.epsilon_prv == privacy.epsilon < privacy.epsilon_rdp
    assert privacy.noise_multiplier_from == "target"
    assert make_card(GIVEN).privacy.noise_multiplier_from == "user"
    assert (privacy.clipping, privacy.clipping_engine) == ("automatic", "ghost")
    assert privacy.accountant_library == CardLibrary("attnpriv", "0.1.0")
    assert "ChaCha20 keyed with 256 bits by the operating system" in privacy.random_generator


@pytest.mark.parametrize(("accountant", "epsilon"), [("prv", 3.0), ("rdp", 3.5)])
def test_the_accountant_that_was_asked_for_comes_first(
    accountant: Accountant, epsilon: float
) -> None:
    card = make_card(PrivacyConfig(epsilon=5.0, accountant=accountant), steps=Stated)
    assert card.epsilon == epsilon
    assert card.privacy.epsilon_by == accountant
    text = card_text(card)
    value, meaning = row(text, "**privacy loss ε**")
    assert value == f"**{epsilon:.3f}**"
    assert meaning.endswith(f"by {accountant.upper()}, as asked for")
    assert row(text, "ε by PRV")[0] == "3.000"
    assert row(text, "ε by RDP")[0] == "3.500"


def test_a_fallback_is_not_passed_off_as_prv() -> None:
    card = make_card(steps=FellBack)
    assert (card.epsilon, card.privacy.epsilon_by) == (3.5, "rdp")
    assert card.privacy.epsilon_prv is None
    text = card_text(card)
    assert row(text, "ε by PRV")[0] == "none"
    assert row(text, "**privacy loss ε**")[1].endswith("by RDP, the lower of both")


@pytest.mark.parametrize(
    "epsilon", [1e-9, 0.0005, 1.0, 1.0004999, 2.9999999, 3.0000001, 7.123400001, 56.7891]
)
def test_no_bound_is_printed_lower_than_it_is(epsilon: float) -> None:
    delta = 67349**-1.1
    card = make_card(PrivacyConfig(epsilon=60.0, delta=delta), steps=stating(epsilon))
    text = card_text(card)
    exact = Decimal(repr(epsilon))
    (stated,) = re.findall(r"with \((\S+), (\S+)\)-differential", text)
    (factor,) = re.findall(r"e\^([\d.]+\d)", text)
    shown = [row(text, "**privacy loss ε**")[0].strip("*"), row(text, "ε by PRV")[0], factor]
    for bound in (*shown, stated[0]):
        assert exact <= Decimal(bound) < exact + Decimal("0.001")
    assert Decimal(row(text, "ε by RDP")[0]) >= 2 * exact
    for bound in (stated[1], row(text, "δ")[0]):
        assert delta <= float(bound) < delta * (1 + 1e-5)
    (percent,) = re.findall(r"at most ([\d.]+) %", text)
    assert float(percent) >= 100 * math.exp(epsilon) / (1 + math.exp(epsilon))
    for group in card.privacy.groups:
        most = sum(delta * math.exp(i * epsilon) for i in range(group.records))
        cells = row(text, str(group.records))
        if most >= 1:
            assert cells == ["no bound", "no bound"]
        else:
            assert Decimal(cells[0]) >= group.records * exact
            assert float(cells[1]) >= most


def test_an_endless_loss_bounds_nothing() -> None:
    card = make_card(PrivacyConfig(epsilon=5.0), steps=stating(math.inf))
    assert card.privacy.largest_guess_accuracy == 1
    assert [group.delta for group in card.privacy.groups] == [1, 1, 1]
    assert row(card_text(card), "**privacy loss ε**")[0] == "**inf**"


def test_the_commands_compute_the_epsilon_of_the_card() -> None:
    card = make_card()
    ours, theirs = commands(card_text(card))
    assert "epsilon_spent" in ours
    assert "dp_accounting" in theirs
    assert run_program(ours) == card.epsilon
    assert card.epsilon - 0.05 < run_program(theirs) <= card.epsilon


def test_the_command_names_the_accountant_that_was_asked_for() -> None:
    card = make_card(PrivacyConfig(epsilon=6.0, accountant="rdp"))
    assert run_program(commands(card_text(card))[0]) == card.epsilon


def test_a_seed_is_warned_of_and_makes_the_model_not_private() -> None:
    card = make_card(PrivacyConfig(epsilon=5.0, noise_seed=7))
    assert card.private is False
    assert card.warnings[0].startswith("NOISE SEED CHOSEN BY THE USER")
    assert "SEEDED BY THE USER" in card.privacy.random_generator
    assert card.statement.startswith("NOT PRIVATE")
    text = card_text(card)
    title, _, warning = text.splitlines()[:3]
    assert title == "# Model card: run-a"
    assert warning == f"**{card.warnings[0]}**"
    assert "VOID" in row(text, "**privacy loss ε**")[1]
    assert "Nothing, against whoever knows or guesses the seed." in text
    assert "guessing is right half" not in text


def test_without_privacy_it_says_so_first_and_has_no_epsilon() -> None:
    card = make_card(None)
    assert (card.private, card.epsilon, card.delta, card.privacy) == (
        False,
        *[None] * 3,
    )
    text = card_text(card)
    assert text.splitlines()[2] == "**TRAINED WITHOUT DIFFERENTIAL PRIVACY**"
    assert "ε" not in text
    assert "How to check it" not in text
    assert commands(text) == []


@pytest.mark.parametrize("privacy", [GIVEN, None])
def test_a_pretrained_encoder_adds_its_limit(privacy: PrivacyConfig | None) -> None:
    scratch, minilm = (make_card(privacy, encoder=name) for name in ("scratch", "minilm"))
    assert "Pretrained encoder" not in card_text(scratch)
    added = minilm.limits.keys() - scratch.limits.keys()
    assert added == {"pretrained_encoder"}
    assert f"- Pretrained encoder: {minilm.limits['pretrained_encoder']}\n" in card_text(minilm)


def test_the_limits_of_the_claim_are_in_the_text() -> None:
    card = make_card()
    text = card_text(card)
    topics = {
        *("group_privacy", "other_releases", "facts_about_many", "random_numbers"),
        *("floating_point", "side_channels", "security_and_access_control"),
        *("data_collection_exposure", "texts_sent_to_the_model", "attention"),
    }
    assert card.limits.keys() == topics
    for line in (*card.not_covered, *card.limits.values()):
        assert line in text
    for section in (
        "What this covers",
        "What it does not cover",
        "Who must be trusted",
        "How to check it",
        "Utility (not covered by ε)",
    ):
        assert f"\n## {section}\n" in text


def test_names_cannot_break_a_table() -> None:
    names = ("a|b", "two\nlines\x85three", "<b>", "`c`", "d\\", "*e*", "_f_g", "[h](i)")
    card = make_card(label_names=names, data_name="x | y\n# z", encoder="my|encoder")
    text = card_text(card)
    (cell,) = row(text, "classes")
    assert cell == r"a\|b, two lines three, \<b\>, \`c\`, d\\, \*e\*, _f_g, \[h\](i)"
    assert row(text, "encoder") == [r"my\|encoder"]
    assert row(text.replace(r"\|", ""), "data") == ["x  y # z, 241 records"]
    assert r"trained on 241 records of x \| y # z." in text
    plain = card_text(make_card())
    assert len(text.splitlines()) == len(plain.splitlines()) + 1, "the limit of its encoder"
    assert card.as_written["label_names"] == list(names), "in JSON they are as they were"


def test_facts_of_the_training() -> None:
    config = TrainConfig(
        trainable="last:1",
        steps=17,
        batch_size=59,
        learning_rate=0.002,
        head_learning_rate=0.125,
        ema_decay=0.875,
        warmup=0.0625,
        decay="cosine",
        precision="bfloat16",
    )
    attention = AttentionConfig(temperature=1.5, temperature_floor=0.75, score="additive")
    card = make_card(config=config, attention=attention)
    assert card.training == CardTraining(
        optimizer="Adam",
        steps=17,
        expected_batch_size=59,
        head_learning_rate=0.125,
        learning_rate=0.002,
        warmup=0.0625,
        decay="cosine",
        ema_decay=0.875,
        precision="bfloat16",
    )
    text = card_text(card)
    assert row(text, "optimizer") == [
        "Adam, learning rate 0.125 for the head, 0.002 for the encoder"
    ]
    assert row(text, "warm-up") == ["0.0625 of the steps"]
    assert row(text, "decay of the learning rate") == ["cosine"]
    assert row(text, "moving average of the weights") == ["decay 0.875"]
    assert row(text, "precision") == ["bfloat16 in the encoder, float32 elsewhere"]
    assert row(text, "attention") == [
        "additive logits not clipped, temperature 1.5 at first, learned, at least 0.75"
    ]
    assert make_card().training.learning_rate is None, "the encoder was not trained"


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield value


NUMBER = r"(?<![A-Za-z\d.])\d+(?:\.\d+)?(?:e-?\d+)?"  # but not the digits of a word like ChaCha20


@pytest.mark.parametrize(
    "card_options",
    [
        {},
        {"privacy": None},
        {"privacy": PrivacyConfig(epsilon=4.75, noise_seed=7, delta=241**-1.3)},
        {"privacy": PrivacyConfig(epsilon=4.75, accountant="rdp", max_grad_norm=0.37)},
        {
            "config": TrainConfig(trainable="all", steps=17, batch_size=59, warmup=0.03),
            "attention": AttentionConfig(temperature=1.5, temperature_floor=0.75),
            "noise_multiplier": 1.2345678,
        },
    ],
)
def test_every_number_in_the_text_is_one_of_the_card(card_options: dict[str, Any]) -> None:
    card = make_card(**card_options)
    said: set[str] = set()
    exact: list[Decimal] = []
    for name, part in card.as_written.items():
        for leaf in leaves(part):
            if isinstance(leaf, str) and name != "statement":
                said |= set(re.findall(NUMBER, leaf))
            elif isinstance(leaf, int | float) and not isinstance(leaf, bool):
                value = Decimal(repr(leaf))
                exact += [value, 100 * value] if 0 < leaf < 1 else [value]
    for number in re.findall(NUMBER, card_text(card)):
        shown = Decimal(number)
        exponent = shown.as_tuple().exponent
        assert isinstance(exponent, int)
        unit = Decimal(1).scaleb(exponent) if exponent < 0 else Decimal("1e-9")
        # Some number of the card, rounded to the digits that are shown; a whole number is exact.
        assert number in said or any(abs(shown - value) < unit for value in exact), number


@pytest.mark.parametrize(
    ("part", "key"),
    [
        *[("privacy", key) for key in ("noise_multiplier", "sample_rate", "steps", "delta")],
        *[("privacy", key) for key in ("epsilon", "epsilon_prv", "epsilon_rdp", "target_epsilon")],
        *[("privacy", key) for key in ("max_grad_norm", "expected_batch_size")],
        ("privacy", "largest_guess_accuracy"),
        *[("training", key) for key in ("steps", "expected_batch_size", "warmup", "ema_decay")],
        *[("training", key) for key in ("learning_rate", "head_learning_rate")],
        *[("attention", key) for key in ("clip", "temperature", "temperature_floor")],
        ("data", "rows_train"),
    ],
)
def test_a_number_that_changes_on_the_card_changes_in_the_text(part: str, key: str) -> None:
    card = make_card(
        config=TrainConfig(trainable="all", steps=17, batch_size=59, warmup=0.25),
        attention=AttentionConfig(clip=2.25, temperature=1.75, temperature_floor=0.75),
    )
    section = getattr(card, part)
    changed = replace(card, **{part: replace(section, **{key: getattr(section, key) / 2})})
    assert card_text(changed) != card_text(card)
