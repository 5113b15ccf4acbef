"""The second null of a lift: sensitive tokens against others of their length, nearby.

Each sensitive token is paired with the content token that is not sensitive, has as many characters
and lies nearest in the same document, the left one of two; a token may be the partner of several.
With s_t the share of a document's score on token t, the matched lift is ``Σ s_t / Σ s_partner(t)``
over all pairs of all documents. Tokens without a partner are left out, and counted.

Its null exchanges, by a fair coin a document, the sensitive tokens with their partners: if length
and position were all that matters, either set could have been the sensitive one. Whole documents
are flipped since the tokens of one are not independent.

Not covered: other ways in which sensitive tokens differ, such as rarity, digits and capitals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnpriv.audit.documents import Documents
from attnpriv.audit.lift import (
    PLANTED,
    Lift,
    LiftAccumulator,
    bootstrap_columns,
    group_means,
    make_lifts,
    scores_to_shares,
)
from attnpriv.audit.statistics import CHUNK, Floats
from attnpriv.audit.tally import Tally
from attnpriv.estimates import ROUNDING, Control

Flags = NDArray[np.bool_]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class TokenLift:
    """One score on one set of sensitive tokens, against both nulls.

    Attributes:
        name: of the score or of the set.
        documents: that hold such tokens.
        tokens: how many there are.
        permuted: lift over the uniform share; null: sensitivity permuted among content tokens.
        matched: lift over tokens of the same length nearby; see ``attnpriv.audit.matched``.
        matched_tokens: how many found such a partner, and so count in ``matched``.
    """

    name: str
    documents: int
    tokens: int
    permuted: Lift
    matched: Lift
    matched_tokens: int


def token_lengths(documents: Documents, document: int) -> Numbers:
    """How large each content position of a document is: characters of a token, or pixels."""
    return np.array(documents.samples[document].extents, dtype=np.int64)


def partners(sensitive: Flags, lengths: Numbers) -> Numbers:
    """For each sensitive token of m the position of its partner, or -1 where there is none.

    >>> partners(np.array([False, True, False, True]), np.array([4, 4, 4, 9])).tolist()
    [0, -1]
    """
    positions = np.arange(len(sensitive))
    at = positions[sensitive]
    distance = np.abs(at[:, None] - positions)
    distance[:, sensitive] = len(positions)
    distance[lengths[at][:, None] != lengths] = len(positions)
    nearest = distance.argmin(1)
    return np.where(distance.min(1) < len(positions), nearest, -1)


def matched_lifts(
    ours: Floats, theirs: Floats, permutations: int, resamples: int, seed: int
) -> tuple[Lift, ...]:
    """The matched lifts of G scores, their p-values corrected together.

    Args:
        ours: of each document the shares on its paired sensitive tokens, [N, G].
        theirs: the shares on their partners, [N, G].
        permutations: of the null.
        resamples: of the bootstrap over documents.
        seed: of both.
    """
    total, gaps = (ours + theirs).sum(0), (ours - theirs).sum(0)
    flipped = flipped_gaps(ours - theirs, permutations, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        observed, null = ours.sum(0) / theirs.sum(0), (total + flipped) / (total - flipped)
    # The gaps order as the ratios do, but alike in both directions and without infinities.
    return make_lifts(
        observed,
        bootstrap_columns(ours, theirs, resamples, seed),
        null,
        tested=(gaps, flipped, ROUNDING * total),
    )


def flipped_gaps(gaps: Floats, permutations: int, seed: int) -> Floats:
    """Sums of the documents' gaps [N, G], each document under a random sign: [P, G]."""
    rng = np.random.default_rng([seed, len(gaps)])
    at_once = max(1, CHUNK // len(gaps))
    sizes = [min(at_once, permutations - start) for start in range(0, permutations, at_once)]
    return np.concatenate(
        [(2.0 * rng.integers(0, 2, (size, len(gaps))) - 1.0) @ gaps for size in sizes]
    )


class TokenLiftAccumulator(Tally):
    """S scores of one document after the other, against both nulls."""

    def __init__(self, documents: int, series: int, permutations: int, seed: int) -> None:
        self.permuted = LiftAccumulator(documents, series, permutations, seed)
        self.paired: Floats = np.zeros((documents, series))
        self.partners: Floats = np.zeros((documents, series))
        self.tokens: Numbers = np.zeros(documents, dtype=np.int64)
        self.matched_tokens: Numbers = np.zeros(documents, dtype=np.int64)
        self._permutations, self._seed = permutations, seed

    def add(self, document: int, scores: Floats, sensitive: Flags, lengths: Numbers) -> None:
        """Add the scores [S, m] of the m content tokens of a document, with their lengths [m]."""
        self.permuted.add(document, scores, sensitive)
        if not sensitive.any():
            return
        share = scores_to_shares(scores)
        at, partner = np.flatnonzero(sensitive), partners(sensitive, lengths)
        found = partner >= 0
        self.paired[document] = share[:, at[found]].sum(1)
        self.partners[document] = share[:, partner[found]].sum(1)
        self.tokens[document], self.matched_tokens[document] = len(at), found.sum()

    def lifts(self, names: Sequence[str], resamples: int) -> tuple[TokenLift, ...]:
        """One lift a name, each of the mean share of as many consecutive scores."""
        permuted = self.permuted.averaged(len(names), resamples)
        matched = matched_lifts(
            group_means(self.paired, len(names)),
            group_means(self.partners, len(names)),
            self._permutations,
            resamples,
            self._seed,
        )
        return tuple(
            TokenLift(
                name=name,
                documents=int((self.tokens > 0).sum()),
                tokens=int(self.tokens.sum()),
                permuted=permuted[i],
                matched=matched[i],
                matched_tokens=int(self.matched_tokens.sum()),
            )
            for i, name in enumerate(names)
        )

    def mean_shares(self) -> tuple[float | None, ...]:
        """The mean share of each score over the documents with sensitive tokens, if there are."""
        touched = (self.tokens > 0).sum()
        if not touched:
            return tuple(None for _ in self.permuted.shares.T)
        shares: list[float] = (self.permuted.shares.sum(0) / touched).tolist()
        return tuple(shares)


class MatchedControls(Tally):
    """The matched lift of random scores that grow with a token's length: planted, and not planted.

    The planted lift must be significant; the other must not be, though sensitive tokens of unusual
    length give it a lift over the uniform share.
    """

    def __init__(self, documents: int, permutations: int, seed: int) -> None:
        self.scores = TokenLiftAccumulator(documents, 2, permutations, seed)
        self._seed = seed

    def add(self, document: int, sensitive: Flags, lengths: Numbers) -> None:
        """Add a document's content tokens and their lengths, both [m]."""
        rng = np.random.default_rng([self._seed, document, 2])
        scores = rng.exponential(size=(2, len(lengths))) * lengths
        scores[0, sensitive] *= PLANTED
        self.scores.add(document, scores, sensitive, lengths)

    def result(self, resamples: int) -> tuple[Control, Control]:
        """The planted one, and the other."""
        both = self.scores.lifts(("planted", "null"), resamples)
        planted, null = (each.matched for each in both)
        found = (planted.lift.value or 0.0) > 1 and (planted.p_value or 1.0) < 0.05
        return (
            Control(
                "random scores by length, doubled on sensitive tokens: matched lift above 1, "
                "p < 0.05",
                planted.lift.value or 0.0,
                found,
            ),
            Control(
                "random scores by length: matched p of at least 0.001",
                null.lift.value or 0.0,
                (null.p_value or 0.0) >= 0.001,
            ),
        )
