"""How many edits of a text cannot change the answer of a model that reads tokens one by one.

Shapes: V vocabulary, K classes, D width, H heads, n tokens of a text.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attnpriv import guarantees
from attnpriv.attention.scores import clipped_logits
from attnpriv.data.tokenisation import Encoding
from attnpriv.errors import InputError
from attnpriv.models.words import QueryPooling, WordsClassifier

Floats = NDArray[np.float64]
Radius = Callable[[list[float], float, float], int]
"""Contributions of a text's tokens, the least of the vocabulary, and what is fixed, to edits."""
FLOAT32 = 2.0**-24  # the largest relative error of one rounding
WIDEST = 600  # between two exponents, so that neither weight leaves the range of a float
OPERATIONS = 64  # more roundings than any number sees besides the sums over D and n
HALVINGS = 20  # of the range in which a threshold is looked for
EXPONENTIALS = 64  # of these, in units of the last place: what two exponentials may be off by


@dataclass(frozen=True)
class EditRadii:
    """The numbers of edits that a text's answer withstands, whatever they are.

    Where it says exact, that is for one head. With several, each number is a lower bound.

    Attributes:
        label: the class that is answered.
        substitutions: of tokens by any others of the vocabulary; exact.
        deletions: of tokens; exact unless the text fills the model's length.
        insertions: of tokens of the vocabulary, anywhere; exact as long as they find room.
        edits: any mixture of these; exact as long as there is room.
        filled: whether the text fills the model's length, and so may have been cut: then each
            number is about the whole text, and those of deletions and insertions are lower bounds.
    """

    label: int
    substitutions: int
    deletions: int
    insertions: int
    edits: int
    filled: bool


