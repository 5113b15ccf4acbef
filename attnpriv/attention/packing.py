"""Texts laid end to end: every layer but attention itself works on tokens, and none on padding.

Shapes: B texts, N tokens of all of them and the filling, b texts of a group with n tokens, t of
them in the longest, W any width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attnpriv.errors import InputError

# N is filled up to a multiple of this, since kernels for half precision take time and memory to
# make for every new shape.
TOKENS = 8
# A text joins the attention of others where it has more than this share of the longest one's
# tokens: a call of its own costs about as much as that padding.
LIKE = 0.5


@dataclass(frozen=True)
class Group:
    """Texts of like length, which attend in one padded call.

    Attributes:
        tokens: where their tokens lie among the N, [n].
        places: where those go among the b·t places of the padded call, [n].
        sources: which token goes to each place, [b, t]: padding repeats the text's first one.
        mask: [b, t], True where a token is; None where all are.
    """

    tokens: Tensor
    places: Tensor
    sources: Tensor
    mask: Tensor | None

    def pad(self, x: Tensor) -> Tensor:
        """The texts' part of x [N, W] as [b, t, W]."""
        return x.index_select(0, self.sources.flatten()).view(*self.sources.shape, -1)

    def unpad(self, padded: Tensor, x: Tensor) -> None:
        """Put the tokens of ``padded`` [b, t, W] to their places in x [N, W]."""
        own = padded.flatten(0, 1).index_select(0, self.places).to(x.dtype)
        x.index_copy_(0, self.tokens, own)


class Packing:
    """Where the tokens of B texts lie when they are laid end to end, in the order given.

    Args:
        lengths: tokens of each text.

    Attributes:
        size: B.
        tokens: how many there are without the filling.
        longest: tokens of the longest text.
        positions: of every token in its text, [N]; 0 for the filling.
        texts: the number of every token's text, [N] without the filling.
        starts: where each text begins, [B].
        groups: the texts by like length.

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
        self.groups = [self._group(texts, counts) for texts in _of_like_length(lengths)]

    def sums(self, x: Tensor) -> Tensor:
        """The sum over each text's tokens, [B, W] for x [N, W]."""
        return x.new_zeros(self.size, x.shape[-1]).index_add_(0, self.texts, x[: self.tokens])

    def _group(self, texts: Sequence[int], counts: Tensor) -> Group:
        chosen, starts = counts[texts, None], self.starts[texts, None]
        positions = torch.arange(int(chosen.max()))
        mask = positions < chosen
        sources = starts + torch.where(mask, positions, 0)
        places = mask.flatten().nonzero().squeeze(1)
        tokens = sources.flatten()[places]
        return Group(tokens, places, sources, None if len(places) == mask.numel() else mask)


def _of_like_length(lengths: Sequence[int]) -> list[list[int]]:
    """The texts' numbers, the longest first; those of a list pad each other little."""
    groups: list[list[int]] = []
    for text in sorted(range(len(lengths)), key=lambda text: -lengths[text]):
        if not groups or lengths[text] <= LIKE * lengths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(text)
    return groups
