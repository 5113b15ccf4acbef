"""What attacks on embeddings raise: losses of the answer, and attention on some positions.

Shapes: B batch, T positions, D model width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from attnpriv.audit.robustness.autopgd import Reached
from attnpriv.audit.robustness.batches import Answer
from attnpriv.modality import AttentionModel
from attnpriv.tasks import CLASSIFY

Loss = Callable[[Tensor, Tensor], Tensor]
"""Class logits [B, K] and labels [B] to what an attack raises, [B]."""
PENALTY = 10.0  # of an answer on the wrong side, in the units of the attention's own value


def margin(outputs: Tensor, labels: Tensor) -> Tensor:
    """By how much the largest other class logit exceeds the label's, [B]."""
    own = outputs.gather(1, labels[:, None])
    others = outputs.masked_fill(torch.zeros_like(outputs).scatter(1, labels[:, None], 1) > 0, -1e9)
    return others.amax(1) - own.squeeze(1)


def dlr(outputs: Tensor, labels: Tensor) -> Tensor:
    """The margin over the distance of the first and the third class logit, [B].

    A factor on all logits does not change it, so that no temperature hides its gradient. It needs
    three classes: with two there is no third logit, and of the second the ratio would be ±1
    everywhere, with a gradient of 0.

    Source: Croce and Hein 2020 (arXiv:2003.01690), equation 6.
    """
    top = outputs.topk(3, dim=1).values
    return margin(outputs, labels) / (top[:, 0] - top[:, 2] + 1e-12)


def losses(classes: int) -> tuple[Loss, ...]:
    """Those that attacks raise, one after the other.

    With two classes this is the margin alone. DLR is not defined there, and cross-entropy is an
    increasing function of the margin: its gradient has the same direction, and underflows besides.
    """
    return (margin,) if classes == 2 else (CLASSIFY.losses, dlr)


@dataclass(frozen=True)
class WrongAnswer:
    """A goal: any answer but the label.

    Attributes:
        answer: of the model.
        mask: [B, T].
        labels: [B].
        losses: what is raised.
        which: of these in each row, by its number, [B].
    """

    answer: Answer
    mask: Tensor
    labels: Tensor
    losses: tuple[Loss, ...]
    which: Tensor

    def __call__(self, x: Tensor) -> Reached:
        """The loss of embeddings x [B, T, D], and whether their answers are wrong."""
        outputs = self.answer(x, self.mask)
        values = torch.stack([loss(outputs, self.labels) for loss in self.losses])
        own = values.gather(0, self.which[None]).squeeze(0)
        return Reached(own, ~CLASSIFY.correct(outputs, self.labels))


def mass(maps: list[Tensor], mask: Tensor, marked: Tensor) -> Tensor:
    """The attention on marked positions, mean over layers, heads and visible queries, [B].

    Args:
        maps: of each layer, [B, H, T, T].
        mask: [B, T].
        marked: True at the positions, [B, T].
    """
    on = torch.stack([(each * marked[:, None, None]).sum(-1).mean(1) for each in maps]).mean(0)
    return (on * mask).sum(1) / mask.sum(1)


@dataclass(frozen=True)
class MovedAttention:
    """A goal: attention onto marked positions or off them, while an answer is kept or turned.

    The value is the mass on them by its measure on the unmoved input, with a penalty in proportion
    to how far the answer is on the wrong side.

    Attributes:
        model: in eval mode.
        mask: [B, T].
        marked: [B, T].
        labels: the answers to the unmoved inputs, [B].
        sign: 1 to raise the mass, -1 to lower it, [B].
        turned: whether another answer is sought, [B].
        clean: the mass on unmoved inputs, [B].
        scale: the distance of the class logits there, [B].
    """

    model: AttentionModel
    mask: Tensor
    marked: Tensor
    labels: Tensor
    sign: Tensor
    turned: Tensor
    clean: Tensor
    scale: Tensor

    def __call__(self, x: Tensor) -> Reached:
        """The attention of embeddings x [B, T, D], and whether the answer is as it is sought."""
        passed = self.model.run(x, self.mask, need_maps=True)
        on = mass(passed.self_attention(), self.mask, self.marked)
        beyond = margin(passed.outputs, self.labels) / self.scale
        wrong_side = torch.where(self.turned, -beyond, beyond).clamp(min=0)
        values = self.sign * on / self.clean - PENALTY * wrong_side
        right = CLASSIFY.correct(passed.outputs, self.labels)
        return Reached(values, right != self.turned)
