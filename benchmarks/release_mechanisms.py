"""Which private mechanisms beat the answer from the redacted text, which costs nothing.

Synthetic answers to a text with hidden tokens: the weights of a row over 32 keys of which 4 are
hidden, and the probabilities of 2 or 5 labels, each computed from the redacted text and from the
whole. ``names`` is the chance that the released answer is the top one of the whole text's answer;
``distance`` is the mean total variation between the chances of a drawn answer and the whole text's
answer. Chances are computed, not drawn, except for noise on a whole row. All ε but those marked
``any`` are for other hidden values in the same redacted text.

Only the mechanisms of ``attnpriv.release`` are in the library; the others are here to be compared.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from attnpriv import guarantees
from attnpriv.release import BoundedDraw, RandomisedResponse
from attnpriv.release.cost import MICRO

Array = NDArray[np.float64]

KEYS, HIDDEN = 32, 4
C = TAU = 2.0
EPSILONS = (0.5, 1.0, 3.0)
DELTA = 1e-5  # of Gaussian noise alone
SUBSTITUTES = 16


@dataclass(frozen=True)
class Answers:
    """Answers to many texts: [texts, outcomes] each.

    Attributes:
        redacted: from the redacted text.
        whole: from the whole text.
        substitutes: [16, texts, outcomes], from the text with values of the public in place of the
            hidden ones, where the private ones are no different in kind.
        row: whether it is the row of a first layer, for which the formulas on rows hold.
    """

    redacted: Array
    whole: Array
    substitutes: Array
    row: bool

    @property
    def top(self) -> NDArray[np.int64]:
        """The outcome that the whole text puts on top, [texts]."""
        return self.whole.argmax(1)

    @property
    def prior(self) -> Array:
        """How often each outcome was on top, in the redacted answer and with the substitutes."""
        tops = np.eye(self.whole.shape[1])[[self.redacted.argmax(1), *self.substitutes.argmax(2)]]
        prior: Array = tops.sum(0)
        return prior


def main() -> None:
    """Compare all mechanisms in every case; print a line for each and JSON at the end."""
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.release_mechanisms")
    parser.add_argument("--texts", type=int, default=1000, help="texts of each case")
    texts = parser.parse_args().texts
    rows = []
    for case, made in cases(texts).items():
        for epsilon in EPSILONS:
            names, distance = named(made, epsilon), distances(made, epsilon)
            rows.append({"case": case, "epsilon": epsilon, "names": names, "distance": distance})
            print(rows[-1], flush=True)
    result = {"benchmark": "release_mechanisms", "device": f"cpu {platform.processor()}".strip()}
    print(json.dumps({**result, "texts": texts, "rows": rows}))


def cases(texts: int) -> dict[str, Answers]:
    """Rows in which hidden keys draw more or less attention, and labels that they move."""
    made = {}
    for drawn in (0.0, 1.0, 2.0):
        made[f"row, hidden logits N({drawn:g}, 1)"] = attention(texts, drawn, 0.0)
    made["row of a later layer, hidden logits N(1, 1)"] = attention(texts, 1.0, 0.5)
    for labels in (2, 5):
        for moved in (0.5, 2.0):
            made[f"{labels} labels, logits moved by N(0, {moved:g}²)"] = classes(
                texts, labels, moved
            )
    return made


def attention(texts: int, drawn: float, drift: float) -> Answers:
    """Rows; in later layers (``drift``) the hidden values move the other logits too."""
    rng = np.random.default_rng(0)
    shown = rng.normal(size=(texts, KEYS))

    def with_values() -> Array:
        logits = shown.copy()
        logits[:, :HIDDEN] = rng.normal(drawn, 1.0, (texts, HIDDEN))
        return hardened(logits + drift * rng.normal(size=logits.shape))

    masked = shown.copy()
    masked[:, :HIDDEN] = rng.normal(0.0, 0.3, (texts, HIDDEN))  # a mask token at four positions
    substitutes = np.stack([with_values() for _ in range(SUBSTITUTES)])
    return Answers(hardened(masked), with_values(), substitutes, row=not drift)


def classes(texts: int, labels: int, moved: float) -> Answers:
    """Probabilities of labels, whose logits the hidden values move by a standard deviation."""
    rng = np.random.default_rng(0)
    shown = rng.normal(0.0, 2.0, (texts, labels))

    def with_values() -> Array:
        return softmax(shown + moved * rng.normal(size=shown.shape))

    substitutes = np.stack([with_values() for _ in range(SUBSTITUTES)])
    return Answers(softmax(shown), with_values(), substitutes, row=False)


def hardened(logits: Array) -> Array:
    """Rows [texts, keys] under the clip ``tanh``, which leaves no two keys at the same weight."""
    return softmax(C * np.tanh(logits / C) / TAU)


def softmax(logits: Array) -> Array:
    """Shares [texts, outcomes]."""
    powers = np.exp(logits)
    shares: Array = powers / powers.sum(1, keepdims=True)
    return shares


def named(made: Answers, epsilon: float) -> dict[str, float]:
    """How often each mechanism names the top outcome of the whole text's answer."""
    best = np.eye(made.whole.shape[1])[made.top]
    found = {
        "redacted, free": float((made.redacted.argmax(1) == made.top).mean()),
        "substitutes, free": float((made.prior.argmax(1) == made.top).mean()),
        "response, prior of substitutes": chance(made, respond(made, made.prior, epsilon)),
        "response, redacted as prior": chance(made, respond(made, made.redacted, epsilon)),
        "response, equal priors (any)": chance(made, respond(made, np.ones_like(best), epsilon)),
        "bounded draw": chance(made, bounded(made, made.whole, epsilon)),
        "mixture": chance(made, mixture(made.redacted, made.whole, epsilon)),
        "mixture with the top alone": chance(made, mixture(made.redacted, best, epsilon)),
    }
    if made.row:
        found |= {
            "key from the row": chance(made, key_draw(made.whole, epsilon)),
            "peeling on weights (any)": chance(made, peeled(made.whole, epsilon)),
            "Laplace row": noised(made, "laplace", laplace_scale(epsilon)),
            "Gaussian row": noised(made, "normal", gaussian_scale(epsilon)),
        }
    return {name: round(value, 4) for name, value in found.items()}


