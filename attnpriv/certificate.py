"""What the formulas guarantee about a trained model, head by head.

The temperatures are read from the parameters, so that a certificate describes the model at hand and
not the configuration it started from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

from torch import nn

from attnpriv import guarantees
from attnpriv.attention import HardenedAttention
from attnpriv.attention.gates import Gate
from attnpriv.config import require_count
from attnpriv.errors import InputError

LIMITS = (
    "A deterministic forward pass is not differentially private, whatever its certificate.",
    "Each bound holds for one layer alone; layers compose, and their values are not bounded.",
    "Total variation and selection ε hold for two inputs of the same number of keys.",
    "Any key can take the mass, special tokens included.",
    "Arithmetic is taken as exact; what rounding adds is in docs/guarantees.md.",
)


@dataclass(frozen=True)
class HeadCertificate:
    """The bounds of one head, for rows of ``keys`` visible keys.

    A bound is None if it would say nothing, because it is infinite or the logits are unclipped.

    Attributes:
        module: the layer's name inside the model, say ``blocks.0.attention.core``.
        layer: number of the layer, from 0, in the order in which the model registers them; a module
            that several layers share counts once for each.
        head: number of the head, from 0.
        logit_bound: c; None if the logits are unclipped.
        temperature: τ as trained.
        temperature_floor: the least value of τ, whatever the training; None if τ is fixed.
        keys: n.
        sensitive: k.
        largest_weight: largest weight of one key.
        smallest_weight: smallest weight of one key; the only bound from below.
        mass_bound: largest total weight of any k keys.
        lift_bound: largest ratio of that weight to k/n.
        total_variation: largest total variation between two rows, whatever the inputs.
        single_logit_total_variation: the same for two rows that differ in one logit.
        selection_epsilon: ε of drawing one key index from a row.
        selection_rho: ρ of the same draw, as zero-concentrated differential privacy.
        softmax_jacobian: largest spectral norm of the derivative of a row by its clipped logits;
            the only bound that holds without a clip.
    """

    module: str
    layer: int
    head: int
    logit_bound: float | None
    temperature: float
    temperature_floor: float | None
    keys: int
    sensitive: int
    largest_weight: float | None
    smallest_weight: float | None
    mass_bound: float | None
    lift_bound: float | None
    total_variation: float | None
    single_logit_total_variation: float | None
    selection_epsilon: float | None
    selection_rho: float | None
    softmax_jacobian: float | None


def certify(model: nn.Module, keys: int, sensitive: int) -> tuple[HeadCertificate, ...]:
    """Certify every head of every ``HardenedAttention`` inside a model.

    >>> from attnpriv.config import AttentionConfig
    >>> layer = HardenedAttention(AttentionConfig(temperature=2.0, clip=2.0), heads=2, head_dim=8)
    >>> [f"{head.lift_bound:.2f}" for head in certify(layer, keys=32, sensitive=4)]
    ['4.11', '4.11']

    Args:
        model: any module; layers of other kinds are skipped, even if they are attention.
        keys: n, the number of visible keys of a row, special tokens included.
        sensitive: k of these keys, whichever they are.

    Raises:
        InputError: keys < 1, sensitive outside [1, keys], the model has no such layer, or a
            temperature is not finite.

    Claim: each bound of ``attnpriv.guarantees`` for this head as trained, for any input of which a
    row sees n keys. Condition: exact arithmetic; what rounding adds is in docs/guarantees.md.

    Not covered:

    * Differential privacy: a deterministic forward pass has none, whatever its certificate.
    * The network: each bound holds for one layer alone, and layers compose. What bypasses a
      hardened layer, by the residual connection or in other attention, is not bounded.
    * Rows of different lengths: total variation and the ε of selection hold for one n.
    * The values: the certificate bounds how much a key weighs, not what it says.
    * Sinks: the bounds hold for any k keys, so special tokens can take the mass as well as others.
    """
    require_count("keys", keys)
    if not 1 <= sensitive <= keys:
        raise InputError(f"expected sensitive in [1, {keys}], got {sensitive}")
    heads = tuple(
        _certificate(name, layer, head, tau, module, keys, sensitive)
        for layer, (name, module) in enumerate(_hardened_layers(model))
        for head, tau in enumerate(_temperatures(name, module))
    )
    if not heads:
        raise InputError(f"expected a model with hardened attention, got {type(model).__name__}")
    return heads


@dataclass(frozen=True)
class GateCertificate:
    """The bounds of one gate, for ``positions`` that it weighs.

    A bound is None where the logits are unclipped; the ratio also where no float holds it.

    Attributes:
        module: the gate's name inside the model, say ``blocks.0.spatial``.
        kind: ``channel`` or ``spatial``.
        logit_bound: c; None if the logits are unclipped.
        temperature: τ.
        positions: n, channels or positions.
        sensitive: k.
        smallest_gate: no gate is smaller.
        largest_gate: no gate is larger.
        ratio: the largest ratio of two gates.
        lift_bound: the largest ratio of the total of any k gates, as a share of the total of all,
            to k/n.
    """

    module: str
    kind: str
    logit_bound: float | None
    temperature: float
    positions: int
    sensitive: int
    smallest_gate: float | None
    largest_gate: float | None
    ratio: float | None
    lift_bound: float | None


GATE_LIMITS = (
    "Each bound is about the gates: what they multiply is not bounded.",
    "A position of a deep layer sees its neighbours; gates upon gates multiply their ratios.",
    "A deterministic forward pass is not differentially private, whatever its certificate.",
    "Arithmetic is taken as exact; what rounding adds is in docs/guarantees.md.",
)


def certify_gates(
    model: nn.Module, positions: int, sensitive: int, channels: int
) -> tuple[GateCertificate, ...]:
    """Certify every gate of a model, first block first; empty where it has none.

    Args:
        model: any module.
        positions: n of spatial gates.
        sensitive: k of the positions, whichever they are; of channels one is taken.
        channels: n of channel gates.

    Raises:
        InputError: positions < 1, or sensitive outside [1, positions].

    Claim, condition and what is not covered: as ``attnpriv.attention.gates`` says.
    """
    require_count("positions", positions)
    if not 1 <= sensitive <= positions:
        raise InputError(f"expected sensitive in [1, {positions}], got {sensitive}")
    return tuple(
        _gate(name, each, positions, sensitive)
        if each.kind == "spatial"
        else _gate(name, each, channels, 1)
        for name, each in model.named_modules()
        if isinstance(each, Gate)
    )


def _gate(name: str, gate: Gate, positions: int, sensitive: int) -> GateCertificate:
    clip, tau = gate.config.clip, gate.config.temperature
    low = high = ratio = lift = None
    if clip is not None:
        low, high = guarantees.gate_bounds(clip, tau)
        ratio = high / low if low > 0 else None
        lift = guarantees.gate_lift_bound(clip, tau, positions, sensitive)
    return GateCertificate(name, gate.kind, clip, tau, positions, sensitive, low, high, ratio, lift)


def worst_case(certificates: Sequence[HeadCertificate]) -> HeadCertificate:
    """The head that can concentrate most: each of its bounds is the loosest among the heads.

    Not covered: ``softmax_jacobian``, which another head of lower temperature can exceed.
    """

    def ratio(head: HeadCertificate) -> float:
        return math.inf if head.logit_bound is None else head.logit_bound / head.temperature

    return max(certificates, key=ratio)


def _hardened_layers(model: nn.Module) -> Iterator[tuple[str, HardenedAttention]]:
    for name, module in model.named_modules():
        if isinstance(module, HardenedAttention):
            yield from repeat((name, module), module.applications)


def _temperatures(name: str, module: HardenedAttention) -> list[float]:
    temperatures = module.temperatures()
    if not all(map(math.isfinite, temperatures)):
        raise InputError(f"expected finite temperatures in {name!r}, got {temperatures}")
    return temperatures


def _certificate(
    name: str,
    layer: int,
    head: int,
    tau: float,
    module: HardenedAttention,
    keys: int,
    sensitive: int,
) -> HeadCertificate:
    config, c = module.config, module.config.logit_bound

    def unless_vacuous(bound: float) -> float | None:
        return None if config.clip is None else _finite(bound)

    # Under relative one logit that becomes the largest takes others along.
    one_logit = (
        guarantees.total_variation_bound
        if config.clip_mode == "relative"
        else guarantees.single_logit_total_variation_bound
    )
    smallest, largest = guarantees.weight_bounds(c, tau, keys)
    return HeadCertificate(
        module=name,
        layer=layer,
        head=head,
        logit_bound=config.clip,
        temperature=tau,
        temperature_floor=config.temperature_floor,
        keys=keys,
        sensitive=sensitive,
        largest_weight=unless_vacuous(largest),
        smallest_weight=unless_vacuous(smallest),
        mass_bound=unless_vacuous(guarantees.mass_bound(c, tau, keys, sensitive)),
        lift_bound=unless_vacuous(guarantees.lift_bound(c, tau, keys, sensitive)),
        total_variation=unless_vacuous(guarantees.total_variation_bound(c, tau)),
        single_logit_total_variation=unless_vacuous(one_logit(c, tau)),
        selection_epsilon=unless_vacuous(guarantees.selection_epsilon(c, tau, keys)),
        selection_rho=unless_vacuous(guarantees.selection_rho(c, tau)),
        softmax_jacobian=_finite(guarantees.softmax_jacobian_bound(c, tau, keys)),
    )


def _finite(bound: float) -> float | None:
    return bound if math.isfinite(bound) else None
