"""What an attacker measures on a released explanation: its attention and its attributions.

The features are those of ``attnpriv.audit.leakage.explained``, as far as released numbers allow:
attention is summed over queries before it is released, so how single queries attend is unknown, and
nothing is asked about a perturbed copy. Entries whose score the policy withholds count as 0.

Source: Zaree et al. 2026 (AttenMIA, arXiv:2601.18110); Shokri, Strobel and Zick 2021
(arXiv:1907.00164).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import log, log1p, sqrt
from statistics import fmean, pstdev

from attnpriv_client.audit.statistics import shares
from attnpriv_client.domain import Explanation, TokenExplanation

TO_THE_FIRST = 0.25  # of all scores, in the leak that the positive control plants
_TINY = 2.0**-126

Map = list[float]
"""One head's or one layer's score of each entry, those that the model added at the end."""


def attention_maps(explanation: Explanation) -> list[list[Map]]:
    """For each layer the attention in each head, or over all heads where heads are withheld."""
    entries = [*explanation.tokens, *explanation.special_tokens]
    layers = max((len(_layers(each)) for each in entries), default=0)
    found = []
    for layer in range(layers):
        rows = [_layers(each)[layer] if _layers(each) else () for each in entries]
        heads = max(map(len, rows))
        found.append([[max(0.0, row[h]) if row else 0.0 for row in rows] for h in range(heads)])
    return found


def _layers(entry: TokenExplanation) -> Sequence[Sequence[float]]:
    if entry.head_attention:
        return entry.head_attention
    if entry.layer_attention:
        return [(value,) for value in entry.layer_attention]
    return [] if entry.attention is None else [(entry.attention,)]


def attributions(explanation: Explanation) -> list[float]:
    """The attribution of each entry; empty where the policy withholds them."""
    values = [token.integrated_gradients for token in explanation.tokens]
    return [] if all(v is None for v in values) else [v or 0.0 for v in values]


def attention_features(maps: Sequence[Sequence[Map]], added: int) -> list[float]:
    """What attention looks like, map by map, and how each differs from that of the next layer.

    Args:
        maps: as ``attention_maps`` gives them.
        added: how many entries at the end the model added.
    """
    found = [feature for layer in maps for one in layer for feature in _of_map(shares(one), added)]
    for here, above in pairwise(maps):
        for ours, theirs in zip(here, above, strict=True):
            found += _between(shares(ours), shares(theirs))
    return found


def _of_map(weights: Map, added: int) -> list[float]:
    ordered = sorted(weights, reverse=True)
    return [
        _entropy(weights),
        ordered[0],
        sum(ordered[:3]),
        sum(weights[len(weights) - added :]) if added else 0.0,
    ]


def _between(ours: Map, theirs: Map) -> list[float]:
    gaps = [a - b for a, b in zip(ours, theirs, strict=True)]
    centre = sum(gap * place for place, gap in enumerate(gaps)) / len(gaps)
    divergence = sum(
        a * (log(max(a, _TINY)) - log(max(b, _TINY))) for a, b in zip(ours, theirs, strict=True)
    )
    return [
        sqrt(sum(gap**2 for gap in gaps)),
        abs(centre),
        log1p(max(divergence, 0.0)),
        _correlation(ours, theirs),
    ]


def _correlation(ours: Map, theirs: Map) -> float:
    deviations = pstdev(ours) * pstdev(theirs)
    if not deviations:
        return 0.0
    together = fmean(a * b for a, b in zip(ours, theirs, strict=True))
    return (together - fmean(ours) * fmean(theirs)) / deviations


def attribution_features(scores: Sequence[float]) -> list[float]:
    """What attributions look like: size, variance and concentration."""
    total, count = max(sum(map(abs, scores)), _TINY), len(scores)
    parts = [abs(score) / total for score in scores]
    ordered = sorted(parts, reverse=True)
    return [
        log1p(total),
        sum(scores),
        log1p(pstdev(scores)),
        _entropy(parts),
        ordered[0],
        sum(ordered[:3]),
        sum(min(score, 0.0) for score in scores) / total,
        sum(part * place for place, part in enumerate(parts)) / count,
    ]


def drawn_features(explanation: Explanation) -> list[float]:
    """What a drawn token looks like: where it is, how long, whether it is hidden."""
    place = explanation.drawn_token
    if place is None:
        return []
    token = explanation.tokens[place]
    return [
        place / len(explanation.tokens),
        float(place),
        log1p(len(token.text)),
        float(bool(token.entity_types)),
    ]


def heaped(scores: Sequence[float]) -> list[float]:
    """Scores with a leak planted: a quarter of all of them on the first entry."""
    heap = TO_THE_FIRST * sum(map(abs, scores))
    return [(1 - TO_THE_FIRST) * score + heap * (n == 0) for n, score in enumerate(scores)]


def _entropy(weights: Sequence[float]) -> float:
    """Over its largest value."""
    total = -sum(weight * log(max(weight, _TINY)) for weight in weights)
    return total / log(max(len(weights), 2))
