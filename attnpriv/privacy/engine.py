"""Clipped and noised optimizer steps, through the hooks of Opacus."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable

import torch
from opacus import GradSampleModule
from opacus.grad_sample import register_grad_sampler
from opacus.optimizers import DPOptimizer
from opacus.validators import ModuleValidator
from torch import Tensor, nn

from attnpriv.attention import PerRecord
from attnpriv.errors import InputError


@register_grad_sampler(PerRecord)  # type: ignore[untyped-decorator]
def _per_record_gradients(
    layer: PerRecord, activations: list[Tensor], backprops: Tensor
) -> dict[nn.Parameter, Tensor]:
    """Each record used its own copy, so that the gradients by the copies are what is wanted."""
    return {layer.weight: backprops}


class PrivateStepper:
    """Turns per-record losses into optimizer steps that clip each record and add noise.

    Claim: one ``step`` releases the sum of the records' gradients, each clipped in L2 to
    ``max_grad_norm`` over all trainable parameters together, plus Gaussian noise of standard
    deviation ``noise_multiplier · max_grad_norm``, divided by the *expected* batch size. An empty
    batch adds noise too. Condition: batches come from ``sampling.poisson_batches``, and the module
    computes each record's loss from that record alone. Not covered: floating-point attacks on the
    noise.

    Args:
        module: its parameters that require gradients are trained.
        optimizer: makes the update from the noised gradient.
        noise_multiplier: σ.
        max_grad_norm: C.
        expected_batch_size: q·N.
        generator: source of the noise.

    Raises:
        InputError: the module holds a layer whose records cannot be told apart, such as batch norm,
            or a trainable parameter that Opacus cannot clip.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        noise_multiplier: float,
        max_grad_norm: float,
        expected_batch_size: float,
        generator: torch.Generator,
    ) -> None:
        problems = ModuleValidator.validate(module, strict=False)
        if problems:
            raise InputError(f"the model cannot be trained privately: {problems[0]}")
        try:
            self.module = GradSampleModule(module, loss_reduction="sum")
        except NotImplementedError as error:
            raise InputError(f"the model cannot be trained privately: {error}") from error
        self.optimizer = DPOptimizer(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=expected_batch_size,
            generator=generator,
        )
        self.skipped_records = 0
        _require_all_trained(self.module, self.optimizer)

    def step(self, micro_batches: Iterable[Callable[[nn.Module], Tensor]]) -> None:
        """Make one noised step from any number of micro-batches, none included.

        Args:
            micro_batches: for each, a function from the module to the *sum* of its records' losses.
        """
        self.optimizer.zero_grad()
        for loss_of in micro_batches:
            with warnings.catch_warnings():
                # An embedding's inputs are ids; that they have no gradient is no news.
                warnings.filterwarnings("ignore", "Full backward hook is firing")
                loss_of(self.module).backward()  # type: ignore[no-untyped-call]
            self._drop_non_finite()
            self.optimizer.signal_skip_step(do_skip=True)
            self.optimizer.step()
            self.optimizer.zero_grad()
        # The step itself is an empty micro-batch: it adds the noise to what was accumulated.
        for parameter in self.optimizer.params:
            parameter.grad_sample = parameter.new_zeros(0, *parameter.shape)
        self.optimizer.signal_skip_step(do_skip=False)
        self.optimizer.step()

    def close(self) -> None:
        """Take the hooks off, so that the module is an ordinary one again."""
        self.optimizer.zero_grad(set_to_none=True)
        for parameter in self.optimizer.params:
            del parameter.grad_sample, parameter.summed_grad
        self.module.to_standard_module()

    def _samples(self) -> list[Tensor]:
        for name, parameter in self.module.named_parameters():
            if parameter.requires_grad and parameter.grad_sample is None:
                raise InputError(f"the loss does not depend on the trainable parameter {name}")
        return [parameter.grad_sample for parameter in self.optimizer.params]

    def _drop_non_finite(self) -> None:
        """Zero the gradients of records that hold a non-finite number: it would void the clip."""
        samples = self._samples()
        # A sum is finite only if every term is; it costs one pass and no tensor of this size.
        finite = torch.stack([s.flatten(1).sum(1) for s in samples]).isfinite().all(0)
        if not bool(finite.all()):
            self.skipped_records += int((~finite).sum())
            for sample in samples:
                sample[~finite] = 0.0


def _require_all_trained(module: nn.Module, optimizer: DPOptimizer) -> None:
    """Refuse a trainable parameter that the optimizer does not hold: it would escape the noise."""
    held = {id(parameter) for parameter in optimizer.params}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and id(parameter) not in held:
            raise InputError(f"parameter {name} is trainable but would not be clipped and noised")
