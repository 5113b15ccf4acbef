"""What a server answers, as plain frozen dataclasses.

``None`` always means that the server's release policy, or the nature of the model, leaves a value
out; it never stands for zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Prediction:
    """The most probable label of one text.

    Attributes:
        label: the class.
        probabilities: of every class by name, or None where the policy withholds them.
        truncated: the text was longer than the model reads; only its beginning counted.
        version: of the model that answered.
    """

    label: str
    probabilities: Mapping[str, float] | None
    truncated: bool
    version: str


@dataclass(frozen=True)
class TokenExplanation:
    """One token of a text, or one placeholder for a redacted run of tokens.

    Attributes:
        text: as it stands in the text, or for instance ``[PHONE_NUMBER]``.
        entity_types: what was redacted here; empty for a token that is shown.
        attention: received in the last layer, mean over heads and queries.
        layer_attention: the same in each layer; empty where withheld.
        integrated_gradients: positive speaks for the target class.
        offsets: ``text[start:end]``; only where the server redacts nothing.
    """

    text: str
    entity_types: tuple[str, ...]
    attention: float | None
    layer_attention: tuple[float, ...]
    integrated_gradients: float | None
    offsets: tuple[int, int] | None


@dataclass(frozen=True)
class Redaction:
    """Which detector looked for personal data, what it can find, and what it cannot."""

    detector: str
    entity_types: tuple[str, ...]
    cannot_see: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """What one answer rests on.

    Attributes:
        version: of the model that answered.
        prediction: the answer.
        target_label: the class that integrated gradients are about.
        tokens: of the text, in order.
        special_tokens: those that the model adds; attention over both groups sums to 1.
        redaction: None where the server redacts nothing.
        weight_bound: what no single attention weight can exceed on this text; None where nothing
            is certified, or attention is withheld.
        integrated_gradients_error: by how much, at most, the sum of all integrated gradients misses
            the difference of the two logits that it stands for; None where the policy withholds
            them, or an older server does not say.
        integrated_gradients_withheld: why they are withheld though the policy reveals them; None
            where they are not.
    """

    version: str
    prediction: Prediction
    target_label: str
    tokens: tuple[TokenExplanation, ...]
    special_tokens: tuple[TokenExplanation, ...]
    redaction: Redaction | None
    weight_bound: float | None
    integrated_gradients_error: float | None = None
    integrated_gradients_withheld: str | None = None


@dataclass(frozen=True)
class ModelSummary:
    """What a list says of a model.

    Attributes:
        name: by which it is asked for.
        private: it was trained under differential privacy.
        epsilon: ε of the training; None where it was not private.
        delta: δ of the training, likewise.
        label_names: its classes.
        version: that this is about; in a list, the newest.
        versions: all that are served, oldest first.
    """

    name: str
    private: bool
    epsilon: float | None
    delta: float | None
    label_names: tuple[str, ...]
    version: str
    versions: tuple[str, ...]


@dataclass(frozen=True)
class ModelCard:
    """What was trained, how, and which privacy is claimed for it.

    Attributes:
        summary: name, classes, ε and δ.
        encoder: what the model was built on.
        temperature: τ, divides the clipped attention logits.
        clip: largest absolute attention logit; None where not clipped.
        clip_mode: how it is enforced.
        score: how the logits are made.
        temperature_floor: what no learned τ is below; None where τ is fixed.
        statement: the claim in plain words.
        not_covered: what stands outside the claim.
        warnings: what to know before relying on it.
        raw: the whole card.
    """

    summary: ModelSummary
    encoder: str
    temperature: float
    clip: float | None
    clip_mode: str
    score: str
    temperature_floor: float | None
    statement: str
    not_covered: tuple[str, ...]
    warnings: tuple[str, ...]
    raw: Mapping[str, Any]
