"""How much more of the released scores sensitive tokens get than their share of the tokens.

For a document with m shown tokens (without special ones), k of them sensitive, and non-negative
scores s: ``A = Σ_sensitive s / Σ s`` and ``u = k/m``. The lift is ``ΣA / Σu`` over the documents
with sensitive tokens; 1 means that they get what tokens get on average. Attention is that received
in each layer, and A is the mean over layers; attributions count by absolute value.

Compared with ``attnpriv.audit.lift``, which sees every head:

* Released attention is a mean over heads (and queries), so heads that look at personal data are
  averaged with heads that do not before shares are taken.
* If the server redacts, a hidden run of tokens comes as one entry with their summed score. The
  number of its tokens is unknown, so such entries have no lift: they are left out, and their share
  of all scores is reported with their share of the characters, without a null.
* Noised scores are used as they come, with attention below 0 set to 0: noise draws the lift towards
  1.
* Sensitive tokens differ from others in length, rarity and position. This null, sensitivity
  permuted among a document's shown tokens, removes none of that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from random import Random
from statistics import fmean
from typing import TypeVar

from attnpriv.estimates import ROUNDING, UNDEFINED, Control, middle_95
from attnpriv_client.audit.alignment import overlaps
from attnpriv_client.audit.asking import Answered
from attnpriv_client.audit.results import LiftResult, NotRunError, ScoreLift
from attnpriv_client.audit.statistics import bootstrap_ratios, shares
from attnpriv_client.domain import Explanation, TokenExplanation

PERMUTATIONS = 1000
PLANTED = 2.0  # how much heavier the positive control makes sensitive tokens
ATTENTION, GRADIENTS = "attention", "integrated_gradients"
_AnyDocument = TypeVar("_AnyDocument")


@dataclass(frozen=True)
class _Document:
    """The entries of one answer.

    Attributes:
        sensitive: whether each shown token overlaps personal data.
        shares: for each released score, the share of each shown token in the sum over them.
        hidden: for each released score, the share of the redacted entries in the sum over all.
        hidden_characters: the redacted entries' share of the characters.
        hidden_entries: number of redacted entries.
    """

    sensitive: tuple[bool, ...]
    shares: dict[str, list[float]]
    hidden: dict[str, float]
    hidden_characters: float
    hidden_entries: int


def lift(answered: Sequence[Answered], seed: int) -> LiftResult:
    """The lift of each released score, with a permutation null and two controls.

    All scores are compared on the same documents: those with every score that any document has. If
    a control fails, these documents are too few and the result is not valid.
    """
    explained = [a for a in answered if a.explanation is not None and a.row.spans]
    if not explained:
        raise NotRunError("no explained row has spans of personal data")
    documents = [document for a in explained if (document := _document(a)) is not None]
    names, documents = with_all_scores(documents, lambda document: document.shares)
    if not documents:
        raise NotRunError("no answer has scores whose entries can be found in the text")
    some = [d for d in documents if any(d.sensitive)]
    sensitive = [d.sensitive for d in some]
    lifts = _score_lifts({n: [d.shares[n] for d in some] for n in names}, sensitive, seed)
    planted, null = _controls(sensitive, seed)
    return LiftResult(
        documents=len(some),
        unaligned=sum(a.extents is None for a in explained),
        tokens=sum(map(len, sensitive)),
        sensitive_tokens=sum(map(sum, sensitive)),
        hidden_entries=sum(d.hidden_entries for d in documents),
        hidden_characters=fmean(d.hidden_characters for d in documents),
        scores=tuple(
            replace(each, hidden_share=fmean(d.hidden[each.score] for d in documents))
            for each in lifts
        ),
        planted=planted,
        null=null,
        valid=planted.passed and null.passed,
    )


def entry_scores(explanation: Explanation) -> dict[str, list[list[float]]]:
    """For each score that all entries have, its non-negative values, one list per layer."""
    tokens, found = explanation.tokens, {}
    layers = list(zip(*map(_attention, tokens), strict=False))
    if layers:
        found[ATTENTION] = [[max(0.0, value) for value in layer] for layer in layers]
    gradients = [t.integrated_gradients for t in tokens if t.integrated_gradients is not None]
    if tokens and len(gradients) == len(tokens):
        found[GRADIENTS] = [[abs(value) for value in gradients]]
    return found


def with_all_scores(
    documents: Sequence[_AnyDocument], scores: Callable[[_AnyDocument], Collection[str]]
) -> tuple[list[str], list[_AnyDocument]]:
    """The scores that any document has, and the documents that have all of them.

    A server withholds integrated gradients from single answers if they did not converge.
    """
    carried = [scores(document) for document in documents]
    names = [name for name in (ATTENTION, GRADIENTS) if any(name in found for found in carried)]
    complete = [
        document
        for document, found in zip(documents, carried, strict=True)
        if names and all(name in found for name in names)
    ]
    return names, complete


def _attention(token: TokenExplanation) -> tuple[float, ...]:
    if token.layer_attention or token.attention is None:
        return token.layer_attention
    return (token.attention,)


def _document(answered: Answered) -> _Document | None:
    if answered.explanation is None or not answered.extents:
        return None
    hidden = [bool(token.entity_types) for token in answered.explanation.tokens]
    shown = [not flag for flag in hidden]
    scores = entry_scores(answered.explanation)
    sharing = Counter(answered.extents)  # placeholders side by side share their characters
    lengths = [(end - start) / sharing[start, end] for start, end in answered.extents]
    spans = answered.row.spans or ()
    return _Document(
        tuple(overlaps(extent, spans) for extent in compress(answered.extents, shown)),
        {name: _shown_shares(layers, shown) for name, layers in scores.items()},
        {name: _share_of(layers, hidden) for name, layers in scores.items()},
        _share_of([lengths], hidden),
        sum(hidden),
    )


def _shown_shares(layers: Sequence[Sequence[float]], shown: Sequence[bool]) -> list[float]:
    """Each shown token's share of their sum, as the mean over layers."""
    by_layer = [shares(list(compress(layer, shown))) for layer in layers]
    return [fmean(token) for token in zip(*by_layer, strict=True)]


