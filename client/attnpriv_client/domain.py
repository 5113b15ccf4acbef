"""The answers of a server, as plain frozen dataclasses.

``None`` always means that a value is left out, by the server's release policy or because the model
has no such value. It never means zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Prediction:
    """The most probable label of one text or image.

    Attributes:
        label: the most probable class.
        probabilities: the probability of every class by its name; None if the policy withholds
            them.
        truncated: whether the text was longer than the model reads, so that only its beginning
            counted.
        version: the version of the model that answered.
        certified_substitutions: how many tokens of what the model read can be replaced by any
            others of its vocabulary without changing the label; None where nothing is proved, or
            the policy withholds it.
        micro_epsilon: millionths of ε that the answer was charged to the caller's privacy budget:
            the charge of its request, shared evenly among the answers to it.
    """

    label: str
    probabilities: Mapping[str, float] | None
    truncated: bool
    version: str
    certified_substitutions: int | None = None
    micro_epsilon: float = 0


@dataclass(frozen=True)
class TokenExplanation:
    """One token of a text, one placeholder for a redacted run of tokens, or one patch of an image.

    Attributes:
        text: the token as it stands in the text, or a placeholder such as ``[PHONE_NUMBER]``; empty
            for a patch of which nothing is hidden.
        entity_types: the types that were redacted here; empty for a token that is shown.
        attention: attention received in the last layer, the mean over heads and queries.
        layer_attention: the same in each layer; empty if withheld.
        integrated_gradients: positive values count in favour of the target class.
        offsets: the token is ``text[start:end]``; only if the server redacts nothing.
        rollout: how much of it reaches the last layer through all layers.
        head_attention: attention received in each head, for each layer; empty if withheld.
        box: left, top, right and bottom of a patch, in pixels; None for a token.
    """

    text: str
    entity_types: tuple[str, ...]
    attention: float | None
    layer_attention: tuple[float, ...]
    integrated_gradients: float | None
    offsets: tuple[int, int] | None
    rollout: float | None = None
    head_attention: tuple[tuple[float, ...], ...] = ()
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class SensitiveSpan:
    """Personal data that you know to be in a text.

    Attributes:
        start: its first character.
        end: the character after its last.
        entity_type: what it is, such as ``CUSTOMER_ID``; shown in the placeholder.
    """

    start: int
    end: int
    entity_type: str


@dataclass(frozen=True)
class SensitiveBox:
    """Personal data that you know to be in an image.

    Attributes:
        left: its first column of pixels, counted from the upper left corner of the image.
        top: its first row of pixels.
        right: the column after its last.
        bottom: the row after its last.
        entity_type: what it is, such as ``FACE``.
    """

    left: int
    top: int
    right: int
    bottom: int
    entity_type: str


@dataclass(frozen=True)
class Image:
    """An image of the size that the model reads.

    Attributes:
        content: the bytes of a PNG or JPEG file.
        sensitive: what you know to be personal data in it. The server hides it wherever its policy
            hides anything, and finds nothing in images itself.
    """

    content: bytes = field(repr=False)
    sensitive: tuple[SensitiveBox, ...] = ()


@dataclass(frozen=True)
class Redaction:
    """What was done about personal data in the text or image.

    Attributes:
        detector: the detector that looked for it.
        entity_types: the types that it can find.
        cannot_see: types that it does not find, or misses too often.
        hidden_from_model: whether the model read none of the hidden parts, but for what was drawn;
            if not, some scores depend on them.
    """

    detector: str
    entity_types: tuple[str, ...]
    cannot_see: tuple[str, ...]
    hidden_from_model: bool = False


@dataclass(frozen=True)
class Explanation:
    """Why the model gave one answer, token by token or patch by patch.

    Attributes:
        version: the version of the model that answered.
        prediction: the answer for the text as the model read it here, which can differ from what
            ``predict`` returns; None if withheld.
        target_label: the class that integrated gradients are about; empty where it is withheld.
        tokens: the tokens of the text in order, or the patches of the image, row by row.
        special_tokens: the tokens that the model adds; attention over both groups sums to 1.
        redaction: what was redacted by which detector; None if the server redacts nothing.
        weight_bound: the value that no single attention weight can exceed on this text; None if
            nothing is certified or attention is withheld.
        integrated_gradients_error: the most by which the sum of all integrated gradients misses the
            difference of the two logits that it should equal; None if the policy withholds them or
            an older server does not say.
        integrated_gradients_withheld: the reason if they are withheld though the policy reveals
            them, else None.
        drawn_token: the place in ``tokens`` of one that was drawn by its attention, or None.
        micro_epsilon: millionths of ε that the answer was charged to the caller's privacy budget.
    """

    version: str
    prediction: Prediction | None
    target_label: str
    tokens: tuple[TokenExplanation, ...]
    special_tokens: tuple[TokenExplanation, ...]
    redaction: Redaction | None
    weight_bound: float | None
    integrated_gradients_error: float | None = None
    integrated_gradients_withheld: str | None = None
    drawn_token: int | None = None
    micro_epsilon: int = 0


@dataclass(frozen=True)
class NoisedNumber:
    """A number with noise.

    Attributes:
        value: the number.
        low: lower end of the 95 % interval, which holds the noise and the choice of the texts.
        high: its upper end.
        noise: the standard deviation of the noise alone.
    """

    value: float
    low: float
    high: float
    noise: float


@dataclass(frozen=True)
class LabelSummary:
    """How many of the texts have a label, and what their answers rest on.

    Attributes:
        label: the class.
        count: how many texts.
        attention: the mean share, over these texts, of the attention that falls on all groups
            together; None if not asked for, or if too few texts have the label to tell.
        attribution: the same of integrated gradients.
    """

    label: str
    count: NoisedNumber
    attention: NoisedNumber | None
    attribution: NoisedNumber | None


@dataclass(frozen=True)
class GroupSummary:
    """What falls on a type of personal data, or on a word, on average over all texts.

    Attributes:
        name: the type or the word.
        is_word: whether it is a word.
        attention: the mean share of attention; None if not asked for.
        attribution: the mean share of integrated gradients, by their absolute values.
    """

    name: str
    is_word: bool
    attention: NoisedNumber | None
    attribution: NoisedNumber | None


@dataclass(frozen=True)
class Summary:
    """What many texts have in common, with noise.

    Attributes:
        version: the version of the model that answered.
        texts: how many texts, exactly.
        labels: what is told of each label; empty if not asked for.
        groups: what is told of each type of personal data and each word; empty if not asked for.
        redaction: what was looked for; None if nothing was.
        micro_epsilon: millionths of ε that it was charged to the caller's privacy budget.
    """

    version: str
    texts: int
    labels: tuple[LabelSummary, ...]
    groups: tuple[GroupSummary, ...]
    redaction: Redaction | None
    micro_epsilon: int


@dataclass(frozen=True)
class ModelSummary:
    """What a list says about a model.

    Attributes:
        name: the name to ask for it by.
        private: whether it was trained under differential privacy.
        epsilon: ε of the training; None if it was not private.
        delta: δ of the training; None if it was not private.
        label_names: its classes.
        version: the version that this is about; in a list, the newest.
        versions: all versions that are served, oldest first.
        image_size: height, width and channels of the images that it reads; None if it reads texts.
    """

    name: str
    private: bool
    epsilon: float | None
    delta: float | None
    label_names: tuple[str, ...]
    version: str
    versions: tuple[str, ...]
    image_size: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class ModelCard:
    """What was trained, how, and the privacy that is claimed for it.

    Attributes:
        summary: name, classes, ε and δ.
        encoder: the encoder that the model was built on.
        temperature: τ, by which the clipped attention logits are divided.
        clip: largest absolute attention logit; None without a clip.
        clip_mode: how the clip is enforced.
        score: how the logits are computed.
        temperature_floor: the least value of a learned τ; None if τ is fixed.
        statement: the claim in plain words.
        not_covered: what the claim does not cover.
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