def distances(made: Answers, epsilon: float) -> dict[str, float]:
    """How far the chances of a drawn outcome are from what the whole text's answer gives it."""
    found = {
        "redacted, free": made.redacted,
        "bounded draw": bounded(made, made.whole, epsilon),
        "mixture": mixture(made.redacted, made.whole, epsilon),
    }
    if made.row:
        found["key from the row"] = key_draw(made.whole, epsilon, sharpest=1.0)
    return {
        name: round(float(np.abs(chances - made.whole).sum(1).mean() / 2), 4)
        for name, chances in found.items()
    }


def chance(made: Answers, chances: Array) -> float:
    """The mean chance of the right outcome."""
    return float(np.take_along_axis(chances, made.top[:, None], 1).mean())


def shares(weights: list[int]) -> Array:
    """Whole numbers as chances."""
    return np.array([weight / sum(weights) for weight in weights])


def respond(made: Answers, priors: Array, epsilon: float) -> Array:
    """Chances under randomised response."""
    return np.stack(
        [
            shares(RandomisedResponse(prior, round(epsilon * MICRO)).weights(int(top)))
            for prior, top in zip(priors, made.top, strict=True)
        ]
    )


def bounded(made: Answers, whole: Array, epsilon: float) -> Array:
    """Chances of the bounded draw."""
    return np.stack(
        [
            shares(BoundedDraw(redacted, round(epsilon * MICRO)).weights(scores))
            for redacted, scores in zip(made.redacted, whole, strict=True)
        ]
    )


def mixture(redacted: Array, whole: Array, epsilon: float) -> Array:
    """``λ·whole + (1-λ)·redacted``, λ as large as chances within e^(±ε/2) of redacted allow."""
    ratios = whole / redacted
    with np.errstate(divide="ignore"):
        above = np.expm1(epsilon / 2) / np.maximum(ratios.max(1) - 1, 0)
        below = -np.expm1(-epsilon / 2) / np.maximum(1 - ratios.min(1), 0)
    share = np.minimum(1.0, np.minimum(above, below))[:, None]
    mixed: Array = share * whole + (1 - share) * redacted
    return mixed


def key_draw(whole: Array, epsilon: float, sharpest: float = math.inf) -> Array:
    """One key drawn from the first layer's row, at another temperature for the sake of ε."""

    def excess(power: float) -> float:
        return guarantees.span_selection_epsilon(power * C, TAU, KEYS, HIDDEN) - epsilon

    powers = whole ** min(sharpest, brentq(excess, 1e-6, 1e3))
    chances: Array = powers / powers.sum(1, keepdims=True)
    return chances


def peeled(whole: Array, epsilon: float) -> Array:
    """The exponential mechanism on weights, whose range is known from the certificate."""
    smallest, largest = guarantees.weight_bounds(C, TAU, KEYS)
    powers = np.exp(epsilon * whole / (2 * (largest - smallest)))
    chances: Array = powers / powers.sum(1, keepdims=True)
    return chances


def laplace_scale(epsilon: float) -> float:
    """For pure ε and the L1 distance of two rows of which the hidden logits change."""
    return 2 * guarantees.span_total_variation_bound(C, TAU, KEYS, HIDDEN) / epsilon


def gaussian_scale(epsilon: float) -> float:
    """For (ε, δ) by way of zCDP, ``ε = ρ + 2√(ρ ln(1/δ))``; any change, sensitivity √((a-1)/2n)."""
    logarithm = math.log(1 / DELTA)
    rho = (math.sqrt(logarithm + epsilon) - math.sqrt(logarithm)) ** 2
    return math.sqrt((math.exp(2 * C / TAU) - 1) / (2 * KEYS)) / math.sqrt(2 * rho)


def noised(made: Answers, kind: str, scale: float) -> float:
    """How often the largest entry of a noised row is the right one: drawn, ten times a row."""
    rng = np.random.default_rng(0)
    noise = getattr(rng, kind)(0.0, scale, (10, *made.whole.shape))
    return float(((made.whole + noise).argmax(2) == made.top).mean())


if __name__ == "__main__":
    main()
