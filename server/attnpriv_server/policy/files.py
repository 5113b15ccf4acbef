"""Policies from TOML files, in today's format and in the earlier one of switches."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from attnpriv.errors import InputError
from attnpriv_server.policy.rules import (
    EVERYONE,
    ExplainRules,
    Label,
    Policies,
    PredictRules,
    Read,
    Role,
    Rounded,
    Scores,
)
from attnpriv_server.reloading import Reloaded

CHECK_SECONDS = 0.5  # how soon a change of the file holds


class Switches(BaseModel):
    """The earlier format: what everyone is answered, each part on or off.

    Attributes:
        redact_sensitive_tokens: explanations are computed from the redacted text and show
            placeholders.
        reveal_probabilities: answers hold the probability of every class, and what is certified.
        reveal_attention: explanations hold attention.
        reveal_integrated_gradients: explanations hold integrated gradients.
        restrict_non_private_models: as in ``Role``.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    redact_sensitive_tokens: bool = True
    reveal_probabilities: bool = True
    reveal_attention: bool = True
    reveal_integrated_gradients: bool = True
    restrict_non_private_models: bool = True

    def role(self, principals: Sequence[str] = ()) -> Role:
        """The same in today's format."""
        reads = "redacted" if self.redact_sensitive_tokens else "full"
        scores = Scores.model_validate({"read": reads})
        probabilities = Rounded.model_validate({"read": reads})
        explain = ExplainRules(
            tokens=Read.model_validate({"read": reads}),
            label=Read.model_validate({"read": reads}),
            probabilities=probabilities if self.reveal_probabilities else None,
            attention=scores if self.reveal_attention else None,
            layer_attention=scores if self.reveal_attention else None,
            integrated_gradients=scores if self.reveal_integrated_gradients else None,
        )
        return Role(
            principals=list(principals),
            predict=PredictRules(
                label=Label(read="full"),
                probabilities=Rounded(read="full") if self.reveal_probabilities else None,
                certified_substitutions=Read(read="full") if self.reveal_probabilities else None,
            ),
            explain=explain if explain.scores else None,
            restrict_non_private_models=self.restrict_non_private_models,
        )


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    roles: dict[str, Role]


def read_policies(content: bytes) -> Policies:
    """The policies that the content of a file describes.

    Raises:
        InputError: it is not TOML, or has an unknown name or a wrong value. The message names roles
            and fields, and quotes no principal.
    """
    try:
        values = tomllib.loads(content.decode(), parse_float=Decimal)
    except UnicodeDecodeError:
        raise InputError("expected UTF-8") from None
    except (ValueError, RecursionError) as error:  # long numbers and deep nesting too
        raise InputError(f"expected TOML: {error}") from None
    return _checked(_roles if "roles" in values else _switches, values)


def load_policies(path: Path) -> Policies:
    """Read policies from a TOML file.

    Raises:
        InputError: the file cannot be read, or as ``read_policies``.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read policy {path}: {error.strerror}") from error
    try:
        return read_policies(content)
    except InputError as error:
        raise InputError(f"policy {path}: {error}") from None


def watched_policies(
    path: Path,
    principals: Path | None,
    names: Callable[[bytes], Collection[str]],
    can_charge: bool,
) -> Reloaded[Policies]:
    """Policies from a file, read again when it changes; a change that is wrong changes nothing.

    Args:
        path: the policy file.
        principals: the principals file, where there is one; a change of it counts, too.
        names: the principals that the content of such a file has.
        can_charge: whether there is a budget to charge.

    Raises:
        InputError: as ``load_policies``; the policy lists a principal that is not in the file; it
            has answers drawn, and there is no budget; or it has summaries, and no OpenDP for them.
    """

    def make(contents: Sequence[bytes]) -> Policies:
        policies = read_policies(contents[0])
        known = {name for content in contents[1:] for name in names(content)}
        policies.check_principals(known)
        if policies.draws and not can_charge:
            raise InputError("it has answers drawn, which a budget must pay for: --budget URL")
        if policies.summarizes:
            from attnpriv.release.sums import require_noise  # imports for seconds

            require_noise()  # after a charge it would be too late
        return policies

    paths = [path] if principals is None else [path, principals]
    return Reloaded("policy", paths, make, CHECK_SECONDS)


def _roles(values: Mapping[str, Any]) -> Policies:
    return Policies(_File.model_validate(values).roles)


def _switches(values: Mapping[str, Any]) -> Policies:
    everyone = {name: value for name, value in values.items() if name != "principals"}
    roles = {EVERYONE: Switches.model_validate(everyone).role()}
    own = values.get("principals", {})
    if not isinstance(own, dict) or not all(isinstance(table, dict) for table in own.values()):
        raise InputError("expected tables [roles.NAME], or tables [principals.NAME] of switches")
    for number, (name, table) in enumerate(own.items(), 1):
        roles[f"principal {number}"] = Switches.model_validate({**everyone, **table}).role([name])
    return Policies(roles)


def _checked(make: Callable[[Mapping[str, Any]], Policies], values: Mapping[str, Any]) -> Policies:
    try:
        return make(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        unknown = first["type"] == "extra_forbidden"
        what = "unknown name" if unknown else first["msg"].removeprefix("Value error, ")
        raise InputError(f"{where}: {what}" if where else what) from None
