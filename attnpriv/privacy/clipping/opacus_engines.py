"""Clipped sums of per-record gradients by the engines of Opacus."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from opacus import GradSampleModule
from opacus.grad_sample import (
    GradSampleModuleFastGradientClipping,
    register_grad_sampler,
    register_norm_sampler,
)
from torch import Tensor, nn

from attnpriv.attention import PerRecord
from attnpriv.errors import InputError

Totals = dict[nn.Parameter, Tensor]


@register_grad_sampler(PerRecord)  # type: ignore[untyped-decorator]
def _per_record_gradients(
    layer: PerRecord, activations: list[Tensor], backprops: Tensor
) -> dict[nn.Parameter, Tensor]:
    """Each record used its own copy, so that the gradients by the copies are what is wanted."""
    return {layer.weight: backprops}


@register_norm_sampler(PerRecord)  # type: ignore[untyped-decorator]
def _per_record_norms(
    layer: PerRecord, activations: list[Tensor], backprops: Tensor
) -> dict[nn.Parameter, Tensor]:
    return {layer.weight: backprops.flatten(1).norm(2, dim=1)}


class Hooks:
    """Every per-record gradient written out by hooks, then clipped and summed.

    Claim, arguments and errors as in ``BookKeeping``, for any module that Opacus accepts.
    """

    def __init__(self, module: nn.Module, clip_factors: Callable[[Tensor], Tensor]) -> None:
        try:
            self.module: nn.Module = GradSampleModule(module, loss_reduction="sum")
        except NotImplementedError as error:
            raise InputError(f"the model cannot be trained privately: {error}") from error
        self.skipped_records = 0
        self._clip_factors = clip_factors

    def accumulate(self, losses: Tensor, totals: Totals) -> None:
        """As in ``BookKeeping``."""
        _backward(losses)
        # In float32, whatever autocast made of them: what is measured is what is added.
        samples = {p: _present(self.module, p, p.grad_sample).float() for p in totals}  # type: ignore[attr-defined]
        squared = torch.stack([s.flatten(1).square().sum(1) for s in samples.values()]).sum(0)
        broken = ~squared.isfinite()
        self.skipped_records += int(broken.sum())
        factors = self._clip_factors(squared.sqrt()).masked_fill(broken, 0.0)
        for parameter, sample in samples.items():
            sample[broken] = 0.0
            totals[parameter] += torch.einsum("r,r...->...", factors, sample)
        _forget_gradients(totals)

    def close(self) -> None:
        """Take the hooks off, so that the module is an ordinary one again."""
        self.module.to_standard_module()  # type: ignore[operator]


class Ghost:
    """Norms without gradients, then a second backward pass of the losses times their factors.

    Claim, arguments and errors as in ``BookKeeping``. Records whose gradient is not finite cannot
    be dropped: they end the training. So do layers that computed in half precision, in which the
    second pass would not sum what the first one measured.

    Not covered: a parameter that is also used outside its layer, and a record at whose positions
    large gradients cancel out. What such a record adds to the sum can exceed C. In the first case,
    a part of its gradient is not measured. In the second, its norm comes from inner products in
    float32, and the cancelling leaves no correct digit of it.
    """

    skipped_records = 0

    def __init__(self, module: nn.Module, clip_factors: Callable[[Tensor], Tensor]) -> None:
        try:
            self.module: nn.Module = _GhostModule(
                module, loss_reduction="sum", use_ghost_clipping=True
            )
        except NotImplementedError as error:
            raise InputError(f"the model cannot be trained privately: {error}") from error
        self._clip_factors = clip_factors

    def accumulate(self, losses: Tensor, totals: Totals) -> None:
        """As in ``BookKeeping``; raises InputError for a gradient that is not finite."""
        engine: Any = self.module
        _backward(losses, retain_graph=True)
        norms = [_present(self.module, p, getattr(p, "_norm_sample", None)) for p in totals]
        if any(norm.dtype != torch.float32 for norm in norms):
            raise InputError(
                "the clipping engine ghost needs float32 throughout: take book_keeping or hooks"
            )
        factors = self._clip_factors(engine.get_norm_sample().view(-1))
        if factors.shape != losses.shape:
            raise InputError(
                f"expected one loss for each of {len(factors)} rows, got {len(losses)}"
            )
        _forget_gradients(totals)
        engine.disable_hooks()
        _backward(losses * factors)
        engine.enable_hooks()
        for parameter, total in totals.items():
            gradient = _present(self.module, parameter, parameter.grad)
            if not bool(gradient.isfinite().all()):
                raise InputError(
                    "a record's gradient is not finite, and the clipping engine ghost cannot drop "
                    "it: take book_keeping or hooks"
                )
            total += gradient
        _forget_gradients(totals)

    def close(self) -> None:
        """Take the hooks off, so that the module is an ordinary one again."""
        self.module.to_standard_module()  # type: ignore[operator]


class _GhostModule(GradSampleModuleFastGradientClipping):  # type: ignore[misc]
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().forward(*args, **kwargs)
        except NotImplementedError as error:  # a layer or a weight that is used twice
            raise InputError(f"{error}: take the clipping engine book_keeping or hooks") from error


def _backward(losses: Tensor, retain_graph: bool = False) -> None:
    with warnings.catch_warnings():
        # An embedding's inputs are ids; that they have no gradient is no news.
        warnings.filterwarnings("ignore", "Full backward hook is firing")
        losses.sum().backward(retain_graph=retain_graph)  # type: ignore[no-untyped-call]


def _present(module: nn.Module, parameter: nn.Parameter, gradient: Tensor | None) -> Tensor:
    if gradient is None:
        name = next(name for name, p in module.named_parameters() if p is parameter)
        name = name.removeprefix("_module.")
        raise InputError(f"the loss does not depend on the trainable parameter {name}")
    return gradient


def _forget_gradients(totals: Totals) -> None:
    for parameter in totals:
        parameter.grad = None
        parameter.grad_sample = None  # type: ignore[attr-defined]
