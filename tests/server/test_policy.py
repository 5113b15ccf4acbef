from __future__ import annotations

from dataclasses import asdict

import pytest

from attnpriv.errors import InputError
from attnpriv_server.policy import Policy, load_policy


def test_the_default_policy_is_the_restrictive_one_where_it_matters() -> None:
    assert Policy().redact_sensitive_tokens
    assert Policy().restrict_non_private_models


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("reveal_attention = false\n")

    assert asdict(load_policy(path)) == {**asdict(Policy()), "reveal_attention": False}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"redact = true\n", "unknown 'redact'"),
        (b"reveal_attention = 1\n", "reveal_attention true or false, got 1"),
        (b"reveal_attention\n", "cannot read policy"),
        (b"\xff\xfe", "cannot read policy"),
        (b"[reveal_attention]\n", "true or false"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path, content, message) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(content)

    with pytest.raises(InputError, match=message):
        load_policy(path)


def test_a_missing_file_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="cannot read policy"):
        load_policy(tmp_path / "none.toml")
