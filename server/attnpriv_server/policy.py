"""What an answer may reveal, and how large a request may be."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

from attnpriv.errors import InputError


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
                raise InputError(f"expected policy {knob.name} true or false, got {value!r}")


def load_policy(path: Path) -> Policy:
    """Read a policy from a TOML file of ``name = true|false`` lines; what is absent is safe.

    Raises:
        InputError: the file cannot be read, is not TOML, or has an unknown name or a wrong value.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"cannot read policy {path}: {error}") from error
    known = [knob.name for knob in fields(Policy)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise InputError(f"policy {path}: unknown {unknown[0]!r}, expected {', '.join(known)}")
    return Policy(**values)


@dataclass(frozen=True)
class Limits:
    """The largest request that is answered.

    Attributes:
        message_bytes: of one message on the wire.
        texts: of one Predict.
        text_bytes: of one text in UTF-8; far more than any model here reads.
    """

    message_bytes: int = 4 * 1024 * 1024
    texts: int = 128
    text_bytes: int = 64 * 1024
