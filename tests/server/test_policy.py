from __future__ import annotations

from dataclasses import asdict, fields

import pytest

from attnpriv.errors import InputError
from attnpriv_server.domain import ANONYMOUS, Principal
from attnpriv_server.policy import Limits, Policies, Policy, load_limits, load_policies


def principal(name: str) -> Principal:
    return Principal(name, frozenset())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.toml"


def test_the_default_policy_is_the_restrictive_one_where_it_matters() -> None:
    assert Policies().for_principal(ANONYMOUS) == Policy()
    assert Policy().redact_sensitive_tokens
    assert Policy().restrict_non_private_models


def test_a_file_changes_what_it_names_and_nothing_else(path) -> None:
    path.write_text("reveal_attention = false\n")

    policies = load_policies(path)

    assert asdict(policies.default) == {**asdict(Policy()), "reveal_attention": False}
    assert policies.for_principal(principal("anybody")) == policies.default


def test_a_principal_has_the_default_but_for_what_its_table_names(path) -> None:
    path.write_text(
        "reveal_attention = false\n"
        "[principals.auditor]\nredact_sensitive_tokens = false\nreveal_attention = true\n"
        '[principals."triage bot"]\nreveal_probabilities = false\n'
    )

    policies = load_policies(path)

    assert policies.for_principal(principal("auditor")) == Policy(redact_sensitive_tokens=False)
    assert policies.for_principal(principal("triage bot")) == Policy(
        reveal_attention=False, reveal_probabilities=False
    )
    assert policies.for_principal(principal("Auditor")) == Policy(reveal_attention=False)


def test_a_policy_for_nobody_is_refused(path) -> None:
    path.write_text("[principals.auditr]\nreveal_attention = false\n")
    policies = load_policies(path)

    policies.check_principals({"auditr", "bot"})
    with pytest.raises(InputError, match="'auditr': the principals file has no such principal"):
        policies.check_principals({"auditor", "bot"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"redact = true\n", "unknown 'redact'"),
        (b"reveal_attention = 1\n", "reveal_attention to be true or false, got 1"),
        (b"reveal_attention\n", "cannot read policy"),
        (b"\xff\xfe", "cannot read policy"),
        pytest.param(b"a = " + b"[" * 3000 + b"]" * 3000, "cannot read policy", id="deep"),
        pytest.param(b"a = " + b"9" * 5000, "cannot read policy", id="long number"),
        (b"[reveal_attention]\n", "true or false"),
        (b"principals = 3\n", r"expected tables \[principals.NAME\]"),
        (b"[principals]\nreveal_attention = false\n", r"expected tables \[principals.NAME\]"),
        (b"[principals.bot]\nredact = true\n", "principal 'bot': unknown 'redact'"),
        (b"[principals.bot]\nreveal_attention = 'no'\n", "true or false, got 'no'"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(path, content, message) -> None:
    path.write_bytes(content)

    with pytest.raises(InputError, match=message):
        load_policies(path)


def test_a_missing_file_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="cannot read policy"):
        load_policies(tmp_path / "none.toml")


def test_a_file_of_limits_changes_what_it_names(path) -> None:
    path.write_text("connections = 3\n")

    assert asdict(load_limits(path)) == {**asdict(Limits()), "connections": 3}


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "true", "2_147_483_648", "inf"])
def test_limits_out_of_range_are_refused(path, value) -> None:
    for knob in (field.name for field in fields(Limits)):
        path.write_text(f"{knob} = {value}\n")
        with pytest.raises(InputError, match=f"expected limit {knob} to be a whole number from 1"):
            load_limits(path)


def test_an_unknown_limit_is_refused(path) -> None:
    path.write_text("text = 3\n")

    with pytest.raises(InputError, match="unknown 'text', expected message_bytes, "):
        load_limits(path)
