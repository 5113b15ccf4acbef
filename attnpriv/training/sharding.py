"""Sharing a model among processes, so that each holds a part of it only (FSDP2).

Each process keeps a shard of every weight, and with it of its gradient, its average and what the
optimizer keeps. A block is put together in all processes before it computes, and taken apart
afterwards. A process has its records to itself and sees whole blocks of their gradients, so that it
clips them by norms over the whole model without asking the others.

Not covered: the network. What processes send is not noised yet, and may be of a single record.
"""

from __future__ import annotations

import copy
import ctypes

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from attnpriv.config import PrivacyConfig, TrainConfig
from attnpriv.errors import InputError
from attnpriv.models.blocks import BlocksClassifier
from attnpriv.models.classifier import AttentionClassifier
from attnpriv.privacy.shards import whole

MMAP_THRESHOLD, MEGABYTE = -3, 1 << 20  # an option of glibc's mallopt, and its value


def check_shardable(
    model: AttentionClassifier,
    config: TrainConfig,
    privacy: PrivacyConfig | None,
    *,
    taught: bool,
    gradient_canaries: bool,
) -> None:
    """Raise InputError unless a training's model can be shared among processes."""
    if not isinstance(model, BlocksClassifier):
        problem = f"shares a stack of transformer blocks, which {model.config.encoder} is not"
    elif config.trainable == "head":
        problem = "is of no use for --trainable head, which trains a single small layer"
    elif privacy is not None and privacy.clipping_engine != "book_keeping":
        problem = f"needs --clipping-engine book_keeping, got {privacy.clipping_engine}"
    elif taught:
        problem = "cannot be used with --distil-from"
    elif gradient_canaries:
        problem = "cannot be used with --canaries and an ε: each is one number of the whole model"
    else:
        return
    raise InputError(f"--shard {problem}: leave it out, and torchrun shares the records alone")


def twin_of(model: AttentionClassifier) -> AttentionClassifier:
    """Another module with the same parameters, which can be sharded in the model's place."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


def shard(module: nn.Module, blocks: nn.ModuleList) -> None:
    """Let this process keep its shard of each parameter of a module, and have others summed.

    Args:
        module: what computes losses.
        blocks: those of its modules that are put together one at a time.
    """
    _return_freed_memory()
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    for part in (*blocks, module):
        fully_shard(part, mesh=mesh)
    for part in module.modules():
        if isinstance(part, FSDPModule):  # sums, not means; and gloo knows no other
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)


def empty(model: nn.Module) -> None:
    """Give the memory of a model's parameters free, while its twin is trained."""
    for parameter in model.parameters():
        parameter.data = torch.empty(0)


def refill(model: nn.Module, twin: nn.Module) -> None:
    """Give an emptied model the weights of its twin; all processes must do so together."""
    for name, parameter in twin.named_parameters():
        model.get_parameter(name).data = whole(parameter.detach())


def _return_freed_memory() -> None:
    """Have the C library hand large tensors back to the system as they are freed, if it can.

    Whole blocks come and go all the time. glibc keeps up to 32 MiB of each for later, between
    tensors that stay, and a process grew by half a gigabyte.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(MMAP_THRESHOLD, MEGABYTE)
