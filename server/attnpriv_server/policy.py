"""What an answer may reveal and to whom, and how much may be asked at once."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from attnpriv.errors import InputError
from attnpriv_server.domain import Principal


@dataclass(frozen=True)
class Policy:
    """What the server releases; the defaults are the safe ones.

    Attributes:
        redact_sensitive_tokens: in Explain, replace what the detector finds by typed placeholders
            and leave all positions out.
        reveal_probabilities: answer with the probability of every class, not the label alone.
        reveal_attention: answer Explain with attention.
        reveal_integrated_gradients: answer Explain with integrated gradients. They add up to a
            difference of scores, so they say more than a label even without probabilities.
        restrict_non_private_models: a model that was not trained privately answers with labels
            alone and explains nothing. That takes the scores from whoever tests whether a record
            was trained on; labels alone still support weaker tests. A model trained under
            differential privacy needs no such limit: its ε holds for all that is computed from it.
    """

    redact_sensitive_tokens: bool = True
    reveal_probabilities: bool = True
    reveal_attention: bool = True
    reveal_integrated_gradients: bool = True
    restrict_non_private_models: bool = True

    def __post_init__(self) -> None:
        for knob in fields(self):
            value = getattr(self, knob.name)
            if not isinstance(value, bool):
                raise InputError(f"expected policy {knob.name} to be true or false, got {value!r}")


@dataclass(frozen=True)
class Policies:
    """The policy of each principal.

    Claim: a principal's answers follow its own policy and no other's. Not covered: principals that
    show their answers to one another together hold what the most open of their policies reveals.

    Attributes:
        default: of whoever has none of their own.
        principals: by the principal's name.
    """

    default: Policy = field(default_factory=Policy)
    principals: Mapping[str, Policy] = field(default_factory=dict)

    def for_principal(self, principal: Principal) -> Policy:
        """What an answer to a principal may reveal."""
        return self.principals.get(principal.name, self.default)

    def check_principals(self, names: Collection[str]) -> None:
        """Refuse a policy for nobody: a name that is mistyped would leave the default in force.

        Raises:
            InputError: a policy is for a name that is not among ``names``.
        """
        for name in self.principals:
            if name not in names:
                raise InputError(f"policy for {name!r}: the principals file has no such principal")


def load_policies(path: Path) -> Policies:
    """Read policies from a TOML file.

    Lines ``name = true|false`` at the top are for everyone, what is absent being safe; those of a
    table ``[principals.NAME]`` replace them for one principal.

    Raises:
        InputError: the file cannot be read, is not TOML, or has an unknown name or a wrong value.
    """
    values = _read("policy", path)
    own = values.pop("principals", {})
    _check_known(f"policy {path}", values, asdict(Policy()))
    default = Policy(**values)
    if not isinstance(own, dict) or not all(isinstance(table, dict) for table in own.values()):
        raise InputError(f"policy {path}: expected tables [principals.NAME]")
    for name, table in own.items():
        _check_known(f"policy {path}, principal {name!r}", table, asdict(default))
    return Policies(default, {name: replace(default, **table) for name, table in own.items()})


@dataclass(frozen=True)
class Limits:
    """How much may be asked at once, and how long connections last.

    ``docs/security.md`` says what happens beyond each.

    Attributes:
        message_bytes: of one message, after decompression.
        metadata_bytes: of the headers of one call, 32 more counted for each.
        texts: of one Predict.
        text_bytes: of one text in UTF-8; far more than any model here reads.
        explanations: that wait.
        connections: in all.
        streams: calls at the same time on one connection.
        handshake_seconds: of a new connection, until TLS and HTTP/2 have shaken hands.
        idle_seconds: of a connection without calls.
        connection_seconds: after which a connection takes no new calls; clients open another.
            Varied by a tenth, so that not all come back at once.
        stream_seconds: that the calls of such a connection may still take.
        silence_seconds: after which a client with open calls is asked for a sign of life, and in
            which it has to give one.

    Raises:
        InputError: one is below 1, or larger than gRPC can count.
    """

    message_bytes: int = 4 * 1024 * 1024
    metadata_bytes: int = 8 * 1024
    texts: int = 128
    text_bytes: int = 64 * 1024
    explanations: int = 64
    connections: int = 512
    streams: int = 100
    handshake_seconds: int = 10
    idle_seconds: int = 300
    connection_seconds: int = 3600
    stream_seconds: int = 3600
    silence_seconds: int = 60

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            largest = 2**31 // 1000 if name.endswith("_seconds") else 2**31 - 1
            if type(value) is not int or not 1 <= value <= largest:
                raise InputError(
                    f"expected limit {name} to be a whole number from 1 to {largest}, got {value!r}"
                )


def load_limits(path: Path) -> Limits:
    """Read limits from a TOML file of ``name = number`` lines; what is absent is the default.

    Raises:
        InputError: the file cannot be read, is not TOML, or has an unknown name or a wrong value.
    """
    values = _read("limits", path)
    _check_known(f"limits {path}", values, asdict(Limits()))
    return Limits(**values)


def _read(what: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # long numbers and deep nesting too
        raise InputError(f"cannot read {what} {path}: {error}") from error


def _check_known(where: str, values: Collection[str], known: Collection[str]) -> None:
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise InputError(f"{where}: unknown {unknown[0]!r}, expected {', '.join(known)}")
