"""Causal swap and mask: does the answer change with a person's data and nothing else?

Each value of personal data is replaced, in all its mentions, by another value of the same type from
other rows, of the same length in characters if there is one; and by a neutral text. As a null,
other words with at least as many characters are treated in the same way.

A type is flagged if swapping its values changes the predicted class's probability more than
swapping other words does; or, if the server withholds probabilities, if it flips more answers.

Compared with ``attnpriv.audit.counterfactual``, which has the tokeniser: the same number of
characters is not the same number of tokens, so positions can shift; and a mask is a text that the
model reads in place of the value. Not covered: a model that reads personal data less than other
words is not flagged and may still read it; its changes and flips are reported with their intervals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from attnpriv.estimates import SIGNIFICANT, Control
from attnpriv_client.audit.asking import Answered, Ask
from attnpriv_client.audit.effects import (
    SWAP,
    SWAP_NULL,
    Answer,
    Measured,
    Statistics,
    changes,
    corrected,
)
from attnpriv_client.audit.results import CounterfactualResult, NotRunError
from attnpriv_client.audit.rewriting import (
    Pieces,
    Pool,
    cut,
    draw_words,
    join,
    mentions,
    rewrite,
)
from attnpriv_client.audit.rows import Row
from attnpriv_client.domain import Prediction

NEUTRAL = "[...]"

Probe = Callable[[Pieces], Answer | None]


@dataclass(frozen=True)
class _Case:
    """A value with its replacement, and words that are not sensitive with theirs.

    Attributes:
        document: number of the document.
        entity_type: type of the value.
        same_length: whether the replacement has the same number of characters.
        before: the document.
        after: the document after each of the four interventions.
    """

    document: int
    entity_type: str
    same_length: bool
    before: Pieces
    after: tuple[Pieces, Pieces, Pieces, Pieces]


def counterfactual(
    answered: Sequence[Answered], everything: Sequence[Row], ask: Ask, seed: int
) -> CounterfactualResult:
    """Swap and mask the values of personal data, one at a time.

    Controls: a probe that reads only the values must be flagged, or these documents are too few,
    and other words must not move it. A probe that reads only the rest must not move when values are
    swapped. If either control fails, the result is not valid.

    Args:
        answered: the rows; those without spans, or longer than the model reads, are left out.
        everything: the rows to take replacements from.
        ask: asks for predictions.
        seed: seed of the replacements, the signs and the bootstrap.
    """
    chosen = [a for a in answered if a.row.spans and a.prediction and not a.truncated]
    if not chosen:
        raise NotRunError("no row that was read to its end has spans of personal data")
    cases = _make_cases([a.row for a in chosen], everything, seed)
    if not cases:
        raise NotRunError("no value has another one of its type to swap with, and enough words")
    answers = ask((join(after) for case in cases for after in case.after), "swapped and masked")
    known = {a.row.text: a.prediction for a in chosen} | dict(answers)
    released = all(a.prediction and a.prediction.probabilities for a in chosen)
    statistics = Statistics(len(chosen), _present(chosen), released, seed)
    measured = _measure(cases, lambda pieces: _answer(known[join(pieces)]))
    positive, null = _controls(cases, statistics)
    types = [statistics.effect(measured, kind) for kind in sorted(statistics.present)]
    return CounterfactualResult(
        documents=len(chosen),
        compared="probabilities" if released else "labels",
        overall=statistics.effect(measured, None),
        types=corrected(types),
        positive=positive,
        null=null,
        valid=positive.passed and null.passed,
    )


def _make_cases(rows: Sequence[Row], everything: Sequence[Row], seed: int) -> list[_Case]:
    """The values in some rows that can be replaced by values from all rows."""
    pool = Pool(cut(row.text, row.spans or ()) for row in everything)
    return [
        case
        for document, row in enumerate(rows)
        for case in _cases(document, cut(row.text, row.spans or ()), pool, seed)
    ]


def _cases(document: int, pieces: Pieces, pool: Pool, seed: int) -> Iterator[_Case]:
    own = {piece.text.casefold() for piece in pieces}
    for number, (value, positions) in enumerate(mentions(pieces).items()):
        rng = Random(f"{seed} {document} {number}")
        other = pool.draw(value, own, rng)
        words = draw_words(pieces, len(value.text) * len(positions), pool, own, rng)
        if other is None or words is None or value.kind is None:
            continue
        after = (
            rewrite(pieces, dict.fromkeys(positions, other)),
            rewrite(pieces, dict.fromkeys(positions, NEUTRAL)),
            rewrite(pieces, words),
            rewrite(pieces, dict.fromkeys(words, NEUTRAL)),
        )
        yield _Case(document, value.kind, len(other) == len(value.text), pieces, after)


def _present(chosen: Sequence[Answered]) -> Counter[str]:
    """The number of values of each type; a value that a row repeats counts once."""
    values = (
        {(s.entity_type, a.row.text[s.start : s.end]) for s in a.row.spans or ()} for a in chosen
    )
    return Counter(kind for found in values for kind, _ in found)


def _answer(prediction: Prediction | None) -> Answer | None:
    return None if prediction is None else (prediction.label, prediction.probabilities)


def _measure(cases: Sequence[_Case], probe: Probe) -> list[Measured]:
    """The changes of every case; a case is left out if the server refused one of its texts."""
    measured = []
    for case in cases:
        before, *others = (probe(pieces) for pieces in (case.before, *case.after))
        if before is not None and None not in others:
            found = tuple(changes(before, other) for other in others if other is not None)
            measured.append(Measured(case.document, case.entity_type, case.same_length, found))
    return measured


def _controls(cases: Sequence[_Case], statistics: Statistics) -> tuple[Control, Control]:
    """The same interventions on two probes whose reactions are known."""
    of_values = _measure(cases, lambda pieces: _random_answer(pieces, True, statistics))
    of_others = _measure(cases, lambda pieces: _random_answer(pieces, False, statistics))
    excess = [statistics.excess(each) for each in of_values]
    unmoved = all(each.changes[SWAP_NULL].change == 0 for each in of_values)
    moved = max(each.changes[SWAP].change for each in of_others)
    flagged = statistics.p_value(of_values) < SIGNIFICANT
    return (
        Control(
            "a probe of the values alone: flagged, and not moved by other words",
            sum(excess) / len(excess),
            flagged and unmoved,
        ),
        Control("a probe of all else: not moved by any swap of a value", moved, moved == 0),
    )


def _random_answer(pieces: Pieces, of_values: bool, statistics: Statistics) -> Answer:
    """An answer that depends only on the values of personal data, or only on everything else."""
    read = [piece.text for piece in pieces if bool(piece.kind) is of_values]
    p = Random(f"{statistics.seed} {read}").random()
    return ("yes" if p > 0.5 else "no", {"yes": p, "no": 1 - p})
