"""What one answer rests on: scores for each token, and the redaction of sensitive ones.

The scores are computed on the whole text first and redacted afterwards, so redaction never changes
what the model saw. ``Redaction`` in the proto says what it does not protect.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from attnpriv.data.records import Span
from attnpriv.data.spans import sensitive_tokens
from attnpriv.data.tokenisation import Encoding
from attnpriv.errors import DetectionError
from attnpriv.explain.attention import attention_received
from attnpriv.explain.gradients import TOLERANCE, Attribution, integrated_gradients
from attnpriv.modality import embed
from attnpriv.runs.folder import Run
from attnpriv.sensitive import Detector, placeholder
from attnpriv_server.domain import Code, Deadline, RefusedError, Token, Violation
from attnpriv_server.policy import Policy

# The detector reads a little beyond the last token, so that a number cut there is still recognised;
# not the whole text, since long hostile ones take seconds.
DETECTOR_CONTEXT = 256


@dataclass(frozen=True)
class Scored:
    """The tokens of a text with their scores, and how good its integrated gradients are.

    Attributes:
        tokens: special ones included.
        gradients_error: by how much, at most, the sum of the integrated gradients misses the
            difference of logits that it stands for; None where the policy withholds them.
        gradients_withheld: why they are withheld nevertheless, or None.
    """

    tokens: list[Token]
    gradients_error: float | None = None
    gradients_withheld: str | None = None


def score_tokens(
    run: Run, text: str, encoding: Encoding, target: int, policy: Policy, deadline: Deadline
) -> Scored:
    """The tokens of a text, special ones included, with the scores that the policy reveals.

    Raises:
        ArithmeticError: a score is not finite.
        RefusedError: the deadline passed in between.
    """
    count = encoding.size
    attention: Sequence[tuple[float, ...] | None] = [None] * count
    gradients: Sequence[float | None] = [None] * count
    error = withheld = None
    if policy.reveal_attention:
        attention = _attention(run, encoding)
        deadline.check()
    if policy.reveal_integrated_gradients:
        found = _integrated_gradients(run, encoding, target, deadline)
        error = float(found.error)
        if found.converged:
            gradients = _finite(found.scores[0].tolist())
        else:
            withheld = _not_converged(found)
        deadline.check()
    tokens = [
        Token(word, (), attention[i], gradients[i], place)
        for i, (word, place) in enumerate(zip(encoding.words(text), encoding.places, strict=True))
    ]
    return Scored(tokens, error, withheld)


def split_special(tokens: Sequence[Token]) -> tuple[list[Token], list[Token]]:
    """Part the tokens of the text from those that the model added, which have no place in it."""
    return (
        [token for token in tokens if token.offsets is not None],
        [token for token in tokens if token.offsets is None],
    )


def detect(detector: Detector, text: str, tokens: Sequence[Token]) -> tuple[Span, ...]:
    """The sensitive spans among what the model read of a text.

    Raises:
        RefusedError: the text cannot be searched, so that none of it may be shown.
    """
    end = max((token.offsets[1] for token in tokens if token.offsets), default=0)
    try:
        return detector.detect(text[: end + DETECTOR_CONTEXT])
    except DetectionError:
        why = "expected a text that can be searched for personal data in the time there is"
        raise RefusedError(
            Code.INVALID_ARGUMENT, f"text: {why}", (Violation("text", why),)
        ) from None


def redact(tokens: Sequence[Token], spans: Sequence[Span]) -> list[Token]:
    """Merge each run of tokens that carries a span into one placeholder, and drop all offsets.

    Scores of a run are summed. A token that carries two spans joins their runs into one entry with
    both placeholders. Claim: no text of the result holds a character of a span, and no position is
    left. Not covered: the scores, which depend on the hidden tokens; a sum hints at their number.
    """
    places = [token.offsets for token in tokens]
    carried = [sensitive_tokens(places, [span]) for span in spans]
    merged: list[Token] = []
    open_spans: set[int] = set()
    for index, token in enumerate(tokens):
        here = {number for number, flags in enumerate(carried) if flags[index]}
        if here & open_spans:
            new = [spans[number].entity_type for number in sorted(here - open_spans)]
            merged[-1] = _sum(_hide(merged[-1], new), token)
        else:
            merged.append(_hide(token, [spans[number].entity_type for number in sorted(here)]))
        open_spans = here
    return merged


def _hide(token: Token, entity_types: Iterable[str]) -> Token:
    """Take the offsets off, and where something is to be hidden, the text."""
    kinds = (*token.entity_types, *entity_types)
    text = "".join(map(placeholder, kinds)) if kinds else token.text
    return replace(token, text=text, entity_types=kinds, offsets=None)


def _sum(left: Token, right: Token) -> Token:
    """Left with the scores of right added; what is withheld is withheld for all tokens alike."""
    attention, gradients = left.attention, left.integrated_gradients
    if attention is not None and right.attention is not None:
        attention = tuple(a + b for a, b in zip(attention, right.attention, strict=True))
    if gradients is not None and right.integrated_gradients is not None:
        gradients += right.integrated_gradients
    return replace(left, attention=attention, integrated_gradients=gradients)


def _attention(run: Run, encoding: Encoding) -> list[tuple[float, ...]]:
    """For each token the attention that it receives in each layer, averaged over heads."""
    inputs = run.modality.collate([encoding])
    seen = run.model.run(run.model.embed(inputs.values), inputs.mask, need_maps=True)
    received = attention_received(seen.self_attention(), inputs.mask)[0].mean(dim=1)
    return [_finite(layers) for layers in received.T.tolist()]


def _integrated_gradients(
    run: Run, encoding: Encoding, target: int, deadline: Deadline
) -> Attribution:
    example = embed(run.model, run.modality.collate([encoding]))
    found = integrated_gradients(run.model, example, torch.tensor([target]), check=deadline.check)
    _finite(found.error.tolist())
    return found


def _not_converged(found: Attribution) -> str:
    return (
        f"their numerical integration is off by up to {float(found.error):.2g} after "
        f"{int(found.points)} points, more than {TOLERANCE:.0%} of what they should add up to"
    )


def _finite(values: Iterable[float]) -> tuple[float, ...]:
    result = tuple(values)
    if not all(map(math.isfinite, result)):
        raise ArithmeticError("a score is not finite")
    return result
