"""Who a caller is: bearer tokens and client certificates, by a file of principals."""

from __future__ import annotations

import hashlib
import re
import secrets
import tomllib
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attnpriv.errors import InputError
from attnpriv_server.domain import (
    ANONYMOUS,
    Code,
    Credentials,
    Principal,
    RefusedError,
    Role,
)
from attnpriv_server.reloading import Reloaded

TOKEN_BYTES = 32
CHECK_SECONDS = 0.5  # how soon a change of the principals file holds

_DIGEST = re.compile("[0-9a-fA-F]{64}")
_POSITION = re.compile(r"at (line \d+, column \d+|end of document)")


def new_token() -> tuple[str, str]:
    """A fresh bearer token for its holder, and its digest for the principals file."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    return token, _digest(token)


class Access:
    """Says who a caller is, or that it is nobody known.

    Claim: with a file, a caller becomes a principal only by a token whose SHA-256 digest is in the
    file and that has not expired, or by a certificate name that is in the file and that the
    transport verified. A change of the file takes effect after ``CHECK_SECONDS``, a broken change
    never. Condition: tokens are made by ``new_token``. They have 256 random bits, so neither a salt
    nor a slow hash would add anything, as they would for passwords. The time of a lookup depends on
    the digest, which helps nobody: nobody can aim at a digest with a wanted beginning. Not covered:
    tokens that were given away, and certificates that were revoked.
    """

    def __init__(self, directory: Reloaded[_Directory] | None) -> None:
        self._directory = directory

    @classmethod
    def anonymous(cls) -> Access:
        """No authentication: every caller is ``ANONYMOUS`` and may do everything."""
        return cls(None)

    @classmethod
    def from_file(cls, path: Path) -> Access:
        """Only the principals of a TOML file; ``docs/security.md`` describes it.

        Raises:
            InputError: the file cannot be read or has anything but what was expected. The message
                gives the place and quotes nothing, in case a token was put where a digest belongs.
        """
        return cls(Reloaded("principals", [path], _parse, CHECK_SECONDS))

    @property
    def required(self) -> bool:
        """Whether callers have to show who they are."""
        return self._directory is not None

    @property
    def names(self) -> frozenset[str]:
        """The names of the principals in the file; none without one."""
        return frozenset() if self._directory is None else self._directory.get().names

    def authenticate(self, credentials: Credentials) -> Principal:
        """The principal that the credentials belong to.

        A caller that shows both a token and a certificate must be the same principal by both.

        Raises:
            RefusedError: UNAUTHENTICATED, in the same words whatever was wrong.
        """
        if self._directory is None:
            return ANONYMOUS
        principal = self._directory.get().find(credentials)
        if principal is None:
            raise RefusedError(
                Code.UNAUTHENTICATED, "this needs a valid bearer token or client certificate"
            )
        return principal


def names_in(content: bytes) -> frozenset[str]:
    """The names of the principals in the content of a file.

    Raises:
        InputError: as ``Access.from_file``.
    """
    return _parse([content]).names


class _Directory:
    """The principals of one state of the file.

    Args:
        entries: the tables ``[[principal]]``.

    Raises:
        InputError: one is not as expected, or two share a name, a token or a certificate name.
    """

    def __init__(self, entries: Sequence[Any]) -> None:
        self._principals: dict[str, Principal] = {}
        self._tokens: dict[str, tuple[Principal, datetime | None]] = {}
        self._certificates: dict[str, Principal] = {}
        for number, entry in enumerate(entries, 1):
            try:
                self._add(entry)
            except InputError as error:
                raise InputError(f"principal {number}: {error}") from None

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._principals)

    def find(self, credentials: Credentials) -> Principal | None:
        """Whom all that is shown belongs to."""
        shown = set()
        if credentials.token is not None:
            shown.add(self._by_token(credentials.token))
        if credentials.certificate_names:
            shown.add(self._by_certificate(credentials.certificate_names))
        return shown.pop() if len(shown) == 1 else None

    def _by_token(self, token: str) -> Principal | None:
        principal, expires = self._tokens.get(_digest(token), (None, None))
        return None if expires is not None and datetime.now(UTC) >= expires else principal

    def _by_certificate(self, names: Sequence[str]) -> Principal | None:
        found = {self._certificates[name] for name in names if name in self._certificates}
        return found.pop() if len(found) == 1 else None

    def _add(self, entry: Any) -> None:
        _check_keys(entry, ("name", "roles"), ("tokens", "certificate_names"))
        name = _text("name", entry["name"])
        if name == ANONYMOUS.name:
            raise InputError("the name anonymous is reserved for callers without credentials")
        principal = Principal(name, frozenset(map(_role, _list("roles", entry["roles"]))))
        _put(self._principals, name, principal, "name")
        for token in _list("tokens", entry.get("tokens", [])):
            _check_keys(token, ("sha256",), ("expires",))
            expires = _moment(token["expires"]) if "expires" in token else None
            _put(self._tokens, _checked_digest(token["sha256"]), (principal, expires), "token")
        for each in _list("certificate_names", entry.get("certificate_names", [])):
            certificate_name = _text("certificate_names", each)
            _put(self._certificates, certificate_name, principal, "certificate name")


def _parse(contents: Sequence[bytes]) -> _Directory:
    try:
        table = tomllib.loads(contents[0].decode())
    except UnicodeDecodeError:
        raise InputError("expected UTF-8") from None
    except (ValueError, RecursionError) as error:  # long numbers and deep nesting too
        position = _POSITION.search(str(error))  # the rest of the message quotes the file
        raise InputError(f"not TOML{f' {position[0]}' if position else ''}") from None
    entries = table.get("principal")
    if set(table) != {"principal"} or not isinstance(entries, list) or not entries:
        raise InputError("expected one or more tables [[principal]], and nothing else")
    return _Directory(entries)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def _check_keys(table: Any, required: Collection[str], optional: Collection[str]) -> None:
    known = {*required, *optional}
    if not isinstance(table, dict) or not set(required) <= set(table) <= known:
        extra = f", optionally {', '.join(optional)}" if optional else ""
        raise InputError(f"expected a table with {', '.join(required)}{extra}, and nothing else")


def _put(table: dict[str, Any], key: str, value: Any, what: str) -> None:
    if key in table:
        raise InputError(f"its {what} is in the file twice")
    table[key] = value


def _list(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"expected {key} to be a list")
    return value


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise InputError(f"expected {key} to be text, not empty")
    return value


def _role(value: Any) -> Role:
    try:
        return Role(value)
    except ValueError:
        raise InputError(f"expected roles among {', '.join(Role)}") from None


def _checked_digest(value: Any) -> str:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise InputError("expected sha256 to be 64 hexadecimal digits: a digest, not a token")
    if value.lower() == _digest(""):
        raise InputError("this sha256 is the digest of an empty token")
    return value.lower()


def _moment(value: Any) -> datetime:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InputError(
            "expected expires with an offset and without quotes, such as 2030-01-31T12:00:00Z"
        )
    return value
