"""How many edits of a text cannot change the answer of a model that reads tokens one by one.

Shapes: V vocabulary, K classes, D width, n tokens of a text.
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
FLOAT32 = 2.0**-24  # the largest relative error of one rounding
WIDEST = 600  # between two exponents, so that neither weight leaves the range of a float
OPERATIONS = 64  # more roundings than any number sees besides the sums over D and n
EXPONENTIALS = 64  # of these, in units of the last place: what two exponentials may be off by


@dataclass(frozen=True)
class EditRadii:
    """The numbers of edits that a text's answer withstands, whatever they are.

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
    rounding can hide: margins within ``slack`` of a tie count as changed.
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
    """

    def __init__(self, model: WordsClassifier) -> None:
        self._room = model.config.max_length
        exponents, classes = _exponents(model), _class_logits(model)
        if not np.ptp(exponents) <= WIDEST:
            raise InputError(
                f"expected logits within {WIDEST} of each other, got {np.ptp(exponents):g}: a clip "
                "keeps them close"
            )
        self.slack = _slack(model, classes)
        self._weights = np.exp(exponents - exponents.max())
        self._classes = classes
        self._least = np.stack([self._contributions(k).min(0) for k in range(classes.shape[1])])

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
        contributed = self._contributions(label, ids)
        worst = self._contributions(label).argmin(0)
        found = []
        for other in self._others(label):
            strongest = inner[np.argsort(-contributed[inner, other], kind="stable")[:count]]
            changed = ids.copy()
            changed[strongest] = worst[other]
            found.append(Encoding(tuple(changed.tolist()), encoding.places))
        return found

    def margin(self, encoding: Encoding, label: int) -> float:
        """By how much a class logit exceeds the largest other one, in float64."""
        logits = self._logits(encoding)
        return float(logits[label] - np.delete(logits, label).max())

    def _substitutions(self, encoding: Encoding, label: int) -> int:
        return self._smallest(encoding, label, guarantees.substitution_radius)

    def _smallest(
        self, encoding: Encoding, label: int, radius: Callable[[list[float], float, float], int]
    ) -> int:
        ids = np.array(encoding.ids)
        contributed = self._contributions(label, ids)
        inner = _inner(encoding)
        added = np.delete(np.arange(len(ids)), inner)
        return min(
            radius(
                contributed[inner, other].tolist(),
                float(self._least[label, other]),
                math.fsum(contributed[added, other]),
            )
            for other in self._others(label)
        )

    def _others(self, label: int) -> list[int]:
        return [other for other in range(self._classes.shape[1]) if other != label]

    def _contributions(self, label: int, ids: slice | NDArray[np.int64] = slice(None)) -> Floats:
        """Of tokens to the margin of a class over each other one, above the slack, [n, K]."""
        classes = self._classes[ids]
        ahead = classes[:, label, None] - classes - self.slack
        contributed: Floats = self._weights[ids, None] * ahead
        return contributed

    def _label(self, encoding: Encoding) -> int:
        return int(self._logits(encoding).argmax())

    def _logits(self, encoding: Encoding) -> Floats:
        ids = np.array(encoding.ids)
        weights = self._weights[ids]
        logits: Floats = weights @ self._classes[ids] / weights.sum()
        return logits


def _inner(encoding: Encoding) -> NDArray[np.int64]:
    """The positions of tokens of the text; the model added the others."""
    return np.array([i for i, place in enumerate(encoding.places) if place], dtype=np.int64)


def _pooling(model: WordsClassifier) -> tuple[Tensor, float, QueryPooling]:
    """The query, times √D, its temperature, and the pooling, in float64."""
    pooling = model.blocks[0]
    assert isinstance(pooling, QueryPooling)
    query = pooling.query.weight.double() * math.sqrt(model.config.dim)
    return query, pooling.core.temperatures()[0], pooling


@torch.no_grad()
def _exponents(model: WordsClassifier) -> Floats:
    """The clipped logit of each token over the temperature, [V]."""
    query, temperature, pooling = _pooling(model)
    keys = model.words.weight.double()[None, None]
    logits = clipped_logits(query[None], keys, None, None, pooling.core.config)
    exponents: Floats = (logits.flatten() / temperature).numpy()
    return exponents


@torch.no_grad()
def _class_logits(model: WordsClassifier) -> Floats:
    """What each token alone would be answered, [V, K]."""
    head = model.head
    logits: Floats = (
        model.words.weight.double() @ head.weight.double().T + head.bias.double()
    ).numpy()
    return logits


@torch.no_grad()
def _slack(model: WordsClassifier, classes: Floats) -> float:
    """More than rounding in float32 moves a difference of two class logits.

    A sum of D products is off by at most D roundings of the product of the norms. So a logit of
    attention is, and with it the exponent; a weight is off by the error of two exponents and of a
    sum of n; the pooled vector by that share of the largest norm, and by a sum of n; and a class
    logit by that times its norm, and by another sum of D. Clips are 1-Lipschitz.
    """
    query, temperature, _ = _pooling(model)
    length, dim = model.config.max_length, model.config.dim
    norm = float(model.words.weight.double().norm(dim=1).max())
    logit = float(query.norm()) / math.sqrt(dim) * norm
    exponent = (dim + OPERATIONS) * FLOAT32 * logit / temperature
    weight = math.expm1(2 * exponent + (length + OPERATIONS + EXPONENTIALS) * FLOAT32)
    rows = model.head.weight.double().norm(dim=1)
    size = 2 * float((rows * norm + model.head.bias.double().abs()).max())
    return size * (weight + (dim + length + OPERATIONS) * FLOAT32)
