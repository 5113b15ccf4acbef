"""What leaves the server of what a model computed: pure functions from numbers to answers.

A policy's rules say of each field which reading of a text or an image it comes from, the full one
or the redacted one, the latter with or without public values in it, and how much of it is shown.
Fields that are drawn start from the redacted reading, by the mechanisms of ``attnpriv.release``.

Claim: an answer whose rules do not read the full text is the same for all texts with the
same redacted text. One with a draw is, besides, ε-differentially private for them, ε being its
cost. Condition and what is not covered: as in ``attnpriv.release`` and ``attnpriv.sensitive``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from attnpriv.modality import Place, Sample
from attnpriv.randomness import Stream
from attnpriv.release import FREE, BoundedDraw, Cost, RandomisedResponse
from attnpriv.release.cost import MICRO
from attnpriv.sensitive import MaskedReading, Reading
from attnpriv_server.domain import Prediction, Token
from attnpriv_server.explain import Scored, Wanted
from attnpriv_server.policy import ExplainRules, PredictRules
from attnpriv_server.policy.rules import Reads, Rounded, Scores

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Classified:
    """What a model makes of one reading of a record.

    Attributes:
        probabilities: of each class, [K].
        truncated: whether there is more of the text than the model reads.
        certified_substitutions: of how many tokens ``best`` is proved to withstand; None where that
            is not known.
    """

    probabilities: NDArray[np.float32]
    truncated: bool
    certified_substitutions: int | None = None

    @property
    def best(self) -> int:
        """The most probable class."""
        return int(self.probabilities.argmax())


@dataclass(frozen=True)
class Sight:
    """One reading of a record, and what was computed from it for an explanation.

    Attributes:
        words: what is shown at each position.
        encoding: what the model read.
        scored: the numbers.
    """

    words: Sequence[str]
    encoding: Sample
    scored: Scored


AnyReading = Reading | MaskedReading
Classes = Mapping[Reads, Classified]
Sights = Mapping[Reads, Sight]


def micro_epsilon(epsilon: Decimal) -> int:
    """An ε in millionths; no more than it says."""
    return int(epsilon * MICRO)


def label_mechanism(rules: PredictRules, redacted: Classified) -> RandomisedResponse | None:
    """What draws the label of one text; None where it is not drawn."""
    if rules.label.epsilon is None:
        return None
    return RandomisedResponse(redacted.probabilities.tolist(), micro_epsilon(rules.label.epsilon))


def certifies(rules: PredictRules, labels_only: bool, reads: Reads) -> bool:
    """Whether an answer shows what is certified of a reading."""
    certified = rules.certified_substitutions
    return not labels_only and certified is not None and certified.read == reads


def prediction(
    rules: PredictRules,
    found: Classes,
    label_names: Sequence[str],
    labels_only: bool,
    stream: Stream,
) -> Prediction:
    """What Predict shows of one text.

    Args:
        rules: of the caller's role.
        found: what the model makes of each reading that the rules need.
        label_names: of the K classes.
        labels_only: nothing but the label may be shown, whatever the rules say.
        stream: source of the bits, for this draw alone.
    """
    mechanism = label_mechanism(rules, found["redacted"]) if "redacted" in found else None
    if mechanism is None:
        shown = found[rules.label.read]
        label = shown.best
    else:
        shown = found["redacted"]
        label = mechanism.draw(found["full"].best, stream)
    if labels_only:
        return Prediction(label_names[label], None, shown.truncated)
    return Prediction(
        label_names[label],
        _probabilities(rules.probabilities, found),
        shown.truncated,
        shown.certified_substitutions if rules.certified_substitutions is not None else None,
    )


def explained_prediction(
    rules: ExplainRules, found: Classes, label_names: Sequence[str]
) -> Prediction | None:
    """What Explain shows of the answer that it explains."""
    if rules.label is None:
        return None
    shown = found[rules.label.read]
    probabilities = _probabilities(rules.probabilities, found)
    return Prediction(label_names[shown.best], probabilities, shown.truncated)


def explained_class(rules: ExplainRules, found: Classes) -> int:
    """Which class is explained if the caller names none: the one that the answer shows."""
    shown = rules.label or rules.integrated_gradients or rules.tokens
    return found[shown.read].best


def wanted(rules: ExplainRules, reads: Reads) -> Wanted:
    """Which numbers have to be computed from a reading."""
    asked = {name for name, rule in rules.scores.items() if rule.read == reads}
    return Wanted(
        attention=bool(asked & set(ATTENTION)) or rules.key is not None,
        rollout="rollout" in asked,
        integrated_gradients="integrated_gradients" in asked,
    )


def tokens(
    rules: ExplainRules, sights: Sights, reading: AnyReading | None
) -> tuple[list[Token], list[Token]]:
    """The tokens that Explain shows, and apart from them those that the model added.

    Args:
        rules: of the caller's role.
        sights: each reading that the rules need.
        reading: how the redacted text came about; None where the rules read it for nothing.
    """
    shown = sights[rules.tokens.read]
    hides = rules.tokens.read == "redacted"
    scored = aligned(sights, reading) if hides else sights
    fields = {
        name: _field(rule, FIELDS[name](scored[rule.read].scored), shown.encoding)
        for name, rule in rules.scores.items()
    }
    hiding = reading if hides else None
    content: list[Token] = []
    added: list[Token] = []
    read = zip(shown.words, shown.encoding.places, strict=True)
    for position, (word, place) in enumerate(read):
        token = Token(
            text=word,
            entity_types=() if hiding is None else hiding.types_at(place),
            **_where(place, hiding is not None),
            **{name: values[position] for name, values in fields.items()},
        )
        (added if place is None else content).append(token)
    return content, added


def key_mechanism(rules: ExplainRules, redacted: Sight) -> BoundedDraw | None:
    """What draws a token; None where none is drawn, or there is none to draw."""
    content = _content(redacted.encoding)
    if rules.key is None or not content:
        return None
    prior = last_attention(redacted.scored)[content]
    return BoundedDraw(prior.tolist(), micro_epsilon(rules.key.epsilon))


def drawn_token(mechanism: BoundedDraw, sights: Sights, reading: AnyReading, stream: Stream) -> int:
    """The number of a token among those of the redacted text.

    Args:
        mechanism: made from the redacted reading.
        sights: both readings.
        reading: how the redacted text came about.
        stream: source of the bits, for this draw alone.
    """
    whole = last_attention(aligned(sights, reading)["full"].scored)
    return mechanism.draw(whole[_content(sights["redacted"].encoding)].tolist(), stream)


def total(costs: Sequence[Cost]) -> Cost:
    """What several draws cost together."""
    return Cost(
        sum((cost.micro_epsilon for cost in costs), FREE.micro_epsilon),
        sum((cost.micro_rho for cost in costs), FREE.micro_rho),
    )


def last_attention(scored: Scored) -> Values:
    """The attention that each position receives in the last layer, mean over the heads."""
    assert scored.attention is not None
    last: Values = scored.attention[-1].mean(0)
    return last


def _of_layers(scored: Scored) -> Values | None:
    return None if scored.attention is None else scored.attention.mean(1)


def _of_last_layer(scored: Scored) -> Values | None:
    return None if scored.attention is None else last_attention(scored)


# Each field of a token by the numbers that it is made of, positions last.
FIELDS: Mapping[str, Callable[[Scored], Values | None]] = {
    "attention": _of_last_layer,
    "layer_attention": _of_layers,
    "head_attention": lambda scored: scored.attention,
    "rollout": lambda scored: scored.rollout,
    "integrated_gradients": lambda scored: scored.integrated_gradients,
}
ATTENTION = ("attention", "layer_attention", "head_attention")


def _probabilities(rule: Rounded | None, found: Classes) -> tuple[float, ...] | None:
    if rule is None:
        return None
    values = found[rule.read].probabilities
    return tuple(values.tolist() if rule.digits is None else values.round(rule.digits).tolist())


def _where(place: Place | None, hides: bool) -> dict[str, Any]:
    """Where a position stands. A hidden token's place would tell lengths; patches stand fixed."""
    match place:
        case (_, _, _, _):
            return {"box": place}
        case (_, _) if not hides:
            return {"offsets": place}
    return {}