def _share_of(layers: Sequence[Sequence[float]], flags: Sequence[bool]) -> float:
    """The share that some entries have in the sum over all, as the mean over layers."""
    return fmean(sum(compress(shares(layer), flags)) for layer in layers)


def _score_lifts(
    series: dict[str, list[list[float]]], sensitive: Sequence[Sequence[bool]], seed: int
) -> tuple[ScoreLift, ...]:
    if not sensitive:
        return tuple(ScoreLift(name, UNDEFINED, None, None, None, 0.0) for name in series)
    uniform = [sum(flags) / len(flags) for flags in sensitive]
    columns = [
        [sum(compress(row, flags)) for row, flags in zip(rows, sensitive, strict=True)]
        for rows in series.values()
    ]
    estimates = bootstrap_ratios(columns, uniform, seed)
    null = _permuted(list(series.values()), sensitive, seed)
    return tuple(
        ScoreLift(
            name,
            estimate,
            *middle_95([total / sum(uniform) for total in totals]),
            _two_sided(sum(column), totals),
            hidden_share=0.0,
        )
        for name, column, estimate, totals in zip(series, columns, estimates, null, strict=True)
    )


def _permuted(
    series: Sequence[Sequence[Sequence[float]]], sensitive: Sequence[Sequence[bool]], seed: int
) -> list[list[float]]:
    """For each score, the sums of shares on the same number of random tokens per document."""
    totals = [[0.0] * PERMUTATIONS for _ in series]
    for number, flags in enumerate(sensitive):
        rng, entries, k = Random(f"{seed} {number}"), range(len(flags)), sum(flags)
        for draw in range(PERMUTATIONS):
            chosen = rng.sample(entries, k)
            for rows, total in zip(series, totals, strict=True):
                total[draw] += sum(map(rows[number].__getitem__, chosen))
    return totals


def _two_sided(observed: float, null: Sequence[float]) -> float:
    centre = fmean(null)
    tied = abs(observed - centre) - ROUNDING * (observed + centre)
    beyond = sum(abs(each - centre) >= tied for each in null)
    return (1 + beyond) / (1 + len(null))


def _controls(sensitive: Sequence[Sequence[bool]], seed: int) -> tuple[Control, Control]:
    """The same statistic on random scores of the same tokens, with and without a planted lift."""
    rng = Random(f"{seed} controls")
    series: dict[str, list[list[float]]] = {"planted": [], "null": []}
    for flags in sensitive:
        random = [rng.expovariate(1.0) for _ in flags]
        heavier = [PLANTED * s if flag else s for s, flag in zip(random, flags, strict=True)]
        series["planted"].append(shares(heavier))
        series["null"].append(shares([rng.expovariate(1.0) for _ in flags]))
    planted, null = _score_lifts(series, sensitive, seed)
    height = planted.lift.value or 0.0
    return (
        Control(
            "random scores, doubled on sensitive tokens: lift above 1, p < 0.05",
            height,
            height > 1 and planted.p_value is not None and planted.p_value < 0.05,
        ),
        Control(
            "random scores: p of at least 0.001",
            null.lift.value or 0.0,
            null.p_value is not None and null.p_value >= 0.001,
        ),
    )