class EditCertifier:
    """The radii of texts under one model, from what each token of its vocabulary contributes.

    Claim: the answer of the model in float32 is the same for every text within a radius of this
    one, where a text is a sequence of tokens. Radii are exact, as ``EditRadii`` says, up to what
    rounding can hide: margins within ``slack`` of a tie count as changed. With several heads, each
    has its own worst tokens, and the margin is no smaller than the sum of what is left in each: a
    radius then holds, and the true one may be larger.
    Condition: the weights stay as they were when this object was made. The vocabulary is every row
    of the model's table, whose superfluous rows are the unknown token's.
    Not covered: what a character changes. One changed word may be several tokens, which are then
    exchanged, dropped or added as many times. Nor whether a text within the radius means the same,
    or whether the answer was right.
    Source: ``guarantees.substitution_radius`` and its companions.

    Raises:
        InputError: without a clip, attention weights may differ too much for a float.

    Attributes:
        slack: how far rounding in float32 can move a difference of two class logits.
        heads: H.
    """

    def __init__(self, model: WordsClassifier) -> None:
        self._room = model.config.max_length
        exponents = _exponents(model)
        widest = np.ptp(exponents, axis=0).max()
        if not widest <= WIDEST:
            raise InputError(
                f"expected logits within {WIDEST} of each other, got {widest:g}: a clip keeps them "
                "close"
            )
        self.slack = _slack(model)
        self.heads = exponents.shape[1]
        self._weights = np.exp(exponents - exponents.max(0))
        self._classes = _class_logits(model)
        labels = range(self._classes.shape[2])
        # Of the first head: where it is the only one, its threshold is always the same.
        self._least = [self._contributions(k, 0, self.slack).min(0) for k in labels]

    def radii(self, encoding: Encoding) -> EditRadii:
        """All radii of one tokenised text; for each the smallest over the other classes."""
        label, filled = self._label(encoding), encoding.size >= self._room
        room = self._room - encoding.size

        def of_edits(u: list[float], least: float, fixed: float) -> int:
            return guarantees.edit_radius(u, least, self._room, fixed)

        def of_deletions(u: list[float], least: float, fixed: float) -> int:
            return guarantees.deletion_radius(u, fixed)

        def of_insertions(u: list[float], least: float, fixed: float) -> int:
            return guarantees.insertion_radius(u, least, room, fixed)

        edits = self._smallest(encoding, label, of_edits)
        deletions = edits if filled else self._smallest(encoding, label, of_deletions)
        # Beyond the room insertions push tokens out, which the mixture allows for.
        insertions = max(edits, self._smallest(encoding, label, of_insertions))
        return EditRadii(
            label, self._substitutions(encoding, label), deletions, insertions, edits, filled
        )

    def substitutions(self, encoding: Encoding) -> int:
        """``EditRadii.substitutions`` alone."""
        return self._substitutions(encoding, self._label(encoding))

    def worst_substitutions(self, encoding: Encoding, count: int) -> list[Encoding]:
        """For each other class, the ``count`` substitutions that help it most.

        The tokens that speak most against it become the one that speaks most for it.
        """
        label = self._label(encoding)
        ids, inner = np.array(encoding.ids), _inner(encoding)
        helps = self._help(label, ids)
        contributed, worst = helps[ids], helps.argmin(0)
        found = []
        for other in self._others(label):
            strongest = inner[np.argsort(-contributed[inner, other], kind="stable")[:count]]
            changed = ids.copy()
            changed[strongest] = worst[other]
            found.append(Encoding(tuple(changed.tolist()), encoding.places))
        return found

    def _help(self, label: int, ids: NDArray[np.int64]) -> Floats:
        """What each token adds to the margin of a class, weighed as in a text, [V, K]."""
        share = self.slack / self.heads
        parts = [
            self._contributions(label, head, share) / self._weights[ids, head].sum()
            for head in range(self.heads)
        ]
        helps: Floats = np.sum(parts, axis=0)
        return helps

    def margin(self, encoding: Encoding, label: int) -> float:
        """By how much a class logit exceeds the largest other one, in float64."""
        logits = self._logits(encoding)
        return float(logits[label] - np.delete(logits, label).max())

    def _substitutions(self, encoding: Encoding, label: int) -> int:
        return self._smallest(encoding, label, guarantees.substitution_radius)

    def _smallest(self, encoding: Encoding, label: int, radius: Radius) -> int:
        find = self._exact if self.heads == 1 else self._lower
        return min(find(encoding, label, other, radius) for other in self._others(label))

    def _exact(self, encoding: Encoding, label: int, other: int, radius: Radius) -> int:
        least = float(self._least[label][other])
        return self._of_head(encoding, label, other, radius, 0, self.slack, least)

    def _lower(self, encoding: Encoding, label: int, other: int, radius: Radius) -> int:
        """The most edits after which what is left of the margin in all heads exceeds the slack.

        Whatever thresholds are found, they sum to the slack, and each head stays above its own.
        """
        number = 0
        while True:
            left = [
                self._threshold(encoding, label, other, radius, head, number + 1)
                for head in range(self.heads)
            ]
            spare = (math.fsum(left) - self.slack) / self.heads
            if not spare > 0:
                return number
            held = min(
                self._of_head(encoding, label, other, radius, head, each - spare)
                for head, each in enumerate(left)
            )
            if held <= number:
                return number
            number = held

    def _threshold(
        self, encoding: Encoding, label: int, other: int, radius: Radius, head: int, edits: int
    ) -> float:
        """About the largest threshold that a head's part of the margin stays above.

        No edits bring a weighted mean out of the range of what the vocabulary gives. -∞ where the
        text withstands no more edits of this kind, since there are no more.
        """
        parts = self._ahead(label, head)[:, other]
        low, high = float(parts.min()) - self.slack, float(parts.max())
        if self._of_head(encoding, label, other, radius, head, low) < edits:
            return -math.inf
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            if self._of_head(encoding, label, other, radius, head, middle) >= edits:
                low = middle
            else:
                high = middle
        return low

    def _of_head(
        self,
        encoding: Encoding,
        label: int,
        other: int,
        radius: Radius,
        head: int,
        threshold: float,
        least: float | None = None,
    ) -> int:
        """The edits after which one head's part of the margin still exceeds a threshold."""
        ids, inner = np.array(encoding.ids), _inner(encoding)
        contributed = self._contributions(label, head, threshold, ids)[:, other]
        if least is None:
            least = float(self._contributions(label, head, threshold)[:, other].min())
        added = np.delete(np.arange(len(ids)), inner)
        return radius(contributed[inner].tolist(), least, math.fsum(contributed[added]))

    def _others(self, label: int) -> list[int]:
        return [other for other in range(self._classes.shape[2]) if other != label]

    def _ahead(self, label: int, head: int, ids: slice | NDArray[np.int64] = slice(None)) -> Floats:
        """By how much each token alone puts a class ahead of each other one in a head, [n, K]."""
        classes = self._classes[ids, head]
        ahead: Floats = classes[:, label, None] - classes
        return ahead

    def _contributions(
        self,
        label: int,
        head: int,
        threshold: float,
        ids: slice | NDArray[np.int64] = slice(None),
    ) -> Floats:
        """Of tokens to a head's part of the margin, above a threshold, [n, K]."""
        ahead = self._ahead(label, head, ids) - threshold
        contributed: Floats = self._weights[ids, head, None] * ahead
        return contributed

    def _label(self, encoding: Encoding) -> int:
        return int(self._logits(encoding).argmax())

    def _logits(self, encoding: Encoding) -> Floats:
        ids = np.array(encoding.ids)
        weights = self._weights[ids] / self._weights[ids].sum(0)
        logits: Floats = np.einsum("nh,nhk->k", weights, self._classes[ids])
        return logits