def _field(rule: Scores, values: Values | None, encoding: Sample) -> list[Any]:
    """What is shown of a field at each position."""
    if values is None:
        return [None] * encoding.size
    shown = set(range(encoding.size)) if rule.top is None else _top(rule.top, values, encoding)
    if rule.digits is not None:
        values = values.round(rule.digits)
    return [
        _plain(values[..., position]) if position in shown else None
        for position in range(encoding.size)
    ]


def _top(count: int, values: Values, encoding: Sample) -> set[int]:
    """The positions with the largest numbers, whatever their sign; the first of equal ones."""
    size = np.abs(values).reshape(-1, encoding.size).mean(0)
    return set(sorted(_content(encoding), key=lambda position: -size[position])[:count])


def _plain(values: Values) -> Any:
    """A number, or a tuple of what ``values`` holds."""
    return values.item() if values.ndim == 0 else tuple(map(_plain, values))


def _content(encoding: Sample) -> list[int]:
    return [i for i, place in enumerate(encoding.places) if place is not None]


def aligned(sights: Sights, reading: AnyReading | None) -> Sights:
    """The readings with their numbers added up at the redacted text's positions."""
    if reading is None:
        return sights
    return {reads: _aligned(reads, sight, reading) for reads, sight in sights.items()}


def _aligned(reads: Reads, sight: Sight, reading: AnyReading) -> Sight:
    match reads:
        case "redacted":
            return sight
        case "substituted":
            positions = reading.substituted_positions()
        case "full":
            positions = reading.positions(sight.encoding)
        case _:
            assert_never(reads)
    scored = sight.scored.gathered(positions, reading.encoding.size)
    return replace(sight, scored=scored)
