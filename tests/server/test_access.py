from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attnpriv.errors import InputError
from attnpriv_server import access as access_module
from attnpriv_server.access import Access, new_token
from attnpriv_server.domain import ANONYMOUS, Code, Credentials, RefusedError, Role

BOT, BOT_DIGEST = new_token()
AUDITOR, AUDITOR_DIGEST = new_token()

FILE = f"""
[[principal]]
name = "bot"
roles = ["predict", "models"]
tokens = [{{ sha256 = "{BOT_DIGEST}" }}]
certificate_names = ["bot.example.com", "bot"]

[[principal]]
name = "auditor"
roles = ["explain"]
tokens = [{{ sha256 = "{AUDITOR_DIGEST.upper()}" }}]
certificate_names = ["auditor.example.com"]
"""


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / "principals.toml"
    path.write_text(FILE)
    return path


@pytest.fixture
def access(path, monkeypatch) -> Access:
    """Of a file that is read again at every request."""
    monkeypatch.setattr(access_module, "CHECK_SECONDS", 0.0)
    return Access.from_file(path)


def name_of(access: Access, token: str | None = None, names: tuple[str, ...] = ()) -> str | None:
    try:
        return access.authenticate(Credentials(token, names)).name
    except RefusedError as error:
        refusal = error.status
    assert refusal.code is Code.UNAUTHENTICATED
    assert refusal.message == "this needs a valid bearer token or client certificate"
    return None


def one_principal(lines: str) -> str:
    return f'[[principal]]\nname = "bot"\nroles = []\n{lines}\n'


def replace(path: Path, content: str) -> None:
    """As operators should: in one step."""
    fresh = path.with_suffix(".new")
    fresh.write_text(content)
    fresh.replace(path)


def test_without_a_file_everybody_is_anonymous() -> None:
    access = Access.anonymous()

    assert not access.required
    assert access.authenticate(Credentials("anything", ("any",))) is ANONYMOUS
    assert access.names == frozenset()


def test_a_token_names_its_principal(access) -> None:
    assert access.required
    assert access.names == {"bot", "auditor"}
    assert name_of(access, AUDITOR) == "auditor"
    bot = access.authenticate(Credentials(BOT))
    assert (bot.name, bot.roles) == ("bot", {Role.PREDICT, Role.MODELS})


OTHERS = {
    "none": None,
    "empty": "",
    "short": "x",
    "cut": BOT[:-1],
    "longer": BOT + "A",
    "swapped": BOT.swapcase(),
    "digest": BOT_DIGEST,
    "surrogate": "\ud800",
    "long": "é" * 9999,
}


@pytest.mark.parametrize("token", OTHERS.values(), ids=OTHERS)
def test_any_other_token_is_refused_in_the_same_words(access, token) -> None:
    assert name_of(access, token) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(token=st.text(), names=st.lists(st.text(), max_size=3).map(tuple))
def test_no_credentials_are_a_defect(access, token, names) -> None:
    assert name_of(access, token, names) is None


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("bot.example.com",), "bot"),
        (("bot", "bot.example.com", "elsewhere.example.com"), "bot"),
        (("elsewhere.example.com",), None),
        (("BOT",), None),
        (("bot", "auditor.example.com"), None),
    ],
)
def test_a_certificate_names_its_principal_where_it_names_one(access, names, expected) -> None:
    assert name_of(access, names=names) == expected


def test_token_and_certificate_must_agree(access) -> None:
    assert name_of(access, BOT, ("bot",)) == "bot"
    assert name_of(access, BOT, ("auditor.example.com",)) is None
    assert name_of(access, BOT, ("elsewhere.example.com",)) is None
    assert name_of(access, AUDITOR + "x", ("auditor.example.com",)) is None


def test_a_token_ends_with_its_time(access, path) -> None:
    line = 'tokens = [{{ sha256 = "{}", expires = {} }}, {{ sha256 = "{}", expires = {} }}]'
    ended, lasting = "2020-01-31T00:00:00+05:00", "9999-01-31T00:00:00Z"
    replace(path, one_principal(line.format(BOT_DIGEST, ended, AUDITOR_DIGEST, lasting)))

    assert name_of(access, BOT) is None
    assert name_of(access, AUDITOR) == "bot"


def test_tokens_are_fresh_long_and_stored_as_a_digest() -> None:
    tokens = [new_token() for _ in range(20)]

    assert len({token for token, _ in tokens}) == 20
    assert all(len(token) >= 43 for token, _ in tokens)
    assert all(hashlib.sha256(t.encode()).hexdigest() == digest for t, digest in tokens)


# Changes of the file


def test_rotation_and_revocation_need_no_restart(access, path) -> None:
    token, digest = new_token()
    both = f'tokens = [{{ sha256 = "{BOT_DIGEST}" }}, {{ sha256 = "{digest}" }}]'
    replace(path, one_principal(both))
    assert (name_of(access, BOT), name_of(access, token)) == ("bot", "bot")

    replace(path, one_principal(f'tokens = [{{ sha256 = "{digest}" }}]'))
    assert (name_of(access, BOT), name_of(access, token)) == (None, "bot")

    replace(path, one_principal("tokens = []"))
    assert name_of(access, token) is None
    assert access.names == {"bot"}


