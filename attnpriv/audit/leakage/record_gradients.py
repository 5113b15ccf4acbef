"""What the gradient of a single record tells of it: the worst case of reading texts.

Nobody sees gradients where a run is trained on one machine. Whoever does see them, as in federated
training, reads tokens from them without learning anything first: a row of the gradient of the word
vectors is 0 unless the text holds its token. Where only the head is trained, its gradient is the
pooled vector times a number, so that what can be read from vectors can be read from it.

Claim: none about privacy. The noised gradient is what a step of a private run would hold if this
record were the only one in its batch: clipped, with the run's noise. Not covered: attackers who use
several steps, and gradients of several records, which hide each other in part.

Source: Melis, Song, De Cristofaro and Shmatikov 2019 (arXiv:1805.04049), section 4.1.

Shapes: V tokens of the vocabulary, D width, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from attnpriv.audit.statistics import Floats
from attnpriv.modality import Inputs
from attnpriv.models.classifier import AttentionClassifier

WORDS = "words.weight"
HEAD = ("head.weight", "head.bias")


@dataclass(frozen=True)
class Seen:
    """What the gradient of one record shows.

    Attributes:
        rows: length of the gradient of each word vector, [V]; None where these are not trained.
        vector: the pooled vector as the gradient of the head shows it, [F].
    """

    rows: Floats | None
    vector: Floats


def gradient_of(
    model: AttentionClassifier, inputs: Inputs, label: int, *, whole: bool
) -> dict[str, Tensor]:
    """The gradient of one record's loss, by the names of weights.

    Args:
        model: in eval mode.
        inputs: one record.
        label: its class.
        whole: of all weights; else of the head alone.
    """
    weights = {
        name: weight.detach().requires_grad_()
        for name, weight in model.named_parameters()
        if whole or name in HEAD
    }
    outputs = functional_call(model, weights, (inputs.values, inputs.mask))
    loss = cross_entropy(outputs, torch.tensor([label]))
    found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    return {
        name: torch.zeros_like(weight) if own is None else own
        for (name, weight), own in zip(weights.items(), found, strict=True)
    }


def noised(
    gradient: dict[str, Tensor], max_grad_norm: float, noise_multiplier: float, seed: Sequence[int]
) -> dict[str, Tensor]:
    """The gradient clipped as a whole, with the noise of a step on what is read of it.

    The noise is drawn from a seed, so that an audit can be repeated: no training draws it so.

    Args:
        gradient: of one record.
        max_grad_norm: C, the L2 norm to which it is clipped.
        noise_multiplier: σ; the noise has the standard deviation σC.
        seed: of the noise.
    """
    norm = float(torch.stack([own.square().sum() for own in gradient.values()]).sum().sqrt())
    scale, deviation = min(1.0, max_grad_norm / max(norm, 1e-12)), max_grad_norm * noise_multiplier
    generator = torch.Generator().manual_seed(int(np.random.default_rng(seed).integers(2**62)))
    return {
        name: own * scale + deviation * torch.randn(own.shape, generator=generator)
        for name, own in gradient.items()
        if name in (WORDS, *HEAD)
    }


def read(gradient: dict[str, Tensor], added: NDArray[np.int64]) -> Seen:
    """What a gradient shows of its record.

    Args:
        gradient: of one record.
        added: tokens that the model added to the text, which nobody has to guess.
    """
    weight, bias = (gradient[name].double() for name in HEAD)
    vector = bias @ weight / bias.square().sum().clamp(min=1e-30)  # least squares over the classes
    if WORDS not in gradient:
        return Seen(None, np.asarray(vector.numpy()))
    rows = gradient[WORDS].norm(dim=1).double().numpy()
    rows[added] = -1.0
    return Seen(np.asarray(rows), np.asarray(vector.numpy()))
