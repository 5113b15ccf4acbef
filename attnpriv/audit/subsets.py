"""Lift by entity type and by label: the mean of S scores on several sets of sensitive tokens.

The sets may overlap: a token counts for every type whose span it touches, and for its document's
label. The permutation null deals the sensitive tokens, with their types, to random content tokens
of the same document; one draw serves all sets.

Not covered: why types differ. Their tokens differ in length and position too; the matched lift
beside each (``attnpriv.audit.matched``) takes that out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from attnpriv.audit.documents import Documents
from attnpriv.audit.lift import (
    Lift,
    bootstrap_columns,
    draw_labels,
    make_lifts,
    on_grid,
    scores_to_shares,
)
from attnpriv.audit.matched import Flags, Numbers, TokenLift, matched_lifts, partners, token_lengths
from attnpriv.audit.statistics import Floats
from attnpriv.audit.tally import Tally
from attnpriv.data.records import Span


class Subsets(Tally):
    """Lifts by entity type and by label, in one pass over the documents.

    Args:
        documents: their labels are one split.
        spans: what the documents were prepared with; their types are the other. None leaves the
            split by type out.
        permutations: of the null.
        seed: of the null and the bootstrap.
    """

    def __init__(
        self,
        documents: Documents,
        spans: Sequence[Sequence[Span]] | None,
        permutations: int,
        seed: int,
    ) -> None:
        self._documents, self._spans = documents, spans
        self._types = sorted({span.entity_type for found in spans or () for span in found})
        self._sets = SetAccumulator(
            len(documents), len(self._types) + len(documents.data.label_names), permutations, seed
        )

    def add(self, document: int, scores: Floats) -> None:
        """Add the scores [S, m] of the m content tokens of a document."""
        of_content = partial(self._documents.of_content, document)
        members = np.zeros((self._sets.shares.shape[1], scores.shape[1]), dtype=np.bool_)
        label = len(self._types) + self._documents.data.labels[document]
        members[label] = of_content(self._documents.sensitive[document])
        marks = self._documents.samples[document].marks
        found = self._spans[document] if self._spans is not None else ()
        for name in {span.entity_type for span in found}:
            own = [span for span in found if span.entity_type == name]
            members[self._types.index(name)] = of_content(marks(own))
        self._sets.add(document, scores, members, token_lengths(self._documents, document))

    def by_type(self, resamples: int) -> tuple[TokenLift, ...]:
        """One lift an entity type, in the order of their names."""
        return self._sets.lifts(self._types, 0, resamples)

    def by_label(self, resamples: int) -> tuple[TokenLift, ...]:
        """One lift a label, in the order of the classes."""
        names = self._documents.data.label_names
        return self._sets.lifts(names, len(self._types), resamples)


class SetAccumulator(Tally):
    """The mean share of S scores on G sets of tokens, against both nulls."""

    def __init__(self, documents: int, sets: int, permutations: int, seed: int) -> None:
        shape = (documents, sets)
        self.shares: Floats = np.zeros(shape)
        self.uniform: Floats = np.zeros(shape)
        self.null: Floats = np.zeros((permutations, sets))
        self.tokens: Numbers = np.zeros(shape, dtype=np.int64)
        self.matched_tokens: Numbers = np.zeros(shape, dtype=np.int64)
        self.paired: Floats = np.zeros(shape)
        self.partners: Floats = np.zeros(shape)
        self._seed = seed

    def add(self, document: int, scores: Floats, members: Flags, lengths: Numbers) -> None:
        """Add scores [S, m] of a document's content tokens, their sets [G, m] and lengths [m]."""
        sensitive: Flags = np.logical_or.reduce(members, axis=0)
        m, k = len(sensitive), int(sensitive.sum())
        if not k:
            return
        share = on_grid(scores_to_shares(scores).mean(0))
        of = members[:, sensitive]
        self.tokens[document] = of.sum(1)
        self.uniform[document] = of.sum(1) / m
        self.shares[document] = of @ share[sensitive]
        drawn = draw_labels(self._seed, document, len(self.null), m, k)[0]
        dealt = np.random.default_rng([self._seed, document, 7]).permuted(drawn, axis=1)
        self.null += share[dealt] @ of.T
        partner = partners(sensitive, lengths)
        paired = of[:, partner >= 0]
        self.matched_tokens[document] = paired.sum(1)
        self.paired[document] = paired @ share[sensitive][partner >= 0]
        self.partners[document] = paired @ share[partner[partner >= 0]]

    def lifts(self, names: Sequence[str], first: int, resamples: int) -> tuple[TokenLift, ...]:
        """The lifts of the sets from ``first`` on, one a name, p-values corrected together."""
        if not names:
            return ()
        chosen = slice(first, first + len(names))
        permuted = self._permuted(chosen, resamples)
        matched = matched_lifts(
            self.paired[:, chosen],
            self.partners[:, chosen],
            len(self.null),
            resamples,
            self._seed,
        )
        tokens, paired = self.tokens[:, chosen], self.matched_tokens[:, chosen]
        return tuple(
            TokenLift(
                name=name,
                documents=int((tokens[:, i] > 0).sum()),
                tokens=int(tokens[:, i].sum()),
                permuted=permuted[i],
                matched=matched[i],
                matched_tokens=int(paired[:, i].sum()),
            )
            for i, name in enumerate(names)
        )

    def _permuted(self, chosen: slice, resamples: int) -> tuple[Lift, ...]:
        shares, uniform = self.shares[:, chosen], self.uniform[:, chosen]
        with np.errstate(divide="ignore", invalid="ignore"):
            observed = shares.sum(0) / uniform.sum(0)
            null = self.null[:, chosen] / uniform.sum(0)
        return make_lifts(observed, bootstrap_columns(shares, uniform, resamples, self._seed), null)
