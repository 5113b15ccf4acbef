"""What marks an encoder that was taught to work under bounded attention.

A folder in Hugging Face layout is marked by an entry in its ``config.json``, beside the encoder's
own: the attention under which its weights are to be used, and how they came to be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from attnpriv.config import AttentionConfig
from attnpriv.errors import InputError

ENTRY = "attnpriv"  # in config.json
FORMAT = 1


@dataclass(frozen=True)
class Bound:
    """How an encoder is bounded.

    Attributes:
        attention: the only one under which the weights are to be used.
        provenance: how they were made, as JSON values: the encoder they are a copy of, the public
            texts, the steps, and the distance to that encoder before and after.
    """

    attention: AttentionConfig
    provenance: Mapping[str, Any]

    def entry(self) -> dict[str, Any]:
        """What ``config.json`` says of it."""
        return {"format": FORMAT, "attention": asdict(self.attention), **self.provenance}

    @classmethod
    def from_config(cls, values: Mapping[str, Any]) -> Bound | None:
        """The bound in a ``config.json``; None where there is none.

        Raises:
            InputError: there is an entry that this version cannot use.
        """
        if ENTRY not in values:
            return None
        entry = values[ENTRY]
        try:
            provenance = dict(entry)
            if provenance.pop("format") != FORMAT:
                raise ValueError(f"its format is {entry['format']!r}, not {FORMAT}")
            return cls(AttentionConfig(**provenance.pop("attention")), provenance)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"expected what attnpriv encoder bound writes under {ENTRY!r} in config.json: "
                f"{error}"
            ) from error
