"""Certified accuracy: how many answers are right and cannot be changed by m edits of the text.

For runs with encoder ``words`` alone; see ``attnpriv.models.edits`` for what is proved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from attnpriv.estimates import Estimate, wilson
from attnpriv.models.edits import EditRadii

NUMBERS = (1, 2, 3, 5, 10)  # of edits that are reported


@dataclass(frozen=True)
class CertifiedShare:
    """Shares of texts whose answer is right and withstands every choice of so many edits.

    Attributes:
        edits: m.
        substitutions: withstand m substitutions.
        any_edits: withstand m substitutions, deletions and insertions in any mixture.
    """

    edits: int
    substitutions: Estimate
    any_edits: Estimate


@dataclass(frozen=True)
class CertifiedResult:
    """Certified accuracy on held-out records.

    Attributes:
        documents: how many there are.
        clean: share of right answers, which m = 0 edits leave as they are.
        shares: for each m in ``NUMBERS``.
        of_right: share of the right answers that withstand one substitution.
    """

    documents: int
    clean: Estimate
    shares: tuple[CertifiedShare, ...]
    of_right: Estimate


def certified_shares(
    radii: Sequence[EditRadii], right: Sequence[bool], numbers: Sequence[int]
) -> tuple[CertifiedShare, ...]:
    """The certified share at each number of edits, with Wilson's intervals.

    Args:
        radii: of N texts.
        right: whether each answer counts, say because it is right, N of them.
        numbers: of edits.
    """

    def withstand(of: Callable[[EditRadii], int], edits: int) -> Estimate:
        counted = sum(ok and of(each) >= edits for each, ok in zip(radii, right, strict=True))
        return wilson(counted, len(radii))

    return tuple(
        CertifiedShare(
            edits,
            withstand(lambda each: each.substitutions, edits),
            withstand(lambda each: each.edits, edits),
        )
        for edits in numbers
    )


def certified_accuracy(radii: Sequence[EditRadii], labels: Sequence[int]) -> CertifiedResult:
    """Certified accuracy of N texts with N labels."""
    right = [each.label == label for each, label in zip(radii, labels, strict=True)]
    standing = sum(ok and each.substitutions > 0 for each, ok in zip(radii, right, strict=True))
    return CertifiedResult(
        documents=len(radii),
        clean=wilson(sum(right), len(right)),
        shares=certified_shares(radii, right, NUMBERS),
        of_right=wilson(standing, sum(right)),
    )
