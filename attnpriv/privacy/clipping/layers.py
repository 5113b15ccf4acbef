"""The layers whose per-record gradients are known in closed form.

For each kind: how it computes with its parameters detached, and from what went in and the gradient
of what came out, the gradients of each record by each of its trainable parameters.

Shapes: N rows of a batch, R records of N/R rows each (augmented views of one record stand next to
each other), T positions, p inputs, d outputs, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnpriv.attention import PerRecord
from attnpriv.privacy.clipping.gradients import Dense, Products, RecordGradients, Rows

Gradients = Iterator[tuple[str, RecordGradients]]
Module = TypeVar("Module", bound=nn.Module, contravariant=True)


class Layer(Protocol[Module]):
    """How one kind of module computes and what its per-record gradients are."""

    def forward(self, module: Module, x: Tensor) -> tuple[Tensor, Tensor]:
        """The output, with no way back to the parameters, and what ``gradients`` needs of x."""

    def gradients(self, module: Module, saved: Tensor, gradient: Tensor, records: int) -> Gradients:
        """For each trainable parameter its name and its gradients, record by record.

        Args:
            module: the layer.
            saved: from ``forward``.
            gradient: of the output, [N, ...].
            records: R, a divisor of N.
        """


class _Linear:
    def forward(self, module: nn.Linear, x: Tensor) -> tuple[Tensor, Tensor]:
        x = _autocast(x)
        return F.linear(x, module.weight.detach(), _detached(module.bias)), x.detach()

    def gradients(
        self, module: nn.Linear, saved: Tensor, gradient: Tensor, records: int
    ) -> Gradients:
        gradient = gradient.reshape(records, -1, module.out_features)
        if module.weight.requires_grad:
            inputs = saved.reshape(records, -1, module.in_features)
            yield "weight", Products(inputs, gradient)
        if module.bias is not None and module.bias.requires_grad:
            yield "bias", Dense(gradient.sum(1, dtype=torch.float32))


class _LayerNorm:
    def forward(self, module: nn.LayerNorm, x: Tensor) -> tuple[Tensor, Tensor]:
        weight, bias = _detached(module.weight), _detached(module.bias)
        return F.layer_norm(x, module.normalized_shape, weight, bias, module.eps), x.detach()

    def gradients(
        self, module: nn.LayerNorm, saved: Tensor, gradient: Tensor, records: int
    ) -> Gradients:
        shape = module.normalized_shape
        gradient = gradient.reshape(records, -1, *shape)
        if module.weight.requires_grad:
            normed = F.layer_norm(saved.float(), shape, eps=module.eps).view_as(gradient)
            yield "weight", Dense(normed.mul_(gradient).sum(1))
        if module.bias is not None and module.bias.requires_grad:
            yield "bias", Dense(gradient.sum(1, dtype=torch.float32))


class _GroupNorm:
    def forward(self, module: nn.GroupNorm, x: Tensor) -> tuple[Tensor, Tensor]:
        weight, bias = _detached(module.weight), _detached(module.bias)
        return F.group_norm(x, module.num_groups, weight, bias, module.eps), x.detach()

    def gradients(
        self, module: nn.GroupNorm, saved: Tensor, gradient: Tensor, records: int
    ) -> Gradients:
        if module.weight.requires_grad:
            normed = F.group_norm(saved.float(), module.num_groups, eps=module.eps)
            yield "weight", Dense(_sum_by_channel(normed.mul_(gradient), records))
        if module.bias.requires_grad:
            yield "bias", Dense(_sum_by_channel(gradient, records))


class _Embedding:
    def forward(self, module: nn.Embedding, x: Tensor) -> tuple[Tensor, Tensor]:
        return F.embedding(x, module.weight.detach(), module.padding_idx), x

    def gradients(
        self, module: nn.Embedding, saved: Tensor, gradient: Tensor, records: int
    ) -> Gradients:
        gradient = gradient.reshape(records, -1, module.embedding_dim)
        ids = saved.reshape(records, -1)
        if module.padding_idx is not None:  # by definition, this row has no gradient
            gradient = gradient * (ids != module.padding_idx).unsqueeze(-1)
        yield "weight", Rows.of_lookups(gradient, ids, module.num_embeddings)


class _PerRecord:
    def forward(self, module: PerRecord, x: Tensor) -> tuple[Tensor, Tensor]:
        return module.weight.detach().expand(len(x), *module.weight.shape), x.detach()

    def gradients(
        self, module: PerRecord, saved: Tensor, gradient: Tensor, records: int
    ) -> Gradients:
        views = gradient.reshape(records, -1, *module.weight.shape)
        yield "weight", Dense(views.sum(1, dtype=torch.float32))


class _Convolution:
    """One or two dimensions: a linear layer on the patches under the kernel, group by group."""

    def forward(self, module: nn.Conv1d | nn.Conv2d, x: Tensor) -> tuple[Tensor, Tensor]:
        x = _autocast(x)
        # The module's own rule pads, whatever its mode; the tensors are swapped for detached ones.
        output = module._conv_forward(x, module.weight.detach(), _detached(module.bias))
        return output, x.detach()

    def gradients(
        self, module: nn.Conv1d | nn.Conv2d, saved: Tensor, gradient: Tensor, records: int
    ) -> Gradients:
        if module.weight.requires_grad:
            patches = _patches(module, saved)
            output = _by_group(gradient.flatten(2), module.groups)
            values = torch.einsum("ngdt,ngpt->ngdp", output.float(), patches.float())
            values = values.reshape(records, -1, *module.weight.shape).sum(1)
            yield "weight", Dense(values)
        if module.bias is not None and module.bias.requires_grad:
            yield "bias", Dense(_sum_by_channel(gradient, records))


LAYERS: dict[type[nn.Module], Layer[Any]] = {
    nn.Linear: _Linear(),
    nn.LayerNorm: _LayerNorm(),
    nn.GroupNorm: _GroupNorm(),
    nn.Embedding: _Embedding(),
    PerRecord: _PerRecord(),
    nn.Conv1d: _Convolution(),
    nn.Conv2d: _Convolution(),
}


def _patches(module: nn.Conv1d | nn.Conv2d, x: Tensor) -> Tensor:
    """What the kernel saw, [N, groups, p, T] for p inputs under the kernel of one group."""
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = F.pad(x, module._reversed_padding_repeated_twice, mode=mode)
    kernel, stride, dilation = module.kernel_size, module.stride, module.dilation
    if x.dim() == 3:  # a line is an image of height 1
        x = x.unsqueeze(2)
        kernel, stride, dilation = (1, *kernel), (1, *stride), (1, *dilation)
    unfolded = F.unfold(x, kernel, dilation, 0, stride)
    return _by_group(unfolded, module.groups)


def _by_group(x: Tensor, groups: int) -> Tensor:
    """[N, C, T] to [N, groups, C/groups, T]."""
    return x.reshape(len(x), groups, -1, x.shape[2])


def _sum_by_channel(x: Tensor, records: int) -> Tensor:
    """[N, C, ...] to [R, C]."""
    by_row = x.flatten(2).sum(2, dtype=torch.float32) if x.dim() > 2 else x.float()
    return by_row.reshape(records, -1, x.shape[1]).sum(1)


def _detached(parameter: Tensor | None) -> Tensor | None:
    return None if parameter is None else parameter.detach()


def _autocast(x: Tensor) -> Tensor:
    """The input in the precision in which autocast would compute, so that it is cast once."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x