def _inner(encoding: Encoding) -> NDArray[np.int64]:
    """The positions of tokens of the text; the model added the others."""
    return np.array([i for i, place in enumerate(encoding.places) if place], dtype=np.int64)


def _pooling(model: WordsClassifier) -> tuple[Tensor, Tensor, QueryPooling]:
    """The queries, [H, 1, D/H] times √(D/H), temperatures [H], and the pooling, in float64."""
    pooling = model.blocks[0]
    assert isinstance(pooling, QueryPooling)
    query = pooling.query.weight.double()
    temperatures = torch.tensor(pooling.core.temperatures(), dtype=torch.float64)
    return query * math.sqrt(query.shape[-1]), temperatures, pooling


@torch.no_grad()
def _exponents(model: WordsClassifier) -> Floats:
    """The clipped logit of each token in each head over its temperature, [V, H]."""
    query, temperatures, pooling = _pooling(model)
    keys = _by_head(model.words.weight.double(), len(query)).transpose(0, 1)[None]
    logits = clipped_logits(query[None], keys, None, None, pooling.core.config)
    exponents: Floats = (logits[0, :, 0].T / temperatures).numpy()
    return exponents


def _by_head(rows: Tensor, heads: int) -> Tensor:
    """[n, D] to [n, H, D/H]."""
    return rows.view(len(rows), heads, -1)


@torch.no_grad()
def _class_logits(model: WordsClassifier) -> Floats:
    """What each token alone would be answered, by the part of each head, [V, H, K]."""
    head, heads = model.head, model.config.heads
    words, rows = (_by_head(each.double(), heads) for each in (model.words.weight, head.weight))
    logits: Floats = (
        torch.einsum("vhd,khd->vhk", words, rows) + head.bias.double() / heads
    ).numpy()
    return logits


@torch.no_grad()
def _slack(model: WordsClassifier) -> float:
    """More than rounding in float32 moves a difference of two class logits.

    A sum of D products is off by at most D roundings of the product of the norms. So a logit of
    attention is, and with it the exponent; a weight is off by the error of two exponents and of a
    sum of n; the pooled vector by that share of the largest norm, and by a sum of n; and a class
    logit by that times its norm, and by another sum of D. Clips are 1-Lipschitz. With several
    heads, the largest of their errors counts, and their norms add up.
    """
    query, temperatures, _ = _pooling(model)
    length, dim, heads = model.config.max_length, model.config.dim, len(query)
    norms = _by_head(model.words.weight.double(), heads).norm(dim=2).max(0).values
    logits = query.flatten(1).norm(dim=1) / math.sqrt(query.shape[-1]) * norms
    exponent = (dim + OPERATIONS) * FLOAT32 * float((logits / temperatures).max())
    weight = math.expm1(2 * exponent + (length + OPERATIONS + EXPONENTIALS) * FLOAT32)
    rows = _by_head(model.head.weight.double(), heads).norm(dim=2) @ norms
    size = 2 * float((rows + model.head.bias.double().abs()).max())
    return size * (weight + (dim + length + OPERATIONS) * FLOAT32)
