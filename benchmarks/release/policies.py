"""What each policy shows of an answer, as far as numbers go, and how much of the full answer it is.

An answer has four parts: its label, the probabilities, attention by layer, integrated gradients.
What is shown of a part is an *outcome*: bytes for parts that are computed, numbers of outcomes with
their chances for those that are drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from attnpriv.randomness import StepKeys, Stream
from attnpriv.release import BoundedDraw, RandomisedResponse
from attnpriv.release.cost import MICRO
from benchmarks.release.answers import Array, Case, Ints, merge

DECIMALS, TOP = 2, 3
SAME = 6  # decimals beyond which numbers differ by the arithmetic of another machine, too


@dataclass(frozen=True)
class Shown:
    """The numbers that one policy shows of one text.

    Attributes:
        probabilities: what is told of the classes, [K].
        scores: [S, P] at P positions.
        entries: the entry of each of these positions, [P].
    """

    probabilities: Array
    scores: Array
    entries: Ints


@dataclass(frozen=True)
class Policy:
    """A way to answer.

    Attributes:
        show: what is computed and shown.
        epsilon: the cost of a drawn label, and that of a drawn position; None if neither is.
        words: which words of the text stand beside the numbers.
    """

    show: Callable[[Case], Shown]
    words: str
    epsilon: float | None = None


def full(case: Case) -> Shown:
    """Every number of every token."""
    return Shown(case.whole.probabilities, case.whole.scores, case.entries)


def after(case: Case) -> Shown:
    """The numbers of hidden tokens are summed under their placeholder."""
    return Shown(case.whole.probabilities, case.merged, np.arange(len(case.kinds)))


def before(case: Case) -> Shown:
    """All numbers are of the redacted text."""
    return Shown(case.redacted.probabilities, case.redacted.scores, np.arange(len(case.kinds)))


def rounded(show: Callable[[Case], Shown]) -> Callable[[Case], Shown]:
    """With two decimals."""

    def shorten(case: Case) -> Shown:
        shown = show(case)
        return Shown(
            shown.probabilities.round(DECIMALS), shown.scores.round(DECIMALS), shown.entries
        )

    return shorten


def top(show: Callable[[Case], Shown]) -> Callable[[Case], Shown]:
    """The three classes and the three positions that are largest in each layer, the others as 0."""

    def cut(case: Case) -> Shown:
        shown = show(case)
        content = case.content[shown.entries]
        return Shown(
            _largest(shown.probabilities[None])[0],
            _largest(np.where(content, shown.scores, 0.0)),
            shown.entries,
        )

    return cut


def _largest(rows: Array) -> Array:
    least = np.sort(np.abs(rows), axis=1)[:, -min(TOP, rows.shape[1])]
    kept: Array = np.where(np.abs(rows) >= least[:, None], rows, 0.0)
    return kept


EVERYTHING, THREE, PLACEHOLDERS = "all", "the three", "placeholders for what is hidden"
POLICIES = {
    "full": Policy(full, EVERYTHING),
    "rounded": Policy(rounded(full), EVERYTHING),
    "top 3": Policy(top(full), THREE),
    "redacted after": Policy(after, PLACEHOLDERS),
    "redacted after, rounded": Policy(rounded(after), PLACEHOLDERS),
    "redacted after, top 3": Policy(top(after), PLACEHOLDERS),
    "redacted before": Policy(before, PLACEHOLDERS),
    "mixed, ε = 0.5": Policy(before, PLACEHOLDERS, 0.5),
    "mixed, ε = 1": Policy(before, PLACEHOLDERS, 1.0),
    "mixed, ε = 3": Policy(before, PLACEHOLDERS, 3.0),
}


def label_response(case: Case, epsilon: float) -> RandomisedResponse:
    """What draws the label: made from the redacted text alone."""
    return RandomisedResponse(case.redacted.probabilities.tolist(), round(epsilon * MICRO))


def label_chances(case: Case, epsilon: float) -> Array:
    """With what chance each label is drawn, [K]."""
    answer = int(case.whole.probabilities.argmax())
    return shares(label_response(case, epsilon).weights(answer))


def key_chances(case: Case, epsilon: float, layer: int) -> Array:
    """With what chance each entry is drawn as the one that gets most attention, [E]."""
    content = case.content
    mechanism = BoundedDraw(case.redacted.scores[layer, content].tolist(), round(epsilon * MICRO))
    chances = np.zeros(len(content))
    chances[content] = shares(mechanism.weights(case.merged[layer, content].tolist()))
    return chances


def shares(weights: list[int]) -> Array:
    """Whole numbers as chances."""
    return np.array(weights, dtype=np.float64) / sum(weights)


def shown_once(case: Case, policy: Policy, layers: int, seed: int) -> Shown:
    """What one answer shows; a drawn label and key stand beside the rest, as 1 among zeros."""
    shown = policy.show(case)
    if policy.epsilon is None:
        return shown
    chances = label_chances(case, policy.epsilon), key_chances(case, policy.epsilon, layers - 1)
    coins = Stream(StepKeys.from_seed(seed).key).uniform(2).tolist()
    label, key = (
        np.eye(len(own))[int(np.searchsorted(own.cumsum(), coin))]
        for own, coin in zip(chances, coins, strict=True)
    )
    return Shown(
        np.concatenate([shown.probabilities, label]),
        np.concatenate([shown.scores, key[None]]),
        shown.entries,
    )


def top_entry(case: Case, scores: Array, entries: Ints) -> int:
    """The entry of the text with the largest score, sign aside, where [P] of them are merged."""
    merged = np.abs(merge(scores[None], entries, len(case.kinds))[0])
    return int(np.where(case.content, merged, -np.inf).argmax())


def rank_correlation(case: Case, shown: Array, layer: int) -> float:
    """Spearman's ρ of the scores [S, E] of visible entries with those of the full answer.

    NaN where there are fewer than three such entries, or one of the two does not rank them.
    """
    visible = case.content & ~case.hidden
    ours, full_scores = np.abs(shown[layer, visible]), np.abs(case.merged[layer, visible])
    if visible.sum() < 3 or np.ptp(ours) == 0 or np.ptp(full_scores) == 0:
        return float("nan")
    return float(spearmanr(ours, full_scores).statistic)
