"""Clipped sums of per-record gradients from one backward pass.

Every layer with trainable parameters computes with them detached, so that the backward pass makes
no gradient of theirs, and hands the gradient of its output to the books. From that and its input
follow each record's gradients (``layers``), their norms, and, once all norms are known, the sum of
the clipped ones: no second pass. The idea is book-keeping (Bu et al. 2023, arXiv:2210.00038); what
is kept, matrix by matrix, is the cheaper of the inputs and the gradients themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import MethodType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from attnpriv.errors import InputError
from attnpriv.privacy.clipping.gradients import Products, RecordGradients
from attnpriv.privacy.clipping.layers import LAYERS, Layer
from attnpriv.privacy.shards import add_over_processes, is_sharded


class BookKeeping:
    """Sums clipped per-record gradients of a module's trainable parameters.

    Claim: ``accumulate`` adds, for each record, its gradient times the factor that
    ``clip_factors`` gives for its L2 norm over all trainable parameters together. Condition: the
    module computes each row of its output from the same row of its input. Not covered: rounding
    (float32 here; norms are measured on the numbers that are summed, or to 1e-4 where they come
    from inner products).

    Args:
        module: its parameters that require gradients are trained.
        clip_factors: from norms [R] to factors [R].

    Raises:
        InputError: a trainable parameter belongs to a layer whose per-record gradients are not
            known in closed form, or to layers of different kinds.
    """

    def __init__(self, module: nn.Module, clip_factors: Callable[[Tensor], Tensor]) -> None:
        self.module = module
        self.skipped_records = 0
        self._clip_factors = clip_factors
        self._layers = _supported_layers(module)
        self._parameters = {
            parameter: name
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        self._pending: dict[nn.Parameter, RecordGradients] = {}
        self._uses: Counter[nn.Parameter] = Counter()
        self._received: Counter[nn.Parameter] = Counter()
        self._squared_norms: dict[nn.Parameter, Tensor] = {}
        self._memories: dict[nn.Parameter, Tensor] = {}
        self._records = self._rows = 0
        self._sharded = any(map(is_sharded, self._parameters))
        self._leaf = torch.empty(0, requires_grad=True)
        for layer in self._layers:
            layer.forward = self._recording(layer, LAYERS[type(layer)])

    def accumulate(
        self, losses: Tensor, totals: dict[nn.Parameter, Tensor], views: int = 1
    ) -> None:
        """Add the clipped gradients of one micro-batch to the totals in place.

        Where parameters are sharded, all processes do so together, those without records too.

        Args:
            losses: one loss a record, [R], from a forward pass through ``module``.
            totals: for each trainable parameter the sum so far, of what this process holds of it.
            views: rows of the batch that make one record, such as augmented versions of an image
                that stand next to each other; its loss is their mean (De et al. 2022).

        Raises:
            InputError: a layer did not see the records one by one or its input was changed in
                place, a trainable parameter was used outside its layer, or the losses do not depend
                on it.
        """
        if len(losses) == 0 and not self._sharded:
            return
        for parameter in self._parameters:
            parameter.grad = None  # what appears here escaped the books
        self._records, self._rows = len(losses), len(losses) * views  # opens the books
        try:
            with torch.autocast(losses.device.type, enabled=False):  # it would round the norms
                losses.sum().backward()  # type: ignore[no-untyped-call]
                if len(losses):
                    self._require_all_met()
                    factors = self._factors()
                else:
                    factors = losses.detach()
                self._add_clipped(totals, factors)
        finally:
            self._records = self._rows = 0
            for books in (self._pending, self._uses, self._received, self._squared_norms):
                books.clear()

    def _add_clipped(self, totals: dict[nn.Parameter, Tensor], factors: Tensor) -> None:
        def add(parameter: Tensor, total: Tensor) -> None:
            gradients = self._pending.get(cast(nn.Parameter, parameter))
            if gradients is not None:
                gradients.add_to(total, factors)

        if not self._sharded:
            for parameter, total in totals.items():
                add(parameter, total)
            return
        parameters = [*self._parameters]  # in the same order in all processes
        add_over_processes(parameters, [totals[p] for p in parameters], add)

    def close(self) -> None:
        """Give the layers their own forward back, and the memory free."""
        self._memories.clear()
        for layer in self._layers:
            del layer.forward

    def _recording(self, module: nn.Module, layer: Layer[Any]) -> Callable[[Tensor], Tensor]:
        # By name: while a sharded layer computes, its parameters are other tensors than these.
        named = {name: p for name, p in module.named_parameters(recurse=False) if p.requires_grad}
        names = ", ".join(self._parameters[parameter] for parameter in named.values())

        def forward(module: nn.Module, x: Tensor) -> Tensor:
            output, saved = layer.forward(module, x)
            if not torch.is_grad_enabled():
                return output
            self._uses.update(named.values())
            version = saved._version

            def receive(gradient: Tensor) -> None:
                if self._rows == 0:  # a backward pass that is not ours, such as an attribution's
                    return
                if len(gradient) != self._rows:
                    raise InputError(
                        f"the layer of {names} computed {len(gradient)} rows for "
                        f"{self._rows}: expected one for each row of the batch"
                    )
                if saved._version != version:
                    raise InputError(f"the input of the layer of {names} was changed in place")
                for name, part in layer.gradients(module, saved, gradient, self._records):
                    self._receive(named[name], part)

            return cast(Tensor, _Tap.apply(output, receive, self._leaf))  # type: ignore[no-untyped-call]

        return MethodType(forward, module)  # a copy of the module has the method of the copy

    def _receive(self, parameter: nn.Parameter, part: RecordGradients) -> None:
        whole = self._pending.get(parameter)
        if whole is not None:
            whole = whole.merge(part)
        elif isinstance(part, Products) and self._is_better_written_out(parameter, part):
            whole = part.write_out(self._memory(parameter, part))
        else:
            whole = part
        self._pending[parameter] = whole
        self._received[parameter] += 1
        # At least as often: uses from before the last micro-batch's end are forgotten.
        if self._received[parameter] >= self._uses[parameter]:
            self._squared_norms[parameter] = whole.squared_norms()  # now, while in the cache

    def _is_better_written_out(self, parameter: nn.Parameter, part: Products) -> bool:
        # A model is sharded for want of memory, and a record's gradient is as large as the model.
        return not self._sharded and part.is_better_written_out(self._uses[parameter])

    def _memory(self, parameter: nn.Parameter, part: Products) -> Tensor:
        """Memory that is kept between micro-batches: fresh pages cost more than the products."""
        records, *shape = part.matrix_shape
        memory = self._memories.get(parameter)
        if memory is None or len(memory) < records or memory.dtype != part.inputs.dtype:
            memory = self._memories[parameter] = part.inputs.new_empty(records, *shape)
        return memory[:records]

    def _require_all_met(self) -> None:
        for parameter, name in self._parameters.items():
            if parameter.grad is not None:
                raise InputError(
                    f"the trainable parameter {name} was used outside its layer, where its "
                    "gradient cannot be clipped"
                )
            if parameter not in self._pending:
                raise InputError(f"the loss does not depend on the trainable parameter {name}")
            if self._received[parameter] < self._uses[parameter]:  # some output went unused
                self._squared_norms[parameter] = self._pending[parameter].squared_norms()

    def _factors(self) -> Tensor:
        squared = torch.stack(list(self._squared_norms.values())).sum(0)
        factors = self._clip_factors(squared.sqrt())
        broken = ~squared.isfinite()
        if bool(broken.any()):
            # A weight of 0 is not enough: 0 times infinity is not a number.
            self.skipped_records += int(broken.sum())
            for gradients in self._pending.values():
                gradients.clear(broken)
            factors = factors.masked_fill(broken, 0.0)
        return factors


class _Tap(torch.autograd.Function):
    """The identity, which shows the gradient of an output to whoever keeps the books.

    A leaf is an input so that the output needs a gradient even where x does not.
    """

    @staticmethod
    def forward(
        ctx: Any, output: Tensor, receive: Callable[[Tensor], None], leaf: Tensor
    ) -> Tensor:
        ctx.receive = receive
        return output.detach()  # another tensor, that may be changed in place

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        ctx.receive(gradients[0])
        onwards = gradients[0] if ctx.needs_input_grad[0] else None
        return onwards, None, None


def _supported_layers(module: nn.Module) -> list[nn.Module]:
    layers: list[nn.Module] = []
    kinds: dict[nn.Parameter, type[nn.Module]] = {}
    for name, layer in module.named_modules():
        kind = type(layer)
        for parameter_name, parameter in layer.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            where = f"{name}.{parameter_name}".removeprefix(".")
            if kind not in LAYERS or _is_unusual(layer):
                raise InputError(
                    f"the trainable parameter {where} belongs to a {kind.__name__} whose "
                    "per-record gradients are not known to the book_keeping engine: freeze it, "
                    "or take the clipping engine hooks"
                )
            if kinds.setdefault(parameter, kind) is not kind:
                raise InputError(
                    f"the trainable parameter {where} is shared by a {kinds[parameter].__name__} "
                    f"and a {kind.__name__}: expected layers of one kind"
                )
            if layer not in layers:
                layers.append(layer)
    return layers


def _is_unusual(layer: nn.Module) -> bool:
    """Whether a layer does more than its kind's formula says."""
    if isinstance(layer, nn.Embedding):
        return layer.max_norm is not None or layer.scale_grad_by_freq or layer.sparse
    return "forward" in vars(layer)
