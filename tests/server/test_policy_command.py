"""``attnpriv-server policy``: a policy in words, and tried on texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from attnpriv.errors import InputError
from attnpriv_server.cli import app

EXAMPLES = Path(__file__).parents[2] / "examples" / "policies"
TEXT = "Call Karen Fletcher at +44 7911 123456, I was charged twice"


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["policy", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    return result.output


def tried(runs: Path, policy: Path | str, role: str, *options: str) -> str:
    return run(
        "try",
        policy,
        "--models",
        runs,
        "--role",
        role,
        "--model",
        "private",
        "--text",
        TEXT,
        *options,
    )


@pytest.fixture
def drawing(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text((EXAMPLES / "research.toml").read_text("utf-8"), "utf-8")
    return path


def test_a_policy_is_explained() -> None:
    lines = run("explain", EXAMPLES / "help-desk.toml").splitlines()

    assert lines[0] == "Role staff: ann, bob"
    assert "  Explain: denied." in lines


def test_each_field_of_an_answer_is_shown_with_what_it_is_made_of(runs) -> None:
    output = tried(runs, EXAMPLES / "help-desk.toml", "staff")

    assert "the label: " in output
    assert "[PHONE_NUMBER]" in output
    assert "one drawn token: denied" in output
    assert output.count("cost: nothing") == 2
    assert "7911" not in output


def test_what_a_role_is_denied_is_named_with_the_reason(runs) -> None:
    output = tried(runs, EXAMPLES / "help-desk.toml", "bot")

    assert "the probability of every class: denied" in output
    assert "refused: PERMISSION_DENIED: the policy withholds all explanations" in output


def test_a_draw_is_priced_and_leaves_no_budget_behind(runs, drawing) -> None:
    (answer,) = json.loads(tried(runs, drawing, "research", "--json"))

    assert answer["explain"]["micro_epsilon"] == 1_000_000
    tokens = answer["explain"]["tokens"]
    assert 0 <= answer["explain"]["drawn_token"] < len(tokens)
    assert [each["attention"] is not None for each in tokens] == [True] * len(tokens)
    assert sorted(path.name for path in drawing.parent.iterdir()) == ["policy.toml"]


@pytest.mark.parametrize(
    ("role", "model", "message"),
    [
        ("staf", "private", "expected a role among staff, bot, got 'staf'"),
        ("staff", "pivate", "expected a model among "),
    ],
)
def test_unknown_names_are_refused_with_those_there_are(runs, role, model, message) -> None:
    policy = EXAMPLES / "help-desk.toml"

    with pytest.raises(InputError, match=message):
        run("try", policy, "--models", runs, "--role", role, "--model", model, "--text", "hello")


def test_a_text_that_is_not_unicode_is_refused() -> None:
    policy = EXAMPLES / "help-desk.toml"
    options = ("--models", "none", "--role", "staff", "--text", "caf\udce9")

    with pytest.raises(InputError, match="not valid Unicode at character 3"):
        run("try", policy, *options)
