"""Texts laid end to end, so that every layer but attention itself computes on tokens only.

Shapes: B texts; N tokens of all texts, with the filling; a group has b texts, the longest of t
tokens; P places of all groups, with their padding; W any width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Shaped
from torch import Tensor

from attnpriv.errors import InputError

# N is filled up to a multiple of this: making a half-precision kernel for a new shape takes time
# and memory.
TOKENS = 8
# A text joins a group if it has more than this share of the longest text's tokens: at this share,
# a call of its own costs about as much as the padding.
LIKE = 0.5


@dataclass(frozen=True)
class Group:
    """Texts of similar length, whose attention is computed in one padded call.

    Attributes:
        places: which of the P places belong to the group.
        sources: the token that goes to each place, [b, t]; padding repeats the text's first token.
        mask: [b, t], True for tokens and False for padding; None where there is no padding.
    """

    places: slice
    sources: Tensor
    mask: Tensor | None

    def part(self, padded: Shaped[Tensor, "P W"]) -> Shaped[Tensor, "b t W"]:
        """The group's part of ``padded`` [P, W], to read or to write, [b, t, W]."""
        return padded[self.places].view(*self.sources.shape, -1)


class Packing:
    """Where the tokens of B texts lie when they are laid end to end, in the order given.

    Args:
        lengths: tokens of each text.

    Attributes:
        size: B.
        tokens: number of tokens without the filling.
        longest: number of tokens of the longest text.
        positions: position of every token in its own text, [N]; 0 for the filling.
        texts: which text every token belongs to, [N] without the filling.
        starts: where each text begins, [B].
        groups: the texts, grouped by similar length.

    Raises:
        InputError: a text has no tokens.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        if min(lengths, default=1) < 1:
            raise InputError(f"expected at least one token in each text, got {min(lengths)}")
        counts = torch.tensor(lengths, dtype=torch.int64)
        self.size, self.tokens, self.longest = len(lengths), sum(lengths), max(lengths, default=0)
        self.texts = torch.repeat_interleave(counts)
        self.starts = counts.cumsum(0) - counts
        self.positions = torch.zeros(-(-self.tokens // TOKENS) * TOKENS, dtype=torch.int64)
        self.positions[: self.tokens] = torch.arange(self.tokens) - self.starts[self.texts]
        self.groups = list(self._make_groups(lengths, counts))
        self._sources = torch.cat([counts[:0], *(g.sources.flatten() for g in self.groups)])
        self._places = self._find_places()

    def pad(self, x: Shaped[Tensor, "N ..."]) -> Shaped[Tensor, "P ..."]:
        """Copy the tokens x [N, ...] to the places of all groups, [P, ...]."""
        return x.index_select(0, self._sources)

    def unpad(self, padded: Shaped[Tensor, "P ..."]) -> Shaped[Tensor, "N ..."]:
        """Copy tokens [N, ...] back from ``padded`` [P, ...]; the filling repeats one of them."""
        return padded.index_select(0, self._places)

    def sums(self, x: Shaped[Tensor, "N W"]) -> Shaped[Tensor, "B W"]:
        """The sum over each text's tokens, [B, W] for x [N, W]."""
        return x.new_zeros(self.size, x.shape[-1]).index_add_(0, self.texts, x[: self.tokens])

    def _make_groups(self, lengths: Sequence[int], counts: Tensor) -> Iterator[Group]:
        start = 0
        for texts in _of_like_length(lengths):
            chosen, starts = counts[texts, None], self.starts[texts, None]
            positions = torch.arange(lengths[texts[0]])
            mask = positions < chosen
            places = slice(start, start := start + mask.numel())
            sources = starts + torch.where(mask, positions, 0)
            yield Group(places, sources, None if mask.all() else mask)

    def _find_places(self) -> Tensor:
        """The place that holds each token itself rather than a repetition of it, [N]."""
        firsts = torch.empty_like(self.starts)  # of each text's first token
        for group in self.groups:
            texts, width = self.texts[group.sources[:, 0]], group.sources.shape[1]
            firsts[texts] = torch.arange(group.places.start, group.places.stop, width)
        places = torch.zeros_like(self.positions)
        places[: self.tokens] = firsts[self.texts] + self.positions[: self.tokens]
        return places


def _of_like_length(lengths: Sequence[int]) -> list[list[int]]:
    """The texts' numbers, longest first, in lists of texts that need little padding together."""
    groups: list[list[int]] = []
    for text in sorted(range(len(lengths)), key=lambda text: -lengths[text]):
        if not groups or lengths[text] <= LIKE * lengths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(text)
    return groups