def test_a_change_that_keeps_size_and_time_stamp_is_seen(access, path) -> None:
    stamp = path.stat()
    path.write_text(FILE.replace(BOT_DIGEST, new_token()[1]))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert path.stat().st_size == stamp.st_size

    assert name_of(access, BOT) is None


def test_the_file_is_not_read_for_every_request(path, monkeypatch) -> None:
    monkeypatch.setattr(access_module, "CHECK_SECONDS", 3600.0)
    access = Access.from_file(path)
    replace(path, one_principal("tokens = []"))

    assert name_of(access, BOT) == "bot"


DEEP = pytest.param("a = " + "[" * 3000 + "]" * 3000, id="deep")


@pytest.mark.parametrize("broken", ["", "secret = tell-tale", FILE + FILE, None, DEEP])
def test_a_broken_or_missing_file_keeps_the_principals_and_is_logged_once(
    access, path, broken, caplog
) -> None:
    caplog.set_level("INFO", "attnpriv_server")
    path.unlink()
    if broken is not None:
        path.write_text(broken)

    assert [name_of(access, BOT), name_of(access, BOT + "x")] == ["bot", None]
    replace(path, one_principal(f'tokens = [{{ sha256 = "{AUDITOR_DIGEST}" }}]'))
    assert [name_of(access, BOT), name_of(access, AUDITOR)] == [None, "bot"]

    fields = [record.fields for record in caplog.records]
    assert [line["outcome"] for line in fields] == ["refused", "done"]
    assert all(line["reload"] == "principals" for line in fields)
    assert "tell-tale" not in str(fields)


# Files that cannot be meant

TOKEN_LINE = f'tokens = [{{ sha256 = "{BOT_DIGEST}" }}]'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"expected one or more tables \[\[principal\]\]"),
        ("principal = []", "one or more"),
        ("principal = [3]", "principal 1: expected a table with name, roles"),
        ('[principal]\nname = "bot"', "expected one or more tables"),
        (FILE + "[other]\n", "nothing else"),
        ("name = = 3", "not TOML at line 1, column 8"),
        pytest.param("a = " + "[" * 3000 + "]" * 3000, "not TOML", id="deep"),
        pytest.param("a = " + "9" * 5000, "not TOML", id="long number"),
        ('name = "tell-tale', "not TOML at "),
        ("[[principal]]\nroles = []", "principal 1: expected a table with name, roles"),
        (FILE + one_principal(""), "principal 3: its name is in the file twice"),
        (one_principal('role = "predict"'), "optionally tokens, certificate_names, and nothing"),
        ('[[principal]]\nname = ""\nroles = []', "expected name to be text"),
        ('[[principal]]\nname = "anonymous"\nroles = []', "the name anonymous is reserved"),
        ('[[principal]]\nname = "a"\nroles = "predict"', "expected roles to be a list"),
        ('[[principal]]\nname = "a"\nroles = ["admin"]', "expected roles among predict, explain"),
        (one_principal(f'tokens = ["{BOT_DIGEST}"]'), "expected a table with sha256, optionally"),
        (one_principal(f'tokens = [{{ sha256 = "{BOT}" }}]'), "a digest, not a token"),
        (one_principal(f'tokens = [{{ sha256 = "{BOT_DIGEST[1:]}" }}]'), "64 hexadecimal digits"),
        (one_principal("tokens = [{ sha256 = 3 }]"), "64 hexadecimal digits"),
        (
            one_principal(f'tokens = [{{ sha256 = "{hashlib.sha256(b"").hexdigest()}" }}]'),
            "the digest of an empty token",
        ),
        (
            FILE + one_principal(TOKEN_LINE).replace("bot", "b"),
            "3: its token is in the file twice",
        ),
        (
            one_principal('certificate_names = ["a", "a"]'),
            "its certificate name is in the file twice",
        ),
        (one_principal('certificate_names = [""]'), "expected certificate_names to be text"),
        *(
            (
                one_principal(f'tokens = [{{ sha256 = "{BOT_DIGEST}", expires = {when} }}]'),
                "expected expires with an offset and without quotes",
            )
            for when in ('"2030-01-01T00:00:00Z"', "2030-01-01T00:00:00", "2030-01-01", "3")
        ),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path, content, message) -> None:
    path = tmp_path / "principals.toml"
    path.write_text(content)

    with pytest.raises(InputError, match=message) as refusal:
        Access.from_file(path)
    assert str(refusal.value).startswith(f"principals {path}: ")
    for secret in (BOT, "tell-tale"):
        assert secret not in str(refusal.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="cannot read none.toml: No such file"):
        Access.from_file(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(InputError, match="expected UTF-8"):
        Access.from_file(tmp_path / "bytes.toml")
