"""The gradients of one parameter, record by record, in the form that is cheapest to hold.

Shapes: R records, T positions of a record, p inputs and d outputs of a layer. Each form knows the
norms of its R gradients and adds their weighted sum to a total, whatever it is made of. Norms and
sums are in float32, and are of the same numbers, so that what was measured is what is added.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

# From this ratio of |terms|² to |sum|² on, a gradient is written out instead.
CANCELLATION = 100.0
# Inner products cost T²(p + d) multiplications a record; a gradient that is written out costs pd of
# memory to write and read twice, which on two cores is worth this many multiplications a number.
TRAFFIC = 30


class RecordGradients(Protocol):
    """The gradients of R records by one parameter."""

    def squared_norms(self) -> Tensor:
        """The squared L2 norm of each record's gradient, [R]."""

    def add_to(self, total: Tensor, weights: Tensor) -> None:
        """Add the sum of the gradients, each times its weight [R], to ``total`` in place."""

    def merge(self, other: Any) -> RecordGradients:
        """The gradients by a parameter that was used twice: the sums, record by record."""

    def clear(self, records: Tensor) -> None:
        """Replace the gradients of the chosen records, a mask [R], by zeros."""


class Dense:
    """Every gradient written out, [R, *shape of the parameter]."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def squared_norms(self) -> Tensor:
        """As in ``RecordGradients``."""
        # Row by row: over a million numbers at once, vector_norm is off by 1e-4 and more.
        rows = self.values.shape[1] if self.values.dim() > 2 else 1
        flat = self.values.reshape(len(self.values), rows, -1)
        norms: Tensor = torch.linalg.vector_norm(flat, dim=2, dtype=torch.float32)
        return norms.square().sum(1)

    def add_to(self, total: Tensor, weights: Tensor) -> None:
        """As in ``RecordGradients``."""
        flat = self.values.reshape(len(self.values), -1).to(total.dtype)
        total.view(-1).addmv_(flat.t(), weights)

    def merge(self, other: Dense | Products) -> Dense:
        """As in ``RecordGradients``."""
        if isinstance(other, Products):
            self.values.baddbmm_(other.gradients.transpose(1, 2), other.inputs)
        else:
            self.values += other.values
        return self

    def clear(self, records: Tensor) -> None:
        """As in ``RecordGradients``."""
        self.values[records] = 0


class Products:
    """The gradients ``g.T @ x`` of a matrix [d, p], kept as inputs and output gradients.

    Their norms come from inner products between positions (ghost norms: Goodfellow 2015; Li et al.
    2022, arXiv:2110.05679), which is cheap while there are few positions.

    Where positions cancel out, little is left of large terms but their rounding errors. A norm that
    is too short, or a sum that rounds otherwise than what was measured, would let a record past the
    clip: such a record's gradient is written out, and it is this that is measured and added.

    Args:
        inputs: x, [R, T, p].
        gradients: g, [R, T, d].
    """

    def __init__(self, inputs: Tensor, gradients: Tensor) -> None:
        self.inputs = inputs
        self.gradients = gradients
        self._cancelled: Tensor | None = None  # mask of records, [R]
        self._written_out: Dense | None = None  # what is left of them

    def squared_norms(self) -> Tensor:
        """As in ``RecordGradients``."""
        inputs, gradients = self.inputs.float(), self.gradients.float()
        if inputs.shape[1] == 1:
            return (inputs.square().sum(-1) * gradients.square().sum(-1)).squeeze(1)
        products = torch.bmm(inputs, inputs.transpose(1, 2))
        products *= torch.bmm(gradients, gradients.transpose(1, 2))
        squared = products.sum((1, 2))
        terms = products.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt().sum(1).square()
        cancelled = terms > CANCELLATION * squared
        if bool(cancelled.any()):
            left = torch.bmm(gradients[cancelled].transpose(1, 2), inputs[cancelled])
            self._cancelled, self._written_out = cancelled, Dense(left)
            squared[cancelled] = self._written_out.squared_norms()
        return squared

    def add_to(self, total: Tensor, weights: Tensor) -> None:
        """As in ``RecordGradients``."""
        if self._cancelled is not None and self._written_out is not None:
            self._written_out.add_to(total, weights[self._cancelled])
            weights = weights.masked_fill(self._cancelled, 0.0)
        scaled = self.gradients.to(total.dtype) * weights.view(-1, 1, 1)
        inputs = self.inputs.to(total.dtype)
        total.view(scaled.shape[-1], -1).addmm_(scaled.flatten(0, 1).t(), inputs.flatten(0, 1))

    def merge(self, other: Products) -> Products:
        """As in ``RecordGradients``: the positions of the second use follow those of the first."""
        return Products(
            torch.cat((self.inputs, other.inputs), dim=1),
            torch.cat((self.gradients, other.gradients), dim=1),
        )

    @property
    def matrix_shape(self) -> tuple[int, int, int]:
        """[R, d, p], the shape of the gradients written out."""
        return len(self.inputs), self.gradients.shape[2], self.inputs.shape[2]

    def is_better_written_out(self, uses: int) -> bool:
        """Whether the gradients are cheaper than products of T positions in each of the uses."""
        positions = self.inputs.shape[1] * uses
        _, d, p = self.matrix_shape
        return positions**2 * (p + d) > TRAFFIC * p * d

    def write_out(self, values: Tensor) -> Dense:
        """The gradients in memory of the right shape."""
        return Dense(torch.bmm(self.gradients.transpose(1, 2), self.inputs, out=values))

    def clear(self, records: Tensor) -> None:
        """As in ``RecordGradients``."""
        # New tensors: these are shared with the graph and with other parameters.
        keep = ~records.view(-1, 1, 1)
        self.inputs = torch.where(keep, self.inputs, 0)
        self.gradients = torch.where(keep, self.gradients, 0)
        if self._cancelled is not None and self._written_out is not None:
            self._written_out.clear(records[self._cancelled])


class Rows:
    """The gradients of a table of which each record looked up a few rows.

    Args:
        values: one gradient for each row that a record looked up, [U, D].
        owners: whose it is, [U], records from 0 to R - 1.
        rows: and of which row, [U]. No pair of owner and row comes twice.
        records: R.
    """

    def __init__(self, values: Tensor, owners: Tensor, rows: Tensor, records: int) -> None:
        self.values = values
        self.owners = owners
        self.rows = rows
        self.records = records

    @classmethod
    def of_lookups(cls, gradients: Tensor, ids: Tensor, table_size: int) -> Rows:
        """Sum the gradients [R, T, D] of lookups [R, T] that met the same row in one record."""
        records = len(ids)
        owners = torch.arange(records, device=ids.device).unsqueeze(1)
        keys, places = _unique((owners * table_size + ids).flatten())
        values = gradients.new_zeros(len(keys), gradients.shape[-1], dtype=torch.float32)
        values.index_add_(0, places, gradients.flatten(0, 1).float())
        return cls(values, keys // table_size, keys % table_size, records)

    def squared_norms(self) -> Tensor:
        """As in ``RecordGradients``."""
        squared = self.values.new_zeros(self.records)
        return squared.index_add_(0, self.owners, self.values.square().sum(1))

    def add_to(self, total: Tensor, weights: Tensor) -> None:
        """As in ``RecordGradients``."""
        total.index_add_(0, self.rows, self.values * weights[self.owners].unsqueeze(1))

    def merge(self, other: Rows) -> Rows:
        """As in ``RecordGradients``."""
        size = 1 + int(torch.cat((self.rows, other.rows)).max())
        keys, places = _unique(
            torch.cat((self.owners * size + self.rows, other.owners * size + other.rows))
        )
        values = self.values.new_zeros(len(keys), self.values.shape[1])
        values.index_add_(0, places, torch.cat((self.values, other.values)))
        return Rows(values, keys // size, keys % size, self.records)

    def clear(self, records: Tensor) -> None:
        """As in ``RecordGradients``."""
        self.values[records[self.owners]] = 0


def _unique(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct numbers, and where among them each one is."""
    unique, places = torch.unique(numbers, return_inverse=True)
    return unique, places
